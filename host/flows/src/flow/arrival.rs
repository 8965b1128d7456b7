//! A message for one of a flow's sessions, as it reaches the flow in memory.

use maxhost_journal::FrameBatch;
use maxhost_journal::wire::{Confirm, FrameKind};
use prost::Message;

use crate::flow::offer::Runner;

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
}

/// The confirmation that a batch begins with, if it does.
pub(crate) fn confirmation(batch: &FrameBatch) -> Option<&Confirm> {
    match batch.frames.first()?.kind.as_ref()? {
        FrameKind::Confirm(confirm) => Some(confirm),
        _ => None,
    }
}
