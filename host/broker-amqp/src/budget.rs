//! How much of what it was given a host has in hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that the consumers of a host have in hand.
#[derive(Debug, Default)]
pub(crate) struct Budget(AtomicUsize);

impl Budget {
    /// How many bytes are in hand.
    pub fn in_hand(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The share of one message. It is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    /// How large the message is.
    pub bytes: usize,
}

impl Share {
    /// Takes so many bytes, whether there is room or not.
    pub fn take(budget: &Arc<Budget>, bytes: usize) -> Share {
        budget.0.fetch_add(bytes, Ordering::Relaxed);
        Share { budget: Arc::clone(budget), bytes }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
