//! Rebuilding a machine from its stored journal.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use maxhost_model::{FlowRow, SessionId};
use prost::Message;

use crate::deliver::numbered;
use crate::labels::LatestLabels;
use crate::machine::{Limits, Machine};
use crate::record::{Entry, Failure, JournalError, Opened, Origin, Received, Segment, Sent, StartRecord};
use crate::session::{Session, SessionState};
use crate::wire::{FrameBatch, FrameKind};

/// A row of the inbox: the session it is for, the number of its first frame, its bytes.
pub type Arrival = (SessionId, u32, Bytes);

/// Frames by session and number, from their sessions' counterparties only.
type Arrived = BTreeMap<(u32, u32), FrameKind>;

impl Machine {
    /// Rebuilds a machine from what is stored: its sessions stand where the log left them, and what arrived since is
    /// delivered. The guest may then be run from the start, or the machine be aborted without running it. Segments come
    /// in their order, the inbox in any.
    ///
    /// # Errors
    /// A stored record is damaged, is missing, or contradicts the others.
    pub fn restore(
        me: Arc<str>,
        row: FlowRow,
        start: &StartRecord,
        limits: Limits,
        log: &[(u32, Bytes)],
        inbox: &[Arrival],
    ) -> Result<Machine, JournalError> {
        let segments = decode_log(log)?;
        let (arrived, arrived_bytes) = decode_inbox(&counterparties(start, &segments), inbox)?;
        let mut machine = Machine::empty(me, row, start, limits);
        let (mut entries, mut labels, mut last) = (0, LatestLabels::default(), None);
        for mut segment in segments {
            for item in std::mem::take(&mut segment.items) {
                let inconsistent = |reason: String| JournalError::Inconsistent { position: entries, reason };
                let unknown = || inconsistent("an entry of a kind this host does not know".to_owned());
                let entry = item.entry.ok_or_else(unknown)?;
                machine.fold(&entry, &arrived).map_err(inconsistent)?;
                entries += 1;
                if entry.answers_a_call() {
                    machine.replay.push_back(entry);
                }
            }
            segment.take_labels().for_each(|(number, label)| labels.push(number, label));
            last = Some(segment);
        }
        let log_bytes: u64 = log.iter().map(|(_, body)| body.len() as u64).sum();
        machine.restored(log.len() as u32, entries, log_bytes + arrived_bytes, last.as_ref());
        machine.restore_labels(labels);
        machine.hand_in(arrived);
        Ok(machine)
    }

    /// Gives the sessions their frames: consumed ones for the replay to read again, the others as news.
    fn hand_in(&mut self, arrived: Arrived) {
        for ((index, number), kind) in arrived {
            let Some(session) = self.sessions.get_mut(index as usize) else { continue };
            let read_again = number < session.next_in && matches!(kind, FrameKind::Data(_));
            let news = number >= session.next_in && session.is_open() && session.state != SessionState::Uninitiated;
            if read_again || news {
                session.inbound.entry(number).or_insert(kind);
            }
        }
        (0..self.sessions.len()).for_each(|index| self.take_answer(index));
    }

    /// Applies an entry to the sessions, as it did when it was made, without sending anything.
    fn fold(&mut self, entry: &Entry, arrived: &Arrived) -> Result<(), String> {
        match entry {
            Entry::Opened(Opened { protocol, version, party }) => {
                self.sessions.push(Session::opened(party.as_str().into(), protocol.clone(), *version));
            }
            Entry::Sent(sent) => match &sent.failure {
                Some(failure) => self.fold_failure(failure, arrived)?,
                None => self.fold_sends(sent)?,
            },
            Entry::Received(received) => self.fold_receive(received, arrived)?,
            Entry::ReceivedAll(received) => {
                self.fold_asked(&received.sessions, received.failure.as_deref())?;
                match &received.failure {
                    Some(failure) => self.fold_failure(failure, arrived)?,
                    None if received.sessions.len() != received.seqs.len() => {
                        return Err(format!("{} sessions, {} messages", received.sessions.len(), received.seqs.len()));
                    }
                    None => {
                        for (&session, &seq) in received.sessions.iter().zip(&received.seqs) {
                            self.fold_message(session, seq, arrived)?;
                        }
                    }
                }
            }
            Entry::Ready(ready) => self.fold_asked(&ready.sessions, ready.failure.as_deref())?,
            Entry::Closed(closed) => match &closed.failure {
                Some(failure) => self.fold_failure(failure, arrived)?,
                None => {
                    for &index in &closed.sessions {
                        let session = self.folded(index)?;
                        if session.state == SessionState::Initiated {
                            session.state = SessionState::Closed;
                        }
                    }
                }
            },
            Entry::Told(told) => {
                if let Some(failure) = &told.failure {
                    self.fold_failure(failure, arrived)?;
                }
            }
            Entry::Initiated(index) => {
                let session = self.folded(*index)?;
                session.state = SessionState::Initiating;
                session.next_out = 1;
            }
            Entry::Confirmed(confirmed) => {
                let session = self.folded(confirmed.session)?;
                let sent = session.confirm(confirmed).len();
                session.next_out += sent as u32;
            }
            Entry::Found(found) => {
                if let Some(failure) = &found.failure {
                    self.fold_failure(failure, arrived)?;
                }
            }
            Entry::Refused(_) | Entry::SleepBegun(_) | Entry::Woke(_) | Entry::Noted(_) => {}
        }
        Ok(())
    }

    fn folded(&mut self, index: u32) -> Result<&mut Session, String> {
        self.sessions.get_mut(index as usize).ok_or_else(|| format!("there is no session {index} yet"))
    }

    fn fold_sends(&mut self, sent: &Sent) -> Result<(), String> {
        for one in &sent.sends {
            let session = self.folded(one.session)?;
            session.received_from |= sent.then_receive;
            match (&session.state, &one.held) {
                (SessionState::Uninitiated, _) => {
                    session.state = SessionState::Initiating;
                    session.next_out = 1;
                }
                (SessionState::Initiating, Some(held)) => session.held.push(held.clone()),
                (SessionState::Initiated, _) => session.next_out += 1,
                (state, _) => return Err(format!("a send on session {}, which was {}", one.session, state.as_str())),
            }
        }
        Ok(())
    }

    fn fold_receive(&mut self, received: &Received, arrived: &Arrived) -> Result<(), String> {
        match (&received.failure, received.seq) {
            (Some(failure), _) => self.fold_failure(failure, arrived),
            (None, Some(seq)) => {
                self.folded(received.session)?.received_from = true;
                self.fold_message(received.session, seq, arrived)
            }
            (None, None) if received.or_end => self.fold_over(received.session, arrived),
            (None, None) => Err("a receive without a message".to_owned()),
        }
    }

    /// The flow consumed this message. The inbox must have it still, or the guest could not be told again.
    fn fold_message(&mut self, index: u32, seq: u32, arrived: &Arrived) -> Result<(), String> {
        let session = self.folded(index)?;
        let next = session.next_in;
        if seq != next || session.state != SessionState::Initiated {
            let state = session.state.as_str();
            return Err(format!("message {seq} of session {index} was consumed, which was {state} at message {next}"));
        }
        if !matches!(arrived.get(&(index, seq)).or(session.inbound.get(&seq)), Some(FrameKind::Data(_))) {
            return Err(format!("message {seq} of session {index} was consumed, but is not in the inbox"));
        }
        session.next_in = seq.saturating_add(1);
        Ok(())
    }

    /// The flow wanted to receive from all of these, unless the call was refused for its arguments.
    fn fold_asked(&mut self, sessions: &[u32], failure: Option<&Failure>) -> Result<(), String> {
        if failure.is_some_and(|failure| failure.session.is_none()) {
            return Ok(());
        }
        sessions.iter().try_for_each(|&index| {
            self.folded(index)?.received_from = true;
            Ok(())
        })
    }

    fn fold_failure(&mut self, failure: &Failure, arrived: &Arrived) -> Result<(), String> {
        failure.session.map_or(Ok(()), |session| self.fold_over(session, arrived))
    }

    /// The flow was told here that the session is over: so the end, error or rejection had arrived.
    fn fold_over(&mut self, index: u32, arrived: &Arrived) -> Result<(), String> {
        let session = self.folded(index)?;
        let answer = arrived.get(&(index, session.next_in));
        match (&session.state, answer) {
            (SessionState::Initiating, Some(answer)) if !matches!(answer, FrameKind::Confirm(_)) => {
                session.reject(answer);
            }
            (SessionState::Initiated, Some(over)) if !matches!(over, FrameKind::Data(_)) => {
                session.inbound.insert(session.next_in, over.clone());
            }
            (SessionState::Uninitiated | SessionState::Initiating | SessionState::Initiated, _) => {
                return Err(format!("session {index} was over, but its end is not in the inbox"));
            }
            _ => {}
        }
        self.tell_over(index);
        Ok(())
    }
}

/// Who is at the other end of each session, in their order.
fn counterparties<'a>(start: &'a StartRecord, segments: &'a [Segment]) -> Vec<&'a str> {
    let initiator = match &start.origin {
        Origin::Peer(initiation) => Some(initiation.from.as_str()),
        Origin::Rpc { .. } => None,
    };
    let entries = segments.iter().flat_map(|segment| &segment.items).filter_map(|item| item.entry.as_ref());
    let opened = entries.filter_map(|entry| match entry {
        Entry::Opened(opened) => Some(opened.party.as_str()),
        _ => None,
    });
    initiator.into_iter().chain(opened).collect()
}

fn decode_log(log: &[(u32, Bytes)]) -> Result<Vec<Segment>, JournalError> {
    let mut segments: Vec<Segment> = Vec::with_capacity(log.len());
    for (expected, (seq, body)) in (0..).zip(log) {
        if *seq != expected {
            let position = segments.iter().map(|segment| segment.items.len() as u64).sum();
            let reason = format!("segment {expected} is missing, segment {seq} is there");
            return Err(JournalError::Inconsistent { position, reason });
        }
        segments.push(Segment::decode_sealed(body, *seq)?);
    }
    Ok(segments)
}

/// The frames in the inbox, and the bytes they count for. What does not come from the session's counterparty is left
/// out, as it is when it arrives.
fn decode_inbox(counterparties: &[&str], inbox: &[Arrival]) -> Result<(Arrived, u64), JournalError> {
    let (mut arrived, mut bytes) = (Arrived::new(), 0);
    for (session, seq, body) in inbox {
        let index = u32::from(session.index());
        let batch = FrameBatch::decode(body.clone()).map_err(|error| JournalError::Corrupt {
            what: format!("message {seq} of session {index}"),
            reason: error.to_string(),
        })?;
        if counterparties.get(index as usize) != Some(&batch.from.as_str()) {
            continue;
        }
        for (number, frame) in numbered(*seq, &batch.frames) {
            bytes += frame.size() as u64;
            arrived.entry((index, number)).or_insert_with(|| frame.clone().into_kind());
        }
    }
    Ok((arrived, bytes))
}
