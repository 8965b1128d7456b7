//! Requests that come as messages, through a broker that clients reach too (`docs/messages.md`).
//!
//! Workers share one queue of requests. A request is acknowledged when its answer is durable in the client's queue, so whatever
//! becomes of a worker, another is given what it had in hand and comes to the same answer: a start has a client id, and all else
//! only looks or ends what has ended already. Nothing of a request is kept but in the broker.

mod calls;
mod counts;
mod envelope;
mod held;
mod work;

use std::sync::Arc;
use std::time::Duration;

use maxhost_broker::{BrokerError, ClientQueues, Credit, QueueName};
use maxhost_flows::api::HostApi;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::counts::Counts;
use self::envelope::Complaints;
use self::held::Held;
use self::work::Work;
use crate::login::Logins;

pub use counts::MessageCounts;

/// Requests that may be in hand beside those that wait for something.
const BESIDE: u32 = 512;
/// Bytes of requests that may be in hand; those that wait for something have half of it.
const IN_HAND: usize = 16 << 20;
/// Requests that are worked on at once.
const AT_ONCE: usize = 512;
/// How soon the queue is asked again after trouble; the pause doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a worker does with requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageOptions {
    /// For how long a request may be on its way, by the time that the client has signed. An older start starts nothing; it is
    /// answered with the flow that its client id stands for. At most as long as the end of a flow is kept, or a request that
    /// comes twice could start a flow that was forgotten.
    pub max_age: Duration,
    /// For how long a request may wait for the end of a flow, by the same time.
    pub max_wait: Duration,
    /// For how long an answer is kept that nobody fetches.
    pub keep_answers: Duration,
}

impl Default for MessageOptions {
    fn default() -> MessageOptions {
        const DAY: Duration = Duration::from_secs(24 * 3_600);
        MessageOptions { max_age: DAY / 2, max_wait: DAY * 30, keep_answers: DAY * 30 }
    }
}

/// A worker that answers the requests of clients.
pub struct MessageServer {
    work: Arc<Work>,
}

impl MessageServer {
    /// A worker that takes requests from these queues. Their users are those of `logins`.
    #[must_use]
    pub fn new(
        options: MessageOptions,
        logins: Arc<dyn Logins>,
        queues: Arc<dyn ClientQueues>,
        api: Arc<dyn HostApi>,
    ) -> MessageServer {
        let work = Work {
            options,
            logins,
            queues,
            api,
            queue: QueueName::requests(),
            held: Arc::new(Held::default()),
            complaints: Complaints::default(),
            counts: Arc::new(Counts::default()),
            turns: Semaphore::new(AT_ONCE),
        };
        MessageServer { work: Arc::new(work) }
    }

    /// What becomes of requests, for whoever counts.
    #[must_use]
    pub fn counts(&self) -> MessageCounts {
        MessageCounts { counts: Arc::clone(&self.work.counts), held: Arc::clone(&self.work.held) }
    }

    /// Answers requests until the host stops. What was not answered by then is given to another worker, or to this one when it is
    /// started again.
    pub async fn serve(self, stop: CancellationToken) {
        let credit = Credit { messages: held::MOST + BESIDE, bytes: IN_HAND };
        let mut pause = PAUSE;
        while !stop.is_cancelled() {
            let attached = tokio::select! {
                attached = self.work.queues.requests(&self.work.queue, credit) => attached,
                () = stop.cancelled() => return,
            };
            match attached {
                Ok(mut requests) => {
                    if self.take(&mut *requests, &stop, &mut pause).await.is_none() {
                        return;
                    }
                }
                Err(BrokerError::Permanent(error)) => {
                    // The broker may be put right while the host runs.
                    tracing::error!(%error, queue = %self.work.queue, "requests of clients cannot be taken");
                    pause = LONGEST_PAUSE;
                }
                Err(error) => tracing::debug!(%error, "the queue of requests cannot be consumed"),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = stop.cancelled() => {}
            }
        }
    }

    /// Takes requests until the queue cannot be used any more; `None` if it is closed for good or the host stops.
    async fn take(
        &self,
        requests: &mut dyn maxhost_broker::Requests,
        stop: &CancellationToken,
        pause: &mut Duration,
    ) -> Option<()> {
        let acks = requests.acks();
        // Dropping the set ends what is in it: what was given out before trouble is given out again, and must not be answered
        // from here too.
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return None,
                Some(_ended) = tasks.join_next() => {}
                next = requests.next() => match next {
                    Ok(delivery) => {
                        *pause = PAUSE;
                        tasks.spawn(Arc::clone(&self.work).answer(delivery, Arc::clone(&acks)));
                    }
                    Err(BrokerError::Permanent(maxhost_broker::Permanent::Closed)) => return None,
                    Err(error) => {
                        tracing::debug!(%error, "requests are given out again");
                        tasks = JoinSet::new();
                        if !error.is_transient() {
                            return Some(());
                        }
                        // The queue is asked again by the same consumer: it may be about to remove what nobody can take.
                        tokio::select! {
                            () = tokio::time::sleep(*pause) => *pause = (*pause * 2).min(LONGEST_PAUSE),
                            () = stop.cancelled() => return None,
                        }
                    }
                },
            }
        }
    }
}
