//! What a broker does for a host.
//!
//! At least once, in order, acknowledged after the receiver's own commit. The receiver's database is the authority on
//! what was taken already: no broker tells reliably whether a delivery is the first. An acknowledgement may be lost
//! and a message come again, so the receiver must know messages by their id.
//!
//! A broker authenticates nobody. Whoever reaches it can put any bytes into any queue, and a user name that a broker
//! may stamp on a message is not kept by all of them. The sender of a message is known only by the signature in its
//! body, which the receiver checks before it stores anything.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::client_queues::ClientQueues;
use crate::error::BrokerError;
use crate::queue_name::QueueName;

/// By which a receiver knows a message again: chosen by the sender, kept by the broker. An id is never used for two
/// different messages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub [u8; 16]);

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A message as it is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// By which the receiver knows it again.
    pub id: MessageId,
    /// What it says; opaque to the broker.
    pub body: Bytes,
}

impl Message {
    /// What every message counts beside its body, against the bounds of queues and credits: many small messages are
    /// not for nothing.
    pub const OVERHEAD: usize = 128;

    /// What the message counts against the bounds of queues and credits, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.body.len() + Message::OVERHEAD
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("id", &self.id).field("bytes", &self.body.len()).finish()
    }
}

/// Names a delivery to its consumer, for acknowledging it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub u64);

/// A message as it is received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery<M = Message> {
    /// For [`Acks::ack`].
    pub tag: Tag,
    /// The message.
    pub message: M,
}

/// How much a consumer may have in hand without having acknowledged it. Both bounds hold; one message is delivered in
/// any case, however large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// Messages; at least 1.
    pub messages: u32,
    /// Bytes, as [`Message::bytes`] counts them.
    pub bytes: usize,
}

/// A connection to a broker. A queue is made by whoever first names it and stays.
///
/// A broker says nothing about who sent a message: see the module's documentation and `Message::body`.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Puts a message at the end of a queue; returns when it is durable there, or after `within` at the latest.
    ///
    /// A caller that gives up waiting, or is told [`crate::Transient::TimedOut`], does not know whether the message was
    /// taken and must send it again.
    ///
    /// # Errors
    /// [`crate::Permanent::TooLarge`], [`crate::Permanent::Closed`], and the transient ones;
    /// [`crate::Transient::QueueFull`] concerns this queue alone.
    async fn send(&self, queue: &QueueName, message: Message, within: Duration) -> Result<(), BrokerError>;

    /// Attaches to a queue.
    ///
    /// One consumer at a time gets messages: a second one attaches too and waits; when the first goes, it gets everything
    /// that was not acknowledged, in order.
    ///
    /// # Errors
    /// [`crate::Permanent::Closed`], and the transient ones.
    async fn consume(&self, queue: &QueueName, credit: Credit) -> Result<Box<dyn Consumer>, BrokerError>;

    /// The queues that hold messages and have no consumer: a sweep, for what the notices missed. A hint that may be
    /// seconds old.
    ///
    /// # Errors
    /// [`crate::Permanent::Closed`], and the transient ones.
    async fn waiting(&self) -> Result<Vec<QueueName>, BrokerError>;

    /// For how long the oldest message has waited that is in a queue; `None` if all queues are empty. A message that a
    /// consumer has been given may be left out. For looking at: it may be seconds old, and a time without the broker need
    /// not count.
    ///
    /// # Errors
    /// [`crate::Permanent::Closed`], and the transient ones.
    async fn oldest(&self) -> Result<Option<Duration>, BrokerError>;

    /// Listens for messages that come for nobody. Several listeners compete: each notice is given to one of them.
    ///
    /// # Errors
    /// [`crate::Permanent::Closed`], and the transient ones.
    async fn backlog_notices(&self) -> Result<Box<dyn BacklogNotices>, BrokerError>;

    /// Bytes that the body of a message may have.
    fn max_message_bytes(&self) -> usize;

    /// The queues of clients that send requests as messages; `None` if no client can reach this broker.
    fn client_queues(&self) -> Option<Arc<dyn ClientQueues>>;

    /// Ends the connection: consumers are detached, and every call from then on fails with
    /// [`crate::Permanent::Closed`].
    async fn close(&self);
}

/// An attachment to a queue. Dropping it detaches; what was not acknowledged is delivered again.
#[async_trait]
pub trait Consumer: Send {
    /// The next message; waits until there is one, and credit for it. Giving up waiting loses nothing.
    ///
    /// # Errors
    /// [`crate::Permanent::Closed`], and the transient ones: after those, ask again.
    async fn next(&mut self) -> Result<Delivery, BrokerError>;

    /// For acknowledging from wherever the commit is done.
    fn acks(&self) -> Arc<dyn Acks>;
}

/// Acknowledges the deliveries of one consumer.
#[async_trait]
pub trait Acks: Send + Sync {
    /// The receiver has the message durably: the broker may forget it. Any order; twice is no error.
    ///
    /// # Errors
    /// [`crate::Permanent::Detached`] when the consumer is gone: the message is delivered again to the next one.
    async fn ack(&self, tag: Tag) -> Result<(), BrokerError>;
}

/// Notices that a queue has messages and nobody consumes it.
///
/// A notice is a hint. There is at least one after a message was put into a queue without a consumer, or after the
/// consumer left messages behind; it may come for nothing, and it is lost with the listener that took it.
#[async_trait]
pub trait BacklogNotices: Send {
    /// The next queue that somebody should consume. Giving up waiting loses nothing.
    ///
    /// # Errors
    /// [`crate::Permanent::Closed`], and the transient ones.
    async fn next(&mut self) -> Result<QueueName, BrokerError>;
}
