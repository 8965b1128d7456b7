//! Arrivals: what comes in for a flow from the other ends of its sessions.

use bytes::Bytes;
use maxhost_model::{ErrorId, SessionId};

use crate::machine::Machine;
use crate::record::{Confirmed, Entry};
use crate::session::SessionState;
use crate::wire::{Frame, FrameKind, Parcel};

/// What became of a parcel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Taken in.
    Taken,
    /// Nothing in it was new.
    Duplicate,
    /// It names a session this flow does not have.
    UnknownSession,
    /// It does not come from the session's counterparty: somebody tries to speak for another (spec 2.1).
    ForeignSender,
}

impl Machine {
    /// Takes in a parcel whose first frame has the number `seq`. Frames may come twice or out of order: they are
    /// consumed once and in order. Afterwards the open call may have an answer, and there may be something to flush.
    pub fn deliver(&mut self, session: u16, seq: u32, parcel: &Parcel) -> Delivery {
        let index = usize::from(session);
        let Some(state) = self.sessions.get_mut(index) else { return Delivery::UnknownSession };
        if *state.peer != *parcel.from {
            return Delivery::ForeignSender;
        }
        if state.state == SessionState::Closed {
            return Delivery::Duplicate;
        }
        let mut new = false;
        let mut bytes = 0;
        for (number, frame) in (seq..).zip(&parcel.frames) {
            let Some(kind) = &frame.kind else { continue };
            if number >= state.next_in && !state.inbound.contains_key(&number) {
                new = true;
                bytes += match kind {
                    FrameKind::Data(payload) => payload.len(),
                    _ => 16,
                };
                state.inbound.insert(number, kind.clone());
            }
        }
        self.count_bytes(bytes);
        if !new {
            return Delivery::Duplicate;
        }
        self.take_answer(index);
        Delivery::Taken
    }

    /// The first frame to an initiator answers its initiation: it changes the session at once, whatever the flow does.
    fn take_answer(&mut self, index: usize) {
        let session = &mut self.sessions[index];
        if session.state != SessionState::Initiating || session.next_in != 0 {
            return;
        }
        match session.inbound.get(&0) {
            Some(FrameKind::Confirm(confirm)) => {
                let confirm = confirm.clone();
                session.inbound.remove(&0);
                session.next_in = 1;
                let confirmed = Confirmed {
                    session: index as u32,
                    peer_session: confirm.session,
                    version: confirm.version,
                    app: confirm.app,
                };
                for payload in self.confirm(&confirmed) {
                    self.emit(index as u32, Frame::data(payload));
                }
                self.log_event(Entry::Confirmed(confirmed));
            }
            Some(FrameKind::Reject(reject)) => {
                session.state = SessionState::Rejected {
                    text: reject.text.clone(),
                    error_id: ErrorId(reject.error_id),
                    told: false,
                };
                session.inbound.remove(&0);
                session.next_in = 1;
            }
            _ => {}
        }
    }

    /// Changes the session to initiated and hands out what was held back.
    pub(crate) fn confirm(&mut self, confirmed: &Confirmed) -> Vec<Bytes> {
        let Some(session) = self.sessions.get_mut(confirmed.session as usize) else { return Vec::new() };
        session.state = SessionState::Initiated;
        session.peer_session = Some(SessionId(confirmed.peer_session));
        session.info = Some((confirmed.version, confirmed.app.clone()));
        std::mem::take(&mut session.held)
    }
}
