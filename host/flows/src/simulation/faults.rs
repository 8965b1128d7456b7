//! What goes wrong, when, and how often it has.

use std::sync::Arc;

use maxhost_group_commit::{Fault, FaultKind};
use maxhost_store::StoreError;
use parking_lot::Mutex;

use super::rng::Rng;

/// How often what happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub commits: u64,
    pub refused: u64,
    pub superseded: u64,
    pub failed_reads: u64,
    /// A thread was held up right after it had handed a unit in.
    pub held_up: u64,
    pub defects: u64,
}

struct State {
    mishaps: u32,
    defects: u32,
    counts: Counts,
}

/// Clones are one and the same.
#[derive(Clone)]
pub(super) struct Faults {
    state: Arc<Mutex<State>>,
    pub rng: Rng,
}

impl Faults {
    /// So many of each are still to come.
    pub fn new(rng: Rng, mishaps: u32, defects: u32) -> Faults {
        Faults { state: Arc::new(Mutex::new(State { mishaps, defects, counts: Counts::default() })), rng }
    }

    /// None comes any more.
    pub fn be_calm(&self) {
        let mut state = self.state.lock();
        (state.mishaps, state.defects) = (0, 0);
    }

    /// True once in a while, as long as some are left.
    pub fn mishap(&self, one_in: usize) -> bool {
        let mut state = self.state.lock();
        let now = state.mishaps > 0 && self.rng.one_in(one_in);
        state.mishaps -= u32::from(now);
        now
    }

    /// A panic, once in a while.
    pub fn defect(&self, one_in: usize) {
        let now = {
            let mut state = self.state.lock();
            let now = state.defects > 0 && self.rng.one_in(one_in);
            state.defects -= u32::from(now);
            state.counts.defects += u64::from(now);
            now
        };
        if now {
            super::tell(|| "  a defect".to_owned());
            std::panic::panic_any(super::Injected);
        }
    }

    pub fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.state.lock().counts);
    }

    pub fn counts(&self) -> Counts {
        self.state.lock().counts
    }
}

/// What a store says that cannot write or read for now.
pub(super) fn unavailable() -> StoreError {
    StoreError::from(Fault::new(FaultKind::Io, "the simulated disk fails"))
}
