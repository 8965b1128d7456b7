//! Sending: one link for all destinations, which names the queue in each message (OASIS AMQP 1.0 Anonymous Terminus, or an
//! exchange of RabbitMQ 3).
//!
//! One task owns the link. What has been sent waits for the broker's answer in a task of its own, which holds the message's
//! share of the bytes that may be on their way. All of them end when the link goes, and it goes with its session.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fe2o3_amqp::Sender;
use fe2o3_amqp::link::SendError;
use fe2o3_amqp::types::messaging::{
    ApplicationProperties, Data, Header, Message, MessageAnnotations, MessageId, Outcome, Properties, Target,
};
use fe2o3_amqp::types::primitives::{Symbol, Timestamp, Value as AmqpAny};
use maxhost_broker::{BrokerError, MessageId as Id, Permanent, Transient};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::connection::{ANSWER, Line, Pause, Session};
use crate::error::{text_of, unavailable};
use crate::management::NOTICE_OF;
use crate::management::dialect::Dialect;

/// Messages that wait for the link.
const WAITING: usize = 1024;
/// Bytes on their way are counted in pieces of this size, because a semaphore counts no further than 32 bits.
const PIECE: usize = 1024;

/// How long the broker may take no message before it is said in the log.
const PATIENCE: Duration = Duration::from_secs(5);

/// The annotation by which Artemis gives a message out later, in milliseconds (its manual, "Scheduled Messages").
const DELIVERY_DELAY: &str = "x-opt-delivery-delay";
/// What answers are.
const JSON: &str = "application/json";

/// What is sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The queue.
    pub to: String,
    pub what: What,
    pub body: Bytes,
}

/// What a message is, beside its body.
#[derive(Debug)]
pub(crate) enum What {
    /// A message between hosts, which the receiver knows again by this.
    Message(Id),
    /// A notice about this queue.
    Notice(String),
    /// A request of a client, to be given out after a delay.
    Request { id: String, reply_to: String, properties: BTreeMap<String, String>, delay: Duration },
    /// An answer to the request of this id, which may be dropped after a time.
    Answer { id: String, subject: String, keep: Duration },
}

/// Why a message was not sent.
#[derive(Debug)]
pub(crate) enum NotSent {
    /// The broker does not take it: the queue may be gone.
    NotTaken(String),
    Error(BrokerError),
}

#[derive(Debug)]
struct Job {
    outgoing: Outgoing,
    permit: OwnedSemaphorePermit,
    reply: oneshot::Sender<Result<(), NotSent>>,
}

/// Sends by way of one connection.
#[derive(Debug)]
pub(crate) struct SendLink {
    line: Line,
    jobs: mpsc::Sender<Job>,
    on_their_way: Arc<Semaphore>,
    pieces: u32,
}

impl SendLink {
    /// Sends by way of this connection; so many bytes at once, or one message.
    pub fn new(line: Line, dialect: Dialect, bytes: usize) -> SendLink {
        let (jobs, asked) = mpsc::channel(WAITING);
        tokio::spawn(run(line.clone(), dialect, asked));
        let pieces = u32::try_from(bytes / PIECE).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4);
        SendLink { line, jobs, on_their_way: Arc::new(Semaphore::new(pieces as usize)), pieces }
    }

    /// Why there is no connection at present; `None` if there is one.
    pub fn lost(&self) -> Option<BrokerError> {
        self.line.lost()
    }

    /// Waits until the connection is closed for good.
    pub async fn is_closed(&self) {
        self.line.is_closed().await;
    }

    /// Sends a message and waits until the broker has it, or until this time has passed.
    pub async fn send(&self, outgoing: Outgoing, within: Duration) -> Result<(), NotSent> {
        let closed = || NotSent::Error(Permanent::Closed.into());
        let sending = async {
            let pieces = u32::try_from(outgoing.body.len() / PIECE + 1).unwrap_or(u32::MAX).min(self.pieces);
            let room = Arc::clone(&self.on_their_way).acquire_many_owned(pieces).await;
            let permit = room.map_err(|_| closed())?;
            let (reply, answer) = oneshot::channel();
            self.jobs.send(Job { outgoing, permit, reply }).await.map_err(|_| closed())?;
            answer.await.unwrap_or_else(|_| Err(NotSent::Error(self.line.trouble())))
        };
        match timeout(within, sending).await {
            Ok(sent) => sent,
            Err(_) if self.line.is_down() => Err(NotSent::Error(self.line.trouble())),
            Err(_) => Err(NotSent::Error(Transient::TimedOut.into())),
        }
    }
}

async fn run(line: Line, dialect: Dialect, mut jobs: mpsc::Receiver<Job>) {
    let mut pause = Pause::none();
    loop {
        pause.wait().await;
        match attach(&line, dialect).await {
            Ok((session, sender)) => {
                let begun = Instant::now();
                match serve(session, sender, dialect, &mut jobs).await {
                    Some(error) => tracing::debug!(%error, "the link for sending was lost"),
                    None => return,
                }
                // A link that is lost as soon as it is attached is no better than none.
                if begun.elapsed() > Duration::from_secs(1) {
                    pause = Pause::none();
                }
            }
            Err(BrokerError::Permanent(Permanent::Closed)) => return,
            Err(error) => {
                tracing::debug!(%error, "the link for sending cannot be attached");
            }
        }
        if jobs.is_closed() && jobs.is_empty() {
            return;
        }
    }
}

async fn attach(line: &Line, dialect: Dialect) -> Result<(Session, Sender), BrokerError> {
    let mut session = line.session(ANSWER).await?;
    let target = match dialect.sending_target() {
        Some(address) => Target::builder().address(address).build(),
        None => Target::builder().build(),
    };
    let attaching = Sender::builder().name("send").target(target).attach(&mut session.handle);
    match timeout(ANSWER, attaching).await {
        Ok(Ok(sender)) => Ok((session, sender)),
        Ok(Err(error)) => Err(unavailable(error)),
        Err(_) => Err(unavailable("the broker does not answer")),
    }
}

/// Sends until the link is lost; `None` if nobody will send any more.
async fn serve(
    mut session: Session,
    mut sender: Sender,
    dialect: Dialect,
    jobs: &mut mpsc::Receiver<Job>,
) -> Option<BrokerError> {
    loop {
        let job = tokio::select! {
            job = jobs.recv() => job,
            error = session.ended() => return Some(error),
        };
        let Some(Job { outgoing, permit, reply }) = job else {
            drop(sender);
            session.end().await;
            return None;
        };
        // Nobody waits for it any more, and it was told that the message may not have been taken.
        if reply.is_closed() {
            continue;
        }
        let sending = tokio::select! {
            sending = with_a_warning(sender.send_batchable(message(outgoing, dialect))) => sending,
            error = session.ended() => {
                let _ = reply.send(Err(NotSent::Error(error.clone())));
                return Some(error);
            }
        };
        match sending {
            Ok(settled) => drop(tokio::spawn(async move {
                let outcome = outcome(settled.await);
                drop(permit);
                let _ = reply.send(outcome);
            })),
            Err(error) => {
                let error = unavailable(error);
                let _ = reply.send(Err(NotSent::Error(error.clone())));
                return Some(error);
            }
        }
    }
}

/// Says so if the broker takes nothing for long. It does not say itself that it is blocked.
async fn with_a_warning<T>(sending: impl Future<Output = T>) -> T {
    let mut sending = std::pin::pin!(sending);
    if let Ok(sent) = timeout(PATIENCE, &mut sending).await {
        return sent;
    }
    tracing::warn!(
        "the broker has taken no message for {PATIENCE:?}: its disk may be fuller than its max-disk-usage allows, or its memory full"
    );
    sending.await
}

fn message(Outgoing { to, what, body }: Outgoing, dialect: Dialect) -> Message<Data> {
    let mut header = Header { durable: true, ..Header::default() };
    let mut properties = Properties {
        // Told by the broker of the first message of a queue: how long that has waited.
        creation_time: Some(Timestamp::from(crate::oldest::now_ms())),
        ..Properties::default()
    };
    dialect.name_destination(&mut properties, to);
    let mut message = Message::builder().data(Data(Vec::from(body).into())).build();
    match what {
        What::Message(id) => properties.message_id = Some(MessageId::Binary(id.0.to_vec().into())),
        What::Notice(queue) => {
            message.application_properties = Some(ApplicationProperties::builder().insert(NOTICE_OF, queue).build());
        }
        What::Request { id, reply_to, properties: kept, delay } => {
            properties.correlation_id = Some(MessageId::String(id));
            properties.reply_to = Some(reply_to);
            let kept =
                kept.into_iter().fold(ApplicationProperties::builder(), |all, (name, text)| all.insert(name, text));
            message.application_properties = Some(kept.build());
            let delay = AmqpAny::Long(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX));
            message.message_annotations =
                Some(MessageAnnotations::builder().insert(Symbol::from(DELIVERY_DELAY), delay).build());
        }
        What::Answer { id, subject, keep } => {
            header.ttl = Some(u32::try_from(keep.as_millis()).unwrap_or(u32::MAX));
            properties.correlation_id = Some(MessageId::String(id));
            properties.subject = Some(subject);
            properties.content_type = Some(Symbol::from(JSON));
        }
    }
    message.header = Some(header);
    message.properties = Some(properties);
    message
}

fn outcome(settled: Result<Outcome, SendError>) -> Result<(), NotSent> {
    match settled {
        Ok(Outcome::Accepted(_)) => Ok(()),
        Ok(Outcome::Rejected(rejected)) => Err(NotSent::NotTaken(text_of(rejected.error))),
        Ok(_) => Err(NotSent::NotTaken("it was given back".to_owned())),
        Err(error) => Err(NotSent::Error(unavailable(error))),
    }
}
