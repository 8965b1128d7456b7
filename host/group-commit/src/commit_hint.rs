//! Commit hints: whoever is about to hand a unit in says so, and the committer, which would otherwise sync twice in a
//! row, waits a moment for it.
//!
//! A hint concerns the round that is being gathered and no later one, so that somebody who works for long holds up one
//! commit at most, and that by the time of one commit at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The upper half of the state counts rounds, the lower half counts the hints of the round.
const ROUND: u64 = 1 << 32;

/// The hints that are out.
#[derive(Debug, Default)]
pub(crate) struct CommitHints {
    state: AtomicU64,
    /// Whether the committer waits.
    waiting: Mutex<bool>,
    nobody: Condvar,
}

impl CommitHints {
    pub(crate) fn hint(self: &Arc<CommitHints>) -> CommitHint {
        let before = self.state.fetch_add(1, Ordering::AcqRel);
        CommitHint { hints: Arc::clone(self), round: before / ROUND }
    }

    /// Waits until every unit that a hint of this round stands for has come, or for so long.
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

    /// Hints that were given so far no longer count.
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

/// Says that a unit is likely to come, until this is dropped.
#[derive(Debug)]
#[must_use = "a hint that is dropped says nothing"]
pub struct CommitHint {
    hints: Arc<CommitHints>,
    round: u64,
}

impl Drop for CommitHint {
    fn drop(&mut self) {
        self.hints.has_come(self.round);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn one_waits_until_the_last_has_come() {
        let hints = Arc::new(CommitHints::default());
        let (one, two) = (hints.hint(), hints.hint());
        std::thread::scope(|threads| {
            let waits = threads.spawn(|| hints.wait(LONG));
            while !*hints.waiting.lock() {
                std::thread::yield_now();
            }
            drop(one);
            assert!(*hints.waiting.lock());
            drop(two);
            assert!(waits.join().is_ok());
        });
        hints.wait(LONG);
    }

    #[test]
    fn one_does_not_wait_for_ever() {
        let hints = Arc::new(CommitHints::default());
        let never = hints.hint();
        hints.wait(Duration::from_millis(1));
        assert!(hints.is_anybody());
        drop(never);
        assert!(!hints.is_anybody());
    }

    #[test]
    fn what_was_announced_for_one_round_does_not_count_in_the_next() {
        let hints = Arc::new(CommitHints::default());
        let old = hints.hint();
        hints.next_round();
        hints.wait(LONG);
        let new = hints.hint();
        drop(old);
        assert!(hints.is_anybody(), "it is the new one that is waited for");
        drop(new);
        assert!(!hints.is_anybody());
    }
}
