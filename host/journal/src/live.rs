//! What each call does when it is made for the first time.

use bytes::Bytes;
use maxhost_model::{ErrorKind, FlowError};

use crate::call::{Answer, Step};
use crate::machine::{Blocking, MAX_SLEEP_MS, Machine, Outgoing};
use crate::record::{Closed, Entry, Failure, Opened, Ready, Received, ReceivedAll, Sent, SleepBegun, Told, Woke};
use crate::session::{Head, Session, SessionState};
use crate::wire::{Frame, FrameBatch, Initiation, session_token};
use crate::{Nanos, to_millis};

/// A batch takes no further frames beyond this: a broker that takes the largest message must take every batch.
const PARCEL_BYTES: usize = 256 * 1024;

/// A failure, and the session whose end, error or rejection it tells.
pub(crate) type Failed = (FlowError, Option<u32>);

impl Machine {
    pub(crate) fn open(&mut self, protocol: String, version: u32, party: String) -> Step {
        if self.sessions.len() >= self.limits.sessions.min(65_535) as usize {
            return Step::Over(FlowError::limit(
                "sessions",
                format!("the flow has opened {} sessions, which is the limit", self.sessions.len()),
            ));
        }
        self.sessions.push(Session::opened(party.as_str().into(), protocol.clone(), version));
        self.log(Entry::Opened(Opened { protocol, version, party }));
        Step::Done(Ok(Answer::Session(self.know_session())))
    }

    pub(crate) fn sleep(&mut self, milliseconds: u64, now: Nanos) -> Step {
        let from = to_millis(now);
        let until = from.saturating_add(milliseconds);
        let failure = (milliseconds > MAX_SLEEP_MS).then(|| {
            FlowError::new(
                ErrorKind::FlowException,
                format!(
                    "a flow may sleep for {MAX_SLEEP_MS} ms at most, not {milliseconds} ms: sleep several times, or wait for a \
                     deadline"
                ),
            )
        });
        let recorded = failure.as_ref().map(|error| Failure::new(error, None));
        self.log(Entry::SleepBegun(SleepBegun { milliseconds, until, failure: recorded }));
        match failure {
            Some(error) => Step::Done(Err(error)),
            None => {
                // Even a sleep of zero is a suspension (docs/behaviour.md 2.4), so it never ends within its own call.
                self.blocking = Some(Blocking::Sleep { until, from });
                Step::Blocked
            }
        }
    }

    /// All sessions are looked at before anything is sent, so that a failing call has sent nothing.
    pub(crate) fn send(&mut self, sends: Vec<(u32, Bytes)>, then_receive: bool) -> Result<(), FlowError> {
        let checked = sends.iter().try_for_each(|(session, payload)| self.may_send(*session, payload, then_receive));
        let mut logged: Vec<_> =
            sends.iter().map(|(session, payload)| crate::replay::summarise(*session, payload)).collect();
        match checked {
            Ok(()) => {
                for (one, (index, payload)) in logged.iter_mut().zip(sends) {
                    // The peer may confirm in another life of the flow: what is held back is kept in the log.
                    let held = self.sessions[index as usize].state == SessionState::Initiating;
                    one.held = held.then(|| payload.clone());
                    self.emit_send(index, payload);
                    self.sessions[index as usize].received_from |= then_receive;
                }
                self.log(Entry::Sent(Sent { sends: logged, then_receive, failure: None }));
                Ok(())
            }
            Err(failed) => {
                let failure = Some(self.failure(&failed));
                self.log(Entry::Sent(Sent { sends: logged, then_receive, failure }));
                Err(failed.0)
            }
        }
    }

    fn may_send(&self, index: u32, payload: &Bytes, then_receive: bool) -> Result<(), Failed> {
        if payload.len() > self.limits.message {
            let text = format!("a message of {} bytes, the network allows {}", payload.len(), self.limits.message);
            return Err((FlowError::limit("message", text), None));
        }
        let session = self.session(index).map_err(|error| (error, None))?;
        if let Some(error) = session.over() {
            return Err((error, Some(index)));
        }
        match session.head() {
            Head::Error(error) => Err((error, Some(index))),
            // A flow that only sends is not disturbed by a peer that ends early (docs/behaviour.md 5.2).
            Head::End if then_receive || session.received_from => Err((session.ended_error(), Some(index))),
            _ => Ok(()),
        }
    }

    fn emit_send(&mut self, index: u32, payload: Bytes) {
        let session = &mut self.sessions[index as usize];
        match session.state {
            SessionState::Uninitiated => self.emit_initiation(index, Some(payload)),
            SessionState::Initiating => session.held.push(payload),
            SessionState::Initiated => self.emit(index, Frame::data(payload)),
            // A session that is over has failed the check before.
            _ => {}
        }
    }

    fn emit_initiation(&mut self, index: u32, payload: Option<Bytes>) {
        self.outgoing_bytes += payload.as_ref().map_or(0, Bytes::len);
        let session = &mut self.sessions[index as usize];
        session.state = SessionState::Initiating;
        session.next_out = 1;
        let initiation = Initiation {
            from: self.me.to_string(),
            from_session: self.row.session(index as u16).0,
            from_token: session_token(&self.seed, index as u16, &session.peer),
            protocol: session.protocol.clone(),
            version: session.version,
            app: self.app.clone(),
            payload,
        };
        self.outgoing.push(Outgoing::Initiate { party: session.peer.clone(), initiation });
    }

    /// Sends a frame on an initiated session; frames of one flush to one session travel together, as far as a message
    /// may be large.
    pub(crate) fn emit(&mut self, index: u32, frame: Frame) {
        let Some(session) = self.sessions.get_mut(index as usize) else { return };
        let Some(to) = session.peer_session else { return };
        let seq = session.next_out;
        session.next_out += 1;
        let size = frame.size();
        self.outgoing_bytes += size;
        // Found by our own number of the session: a peer chooses its number itself, and two peers may choose alike.
        if let Some((position, bytes)) = &mut session.batch
            && *bytes + size <= PARCEL_BYTES
            && let Some(Outgoing::Deliver { batch, .. }) = self.outgoing.get_mut(*position)
        {
            *bytes += size;
            batch.frames.push(frame);
            return;
        }
        session.batch = Some((self.outgoing.len(), size));
        let batch = FrameBatch { from: self.me.to_string(), frames: vec![frame], token: session.peer_token };
        self.outgoing.push(Outgoing::Deliver { party: session.peer.clone(), session: to, seq, batch });
    }

    pub(crate) fn close(&mut self, sessions: Vec<u32>) -> Result<(), FlowError> {
        let checked = sessions.iter().try_for_each(|&index| self.may_close(index));
        let failure = checked.as_ref().err().map(|failed| self.failure(failed));
        if checked.is_ok() {
            sessions.iter().for_each(|&index| self.close_one(index));
        }
        self.log(Entry::Closed(Closed { sessions, failure }));
        checked.map_err(|(error, _)| error)
    }

    fn may_close(&self, index: u32) -> Result<(), Failed> {
        let session = self.session(index).map_err(|error| (error, None))?;
        match (&session.state, session.over()) {
            (SessionState::Uninitiated | SessionState::Initiating, _) => Err((
                FlowError::new(
                    ErrorKind::PrematureClose,
                    format!("the session with {} cannot be closed: the peer has not confirmed it yet", session.peer),
                ),
                None,
            )),
            // Every use of a rejected session throws with the peer's words (docs/behaviour.md 5.1).
            (SessionState::Rejected { .. }, Some(error)) => Err((error, Some(index))),
            _ => Ok(()),
        }
    }

    fn close_one(&mut self, index: u32) {
        if self.sessions[index as usize].state == SessionState::Initiated {
            if !self.sessions[index as usize].has_failed() {
                self.emit(index, Frame::end());
            }
            let session = &mut self.sessions[index as usize];
            session.state = SessionState::Closed;
            session.inbound.clear();
        }
    }

    fn session(&self, index: u32) -> Result<&Session, FlowError> {
        self.sessions.get(index as usize).ok_or_else(|| {
            FlowError::new(
                ErrorKind::IllegalArgument,
                format!("there is no session {index}: this flow has {} sessions", self.sessions.len()),
            )
        })
    }

    /// Tells the flow of a failure: the record for the log, and the end of the session it is about.
    pub(crate) fn failure(&mut self, (error, session): &Failed) -> Box<Failure> {
        if let Some(session) = session {
            self.tell_over(*session);
        }
        Failure::new(error, *session)
    }

    /// The flow has been told that a session is over.
    pub(crate) fn tell_over(&mut self, index: u32) {
        let received = self.sessions.get_mut(index as usize).and_then(Session::tell_over);
        self.received_errors.extend(received);
    }

    /// Tries an open call with what is there; parks it again if that is not enough.
    pub(crate) fn block(&mut self, blocking: Blocking, now: Nanos) -> Step {
        let result = match &blocking {
            Blocking::Receive { session, or_end } => self.try_receive(*session, *or_end, now),
            Blocking::ReceiveAll(sessions) => self.try_receive_all(sessions, now),
            Blocking::WaitAny { sessions, deadline } => self.try_wait_any(sessions, *deadline, now),
            Blocking::FlowInfo(session) => self.try_flow_info(*session, now),
            Blocking::Sleep { until, .. } => self.try_wake(*until, now),
            Blocking::Await(awaiting) => self.try_awaiting(awaiting, now),
            // Resumed by itself: it has no entry in the log.
            Blocking::Finish { .. } => None,
        };
        match result {
            Some(result) => Step::Done(result),
            None => {
                self.blocking = Some(blocking);
                Step::Blocked
            }
        }
    }

    fn try_wake(&mut self, until: u64, now: Nanos) -> Option<Result<Answer, FlowError>> {
        if to_millis(now) < until {
            return None;
        }
        let at = self.advance(now);
        self.log(Entry::Woke(Woke { at }));
        Some(Ok(Answer::Done))
    }

    /// The flow wants to receive from a session: if nothing was sent on it yet, its initiation goes out.
    fn ask(&mut self, index: u32) {
        self.sessions[index as usize].received_from = true;
        self.initiate(index);
    }

    fn initiate(&mut self, index: u32) {
        if self.sessions[index as usize].state == SessionState::Uninitiated {
            self.emit_initiation(index, None);
            self.log_event(Entry::Initiated(index));
        }
    }

    fn try_receive(&mut self, index: u32, or_end: bool, now: Nanos) -> Option<Result<Answer, FlowError>> {
        let taken = match self.session(index) {
            Err(error) => Err((error, None)),
            Ok(_) => {
                self.ask(index);
                self.take(index, or_end)?
            }
        };
        let at = self.advance(now);
        let mut entry = Received { session: index, or_end, seq: None, failure: None, at };
        let result = match taken {
            Ok(Some((seq, payload))) => {
                entry.seq = Some(seq);
                Ok(Answer::Message(payload))
            }
            Ok(None) => Ok(Answer::Ended),
            Err(failed) => {
                entry.failure = Some(self.failure(&failed));
                Err(failed.0)
            }
        };
        self.log(Entry::Received(entry));
        Some(result)
    }

    /// Consumes the head of a session; `None` if there is nothing yet. `Ok(None)` is the orderly end.
    #[allow(clippy::type_complexity, reason = "used in two places, named by the comment above")]
    fn take(&mut self, index: u32, or_end: bool) -> Option<Result<Option<(u32, Bytes)>, Failed>> {
        let session = &mut self.sessions[index as usize];
        if or_end && session.state == SessionState::Ended {
            return Some(Ok(None));
        }
        if let Some(error) = session.over() {
            return Some(Err((error, Some(index))));
        }
        match session.head() {
            Head::Empty => None,
            Head::Data => session.consume().map(|message| Ok(Some(message))),
            Head::End if or_end => {
                self.tell_over(index);
                Some(Ok(None))
            }
            Head::End => Some(Err((session.ended_error(), Some(index)))),
            Head::Error(error) => Some(Err((error, Some(index)))),
        }
    }

    fn try_receive_all(&mut self, sessions: &[u32], now: Nanos) -> Option<Result<Answer, FlowError>> {
        let failed = match self.check_distinct(sessions) {
            Err(error) => Some((error, None)),
            Ok(()) => {
                sessions.iter().for_each(|&index| self.ask(index));
                let failed = sessions.iter().find_map(|&index| self.receive_failure(index));
                let lacks = |&index: &u32| self.sessions[index as usize].head() != Head::Data;
                if failed.is_none() && sessions.iter().any(lacks) {
                    return None;
                }
                failed
            }
        };
        let at = self.advance(now);
        let mut entry = ReceivedAll { sessions: sessions.to_vec(), seqs: Vec::new(), failure: None, at };
        let result = match failed {
            Some(failed) => {
                entry.failure = Some(self.failure(&failed));
                Err(failed.0)
            }
            None => {
                let taken = sessions.iter().filter_map(|&index| self.sessions[index as usize].consume());
                let (seqs, messages) = taken.unzip();
                entry.seqs = seqs;
                Ok(Answer::Messages(messages))
            }
        };
        self.log(Entry::ReceivedAll(entry));
        Some(result)
    }

    /// Why a receive on this session would fail now.
    fn receive_failure(&self, index: u32) -> Option<Failed> {
        let session = &self.sessions[index as usize];
        let error = session.over().or_else(|| match session.head() {
            Head::End => Some(session.ended_error()),
            Head::Error(error) => Some(error),
            Head::Empty | Head::Data => None,
        });
        Some((error?, Some(index)))
    }

    fn check_distinct(&self, sessions: &[u32]) -> Result<(), FlowError> {
        let mut named = vec![false; self.sessions.len()];
        for &index in sessions {
            self.session(index)?;
            if std::mem::replace(&mut named[index as usize], true) {
                return Err(FlowError::new(ErrorKind::IllegalArgument, format!("session {index} is named twice")));
            }
        }
        Ok(())
    }

    fn try_wait_any(
        &mut self,
        sessions: &[u32],
        deadline: Option<u64>,
        now: Nanos,
    ) -> Option<Result<Answer, FlowError>> {
        let checked = self.check_distinct(sessions).and_then(|()| {
            let never = sessions.is_empty() && deadline.is_none();
            let error =
                || FlowError::new(ErrorKind::IllegalArgument, "nothing to wait for: no session and no deadline");
            if never { Err(error()) } else { Ok(()) }
        });
        let result = match checked {
            Err(error) => Err(error),
            Ok(()) => {
                sessions.iter().for_each(|&index| self.ask(index));
                let ready = sessions.iter().copied().find(|&index| self.sessions[index as usize].is_ready());
                if ready.is_none() && !deadline.is_some_and(|deadline| self.has_passed(deadline, now)) {
                    return None;
                }
                Ok(ready)
            }
        };
        let at = self.advance(now);
        self.log(Entry::Ready(Ready {
            sessions: sessions.to_vec(),
            deadline,
            session: result.as_ref().ok().copied().flatten(),
            failure: result.as_ref().err().map(|error| Failure::new(error, None)),
            at,
        }));
        Some(result.map(Answer::Ready))
    }

    fn try_flow_info(&mut self, index: u32, now: Nanos) -> Option<Result<Answer, FlowError>> {
        let result = match self.session(index) {
            Err(error) => Err((error, None)),
            Ok(_) => {
                self.initiate(index);
                let session = &self.sessions[index as usize];
                match (session.over(), session.head(), &session.info) {
                    (Some(error), ..) | (None, Head::Error(error), _) => Err((error, Some(index))),
                    (None, _, Some(info)) => Ok(info.clone()),
                    (None, _, None) => return None,
                }
            }
        };
        let failure = result.as_ref().err().map(|failed| self.failure(failed));
        let at = self.advance(now);
        let (version, app) = result.as_ref().ok().cloned().unwrap_or_default();
        self.log(Entry::Told(Told { session: index, version, app, failure, at }));
        Some(match result {
            Ok((version, app)) => Ok(Answer::FlowInfo { version, app }),
            Err((error, _)) => Err(error),
        })
    }
}
