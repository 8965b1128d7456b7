//! Who watches which flow. A flow that nobody watches costs nothing here.

use std::collections::HashMap;

use maxhost_model::FlowRow;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::api::FlowEvent;

/// Events a slow watcher may be behind; it then has to attach again.
const BEHIND: usize = 256;
const SHARDS: usize = 16;

#[derive(Default)]
pub(crate) struct Watchers {
    shards: [Mutex<HashMap<FlowRow, broadcast::Sender<FlowEvent>>>; SHARDS],
}

impl Watchers {
    fn shard(&self, row: FlowRow) -> &Mutex<HashMap<FlowRow, broadcast::Sender<FlowEvent>>> {
        &self.shards[row.0 as usize % SHARDS]
    }

    /// Events from now on. Subscribe first, then look at the flow: so nothing is missed in between.
    pub fn subscribe(&self, row: FlowRow) -> broadcast::Receiver<FlowEvent> {
        let mut shard = self.shard(row).lock();
        shard.entry(row).or_insert_with(|| broadcast::Sender::new(BEHIND)).subscribe()
    }

    /// Tells the watchers, if there are any. `event` is not called otherwise.
    pub fn publish(&self, row: FlowRow, event: impl FnOnce() -> FlowEvent) {
        let shard = self.shard(row).lock();
        if let Some(sender) = shard.get(&row) {
            // An error means that everybody has gone: `release` cleans up.
            let _ = sender.send(event());
        }
    }

    /// The last event of a flow: its watchers are told and forgotten.
    pub fn close(&self, row: FlowRow, event: impl FnOnce() -> FlowEvent) {
        let sender = self.shard(row).lock().remove(&row);
        if let Some(sender) = sender {
            let _ = sender.send(event());
        }
    }

    /// A watcher went away.
    pub fn release(&self, row: FlowRow) {
        let mut shard = self.shard(row).lock();
        if shard.get(&row).is_some_and(|sender| sender.receiver_count() == 0) {
            shard.remove(&row);
        }
    }
}
