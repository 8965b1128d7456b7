//! Group commit over one SQLite file: what the store and the embedded broker have in common.
//!
//! Whoever wants something written puts a unit into a [`Queue`], bounded in bytes. One thread runs [`group::run`]: it
//! takes what waits, applies every unit whole or not at all, commits once, and tells every unit how it went. Under load
//! the next batch gathers while the disk is busy with the last one; else the committer waits for nothing but what is
//! announced ([`Queue::announce`]), and no longer than a commit takes.
//!
//! Layer 2: knows SQLite and nothing of what is stored.

mod coming;
pub mod fault;
pub mod group;
pub mod open;
pub mod queue;
mod reserve;
pub mod stats;
pub mod wal;

pub use coming::Announcement;
pub use fault::{Fault, FaultKind};
pub use group::{Failure, Writer};
pub use open::{Tuning, open_reader, open_writer};
pub use queue::{Batch, Bounds, Queue, Refused};
pub use stats::{GroupStats, Stats, TimingView};
pub use wal::WalLimits;
