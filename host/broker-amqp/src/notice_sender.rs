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
use crate::management::{NOTICES, Since};
use crate::queues::Queues;
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
#[derive(Debug)]
pub(crate) struct NoticeSender {
    marked: Mutex<Marked>,
    woken: Notify,
    /// What the broker tells of consumers and messages may be so old.
    lag: Duration,
    /// A queue of which nothing is known is asked about so long after a message was put into it.
    after: Duration,
}

/// Queues that may need a notice, and those that were asked about lately.
#[derive(Debug, Default)]
struct Marked {
    queues: HashMap<QueueName, Since>,
    quiet: HashMap<QueueName, Quiet>,
}

#[derive(Debug, Clone, Copy)]
struct Quiet {
    until: Instant,
    pause: Duration,
}

impl NoticeSender {
    /// Puts notices by way of a broker that tells what was true `lag` ago, and not sooner than `after` a message was sent.
    pub fn new(lag: Duration, after: Duration) -> NoticeSender {
        NoticeSender { marked: Mutex::default(), woken: Notify::new(), lag, after }
    }

    /// A message was put into this queue.
    pub fn sent(&self, queue: &QueueName) {
        // Most of the time it is marked already.
        let mut marked = self.marked.lock();
        if marked.queues.get(queue) != Some(&Since::Sent) {
            marked.sent(queue, self.after, Instant::now());
            self.woken.notify_one();
        }
    }

    /// A consumer has left this queue, and may have left messages behind.
    pub fn left(&self, queue: QueueName) {
        self.marked.lock().left(queue, self.lag, Instant::now());
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
            let asking = futures::stream::iter(due.into_iter().map(|(name, since)| {
                let (queues, send_link) = (&queues, &send_link);
                async move {
                    let done = notify(queues, send_link, &name, since).await;
                    (name, since, done)
                }
            }));
            let mut asking = asking.buffer_unordered(AT_ONCE);
            loop {
                tokio::select! {
                    asked = asking.next() => match asked {
                        None => break,
                        Some((name, since, asked)) => self.marked.lock().asked(name, since, asked, self.lag),
                    },
                    () = becomes_true(&mut closed) => return,
                }
            }
        }
    }
}

impl Marked {
    /// Takes the queues that may be asked about, and tells when there may be more.
    fn take(&mut self, now: Instant) -> (Vec<(QueueName, Since)>, Instant) {
        self.quiet.retain(|_, quiet| now < quiet.until + LONGEST_PAUSE);
        let quiet = &self.quiet;
        let is_due = |name: &QueueName| quiet.get(name).is_none_or(|quiet| quiet.until <= now);
        let due = self.queues.extract_if(|name, _| is_due(name)).collect();
        let next = self.queues.keys().filter_map(|name| Some(self.quiet.get(name)?.until)).min();
        (due, next.unwrap_or(now + Duration::from_secs(3600)))
    }

    /// A message was put into a queue. One of which nothing is known is given some time, in which whoever was rung for may come.
    fn sent(&mut self, name: &QueueName, after: Duration, now: Instant) {
        self.queues.insert(name.clone(), Since::Sent);
        if !after.is_zero() {
            self.quiet.entry(name.clone()).or_insert(Quiet { until: now + after, pause: SHORTEST_PAUSE / 2 });
        }
    }

    /// A consumer has left a queue: it is asked about at once, or when the broker has noticed.
    fn left(&mut self, name: QueueName, lag: Duration, now: Instant) {
        match lag.is_zero() {
            true => drop(self.quiet.remove(&name)),
            false => drop(self.quiet.insert(name.clone(), Quiet { until: now + lag, pause: SHORTEST_PAUSE })),
        }
        self.queues.entry(name).or_insert(Since::Left);
    }

    fn asked(&mut self, name: QueueName, since: Since, asked: Result<bool, BrokerError>, lag: Duration) {
        let pause = self.quiet.get(&name).map_or(SHORTEST_PAUSE, |quiet| (quiet.pause * 2).min(LONGEST_PAUSE));
        match asked {
            Ok(true) if lag.is_zero() => drop(self.quiet.remove(&name)),
            // The broker may not know yet of a consumer that has come.
            Ok(true) => {
                let until = Instant::now() + SHORTEST_PAUSE;
                self.quiet.insert(name, Quiet { until, pause: SHORTEST_PAUSE });
            }
            Ok(false) => drop(self.quiet.insert(name, Quiet { until: Instant::now() + pause, pause })),
            Err(error) => {
                tracing::debug!(queue = %name, %error, "whether a queue is consumed could not be asked");
                self.quiet.insert(name.clone(), Quiet { until: Instant::now() + SHORTEST_PAUSE, pause });
                self.queues.entry(name).or_insert(since);
            }
        }
    }
}

/// Puts a notice if the queue needs one; whether it did.
async fn notify(queues: &Queues, send_link: &SendLink, name: &QueueName, since: Since) -> Result<bool, BrokerError> {
    if !queues.management.is_waiting(name, since).await? {
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

#[cfg(test)]
mod tests {
    use maxhost_model::SecureHash;

    use super::*;

    #[test]
    fn whoever_was_rung_for_has_time_to_come_and_one_who_leaves_is_asked_about_at_once() {
        let (mut marked, now) = (Marked::default(), Instant::now());
        let queue = QueueName::inbound(&SecureHash::of(b"alice"));
        let after = Duration::from_secs(1);
        marked.sent(&queue, after, now);
        assert_eq!(marked.take(now), (vec![], now + after));
        // A message more makes it no later.
        marked.sent(&queue, after, now + after / 2);
        assert_eq!(marked.take(now + after).0, [(queue.clone(), Since::Sent)]);
        marked.asked(queue.clone(), Since::Sent, Ok(false), Duration::ZERO);
        assert_eq!(marked.quiet[&queue].pause, SHORTEST_PAUSE);
        marked.sent(&queue, after, now + after);
        marked.left(queue.clone(), Duration::ZERO, now + after);
        assert_eq!(marked.take(now + after).0.len(), 1);
        // Where nobody is rung for it is asked at once.
        let other = QueueName::inbound(&SecureHash::of(b"bob"));
        marked.sent(&other, Duration::ZERO, now);
        assert_eq!(marked.take(now).0, [(other, Since::Sent)]);
    }
}
