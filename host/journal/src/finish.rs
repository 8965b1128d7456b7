//! The end of a flow (spec 1.4, 2.5): what is waited for, and what the peers are told.

use bytes::Bytes;
use maxhost_model::{ErrorId, ErrorKind, FlowError};

use crate::call::{Answer, Divergence, Step};
use crate::machine::{Blocking, Machine};
use crate::session::SessionState;
use crate::wire::Frame;

impl Machine {
    /// The guest has returned. A result waits until the peers have confirmed or rejected all sessions; an error does
    /// not. When the step is done, its answer is the outcome, [`Machine::flush`] has the last messages, and nothing may
    /// be asked any more. `error_id` numbers the error if it has no number of its own.
    ///
    /// # Errors
    /// The log has entries that the guest did not come to.
    pub fn finish(&mut self, outcome: Result<Bytes, FlowError>, error_id: ErrorId) -> Result<Step, Divergence> {
        if let Some(entry) = self.replay.front() {
            return Err(Divergence {
                position: self.position,
                expected: crate::replay::describe(entry),
                actual: "the end of the flow".to_owned(),
            });
        }
        let outcome = outcome.map_err(|error| self.own_or_received(error, error_id));
        Ok(self.try_finish(outcome))
    }

    /// Ends the flow from outside, whatever it does: killed, over a limit, or its CorDapp is gone.
    pub fn abort(&mut self, error: FlowError, error_id: ErrorId) -> FlowError {
        self.replay.clear();
        self.blocking = None;
        let error = FlowError { error_id: error.error_id.or(Some(error_id)), ..error };
        self.tell_peers(&error);
        error
    }

    pub(crate) fn try_finish(&mut self, outcome: Result<Bytes, FlowError>) -> Step {
        let result = match outcome {
            Err(error) => Err(error),
            Ok(value) => {
                if !self.initiating().is_empty() {
                    self.blocking = Some(Blocking::Finish(Box::new(Ok(value))));
                    return Step::Blocked;
                }
                // A rejection nobody asked about fails the flow all the same.
                let untold = |session: &&crate::session::Session| {
                    matches!(session.state, SessionState::Rejected { told: false, .. })
                };
                match self.sessions.iter().find(untold).and_then(crate::session::Session::over) {
                    Some(error) => Err(error),
                    None => Ok(value),
                }
            }
        };
        match result {
            Ok(value) => {
                self.each_initiated(|_| Frame::end());
                Step::Done(Ok(Answer::Message(value)))
            }
            Err(error) => {
                self.tell_peers(&error);
                Step::Over(error)
            }
        }
    }

    /// Every confirmed session whose other side lives is told: a business error of our own as it is, everything else
    /// by its number. A received exception is not handed on, and its sender is told nothing: that session is over.
    fn tell_peers(&mut self, error: &FlowError) {
        self.each_initiated(|_| Frame::error(error));
    }

    fn each_initiated(&mut self, frame: impl Fn(u32) -> Frame) {
        for index in 0..self.sessions.len() as u32 {
            let session = &self.sessions[index as usize];
            let errored = session.inbound.values().any(|frame| matches!(frame, crate::wire::FrameKind::Error(_)));
            if session.state == SessionState::Initiated && !errored {
                self.emit(index, frame(index));
            }
        }
    }

    /// Only an exception that a peer really sent may keep that peer's name; then it also keeps its number.
    fn own_or_received(&self, error: FlowError, error_id: ErrorId) -> FlowError {
        let received = error.error_id.is_some_and(|id| self.received_errors.contains(&id.0));
        if error.kind == ErrorKind::FlowException && !received {
            return FlowError { peer: None, error_id: error.error_id.or(Some(error_id)), ..error };
        }
        FlowError { error_id: error.error_id.or(Some(error_id)), ..error }
    }
}
