//! What is read of a ledger.

use bytes::Bytes;
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::query::{Cursor, Row};
use maxhost_ledger::vault::recording::{StatesToRecord, TransactionStatus};
use maxhost_model::SecureHash;

use super::op::{Part, TransactionKind};

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

/// A transaction in flight that no flow settles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsettled {
    /// The transaction.
    pub id: SecureHash,
    /// How it is to be settled.
    pub part: Part,
    /// Which of its states come into the vault.
    pub states: StatesToRecord,
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
    /// The transaction in flight that it is an input of: of several, the first.
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

/// Which attachments are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListAttachments {
    /// Only those with an id behind this one.
    pub after: Option<SecureHash>,
    /// Only this one.
    pub only: Option<SecureHash>,
    /// At most so many.
    pub limit: u32,
}

/// An attachment in a list, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAttachment {
    /// SHA-256 of the file.
    pub id: SecureHash,
    /// Where it came from.
    pub uploader: String,
    /// When it was kept.
    pub at: Timestamp,
    /// The size of the file, bytes.
    pub size: u64,
    /// The first bytes of the file, four at most: they tell code from data.
    pub begins: Bytes,
}

/// What the uploader of an attachment begins with that a client has imported. The name of the user stands behind it.
pub const IMPORTED_BY: &str = "rpc:";

/// How much of what clients have imported is kept for one identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportBounds {
    /// How many attachments its clients have imported.
    pub attachments: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// What of the attachments that clients have imported is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imports {
    /// Whether the one that was asked about is there, wherever it came from.
    pub has: bool,
    /// How many clients have imported.
    pub attachments: u64,
    /// Bytes of those.
    pub bytes: u64,
}

/// What became of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    /// It is kept now.
    New,
    /// It was there, and stays as it was.
    Known,
    /// There is no room for it.
    NoRoom(Imports),
}

impl Imports {
    /// What becomes of one more attachment of so many bytes, if so much may be kept. It was imported if it is
    /// [`Imported::New`].
    #[must_use]
    pub fn decide(self, size: u64, bounds: ImportBounds) -> Imported {
        if self.has {
            return Imported::Known;
        }
        let fits = self.attachments < bounds.attachments && self.bytes.saturating_add(size) <= bounds.bytes;
        if fits { Imported::New } else { Imported::NoRoom(self) }
    }
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
