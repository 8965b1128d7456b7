//! Alarm clocks of sleeping identities: the next time at which a flow of theirs has to be looked at.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use maxhost_journal::Millis;
use maxhost_model::IdentityRow;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::core::{Core, now_millis};

/// See the module. One entry an identity at most matters; stale ones only wake it once too often.
#[derive(Default)]
pub(crate) struct Timers {
    heap: Mutex<BinaryHeap<Reverse<(Millis, IdentityRow)>>>,
    changed: Notify,
}

impl Timers {
    pub fn set(&self, at: Millis, identity: IdentityRow) {
        self.heap.lock().push(Reverse((at, identity)));
        self.changed.notify_one();
    }

    fn next(&self) -> Option<Millis> {
        self.heap.lock().peek().map(|Reverse((at, _))| *at)
    }

    fn pop_due(&self, now: Millis) -> Option<IdentityRow> {
        let mut heap = self.heap.lock();
        match heap.peek() {
            Some(Reverse((at, _))) if *at <= now => heap.pop().map(|Reverse((_, identity))| identity),
            _ => None,
        }
    }
}

/// Wakes identities when their time has come, until the host stops.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        let now = now_millis();
        while let Some(row) = core.timers.pop_due(now) {
            if let Some(entry) = core.directory.by_row(row) {
                core.wake(&entry);
            }
        }
        // A long sleep is cut so that a clock that was set is noticed.
        let wait = core.timers.next().map_or(60_000, |at| at.saturating_sub(now).clamp(1, 60_000));
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(wait)) => {}
            () = core.timers.changed.notified() => {}
            () = core.stopping.cancelled() => return,
        }
    }
}
