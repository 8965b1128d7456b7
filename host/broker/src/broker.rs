//! What a broker does for a host.
//!
//! At least once, in order, acknowledged after the receiver's own commit. The receiver's database is the authority on
//! what was taken already: no broker tells reliably whether a delivery is the first. An acknowledgement may be lost
//! and a message come again, so the receiver must know messages by their id.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::BrokerError;

/// By which a receiver knows a message again: chosen by the sender, kept by the broker.
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
    /// Opaque here.
    pub body: Bytes,
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
pub struct Delivery {
    /// For [`Acks::ack`].
    pub tag: Tag,
    /// The message.
    pub message: Message,
}

/// A connection to a broker. A queue is made by whoever first names it and stays.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Puts a message at the end of a queue; returns when it is durable there.
    ///
    /// A caller that gives up waiting does not know whether the message was taken and must send it again.
    ///
    /// # Errors
    /// [`BrokerError::TooLarge`] and [`BrokerError::BadQueue`] stay; [`BrokerError::is_retriable`] tells which pass.
    async fn send(&self, queue: &str, message: Message) -> Result<(), BrokerError>;

    /// Attaches to a queue.
    ///
    /// One consumer at a time gets messages: a second one attaches too and waits; when the first goes, it gets everything
    /// that was not acknowledged, in order. `credit` (at least 1) is how many deliveries may be unacknowledged at once.
    ///
    /// # Errors
    /// [`BrokerError::BadQueue`], and the retriable ones.
    async fn consume(&self, queue: &str, credit: u32) -> Result<Box<dyn Consumer>, BrokerError>;

    /// The queues that hold messages and have no consumer: a sweep, for what the bells missed. A hint that may be
    /// seconds old.
    ///
    /// # Errors
    /// The retriable ones.
    async fn waiting(&self) -> Result<Vec<String>, BrokerError>;

    /// Listens for messages that come for nobody. Several listeners compete: each bell is heard by one of them.
    ///
    /// # Errors
    /// The retriable ones.
    async fn bells(&self) -> Result<Box<dyn Bells>, BrokerError>;

    /// Bytes that the body of a message may have.
    fn max_message_bytes(&self) -> usize;

    /// Ends the connection: consumers are detached, and every call from then on fails with [`BrokerError::Closed`].
    async fn close(&self);
}

/// An attachment to a queue. Dropping it detaches; what was not acknowledged is delivered again.
#[async_trait]
pub trait Consumer: Send {
    /// The next message; waits until there is one, and credit for it. Giving up waiting loses nothing.
    ///
    /// # Errors
    /// [`BrokerError::Closed`], and the retriable ones: after those, ask again.
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
    /// [`BrokerError::Detached`] when the consumer is gone: the message is delivered again to the next one.
    async fn ack(&self, tag: Tag) -> Result<(), BrokerError>;
}

/// Bells: a queue has messages and nobody consumes it.
///
/// A hint. It rings at least once after a message was put into a queue without a consumer, or after the consumer left
/// messages behind; it may ring for nothing, and it is lost with the listener that heard it.
#[async_trait]
pub trait Bells: Send {
    /// The next queue that somebody should consume. Giving up waiting loses nothing.
    ///
    /// # Errors
    /// [`BrokerError::Closed`], and the retriable ones.
    async fn next(&mut self) -> Result<String, BrokerError>;
}
