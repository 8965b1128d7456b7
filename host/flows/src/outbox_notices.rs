//! What the relay is told: for which destinations there are new messages in the outbox, and whose queues are to be looked
//! into. A notice is a hint; the rows and the queues are what counts.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::registry::IdentityEntry;

/// Notices that are not taken yet. A destination is noted once, however many messages there are for it.
#[derive(Default)]
pub(crate) struct OutboxNotices {
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

impl OutboxNotices {
    /// Messages for these parties are in the outbox now.
    pub fn added(&self, destinations: impl IntoIterator<Item = Arc<str>>) {
        self.noted.lock().destinations.extend(destinations);
        self.notify.notify_one();
    }

    /// An identity is owned now: what it had left in the outbox may be sent.
    pub fn look_at_all(&self) {
        self.noted.lock().all = true;
        self.notify.notify_one();
    }

    /// Waits until something was noted and takes it. Giving up waiting loses nothing.
    pub async fn take(&self) -> Noted {
        loop {
            let noted = std::mem::take(&mut *self.noted.lock());
            if noted != Noted::default() {
                return noted;
            }
            self.notify.notified().await;
        }
    }
}

/// Identities that this host holds since a moment ago, whose queues nobody has looked into yet.
#[derive(Default)]
pub(crate) struct QueueNotices {
    noted: Mutex<Vec<Arc<IdentityEntry>>>,
    notify: Notify,
}

impl QueueNotices {
    /// These identities are held now: what waits for them in the broker can be taken.
    pub fn held(&self, entries: impl IntoIterator<Item = Arc<IdentityEntry>>) {
        self.noted.lock().extend(entries);
        self.notify.notify_one();
    }

    /// Waits until something was noted and takes it. Giving up waiting loses nothing.
    pub async fn take(&self) -> Vec<Arc<IdentityEntry>> {
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
        let notices = OutboxNotices::default();
        let (bob, carol): (Arc<str>, Arc<str>) = ("Bob".into(), "Carol".into());
        notices.added([bob.clone()]);
        notices.added([carol.clone(), bob.clone()]);
        let taken = notices.take().await;
        assert_eq!(taken, Noted { destinations: [bob, carol].into(), all: false });
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), notices.take());
        assert!(waiting.await.is_err(), "nothing is noted");
        notices.look_at_all();
        assert!(notices.take().await.all);
    }
}
