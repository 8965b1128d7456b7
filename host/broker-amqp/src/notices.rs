//! Notices that a queue holds messages which nobody consumes.
//!
//! No broker tells anybody when a message comes for nobody. So whoever has put a message into a queue, or has left one
//! behind, asks for the number of its consumers, and if there is none puts a notice into a queue of notices, of which
//! Artemis keeps the newest for each queue, and RabbitMQ the newest of all. Listeners compete for them. For what no notice was put (its sender was killed,
//! say) listeners look now and then which queues hold messages.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use fe2o3_amqp::Receiver;
use fe2o3_amqp::link::RecvError;
use fe2o3_amqp::link::delivery::DeliveryInfo;
use fe2o3_amqp::types::messaging::Body;
use fe2o3_amqp::types::primitives::{SimpleValue, Value as AmqpAny};
use maxhost_broker::{BacklogNotices, BrokerError, Permanent, QueueName};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::attaching::{Attaching, detach};
use crate::connection::{Session, becomes_true};
use crate::error::unavailable;
use crate::management::NOTICE_OF;
use crate::shared::Shared;

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
        let (session, receiver) = self.attaching.attach(&self.shared, None).await?;
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
            runtime.spawn(detach(receiver, session, self.shared.dialect()));
        }
    }
}
