//! Waits for something that is found outside of the journal, in the ledger. Whoever drives the machine looks for it whenever
//! the call blocks; the machine knows what is waited for, until when, and which errors of peers end the wait.

use bytes::Bytes;
use maxhost_model::FlowError;

use crate::call::{Answer, Awaited, Step, Wait, WaitKind};
use crate::live::Failed;
use crate::machine::{Blocking, Machine};
use crate::record::{Entry, Found};
use crate::session::{Head, SessionState};
use crate::{Millis, Nanos};

/// The open call.
#[derive(Debug, Clone)]
pub(crate) struct Awaiting {
    kind: WaitKind,
    what: String,
    pub deadline: Option<Millis>,
    /// What of it is looked for next; unknown until somebody has looked.
    awaited: Option<Awaited>,
}

impl Awaiting {
    pub fn new(kind: WaitKind, what: String, deadline: Option<Millis>) -> Awaiting {
        Awaiting { kind, what, deadline, awaited: None }
    }

    /// Whether an error of any session ends the wait, as it does that for a transaction (docs/behaviour.md 2.6).
    fn minds_errors(&self) -> bool {
        self.kind == WaitKind::LedgerCommit
    }
}

/// The wait as the request that it is, for people.
pub(crate) fn describe(what: &str, deadline: Option<Millis>) -> String {
    let until = deadline.map(|deadline| format!(" until {deadline}"));
    format!("wait for {what}{}", until.unwrap_or_default())
}

impl Machine {
    /// Whether it is there already nobody has looked yet, so the call blocks in any case.
    pub(crate) fn begin_awaiting(&mut self, mut awaiting: Awaiting) -> Step {
        awaiting.awaited = self.stored_awaited(awaiting.kind, awaiting.deadline);
        self.blocking = Some(Blocking::Await(awaiting));
        Step::Blocked
    }

    /// Whether the open call waits for something outside of the journal.
    #[must_use]
    pub fn is_awaiting(&self) -> bool {
        matches!(self.blocking, Some(Blocking::Await(_)))
    }

    /// Somebody has looked for what the open call waits for, and this of it was not there.
    pub fn awaits_next(&mut self, next: Awaited) {
        if let Some(Blocking::Await(awaiting)) = &mut self.blocking {
            awaiting.awaited = Some(next);
        }
    }

    /// What the open call waits for is there: its answer. A machine whose open call waits for something else stays as it is.
    pub fn found(&mut self, answer: Bytes, now: Nanos) -> Step {
        match self.blocking.take() {
            Some(Blocking::Await(awaiting)) => Step::Done(self.end_awaiting(&awaiting, Ok(Some(answer)), now)),
            other => {
                self.blocking = other;
                Step::Blocked
            }
        }
    }

    /// The error that ends the wait, or its deadline.
    pub(crate) fn try_awaiting(&mut self, awaiting: &Awaiting, now: Nanos) -> Option<Result<Answer, FlowError>> {
        let failed = if awaiting.minds_errors() { self.any_failure() } else { None };
        match failed {
            Some(failed) => Some(self.end_awaiting(awaiting, Err(failed), now)),
            None => {
                let is_over = awaiting.deadline.is_some_and(|deadline| self.has_passed(deadline, now));
                is_over.then(|| self.end_awaiting(awaiting, Ok(None), now))
            }
        }
    }

    fn end_awaiting(
        &mut self,
        awaiting: &Awaiting,
        result: Result<Option<Bytes>, Failed>,
        now: Nanos,
    ) -> Result<Answer, FlowError> {
        let at = self.advance(now);
        let (what, deadline) = (awaiting.what.clone(), awaiting.deadline);
        match result {
            Ok(answer) => {
                self.log(Entry::Found(Found { what, deadline, answer: answer.clone(), failure: None, at }));
                Ok(Answer::Found(answer))
            }
            Err(failed) => {
                let failure = Some(self.failure(&failed));
                self.log(Entry::Found(Found { what, deadline, answer: None, failure, at }));
                Err(failed.0)
            }
        }
    }

    /// The error or rejection of the first session that has one of which the flow was not told.
    fn any_failure(&self) -> Option<Failed> {
        (0..).zip(&self.sessions).find_map(|(index, session)| {
            let error = match (&session.state, session.head()) {
                (SessionState::Rejected { told: false, .. }, _) => session.over(),
                (_, Head::Error(error)) => Some(error),
                _ => None,
            };
            Some((error?, Some(index)))
        })
    }

    /// What the wait is for, and the sessions whose news may end it.
    pub(crate) fn awaits(&self, awaiting: &Awaiting) -> Wait {
        let is_heard = |state: &SessionState| matches!(state, SessionState::Initiating | SessionState::Initiated);
        let sessions = (0..).zip(&self.sessions).filter(|(_, session)| is_heard(&session.state));
        let sessions = if awaiting.minds_errors() { sessions.map(|(index, _)| index).collect() } else { Vec::new() };
        Wait { kind: awaiting.kind, sessions, until: awaiting.deadline, awaited: awaiting.awaited.clone() }
    }
}
