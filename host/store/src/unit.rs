//! What is committed together: a unit, and what it learns.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use maxhost_model::SessionId;
use smallvec::SmallVec;

use crate::claim::Author;
use crate::error::StoreError;
use crate::ledger::LedgerReceipt;
use crate::op::Op;

/// Is told how a unit went.
///
/// It runs on the committer's thread right after the commit, while every other identity waits for the next one: it must
/// be short and must not block. When the unit is not even taken ([`StoreError::Overloaded`], [`StoreError::Closed`]),
/// it runs inside [`crate::Store::submit`]: do not call that with a lock held that this takes.
pub type Done = Box<dyn FnOnce(Result<Receipt, StoreError>) + Send>;

/// What is written in one transaction, whole or not at all, for one identity.
pub struct CommitUnit {
    /// Who writes, under which claim. The database compares.
    pub author: Author,
    /// Shared by all units of one attempt of one flow.
    pub attempt: Option<AttemptToken>,
    /// Attempts of other flows whose messages this unit builds on, though their units may be waiting to be written still.
    /// If one of those was not written, neither is this one.
    pub depends_on: SmallVec<[AttemptToken; 1]>,
    /// What to write, in this order.
    pub ops: Vec<Op>,
    /// Is told how it went, once.
    pub done: Done,
}

impl CommitUnit {
    /// Bytes it holds in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        const UNIT: usize = 256;
        UNIT + self.ops.iter().map(Op::bytes).sum::<usize>()
    }
}

impl fmt::Debug for CommitUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitUnit")
            .field("author", &self.author)
            .field("attempt", &self.attempt)
            .field("ops", &self.ops.len())
            .finish_non_exhaustive()
    }
}

/// Shared by all units of one attempt of one flow, so that none is written after one that failed: its log would have a
/// gap.
#[derive(Debug, Clone, Default)]
pub struct AttemptToken(Arc<AtomicBool>);

impl AttemptToken {
    /// For a new attempt.
    #[must_use]
    pub fn new() -> AttemptToken {
        AttemptToken::default()
    }

    /// Refuses every unit of this attempt that is not being written already.
    pub fn revoke(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the attempt was given up.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What a committed unit learns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Which operations (index in the unit) delivered to a flow that is not live any more, or not the recipient's.
    pub undelivered: SmallVec<[usize; 1]>,
    /// Which operations (index in the unit) became an outbox row, because this run does not hold the recipient.
    pub outboxed: SmallVec<[usize; 1]>,
    /// The first messages that lay in the inbox of flows which the unit ends, for sessions that they had not seen confirmed.
    /// They are noted as late confirmations.
    pub unread: Vec<(SessionId, Bytes)>,
    /// What operations (index in the unit) on the ledger answer.
    pub ledger: Vec<(usize, LedgerReceipt)>,
}
