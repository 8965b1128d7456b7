//! The ledger of an identity in its database: transactions, the vault, locks, and what a notary has committed.
//!
//! What is decided, and in which order, is in [`rules`], over the rows of [`LedgerRows`]; the rules themselves are those of
//! the crate `maxhost-ledger`. What is read is in [`LedgerReader`].

pub mod codec;
mod in_flight;
mod notary;
mod op;
pub mod query;
mod reader;
mod record;
mod requests;
mod rows;
pub(crate) mod rules;
mod selecting;

pub use in_flight::InFlight;
pub use op::{
    AssignedKey, ClaimOp, DecidedSoFar, Holding, KnownKey, LedgerOp, LedgerReceipt, NewAttachment, NewParameters,
    NotaryOp, OutputState, Part, Recording, Reservation, Settlement, StateContent, TokenAmount, TransactionKind,
};
pub use query::{Alike, Having, Indexed, PageRequest, Slice, Source, SqlCriteria, SqlDialect, SqlValue};
pub use reader::LedgerReader;
pub use record::{
    Attachment, HeldLock, IMPORTED_BY, ImportBounds, Imported, Imports, KeptAttachment, LedgerTransaction,
    ListAttachments, ListTransactions, NotaryCounts, Unsettled, VaultChangeRow, VaultPage, VaultRow, VaultShape,
};
pub use requests::{
    Answered, Conflicting, Consumption, LOGGED_CONFLICTS, LOOKED_AT, ListRequests, LoggedRequest, RequestPage,
    RequestPlace, decode_conflicts,
};
pub use rows::{CandidateScope, FlowLease, LedgerRows, NewState, TransactionPut, TransactionState, Wanted};
