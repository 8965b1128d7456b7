//! Consuming a queue, and listening for notices of backlogs.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use maxhost_group_commit::Fault;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::broker::{BacklogNotices, Consumer};
use crate::delivery::{Acks, Credit, Delivery, Tag};
use crate::embedded::queues::Entry;
use crate::embedded::writer::Job;
use crate::embedded::{Inner, defect};
use crate::error::{BrokerError, Permanent};
use crate::queue_name::QueueName;

/// Messages prefetched for a consumer at most, whatever its credit.
const AHEAD: usize = 64;
/// No further message is prefetched after so many bytes.
const AHEAD_BYTES: usize = 1 << 20;

/// An attachment to a queue.
pub(super) struct EmbeddedConsumer {
    link: Arc<Link>,
    /// Read and not given out yet.
    prefetched: VecDeque<Delivery>,
    /// The number of the last message read.
    read: i64,
    credit: Credit,
}

/// What a consumer and its acknowledgements share.
struct Link {
    inner: Arc<Inner>,
    entry: Arc<Entry>,
    number: u64,
    attached: AtomicBool,
    /// What was given out and not acknowledged.
    unacknowledged: Mutex<InHand>,
    acknowledged: Notify,
}

/// Deliveries without an acknowledgement.
#[derive(Default)]
struct InHand {
    /// How many bytes each has, as [`crate::Message::bytes`] counts them.
    deliveries: HashMap<Tag, usize>,
    bytes: usize,
}

impl InHand {
    /// Whether one more delivery may be given out. The bytes of that one do not count yet: a message that is larger
    /// than the whole credit must come, too.
    fn has_room(&self, credit: Credit) -> bool {
        self.deliveries.len() < credit.messages as usize && (self.bytes < credit.bytes || self.deliveries.is_empty())
    }

    fn insert(&mut self, delivery: &Delivery) {
        let bytes = delivery.message.bytes();
        self.deliveries.insert(delivery.tag, bytes);
        self.bytes += bytes;
    }

    fn remove(&mut self, tag: Tag) {
        self.bytes -= self.deliveries.remove(&tag).unwrap_or(0);
    }
}

impl EmbeddedConsumer {
    pub(super) fn attach(inner: Arc<Inner>, entry: Arc<Entry>, credit: Credit) -> EmbeddedConsumer {
        let number = inner.queues.attach(&entry);
        let link = Link {
            inner,
            entry,
            number,
            attached: AtomicBool::new(true),
            unacknowledged: Mutex::default(),
            acknowledged: Notify::new(),
        };
        EmbeddedConsumer { link: Arc::new(link), prefetched: VecDeque::new(), read: 0, credit }
    }

    /// Waits until less than the credit is unacknowledged.
    async fn wait_for_credit(&self) {
        loop {
            let acknowledged = self.link.acknowledged.notified();
            if self.link.unacknowledged.lock().has_room(self.credit) {
                return;
            }
            acknowledged.await;
        }
    }

    /// Waits until it is this consumer's turn and there is something that it has not read.
    async fn wait_for_messages(&self) {
        let (number, read) = (self.link.number, self.read);
        let mut state = self.link.entry.state.subscribe();
        // The sender lives in the entry, which is ours: waiting ends by the condition only.
        let _ = state.wait_for(|state| state.consumers.front() == Some(&number) && state.newest > read).await;
    }

    async fn read_ahead(&mut self) -> Result<(), BrokerError> {
        let (messages, queue, after) = (Arc::clone(&self.link.inner.messages), self.link.entry.row, self.read);
        let count = (self.credit.messages as usize).min(AHEAD);
        let most = self.credit.bytes.min(AHEAD_BYTES);
        let inner = Arc::clone(&self.link.inner);
        let _turn = inner.messages.turn.acquire().await.map_err(defect)?;
        // Seen before the look: what is committed after it may not be in what is found, and must not count as read.
        let newest = self.link.entry.state.borrow().newest;
        let read = tokio::task::spawn_blocking(move || messages.read(queue, after, count, most));
        let found = read.await.map_err(defect)?.map_err(Fault::from)?;
        match found.last() {
            Some(last) => self.read = i64::try_from(last.tag.0).unwrap_or(i64::MAX),
            // Acknowledged by the consumer before this one, after it was asked whether there are any.
            None => self.read = self.read.max(newest),
        }
        self.prefetched.extend(found);
        Ok(())
    }

    async fn deliver(&mut self) -> Result<Delivery, BrokerError> {
        loop {
            self.wait_for_credit().await;
            if let Some(delivery) = self.prefetched.pop_front() {
                self.link.unacknowledged.lock().insert(&delivery);
                return Ok(delivery);
            }
            self.wait_for_messages().await;
            self.read_ahead().await?;
        }
    }
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn next(&mut self) -> Result<Delivery, BrokerError> {
        let mut closed = self.link.inner.closed.subscribe();
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => Err(Permanent::Closed.into()),
            delivery = self.deliver() => delivery,
        }
    }

    fn acks(&self) -> Arc<dyn Acks> {
        Arc::clone(&self.link) as Arc<dyn Acks>
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        self.link.attached.store(false, Ordering::Release);
        self.link.inner.queues.detach(&self.link.entry, self.link.number);
    }
}

#[async_trait]
impl Acks for Link {
    async fn ack(&self, tag: Tag) -> Result<(), BrokerError> {
        if !self.attached.load(Ordering::Acquire) {
            return Err(Permanent::Detached.into());
        }
        let Some(bytes) = self.unacknowledged.lock().deliveries.get(&tag).copied() else { return Ok(()) };
        let (queues, entry) = (Arc::clone(&self.inner.queues), Arc::clone(&self.entry));
        let seq = i64::try_from(tag.0).unwrap_or(i64::MAX);
        self.inner.ask(|reply| Job::Ack { queues, entry, seq, bytes: bytes as u64, reply }).await?;
        self.unacknowledged.lock().remove(tag);
        self.acknowledged.notify_one();
        Ok(())
    }
}

/// A listener for notices.
pub(super) struct EmbeddedNotices {
    inner: Arc<Inner>,
}

impl EmbeddedNotices {
    pub(super) fn new(inner: Arc<Inner>) -> EmbeddedNotices {
        EmbeddedNotices { inner }
    }
}

#[async_trait]
impl BacklogNotices for EmbeddedNotices {
    async fn next(&mut self) -> Result<QueueName, BrokerError> {
        let mut closed = self.inner.closed.subscribe();
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => Err(Permanent::Closed.into()),
            entry = self.inner.queues.next_notice() => Ok(entry.name.clone()),
        }
    }
}
