//! The machine: one flow's journal and sessions, between the guest that asks and the engine that writes and delivers.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use maxhost_model::{ErrorKind, FlowError, FlowRow, SessionId};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::call::{Answer, Call, Divergence, Step, Wait, WaitKind};
use crate::record::{
    Closed, Entry, Failure, Item, Opened, Origin, Ready, Received, ReceivedAll, Refused, Seen, Segment, Sent, SentOne,
    SleepBegun, StartRecord, Told, WaitRecord, Woke,
};
use crate::session::{Head, Session, SessionState, SessionSummary};
use crate::wire::{Confirm, Frame, FrameKind, Initiation, Parcel};
use crate::{Nanos, to_millis};

/// Longest sleep (spec 1.1): five minutes.
pub const MAX_SLEEP_MS: u64 = 5 * 60 * 1000;
/// Longest progress label that is kept, characters (spec 1.1).
pub const MAX_LABEL: usize = 256;
/// A run that does not wait is written down after so many entries or bytes.
const FLUSH_ENTRIES: usize = 128;
const FLUSH_BYTES: usize = 256 * 1024;

/// What one flow may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Entries in the journal.
    pub entries: u64,
    /// Bytes in the journal, with the messages it received.
    pub bytes: u64,
    /// Bytes of one message (network parameter `maxMessageSize`).
    pub message: usize,
    /// Sessions of one flow; at most 65,535.
    pub sessions: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { entries: 50_000, bytes: 64 << 20, message: 10 << 20, sessions: 10_000 }
    }
}

/// What a flush sends.
#[derive(Debug, Clone, PartialEq)]
pub enum Outgoing {
    /// To a party: please start a responder.
    Initiate {
        /// Its name.
        party: Arc<str>,
        /// With this.
        initiation: Initiation,
    },
    /// To the other end of a session.
    Deliver {
        /// Its owner.
        party: Arc<str>,
        /// Its session.
        session: SessionId,
        /// Number of the first frame.
        seq: u32,
        /// The frames.
        parcel: Parcel,
    },
}

/// What has to be written, all of it in one transaction, before any of it is visible to anybody.
#[derive(Debug, Default)]
pub struct Flush {
    /// Number and bytes of the new log segment.
    pub segment: Option<(u32, Bytes)>,
    /// Messages.
    pub outgoing: Vec<Outgoing>,
    /// New progress labels with their numbers.
    pub progress: Vec<(u64, String)>,
}

impl Flush {
    /// True if there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segment.is_none() && self.outgoing.is_empty() && self.progress.is_empty()
    }
}

/// The call that has no answer yet.
#[derive(Debug, Clone)]
pub(crate) enum Blocking {
    Receive { session: u32, or_end: bool },
    ReceiveAll(Vec<u32>),
    WaitAny { sessions: Vec<u32>, deadline: Option<u64> },
    FlowInfo(u32),
    Sleep { until: u64 },
    Finish(Box<Result<Bytes, FlowError>>),
}

/// One flow's journal and sessions.
pub struct Machine {
    pub(crate) me: Arc<str>,
    pub(crate) row: FlowRow,
    pub(crate) app: String,
    pub(crate) limits: Limits,
    pub(crate) sessions: Vec<Session>,
    /// Logged answers that the guest has not asked for again.
    pub(crate) replay: VecDeque<Entry>,
    /// Sessions that the guest knows of: fewer than there are while it replays.
    pub(crate) known_sessions: u32,
    /// Answers given so far in this life, replayed or new.
    pub(crate) position: u64,
    pub(crate) blocking: Option<Blocking>,
    pending: Vec<Item>,
    pending_bytes: usize,
    pub(crate) outgoing: Vec<Outgoing>,
    entries: u64,
    bytes: u64,
    next_segment: u32,
    stored_wait: Option<Wait>,
    clock: Nanos,
    rng: ChaCha8Rng,
    labels: u64,
    stored_labels: u64,
    new_labels: Vec<String>,
    label: Option<String>,
    /// Numbers of the exceptions that peers sent: only these may be handed on as received.
    pub(crate) received_errors: Vec<u64>,
}

impl Machine {
    /// The machine of a flow that begins now. A responder's confirmation is its first outgoing frame.
    #[must_use]
    pub fn start(me: Arc<str>, row: FlowRow, start: &StartRecord, limits: Limits) -> Machine {
        let mut machine = Machine::empty(me, row, start, limits);
        if let Origin::Peer(_) = &start.origin {
            let confirm =
                Confirm { session: row.session(0).0, version: start.flow_version, app: start.cordapp.clone() };
            if let (Some(peer), Some(session)) = (machine.sessions[0].peer_session, machine.sessions.first()) {
                let party = session.peer.clone();
                let parcel = Parcel { from: machine.me.to_string(), frames: vec![FrameKind::Confirm(confirm).into()] };
                machine.outgoing.push(Outgoing::Deliver { party, session: peer, seq: 0, parcel });
            }
        }
        machine
    }

    pub(crate) fn empty(me: Arc<str>, row: FlowRow, start: &StartRecord, limits: Limits) -> Machine {
        let sessions = match &start.origin {
            Origin::Rpc { .. } => Vec::new(),
            Origin::Peer(initiation) => vec![Session::responding(initiation.from.as_str().into(), initiation)],
        };
        let known_sessions = sessions.len() as u32;
        Machine {
            me,
            row,
            known_sessions,
            app: start.cordapp.clone(),
            limits,
            sessions,
            replay: VecDeque::new(),
            position: 0,
            blocking: None,
            pending: Vec::new(),
            pending_bytes: 0,
            outgoing: Vec::new(),
            entries: 0,
            bytes: 0,
            next_segment: 0,
            stored_wait: None,
            clock: start.started,
            rng: ChaCha8Rng::from_seed(start.seed),
            labels: 0,
            stored_labels: 0,
            new_labels: Vec::new(),
            label: None,
            received_errors: Vec::new(),
        }
    }

    /// True while answers come from the log.
    #[must_use]
    pub fn is_replaying(&self) -> bool {
        !self.replay.is_empty()
    }

    /// Asks for something. At most one call may be open.
    ///
    /// # Errors
    /// The guest asks for something else than the log says it did.
    pub fn begin(&mut self, call: Call, now: Nanos) -> Result<Step, Divergence> {
        if self.is_replaying() {
            return self.begin_replayed(call, now);
        }
        if let Some(error) = self.exceeded() {
            return Ok(Step::Over(error));
        }
        Ok(match call {
            Call::OpenSession { protocol, version, party } => self.open(protocol, version, party),
            Call::RefuseSession { party, error } => {
                let failure = Some(Failure::new(&error, None));
                self.log(Entry::Refused(Refused { party, failure }));
                Step::Done(Err(*error))
            }
            Call::Send(sends) => Step::Done(self.send(sends, false).map(|()| Answer::Done)),
            Call::SendAndReceive { session, payload } => match self.send(vec![(session, payload)], true) {
                Ok(()) => self.block(Blocking::Receive { session, or_end: false }, now),
                Err(error) => Step::Done(Err(error)),
            },
            Call::Receive { session, or_end } => self.block(Blocking::Receive { session, or_end }, now),
            Call::ReceiveAll(sessions) => self.block(Blocking::ReceiveAll(sessions), now),
            Call::WaitAny { sessions, deadline } => self.block(Blocking::WaitAny { sessions, deadline }, now),
            Call::FlowInfo(session) => self.block(Blocking::FlowInfo(session), now),
            Call::Close(sessions) => {
                let result = self.close(&sessions);
                let failure = result.as_ref().err().map(|error| Failure::new(error, None));
                self.log(Entry::Closed(Closed { sessions, failure }));
                Step::Done(result.map(|()| Answer::Done))
            }
            Call::Sleep(milliseconds) => self.sleep(milliseconds, now),
        })
    }

    /// Looks again at the open call, after an arrival or when time has passed.
    pub fn resume(&mut self, now: Nanos) -> Step {
        match self.blocking.take() {
            Some(blocking) => self.block(blocking, now),
            None => Step::Blocked,
        }
    }

    /// What the open call waits for.
    #[must_use]
    pub fn wait(&self) -> Option<Wait> {
        let (kind, sessions, until) = match self.blocking.as_ref()? {
            Blocking::Receive { session, .. } => (WaitKind::Receive, vec![*session], None),
            Blocking::ReceiveAll(sessions) => (WaitKind::ReceiveAll, sessions.clone(), None),
            Blocking::WaitAny { sessions, deadline } => (WaitKind::WaitAny, sessions.clone(), *deadline),
            Blocking::FlowInfo(session) => (WaitKind::FlowInfo, vec![*session], None),
            Blocking::Sleep { until } => (WaitKind::Sleep, Vec::new(), Some(*until)),
            Blocking::Finish(_) => (WaitKind::Confirmation, self.initiating(), None),
        };
        Some(Wait { kind, sessions, until })
    }

    /// Until when the open call waits at the latest, milliseconds since 1970.
    #[must_use]
    pub fn wait_until(&self) -> Option<u64> {
        match self.blocking.as_ref()? {
            Blocking::WaitAny { deadline, .. } => *deadline,
            Blocking::Sleep { until } => Some(*until),
            _ => None,
        }
    }

    /// Answers a question whose answer lies outside the journal: from the log if the guest has asked before, else by
    /// `answer`, which is then logged.
    ///
    /// # Errors
    /// The log has something else here.
    pub fn note(&mut self, question: &str, answer: impl FnOnce() -> Bytes) -> Result<Bytes, Divergence> {
        if self.is_replaying() {
            return self.note_replayed(question);
        }
        let answer = answer();
        self.log(Entry::Noted(crate::record::Noted { question: question.to_owned(), answer: answer.clone() }));
        Ok(answer)
    }

    /// Logical time: that of the last event the flow consumed, plus a nanosecond a call, so that it always rises.
    pub fn now(&mut self) -> Nanos {
        self.clock += 1;
        self.clock
    }

    /// The next bytes of the flow's randomness.
    #[must_use]
    pub fn random(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// A progress label; cut to [`MAX_LABEL`] characters. Labels that a replay gives again are recognised by their number.
    pub fn progress(&mut self, label: String) {
        let label = match label.char_indices().nth(MAX_LABEL) {
            Some((end, _)) => label[..end].to_owned(),
            None => label,
        };
        self.labels += 1;
        if self.labels > self.stored_labels {
            self.pending_bytes += label.len();
            self.label = Some(label.clone());
            self.new_labels.push(label);
        }
    }

    /// The current progress label.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// Name of a session's counterparty.
    #[must_use]
    pub fn counterparty(&self, session: u32) -> Option<&Arc<str>> {
        self.sessions.get(session as usize).map(|session| &session.peer)
    }

    /// All sessions, for people.
    #[must_use]
    pub fn summaries(&self) -> Vec<SessionSummary> {
        self.sessions.iter().map(Session::summary).collect()
    }

    /// Entries in the log, written or not.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Bytes of the log and of the messages received.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// True if a flush would write something.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.pending.is_empty() || !self.outgoing.is_empty() || !self.new_labels.is_empty()
    }

    /// True if the run should be written down although it does not wait.
    #[must_use]
    pub fn is_flush_due(&self) -> bool {
        self.pending.len() >= FLUSH_ENTRIES || self.pending_bytes >= FLUSH_BYTES
    }

    /// Takes what has to be written. Whoever takes it must write it, or drop the machine and restore it later.
    pub fn flush(&mut self, now: Nanos) -> Flush {
        let wait = self.wait();
        let progress = std::mem::take(&mut self.new_labels);
        let mut flush = Flush { outgoing: std::mem::take(&mut self.outgoing), ..Flush::default() };
        if !self.pending.is_empty() || !progress.is_empty() || wait != self.stored_wait {
            let segment = Segment {
                items: std::mem::take(&mut self.pending),
                wait: wait.as_ref().map(WaitRecord::new),
                seen: self.seen(),
                progress_count: self.labels.max(self.stored_labels),
                progress: progress.clone(),
                at: now,
            };
            let bytes = segment.encode_sealed();
            self.bytes += bytes.len() as u64;
            flush.segment = Some((self.next_segment, bytes));
            self.next_segment += 1;
            self.stored_wait = wait;
        }
        self.pending_bytes = 0;
        self.stored_labels = self.stored_labels.max(self.labels);
        let first = self.stored_labels - progress.len() as u64 + 1;
        flush.progress = (first..).zip(progress).collect();
        flush
    }

    /// The error of a flow that has used up its journal.
    fn exceeded(&self) -> Option<FlowError> {
        let limits = &self.limits;
        let what = if self.entries >= limits.entries {
            format!("the flow has made {} journal entries, the limit is {}", self.entries, limits.entries)
        } else if self.bytes + self.pending_bytes as u64 >= limits.bytes {
            format!("the flow's journal has {} bytes, the limit is {}", self.bytes, limits.bytes)
        } else {
            return None;
        };
        Some(FlowError::limit("journal", what))
    }

    pub(crate) fn log(&mut self, entry: Entry) {
        self.pending_bytes += entry.encoded_len();
        self.entries += 1;
        self.position += 1;
        self.pending.push(Item { entry: Some(entry) });
    }

    /// Logs what happened without being asked for.
    pub(crate) fn log_event(&mut self, entry: Entry) {
        self.log(entry);
        self.position -= 1;
    }

    /// Takes over counters of the stored log.
    pub(crate) fn restored(&mut self, segments: u32, entries: u64, bytes: u64, last: Option<&Segment>) {
        self.next_segment = segments;
        self.entries = entries;
        self.bytes = bytes;
        if let Some(segment) = last {
            self.stored_wait = segment.waits_for();
            self.stored_labels = segment.progress_count;
        }
    }

    pub(crate) fn restore_label(&mut self, label: Option<String>) {
        self.label = label;
    }

    pub(crate) fn count_bytes(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// The flow has consumed an event of this time.
    pub(crate) fn advance(&mut self, at: Nanos) -> Nanos {
        self.clock = self.clock.max(at);
        self.clock
    }

    fn seen(&self) -> Vec<Seen> {
        let inbound = self.sessions.iter().enumerate();
        inbound.map(|(index, session)| Seen { session: index as u32, next: session.next_unseen() }).collect()
    }

    pub(crate) fn initiating(&self) -> Vec<u32> {
        let sessions = self.sessions.iter().enumerate();
        let waiting = sessions.filter(|(_, session)| session.state == SessionState::Initiating);
        waiting.map(|(index, _)| index as u32).collect()
    }

    fn open(&mut self, protocol: String, version: u32, party: String) -> Step {
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

    /// The index of the session that the guest has just opened.
    pub(crate) fn know_session(&mut self) -> u32 {
        self.known_sessions += 1;
        self.known_sessions - 1
    }

    fn sleep(&mut self, milliseconds: u64, now: Nanos) -> Step {
        let until = to_millis(now).saturating_add(milliseconds);
        let failure = (milliseconds > MAX_SLEEP_MS).then(|| {
            FlowError::new(
                ErrorKind::FlowException,
                format!("a flow may sleep for {MAX_SLEEP_MS} ms at most, not {milliseconds} ms: use a scheduled state"),
            )
        });
        let recorded = failure.as_ref().map(|error| Failure::new(error, None));
        self.log(Entry::SleepBegun(SleepBegun { milliseconds, until, failure: recorded }));
        match failure {
            Some(error) => Step::Done(Err(error)),
            None => {
                // Even a sleep of zero is a suspension (spec 1.1), so it never ends within its own call.
                self.blocking = Some(Blocking::Sleep { until });
                Step::Blocked
            }
        }
    }

    /// All sessions are looked at before anything is sent, so that a failing call has sent nothing.
    fn send(&mut self, sends: Vec<(u32, Bytes)>, then_receive: bool) -> Result<(), FlowError> {
        let checked = sends.iter().try_for_each(|(session, payload)| self.may_send(*session, payload, then_receive));
        let mut logged = Vec::with_capacity(sends.len());
        for (session, payload) in &sends {
            let mut sent = crate::replay::summarise(*session, payload);
            if checked.is_ok() && self.sessions[*session as usize].state == SessionState::Initiating {
                sent.held = Some(payload.clone());
            }
            logged.push(sent);
        }
        let failure = checked.as_ref().err().map(|(error, session)| Failure::new(error, *session));
        if let Err((_, Some(session))) = &checked {
            self.tell_over(*session);
        }
        if checked.is_ok() {
            for (session, payload) in sends {
                self.emit_send(session, payload);
                self.sessions[session as usize].received_from |= then_receive;
            }
        }
        self.log(Entry::Sent(Sent { sends: logged, then_receive, failure }));
        checked.map_err(|(error, _)| error)
    }

    /// `Err` holds the session that the failure is about, if telling it changes that session's state.
    fn may_send(&self, index: u32, payload: &Bytes, then_receive: bool) -> Result<(), (FlowError, Option<u32>)> {
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
            // A flow that only sends is not disturbed by a peer that ends early (spec 2.2).
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
            // The peer has ended and this flow only sends: nobody is there to read it.
            _ => {}
        }
    }

    pub(crate) fn emit_initiation(&mut self, index: u32, payload: Option<Bytes>) {
        let session = &mut self.sessions[index as usize];
        session.state = SessionState::Initiating;
        session.next_out = 1;
        let initiation = Initiation {
            from: self.me.to_string(),
            from_session: self.row.session(index as u16).0,
            protocol: session.protocol.clone(),
            version: session.version,
            app: self.app.clone(),
            payload,
        };
        self.outgoing.push(Outgoing::Initiate { party: session.peer.clone(), initiation });
    }

    /// Sends a frame on an initiated session; frames of one flush to one session travel together.
    pub(crate) fn emit(&mut self, index: u32, frame: Frame) {
        let session = &mut self.sessions[index as usize];
        let Some(to) = session.peer_session else { return };
        let number = session.next_out;
        session.next_out += 1;
        let last = self.outgoing.iter_mut().rev().find_map(|outgoing| match outgoing {
            Outgoing::Deliver { session, parcel, .. } if *session == to => Some(parcel),
            _ => None,
        });
        match last {
            Some(parcel) => parcel.frames.push(frame),
            None => {
                let parcel = Parcel { from: self.me.to_string(), frames: vec![frame] };
                let party = session.peer.clone();
                self.outgoing.push(Outgoing::Deliver { party, session: to, seq: number, parcel });
            }
        }
    }

    fn close(&mut self, indexes: &[u32]) -> Result<(), FlowError> {
        for &index in indexes {
            let session = self.session(index)?;
            if matches!(session.state, SessionState::Uninitiated | SessionState::Initiating) {
                return Err(FlowError::new(
                    ErrorKind::PrematureClose,
                    format!("the session with {} cannot be closed: the peer has not confirmed it yet", session.peer),
                ));
            }
        }
        for &index in indexes {
            if self.sessions[index as usize].state == SessionState::Initiated {
                self.emit(index, Frame::end());
                let session = &mut self.sessions[index as usize];
                session.state = SessionState::Closed;
                session.inbound.clear();
            }
        }
        Ok(())
    }

    pub(crate) fn session(&self, index: u32) -> Result<&Session, FlowError> {
        self.sessions.get(index as usize).ok_or_else(|| {
            FlowError::new(
                ErrorKind::IllegalArgument,
                format!("there is no session {index}: this flow has {} sessions", self.sessions.len()),
            )
        })
    }

    /// The flow has been told that a session is over; what was unread of it is its end or error.
    pub(crate) fn tell_over(&mut self, index: u32) {
        let Some(session) = self.sessions.get_mut(index as usize) else { return };
        match &mut session.state {
            SessionState::Rejected { told, .. } => *told = true,
            SessionState::Initiated => {
                let error_id = match session.inbound.get(&session.next_in) {
                    Some(FrameKind::Error(error)) => Some(error.error_id),
                    _ => None,
                };
                session.state = match session.head() {
                    Head::Error(_) => SessionState::Errored,
                    _ => SessionState::Ended,
                };
                session.next_in += 1;
                self.received_errors.extend(error_id);
            }
            _ => {}
        }
    }

    /// Tries an open call with what is there; parks it again if that is not enough.
    pub(crate) fn block(&mut self, blocking: Blocking, now: Nanos) -> Step {
        let step = match &blocking {
            Blocking::Receive { session, or_end } => self.try_receive(*session, *or_end, now),
            Blocking::ReceiveAll(sessions) => self.try_receive_all(sessions, now),
            Blocking::WaitAny { sessions, deadline } => self.try_wait_any(sessions, *deadline, now),
            Blocking::FlowInfo(session) => self.try_flow_info(*session, now),
            Blocking::Sleep { until } => (to_millis(now) >= *until).then(|| {
                let at = self.advance(now);
                self.log(Entry::Woke(Woke { at }));
                Ok(Answer::Done)
            }),
            Blocking::Finish(outcome) => return self.try_finish(outcome.as_ref().clone()),
        };
        match step {
            Some(result) => Step::Done(result),
            None => {
                self.blocking = Some(blocking);
                Step::Blocked
            }
        }
    }

    /// Sends the initiation of a session that is asked for something before anything was sent on it.
    fn initiate_to_ask(&mut self, index: u32) {
        if self.sessions[index as usize].state == SessionState::Uninitiated {
            self.emit_initiation(index, None);
            self.log_event(Entry::Initiated(index));
        }
    }

    fn try_receive(&mut self, index: u32, or_end: bool, now: Nanos) -> Option<Result<Answer, FlowError>> {
        let taken = match self.session(index) {
            Err(error) => Err((error, None)),
            Ok(_) => {
                self.initiate_to_ask(index);
                self.sessions[index as usize].received_from = true;
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
            Err((error, session)) => {
                entry.failure = Some(Failure::new(&error, session));
                Err(error)
            }
        };
        self.log(Entry::Received(entry));
        Some(result)
    }

    /// Consumes the head of a session; `None` if there is nothing yet. `Ok(None)` is the orderly end.
    #[allow(clippy::type_complexity, reason = "used in one place, named by the comment above")]
    fn take(&mut self, index: u32, or_end: bool) -> Option<Result<Option<(u32, Bytes)>, (FlowError, Option<u32>)>> {
        let session = &mut self.sessions[index as usize];
        if or_end && session.state == SessionState::Ended {
            return Some(Ok(None));
        }
        if let Some(error) = session.over() {
            self.tell_over(index);
            return Some(Err((error, Some(index))));
        }
        if session.state == SessionState::Initiating {
            return None;
        }
        match session.head() {
            Head::Empty => None,
            Head::Data => {
                let seq = session.next_in;
                session.next_in += 1;
                let Some(FrameKind::Data(payload)) = session.inbound.remove(&seq) else { return None };
                Some(Ok(Some((seq, payload))))
            }
            Head::End => {
                let error = session.ended_error();
                self.tell_over(index);
                Some(if or_end { Ok(None) } else { Err((error, Some(index))) })
            }
            Head::Error(error) => {
                self.tell_over(index);
                Some(Err((error, Some(index))))
            }
        }
    }

    fn try_receive_all(&mut self, sessions: &[u32], now: Nanos) -> Option<Result<Answer, FlowError>> {
        let mut failed = self.check_distinct(sessions).err().map(|error| (error, None));
        if failed.is_none() {
            let mut complete = true;
            for &index in sessions {
                self.initiate_to_ask(index);
                let session = &mut self.sessions[index as usize];
                session.received_from = true;
                if let Some(error) = session.over() {
                    failed = failed.or(Some((error, Some(index))));
                    continue;
                }
                match session.head() {
                    _ if session.state == SessionState::Initiating => complete = false,
                    Head::Empty => complete = false,
                    Head::Data => {}
                    Head::End => failed = failed.or_else(|| Some((session.ended_error(), Some(index)))),
                    Head::Error(error) => failed = failed.or(Some((error, Some(index)))),
                }
            }
            if failed.is_none() && !complete {
                return None;
            }
        }
        let at = self.advance(now);
        let mut entry = ReceivedAll { sessions: sessions.to_vec(), seqs: Vec::new(), failure: None, at };
        let result = match failed {
            Some((error, session)) => {
                entry.failure = Some(Failure::new(&error, session));
                if let Some(session) = session {
                    self.tell_over(session);
                }
                Err(error)
            }
            None => {
                let mut messages = Vec::with_capacity(sessions.len());
                for &index in sessions {
                    if let Some(Ok(Some((seq, payload)))) = self.take(index, false) {
                        entry.seqs.push(seq);
                        messages.push(payload);
                    }
                }
                Ok(Answer::Messages(messages))
            }
        };
        self.log(Entry::ReceivedAll(entry));
        Some(result)
    }

    fn check_distinct(&self, sessions: &[u32]) -> Result<(), FlowError> {
        for (position, &index) in sessions.iter().enumerate() {
            self.session(index)?;
            if sessions[..position].contains(&index) {
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
                for &index in sessions {
                    self.initiate_to_ask(index);
                    self.sessions[index as usize].received_from = true;
                }
                let ready = sessions.iter().copied().find(|&index| self.sessions[index as usize].is_ready());
                if ready.is_none() && deadline.is_none_or(|deadline| to_millis(now) < deadline) {
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
                self.initiate_to_ask(index);
                let session = &self.sessions[index as usize];
                match (&session.info, session.over()) {
                    (_, Some(error)) => Err((error, Some(index))),
                    (Some(info), None) => Ok(info.clone()),
                    (None, None) => return None,
                }
            }
        };
        if let Err((_, Some(session))) = &result {
            self.tell_over(*session);
        }
        let at = self.advance(now);
        let (version, app) = result.as_ref().ok().cloned().unwrap_or_default();
        let failure = result.as_ref().err().map(|(error, session)| Failure::new(error, *session));
        self.log(Entry::Told(Told { session: index, version, app, failure, at }));
        Some(match result {
            Ok((version, app)) => Ok(Answer::FlowInfo { version, app }),
            Err((error, _)) => Err(error),
        })
    }
}

/// Turns a payload into what the log keeps of it.
impl From<(u32, &Bytes)> for SentOne {
    fn from((session, payload): (u32, &Bytes)) -> SentOne {
        crate::replay::summarise(session, payload)
    }
}
