//! Alarms of sleeping identities: the next moment at which a flow of theirs has to be looked at.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use maxhost_model::IdentityRow;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::base::clock::{Clock, Moment};

#[derive(Debug, Default)]
struct Alarms {
    by_time: BTreeSet<(Moment, IdentityRow)>,
    by_identity: HashMap<IdentityRow, Moment>,
}

impl Alarms {
    fn remove(&mut self, identity: IdentityRow) {
        if let Some(at) = self.by_identity.remove(&identity) {
            self.by_time.remove(&(at, identity));
        }
    }
}

/// One alarm an identity at most.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    alarms: Mutex<Alarms>,
    changed: Notify,
}

impl Timers {
    /// Sets the identity's alarm; one that was set before counts no more.
    pub fn set(&self, at: Moment, identity: IdentityRow) {
        let mut alarms = self.alarms.lock();
        alarms.remove(identity);
        alarms.by_identity.insert(identity, at);
        alarms.by_time.insert((at, identity));
        drop(alarms);
        self.changed.notify_one();
    }

    /// The identity is awake and looks after its flows itself.
    pub fn clear(&self, identity: IdentityRow) {
        self.alarms.lock().remove(identity);
    }

    fn next(&self) -> Option<Moment> {
        self.alarms.lock().by_time.first().map(|(at, _)| *at)
    }

    fn pop_due(&self, now: Moment) -> Option<IdentityRow> {
        let mut alarms = self.alarms.lock();
        let (_, identity) = alarms.by_time.first().copied().filter(|(at, _)| *at <= now)?;
        alarms.remove(identity);
        Some(identity)
    }
}

/// Wakes identities when their time has come, until the host stops.
pub(crate) async fn run(
    timers: Arc<Timers>,
    clock: Arc<dyn Clock>,
    stopping: CancellationToken,
    wake: impl Fn(IdentityRow),
) {
    loop {
        let now = clock.monotonic();
        while let Some(row) = timers.pop_due(now) {
            wake(row);
        }
        let next = timers.next().unwrap_or(now + Duration::from_secs(3600));
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            () = timers.changed.notified() => {}
            () = clock.sleep_until(next) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Moment {
        Moment::new(Duration::from_secs(seconds))
    }

    #[test]
    fn an_identity_that_closes_again_and_again_has_one_alarm() {
        let (timers, one, other) = (Timers::default(), IdentityRow(1), IdentityRow(2));
        (1..1_000).for_each(|round| timers.set(at(round), one));
        timers.set(at(5), other);
        assert_eq!(timers.alarms.lock().by_time.len(), 2);
        assert_eq!((timers.next(), timers.pop_due(at(4))), (Some(at(5)), None));
        assert_eq!(timers.pop_due(at(5)), Some(other));
        assert_eq!((timers.pop_due(at(998)), timers.pop_due(at(999))), (None, Some(one)));
        assert!(timers.alarms.lock().by_identity.is_empty());
    }

    #[test]
    fn an_identity_that_is_awake_has_no_alarm() {
        let timers = Timers::default();
        timers.set(at(1), IdentityRow(1));
        timers.clear(IdentityRow(1));
        assert_eq!((timers.next(), timers.pop_due(at(2))), (None, None));
        assert!(timers.alarms.lock().by_identity.is_empty());
    }
}
