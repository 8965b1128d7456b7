//! The machine: one flow's journal and sessions, between the guest that asks and the engine that writes and delivers.
//! What each call does is told in `live` (the first time) and `replay` (again).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use maxhost_model::{ErrorId, FlowError, FlowRow, SessionId};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::Nanos;
use crate::awaiting::Awaiting;
use crate::call::{Answer, Awaited, Call, Divergence, Step, Wait, WaitKind};
use crate::labels::LatestLabels;
use crate::record::{Entry, Failure, Item, Origin, Refused, Seen, Segment, StartRecord, WaitRecord};
use crate::session::{Session, SessionState, SessionSummary};
use crate::wire::{Confirm, FrameBatch, FrameKind, Initiation, session_token};

/// Longest sleep (docs/behaviour.md 2.4): five minutes.
pub const MAX_SLEEP_MS: u64 = 5 * 60 * 1000;
/// Longest progress label that is kept, characters (docs/behaviour.md 2.4).
pub const MAX_LABEL: usize = 256;
/// A run that does not wait is written down after so many entries or bytes.
const FLUSH_ENTRIES: usize = 128;
const FLUSH_BYTES: usize = 256 * 1024;
/// What a label costs beside its text, so that empty ones are not free.
const LABEL_OVERHEAD: usize = 16;

/// What one flow may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Entries in the journal that answer a call, and progress labels.
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
        batch: FrameBatch,
    },
}

/// What has to be written, all of it in one transaction, before any of it is visible to anybody.
#[derive(Debug, Default)]
pub struct Flush {
    /// Number and bytes of the new log segment.
    pub segment: Option<(u32, Bytes)>,
    /// The messages that leave once the unit is written, in order.
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
    Receive {
        session: u32,
        or_end: bool,
    },
    ReceiveAll(Vec<u32>),
    WaitAny {
        sessions: Vec<u32>,
        deadline: Option<u64>,
    },
    FlowInfo(u32),
    /// Both are milliseconds since 1970.
    Sleep {
        from: u64,
        until: u64,
    },
    /// For something that is found outside of the journal.
    Await(Awaiting),
    /// The result waits for confirmations; the number is for an error that comes instead.
    Finish {
        value: Bytes,
        error_id: ErrorId,
    },
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
    pub(crate) outgoing_bytes: usize,
    entries: u64,
    bytes: u64,
    next_segment: u32,
    stored_wait: Option<Wait>,
    clock: Nanos,
    rng: ChaCha8Rng,
    pub(crate) seed: [u8; 32],
    labels: u64,
    stored_labels: u64,
    new_labels: Vec<String>,
    latest_labels: LatestLabels,
    attempt: u32,
    /// Numbers of the exceptions that peers sent: only these may be handed on as received.
    pub(crate) received_errors: Vec<u64>,
    /// An earlier life of the flow came further than this one has so far.
    pub(crate) catching_up: bool,
    /// The peers have been told that the flow is over.
    pub(crate) ended: bool,
}

impl Machine {
    /// The machine of a flow that begins now. A responder's confirmation is its first outgoing frame: the first flush
    /// has to be written in the transaction that writes the start record, or the peer would never hear of the responder.
    #[must_use]
    pub fn start(me: Arc<str>, row: FlowRow, start: &StartRecord, limits: Limits) -> Machine {
        let mut machine = Machine::empty(me, row, start, limits);
        if let Origin::Peer(initiation) = &start.origin {
            let confirm = Confirm {
                session: row.session(0).0,
                version: start.flow_version,
                app: start.cordapp.clone(),
                token: session_token(&start.seed, 0, &initiation.from),
            };
            machine.sessions.iter_mut().for_each(|session| session.next_out = 0);
            machine.emit(0, FrameKind::Confirm(confirm).into());
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
            outgoing_bytes: 0,
            entries: 0,
            bytes: 0,
            next_segment: 0,
            stored_wait: None,
            clock: start.started,
            rng: ChaCha8Rng::from_seed(start.seed),
            seed: start.seed,
            labels: 0,
            stored_labels: 0,
            new_labels: Vec::new(),
            latest_labels: LatestLabels::default(),
            attempt: 0,
            received_errors: Vec::new(),
            catching_up: false,
            ended: false,
        }
    }

    /// True while answers come from the log.
    #[must_use]
    pub fn is_replaying(&self) -> bool {
        !self.replay.is_empty()
    }

    /// True until the guest makes a call that no earlier life has finished, or gets the answer that an earlier life waited
    /// for: what it logs before that was logged then. This lasts longer than [`Machine::is_replaying`], namely from the
    /// last recorded answer to the next call.
    #[must_use]
    pub fn is_catching_up(&self) -> bool {
        self.catching_up
    }

    /// Asks for something. At most one call may be open.
    ///
    /// # Errors
    /// The guest asks for something else than the log says it did.
    pub fn begin(&mut self, call: Call, now: Nanos) -> Result<Step, Divergence> {
        if self.is_replaying() {
            return self.begin_replayed(call, now);
        }
        self.catching_up = false;
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
            Call::Close(sessions) => Step::Done(self.close(sessions).map(|()| Answer::Done)),
            Call::Sleep(milliseconds) => self.sleep(milliseconds, now),
            Call::Await { kind, what, deadline } => self.begin_awaiting(Awaiting::new(kind, what, deadline)),
        })
    }

    /// Looks again at the open call, after an arrival or when time has passed. A flow that gets more than it may keep
    /// ends here.
    pub fn resume(&mut self, now: Nanos) -> Step {
        match self.blocking.take() {
            Some(Blocking::Finish { value, error_id }) => self.try_finish(value, error_id),
            Some(blocking) => match self.exceeded_bytes() {
                Some(error) => Step::Over(error),
                None => self.block(blocking, now),
            },
            None => Step::Blocked,
        }
    }

    /// What the open call waits for. `None` also for a result whose last session has just been confirmed: it waits for
    /// nothing more.
    #[must_use]
    pub fn wait(&self) -> Option<Wait> {
        let (kind, sessions, until) = match self.blocking.as_ref()? {
            Blocking::Receive { session, .. } => (WaitKind::Receive, vec![*session], None),
            Blocking::ReceiveAll(sessions) => (WaitKind::ReceiveAll, sessions.clone(), None),
            Blocking::WaitAny { sessions, deadline } => (WaitKind::WaitAny, sessions.clone(), *deadline),
            Blocking::FlowInfo(session) => (WaitKind::FlowInfo, vec![*session], None),
            Blocking::Sleep { until, .. } => (WaitKind::Sleep, Vec::new(), Some(*until)),
            Blocking::Await(awaiting) => return Some(self.awaits(awaiting)),
            Blocking::Finish { .. } => match self.initiating() {
                sessions if sessions.is_empty() => return None,
                sessions => (WaitKind::Confirmation, sessions, None),
            },
        };
        Some(Wait { kind, sessions, until, awaited: None })
    }

    /// Until when the open call waits at the latest, milliseconds since 1970.
    #[must_use]
    pub fn wait_until(&self) -> Option<u64> {
        match self.blocking.as_ref()? {
            Blocking::WaitAny { deadline, .. } => *deadline,
            Blocking::Await(awaiting) => awaiting.deadline,
            Blocking::Sleep { until, .. } => Some(*until),
            _ => None,
        }
    }

    /// The time from which [`Machine::wait_until`] was reckoned, milliseconds since 1970: that at which a sleep began, and
    /// else the latest that the flow was told. The clock may have been set since.
    #[must_use]
    pub fn reckoned_from(&self) -> u64 {
        match self.blocking {
            Some(Blocking::Sleep { from, .. }) => from,
            _ => crate::to_millis(self.clock),
        }
    }

    /// Answers a question whose answer lies outside the journal: from the log if the guest has asked before, else by
    /// `answer`, which is then logged. Ask [`Machine::exceeded`] afterwards.
    ///
    /// # Errors
    /// The log has something else here.
    pub fn note(&mut self, question: &str, answer: impl FnOnce() -> Bytes) -> Result<Bytes, Divergence> {
        if self.is_replaying() {
            return self.note_replayed(question);
        }
        self.catching_up = false;
        let answer = answer();
        self.log(Entry::Noted(crate::record::Noted { question: question.to_owned(), answer: answer.clone() }));
        Ok(answer)
    }

    /// Logical time: that of the last event the flow consumed, plus a nanosecond a call, so that it always rises.
    pub fn now(&mut self) -> Nanos {
        self.clock = self.clock.saturating_add(1);
        self.clock
    }

    /// The next bytes of the flow's randomness.
    #[must_use]
    pub fn random(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// A progress label; cut to [`MAX_LABEL`] characters. Labels that a replay gives again are recognised by their
    /// number. A label counts as an entry of the journal. Ask [`Machine::is_flush_due`] afterwards: labels are kept until
    /// they are written.
    ///
    /// # Errors
    /// The flow has used up its journal, and must end with this error.
    pub fn progress(&mut self, label: String) -> Result<(), FlowError> {
        // What an earlier life has written was within the limits then.
        if self.labels >= self.stored_labels
            && let Some(error) = self.exceeded()
        {
            return Err(error);
        }
        let label = match label.char_indices().nth(MAX_LABEL) {
            Some((end, _)) => label[..end].to_owned(),
            None => label,
        };
        self.labels += 1;
        if self.labels > self.stored_labels {
            self.pending_bytes += label.len() + LABEL_OVERHEAD;
            self.latest_labels.push(self.labels, label.clone());
            self.new_labels.push(label);
        }
        Ok(())
    }

    /// How many progress labels the flow has given, written or not.
    #[must_use]
    pub fn labels(&self) -> u64 {
        self.stored_labels.max(self.labels)
    }

    /// Which attempt at the flow this is, from 1 on: it goes into every segment. Until it is set, a restored machine has
    /// the last one that wrote something.
    pub fn set_attempt(&mut self, attempt: u32) {
        self.attempt = attempt;
    }

    /// See [`Machine::set_attempt`].
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The latest progress labels, written or not.
    #[must_use]
    pub fn latest_labels(&self) -> &LatestLabels {
        &self.latest_labels
    }

    /// The current progress label.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.latest_labels.last()
    }

    /// Name of a session's counterparty. A session that the guest has not opened yet in this life is not known, though
    /// an earlier life may have opened it.
    #[must_use]
    pub fn counterparty(&self, session: u32) -> Option<&Arc<str>> {
        let known = session < self.known_sessions;
        self.sessions.get(session as usize).filter(|_| known).map(|session| &session.peer)
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
        let waits_otherwise = || self.blocking.is_some() && self.wait() != self.stored_wait;
        !self.pending.is_empty() || !self.outgoing.is_empty() || !self.new_labels.is_empty() || waits_otherwise()
    }

    /// True if the run should be written down although it does not wait.
    #[must_use]
    pub fn is_flush_due(&self) -> bool {
        self.pending.len() >= FLUSH_ENTRIES || self.pending_bytes + self.outgoing_bytes >= FLUSH_BYTES
    }

    /// What a flush would write and send, bytes, as far as it is counted.
    #[must_use]
    pub fn unwritten_bytes(&self) -> usize {
        self.pending_bytes + self.outgoing_bytes
    }

    /// Takes what has to be written. Whoever takes it must write it, or drop the machine and restore it later.
    pub fn flush(&mut self, now: Nanos) -> Flush {
        let progress = std::mem::take(&mut self.new_labels);
        let mut flush = Flush { outgoing: std::mem::take(&mut self.outgoing), ..Flush::default() };
        self.outgoing_bytes = 0;
        self.sessions.iter_mut().for_each(|session| session.batch = None);
        self.stored_labels = self.stored_labels.max(self.labels);
        let wait = self.wait();
        if !self.pending.is_empty() || !progress.is_empty() || (wait.is_some() && wait != self.stored_wait) {
            let segment = Segment {
                items: std::mem::take(&mut self.pending),
                seen: wait.as_ref().map(|wait| self.seen(wait)).unwrap_or_default(),
                wait: wait.as_ref().map(WaitRecord::new),
                progress_count: self.stored_labels,
                progress: progress.clone(),
                at: now,
                attempt: self.attempt,
            };
            let bytes = segment.encode_sealed();
            self.bytes += bytes.len() as u64;
            flush.segment = Some((self.next_segment, bytes));
            self.next_segment += 1;
            self.stored_wait = wait;
        }
        self.pending_bytes = 0;
        let before = self.stored_labels.saturating_sub(progress.len() as u64);
        flush.progress = (1..).map(|number: u64| before.saturating_add(number)).zip(progress).collect();
        flush
    }

    /// The error of a flow that has used up its journal. [`Machine::begin`] and [`Machine::resume`] look by themselves.
    #[must_use]
    pub fn exceeded(&self) -> Option<FlowError> {
        // What peers cause is not counted: the same call must not pass in one life and fail when it is asked again.
        let used = self.position.saturating_add(self.labels);
        if self.is_replaying() || used < self.limits.entries {
            return self.exceeded_bytes();
        }
        let text = format!(
            "the flow has made {} journal entries and {} progress labels, {} in all are the limit",
            self.position, self.labels, self.limits.entries
        );
        Some(FlowError::limit("journal", text))
    }

    fn exceeded_bytes(&self) -> Option<FlowError> {
        let used = self.bytes + self.pending_bytes as u64;
        let text = || format!("the flow's journal has {used} bytes, the limit is {}", self.limits.bytes);
        (!self.is_replaying() && used >= self.limits.bytes).then(|| FlowError::limit("journal", text()))
    }

    /// What an earlier life of the flow was about to look for in the ledger, if it waited in this very call.
    pub(crate) fn stored_awaited(&self, kind: WaitKind, until: Option<u64>) -> Option<Awaited> {
        let stored = self.stored_wait.as_ref().filter(|_| self.pending.is_empty());
        stored.filter(|wait| (wait.kind, wait.until) == (kind, until))?.awaited.clone()
    }

    /// Logs a new answer, to a call of this life or to the one that was open when an earlier life ended.
    pub(crate) fn log(&mut self, entry: Entry) {
        self.catching_up = false;
        self.position += 1;
        self.log_event(entry);
    }

    /// Logs what happened without being asked for.
    pub(crate) fn log_event(&mut self, entry: Entry) {
        self.pending_bytes += entry.encoded_len();
        self.entries += 1;
        self.pending.push(Item { entry: Some(entry) });
    }

    /// Takes over counters of the stored log.
    pub(crate) fn restored(&mut self, segments: u32, entries: u64, bytes: u64, last: Option<&Segment>) {
        self.next_segment = segments;
        self.entries = entries;
        self.bytes = bytes;
        self.catching_up = segments > 0;
        if let Some(segment) = last {
            self.stored_wait = segment.waits_for();
            self.stored_labels = segment.progress_count;
            self.attempt = segment.attempt;
        }
    }

    pub(crate) fn restore_labels(&mut self, labels: LatestLabels) {
        self.latest_labels = labels;
    }

    pub(crate) fn count_bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Whether a deadline has passed, by the clock or by the flow's own time: one that is not after the flow's `now`, in
    /// whole milliseconds as deadlines are, is never waited for, however fast the host is.
    pub(crate) fn has_passed(&self, deadline: crate::Millis, now: Nanos) -> bool {
        deadline <= crate::to_millis(now) || deadline <= self.clock.div_ceil(1_000_000)
    }

    /// The flow has consumed an event of this time.
    pub(crate) fn advance(&mut self, at: Nanos) -> Nanos {
        self.clock = self.clock.max(at);
        self.clock
    }

    /// Only the sessions whose news changes something: those the flow waits for, and those whose confirmation sets
    /// free what was held back.
    fn seen(&self, wait: &Wait) -> Vec<Seen> {
        let mut sessions = [wait.sessions.as_slice(), self.initiating().as_slice()].concat();
        sessions.sort_unstable();
        sessions.dedup();
        let seen = sessions.into_iter().filter_map(|index| {
            let session = self.sessions.get(index as usize)?;
            Some(Seen { session: index, next: session.next_unseen() })
        });
        seen.collect()
    }

    pub(crate) fn initiating(&self) -> Vec<u32> {
        let sessions = self.sessions.iter().enumerate();
        let waiting = sessions.filter(|(_, session)| session.state == SessionState::Initiating);
        waiting.map(|(index, _)| index as u32).collect()
    }

    /// Our side of the sessions whose peers have not answered, and what was sent on them since. If the flow ends with an
    /// error while there are some, whoever answers their confirmation later, or has it in the inbox already, sends them
    /// that and an error in its stead (docs/behaviour.md 4.2).
    #[must_use]
    pub fn unconfirmed(&self) -> Vec<(SessionId, Vec<Bytes>)> {
        let held = |index: u32| self.sessions.get(index as usize).map(|session| session.held.clone());
        let initiating = self.initiating().into_iter();
        initiating.map(|index| (self.row.session(index as u16), held(index).unwrap_or_default())).collect()
    }

    /// The index of the session that the guest has just opened.
    pub(crate) fn know_session(&mut self) -> u32 {
        self.known_sessions += 1;
        self.known_sessions - 1
    }
}
