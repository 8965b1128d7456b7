//! What stands in for the guests' code: both ends of a conversation, over the calls that a component would make. What deals
//! with money has a file of its own (`wallet.rs`). Flows of the platform are run as they are.

use std::collections::HashMap;

use maxhost_journal::{Origin, StartRecord};
use maxhost_model::{ErrorKind, FlowError, FlowRow, Invalid, SessionId, to_cbor};
use maxhost_sandbox::{CallError, CallResult, FlowHost, Outcome, Trap, TrapKind};
use parking_lot::Mutex;

use super::PARTIES;
use super::database::Disk;
use super::faults::Faults;
use super::plan::{Move, Plan, Root};
use super::wallet::Wallet;
use crate::calls::{FlowCalls, run_native};
use crate::guests::flow_code::FlowCode;

/// What a flow says that fails because its world has it fail.
pub(super) const PLANNED_FAILURE: &str = "fails as planned";

/// What the guests of one world know.
pub(crate) struct Guests {
    plan: Plan,
    faults: Faults,
    disk: Disk,
    /// Which root a flow that was started from outside is.
    roots: Mutex<HashMap<FlowRow, usize>>,
}

/// What a message says, without its padding.
pub(super) fn label_of(payload: &[u8]) -> Vec<u8> {
    payload.split(|byte| *byte == b'.').next().unwrap_or_default().to_vec()
}

/// One end of one session: whose it is, and what was sent and received on it so far.
struct End {
    root: usize,
    talk: usize,
    session: u32,
    sends: char,
    receives: char,
    sent: u32,
    received: u32,
}

impl End {
    fn of_initiator(root: usize, talk: usize, session: u32) -> End {
        End { root, talk, session, sends: 'i', receives: 'r', sent: 0, received: 0 }
    }

    fn of_responder(root: usize, talk: usize) -> End {
        End { root, talk, session: 0, sends: 'r', receives: 'i', sent: 0, received: 0 }
    }
}

impl Guests {
    pub(super) fn new(plan: Plan, faults: Faults, disk: Disk) -> Guests {
        Guests { plan, faults, disk, roots: Mutex::default() }
    }

    /// Runs one flow, as a component would be run.
    pub async fn run(&self, code: &FlowCode, mut run: FlowCalls, start: &StartRecord) -> (FlowCalls, Outcome) {
        self.faults.defect(60);
        if self.faults.mishap(20) {
            super::tell(|| format!("flow {} gets no instance", run.flow.row.0));
            let trap = Trap { kind: TrapKind::Host, message: "no instance".to_owned(), backtrace: None };
            return (run, Outcome::Trapped(trap));
        }
        super::tell(|| format!("flow {} runs", run.flow.row.0));
        if let FlowCode::Native(native) = code {
            let outcome = Box::pin(run_native(&mut run, native.kind, &start.arguments)).await;
            super::tell(|| format!("flow {} leaves: {outcome:?} {:?}", run.flow.row.0, run.stop));
            return (run, outcome);
        }
        let outcome = match &start.origin {
            _ if self.plan.is_about_money() => self.deals(&mut run, start).await,
            Origin::Rpc { .. } => {
                let index = usize::from(start.arguments.first().copied().unwrap_or_default());
                self.roots.lock().insert(run.flow.row, index);
                self.initiator(&mut run, index).await.map(|received| to_cbor(&received))
            }
            Origin::Peer(initiation) => {
                let session = SessionId(initiation.from_session);
                let root = self.roots.lock().get(&session.flow()).copied();
                match root {
                    Some(root) => {
                        let received = self.responder(&mut run, root, usize::from(session.index())).await;
                        received.map(|received| to_cbor(&received))
                    }
                    None => {
                        self.is_wrong(format!("an initiation of a flow that nobody started: {session:?}"));
                        Ok(to_cbor(&()))
                    }
                }
            }
        };
        super::tell(|| format!("flow {} leaves: {outcome:?} {:?}", run.flow.row.0, run.stop));
        let outcome = match outcome {
            Ok(result) => Outcome::Returned(result.unwrap()),
            Err(CallError::Failure(error)) => Outcome::Failed(error),
            Err(CallError::Stop) => Outcome::Stopped,
        };
        (run, outcome)
    }

    fn is_wrong(&self, text: String) {
        self.disk.audit.lock().is_wrong(text);
    }

    /// One end of deals with money: all deals of a root, or the other end of one. Gives the transactions that became final;
    /// deals that may be refused, and are, give none.
    async fn deals(&self, run: &mut FlowCalls, start: &StartRecord) -> CallResult<Result<Vec<u8>, Invalid>> {
        let name = run.opened.entry.text.clone();
        let us = PARTIES.iter().position(|party| *name == **party).unwrap();
        let mut wallet = Wallet { run, us };
        if let Origin::Peer(_) = start.origin {
            return wallet.take_part().await.map(|done| to_cbor(&done));
        }
        let Root { deals, fails_after, .. } = &self.plan.roots[usize::from(start.arguments[0])];
        let mut done = Vec::new();
        for (number, deal) in deals.iter().enumerate() {
            if *fails_after == Some(number) {
                return Err(FlowError::new(ErrorKind::FlowException, PLANNED_FAILURE).into());
            }
            match wallet.deal(*deal).await {
                Ok(more) => done.extend(more),
                Err(CallError::Failure(error)) if self.plan.may_refuse(&error) => {
                    super::tell(|| format!("{deal:?} is refused: {error}"));
                    if !wallet.run.machine.is_replaying() {
                        self.disk.audit.lock().refused(&error);
                    }
                }
                Err(other) => return Err(other),
            }
        }
        if *fails_after == Some(deals.len()) {
            return Err(FlowError::new(ErrorKind::FlowException, PLANNED_FAILURE).into());
        }
        Ok(to_cbor(&done))
    }

    /// Gives how many messages it has received.
    async fn initiator(&self, run: &mut FlowCalls, index: usize) -> CallResult<u64> {
        let Root { talks, fails_after, .. } = &self.plan.roots[index];
        let mut ends = Vec::new();
        for (number, talk) in talks.iter().enumerate() {
            let session = run.open_session("ping".to_owned(), PARTIES[talk.with].to_owned()).await?;
            ends.push(End::of_initiator(index, number, session));
        }
        let longest = talks.iter().map(|talk| talk.moves.len()).max().unwrap_or_default();
        let mut done = 0;
        for step in 0..longest {
            for (talk, end) in talks.iter().zip(&mut ends) {
                let Some(one) = talk.moves.get(step) else { continue };
                if *fails_after == Some(done) {
                    return Err(FlowError::new(ErrorKind::FlowException, PLANNED_FAILURE).into());
                }
                done += 1;
                match *one {
                    Move::There(bytes) => self.send(run, end, bytes).await?,
                    Move::Back(_) => self.receive(run, end).await?,
                    Move::InitiatorSleeps(time) => run.sleep(time).await?,
                    Move::ResponderSleeps(_) | Move::ResponderGrows(_) => {}
                    Move::InitiatorLooks(time) => {
                        let deadline = run.now() / 1_000_000 + time;
                        run.wait_any(vec![end.session], Some(deadline)).await?;
                    }
                }
            }
        }
        if *fails_after == Some(done) {
            return Err(FlowError::new(ErrorKind::FlowException, PLANNED_FAILURE).into());
        }
        // The peers end in order, however late they are.
        for (end, talk) in ends.iter().zip(talks) {
            if talk.is_spoken() && run.receive_or_end(end.session).await?.is_some() {
                self.is_wrong(format!("root {index} got one message too many on session {}", end.session));
            }
        }
        Ok(ends.iter().map(|end| u64::from(end.received)).sum())
    }

    async fn responder(&self, run: &mut FlowCalls, root: usize, talk: usize) -> CallResult<u64> {
        let mut end = End::of_responder(root, talk);
        for one in &self.plan.roots[root].talks[talk].moves {
            match *one {
                Move::There(_) => self.receive(run, &mut end).await?,
                Move::Back(bytes) => self.send(run, &mut end, bytes).await?,
                Move::ResponderSleeps(time) => run.sleep(time).await?,
                Move::ResponderGrows(bytes) => FlowHost::memory(run, bytes).await?,
                Move::InitiatorSleeps(_) | Move::InitiatorLooks(_) => {}
            }
        }
        Ok(u64::from(end.received))
    }

    /// A message says whose it is, its number, and when it was made: a message that is made again, after what it was made
    /// of was never written, says something else.
    async fn send(&self, run: &mut FlowCalls, end: &mut End, bytes: usize) -> CallResult<()> {
        let End { root, talk, sends, sent, .. } = end;
        let mut text = format!("{root} {talk} {sends} {sent} {}.", run.now()).into_bytes();
        text.resize(text.len().max(bytes), b'.');
        end.sent += 1;
        run.send(end.session, text).await
    }

    async fn receive(&self, run: &mut FlowCalls, end: &mut End) -> CallResult<()> {
        let payload = run.receive(end.session).await?;
        let End { root, talk, receives, received, .. } = end;
        let expected = format!("{root} {talk} {receives} {received} ");
        end.received += 1;
        if !payload.starts_with(expected.as_bytes()) {
            let got: String = String::from_utf8_lossy(&payload).chars().take(60).collect();
            self.is_wrong(format!("expected a message '{expected}', got '{got}'"));
        }
        run.progress(String::from_utf8_lossy(&label_of(&payload)).into_owned()).await
    }
}
