//! What is in memory of each queue: who consumes it, how much it holds, and whether its bell rang.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// A queue.
pub(super) struct Entry {
    pub(super) row: i64,
    pub(super) name: Arc<str>,
    pub(super) state: watch::Sender<State>,
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
    /// The bell rang and nobody has heard it yet.
    rung: bool,
}

impl State {
    fn is_waiting(&self) -> bool {
        self.depth > 0 && self.consumers.is_empty()
    }
}

/// All queues, and the bells that rang. Bounded by the number of queues.
#[derive(Default)]
pub(super) struct Queues {
    entries: Mutex<HashMap<Arc<str>, Arc<Entry>>>,
    rung: Mutex<VecDeque<Arc<Entry>>>,
    bell: Notify,
    consumers: AtomicU64,
}

impl Queues {
    pub(super) fn find(&self, name: &str) -> Option<Arc<Entry>> {
        self.entries.lock().get(name).cloned()
    }

    /// The entry of a queue that is in the file: the one that is there, if somebody was faster.
    pub(super) fn add(&self, row: i64, name: &str) -> Arc<Entry> {
        let name: Arc<str> = Arc::from(name);
        let mut entries = self.entries.lock();
        let entry = entries
            .entry(Arc::clone(&name))
            .or_insert_with(|| Arc::new(Entry { row, name, state: watch::Sender::default() }));
        Arc::clone(entry)
    }

    /// A queue found in the file when the broker starts.
    pub(super) fn load(&self, row: i64, name: &str, depth: u64, newest: i64) {
        let entry = self.add(row, name);
        entry.state.send_modify(|state| (state.depth, state.newest) = (depth, newest));
        self.ring(&entry);
    }

    /// The number of the newest message of all.
    pub(super) fn newest(&self) -> i64 {
        self.entries.lock().values().map(|entry| entry.state.borrow().newest).max().unwrap_or(0)
    }

    /// The queues that hold messages which nobody consumes.
    pub(super) fn waiting(&self) -> Vec<String> {
        let entries = self.entries.lock();
        entries.values().filter(|entry| entry.state.borrow().is_waiting()).map(|e| e.name.to_string()).collect()
    }

    /// A message was committed.
    pub(super) fn arrived(&self, entry: &Arc<Entry>, seq: i64) {
        entry.state.send_modify(|state| {
            state.depth += 1;
            state.newest = state.newest.max(seq);
        });
        self.ring(entry);
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
        self.ring(entry);
    }

    /// Rings, if there is reason to and it has not rung since somebody heard it.
    fn ring(&self, entry: &Arc<Entry>) {
        let rings = entry.state.send_if_modified(|state| {
            let rings = state.is_waiting() && !state.rung;
            state.rung |= rings;
            rings
        });
        if rings {
            self.rung.lock().push_back(Arc::clone(entry));
            self.bell.notify_one();
        }
    }

    /// Waits for a bell that there is still reason for.
    pub(super) async fn hear(&self) -> Arc<Entry> {
        loop {
            while let Some(entry) = self.take_rung() {
                let mut waiting = false;
                entry.state.send_modify(|state| {
                    state.rung = false;
                    waiting = state.is_waiting();
                });
                if waiting {
                    return entry;
                }
            }
            self.bell.notified().await;
        }
    }

    fn take_rung(&self) -> Option<Arc<Entry>> {
        let mut rung = self.rung.lock();
        let entry = rung.pop_front();
        if !rung.is_empty() {
            // Two bells may have rung as one: pass it on to the next listener.
            self.bell.notify_one();
        }
        entry
    }
}
