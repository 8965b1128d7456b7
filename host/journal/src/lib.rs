//! The flow state machine without I/O.
//!
//! A flow's checkpoint is its *journal*: the log of what it asked for, in program order, and the inbox of what arrived.
//! The [`Machine`] holds one flow's journal and sessions. The engine feeds it calls of the guest, arrivals and the time;
//! the machine answers, or says what the flow waits for, and collects what has to be written and sent. Nothing in here
//! knows a database, WebAssembly or a clock, so every interleaving can be tested by a seeded simulation.
//!
//! The state of a flow is a fold over its log: [`Machine::restore`] rebuilds it from the stored segments without running
//! the guest. The guest, when it is needed, is then run from the start, and each call it makes is held against the log:
//! same request, recorded answer. A request that differs is a [`Divergence`].
//!
//! Specification: sections 1.1, 1.4 and 2 of the node specification; `docs/architecture.md` tells the life of one flow.

mod awaiting;
pub mod call;
mod deliver;
mod finish;
mod labels;
mod live;
pub mod machine;
pub mod record;
mod replay;
mod restore;
pub mod session;
pub mod wire;

pub use call::{Answer, Awaited, Call, Divergence, Step, Wait, WaitKind};
pub use deliver::Delivery;
pub use labels::LatestLabels;
pub use machine::{Flush, Limits, MAX_LABEL, MAX_SLEEP_MS, Machine, Outgoing};
pub use record::{Failure, JournalError, Origin, Segment, StartRecord};
pub use restore::Arrival;
pub use session::{SessionState, SessionSummary};
pub use wire::{Frame, FrameBatch, Initiation};

/// Nanoseconds since 1970 UTC.
pub type Nanos = u64;

/// Milliseconds since 1970 UTC.
pub type Millis = u64;

/// Whole milliseconds of a time.
#[must_use]
pub fn to_millis(at: Nanos) -> Millis {
    at / 1_000_000
}
