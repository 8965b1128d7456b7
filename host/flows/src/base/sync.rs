//! The primitives of the small protocols between threads: [`crate::flow::inbox`], [`crate::flow::signals`],
//! [`crate::flow::commit_tracker`] and [`crate::flow::speculation`] take them from here and from nowhere else.
//!
//! The package `maxhost-flows-loom` compiles those modules once more, over the primitives of loom, and tries every
//! order in which their threads may run.

pub(crate) use parking_lot::Mutex;
pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
