//! The broker as hosts see it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use maxhost_broker::{
    BacklogNotices, Broker, BrokerError, ClientAnswer, ClientQueues, ClientRequest, Consumer, Credit, Holding, Markers,
    Message, Permanent, QueueName, Requests, Transient,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::connection::Line;
use crate::consumer::AmqpConsumer;
use crate::heard::Heard;
use crate::management::Management;
use crate::management::artemis::Artemis;
use crate::management::dialect::Dialect;
use crate::management::rabbitmq::RabbitMq;
use crate::notice_sender::NoticeSender;
use crate::notices::AmqpNotices;
use crate::oldest::Oldest;
use crate::options::AmqpOptions;
use crate::queues::Queues;
use crate::sender::{SendLink, What};
use crate::shared::Shared;

/// How long the broker may take to answer before it is left.
const LAST: Duration = Duration::from_secs(2);

/// A broker that speaks AMQP 1.0. Cloning gives another handle to the same connections.
#[derive(Clone)]
pub struct AmqpBroker {
    shared: Arc<Shared>,
}

impl fmt::Debug for AmqpBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpBroker").field("address", &self.shared.options.address).finish_non_exhaustive()
    }
}

impl AmqpBroker {
    /// Connects, and checks that the broker keeps what is put into it.
    ///
    /// A connection that is lost later is made again for as long as it takes, and consumers go on by themselves.
    ///
    /// # Errors
    /// [`Permanent::Refused`] says what has to be changed; [`Transient::Unavailable`] if no server answers.
    pub fn open(options: AmqpOptions) -> BoxFuture<'static, Result<AmqpBroker, BrokerError>> {
        // In a box, so that it is compiled here, once, and not wherever it is awaited.
        Box::pin(AmqpBroker::open_unboxed(options))
    }

    async fn open_unboxed(options: AmqpOptions) -> Result<AmqpBroker, BrokerError> {
        options.check()?;
        let options = Arc::new(options);
        let closed = watch::Sender::new(false);
        let heard = Heard::new();
        let result = AmqpBroker::open_lines(Arc::clone(&options), &heard, &closed).await;
        if result.is_err() {
            closed.send_replace(true);
        }
        let (consuming, queues, send_link) = result?;
        let notice_sender = Arc::new(NoticeSender::new(queues.management.lag(), options.notice_after));
        tokio::spawn(Arc::clone(&notice_sender).run(Arc::clone(&queues), Arc::clone(&send_link), closed.subscribe()));
        let (budget, oldest) = (Arc::default(), Oldest::default());
        Ok(AmqpBroker {
            shared: Arc::new(Shared {
                options,
                heard,
                consuming,
                queues,
                notice_sender,
                budget,
                oldest,
                closed,
                send_link,
            }),
        })
    }

    async fn open_lines(
        options: Arc<AmqpOptions>,
        heard: &Heard,
        closed: &watch::Sender<bool>,
    ) -> Result<(Line, Arc<Queues>, Arc<SendLink>), BrokerError> {
        let sending = Line::open(Arc::clone(&options), "maxhost-send", heard.clone(), closed.subscribe()).await?;
        let management: Arc<dyn Management> = match &options.management {
            None => Arc::new(Artemis::open(sending.clone()).await?),
            Some(address) => Arc::new(RabbitMq::open(&options, address).await?),
        };
        let dialect = management.dialect();
        let queues = Arc::new(Queues::new(management, sending.clone()));
        queues.ensure_notices().await?;
        let send_link = Arc::new(SendLink::new(sending, dialect, options.sending_bytes));
        let consuming = Line::open(options, "maxhost-consume", heard.clone(), closed.subscribe()).await?;
        Ok((consuming, queues, send_link))
    }
}

#[async_trait]
impl Broker for AmqpBroker {
    async fn send(&self, queue: &QueueName, message: Message, within: Duration) -> Result<(), BrokerError> {
        let Shared { options, queues, notice_sender, .. } = &*self.shared;
        self.shared.check_open()?;
        let (bytes, limit) = (message.body.len(), options.max_message_bytes);
        if bytes > limit {
            return Err(Permanent::TooLarge { bytes, limit }.into());
        }
        let deadline = Instant::now() + within;
        let ensured = tokio::time::timeout_at(deadline, queues.ensure(queue)).await;
        ensured.unwrap_or_else(|_| Err(Transient::TimedOut.into()))?;
        self.shared.put(queue, What::Message(message.id), message.body, deadline).await?;
        notice_sender.sent(queue);
        Ok(())
    }

    async fn prepare(&self, queue: &QueueName) -> Result<(), BrokerError> {
        self.shared.check_open()?;
        self.shared.queues.ensure(queue).await
    }

    async fn consume(&self, queue: &QueueName, credit: Credit) -> Result<Box<dyn Consumer>, BrokerError> {
        self.shared.check_open()?;
        Ok(Box::new(AmqpConsumer::<Message>::attach(Arc::clone(&self.shared), queue.clone(), credit).await?))
    }

    async fn waiting(&self) -> Result<Vec<QueueName>, BrokerError> {
        self.shared.check_open()?;
        self.shared.waiting().await
    }

    async fn holding(&self, queues: &[QueueName]) -> Result<Vec<Holding>, BrokerError> {
        self.shared.check_open()?;
        self.shared.queues.holding_of(queues).await
    }

    async fn oldest(&self) -> Result<Option<Duration>, BrokerError> {
        self.shared.check_open()?;
        self.shared.oldest.look(&self.shared.queues).await
    }

    async fn backlog_notices(&self) -> Result<Box<dyn BacklogNotices>, BrokerError> {
        self.shared.check_open()?;
        Ok(Box::new(AmqpNotices::listen(Arc::clone(&self.shared)).await?))
    }

    fn last_heard(&self) -> Option<std::time::Instant> {
        Some(self.shared.heard.last())
    }

    fn trouble(&self) -> Option<BrokerError> {
        let Shared { consuming, send_link, .. } = &*self.shared;
        self.shared.check_open().err().or_else(|| consuming.lost()).or_else(|| send_link.lost())
    }

    fn max_message_bytes(&self) -> usize {
        self.shared.options.max_message_bytes
    }

    fn client_queues(&self) -> Option<Arc<dyn ClientQueues>> {
        // RabbitMQ 3 has no delayed messages, which requests are put back with.
        let serves_clients = self.shared.dialect() == Dialect::Artemis;
        serves_clients.then(|| Arc::new(self.clone()) as Arc<dyn ClientQueues>)
    }

    fn markers(&self) -> Option<Arc<dyn Markers>> {
        Some(Arc::new(self.clone()))
    }

    async fn close(&self) {
        // One question and answer, so that acknowledgements that were given get out before the connection ends. Its end is not
        // waited for: RabbitMQ 3.10 often gives no answer to the end of a session that has just begun.
        drop(self.shared.consuming.session(LAST).await);
        self.shared.closed.send_replace(true);
        self.shared.consuming.is_closed().await;
        self.shared.send_link.is_closed().await;
    }
}

#[async_trait]
impl Markers for AmqpBroker {
    async fn has_marker(&self, name: &QueueName) -> Result<bool, BrokerError> {
        self.shared.check_open()?;
        self.shared.queues.management.exists(name).await
    }

    async fn make_marker(&self, name: &QueueName) -> Result<(), BrokerError> {
        self.shared.check_open()?;
        self.shared.queues.management.make_queue(name).await
    }
}

#[async_trait]
impl ClientQueues for AmqpBroker {
    async fn requests(&self, queue: &QueueName, credit: Credit) -> Result<Box<dyn Requests>, BrokerError> {
        self.shared.check_open()?;
        Ok(Box::new(AmqpConsumer::<ClientRequest>::attach(Arc::clone(&self.shared), queue.clone(), credit).await?))
    }

    async fn put_back(
        &self,
        queue: &QueueName,
        request: &ClientRequest,
        delay: Duration,
        within: Duration,
    ) -> Result<(), BrokerError> {
        self.shared.check_open()?;
        let deadline = Instant::now() + within;
        let ensured = tokio::time::timeout_at(deadline, self.shared.queues.ensure(queue)).await;
        ensured.unwrap_or_else(|_| Err(Transient::TimedOut.into()))?;
        let ClientRequest { id, reply_to, properties, body } = request.clone();
        self.shared.put(queue, What::Request { id, reply_to, properties, delay }, body, deadline).await
    }

    async fn answer(&self, queue: &QueueName, answer: ClientAnswer, within: Duration) -> Result<bool, BrokerError> {
        self.shared.check_open()?;
        let ClientAnswer { id, subject, body, keep } = answer;
        let (bytes, limit) = (body.len(), self.max_answer_bytes());
        if bytes > limit {
            return Err(Permanent::TooLarge { bytes, limit }.into());
        }
        let deadline = Instant::now() + within;
        let looked = tokio::time::timeout_at(deadline, self.shared.queues.is_usable(queue)).await;
        if !looked.unwrap_or_else(|_| Err(Transient::TimedOut.into()))? {
            return Ok(false);
        }
        self.shared.put(queue, What::Answer { id, subject, keep }, body, deadline).await?;
        Ok(true)
    }

    fn max_answer_bytes(&self) -> usize {
        self.shared.options.max_message_bytes
    }
}
