//! Messages as they are sent, given to a consumer and acknowledged.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::BrokerError;

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

/// Acknowledges the deliveries of one consumer.
#[async_trait]
pub trait Acks: Send + Sync {
    /// The receiver has the message durably: the broker may forget it. Any order; twice is no error.
    ///
    /// # Errors
    /// [`crate::Permanent::Detached`] when the consumer is gone: the message is delivered again to the next one.
    async fn ack(&self, tag: Tag) -> Result<(), BrokerError>;
}
