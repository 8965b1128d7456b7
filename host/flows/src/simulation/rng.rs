//! A seeded source of choices (SplitMix64): the same again on every machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Clones draw from one and the same source.
#[derive(Clone)]
pub(crate) struct Rng(Arc<AtomicU64>);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(Arc::new(AtomicU64::new(seed)))
    }

    pub fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let value = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub fn below(&self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub fn between(&self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True once in `of` times.
    pub fn one_in(&self, of: usize) -> bool {
        self.below(of) == 0
    }
}
