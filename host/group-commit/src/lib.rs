//! Group commit: many units, one transaction, one sync of the disk.
//!
//! Whoever wants something written puts a unit into a [`Queue`], which is bounded in bytes. One thread runs [`run`]: it
//! takes what waits, applies every unit whole or not at all, commits once, and tells every unit how it went. Under load
//! the next batch gathers while the disk is busy with the last one. Otherwise the loop waits for nothing but units that
//! somebody has announced with a [`CommitHint`], and for those no longer than a commit usually takes.
//!
//! Layer 0: this crate knows neither which database there is nor what is stored in it. A database takes part by
//! implementing [`Transactions`].

mod batches;
mod commit_hint;
mod fault;
mod queue;
mod stats;

pub use batches::{Failure, Transactions, run};
pub use commit_hint::CommitHint;
pub use fault::{Fault, FaultKind};
pub use queue::{Batch, Bounds, Queue, Refused, Taken};
pub use stats::{GroupStats, Stats, TimingView};
