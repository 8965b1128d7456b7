//! The queues of the broker: made by whoever first names them, and looked at before anything is entrusted to them.

use std::collections::HashSet;

use maxhost_broker::{BrokerError, QueueName};
use parking_lot::Mutex;

use crate::connection::Line;
use crate::management::{Holding, Management, NOTICES};

/// Names that are remembered; with more than that, all are asked for again.
const REMEMBERED: usize = 100_000;

/// Makes sure of queues, and lists those that hold messages.
#[derive(Debug)]
pub(crate) struct Queues {
    /// The broker that they are in.
    pub management: Box<dyn Management>,
    line: Line,
    known: Mutex<Known>,
}

/// Queues that were found right on one connection: on the next, the broker may be another one.
#[derive(Debug, Default)]
struct Known {
    connection: Option<u64>,
    names: HashSet<QueueName>,
}

impl Queues {
    /// The queues that are reached by way of this connection.
    pub fn new(management: Box<dyn Management>, line: Line) -> Queues {
        Queues { management, line, known: Mutex::default() }
    }

    /// Makes the queue if there is none, and checks that it keeps what is put into it.
    ///
    /// # Errors
    /// [`maxhost_broker::Permanent::Refused`] if it would lose messages or give them to several consumers.
    pub async fn ensure(&self, name: &QueueName) -> Result<(), BrokerError> {
        let connection = self.line.number();
        if self.is_known(name, connection) {
            return Ok(());
        }
        self.management.make_queue(name).await?;
        self.remember(name, connection);
        Ok(())
    }

    /// The same for a queue that a client has made, or has not: whether it is there.
    ///
    /// # Errors
    /// As [`Queues::ensure`].
    pub async fn is_usable(&self, name: &QueueName) -> Result<bool, BrokerError> {
        let connection = self.line.number();
        if self.is_known(name, connection) {
            return Ok(true);
        }
        let is_usable = self.management.is_usable(name).await?;
        if is_usable {
            self.remember(name, connection);
        }
        Ok(is_usable)
    }

    fn is_known(&self, name: &QueueName, connection: Option<u64>) -> bool {
        let known = self.known.lock();
        known.connection == connection && known.names.contains(name)
    }

    fn remember(&self, name: &QueueName, connection: Option<u64>) {
        let mut known = self.known.lock();
        if known.connection != connection || known.names.len() >= REMEMBERED {
            *known = Known { connection, names: HashSet::new() };
        }
        known.names.insert(name.clone());
    }

    /// Has the queue looked at again before it is used the next time.
    pub fn forget(&self, name: &QueueName) {
        self.known.lock().names.remove(name);
    }

    /// The same as [`Queues::ensure`], for the queue of the notices.
    pub async fn ensure_notices(&self) -> Result<(), BrokerError> {
        self.management.make_notices().await
    }

    /// The queues that hold messages for hosts.
    pub async fn holding(&self) -> Result<Vec<Holding>, BrokerError> {
        let mut found = self.management.holding().await?;
        // What waits for a client concerns no host.
        found.retain(|queue| queue.name.as_str() != NOTICES && !queue.name.is_for_answers());
        Ok(found)
    }
}
