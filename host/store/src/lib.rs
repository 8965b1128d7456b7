//! What a host's database does, whichever it is: units, the rules of each operation, and what can be read.
//!
//! Everything that changes goes through one committer ([`Committer`]): units of many identities share a transaction and
//! its sync, each unit succeeds or fails alone, and the database itself refuses a unit whose claim is not the one that
//! the identity's row shows. Reads go through [`IdentityReader`] and its sisters and see what is committed.
//!
//! A crate that implements a database provides [`Rows`] within a transaction, the readers, and an outcome for every
//! commit; the rules are here ([`rules`]), and so is the suite that it must pass (feature `contract-tests`).
//!
//! Bodies (log segments, messages, start and end records) are opaque here. This crate knows nothing of flows
//! beyond their rows, and no database.

mod audit;
mod backlog;
mod claim;
mod committer;
mod components;
mod conflict;
#[cfg(feature = "contract-tests")]
pub mod contract;
mod error;
mod id_allocator;
mod kept;
pub mod ledger;
mod lock;
mod op;
mod reader;
mod record;
mod rows;
pub mod rules;
mod store;
mod unit;

pub use audit::{AUDIT_TEXT_BYTES, AuditBounds, AuditClass, AuditFilter, AuditPlace, AuditReader, AuditRow};
pub use backlog::{Backlog, NOTED_EVERY, Queued, Quota, Quotas, Waiting};
pub use claim::{Author, Caution, ClaimRequest, DEATHS_LAST, DEATHS_SLOW, Forgive, NOBODY, Recipient, UNCLAIMED};
pub use committer::{Claimed, CommitQueue, Committer, Job, Outcome, Reply};
pub use components::{ComponentHash, SharedComponents};
pub use conflict::Conflict;
pub use error::StoreError;
pub use id_allocator::IdAllocator;
pub use kept::KeptMessages;
pub use ledger::{LedgerOp, LedgerReader, LedgerReceipt, LedgerRows};
pub use lock::{DataLock, Holder};
pub use maxhost_group_commit::{Bounds, CommitHint, GroupStats, TimingView};
pub use maxhost_model::{Claim, FencingToken, RunId};
pub use op::{ClientOp, FlowOp, IdentityOp, Keep, MessageOp, NewFlow, Op};
pub use reader::{
    ClientReader, FlowReader, IdentityReader, JournalReader, MessageReader, PAGE_BYTES, each_live_flow, each_start,
    is_last_page, outbox_begin, outbox_database,
};
pub use record::{
    Client, FlowFilter, FlowRecord, FlowState, FlowVersion, Head, IdentityRecord, LateConfirm, LeftRows, LeftWork,
    LiveFlow, OutboxContent, OutboxDestination, OutboxRow, PROCESSED_RETENTION, ResultRead, SizedJournal,
    StoredJournal, UNTAKEN_BYTES, UNTAKEN_ROWS, UNTAKEN_TRIES, Untaken, UntakenCount,
};
pub use rows::{End, HostRows, LeftBehind, Orphan, Rows, StateChange};
pub use store::{Database, Store};
pub use unit::{AttemptToken, CommitUnit, Done, Receipt};
