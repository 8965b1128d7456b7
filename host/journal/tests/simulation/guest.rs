//! The interpreter of the random programs: a guest as deterministic as a component instance, run from the start after
//! each restore.

use bytes::{BufMut, Bytes, BytesMut};
use maxhost_journal::{Answer, Call, Nanos};
use maxhost_model::{ErrorKind, FlowError};

use crate::program::{Op, Plan, Step, UNKNOWN, mix};

/// What the guest wants next.
#[derive(Debug)]
pub enum Ask {
    Call(Call),
    Note(String),
    Random(usize),
    Now,
    Label(String),
    End(Result<Bytes, FlowError>),
}

/// What a guest was told, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    Answer(Result<Answer, FlowError>),
    Bytes(Bytes),
    Now(Nanos),
}

/// What the guest knows of one of its sessions.
#[derive(Debug, Default, Clone)]
pub struct Peer {
    pub sent: u32,
    pub received: u32,
    /// Flow and session of the other end, as its messages say.
    from: Option<(u64, u16)>,
}

pub struct Guest {
    program: usize,
    /// The flow by its place in the plan, whatever row it got.
    logical: u64,
    at: usize,
    pub sessions: Vec<Peer>,
    last: u64,
    /// The flow's time, asked for the deadline of the step.
    time: Option<Nanos>,
    labels: u32,
    failed: Option<FlowError>,
}

/// Which flow sent a message, from which of its sessions, the how-manieth there.
fn payload(logical: u64, session: u16, number: u32, size: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(14 + size);
    out.put_u64(logical);
    out.put_u16(session);
    out.put_u32(number);
    out.put_bytes(size as u8, size);
    out.freeze()
}

/// The text of a business error that this flow throws.
pub fn thrown_by(logical: u64) -> String {
    format!("thrown by {logical:x}")
}

impl Guest {
    pub fn new(program: usize, logical: u64, responds: bool) -> Guest {
        let sessions = if responds { vec![Peer::default()] } else { Vec::new() };
        Guest { program, logical, at: 0, sessions, last: logical, time: None, labels: 0, failed: None }
    }

    fn step<'a>(&self, plan: &'a Plan) -> Option<&'a Step> {
        plan.programs[self.program].steps.get(self.at)
    }

    /// The sessions that a step means, each once or as often as it names them.
    fn resolve(&self, named: &[usize]) -> Vec<u32> {
        named.iter().map(|name| (name % self.sessions.len()) as u32).collect()
    }

    pub fn next(&mut self, plan: &Plan) -> Ask {
        loop {
            if let Some(error) = &self.failed {
                return Ask::End(Err(error.clone()));
            }
            let Some(step) = self.step(plan) else {
                return Ask::End(Ok(Bytes::copy_from_slice(&self.last.to_be_bytes())));
            };
            if let Some(ask) = self.ask(&step.op) {
                return ask;
            }
            self.at += 1;
        }
    }

    fn ask(&mut self, op: &Op) -> Option<Ask> {
        let none = self.sessions.is_empty();
        let call = match op {
            Op::Open { program, party } => {
                let protocol = format!("p{program}");
                Call::OpenSession { protocol, version: 1, party: party_name(*party) }
            }
            Op::OpenNobody => Call::RefuseSession {
                party: "nobody".to_owned(),
                error: Box::new(FlowError::new(ErrorKind::IllegalArgument, "there is no such party")),
            },
            Op::Sleep(milliseconds) => Call::Sleep(*milliseconds),
            Op::Note => return Some(Ask::Note(format!("question {}", self.at))),
            Op::Random(length) => return Some(Ask::Random(*length)),
            Op::Now => return Some(Ask::Now),
            Op::Label => {
                self.labels += 1;
                self.at += 1;
                return Some(Ask::Label(format!("label {}", self.labels)));
            }
            Op::SkipIfOdd(steps) => {
                self.at += if self.last & 1 == 1 { *steps } else { 0 };
                return None;
            }
            Op::Throw => {
                self.failed = Some(FlowError::new(ErrorKind::FlowException, thrown_by(self.logical)));
                return Some(Ask::End(Err(self.failed.clone()?)));
            }
            Op::Panic => {
                self.failed = Some(FlowError::new(ErrorKind::Unexpected, "a secret of this flow"));
                return Some(Ask::End(Err(self.failed.clone()?)));
            }
            _ if none => return None,
            Op::Send { to, size } => Call::Send(self.sends(&self.resolve(to), *size)),
            Op::Receive { from, or_end } => Call::Receive { session: self.resolve(&[*from])[0], or_end: *or_end },
            Op::Drain(from) => Call::Receive { session: self.resolve(&[*from])[0], or_end: true },
            Op::Exchange(with) => {
                let session = self.resolve(&[*with])[0];
                Call::SendAndReceive { session, payload: self.sends(&[session], 3).remove(0).1 }
            }
            Op::ReceiveAll(sessions) => Call::ReceiveAll(self.resolve(sessions)),
            Op::WaitAny { sessions, wait_ms } => {
                let deadline = match (wait_ms, self.time) {
                    (Some(_), None) => return Some(Ask::Now),
                    (Some(wait_ms), Some(time)) => Some(maxhost_journal::to_millis(time) + wait_ms),
                    (None, _) => None,
                };
                Call::WaitAny { sessions: self.resolve(sessions), deadline }
            }
            Op::Close(sessions) => Call::Close(self.resolve(sessions)),
            Op::FlowInfo(session) => Call::FlowInfo(self.resolve(&[*session])[0]),
        };
        Some(Ask::Call(call))
    }

    fn sends(&self, to: &[u32], size: usize) -> Vec<(u32, Bytes)> {
        let numbered = to.iter().enumerate().map(|(position, &session)| {
            let before = to[..position].iter().filter(|&&other| other == session).count() as u32;
            let number = self.sessions[session as usize].sent + before;
            (session, payload(self.logical, session as u16, number, size))
        });
        numbered.collect()
    }

    /// Takes an answer in.
    pub fn told(&mut self, plan: &Plan, told: &Told) {
        let Some(step) = self.step(plan) else { return };
        let result = match told {
            Told::Answer(result) => result,
            Told::Bytes(bytes) => {
                self.learn(bytes);
                self.at += 1;
                return;
            }
            Told::Now(now) => {
                if matches!(step.op, Op::WaitAny { .. }) {
                    self.time = Some(*now);
                } else {
                    self.at += 1;
                }
                return;
            }
        };
        self.time = None;
        match result {
            Ok(answer) => {
                self.answered(&step.op, answer);
                let goes_on = matches!(step.op, Op::Drain(_)) && *answer != Answer::Ended;
                self.at += usize::from(!goes_on);
            }
            Err(error) => {
                // A failed exchange may have sent its message; but then its session is over, and counts no more.
                self.last = mix(self.last ^ error.kind as u64);
                if step.caught {
                    self.at += 1;
                } else {
                    self.failed = Some(error.clone());
                }
            }
        }
    }

    fn answered(&mut self, op: &Op, answer: &Answer) {
        match (op, answer) {
            (Op::Open { .. }, Answer::Session(session)) => {
                assert_eq!(*session as usize, self.sessions.len(), "sessions are numbered as they are opened");
                self.sessions.push(Peer::default());
            }
            (Op::Send { to, .. }, Answer::Done) => {
                for session in self.resolve(to) {
                    self.sessions[session as usize].sent += 1;
                }
            }
            (Op::Exchange(with), Answer::Message(payload)) => {
                let session = self.resolve(&[*with])[0];
                self.sessions[session as usize].sent += 1;
                self.received(session, payload);
            }
            (Op::Receive { from, .. } | Op::Drain(from), Answer::Message(payload)) => {
                self.received(self.resolve(&[*from])[0], payload);
            }
            (Op::ReceiveAll(sessions), Answer::Messages(payloads)) => {
                assert_eq!(payloads.len(), sessions.len());
                for (session, payload) in self.resolve(sessions).into_iter().zip(payloads) {
                    self.received(session, payload);
                }
            }
            (Op::WaitAny { sessions, wait_ms }, Answer::Ready(ready)) => {
                let known = ready.is_none_or(|ready| self.resolve(sessions).contains(&ready));
                assert!(known && (ready.is_some() || wait_ms.is_some()));
                self.last = mix(self.last ^ ready.map_or(7, u64::from));
            }
            (Op::FlowInfo(_), Answer::FlowInfo { version: 1, app }) => assert_eq!(app, "app"),
            (Op::Receive { or_end: true, .. } | Op::Drain(_), Answer::Ended) => self.last = mix(self.last ^ 11),
            (Op::Close(_) | Op::Sleep(_), Answer::Done) => {}
            (op, answer) => panic!("{op:?} answered with {answer:?}"),
        }
    }

    /// Every message comes exactly once, in order, and from one and the same other end.
    fn received(&mut self, session: u32, payload: &Bytes) {
        let peer = &mut self.sessions[session as usize];
        let mut logical = [0; 8];
        logical.copy_from_slice(&payload[..8]);
        let sender = (u64::from_be_bytes(logical), u16::from_be_bytes([payload[8], payload[9]]));
        let number = u32::from_be_bytes([payload[10], payload[11], payload[12], payload[13]]);
        assert_eq!(number, peer.received, "message of session {session} in order and exactly once");
        assert_eq!(*peer.from.get_or_insert(sender), sender, "messages of session {session} from one sender");
        peer.received += 1;
        self.learn(payload);
    }

    fn learn(&mut self, bytes: &[u8]) {
        self.last = bytes.iter().fold(self.last, |last, byte| mix(last ^ u64::from(*byte)));
    }
}

pub fn party_name(party: usize) -> String {
    format!("P{party}")
}

/// The program behind a protocol's name, if anybody answers it.
pub fn responder(protocol: &str) -> Option<usize> {
    let program = protocol.strip_prefix('p')?.parse().ok()?;
    (program != UNKNOWN).then_some(program)
}
