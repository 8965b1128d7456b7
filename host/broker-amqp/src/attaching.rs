//! Attaching to a queue and detaching from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fe2o3_amqp::Receiver;
use fe2o3_amqp::link::receiver::CreditMode;
use fe2o3_amqp::types::messaging::Source;
use fe2o3_amqp::types::primitives::Symbol;
use maxhost_broker::{BrokerError, QueueName};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::connection::{ANSWER, Session};
use crate::error::unavailable;
use crate::management::NOTICES;
use crate::management::dialect::Dialect;
use crate::shared::Shared;

/// What a message of the largest size may have beside its body, in bytes.
pub(crate) const BESIDES: usize = 64 * 1024;

/// Attaches a receiver, in a task of its own: whoever waits for it may give up again and again, and it is done all the same.
#[derive(Debug, Default)]
pub(crate) struct Attaching(Option<JoinHandle<Result<(Session, Receiver), BrokerError>>>);

impl Attaching {
    /// A receiver without credit on a session of its own: of this queue, or of the notices. The queue is made sure of first.
    pub async fn attach(
        &mut self,
        shared: &Arc<Shared>,
        queue: Option<&QueueName>,
    ) -> Result<(Session, Receiver), BrokerError> {
        if self.0.is_none() {
            self.begin(shared, queue, async { Ok(()) });
        }
        let attached = match &mut self.0 {
            Some(task) => task.await.map_err(unavailable),
            None => Err(unavailable("nothing is attached")),
        };
        self.0 = None;
        attached?
    }

    /// Begins to attach, after something else.
    pub fn begin(
        &mut self,
        shared: &Arc<Shared>,
        queue: Option<&QueueName>,
        before: impl Future<Output = Result<(), BrokerError>> + Send + 'static,
    ) {
        let (shared, queue) = (Arc::clone(shared), queue.cloned());
        self.0 = Some(tokio::spawn(async move {
            before.await?;
            match &queue {
                Some(queue) => shared.queues.ensure(queue).await?,
                None => shared.queues.ensure_notices().await?,
            }
            let dialect = shared.dialect();
            let address = dialect.source(queue.as_ref().map_or(NOTICES, QueueName::as_str));
            let largest = dialect.largest_received(shared.options.max_message_bytes) + BESIDES;
            let mut session = shared.consuming.session(ANSWER).await?;
            let receiver = receiver(&mut session, &address, largest).await?;
            Ok((session, receiver))
        }));
    }
}

impl Drop for Attaching {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Attaches a receiver without credit.
async fn receiver(session: &mut Session, address: &str, largest: usize) -> Result<Receiver, BrokerError> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    // The capability, so that an address is never taken for one that has a copy for each consumer.
    let source = Source::builder().address(address).capabilities(vec![Symbol::from("queue")]).build();
    let attaching = Receiver::builder()
        .name(format!("{address}-{}", NUMBER.fetch_add(1, Ordering::Relaxed)))
        .source(source)
        .credit_mode(CreditMode::Manual)
        .max_message_size(largest as u64)
        .attach(&mut session.handle);
    match timeout(ANSWER, attaching).await {
        Ok(Ok(receiver)) => Ok(receiver),
        Ok(Err(error)) => Err(unavailable(format!("the queue {address} cannot be consumed: {error}"))),
        Err(_) => Err(unavailable("the broker does not answer")),
    }
}

/// Detaches in order, so that acknowledgements that are on their way arrive first, and what was not acknowledged comes to the
/// next consumer before what follows it.
pub(crate) async fn detach(receiver: Receiver, session: Session, dialect: Dialect) {
    if !dialect.gives_back_when_detached() {
        session.end().await;
        drop(receiver);
        return;
    }
    match timeout(ANSWER, receiver.close()).await {
        Ok(Ok(())) => {}
        // It may be gone with its connection.
        outcome => tracing::debug!(?outcome, "a link was not closed in order"),
    }
    session.end().await;
}
