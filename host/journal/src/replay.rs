//! Restoring a machine from its stored journal, and answering a replayed guest from the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use maxhost_model::{FlowError, FlowRow, SessionId};
use prost::Message;

use crate::Nanos;
use crate::call::{Answer, Call, Divergence, Step};
use crate::machine::{Blocking, Limits, Machine};
use crate::record::{Entry, Failure, JournalError, Opened, Received, ReceivedAll, Segment, Sent, SentOne, StartRecord};
use crate::session::{Session, SessionState};
use crate::wire::{FrameKind, Parcel};

/// A row of the inbox: the session it is for, the number of its first frame, its bytes.
pub type Arrival = (SessionId, u32, Bytes);

/// What the log keeps of a payload.
pub(crate) fn summarise(session: u32, payload: &Bytes) -> SentOne {
    let hash = blake3::hash(payload);
    let mut high = [0; 8];
    let mut low = [0; 8];
    high.copy_from_slice(&hash.as_bytes()[..8]);
    low.copy_from_slice(&hash.as_bytes()[8..16]);
    SentOne {
        session,
        length: payload.len() as u64,
        digest_high: u64::from_be_bytes(high),
        digest_low: u64::from_be_bytes(low),
        held: None,
    }
}

/// An entry as the request it answers, for people.
pub(crate) fn describe(entry: &Entry) -> String {
    match entry {
        Entry::Opened(entry) => format!("open a session with {} under {}", entry.party, entry.protocol),
        Entry::Refused(entry) => format!("open a session with {}", entry.party),
        Entry::Sent(entry) => {
            let verb = if entry.then_receive { "send and receive" } else { "send" };
            let sends = entry.sends.iter().map(|sent| {
                let digest = (sent.digest_high >> 32) as u32;
                format!(" {} bytes (digest {digest:08x}) on session {}", sent.length, sent.session)
            });
            format!("{verb}{}", sends.collect::<Vec<_>>().join(","))
        }
        Entry::Received(entry) if entry.or_end => format!("receive or end on session {}", entry.session),
        Entry::Received(entry) => format!("receive on session {}", entry.session),
        Entry::ReceivedAll(entry) => format!("receive on all of sessions {:?}", entry.sessions),
        Entry::Ready(entry) => format!("wait for any of sessions {:?} until {:?}", entry.sessions, entry.deadline),
        Entry::Closed(entry) => format!("close sessions {:?}", entry.sessions),
        Entry::Told(entry) => format!("flow info of session {}", entry.session),
        Entry::SleepBegun(entry) => format!("sleep {} ms", entry.milliseconds),
        Entry::Woke(_) => "the end of a sleep".to_owned(),
        Entry::Initiated(session) => format!("initiation of session {session}"),
        Entry::Confirmed(entry) => format!("confirmation of session {}", entry.session),
        Entry::Noted(entry) => format!("ask {}", entry.question),
    }
}

fn describe_call(call: &Call) -> String {
    match call {
        Call::OpenSession { protocol, party, .. } => format!("open a session with {party} under {protocol}"),
        Call::RefuseSession { party, .. } => format!("open a session with {party}"),
        Call::Send(sends) => describe(&Entry::Sent(sent(sends.iter().map(|(ix, bytes)| (*ix, bytes)), false))),
        Call::SendAndReceive { session, payload } => describe(&Entry::Sent(sent([(*session, payload)], true))),
        Call::Receive { session, or_end: true } => format!("receive or end on session {session}"),
        Call::Receive { session, or_end: false } => format!("receive on session {session}"),
        Call::ReceiveAll(sessions) => format!("receive on all of sessions {sessions:?}"),
        Call::WaitAny { sessions, deadline } => format!("wait for any of sessions {sessions:?} until {deadline:?}"),
        Call::Close(sessions) => format!("close sessions {sessions:?}"),
        Call::FlowInfo(session) => format!("flow info of session {session}"),
        Call::Sleep(milliseconds) => format!("sleep {milliseconds} ms"),
    }
}

fn sent<'a>(sends: impl IntoIterator<Item = (u32, &'a Bytes)>, then_receive: bool) -> Sent {
    let sends = sends.into_iter().map(SentOne::from).collect();
    Sent { sends, then_receive, failure: None }
}

fn same_sends(logged: &Sent, asked: &Sent) -> bool {
    let same = |(a, b): (&SentOne, &SentOne)| {
        (a.session, a.length, a.digest_high, a.digest_low) == (b.session, b.length, b.digest_high, b.digest_low)
    };
    logged.then_receive == asked.then_receive
        && logged.sends.len() == asked.sends.len()
        && logged.sends.iter().zip(&asked.sends).all(same)
}

fn outcome(failure: Option<Failure>, answer: Answer) -> Result<Answer, FlowError> {
    match failure {
        Some(failure) => Err(failure.to_error()),
        None => Ok(answer),
    }
}

impl Machine {
    /// Rebuilds a machine from what is stored: its sessions stand where the log left them, and what arrived since is
    /// delivered. The guest may then be run from the start, or the machine be aborted without running it.
    ///
    /// # Errors
    /// A stored record is damaged or contradicts the others.
    pub fn restore(
        me: Arc<str>,
        row: FlowRow,
        start: &StartRecord,
        limits: Limits,
        log: &[(u32, Bytes)],
        inbox: &[Arrival],
    ) -> Result<Machine, JournalError> {
        let mut machine = Machine::empty(me, row, start, limits);
        let mut arrived: BTreeMap<(u16, u32), FrameKind> = BTreeMap::new();
        let mut bytes = 0;
        for (session, seq, body) in inbox {
            bytes += body.len() as u64;
            let parcel = decode_parcel(*session, *seq, body)?;
            for (number, frame) in (*seq..).zip(parcel.frames) {
                if let Some(kind) = frame.kind {
                    arrived.entry((session.index(), number)).or_insert(kind);
                }
            }
        }
        let (mut entries, mut label, mut last) = (0, None, None);
        for (expected, (seq, body)) in (0..).zip(log) {
            if *seq != expected {
                let reason = format!("segment {expected} is missing, segment {seq} is there");
                return Err(JournalError::Inconsistent { position: entries, reason });
            }
            bytes += body.len() as u64;
            let mut segment = Segment::decode_sealed(body, *seq)?;
            for item in std::mem::take(&mut segment.items) {
                let entry = item.entry.ok_or_else(|| JournalError::Inconsistent {
                    position: entries,
                    reason: "an entry of a kind this host does not know".to_owned(),
                })?;
                machine
                    .fold(&entry, &arrived)
                    .map_err(|reason| JournalError::Inconsistent { position: entries, reason })?;
                entries += 1;
                if entry.answers_a_call() {
                    machine.replay.push_back(entry);
                }
            }
            label = segment.progress.last().cloned().or(label);
            last = Some(segment);
        }
        machine.restored(log.len() as u32, entries, bytes, last.as_ref());
        machine.restore_label(label);
        machine.hand_in(inbox, &arrived);
        Ok(machine)
    }

    /// Gives the sessions their frames: consumed ones for the replay to read again, the others as news.
    fn hand_in(&mut self, inbox: &[Arrival], arrived: &BTreeMap<(u16, u32), FrameKind>) {
        for ((index, number), kind) in arrived {
            let Some(session) = self.sessions.get_mut(usize::from(*index)) else { continue };
            let consumed = *number < session.next_in;
            let data = matches!(kind, FrameKind::Data(_));
            if consumed && data && session.state != SessionState::Closed {
                session.inbound.insert(*number, kind.clone());
            }
        }
        for (session, seq, body) in inbox {
            if let Ok(parcel) = decode_parcel(*session, *seq, body) {
                self.deliver(session.index(), *seq, &parcel);
            }
        }
    }

    /// Applies an entry to the sessions, as it did when it was made, without sending anything.
    fn fold(&mut self, entry: &Entry, arrived: &BTreeMap<(u16, u32), FrameKind>) -> Result<(), String> {
        match entry {
            Entry::Opened(Opened { protocol, version, party }) => {
                self.sessions.push(Session::opened(party.as_str().into(), protocol.clone(), *version));
            }
            Entry::Sent(sent) => match &sent.failure {
                Some(failure) => self.fold_failure(failure, arrived),
                None => {
                    for one in &sent.sends {
                        let session = self.folded(one.session)?;
                        session.received_from |= sent.then_receive;
                        match session.state {
                            SessionState::Uninitiated => {
                                session.state = SessionState::Initiating;
                                session.next_out = 1;
                            }
                            SessionState::Initiating => session.held.push(one.held.clone().unwrap_or_default()),
                            SessionState::Initiated => session.next_out += 1,
                            _ => {}
                        }
                    }
                }
            },
            Entry::Received(Received { session, seq, failure, or_end, .. }) => match (failure, seq) {
                (Some(failure), _) => self.fold_failure(failure, arrived),
                (None, Some(seq)) => {
                    let session = self.folded(*session)?;
                    session.received_from = true;
                    session.next_in = seq + 1;
                }
                (None, None) if *or_end => self.fold_over(*session, arrived),
                (None, None) => return Err("a receive without a message".to_owned()),
            },
            Entry::ReceivedAll(ReceivedAll { sessions, seqs, failure, .. }) => match failure {
                Some(failure) => self.fold_failure(failure, arrived),
                None => {
                    for (session, seq) in sessions.iter().zip(seqs) {
                        let session = self.folded(*session)?;
                        session.received_from = true;
                        session.next_in = seq + 1;
                    }
                }
            },
            Entry::Ready(ready) => {
                for &session in &ready.sessions {
                    if let Ok(session) = self.folded(session) {
                        session.received_from = true;
                    }
                }
            }
            Entry::Closed(closed) if closed.failure.is_none() => {
                for &index in &closed.sessions {
                    let session = self.folded(index)?;
                    if session.state == SessionState::Initiated {
                        session.next_out += 1;
                        session.state = SessionState::Closed;
                    }
                }
            }
            Entry::Told(told) => {
                if let Some(failure) = &told.failure {
                    self.fold_failure(failure, arrived);
                }
            }
            Entry::Initiated(index) => {
                let session = self.folded(*index)?;
                session.state = SessionState::Initiating;
                session.next_out = 1;
            }
            Entry::Confirmed(confirmed) => {
                let held = self.confirm(confirmed).len() as u32;
                let session = self.folded(confirmed.session)?;
                session.next_in = session.next_in.max(1);
                session.next_out += held;
            }
            Entry::Closed(_) | Entry::Refused(_) | Entry::SleepBegun(_) | Entry::Woke(_) | Entry::Noted(_) => {}
        }
        Ok(())
    }

    fn folded(&mut self, index: u32) -> Result<&mut Session, String> {
        self.sessions.get_mut(index as usize).ok_or_else(|| format!("there is no session {index} yet"))
    }

    fn fold_failure(&mut self, failure: &Failure, arrived: &BTreeMap<(u16, u32), FrameKind>) {
        if let Some(session) = failure.session {
            self.fold_over(session, arrived);
        }
    }

    /// The flow was told here that the session is over: so the end, error or rejection had arrived.
    fn fold_over(&mut self, index: u32, arrived: &BTreeMap<(u16, u32), FrameKind>) {
        let Some(session) = self.sessions.get_mut(index as usize) else { return };
        let key = (index as u16, session.next_in);
        match (&session.state, arrived.get(&key)) {
            (SessionState::Initiating, Some(FrameKind::Reject(reject))) => {
                session.state = SessionState::Rejected {
                    text: reject.text.clone(),
                    error_id: maxhost_model::ErrorId(reject.error_id),
                    told: true,
                };
                session.next_in += 1;
            }
            (SessionState::Initiated, Some(frame)) => {
                session.inbound.insert(session.next_in, frame.clone());
                self.tell_over(index);
                if let Some(session) = self.sessions.get_mut(index as usize) {
                    session.inbound.remove(&key.1);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn begin_replayed(&mut self, call: Call, now: Nanos) -> Result<Step, Divergence> {
        let Some(entry) = self.replay.pop_front() else { return self.begin(call, now) };
        let step = match (&call, entry) {
            (Call::OpenSession { protocol, version, party }, Entry::Opened(entry))
                if (protocol, version, party) == (&entry.protocol, &entry.version, &entry.party) =>
            {
                Step::Done(Ok(Answer::Session(self.know_session())))
            }
            (Call::OpenSession { party, .. } | Call::RefuseSession { party, .. }, Entry::Refused(entry))
                if *party == entry.party =>
            {
                Step::Done(outcome(entry.failure, Answer::Done))
            }
            (Call::Send(sends), Entry::Sent(entry))
                if same_sends(&entry, &sent(sends.iter().map(|(ix, bytes)| (*ix, bytes)), false)) =>
            {
                Step::Done(outcome(entry.failure, Answer::Done))
            }
            (Call::SendAndReceive { session, payload }, Entry::Sent(entry))
                if same_sends(&entry, &sent([(*session, payload)], true)) =>
            {
                let session = *session;
                self.position += 1;
                return match entry.failure {
                    Some(failure) => Ok(Step::Done(Err(failure.to_error()))),
                    None => self.continue_replayed(call, Blocking::Receive { session, or_end: false }, now),
                };
            }
            (Call::Receive { session, or_end }, Entry::Received(entry))
                if (*session, *or_end) == (entry.session, entry.or_end) =>
            {
                Step::Done(self.replayed_receive(entry))
            }
            (Call::ReceiveAll(sessions), Entry::ReceivedAll(entry)) if *sessions == entry.sessions => {
                self.advance(entry.at);
                let pairs = entry.sessions.iter().zip(&entry.seqs);
                let messages = pairs.map(|(&session, &seq)| self.replayed_message(session, seq)).collect();
                Step::Done(outcome(entry.failure, Answer::Messages(messages)))
            }
            (Call::WaitAny { sessions, deadline }, Entry::Ready(entry))
                if (sessions, deadline) == (&entry.sessions, &entry.deadline) =>
            {
                self.advance(entry.at);
                Step::Done(outcome(entry.failure, Answer::Ready(entry.session)))
            }
            (Call::Close(sessions), Entry::Closed(entry)) if *sessions == entry.sessions => {
                Step::Done(outcome(entry.failure, Answer::Done))
            }
            (Call::FlowInfo(session), Entry::Told(entry)) if *session == entry.session => {
                self.advance(entry.at);
                let answer = Answer::FlowInfo { version: entry.version, app: entry.app };
                Step::Done(outcome(entry.failure, answer))
            }
            (Call::Sleep(milliseconds), Entry::SleepBegun(entry)) if *milliseconds == entry.milliseconds => {
                self.position += 1;
                return match entry.failure {
                    Some(failure) => Ok(Step::Done(Err(failure.to_error()))),
                    None => self.continue_replayed(call, Blocking::Sleep { until: entry.until }, now),
                };
            }
            (_, entry) => return Err(self.divergence(&entry, describe_call(&call))),
        };
        self.position += 1;
        Ok(step)
    }

    /// The second half of a call that has two entries: its wait.
    fn continue_replayed(&mut self, call: Call, blocking: Blocking, now: Nanos) -> Result<Step, Divergence> {
        let Some(entry) = self.replay.pop_front() else {
            return Ok(match blocking {
                Blocking::Sleep { .. } => {
                    self.blocking = Some(blocking);
                    Step::Blocked
                }
                _ => self.block(blocking, now),
            });
        };
        let step = match (&blocking, entry) {
            (Blocking::Receive { session, or_end }, Entry::Received(entry))
                if (*session, *or_end) == (entry.session, entry.or_end) =>
            {
                Step::Done(self.replayed_receive(entry))
            }
            (Blocking::Sleep { .. }, Entry::Woke(entry)) => {
                self.advance(entry.at);
                Step::Done(Ok(Answer::Done))
            }
            (_, entry) => return Err(self.divergence(&entry, describe_call(&call))),
        };
        self.position += 1;
        Ok(step)
    }

    pub(crate) fn note_replayed(&mut self, question: &str) -> Result<Bytes, Divergence> {
        match self.replay.pop_front() {
            Some(Entry::Noted(entry)) if entry.question == question => {
                self.position += 1;
                Ok(entry.answer)
            }
            Some(entry) => Err(self.divergence(&entry, format!("ask {question}"))),
            None => Ok(Bytes::new()),
        }
    }

    fn divergence(&self, expected: &Entry, actual: String) -> Divergence {
        Divergence { position: self.position, expected: describe(expected), actual }
    }

    fn replayed_receive(&mut self, entry: Received) -> Result<Answer, FlowError> {
        self.advance(entry.at);
        match (entry.failure, entry.seq) {
            (Some(failure), _) => Err(failure.to_error()),
            (None, Some(seq)) => Ok(Answer::Message(self.replayed_message(entry.session, seq))),
            (None, None) => Ok(Answer::Ended),
        }
    }

    fn replayed_message(&mut self, session: u32, seq: u32) -> Bytes {
        let frame = self.sessions.get_mut(session as usize).and_then(|session| session.inbound.remove(&seq));
        match frame {
            Some(FrameKind::Data(payload)) => payload,
            _ => Bytes::new(),
        }
    }
}

fn decode_parcel(session: SessionId, seq: u32, body: &Bytes) -> Result<Parcel, JournalError> {
    Parcel::decode(body.clone()).map_err(|error| JournalError::Corrupt {
        what: format!("message {seq} of session {}", session.index()),
        reason: error.to_string(),
    })
}
