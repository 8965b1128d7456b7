//! The end of a flow (docs/behaviour.md 4.6, 4.7): what is waited for, and what the peers are told.

use bytes::Bytes;
use maxhost_model::{ErrorId, ErrorKind, FlowError};

use crate::call::{Answer, Divergence, Step};
use crate::machine::{Blocking, Machine};
use crate::session::{Session, SessionState};
use crate::wire::Frame;

impl Machine {
    /// The guest has returned. A result waits until the peers have confirmed or rejected all sessions; an error does
    /// not. When the step is done or over, its answer is the outcome, [`Machine::flush`] has the last messages, and
    /// nothing may be asked any more. `error_id` numbers the error if it has no number of its own.
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
        self.catching_up = false;
        Ok(match outcome {
            Ok(value) => self.try_finish(value, error_id),
            Err(error) => Step::Over(self.fail(self.own_or_received(error), error_id)),
        })
    }

    /// Ends the flow from outside, whatever it does: killed, over a limit, or its CorDapp is gone. After a finish it
    /// only numbers the error.
    pub fn abort(&mut self, error: FlowError, error_id: ErrorId) -> FlowError {
        self.replay.clear();
        self.blocking = None;
        self.fail(error, error_id)
    }

    pub(crate) fn try_finish(&mut self, value: Bytes, error_id: ErrorId) -> Step {
        if !self.initiating().is_empty() {
            self.blocking = Some(Blocking::Finish { value, error_id });
            return Step::Blocked;
        }
        // A rejection nobody asked about fails the flow all the same.
        let untold = |session: &&Session| matches!(session.state, SessionState::Rejected { told: false, .. });
        match self.sessions.iter().find(untold).and_then(Session::over) {
            Some(error) => Step::Over(self.fail(error, error_id)),
            None => {
                self.tell_peers(&Frame::end());
                Step::Done(Ok(Answer::Message(value)))
            }
        }
    }

    fn fail(&mut self, error: FlowError, error_id: ErrorId) -> FlowError {
        let error = FlowError { error_id: error.error_id.or(Some(error_id)), ..error };
        let frame = Frame::error(&error);
        let too_big = frame.size() > self.limits.message;
        self.tell_peers(&if too_big { Frame::error(&self.shortened(&error)) } else { frame });
        error
    }

    /// An exception that cannot be sent as it is goes as a plain one with its message (docs/behaviour.md 4.6).
    fn shortened(&self, error: &FlowError) -> FlowError {
        let mut end = error.message.len().min(self.limits.message);
        while !error.message.is_char_boundary(end) {
            end -= 1;
        }
        FlowError { message: error.message[..end].to_owned(), exception: None, data: None, ..error.clone() }
    }

    /// Every confirmed session whose other side lives is told how the flow ended: a business error of our own as it
    /// is, everything else by its number. A received exception is not handed on, and its sender is told nothing: that
    /// session is over. Sessions that are still initiating: see [`Machine::unconfirmed`].
    fn tell_peers(&mut self, frame: &Frame) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        for index in 0..self.sessions.len() {
            let session = &self.sessions[index];
            if session.state == SessionState::Initiated && !session.has_failed() {
                self.emit(index as u32, frame.clone());
            }
        }
    }

    /// Only an exception that a peer really sent may keep that peer's name; then it also keeps its number.
    fn own_or_received(&self, error: FlowError) -> FlowError {
        let received = error.error_id.is_some_and(|id| self.received_errors.contains(&id.0));
        if error.kind == ErrorKind::FlowException && !received {
            return FlowError { peer: None, ..error };
        }
        error
    }
}
