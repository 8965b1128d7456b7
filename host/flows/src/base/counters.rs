//! What is counted since the start of the host.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that operators see.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub started: AtomicU64,
    pub completed: AtomicU64,
    pub failed: AtomicU64,
    pub killed: AtomicU64,
    /// Waits, starts and ends that were made durable.
    pub steps: AtomicU64,
    pub evictions: AtomicU64,
    pub replays: AtomicU64,
    pub shadow_replays: AtomicU64,
    pub hospital: AtomicU64,
    /// Units that the database refused because their identity was another host's by then.
    pub fenced_units: AtomicU64,
    /// Identities given to another host for the sake of an even share.
    pub balance_moves: AtomicU64,
    /// Identities given to another host, or given up, because of what their manifests say of hosts.
    pub placement_moves: AtomicU64,
    /// How often it was looked whether some are to be given away.
    pub balance_ticks: AtomicU64,
}

impl Counters {
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
