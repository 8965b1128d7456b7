//! Consuming a queue, and listening for bells.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::broker::{Acks, Bells, Consumer, Delivery, Tag};
use crate::embedded::queues::Entry;
use crate::embedded::writer::Job;
use crate::embedded::{Inner, defect};
use crate::error::BrokerError;

/// Messages read ahead of a consumer at most, whatever its credit.
const AHEAD: usize = 64;
/// No further message is read ahead after so many bytes.
const AHEAD_BYTES: usize = 1 << 20;

/// An attachment to a queue.
pub(super) struct EmbeddedConsumer {
    link: Arc<Link>,
    /// Read and not given out yet.
    ahead: VecDeque<Delivery>,
    /// The number of the last message read.
    read: i64,
    credit: usize,
}

/// What a consumer and its acknowledgements share.
struct Link {
    inner: Arc<Inner>,
    entry: Arc<Entry>,
    number: u64,
    attached: AtomicBool,
    /// Given out and not acknowledged.
    unacknowledged: Mutex<HashSet<Tag>>,
    acknowledged: Notify,
}

impl EmbeddedConsumer {
    pub(super) fn attach(inner: Arc<Inner>, entry: Arc<Entry>, credit: u32) -> EmbeddedConsumer {
        let number = inner.queues.attach(&entry);
        let link = Link {
            inner,
            entry,
            number,
            attached: AtomicBool::new(true),
            unacknowledged: Mutex::default(),
            acknowledged: Notify::new(),
        };
        EmbeddedConsumer { link: Arc::new(link), ahead: VecDeque::new(), read: 0, credit: credit as usize }
    }

    /// Waits until fewer deliveries than the credit are unacknowledged.
    async fn wait_for_credit(&self) {
        loop {
            let acknowledged = self.link.acknowledged.notified();
            if self.link.unacknowledged.lock().len() < self.credit {
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
        let count = self.credit.min(AHEAD);
        let inner = Arc::clone(&self.link.inner);
        let _turn = inner.messages.turn.acquire().await.map_err(defect)?;
        let read = tokio::task::spawn_blocking(move || messages.read(queue, after, count, AHEAD_BYTES));
        let found = read.await.map_err(defect)??;
        match found.last() {
            Some(last) => self.read = i64::try_from(last.tag.0).unwrap_or(i64::MAX),
            // Acknowledged by the consumer before this one, after it was asked whether there are any.
            None => self.read = self.read.max(self.link.entry.state.borrow().newest),
        }
        self.ahead.extend(found);
        Ok(())
    }

    async fn deliver(&mut self) -> Result<Delivery, BrokerError> {
        loop {
            self.wait_for_credit().await;
            if let Some(delivery) = self.ahead.pop_front() {
                self.link.unacknowledged.lock().insert(delivery.tag);
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
            _ = closed.wait_for(|closed| *closed) => Err(BrokerError::Closed),
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
            return Err(BrokerError::Detached);
        }
        if !self.unacknowledged.lock().contains(&tag) {
            return Ok(());
        }
        let (queues, entry) = (Arc::clone(&self.inner.queues), Arc::clone(&self.entry));
        let seq = i64::try_from(tag.0).unwrap_or(i64::MAX);
        self.inner.ask(|reply| Job::Ack { queues, entry, seq, reply }).await?;
        self.unacknowledged.lock().remove(&tag);
        self.acknowledged.notify_one();
        Ok(())
    }
}

/// A listener for bells.
pub(super) struct EmbeddedBells {
    inner: Arc<Inner>,
}

impl EmbeddedBells {
    pub(super) fn new(inner: Arc<Inner>) -> EmbeddedBells {
        EmbeddedBells { inner }
    }
}

#[async_trait]
impl Bells for EmbeddedBells {
    async fn next(&mut self) -> Result<String, BrokerError> {
        let mut closed = self.inner.closed.subscribe();
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => Err(BrokerError::Closed),
            entry = self.inner.queues.hear() => Ok(entry.name.to_string()),
        }
    }
}
