//! A tiny network of machines: each party's flows, what was written, and what travelled. The tests play the guests.
//!
//! Every test runs twice: once with machines that live on, and once with each machine thrown away after each flush,
//! restored from what was written, and replayed with the same calls, which must get the same answers.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use maxhost_journal::wire::{FrameKind, session_token};
use maxhost_journal::{
    Answer, Arrival, Call, Delivery, Frame, FrameBatch, Initiation, JournalError, Limits, Machine, Nanos, Origin,
    Outgoing, Segment, StartRecord, Step,
};
use maxhost_model::{ErrorId, ErrorKind, FlowError, FlowRow, SessionId};
use prost::Message;

/// Where the virtual clock begins, nanoseconds since 1970.
pub const EPOCH: Nanos = 1_700_000_000_000_000_000;

/// Something a guest did, and what it was told.
#[derive(Debug, Clone)]
enum Event {
    Call(Call, Result<Answer, FlowError>),
    Note(String, Bytes),
    Progress(String),
    Random(Vec<u8>),
    Now(Nanos),
}

pub struct Flow {
    pub me: Arc<str>,
    pub row: FlowRow,
    pub start: StartRecord,
    pub machine: Machine,
    pub log: Vec<(u32, Bytes)>,
    pub inbox: Vec<Arrival>,
    pub progress: Vec<(u64, String)>,
    pub ended: bool,
    history: Vec<Event>,
    open: Option<Call>,
    finishing: bool,
    /// The answer that a restored machine had at once.
    ready: Option<Step>,
}

pub struct Net {
    pub flows: Vec<Flow>,
    /// What travelled, as `A→B Data(20)`.
    pub wire: Vec<String>,
    pub initiations: VecDeque<(Arc<str>, Initiation)>,
    pub now: Nanos,
    pub limits: Limits,
    evict: bool,
    /// Messages are kept here instead of being delivered while this is set.
    pub held: Option<Vec<(SessionId, u32, FrameBatch)>>,
}

/// Runs a test with machines that live on, and again with machines that are restored after each flush.
pub fn both(mut test: impl FnMut(&mut Net)) {
    for evict in [false, true] {
        test(&mut Net::new(evict));
    }
}

pub fn start_record(flow: &str, origin: Origin, started: Nanos) -> StartRecord {
    StartRecord {
        flow_id: [7; 16],
        flow: flow.to_owned(),
        flow_version: 3,
        cordapp: "test-app".to_owned(),
        cordapp_version: "1.0.0".to_owned(),
        component: [9; 32],
        arguments: Bytes::from_static(b"\xa0"),
        origin,
        seed: [5; 32],
        started,
        owning_key: None,
    }
}

pub fn rpc() -> Origin {
    Origin::Rpc { user: "local".to_owned() }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn business(message: &str) -> FlowError {
    FlowError {
        exception: Some("test/business".to_owned()),
        data: Some(vec![1, 2]),
        ..FlowError::new(ErrorKind::FlowException, message)
    }
}

pub fn panicked() -> FlowError {
    FlowError::new(ErrorKind::Unexpected, "the secret reason")
}

pub fn open(party: &str) -> Call {
    Call::OpenSession { protocol: "test-app/flow".to_owned(), version: 3, party: party.to_owned() }
}

pub fn send(session: u32, payload: &str) -> Call {
    Call::Send(vec![(session, Bytes::from(payload.to_owned()))])
}

pub fn ask(session: u32, payload: &str) -> Call {
    Call::SendAndReceive { session, payload: Bytes::from(payload.to_owned()) }
}

pub fn receive(session: u32) -> Call {
    Call::Receive { session, or_end: false }
}

pub fn receive_or_end(session: u32) -> Call {
    Call::Receive { session, or_end: true }
}

pub fn message(payload: &str) -> Answer {
    Answer::Message(Bytes::from(payload.to_owned()))
}

fn frame_text(frame: &Frame) -> String {
    match &frame.kind {
        Some(FrameKind::Data(payload)) => format!("Data({})", text(payload)),
        Some(FrameKind::Confirm(_)) => "Confirm".to_owned(),
        Some(FrameKind::Reject(reject)) => format!("Reject({})", reject.text),
        Some(FrameKind::Error(error)) => match &error.exception {
            Some(exception) => format!("Error({})", exception.message),
            None => "Error".to_owned(),
        },
        Some(FrameKind::End(_)) => "End".to_owned(),
        None => "?".to_owned(),
    }
}

impl Net {
    pub fn new(evict: bool) -> Net {
        Net {
            flows: Vec::new(),
            wire: Vec::new(),
            initiations: VecDeque::new(),
            now: EPOCH,
            limits: Limits::default(),
            evict,
            held: None,
        }
    }

    pub fn start(&mut self, me: &str) -> usize {
        self.start_with(me, rpc())
    }

    fn start_with(&mut self, me: &str, origin: Origin) -> usize {
        let row = FlowRow(self.flows.len() as i64 + 1);
        let start = start_record("flow", origin, self.now);
        let start = StartRecord::decode(&start.encode()).unwrap();
        let machine = Machine::start(me.into(), row, &start, self.limits);
        self.flows.push(Flow {
            me: me.into(),
            row,
            start,
            machine,
            log: Vec::new(),
            inbox: Vec::new(),
            progress: Vec::new(),
            ended: false,
            history: Vec::new(),
            open: None,
            finishing: false,
            ready: None,
        });
        self.flows.len() - 1
    }

    /// Starts a flow for the oldest initiation. Its confirmation is out when this returns.
    pub fn respond(&mut self) -> usize {
        let (party, initiation) = self.initiations.pop_front().expect("an initiation");
        let flow = self.start_with(&party, Origin::Peer(initiation));
        self.flush(flow);
        flow
    }

    /// Refuses the oldest initiation, as a host does that has no responder.
    pub fn reject(&mut self, words: &str) {
        let (party, initiation) = self.initiations.pop_front().expect("an initiation");
        let frame = Frame::reject(words, ErrorId(0xbad));
        self.deliver_from(&party, SessionId(initiation.from_session), 0, vec![frame]);
    }

    /// A batch from outside the machines.
    pub fn deliver_from(&mut self, from: &str, session: SessionId, seq: u32, frames: Vec<Frame>) -> Option<Delivery> {
        self.deliver(session, seq, &FrameBatch { from: from.to_owned(), frames, token: 0 })
    }

    /// A call; a flow that blocks is flushed.
    pub fn call(&mut self, flow: usize, call: Call) -> Step {
        let now = self.tick();
        let it = &mut self.flows[flow];
        assert!(it.open.is_none(), "one call at a time");
        let step = it.machine.begin(call.clone(), now).expect("no divergence");
        match &step {
            Step::Done(result) => it.history.push(Event::Call(call, result.clone())),
            Step::Blocked => {
                it.open = Some(call);
                self.flush(flow);
            }
            Step::Over(_) => {}
        }
        step
    }

    pub fn ok(&mut self, flow: usize, call: Call) -> Answer {
        match self.call(flow, call.clone()) {
            Step::Done(Ok(answer)) => answer,
            other => panic!("{call:?}: {other:?}"),
        }
    }

    pub fn fails(&mut self, flow: usize, call: Call) -> FlowError {
        match self.call(flow, call.clone()) {
            Step::Done(Err(error)) => error,
            other => panic!("{call:?}: {other:?}"),
        }
    }

    pub fn blocks(&mut self, flow: usize, call: Call) {
        let step = self.call(flow, call.clone());
        assert_eq!(step, Step::Blocked, "{call:?}");
    }

    pub fn session(&mut self, flow: usize, party: &str) -> u32 {
        match self.ok(flow, open(party)) {
            Answer::Session(session) => session,
            other => panic!("{other:?}"),
        }
    }

    /// Looks again at the open call.
    pub fn resume(&mut self, flow: usize) -> Step {
        let now = self.tick();
        let it = &mut self.flows[flow];
        let step = it.ready.take().unwrap_or_else(|| it.machine.resume(now));
        if let Step::Done(result) = &step
            && let Some(call) = it.open.take()
        {
            it.history.push(Event::Call(call, result.clone()));
        }
        if it.finishing && step != Step::Blocked {
            self.end(flow);
        }
        step
    }

    /// What the open call waits for in the ledger is there.
    pub fn found(&mut self, flow: usize, answer: &str) -> Answer {
        let now = self.tick();
        let it = &mut self.flows[flow];
        match it.machine.found(Bytes::from(answer.to_owned()), now) {
            Step::Done(Ok(answer)) => {
                let call = it.open.take().expect("an open call");
                it.history.push(Event::Call(call, Ok(answer.clone())));
                answer
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn gets(&mut self, flow: usize) -> Answer {
        match self.resume(flow) {
            Step::Done(Ok(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    pub fn gets_error(&mut self, flow: usize) -> FlowError {
        match self.resume(flow) {
            Step::Done(Err(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    pub fn still_blocked(&mut self, flow: usize) {
        assert_eq!(self.resume(flow), Step::Blocked);
    }

    pub fn finish(&mut self, flow: usize, outcome: Result<&str, FlowError>) -> Step {
        let outcome = outcome.map(|value| Bytes::from(value.to_owned()));
        let it = &mut self.flows[flow];
        let step = it.machine.finish(outcome, ErrorId(flow as u64 + 100)).expect("no divergence");
        it.finishing = true;
        match step {
            Step::Blocked => self.flush(flow),
            _ => self.end(flow),
        }
        step
    }

    pub fn returns(&mut self, flow: usize) {
        assert_eq!(self.finish(flow, Ok("done")), Step::Done(Ok(message("done"))));
    }

    pub fn abort(&mut self, flow: usize, error: FlowError) -> FlowError {
        let error = self.flows[flow].machine.abort(error, ErrorId(flow as u64 + 100));
        self.end(flow);
        error
    }

    fn end(&mut self, flow: usize) {
        self.flows[flow].ended = true;
        self.flush(flow);
        let it = &mut self.flows[flow];
        it.log.clear();
        it.inbox.clear();
    }

    pub fn note(&mut self, flow: usize, question: &str, answer: &str) -> Bytes {
        let answer = Bytes::from(answer.to_owned());
        let it = &mut self.flows[flow];
        let told = it.machine.note(question, || answer).expect("no divergence");
        it.history.push(Event::Note(question.to_owned(), told.clone()));
        told
    }

    pub fn progress(&mut self, flow: usize, label: &str) {
        let it = &mut self.flows[flow];
        it.machine.progress(label.to_owned()).unwrap();
        it.history.push(Event::Progress(label.to_owned()));
    }

    pub fn random(&mut self, flow: usize, length: usize) -> Vec<u8> {
        let it = &mut self.flows[flow];
        let bytes = it.machine.random(length);
        it.history.push(Event::Random(bytes.clone()));
        bytes
    }

    pub fn now(&mut self, flow: usize) -> Nanos {
        let it = &mut self.flows[flow];
        let now = it.machine.now();
        it.history.push(Event::Now(now));
        now
    }

    pub fn tick(&mut self) -> Nanos {
        self.now += 1_000;
        self.now
    }

    pub fn states(&self, flow: usize) -> Vec<&'static str> {
        self.flows[flow].machine.summaries().iter().map(|session| session.state).collect()
    }

    /// Writes down what the flow did and lets it travel.
    pub fn flush(&mut self, flow: usize) {
        let now = self.tick();
        let it = &mut self.flows[flow];
        let flush = it.machine.flush(now);
        it.log.extend(flush.segment);
        it.progress.extend(flush.progress);
        let me = it.me.clone();
        if self.evict && !self.flows[flow].ended {
            self.replay(flow);
        }
        for outgoing in flush.outgoing {
            self.travel(&me, outgoing);
        }
    }

    fn travel(&mut self, me: &str, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Initiate { party, initiation } => {
                assert_eq!(initiation.from, me);
                let payload = initiation.payload.as_ref().map(|payload| format!("({})", text(payload)));
                self.wire.push(format!("{me}→{party} Initial{}", payload.unwrap_or_default()));
                self.initiations.push_back((party, initiation));
            }
            Outgoing::Deliver { party, session, seq, batch } => {
                assert_eq!(batch.from, me);
                let flow = &self.flows[session.flow().0 as usize - 1];
                assert_eq!(*flow.me, *party, "to the flow of another");
                let token = session_token(&flow.start.seed, session.index(), me);
                assert_eq!(batch.token, token, "what only the counterparty knows");
                match &mut self.held {
                    Some(held) => held.push((session, seq, batch)),
                    None => {
                        self.deliver(session, seq, &batch);
                    }
                }
            }
        }
    }

    /// Hands a batch to the flow it is for, which keeps it. A confirmation for a flow that has ended is answered by
    /// the host: with what the flow had sent meanwhile, and an error.
    pub fn deliver(&mut self, session: SessionId, seq: u32, batch: &FrameBatch) -> Option<Delivery> {
        let flow = session.flow().0 as usize - 1;
        let it = &mut self.flows[flow];
        let me = it.me.clone();
        let batch = FrameBatch::decode(batch.encode_to_vec().as_slice()).unwrap();
        for frame in &batch.frames {
            self.wire.push(format!("{}→{} {}", batch.from, it.me, frame_text(frame)));
        }
        if it.ended {
            if let (0, Some(FrameKind::Confirm(confirm))) = (seq, &batch.frames[0].kind) {
                let error = FlowError { error_id: Some(ErrorId(0xdead)), ..panicked() };
                let unconfirmed = it.machine.unconfirmed().into_iter();
                let held = unconfirmed.filter(|(unconfirmed, _)| *unconfirmed == session).flat_map(|(_, held)| held);
                let frames = held.map(Frame::data).chain([Frame::error(&error)]).collect();
                self.deliver_from(&me, SessionId(confirm.session), 1, frames);
            }
            return None;
        }
        let delivery = it.machine.deliver(session.index(), seq, &batch);
        if delivery == Delivery::Taken {
            it.inbox.push((session, seq, Bytes::from(batch.encode_to_vec())));
        }
        if it.machine.is_dirty() && it.machine.wait().is_some() {
            self.flush(flow);
        }
        Some(delivery)
    }

    /// Throws the machine away, restores it, and replays the guest.
    pub fn replay(&mut self, flow: usize) {
        let now = self.tick();
        let it = &mut self.flows[flow];
        let (mut machine, step) = it.replayed(&it.stored(), self.limits, now);
        match step {
            Step::Blocked => {
                assert!(!machine.is_dirty(), "a replay adds nothing");
                assert!(machine.flush(now).is_empty(), "a replay adds nothing");
            }
            step => it.ready = Some(step),
        }
        it.machine = machine;
    }

    pub fn last_segment(&self, flow: usize) -> Segment {
        let (seq, bytes) = self.flows[flow].log.last().expect("a segment");
        Segment::decode_sealed(bytes, *seq).unwrap()
    }
}

/// What a database holds of a flow.
#[derive(Debug, Clone)]
pub struct Stored {
    pub row: FlowRow,
    pub start: Bytes,
    pub log: Vec<(u32, Bytes)>,
    pub inbox: Vec<Arrival>,
}

impl Stored {
    pub fn restore(&self, me: &str, limits: Limits) -> Result<Machine, JournalError> {
        let start = StartRecord::decode(&self.start)?;
        Machine::restore(me.into(), self.row, &start, limits, &self.log, &self.inbox)
    }
}

impl Flow {
    /// Whoever wrote an old journal was told this where a text says something else now. What was told stays.
    pub fn was_told(&mut self, before: &str, now: &str) {
        for event in &mut self.history {
            if let Event::Call(_, Err(error)) = event {
                error.message = error.message.replace(now, before);
            }
        }
    }

    pub fn stored(&self) -> Stored {
        let (log, inbox) = (self.log.clone(), self.inbox.clone());
        Stored { row: self.row, start: self.start.encode(), log, inbox }
    }

    /// The calls that have been answered, and the open one.
    pub fn calls(&self) -> Vec<Call> {
        let answered = self.history.iter().filter_map(|event| match event {
            Event::Call(call, _) => Some(call.clone()),
            _ => None,
        });
        answered.chain(self.open.clone()).collect()
    }

    /// A machine restored from these records, after the guest has run again and was told the same again; and where its
    /// open call stands.
    pub fn replayed(&self, stored: &Stored, limits: Limits, now: Nanos) -> (Machine, Step) {
        let mut machine = stored.restore(&self.me, limits).expect("a journal that can be restored");
        assert_eq!(machine.summaries(), self.machine.summaries(), "sessions stand as they stood");
        assert_eq!(machine.label(), self.machine.label());
        assert_eq!(machine.entries(), self.machine.entries());
        for event in &self.history {
            match event {
                Event::Call(call, told) => {
                    let step = machine.begin(call.clone(), now).expect("no divergence");
                    assert_eq!(step, Step::Done(told.clone()), "{call:?}");
                }
                Event::Note(question, told) => {
                    let answer = machine.note(question, || panic!("asked again")).expect("no divergence");
                    assert_eq!(answer, told);
                }
                Event::Progress(label) => machine.progress(label.clone()).unwrap(),
                Event::Random(bytes) => assert_eq!(&machine.random(bytes.len()), bytes),
                Event::Now(told) => assert_eq!(machine.now(), *told),
            }
        }
        assert_eq!(machine.is_replaying(), matches!(self.open, Some(Call::Sleep(_) | Call::SendAndReceive { .. })));
        let step = match &self.open {
            Some(call) => machine.begin(call.clone(), now),
            None if self.finishing => machine.finish(Ok(Bytes::from_static(b"done")), ErrorId(self.row.0 as u64 + 99)),
            None => Ok(Step::Blocked),
        };
        let step = step.expect("no divergence");
        assert!(!machine.is_replaying());
        if step == Step::Blocked {
            assert_eq!(machine.wait(), self.machine.wait());
        }
        (machine, step)
    }
}

/// An initiator and a responder that have confirmed, with nothing said yet.
pub fn pair(net: &mut Net) -> (usize, usize) {
    let a = net.start("A");
    net.session(a, "B");
    net.blocks(a, Call::FlowInfo(0));
    let b = net.respond();
    net.gets(a);
    net.wire.clear();
    (a, b)
}
