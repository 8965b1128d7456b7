//! What is in memory of each queue: who consumes it, how much it holds, and whether a notice of its backlog is due.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

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

/// All queues, and the notices that are due. Bounded by the number of queues.
#[derive(Default)]
pub(super) struct Queues {
    entries: Mutex<HashMap<QueueName, Arc<Entry>>>,
    due: Mutex<VecDeque<Arc<Entry>>>,
    notice: Notify,
    consumers: AtomicU64,
}

impl Queues {
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

    /// A message was committed.
    pub(super) fn arrived(&self, entry: &Arc<Entry>, seq: i64) {
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
