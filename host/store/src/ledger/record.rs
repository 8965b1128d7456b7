//! What is read of a ledger.

use bytes::Bytes;
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::query::{Cursor, Row};
use maxhost_ledger::vault::recording::TransactionStatus;
use maxhost_model::SecureHash;

use super::op::TransactionKind;

/// A transaction as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerTransaction {
    /// Rises with each transaction that the identity gets to know.
    pub number: i64,
    /// Its id.
    pub id: SecureHash,
    /// How far it has come.
    pub status: TransactionStatus,
    /// Which kind it is.
    pub kind: TransactionKind,
    /// When it came, or became part of the ledger.
    pub recorded: Timestamp,
    /// Its signatures, encoded; a list leaves them out.
    pub signatures: Vec<u8>,
    /// Its bytes; `None` if they are gone, and in a list.
    pub body: Option<Bytes>,
}

/// Which transactions are listed: newest first.
#[derive(Debug, Clone, Default)]
pub struct ListTransactions {
    /// Only below this number.
    pub before: Option<i64>,
    /// Only those that have come this far.
    pub status: Option<TransactionStatus>,
    /// At most so many.
    pub limit: u32,
}

/// A state of a vault: what queries know of it, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultRow {
    /// What queries know of it.
    pub row: Row,
    /// The encoded output component.
    pub state: Bytes,
    /// What has consumed it.
    pub consumed_by: Option<SecureHash>,
    /// The transaction in flight that it is an input of.
    pub in_flight: Option<SecureHash>,
}

impl VaultRow {
    /// Bytes that it counts for on a page.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.state.len()
    }
}

/// A type, and the fields that some states of it have together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultShape {
    /// The type.
    pub type_name: String,
    /// The fields that have rows of their own, as [`crate::ledger::codec::shape`] writes them.
    pub fields: String,
}

impl VaultShape {
    /// Whether these states have a field.
    #[must_use]
    pub fn has(&self, field: &str) -> bool {
        self.fields.split_terminator('.').any(|name| name == field)
    }
}

/// Some states of a vault, in the order of a query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VaultPage {
    /// The states.
    pub rows: Vec<VaultRow>,
    /// Where to go on; `None` if there is no more.
    pub cursor: Option<Cursor>,
}

/// A state by its reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredState {
    /// The state's reference.
    pub reference: StateRef,
    /// The encoded output component.
    pub state: Bytes,
    /// Whether it is consumed.
    pub consumed: bool,
}

/// A change of a vault: one transaction that was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultChangeRow {
    /// Rises with each change.
    pub number: i64,
    /// The transaction.
    pub transaction: SecureHash,
    /// When it was recorded.
    pub at: Timestamp,
    /// States that came in.
    pub produced: Vec<VaultRow>,
    /// States that were consumed.
    pub consumed: Vec<VaultRow>,
}

/// A lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLock {
    /// The state.
    pub reference: StateRef,
    /// Who holds it.
    pub holder: String,
    /// Until when.
    pub until: Timestamp,
}

/// An attachment that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// SHA-256 of the file.
    pub id: SecureHash,
    /// Where it came from.
    pub uploader: String,
    /// When it was kept.
    pub at: Timestamp,
    /// The file.
    pub body: Bytes,
}

/// What a notary has done since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NotaryCounts {
    /// Transactions that were committed.
    pub committed: u64,
    /// Requests that were refused because a state was consumed.
    pub conflicts: u64,
    /// States that were committed as consumed.
    pub states: u64,
}
