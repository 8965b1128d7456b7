//! Notices that a queue holds messages which nobody consumes.
//!
//! Artemis tells nobody when a message comes for nobody. So whoever has put a message into a queue, or has left one
//! behind, asks for the number of its consumers, and if there is none puts a notice into a queue of notices, of which the
//! broker keeps the newest for each queue. Listeners compete for them. For what no notice was put (its sender was killed,
//! say) listeners look now and then which queues hold messages.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fe2o3_amqp::Receiver;
use fe2o3_amqp::link::RecvError;
use fe2o3_amqp::link::delivery::DeliveryInfo;
use fe2o3_amqp::types::messaging::Body;
use fe2o3_amqp::types::primitives::{SimpleValue, Value as AmqpAny};
use futures::StreamExt;
use maxhost_broker::{BacklogNotices, BrokerError, Permanent, QueueName};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::broker::Shared;
use crate::connection::{Session, becomes_true};
use crate::consumer::{Attaching, detach};
use crate::error::unavailable;
use crate::queues::{NOTICE_OF, NOTICES, Queues};
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

/// A listener for notices.
pub(crate) struct AmqpNotices {
    shared: Arc<Shared>,
    link: Option<Link>,
    attaching: Attaching,
    /// What the last look found, and was not told yet.
    found: VecDeque<QueueName>,
    /// What was waiting at the last look.
    waiting: HashSet<QueueName>,
    next_look: Instant,
    look: Option<JoinHandle<Result<Vec<QueueName>, BrokerError>>>,
}

struct Link {
    session: Session,
    receiver: Receiver,
    /// The notice that was told last: it is taken from the broker when the next one is asked for, because by then somebody
    /// has done something about it.
    told: Option<DeliveryInfo>,
}

impl AmqpNotices {
    pub async fn listen(shared: Arc<Shared>) -> Result<AmqpNotices, BrokerError> {
        let next_look = Instant::now() + shared.options.sweep;
        let (found, waiting) = (VecDeque::new(), HashSet::new());
        let attaching = Attaching::default();
        let mut notices = AmqpNotices { shared, link: None, attaching, found, waiting, next_look, look: None };
        notices.attach().await?;
        Ok(notices)
    }

    async fn attach(&mut self) -> Result<(), BrokerError> {
        let (session, receiver) = self.attaching.attach(&self.shared, NOTICES, None).await?;
        self.link = Some(Link { session, receiver, told: None });
        Ok(())
    }

    fn lost(&mut self, error: BrokerError) -> BrokerError {
        self.link = None;
        error
    }

    async fn take(&mut self) -> Result<QueueName, BrokerError> {
        loop {
            if let Some(queue) = self.found.pop_front() {
                return Ok(queue);
            }
            if self.link.is_none() {
                self.attach().await?;
            }
            let Some(link) = self.link.as_mut() else { continue };
            if let Err(error) = link.ask().await {
                return Err(self.lost(error));
            }
            tokio::select! {
                notice = link.receiver.recv::<Body<AmqpAny>>() => match notice {
                    Ok(notice) => {
                        let (info, message) = notice.into_parts();
                        link.told = Some(info);
                        let queue = message.application_properties.as_ref().and_then(|of| match of.0.get(NOTICE_OF)? {
                            SimpleValue::String(name) => name.parse().ok(),
                            _ => None,
                        });
                        // Somebody else's message: it is taken away.
                        let Some(queue) = queue else { continue };
                        return Ok(queue);
                    }
                    Err(RecvError::MessageDecode(error)) => link.told = Some(error.info),
                    Err(error) => return Err(self.lost(unavailable(error))),
                },
                error = link.session.ended() => return Err(self.lost(error)),
                () = tokio::time::sleep_until(self.next_look), if self.look.is_none() => {
                    let shared = Arc::clone(&self.shared);
                    self.look = Some(tokio::spawn(async move { shared.waiting().await }));
                }
                looked = async { match &mut self.look {
                    Some(look) => look.await,
                    None => std::future::pending().await,
                }} => {
                    self.look = None;
                    self.next_look = Instant::now() + self.shared.options.sweep;
                    match looked {
                        Ok(Ok(waiting)) => self.looked(waiting),
                        outcome => tracing::debug!(?outcome, "the broker's queues could not be looked at"),
                    }
                }
            }
        }
    }

    /// What was waiting at two looks, one after the other, had no notice, or nobody who did something about it.
    fn looked(&mut self, waiting: Vec<QueueName>) {
        let before = std::mem::replace(&mut self.waiting, waiting.into_iter().collect());
        self.found = self.waiting.intersection(&before).cloned().collect();
    }
}

impl Link {
    /// Takes away the notice that was told last, and asks for another.
    async fn ask(&mut self) -> Result<(), BrokerError> {
        if let Some(told) = &self.told {
            self.receiver.accept(told.clone()).await.map_err(unavailable)?;
            self.told = None;
        }
        if self.receiver.credit() == 0 {
            self.receiver.set_credit(1).await.map_err(unavailable)?;
        }
        Ok(())
    }
}

#[async_trait]
impl BacklogNotices for AmqpNotices {
    async fn next(&mut self) -> Result<QueueName, BrokerError> {
        let mut closed = self.shared.closed.subscribe();
        tokio::select! {
            biased;
            () = becomes_true(&mut closed) => Err(Permanent::Closed.into()),
            queue = self.take() => queue,
        }
    }
}

impl Drop for AmqpNotices {
    fn drop(&mut self) {
        if let Some(look) = &self.look {
            look.abort();
        }
        let Some(Link { session, receiver, .. }) = self.link.take() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(detach(receiver, session));
        }
    }
}
