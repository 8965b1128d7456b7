//! Arrivals: what comes in for a flow from the other ends of its sessions.

use bytes::Bytes;
use maxhost_model::SessionId;

use crate::machine::Machine;
use crate::record::{Confirmed, Entry};
use crate::session::{Session, SessionState};
use crate::wire::{Frame, FrameBatch, FrameKind};

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Taken in: it has to be stored, if it is not yet.
    Taken,
    /// It came before, or comes too late. It need not be stored; if it overlaps with another batch it may not be.
    Duplicate,
    /// It names a session this flow does not have, has not used yet, or has no more since it ended. Such a batch may
    /// not be stored: its place in the inbox belongs to the peer.
    UnknownSession,
    /// It does not come from the session's counterparty: somebody tries to speak for another (docs/behaviour.md 5.1). Such a batch
    /// may not be stored either.
    ForeignSender,
}

/// The frames of a batch with their numbers. A number that no sender can reach is left out, so that the count of what
/// was consumed can never overflow.
pub(crate) fn numbered(seq: u32, frames: &[Frame]) -> impl Iterator<Item = (u32, &Frame)> {
    frames.iter().enumerate().filter_map(move |(position, frame)| {
        let number = u32::try_from(position).ok().and_then(|position| seq.checked_add(position))?;
        (number < u32::MAX).then_some((number, frame))
    })
}

impl Machine {
    /// Takes in a batch whose first frame has the number `seq`. Frames may come twice or out of order: they are
    /// consumed once and in order. Afterwards the open call may have an answer, and there may be something to flush.
    pub fn deliver(&mut self, session: u16, seq: u32, batch: &FrameBatch) -> Delivery {
        let index = usize::from(session);
        let Some(state) = self.sessions.get_mut(index) else { return Delivery::UnknownSession };
        if *state.peer != *batch.from {
            return Delivery::ForeignSender;
        }
        if self.ended || state.state == SessionState::Uninitiated {
            return Delivery::UnknownSession;
        }
        if !state.is_open() {
            return Delivery::Duplicate;
        }
        // Parcels are never cut anew: one that overlaps with another is either the same again, or an attempt to change
        // what has been read.
        let known = |number| number < state.next_in || state.inbound.contains_key(&number);
        let mut frames = numbered(seq, &batch.frames).peekable();
        if frames.peek().is_none() || numbered(seq, &batch.frames).any(|(number, _)| known(number)) {
            return Delivery::Duplicate;
        }
        let mut bytes = 0;
        for (number, frame) in frames {
            bytes += frame.size() as u64;
            state.inbound.insert(number, frame.clone().into_kind());
        }
        self.count_bytes(bytes);
        self.take_answer(index);
        Delivery::Taken
    }

    /// The first frame to an initiator answers its initiation: it changes the session at once, whatever the flow does.
    /// A confirmation is logged, because it sets free what was held back; a rejection is found again in the inbox.
    pub(crate) fn take_answer(&mut self, index: usize) {
        let Some(session) = self.sessions.get_mut(index) else { return };
        if session.state != SessionState::Initiating {
            return;
        }
        match session.inbound.remove(&0) {
            Some(FrameKind::Confirm(confirm)) => {
                let confirmed = Confirmed {
                    session: index as u32,
                    peer_session: confirm.session,
                    version: confirm.version,
                    app: confirm.app,
                    peer_token: confirm.token,
                };
                for payload in session.confirm(&confirmed) {
                    self.emit(index as u32, Frame::data(payload));
                }
                self.log_event(Entry::Confirmed(confirmed));
            }
            Some(answer) => session.reject(&answer),
            None => {}
        }
    }
}

impl Session {
    /// Changes the session to initiated and hands out what was held back.
    pub(crate) fn confirm(&mut self, confirmed: &Confirmed) -> Vec<Bytes> {
        self.state = SessionState::Initiated;
        self.next_in = 1;
        self.peer_session = Some(SessionId(confirmed.peer_session));
        self.peer_token = confirmed.peer_token;
        self.info = Some((confirmed.version, confirmed.app.clone()));
        std::mem::take(&mut self.held)
    }
}
