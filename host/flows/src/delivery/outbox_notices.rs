//! What the relay is told: for which destinations there are new messages in the outbox, and whose queues are to be looked
//! into. A notice is a hint; the rows and the queues are what counts.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::registry::entry::{Errand, IdentityEntry};

/// Notices that are not taken yet, for the relay of each database. A destination is noted once, however many messages there
/// are for it.
pub(crate) struct OutboxNotices {
    relays: Box<[ForRelay]>,
}

#[derive(Default)]
struct ForRelay {
    noted: Mutex<Noted>,
    notify: Notify,
}

/// What was noted since it was last taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Noted {
    /// Names of parties.
    pub destinations: HashSet<Arc<str>>,
    /// Any destination may have messages: senders came whose rows were passed over.
    pub all: bool,
}

impl ForRelay {
    fn added(&self, destinations: impl IntoIterator<Item = Arc<str>>) {
        self.noted.lock().destinations.extend(destinations);
        self.notify.notify_one();
    }
}

impl OutboxNotices {
    /// For so many databases.
    pub fn new(databases: usize) -> OutboxNotices {
        OutboxNotices { relays: (0..databases.max(1)).map(|_| ForRelay::default()).collect() }
    }

    /// Messages for these parties are in the outbox now. Whose database has them is not asked: to look into another one
    /// finds nothing.
    pub fn added(&self, destinations: impl IntoIterator<Item = Arc<str>> + Clone) {
        let Some((last, others)) = self.relays.split_last() else { return };
        others.iter().for_each(|relay| relay.added(destinations.clone()));
        last.added(destinations);
    }

    /// An identity is owned now: what it had left in the outbox may be sent.
    pub fn look_at_all(&self) {
        for relay in &self.relays {
            relay.noted.lock().all = true;
            relay.notify.notify_one();
        }
    }

    /// Waits until something was noted for the relay of this database and takes it. Giving up waiting loses nothing.
    pub async fn take(&self, database: usize) -> Noted {
        let Some(relay) = self.relays.get(database) else { return std::future::pending().await };
        loop {
            let noted = std::mem::take(&mut *relay.noted.lock());
            if noted != Noted::default() {
                return noted;
            }
            relay.notify.notified().await;
        }
    }
}

/// An identity whose queue is to be looked into.
#[derive(Clone)]
pub(crate) struct QueueNotice {
    pub entry: Arc<IdentityEntry>,
    /// The identity stays until that is done.
    pub errand: QueueErrand,
}

/// The errand of looking into a queue, shared by whoever serves the queue and whoever asks whether anything is in it: the first
/// of them to know ends it.
#[derive(Clone, Default)]
pub(crate) struct QueueErrand(Arc<Mutex<Option<Errand>>>);

impl QueueErrand {
    fn of(entry: &Arc<IdentityEntry>) -> QueueErrand {
        QueueErrand(Arc::new(Mutex::new(Some(Errand::of(entry)))))
    }

    /// The queue was looked into.
    pub fn end(&self) {
        // Its end wakes the identity's actor, which may not happen under the lock.
        let ended = self.0.lock().take();
        drop(ended);
    }

    /// Whether it was not looked into yet.
    pub fn is_there(&self) -> bool {
        self.0.lock().is_some()
    }
}

/// Identities that this host holds since a moment ago, or does not hold since then, whose queues nobody has looked into
/// yet.
#[derive(Default)]
pub(crate) struct QueueNotices {
    noted: Mutex<Vec<QueueNotice>>,
    notify: Notify,
}

impl QueueNotices {
    /// These identities are held now: what waits for them in the broker can be taken.
    pub fn held(&self, entries: impl IntoIterator<Item = Arc<IdentityEntry>>) {
        self.again(entries.into_iter().map(|entry| QueueNotice { entry, errand: QueueErrand::default() }));
    }

    /// As [`QueueNotices::held`], for one that would otherwise be let go before its queue was looked into.
    pub fn claimed(&self, entry: &Arc<IdentityEntry>) {
        self.again([QueueNotice { errand: QueueErrand::of(entry), entry: entry.clone() }]);
    }

    /// This identity was let go: somebody has to be rung for if there is something in its queue.
    pub fn let_go(&self, entry: &Arc<IdentityEntry>) {
        self.held([entry.clone()]);
    }

    /// These notices are not done with.
    pub fn again(&self, notices: impl IntoIterator<Item = QueueNotice>) {
        self.noted.lock().extend(notices);
        self.notify.notify_one();
    }

    /// Waits until something was noted and takes it. Giving up waiting loses nothing.
    pub async fn take(&self) -> Vec<QueueNotice> {
        loop {
            let noted = std::mem::take(&mut *self.noted.lock());
            if !noted.is_empty() {
                return noted;
            }
            self.notify.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_notice_is_kept_until_it_is_taken() {
        let notices = OutboxNotices::new(1);
        let (bob, carol): (Arc<str>, Arc<str>) = ("Bob".into(), "Carol".into());
        notices.added([bob.clone()]);
        notices.added([carol.clone(), bob.clone()]);
        let taken = notices.take(0).await;
        assert_eq!(taken, Noted { destinations: [bob, carol].into(), all: false });
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), notices.take(0));
        assert!(waiting.await.is_err(), "nothing is noted");
        notices.look_at_all();
        assert!(notices.take(0).await.all);
    }
}
