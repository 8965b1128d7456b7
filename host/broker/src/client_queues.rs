//! The queues of clients: requests that programs outside the cluster put into a queue, and the answers to them.
//!
//! Workers share one queue of requests: each request is given to one of them, and again to another if it was not
//! acknowledged. Nothing in a request is to be trusted before its signature was checked; a broker checks none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::delivery::{Acks, Credit, Delivery};
use crate::error::BrokerError;
use crate::queue_name::QueueName;

/// A request as a client has sent it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientRequest {
    /// By which the client knows the answer: the correlation id of the message, or its message id if it has none. Empty if
    /// it has neither as a text.
    pub id: String,
    /// The queue that the answer is wanted in, as the client wrote it.
    pub reply_to: String,
    /// The properties of the application that are texts.
    pub properties: BTreeMap<String, String>,
    /// What is asked.
    pub body: Bytes,
}

impl ClientRequest {
    /// What the request counts against credits, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let properties: usize = self.properties.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.body.len() + properties + self.id.len() + self.reply_to.len() + ClientRequest::OVERHEAD
    }

    /// Bytes of a request that no broker keeps otherwise than small messages, as [`ClientRequest::bytes`] counts them.
    pub const SAFE: usize = 96 << 10;

    /// What every request counts beside its texts.
    const OVERHEAD: usize = 512;
}

/// An answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAnswer {
    /// The id of the request; the correlation id of the answer.
    pub id: String,
    /// A word that says what it is, for clients that sort answers without reading them; the subject of the message.
    pub subject: String,
    /// What is answered: a text in JSON.
    pub body: Bytes,
    /// After so long the broker may drop an answer that nobody has fetched.
    pub keep: Duration,
}

/// A broker that clients can reach as well as hosts.
///
/// A request of up to [`ClientRequest::SAFE`] bytes is never lost. A larger one is given out too, as a rule; but one that is larger
/// than any message of hosts is removed unread, and with it any that is larger than that and not given out at the moment.
#[async_trait]
pub trait ClientQueues: Send + Sync + 'static {
    /// Attaches to a queue of requests, which is made if there is none. All who are attached share it.
    ///
    /// # Errors
    /// [`crate::Permanent::Closed`], and the transient ones.
    async fn requests(&self, queue: &QueueName, credit: Credit) -> Result<Box<dyn Requests>, BrokerError>;

    /// Puts a request that was taken at the end of its queue, to be given out again after a delay. Returns when it is durable
    /// there; the one that was taken may be acknowledged then.
    ///
    /// # Errors
    /// As of [`crate::Broker::send`].
    async fn put_back(
        &self,
        queue: &QueueName,
        request: &ClientRequest,
        delay: Duration,
        within: Duration,
    ) -> Result<(), BrokerError>;

    /// Puts an answer into a queue, and returns when it is durable there. Queues for answers are made by clients, so that the
    /// broker can bound how many each of them has: false if there is none of this name, and nothing was sent.
    ///
    /// # Errors
    /// As of [`crate::Broker::send`]; [`crate::Permanent::Refused`] if the queue would lose the answer.
    async fn answer(&self, queue: &QueueName, answer: ClientAnswer, within: Duration) -> Result<bool, BrokerError>;

    /// Bytes that the body of an answer may have.
    fn max_answer_bytes(&self) -> usize;
}

/// An attachment to a queue of requests. Dropping it detaches; what was not acknowledged is given out again.
#[async_trait]
pub trait Requests: Send {
    /// The next request; waits until there is one, and credit for it. Giving up waiting loses nothing.
    ///
    /// # Errors
    /// [`crate::Permanent::Closed`], and the transient ones: after those, whatever was given out before is given out again,
    /// to this or another worker. Ask again.
    async fn next(&mut self) -> Result<Delivery<ClientRequest>, BrokerError>;

    /// For acknowledging from wherever the answer is sent.
    fn acks(&self) -> Arc<dyn Acks>;
}
