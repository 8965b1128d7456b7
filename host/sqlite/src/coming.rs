//! Units that are on their way: who is about to hand one in says so, and the committer, which would otherwise sync
//! twice in a row, waits a moment for it.
//!
//! An announcement concerns the round that is being gathered and no later one, so that somebody who works for long
//! holds up one commit at most, and that by the time of one commit at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Rounds are counted in the upper half, those who have announced something for the round in the lower.
const ROUND: u64 = 1 << 32;

/// Who has announced a unit.
#[derive(Debug, Default)]
pub(crate) struct Coming {
    state: AtomicU64,
    /// Whether the committer waits.
    waiting: Mutex<bool>,
    nobody: Condvar,
}

impl Coming {
    pub(crate) fn announce(self: &Arc<Coming>) -> Announcement {
        let before = self.state.fetch_add(1, Ordering::AcqRel);
        Announcement { coming: Arc::clone(self), round: before / ROUND }
    }

    /// Waits until nobody has announced anything that has not come, or for so long.
    pub(crate) fn wait(&self, longest: Duration) {
        if !self.is_anybody() {
            return;
        }
        let deadline = Instant::now() + longest;
        let mut waiting = self.waiting.lock();
        *waiting = true;
        while self.is_anybody() && !self.nobody.wait_until(&mut waiting, deadline).timed_out() {}
        *waiting = false;
    }

    /// What was announced so far no longer counts.
    pub(crate) fn next_round(&self) {
        let next = |state: u64| Some((state / ROUND).wrapping_add(1).wrapping_mul(ROUND));
        let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    fn is_anybody(&self) -> bool {
        !self.state.load(Ordering::Acquire).is_multiple_of(ROUND)
    }

    fn has_come(&self, round: u64) {
        let less = |state: u64| (state / ROUND == round).then(|| state.wrapping_sub(1));
        let last =
            self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok_and(|before| before % ROUND == 1);
        // Under the lock, so that the committer is either before its look at the number or already waits.
        if last && *self.waiting.lock() {
            self.nobody.notify_one();
        }
    }
}

/// A unit is likely to come, until this is dropped.
#[derive(Debug)]
#[must_use = "dropped, it announces nothing"]
pub struct Announcement {
    coming: Arc<Coming>,
    round: u64,
}

impl Drop for Announcement {
    fn drop(&mut self) {
        self.coming.has_come(self.round);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn one_waits_until_the_last_has_come() {
        let coming = Arc::new(Coming::default());
        let (one, two) = (coming.announce(), coming.announce());
        std::thread::scope(|threads| {
            let waits = threads.spawn(|| coming.wait(LONG));
            while !*coming.waiting.lock() {
                std::thread::yield_now();
            }
            drop(one);
            assert!(*coming.waiting.lock());
            drop(two);
            assert!(waits.join().is_ok());
        });
        coming.wait(LONG);
    }

    #[test]
    fn one_does_not_wait_for_ever() {
        let coming = Arc::new(Coming::default());
        let never = coming.announce();
        coming.wait(Duration::from_millis(1));
        assert!(coming.is_anybody());
        drop(never);
        assert!(!coming.is_anybody());
    }

    #[test]
    fn what_was_announced_for_one_round_does_not_count_in_the_next() {
        let coming = Arc::new(Coming::default());
        let old = coming.announce();
        coming.next_round();
        coming.wait(LONG);
        let new = coming.announce();
        drop(old);
        assert!(coming.is_anybody(), "it is the new one that is waited for");
        drop(new);
        assert!(!coming.is_anybody());
    }
}
