//! What is in memory of each queue: who consumes it, how much it holds, and whether a notice of its backlog is due.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::broker::Holding;
use crate::queue_name::QueueName;

/// A queue.
pub(super) struct Entry {
    pub(super) row: i64,
    pub(super) name: QueueName,
    pub(super) state: watch::Sender<State>,
    /// Bytes of the messages that are in the file and of those on their way into it.
    held: AtomicU64,
}

impl Entry {
    /// Takes room for a message, unless that would bring the queue over `limit`.
    ///
    /// # Errors
    /// How much the queue holds.
    pub(super) fn reserve(&self, bytes: u64, limit: u64) -> Result<(), u64> {
        let room = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= limit);
        self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).map(drop)
    }

    /// Gives back the room of a message that was not written, or is gone.
    pub(super) fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// The changing part of an [`Entry`].
#[derive(Debug, Default)]
pub(super) struct State {
    /// The first of them gets the messages.
    pub(super) consumers: VecDeque<u64>,
    /// Messages that are committed and not acknowledged.
    pub(super) depth: u64,
    /// The number of the newest committed message.
    pub(super) newest: i64,
    /// A notice is due and nobody has taken it yet.
    noticed: bool,
}

impl State {
    fn is_waiting(&self) -> bool {
        self.depth > 0 && self.consumers.is_empty()
    }
}

/// When messages came, for telling how long the oldest has waited.
///
/// Messages of all queues are numbered in the order they came, so a few marks are enough: each says that the messages from
/// its number on came at its time, up to the next mark.
struct Arrivals(VecDeque<(i64, Instant)>);

impl Arrivals {
    /// The shortest time between two marks.
    const APART: Duration = Duration::from_millis(50);
    /// Marks that are kept: beyond it, each second one goes.
    const MARKS: usize = 4096;

    fn arrived(&mut self, seq: i64, now: Instant) {
        if self.0.back().is_some_and(|(_, at)| now < *at + Arrivals::APART) {
            return;
        }
        if self.0.len() >= Arrivals::MARKS {
            let mut number = 0;
            self.0.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
        self.0.push_back((seq, now));
    }

    /// For how long the oldest of all messages has waited. What is older than it is forgotten.
    fn age(&mut self, oldest: i64, now: Instant) -> Duration {
        while self.0.get(1).is_some_and(|(seq, _)| *seq <= oldest) {
            self.0.pop_front();
        }
        self.0.front().map_or(Duration::ZERO, |(_, at)| now.saturating_duration_since(*at))
    }
}

/// All queues, and the notices that are due. Bounded by the number of queues.
pub(super) struct Queues {
    entries: Mutex<HashMap<QueueName, Arc<Entry>>>,
    due: Mutex<VecDeque<Arc<Entry>>>,
    notice: Notify,
    consumers: AtomicU64,
    arrivals: Mutex<Arrivals>,
    /// Queues of an older version, which nobody asks for any more.
    left_alone: HashSet<i64>,
}

impl Queues {
    /// No queues yet. What is loaded counts as come by now.
    pub(super) fn new() -> Queues {
        Queues {
            entries: Mutex::default(),
            due: Mutex::default(),
            notice: Notify::new(),
            consumers: AtomicU64::new(0),
            arrivals: Mutex::new(Arrivals([(0, Instant::now())].into())),
            left_alone: HashSet::new(),
        }
    }

    /// A queue found in the file whose messages are for nobody.
    pub(super) fn leave_alone(&mut self, row: i64) {
        self.left_alone.insert(row);
    }

    /// Whether somebody may ask for the messages of this queue.
    pub(super) fn is_known(&self, row: i64) -> bool {
        !self.left_alone.contains(&row)
    }

    /// For how long the message of this number has waited, if it is the oldest of all.
    pub(super) fn age_of_oldest(&self, seq: i64) -> Duration {
        self.arrivals.lock().age(seq, Instant::now())
    }

    pub(super) fn find(&self, name: &QueueName) -> Option<Arc<Entry>> {
        self.entries.lock().get(name).cloned()
    }

    /// The entry of a queue that is in the file: the one that is there, if somebody was faster.
    pub(super) fn add(&self, row: i64, name: &QueueName) -> Arc<Entry> {
        let mut entries = self.entries.lock();
        let entry = entries.entry(name.clone()).or_insert_with(|| {
            let (name, held) = (name.clone(), AtomicU64::new(0));
            Arc::new(Entry { row, name, state: watch::Sender::default(), held })
        });
        Arc::clone(entry)
    }

    /// A queue found in the file when the broker starts.
    pub(super) fn load(&self, row: i64, name: &QueueName, depth: u64, newest: i64, bytes: u64) {
        let entry = self.add(row, name);
        entry.held.store(bytes, Ordering::Release);
        entry.state.send_modify(|state| (state.depth, state.newest) = (depth, newest));
        self.notice(&entry);
    }

    /// The queues that hold messages which nobody consumes.
    pub(super) fn waiting(&self) -> Vec<QueueName> {
        let entries = self.entries.lock();
        entries.values().filter(|entry| entry.state.borrow().is_waiting()).map(|e| e.name.clone()).collect()
    }

    /// Of these queues those that hold messages.
    pub(super) fn holding(&self, queues: &[QueueName]) -> Vec<Holding> {
        let named = queues.iter().filter_map(|queue| self.find(queue));
        named
            .filter_map(|entry| {
                let state = entry.state.borrow();
                let is_consumed = !state.consumers.is_empty();
                (state.depth > 0).then(|| Holding { queue: entry.name.clone(), is_consumed })
            })
            .collect()
    }

    /// A message was committed.
    pub(super) fn arrived(&self, entry: &Arc<Entry>, seq: i64) {
        self.arrivals.lock().arrived(seq, Instant::now());
        entry.state.send_modify(|state| {
            state.depth += 1;
            state.newest = state.newest.max(seq);
        });
        self.notice(entry);
    }

    /// A message was acknowledged.
    pub(super) fn gone(&self, entry: &Entry) {
        entry.state.send_modify(|state| state.depth = state.depth.saturating_sub(1));
    }

    /// A consumer came; returns its number.
    pub(super) fn attach(&self, entry: &Entry) -> u64 {
        let number = self.consumers.fetch_add(1, Ordering::Relaxed);
        entry.state.send_modify(|state| state.consumers.push_back(number));
        number
    }

    /// A consumer went.
    pub(super) fn detach(&self, entry: &Arc<Entry>, number: u64) {
        entry.state.send_modify(|state| state.consumers.retain(|consumer| *consumer != number));
        self.notice(entry);
    }

    /// Makes a notice due, if there is a backlog and none is due yet.
    fn notice(&self, entry: &Arc<Entry>) {
        let is_new = entry.state.send_if_modified(|state| {
            let is_new = state.is_waiting() && !state.noticed;
            state.noticed |= is_new;
            is_new
        });
        if is_new {
            self.due.lock().push_back(Arc::clone(entry));
            self.notice.notify_one();
        }
    }

    /// Waits for a notice that there is still reason for.
    pub(super) async fn next_notice(&self) -> Arc<Entry> {
        loop {
            while let Some(entry) = self.take_notice() {
                let mut waiting = false;
                entry.state.send_modify(|state| {
                    state.noticed = false;
                    waiting = state.is_waiting();
                });
                if waiting {
                    return entry;
                }
            }
            self.notice.notified().await;
        }
    }

    fn take_notice(&self) -> Option<Arc<Entry>> {
        let mut due = self.due.lock();
        let entry = due.pop_front();
        if !due.is_empty() {
            // Two notices may have woken one listener only: the next is woken for the rest.
            self.notice.notify_one();
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_a_message_is_that_of_the_mark_before_it() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut arrivals = Arrivals([(0, begun)].into());
        for (seq, ms) in [(1, 100), (2, 120), (3, 200)] {
            arrivals.arrived(seq, at(ms));
        }
        let ages = [1, 2, 3].map(|oldest| arrivals.age(oldest, at(1_000)).as_millis());
        assert_eq!(ages, [900, 900, 800], "the second came less than 50 ms after the first");
    }

    #[test]
    fn marks_are_bounded_and_the_oldest_stays() {
        let begun = Instant::now();
        let mut arrivals = Arrivals([(0, begun)].into());
        for seq in 1..=3 * Arrivals::MARKS as u32 {
            arrivals.arrived(i64::from(seq), begun + Arrivals::APART * seq);
        }
        assert!(arrivals.0.len() <= Arrivals::MARKS, "{}", arrivals.0.len());
        let now = begun + Arrivals::APART * (3 * Arrivals::MARKS as u32);
        assert_eq!(arrivals.age(0, now), now - begun);
    }
}
