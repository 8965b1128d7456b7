//! The queue before the committer: bounded in bytes, never blocks who puts something in.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use crate::commit_hint::{CommitHint, CommitHints};

/// Bounds of a [`Queue`] and of the batches taken from it.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Above this many waiting bytes the queue says that it is congested, below half of it no longer.
    pub soft_bytes: usize,
    /// Above this many waiting bytes it takes nothing more.
    pub hard_bytes: usize,
    /// Units of one commit at most.
    pub batch_units: usize,
    /// Bytes of one commit at most; a single larger unit still goes, alone.
    pub batch_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { soft_bytes: 32 << 20, hard_bytes: 256 << 20, batch_units: 4096, batch_bytes: 8 << 20 }
    }
}

/// Why a unit was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The hard bound is reached.
    Overloaded,
    /// The queue was closed.
    Closed,
}

/// What is committed together.
#[derive(Debug)]
pub struct Batch<U> {
    /// At least one, in the order they came.
    pub units: Vec<U>,
    /// Of all of them.
    pub bytes: usize,
    /// When the first of them came.
    pub since: Instant,
}

impl<U> Batch<U> {
    /// Takes off all but the first `count` units, of which there is at least one. Their share of the bytes is estimated.
    pub(crate) fn split_off(&mut self, count: usize) -> Option<Batch<U>> {
        let all = self.units.len();
        if count >= all {
            return None;
        }
        let units = self.units.split_off(count.max(1));
        if units.is_empty() {
            return None;
        }
        let bytes = self.bytes / all * units.len();
        self.bytes -= bytes;
        Some(Batch { units, bytes, since: self.since })
    }
}

/// One batch, or why there is none.
#[derive(Debug)]
pub enum Taken<U> {
    /// Something to do.
    Batch(Batch<U>),
    /// Nothing came for as long as one was willing to wait.
    Idle,
    /// Closed, and nothing is left.
    Closed,
}

struct Entry<U> {
    unit: U,
    bytes: usize,
    since: Instant,
}

struct State<U> {
    entries: VecDeque<Entry<U>>,
    bytes: usize,
    closed: bool,
    sleeping: bool,
}

/// A queue with many producers and one consumer.
pub struct Queue<U> {
    state: Mutex<State<U>>,
    ready: Condvar,
    bounds: Bounds,
    congested: watch::Sender<bool>,
    hints: Arc<CommitHints>,
}

impl<U> Queue<U> {
    /// An empty one.
    #[must_use]
    pub fn new(bounds: Bounds) -> Queue<U> {
        Queue {
            state: Mutex::new(State { entries: VecDeque::new(), bytes: 0, closed: false, sleeping: false }),
            ready: Condvar::new(),
            bounds,
            congested: watch::Sender::new(false),
            hints: Arc::default(),
        }
    }

    /// Puts a unit of this many bytes at the end.
    ///
    /// # Errors
    /// Gives the unit back when the queue is full or closed.
    pub fn push(&self, unit: U, bytes: usize) -> Result<(), (U, Refused)> {
        let (wake, crossed) = {
            let mut state = self.state.lock();
            if state.closed {
                return Err((unit, Refused::Closed));
            }
            if state.bytes + bytes > self.bounds.hard_bytes && !state.entries.is_empty() {
                return Err((unit, Refused::Overloaded));
            }
            state.bytes += bytes;
            state.entries.push_back(Entry { unit, bytes, since: Instant::now() });
            (state.sleeping, state.bytes > self.bounds.soft_bytes)
        };
        if wake {
            self.ready.notify_one();
        }
        if crossed && !*self.congested.borrow() {
            self.update_congestion();
        }
        Ok(())
    }

    /// Says that a unit is about to come. The consumer may wait a moment for it; nothing else depends on it.
    pub fn hint(&self) -> CommitHint {
        self.hints.hint()
    }

    /// Takes what waits, as far as the bounds of a batch allow; waits up to `patience` for the first unit.
    pub fn take(&self, patience: Duration) -> Taken<U> {
        let mut state = self.state.lock();
        let deadline = Instant::now() + patience;
        while state.entries.is_empty() {
            if state.closed {
                return Taken::Closed;
            }
            state.sleeping = true;
            let timed_out = self.ready.wait_until(&mut state, deadline).timed_out();
            state.sleeping = false;
            if timed_out && state.entries.is_empty() {
                return if state.closed { Taken::Closed } else { Taken::Idle };
            }
        }
        let mut units = Vec::with_capacity(state.entries.len().min(self.bounds.batch_units));
        let mut bytes = 0;
        let since = self.fill(&mut state, &mut units, &mut bytes);
        drop(state);
        if *self.congested.borrow() {
            self.update_congestion();
        }
        Taken::Batch(Batch { units, bytes, since: since.unwrap_or(deadline) })
    }

    /// Adds to a batch what has come meanwhile, and what is announced if it comes soon enough, as far as the bounds
    /// allow. True if there was something.
    pub fn top_up(&self, batch: &mut Batch<U>, patience: Duration) -> bool {
        let before = batch.units.len();
        self.hints.wait(patience);
        self.hints.next_round();
        self.fill(&mut self.state.lock(), &mut batch.units, &mut batch.bytes);
        let more = batch.units.len() > before;
        if more && *self.congested.borrow() {
            self.update_congestion();
        }
        more
    }

    fn fill(&self, state: &mut State<U>, units: &mut Vec<U>, bytes: &mut usize) -> Option<Instant> {
        let mut since = None;
        while units.len() < self.bounds.batch_units {
            let Some(next) = state.entries.front() else { break };
            if !units.is_empty() && *bytes + next.bytes > self.bounds.batch_bytes {
                break;
            }
            let Some(entry) = state.entries.pop_front() else { break };
            state.bytes -= entry.bytes;
            *bytes += entry.bytes;
            since.get_or_insert(entry.since);
            units.push(entry.unit);
        }
        since
    }

    /// Takes nothing more; what waits is still given out.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_all();
    }

    /// Everything that waits, for a consumer that gives up.
    pub fn drain(&self) -> Vec<U> {
        let mut state = self.state.lock();
        state.bytes = 0;
        state.entries.drain(..).map(|entry| entry.unit).collect()
    }

    /// Units and bytes that wait.
    #[must_use]
    pub fn depth(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.entries.len(), state.bytes)
    }

    /// Whether producers should hold back: true above the soft bound until half of it is left.
    #[must_use]
    pub fn congestion(&self) -> watch::Receiver<bool> {
        self.congested.subscribe()
    }

    /// The current value of [`Queue::congestion`].
    #[must_use]
    pub fn is_congested(&self) -> bool {
        *self.congested.borrow()
    }

    /// The signal is computed and set under the signal's own lock, from the queue as it then is, so that two threads
    /// that cross the bound in opposite directions cannot leave the wrong value behind.
    fn update_congestion(&self) {
        self.congested.send_if_modified(|congested| {
            let bytes = self.state.lock().bytes;
            let now = if *congested { bytes * 2 > self.bounds.soft_bytes } else { bytes > self.bounds.soft_bytes };
            std::mem::replace(congested, now) != now
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn small() -> Queue<u32> {
        Queue::new(Bounds { soft_bytes: 40, hard_bytes: 100, batch_units: 3, batch_bytes: 50 })
    }

    fn batch(queue: &Queue<u32>) -> Vec<u32> {
        match queue.take(Duration::ZERO) {
            Taken::Batch(batch) => batch.units,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn batches_keep_order_and_bounds() {
        let queue = small();
        for unit in 0..5 {
            queue.push(unit, 10).unwrap();
        }
        assert_eq!(batch(&queue), [0, 1, 2]);
        assert_eq!(batch(&queue), [3, 4]);
        queue.push(5, 30).unwrap();
        queue.push(6, 30).unwrap();
        assert_eq!(batch(&queue), [5], "two would be over the bytes of a batch");
        assert_eq!(batch(&queue), [6]);
        assert!(matches!(queue.take(Duration::ZERO), Taken::Idle));
    }

    #[test]
    fn the_hard_bound_refuses_and_gives_the_unit_back() {
        let queue = small();
        queue.push(1, 90).unwrap();
        assert_eq!(queue.push(2, 20), Err((2, Refused::Overloaded)));
        queue.push(3, 10).unwrap();
        assert_eq!(queue.depth(), (2, 100));
    }

    #[test]
    fn a_unit_larger_than_every_bound_goes_alone() {
        let queue = small();
        queue.push(1, 5000).unwrap();
        assert_eq!(batch(&queue), [1]);
    }

    #[test]
    fn what_is_announced_goes_along() {
        let queue = small();
        queue.push(1, 10).unwrap();
        let announced = queue.hint();
        let Taken::Batch(mut batch) = queue.take(Duration::ZERO) else { panic!("there is one") };
        std::thread::scope(|threads| {
            threads.spawn(|| {
                queue.push(2, 10).unwrap();
                drop(announced);
            });
            assert!(queue.top_up(&mut batch, Duration::from_secs(60)));
        });
        assert_eq!(batch.units, [1, 2]);
        assert!(!queue.top_up(&mut batch, Duration::from_secs(60)), "nothing more is announced");
    }

    #[test]
    fn congestion_is_told_and_taken_back() {
        let queue = small();
        for unit in 0..5 {
            queue.push(unit, 10).unwrap();
        }
        assert!(queue.is_congested());
        batch(&queue);
        assert!(!queue.is_congested());
    }

    #[test]
    fn a_closed_queue_gives_out_what_it_has() {
        let queue = small();
        queue.push(1, 1).unwrap();
        queue.close();
        assert_eq!(queue.push(2, 1), Err((2, Refused::Closed)));
        assert_eq!(batch(&queue), [1]);
        assert!(matches!(queue.take(Duration::from_secs(60)), Taken::Closed));
    }
}
