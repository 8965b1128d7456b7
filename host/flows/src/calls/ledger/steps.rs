//! The steps of the platform's flows: each is an entry of the journal, and what it changes in the ledger is written in the
//! same commit. A flow that is run again takes the answer from the entry and changes nothing.

use std::future::Future;

use maxhost_journal::{Answer, Call, Divergence};
use maxhost_model::{Code, ErrorKind, FlowError, Problem, from_cbor, to_cbor};
use maxhost_sandbox::{CallError, CallResult};
use maxhost_store::{CommitUnit, LedgerOp, LedgerReceipt, Op, StoreError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::environment::LedgerEnvironment;
use super::refusal;
use crate::base::trouble::Trouble;
use crate::calls::{FlowCalls, Stop};

/// What a step comes to: an answer with what it changes in the ledger, or an error for the flow; or trouble of the host,
/// after which it is tried again.
pub(crate) type StepResult<T> = Result<Result<(T, Vec<LedgerOp>), FlowError>, Trouble>;

/// The longest entry, so that no step writes more than a commit can take at once. Bytes.
const MAX_ANSWER: usize = 16 << 20;

#[derive(Serialize, Deserialize)]
enum Noted<T> {
    Done(T),
    Failed(Box<FlowError>),
}

impl FlowCalls {
    pub(super) fn environment(&self) -> LedgerEnvironment {
        LedgerEnvironment { services: self.services.clone(), opened: self.opened.clone() }
    }

    /// One step. `work` is not begun when the flow is run again.
    pub(super) async fn step<T: Serialize + DeserializeOwned>(
        &mut self,
        what: &str,
        work: impl Future<Output = StepResult<T>> + Send,
    ) -> CallResult<T> {
        self.check_signals()?;
        let what = format!("ledger {what}");
        if self.shadow && !self.machine.is_replaying() {
            return self.stop(Stop::Diverged(Divergence {
                position: self.machine.entries(),
                expected: "the end of the flow".to_owned(),
                actual: what,
            }));
        }
        let mut answer = Vec::new();
        if !self.machine.is_replaying() {
            let (noted, ops) = match work.await {
                Ok(Ok((answer, ops))) => (Noted::Done(answer), ops),
                Ok(Err(error)) => (Noted::Failed(Box::new(error.bounded())), Vec::new()),
                Err(trouble) => return self.stop(Stop::Trouble(trouble)),
            };
            answer = match to_cbor(&noted) {
                Ok(answer) => answer,
                Err(error) => return self.stop(Stop::Trouble(Trouble::defect(error.to_string()))),
            };
            if answer.len() > MAX_ANSWER {
                let text = format!("an answer of {} bytes, {MAX_ANSWER} are allowed", answer.len());
                return self.stop(Stop::Over(FlowError::limit("message", text)));
            }
            self.ledger_unwritten |= !ops.is_empty();
            self.ledger_ops.extend(ops.into_iter().map(Op::from));
        }
        if let Some(error) = self.machine.exceeded() {
            return self.stop(Stop::Over(error));
        }
        let noted = self.machine.note(&what, || answer.into());
        self.flush_if_due().await?;
        let bytes = match noted {
            Err(divergence) => return self.stop(Stop::Diverged(divergence)),
            Ok(bytes) => bytes,
        };
        match from_cbor(&bytes) {
            Ok(Noted::Done(answer)) => Ok(answer),
            Ok(Noted::Failed(error)) => Err((*error).into()),
            Err(error) => {
                let problem = Problem::new(Code::JournalCorrupt, error.to_string());
                self.stop(Stop::Trouble(Trouble::Permanent(problem)))
            }
        }
    }

    /// Waits until all that the flow has changed in the ledger is in the database, where steps look for it.
    pub(super) async fn ledger_written(&mut self) -> CallResult<()> {
        if !std::mem::take(&mut self.ledger_unwritten) {
            return Ok(());
        }
        self.flush();
        self.flow.settle().await;
        self.check_signals()
    }

    /// Commits an operation on the ledger now, behind all that the flow has handed in, and waits for its answer. It must
    /// be one that may be repeated: the flow may not live to note the answer.
    pub(super) fn commit_now(
        &mut self,
        op: LedgerOp,
    ) -> impl Future<Output = Result<LedgerReceipt, Trouble>> + Send + use<> {
        if !self.machine.is_replaying() {
            self.flush();
        }
        let (store, author, attempt) =
            (self.services.committer.store.clone(), self.opened.author(), self.flow.attempt.clone());
        async move {
            let (reply, answer) = oneshot::channel();
            let done = Box::new(move |outcome| drop(reply.send(outcome)));
            let unit = CommitUnit {
                author,
                attempt: Some(attempt),
                depends_on: Default::default(),
                ops: vec![op.into()],
                done,
            };
            store.submit(unit);
            let receipt = answer.await.unwrap_or(Err(StoreError::Closed));
            let receipt = receipt.map_err(|error| match error {
                // An earlier unit of the run was not written: it goes back to its last commit.
                StoreError::Superseded => Trouble::Passing(Problem::from(error)),
                error => Trouble::from(Problem::from(error)),
            })?;
            let answer = receipt.ledger.into_iter().next().map(|(_, answer)| answer);
            answer.ok_or_else(|| Trouble::defect("the ledger did not answer"))
        }
    }

    /// Sends a message of a protocol.
    pub(super) async fn tell<T: Serialize>(&mut self, session: u32, message: &T) -> CallResult<()> {
        let payload = self.encode(message)?;
        self.ask_local(Call::Send(vec![(session, payload.into())])).await.map(|_| ())
    }

    /// Waits for a message of a protocol.
    pub(super) async fn hear<T: DeserializeOwned>(&mut self, session: u32) -> CallResult<T> {
        match self.ask(Call::Receive { session, or_end: false }).await? {
            Answer::Message(payload) => from_cbor(&payload).map_err(|error| {
                let peer = self.machine.counterparty(session).cloned().unwrap_or_default();
                refusal::protocol(format!("{peer} sent what is no message of the protocol: {error}")).into()
            }),
            other => self.misanswered(&other),
        }
    }

    /// Sends a message, and waits for the answer.
    pub(super) async fn ask_peer<T: DeserializeOwned>(
        &mut self,
        session: u32,
        message: &impl Serialize,
    ) -> CallResult<T> {
        self.tell(session, message).await?;
        self.hear(session).await
    }

    fn encode<T: Serialize>(&mut self, message: &T) -> CallResult<Vec<u8>> {
        match to_cbor(message) {
            Ok(payload) => Ok(payload),
            Err(error) => self.stop(Stop::Trouble(Trouble::defect(error.to_string()))),
        }
    }

    /// The name of the other side of a session.
    pub(super) fn peer_of(&self, session: u32) -> CallResult<String> {
        self.machine.counterparty(session).map(ToString::to_string).ok_or_else(|| {
            CallError::from(FlowError::new(ErrorKind::IllegalArgument, format!("there is no session {session}")))
        })
    }
}
