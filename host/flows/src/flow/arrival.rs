//! A message for one of a flow's sessions, as it reaches the flow in memory.

use maxhost_journal::wire::{Confirm, FrameKind};
use maxhost_journal::{Frame, FrameBatch};
use prost::Message;

use crate::flow::offer::Runner;

/// Bytes of the longest name of a party that is kept: more than any name may have.
const LONGEST_NAME: usize = 2048;

/// A batch for one of the flow's sessions.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub session: u16,
    pub seq: u32,
    pub batch: FrameBatch,
    /// It is not known to be in the database yet.
    pub runner: Option<Runner>,
}

impl Arrival {
    pub fn bytes(&self) -> usize {
        64 + self.batch.encoded_len()
    }

    /// What has to be kept of one that found no room in memory, in case that the flow ends without having read it:
    /// which session it confirms. A name and a few numbers, whatever its sender has put into it.
    pub fn confirmation_alone(self) -> Option<Arrival> {
        let Confirm { session: confirmed, token: confirmed_token, .. } = *confirmation(&self.batch)?;
        let Arrival { session, seq, batch: FrameBatch { from, token, .. }, runner } = self;
        let confirm = Frame {
            kind: Some(FrameKind::Confirm(Confirm {
                session: confirmed,
                token: confirmed_token,
                ..Confirm::default()
            })),
        };
        let batch = FrameBatch { from, frames: vec![confirm], token };
        (batch.from.len() <= LONGEST_NAME).then_some(Arrival { session, seq, batch, runner })
    }
}

/// The confirmation that a batch begins with, if it does.
pub(crate) fn confirmation(batch: &FrameBatch) -> Option<&Confirm> {
    match batch.frames.first()?.kind.as_ref()? {
        FrameKind::Confirm(confirm) => Some(confirm),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn arrival(frames: Vec<Frame>) -> Arrival {
        Arrival { session: 1, seq: 0, batch: FrameBatch { from: "O=Bob".to_owned(), frames, token: 0 }, runner: None }
    }

    #[test]
    fn only_a_confirmation_is_kept_of_a_large_message() {
        let data = || Frame::data(Bytes::from(vec![0; 100_000]));
        let confirm = Frame { kind: Some(FrameKind::Confirm(Confirm::default())) };
        assert!(arrival(vec![data()]).confirmation_alone().is_none());
        assert!(arrival(vec![data(), confirm.clone()]).confirmation_alone().is_none(), "it comes first or not at all");
        let kept = arrival(vec![confirm, data()]).confirmation_alone();
        assert!(kept.is_some_and(|kept| kept.bytes() < 200 && confirmation(&kept.batch).is_some()));
    }
}
