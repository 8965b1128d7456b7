//! Who watches which flow. A flow that nobody watches costs nothing here.

use std::collections::HashMap;
use std::sync::Arc;

use maxhost_model::FlowRow;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::api::FlowEvent;
use crate::core::Core;

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

    fn subscribe(&self, row: FlowRow) -> broadcast::Receiver<FlowEvent> {
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
    fn release(&self, row: FlowRow) {
        let mut shard = self.shard(row).lock();
        if shard.get(&row).is_some_and(|sender| sender.receiver_count() == 0) {
            shard.remove(&row);
        }
    }
}

/// A subscription to what happens to one flow, from the moment it was made.
pub(crate) struct Watch {
    core: Arc<Core>,
    row: FlowRow,
    /// `None` only while it is dropped.
    events: Option<broadcast::Receiver<FlowEvent>>,
}

impl Watch {
    /// Subscribe first, then look at the flow, or start it: so nothing is missed in between.
    pub fn new(core: &Arc<Core>, row: FlowRow) -> Watch {
        Watch { core: core.clone(), row, events: Some(core.watchers.subscribe(row)) }
    }

    /// The next event; `Closed` behind the last.
    pub async fn next(&mut self) -> Result<FlowEvent, RecvError> {
        match &mut self.events {
            Some(events) => events.recv().await,
            None => Err(RecvError::Closed),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // First it leaves, then the last one closes the door.
        self.events = None;
        self.core.watchers.release(self.row);
    }
}
