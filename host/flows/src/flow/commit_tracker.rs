//! The units that one run has handed to the committer, and what became of them.
//!
//! Everything is in one atomic word, so that all its changes have one order: either the run, when it begins to settle,
//! sees that the last unit is answered, or whoever answers the last unit sees that the run settles and wakes it. With two
//! words either side could read the other's old value, and the run would sleep for ever.

use crate::base::sync::{AtomicU64, Mutex, Ordering};

/// The lower half counts the units that are not answered.
const COUNT: u64 = u32::MAX as u64;
/// The run waits until every unit is answered.
const SETTLING: u64 = 1 << 32;
/// At least one unit is in the database.
const DURABLE: u64 = 1 << 33;

/// How many units of one run are on their way, and whether one was not written; `E` is why.
#[derive(Debug)]
pub(crate) struct CommitTracker<E> {
    state: AtomicU64,
    failure: Mutex<Option<E>>,
}

impl<E> CommitTracker<E> {
    pub fn new() -> CommitTracker<E> {
        CommitTracker { state: AtomicU64::new(0), failure: Mutex::new(None) }
    }

    /// A unit goes to the committer.
    pub fn submitting(&self) {
        self.state.fetch_add(1, Ordering::AcqRel);
    }

    /// Units that are not answered.
    pub fn in_flight(&self) -> u32 {
        (self.state.load(Ordering::Acquire) & COUNT) as u32
    }

    /// A unit is durable. True if the run waits for this and has to be woken.
    pub fn committed(&self) -> bool {
        self.answered(DURABLE)
    }

    /// A unit was not written. True as with [`CommitTracker::committed`].
    pub fn failed(&self, error: E) -> bool {
        // Before the count goes down, so that whoever has settled finds it.
        self.failure.lock().get_or_insert(error);
        self.answered(0)
    }

    fn answered(&self, with: u64) -> bool {
        let less = |state: u64| Some(((state & !COUNT) | (state & COUNT).saturating_sub(1)) | with);
        match self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, less) {
            Ok(before) | Err(before) => before & SETTLING != 0 && before & COUNT <= 1,
        }
    }

    /// The run wants to be woken when every unit is answered. True if that is so already.
    pub fn begin_settling(&self) -> bool {
        self.state.fetch_or(SETTLING, Ordering::AcqRel) & COUNT == 0
    }

    pub fn end_settling(&self) {
        self.state.fetch_and(!SETTLING, Ordering::AcqRel);
    }

    /// Whether every unit is answered.
    pub fn is_settled(&self) -> bool {
        self.in_flight() == 0
    }

    /// Whether at least one unit is in the database.
    pub fn is_durable(&self) -> bool {
        self.state.load(Ordering::Acquire) & DURABLE != 0
    }

    /// Takes the reason why the first unit failed that did.
    pub fn take_failure(&self) -> Option<E> {
        self.failure.lock().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_answer_wakes_and_only_a_run_that_settles() {
        let units = CommitTracker::<()>::new();
        units.submitting();
        assert!(!units.committed(), "it does not settle");
        units.submitting();
        units.submitting();
        assert!(!units.begin_settling());
        assert!(!units.committed() && !units.is_settled());
        assert!(units.committed() && units.is_settled());
        units.end_settling();
        assert!(units.begin_settling(), "nothing is on its way");
    }

    #[test]
    fn the_first_failure_is_kept_and_nothing_is_durable() {
        let units = CommitTracker::new();
        units.submitting();
        units.submitting();
        units.begin_settling();
        assert!(!units.failed("first"));
        assert!(units.failed("second"));
        assert!(!units.is_durable());
        assert_eq!((units.take_failure(), units.take_failure()), (Some("first"), None));
    }
}
