//! Who watches which flow. A flow that nobody watches costs nothing here.
//!
//! Every watcher has a queue of its own, bounded in bytes. When it is full the oldest progress labels make room for the
//! latest: labels are numbered, so the watcher sees the gap, and he never misses a phase or the end.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use maxhost_model::FlowRow;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::api::FlowEvent;

/// Labels that wait for one watcher, bytes.
const BEHIND: usize = 256 << 10;
/// What a label takes beside its text.
const OVERHEAD: usize = 64;
const SHARDS: usize = 16;

#[derive(Default)]
pub(crate) struct Watchers {
    shards: [Mutex<HashMap<FlowRow, Vec<Arc<Queue>>>>; SHARDS],
}

/// What one watcher has not seen yet.
#[derive(Default)]
struct Queue {
    inner: Mutex<Events>,
    news: Notify,
}

#[derive(Default)]
struct Events {
    events: VecDeque<FlowEvent>,
    label_bytes: usize,
    closed: bool,
}

impl Events {
    fn push(&mut self, event: FlowEvent) {
        self.label_bytes += bytes_of(&event);
        self.events.push_back(event);
        while self.label_bytes > BEHIND
            && let Some(oldest) = self.events.iter().position(|event| bytes_of(event) > 0)
            && let Some(label) = self.events.remove(oldest)
        {
            self.label_bytes -= bytes_of(&label);
        }
    }

    fn pop(&mut self) -> Option<FlowEvent> {
        let event = self.events.pop_front()?;
        self.label_bytes -= bytes_of(&event);
        Some(event)
    }
}

fn bytes_of(event: &FlowEvent) -> usize {
    match event {
        FlowEvent::Progress { label, .. } => label.len() + OVERHEAD,
        FlowEvent::Phase { .. } | FlowEvent::Ended { .. } => 0,
    }
}

impl Watchers {
    fn shard(&self, row: FlowRow) -> &Mutex<HashMap<FlowRow, Vec<Arc<Queue>>>> {
        &self.shards[row.0 as usize % SHARDS]
    }

    fn subscribe(&self, row: FlowRow) -> Arc<Queue> {
        let queue = Arc::new(Queue::default());
        self.shard(row).lock().entry(row).or_default().push(queue.clone());
        queue
    }

    /// Tells the watchers, if there are any. `event` is not called otherwise.
    pub fn publish(&self, row: FlowRow, event: impl FnOnce() -> FlowEvent) {
        let shard = self.shard(row).lock();
        if let Some(queues) = shard.get(&row) {
            let event = event();
            for queue in queues {
                queue.inner.lock().push(event.clone());
                queue.news.notify_one();
            }
        }
    }

    /// The last event of a flow: its watchers are told and forgotten.
    pub fn close(&self, row: FlowRow, event: impl FnOnce() -> FlowEvent) {
        let Some(queues) = self.shard(row).lock().remove(&row) else { return };
        let event = event();
        for queue in queues {
            let mut inner = queue.inner.lock();
            inner.push(event.clone());
            inner.closed = true;
            drop(inner);
            queue.news.notify_one();
        }
    }

    /// A watcher went away.
    fn release(&self, row: FlowRow, gone: &Arc<Queue>) {
        let mut shard = self.shard(row).lock();
        if let Some(queues) = shard.get_mut(&row) {
            queues.retain(|queue| !Arc::ptr_eq(queue, gone));
            if queues.is_empty() {
                shard.remove(&row);
            }
        }
    }
}

/// A subscription to what happens to one flow, from the moment it was made.
pub(crate) struct Watch {
    watchers: Arc<Watchers>,
    row: FlowRow,
    queue: Arc<Queue>,
}

impl Watch {
    /// Subscribe first, then look at the flow, or start it: so nothing is missed in between.
    pub fn new(watchers: &Arc<Watchers>, row: FlowRow) -> Watch {
        Watch { watchers: watchers.clone(), row, queue: watchers.subscribe(row) }
    }

    /// The next event; `None` behind the last.
    pub async fn next(&mut self) -> Option<FlowEvent> {
        loop {
            {
                let mut inner = self.queue.inner.lock();
                match inner.pop() {
                    Some(event) => return Some(event),
                    None if inner.closed => return None,
                    None => {}
                }
            }
            self.queue.news.notified().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watchers.release(self.row, &self.queue);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::api::FlowPhase;

    fn cursors(queue: &Queue) -> Vec<u64> {
        let mut inner = queue.inner.lock();
        std::iter::from_fn(|| inner.pop())
            .filter_map(|event| match event {
                FlowEvent::Progress { cursor, .. } => Some(cursor),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_watcher_gets_all_labels_as_far_as_there_is_room_and_then_the_latest() {
        let (watchers, row) = (Watchers::default(), FlowRow(7));
        let (few, many) = (watchers.subscribe(row), watchers.subscribe(row));
        for cursor in 1..=1_000 {
            watchers.publish(row, || FlowEvent::Progress { cursor, label: cursor.to_string() });
        }
        assert_eq!(cursors(&few), (1..=1_000).collect::<Vec<_>>());
        watchers.publish(row, || FlowEvent::Phase { phase: FlowPhase::Suspended, reason: None });
        for cursor in 1_001..=5_000 {
            watchers.publish(row, || FlowEvent::Progress { cursor, label: "x".repeat(256) });
        }
        let events = many.inner.lock().events.len();
        let bytes = many.inner.lock().label_bytes;
        assert!(bytes <= BEHIND && events > 700, "{events} events of {bytes} bytes");
        let phases = many.inner.lock().events.iter().filter(|event| bytes_of(event) == 0).count();
        assert_eq!(phases, 1, "only labels make room");
        let left = cursors(&many);
        assert_eq!(left, (5_001 - left.len() as u64..=5_000).collect::<Vec<_>>());
        assert_eq!(many.inner.lock().label_bytes, 0);
    }

    #[test]
    fn watchers_that_are_gone_are_forgotten() {
        let (watchers, row) = (Watchers::default(), FlowRow(7));
        let (one, other) = (watchers.subscribe(row), watchers.subscribe(row));
        watchers.release(row, &one);
        watchers.publish(row, || FlowEvent::Progress { cursor: 1, label: String::new() });
        assert!(one.inner.lock().events.is_empty());
        assert_eq!(cursors(&other), [1]);
        watchers.release(row, &other);
        assert!(watchers.shard(row).lock().is_empty());
    }
}
