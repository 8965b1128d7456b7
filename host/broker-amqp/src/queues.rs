//! The queues of the broker: made by whoever first names them, and looked at before anything is entrusted to them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use maxhost_broker::{BrokerError, Holding, QueueName};
use parking_lot::Mutex;

use crate::connection::Line;
use crate::management::{Listed, Management, NOTICES};

/// Names that are remembered; with more than that, all are asked for again.
const REMEMBERED: usize = 100_000;
/// So many queues are asked about one by one; of more, all that hold messages are listed.
const ASKED_ONE_BY_ONE: usize = 16;

/// Makes sure of queues, and lists those that hold messages.
#[derive(Debug)]
pub(crate) struct Queues {
    /// The broker that they are in.
    pub management: Arc<dyn Management>,
    line: Line,
    known: Mutex<Known>,
    /// Queues that are being made sure of, each by the connection on which it was begun: whoever wants one of them waits for
    /// that.
    making: Mutex<HashMap<QueueName, Begun>>,
}

type Making = BoxFuture<'static, Result<(), BrokerError>>;
/// The connection on which it was begun, and what there is to wait for.
type Begun = (Option<u64>, WeakShared<Making>);

/// Queues that were found right on one connection: on the next, the broker may be another one.
#[derive(Debug, Default)]
struct Known {
    connection: Option<u64>,
    names: HashSet<QueueName>,
}

impl Queues {
    /// The queues that are reached by way of this connection.
    pub fn new(management: Arc<dyn Management>, line: Line) -> Queues {
        Queues { management, line, known: Mutex::default(), making: Mutex::default() }
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
        self.making(name, connection).await?;
        self.remember(name, connection);
        Ok(())
    }

    /// What makes sure of a queue: begun by somebody else, or now.
    fn making(&self, name: &QueueName, connection: Option<u64>) -> Shared<Making> {
        let mut all = self.making.lock();
        if let Some((begun, making)) = all.get(name)
            && *begun == connection
            && let Some(making) = making.upgrade().filter(|making| making.peek().is_none())
        {
            return making;
        }
        // Of what is done, or was given up by all who waited for it, nothing is kept.
        all.retain(|_, (_, making)| making.upgrade().is_some());
        let (management, queue) = (Arc::clone(&self.management), name.clone());
        let making = async move { management.make_queue(&queue).await }.boxed().shared();
        // It is not done yet, so there is something to go back to.
        if let Some(weak) = making.downgrade() {
            all.insert(name.clone(), (connection, weak));
        }
        making
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
    pub async fn holding(&self) -> Result<Vec<Listed>, BrokerError> {
        let mut found = self.management.listed().await?;
        // What waits for a client concerns no host.
        found.retain(|queue| queue.name.as_str() != NOTICES && !queue.name.is_for_answers());
        Ok(found)
    }

    /// Of these queues those that hold messages, in the order of their names.
    pub async fn holding_of(&self, names: &[QueueName]) -> Result<Vec<Holding>, BrokerError> {
        let mut found: Vec<Holding> = if names.len() > ASKED_ONE_BY_ONE {
            let wanted: HashSet<&QueueName> = names.iter().collect();
            let all = self.holding().await?.into_iter().filter(|queue| wanted.contains(&queue.name));
            all.map(|queue| Holding { queue: queue.name, is_consumed: queue.consumers > 0 }).collect()
        } else {
            let asking = names.iter().map(|name| async move {
                let is_consumed = self.management.is_consumed(name).await?;
                Ok::<_, BrokerError>(is_consumed.map(|is_consumed| Holding { queue: name.clone(), is_consumed }))
            });
            futures::future::try_join_all(asking).await?.into_iter().flatten().collect()
        };
        found.sort_by(|a, b| a.queue.as_str().cmp(b.queue.as_str()));
        Ok(found)
    }
}
