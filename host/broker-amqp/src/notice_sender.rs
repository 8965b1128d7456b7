//! Putting notices that a queue holds messages which nobody consumes ([`crate::notices`] listens to them).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use maxhost_broker::{BrokerError, QueueName};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::connection::becomes_true;
use crate::error::unavailable;
use crate::queues::{NOTICES, Queues};
use crate::sender::{NotSent, Outgoing, SendLink, What};

/// A queue that has a consumer is not asked about again for so long; the pause doubles while it has one, up to the longest.
/// A consumer that leaves asks at once.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(16);
/// Queues that are asked about at once.
const AT_ONCE: usize = 32;
/// How long putting a notice may take.
const WITHIN: Duration = Duration::from_secs(10);

/// Puts notices.
#[derive(Debug, Default)]
pub(crate) struct NoticeSender {
    marked: Mutex<Marked>,
    woken: Notify,
}

/// Queues that may need a notice, and those that were asked about lately.
#[derive(Debug, Default)]
struct Marked {
    /// Whether it is pressing.
    queues: HashMap<QueueName, bool>,
    quiet: HashMap<QueueName, Quiet>,
}

#[derive(Debug, Clone, Copy)]
struct Quiet {
    until: Instant,
    pause: Duration,
}

impl NoticeSender {
    /// A message was put into this queue.
    pub fn sent(&self, queue: &QueueName) {
        // Most of the time it is marked already.
        let mut marked = self.marked.lock();
        if !marked.queues.contains_key(queue) {
            marked.queues.insert(queue.clone(), false);
            self.woken.notify_one();
        }
    }

    /// A consumer has left this queue, and may have left messages behind.
    pub fn left(&self, queue: QueueName) {
        self.marked.lock().queues.insert(queue, true);
        self.woken.notify_one();
    }

    /// Asks and puts notices until the broker is closed.
    pub async fn run(
        self: Arc<NoticeSender>,
        queues: Arc<Queues>,
        send_link: Arc<SendLink>,
        mut closed: watch::Receiver<bool>,
    ) {
        loop {
            let (due, next) = self.marked.lock().take(Instant::now());
            if due.is_empty() {
                tokio::select! {
                    () = self.woken.notified() => {}
                    () = tokio::time::sleep_until(next) => {}
                    () = becomes_true(&mut closed) => return,
                }
                continue;
            }
            let asking = futures::stream::iter(due.into_iter().map(|name| {
                let (queues, send_link) = (&queues, &send_link);
                async move {
                    let done = notify(queues, send_link, &name).await;
                    (name, done)
                }
            }));
            let mut asking = asking.buffer_unordered(AT_ONCE);
            loop {
                tokio::select! {
                    asked = asking.next() => match asked {
                        None => break,
                        Some((name, asked)) => self.marked.lock().asked(name, asked),
                    },
                    () = becomes_true(&mut closed) => return,
                }
            }
        }
    }
}

impl Marked {
    /// Takes the queues that may be asked about, and tells when there may be more.
    fn take(&mut self, now: Instant) -> (Vec<QueueName>, Instant) {
        self.quiet.retain(|_, quiet| now < quiet.until + LONGEST_PAUSE);
        let quiet = &self.quiet;
        let is_due =
            |name: &QueueName, pressing: bool| pressing || quiet.get(name).is_none_or(|quiet| quiet.until <= now);
        let due = self.queues.extract_if(|name, pressing| is_due(name, *pressing)).map(|(name, _)| name).collect();
        let next = self.queues.keys().filter_map(|name| Some(self.quiet.get(name)?.until)).min();
        (due, next.unwrap_or(now + Duration::from_secs(3600)))
    }

    fn asked(&mut self, name: QueueName, asked: Result<bool, BrokerError>) {
        let pause = self.quiet.get(&name).map_or(SHORTEST_PAUSE, |quiet| (quiet.pause * 2).min(LONGEST_PAUSE));
        match asked {
            Ok(true) => drop(self.quiet.remove(&name)),
            Ok(false) => drop(self.quiet.insert(name, Quiet { until: Instant::now() + pause, pause })),
            Err(error) => {
                tracing::debug!(queue = %name, %error, "whether a queue is consumed could not be asked");
                self.quiet.insert(name.clone(), Quiet { until: Instant::now() + SHORTEST_PAUSE, pause });
                self.queues.entry(name).or_insert(false);
            }
        }
    }
}

/// Puts a notice if the queue needs one; whether it did.
async fn notify(queues: &Queues, send_link: &SendLink, name: &QueueName) -> Result<bool, BrokerError> {
    if !queues.is_waiting(name).await? {
        return Ok(false);
    }
    let outgoing = Outgoing { to: NOTICES.to_owned(), what: What::Notice(name.to_string()), body: Bytes::new() };
    match send_link.send(outgoing, WITHIN).await {
        Ok(()) => Ok(true),
        Err(NotSent::NotTaken(reason)) => {
            // The queue of the notices may be gone.
            queues.ensure_notices().await?;
            Err(unavailable(reason))
        }
        Err(NotSent::Error(error)) => Err(error),
    }
}
