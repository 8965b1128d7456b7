//! The database of a host: what its identities' flows have done, durably, in one SQLite file.
//!
//! Everything that changes goes through one committer ([`Store::submit`]): units of many identities share a
//! transaction and its fsync, each unit succeeds or fails alone, and the database itself refuses a unit whose epoch is
//! not the identity's. Reads go through a small pool and see what is committed.
//!
//! Bodies (log segments, messages, start and end records) are opaque here. Layer 3: knows nothing of flows beyond
//! their rows.

mod conflict;
mod error;
mod examine;
mod fresh;
mod lock;
mod marks;
mod read;
mod record;
mod schema;
mod statements;
mod store;
mod unit;
mod writer;

pub use conflict::Conflict;
pub use error::StoreError;
pub use examine::{Examination, examine};
pub use lock::{DataLock, Holder};
pub use maxhost_sqlite::{Announcement, Bounds, GroupStats, TimingView};
pub use record::{Client, FlowFilter, FlowRecord, FlowState, Head, IdentityRecord, LiveFlow, OutboxRow, StoredJournal};
pub use schema::SCHEMA_VERSION;
pub use store::{Store, StoreOptions};
pub use unit::{AttemptToken, CommitUnit, Done, Keep, NewFlow, Op, Receipt};
