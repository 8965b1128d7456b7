//! What differs between brokers: how queues are made and looked at, and whether the broker keeps what it is given.

pub(crate) mod artemis;
pub(crate) mod dialect;
pub(crate) mod rabbitmq;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use maxhost_broker::{BrokerError, QueueName};

use self::dialect::Dialect;

/// Where notices of backlogs are put.
pub(crate) const NOTICES: &str = "maxhost.wake";
/// The property of a notice that says which queue it is about.
pub(crate) const NOTICE_OF: &str = "id";
/// Queues that hold messages, as many as are told at once.
const TOLD: usize = 10_000;

/// A queue with messages, as the broker lists it.
#[derive(Debug)]
pub(crate) struct Listed {
    pub name: QueueName,
    pub consumers: u64,
    /// How many messages of it were ever acknowledged, since the broker started, if it tells.
    pub acked: Option<u64>,
    pub first: First,
}

/// When the first message of a queue was sent that no consumer has been given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// In ms since 1970, by the sender's clock; `None` if there is none, or its sender does not say.
    SentAt(Option<i64>),
    /// It is not told with the list.
    ToBeAsked,
}

/// Why a queue is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// A message was put into it.
    Sent,
    /// Its consumer has left, and may have left messages behind.
    Left,
}

/// The management of a broker. It was asked already whether the broker keeps what it is given.
#[async_trait]
pub(crate) trait Management: fmt::Debug + Send + Sync + 'static {
    /// How the broker is spoken to.
    fn dialect(&self) -> Dialect;

    /// What is told of consumers and messages may be so old.
    fn lag(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether the broker has room for messages.
    ///
    /// # Errors
    /// [`maxhost_broker::Transient::NoSpace`] if it has none, and would take them all the same.
    fn check_room(&self) -> Result<(), BrokerError> {
        Ok(())
    }

    /// Makes a queue if there is none, and checks that it keeps what is put into it.
    ///
    /// # Errors
    /// [`maxhost_broker::Permanent::Refused`] if it would lose messages or give them to several consumers.
    async fn make_queue(&self, name: &QueueName) -> Result<(), BrokerError>;

    /// The same, for the queue of the notices.
    async fn make_notices(&self) -> Result<(), BrokerError>;

    /// The same for a queue that a client has made, or has not: whether it is there.
    async fn is_usable(&self, name: &QueueName) -> Result<bool, BrokerError>;

    /// Whether a queue is there. It is not made.
    async fn exists(&self, name: &QueueName) -> Result<bool, BrokerError>;

    /// Removes the first message of a queue, which is too large for any host, and says so in the log. Nobody else may consume
    /// the queue meanwhile, or the first message might be another one.
    ///
    /// # Errors
    /// Nothing was removed.
    async fn remove_first(&self, name: &QueueName, bytes: u64) -> Result<(), BrokerError>;

    /// Removes the messages of a shared queue that the broker keeps in files of their own, and says so in the log: it does not
    /// tell their sizes, so one that is larger than any host takes cannot be told from them. Others may consume the queue
    /// meanwhile; what one of them has been given is not removed.
    ///
    /// # Errors
    /// Nothing was removed.
    async fn remove_large(&self, name: &QueueName) -> Result<(), BrokerError>;

    /// The queues that hold messages.
    async fn listed(&self) -> Result<Vec<Listed>, BrokerError>;

    /// When the first message of a queue was sent that no consumer has been given: ms since 1970, by the sender's clock.
    /// `None` if there is none, or its sender does not say.
    async fn first_sent_at(&self, name: &QueueName) -> Result<Option<i64>, BrokerError>;

    /// Whether somebody consumes a queue that holds messages; `None` if it holds none.
    async fn is_consumed(&self, name: &QueueName) -> Result<Option<bool>, BrokerError>;

    /// Whether a queue holds messages and nobody consumes it.
    async fn is_waiting(&self, name: &QueueName, since: Since) -> Result<bool, BrokerError>;
}
