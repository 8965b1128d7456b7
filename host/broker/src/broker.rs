//! What a broker does for a host.
//!
//! At least once, in order, acknowledged after the receiver's own commit. The receiver's database is the authority on
//! what was taken already: no broker tells reliably whether a delivery is the first. An acknowledgement may be lost
//! and a message come again, so the receiver must know messages by their id.
//!
//! A broker authenticates nobody. Whoever reaches it can put any bytes into any queue, and a user name that a broker
//! may stamp on a message is not kept by all of them. The sender of a message is known only by the signature in its
//! body, which the receiver checks before it stores anything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::client_queues::ClientQueues;
use crate::delivery::{Acks, Credit, Delivery, Message};
use crate::error::BrokerError;
use crate::markers::Markers;
use crate::queue_name::QueueName;

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

    /// Makes sure of a queue that is about to be used, so that its first use need not. Nobody has to: a queue is made and
    /// looked at by whatever first names it.
    ///
    /// # Errors
    /// [`crate::Permanent::Closed`], and the transient ones.
    async fn prepare(&self, queue: &QueueName) -> Result<(), BrokerError>;

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

    /// Of these queues those that hold messages, whether somebody consumes them or not. Messages that a consumer has been
    /// given and has not acknowledged count. A queue that is not there holds nothing.
    ///
    /// # Errors
    /// [`crate::Permanent::Closed`], and the transient ones.
    async fn holding(&self, queues: &[QueueName]) -> Result<Vec<Holding>, BrokerError>;

    /// When something last came from the broker. As long as it can be reached it says something at least every five seconds,
    /// also when nothing is to be done. `None` of one that is in this process.
    fn last_heard(&self) -> Option<Instant> {
        None
    }

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

    /// What keeps the broker from being used now, as far as this host knows without asking it; `None` while it is connected. A
    /// broker that hangs is told of once its connection counts as lost.
    fn trouble(&self) -> Option<BrokerError>;

    /// Bytes that the body of a message may have.
    fn max_message_bytes(&self) -> usize;

    /// The queues of clients that send requests as messages; `None` if no client can reach this broker.
    fn client_queues(&self) -> Option<Arc<dyn ClientQueues>>;

    /// The markers; `None` if the broker's disk is this process's own, which is not lost alone.
    fn markers(&self) -> Option<Arc<dyn Markers>>;

    /// Ends the connection: consumers are detached, and every call from then on fails with
    /// [`crate::Permanent::Closed`].
    async fn close(&self);
}

/// A queue that holds messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The queue.
    pub queue: QueueName,
    /// Somebody consumes it.
    pub is_consumed: bool,
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

/// Notices that a queue has messages and nobody consumes it.
///
/// A notice is a hint. There is at least one after a message was put into a queue without a consumer, or after the
/// consumer left messages behind, and it may come for nothing. It is taken away when its listener asks for the next one: a
/// broker that other processes listen to tells it to another if the listener is gone before. In this process it is lost with
/// the listener.
#[async_trait]
pub trait BacklogNotices: Send {
    /// The next queue that somebody should consume. Giving up waiting loses nothing.
    ///
    /// # Errors
    /// [`crate::Permanent::Closed`], and the transient ones.
    async fn next(&mut self) -> Result<QueueName, BrokerError>;
}
