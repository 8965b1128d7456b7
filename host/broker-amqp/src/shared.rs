//! What all that a host does with the broker has in common.

use std::sync::Arc;

use bytes::Bytes;
use maxhost_broker::{BrokerError, Permanent, QueueName, Transient};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::budget::Budget;
use crate::connection::Line;
use crate::error::unavailable;
use crate::heard::Heard;
use crate::management::dialect::Dialect;
use crate::notice_sender::NoticeSender;
use crate::oldest::Oldest;
use crate::options::AmqpOptions;
use crate::queues::Queues;
use crate::sender::{NotSent, Outgoing, SendLink, What};

/// Its connections, and what consumers and listeners have in common.
pub(crate) struct Shared {
    pub options: Arc<AmqpOptions>,
    /// When the broker was last heard, on whichever connection.
    pub heard: Heard,
    /// The connection for consuming.
    pub consuming: Line,
    pub queues: Arc<Queues>,
    pub notice_sender: Arc<NoticeSender>,
    pub budget: Arc<Budget>,
    pub oldest: Oldest,
    pub closed: watch::Sender<bool>,
    pub send_link: Arc<SendLink>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The tasks of the connections end.
        self.closed.send_replace(true);
    }
}

impl Shared {
    /// How the broker is spoken to.
    pub fn dialect(&self) -> Dialect {
        self.queues.management.dialect()
    }

    /// Queues that hold messages and have no consumer.
    pub async fn waiting(&self) -> Result<Vec<QueueName>, BrokerError> {
        let holding = self.queues.holding().await?;
        Ok(holding.into_iter().filter(|queue| queue.consumers == 0).map(|queue| queue.name).collect())
    }

    /// Puts a message into a queue that was made sure of.
    pub async fn put(&self, queue: &QueueName, what: What, body: Bytes, deadline: Instant) -> Result<(), BrokerError> {
        self.queues.management.check_room()?;
        let outgoing = Outgoing { to: queue.to_string(), what, body };
        match self.send_link.send(outgoing, deadline.saturating_duration_since(Instant::now())).await {
            Ok(()) => Ok(()),
            Err(NotSent::NotTaken(reason)) => {
                self.queues.forget(queue);
                Err(unavailable(format!("the broker did not take a message for {queue}: {reason}")))
            }
            Err(NotSent::Error(error)) => {
                if !matches!(error, BrokerError::Transient(Transient::TimedOut)) {
                    self.queues.forget(queue);
                }
                self.check_open()?;
                Err(error)
            }
        }
    }

    /// # Errors
    /// [`Permanent::Closed`] if the broker was closed by this host.
    pub fn check_open(&self) -> Result<(), BrokerError> {
        match *self.closed.borrow() {
            true => Err(Permanent::Closed.into()),
            false => Ok(()),
        }
    }
}
