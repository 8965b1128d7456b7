//! Alarm clocks of sleeping identities: the next time at which a flow of theirs has to be looked at.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use maxhost_journal::Millis;
use maxhost_model::IdentityRow;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::core::{Core, now_millis};

#[derive(Debug, Default)]
struct Alarms {
    by_time: BTreeSet<(Millis, IdentityRow)>,
    by_identity: HashMap<IdentityRow, Millis>,
}

/// One alarm an identity at most.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    alarms: Mutex<Alarms>,
    changed: Notify,
}

impl Timers {
    /// Sets the identity's alarm; one that was set before counts no more.
    pub fn set(&self, at: Millis, identity: IdentityRow) {
        let mut alarms = self.alarms.lock();
        if let Some(before) = alarms.by_identity.insert(identity, at) {
            alarms.by_time.remove(&(before, identity));
        }
        alarms.by_time.insert((at, identity));
        drop(alarms);
        self.changed.notify_one();
    }

    fn next(&self) -> Option<Millis> {
        self.alarms.lock().by_time.first().map(|(at, _)| *at)
    }

    fn pop_due(&self, now: Millis) -> Option<IdentityRow> {
        let mut alarms = self.alarms.lock();
        let (at, identity) = alarms.by_time.first().copied().filter(|(at, _)| *at <= now)?;
        alarms.by_time.remove(&(at, identity));
        alarms.by_identity.remove(&identity);
        Some(identity)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_that_closes_again_and_again_has_one_alarm() {
        let (timers, one, other) = (Timers::default(), IdentityRow(1), IdentityRow(2));
        (1..1_000).for_each(|round| timers.set(round, one));
        timers.set(5, other);
        assert_eq!(timers.alarms.lock().by_time.len(), 2);
        assert_eq!((timers.next(), timers.pop_due(4)), (Some(5), None));
        assert_eq!(timers.pop_due(5), Some(other));
        assert_eq!((timers.pop_due(998), timers.pop_due(999)), (None, Some(one)));
        assert!(timers.alarms.lock().by_identity.is_empty());
    }
}
