//! The way through the broker: from the outbox to the recipient's queue, and from an identity's queue into the
//! database. Each step is at least once; the receiver's database recognises what comes twice.
//!
//! Identities of one database need none of this: their messages are written by the sender's own transaction.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use maxhost_broker::{Acks, BrokerError, Consumer, Credit, Delivery, Message, MessageId, Permanent, QueueName};
use maxhost_journal::{FrameBatch, Initiation};
use maxhost_model::{IdentityRow, SessionId, X500Name};
use maxhost_store::{MessageOp, Op, OutboxContent, OutboxRow, StoreError};
use prost::Message as _;
use tokio::sync::oneshot;

use crate::core::Core;
use crate::envelope::{Addressed, Content, Envelope};
use crate::registry::{EntryState, IdentityEntry};
use crate::unit::Unit;

/// Messages taken from the outbox at once.
const BATCH: u32 = 256;
/// What one identity may have in hand before it is committed.
const CREDIT: Credit = Credit { messages: 64, bytes: 4 << 20 };
/// A broker that does not answer by then is asked again.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How soon a failed step is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// A consumer with nothing to do for so long lets go of its queue; a notice of its backlog calls it back.
const IDLE: Duration = Duration::from_secs(10);

/// Sends what is in the outbox, until the host stops.
pub(crate) async fn send(core: Arc<Core>) {
    let mut pause = Duration::ZERO;
    loop {
        match send_batch(&core).await {
            Ok(0) => pause = Duration::from_secs(5),
            Ok(_) => pause = Duration::ZERO,
            Err(reason) => {
                tracing::warn!(reason, "the outbox could not be sent; tried again");
                pause = pause.clamp(RETRY, Duration::from_secs(10)) * 2;
            }
        }
        if pause.is_zero() {
            continue;
        }
        tokio::select! {
            () = core.outbox_bell.notified() => {}
            () = tokio::time::sleep(pause) => {}
            () = core.stopping.cancelled() => return,
        }
    }
}

/// Order is kept for each destination; one that is slow holds up only its own batch.
async fn send_batch(core: &Arc<Core>) -> Result<usize, String> {
    let rows = core.store.outbox(0, BATCH).await.map_err(|error| error.to_string())?;
    let mut by_destination: HashMap<Arc<str>, Vec<OutboxRow>> = HashMap::new();
    let total = rows.len();
    for row in rows {
        by_destination.entry(row.destination.clone()).or_default().push(row);
    }
    let sends = by_destination.into_values().map(|rows| send_to_one(core, rows));
    let sent: Vec<(IdentityRow, i64)> = futures::future::join_all(sends).await.into_iter().flatten().collect();
    let count = sent.len();
    let mut by_sender: HashMap<IdentityRow, Vec<Op>> = HashMap::new();
    for (sender, id) in sent {
        by_sender.entry(sender).or_default().push(MessageOp::OutboxSent { id }.into());
    }
    for (sender, ops) in by_sender {
        let Some(entry) = core.directory.by_row(sender) else { continue };
        // Sent again if this fails: the receiver recognises it.
        core.store.commit(entry.author(), ops).await.map_err(|error| error.to_string())?;
    }
    if count < total {
        Err(format!("{} of {total} messages were not taken by the broker", total - count))
    } else {
        Ok(count)
    }
}

async fn send_to_one(core: &Arc<Core>, rows: Vec<OutboxRow>) -> Vec<(IdentityRow, i64)> {
    let mut sent = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(queue) = queue_of(core, &row.destination) else {
            tracing::warn!(destination = %row.destination, "the network does not know the recipient of a message");
            break;
        };
        let message = match message_of(&row) {
            Ok(message) => message,
            Err(error) => {
                tracing::error!(destination = %row.destination, %error, "a damaged message was dropped");
                sent.push((row.identity, row.id));
                continue;
            }
        };
        match core.broker.send(&queue, message, SEND_TIMEOUT).await {
            Ok(()) => sent.push((row.identity, row.id)),
            // It would never be taken, and hold up all that come after it. The machine sends nothing that is too large.
            Err(BrokerError::Permanent(error @ Permanent::TooLarge { .. })) => {
                tracing::error!(destination = %row.destination, %error, "a message that no broker takes was dropped");
                sent.push((row.identity, row.id));
            }
            Err(error) => {
                tracing::warn!(destination = %row.destination, %error, "the broker did not take a message");
                break;
            }
        }
    }
    sent
}

/// The inbound queue of a party that the network knows.
fn queue_of(core: &Core, name: &str) -> Option<QueueName> {
    let party = core.party(&X500Name::parse(name).ok()?).ok()??;
    Some(QueueName::inbound(&party.owning_key.fingerprint()))
}

/// The identity of this host whose inbound queue this is.
fn entry_of(core: &Core, queue: &QueueName) -> Option<Arc<IdentityEntry>> {
    let fingerprint = queue.fingerprint()?;
    let party = core.network.by_fingerprint(&fingerprint).ok()??;
    core.directory.get(party.party.name.as_str())
}

/// An outbox row as it goes to the broker. One that was to be written to its recipient directly is put into an envelope
/// only here.
fn message_of(row: &OutboxRow) -> Result<Message, prost::DecodeError> {
    let content = match &row.content {
        OutboxContent::Message { message_id, body } => {
            return Ok(Message { id: MessageId(*message_id), body: body.clone() });
        }
        OutboxContent::Initiation { body } => Content::Initiation(Initiation::decode(body.clone())?),
        OutboxContent::Delivery { session, seq, body } => Content::FrameBatch(Addressed {
            session: session.0,
            seq: *seq,
            batch: Some(FrameBatch::decode(body.clone())?),
        }),
    };
    let envelope = Envelope { to: row.destination.to_string(), content: Some(content) };
    Ok(Message { id: MessageId(envelope.message_id()), body: envelope.encode_to_vec().into() })
}

/// Listens for queues that nobody serves, and serves those of our identities, until the host stops.
pub(crate) async fn receive(core: Arc<Core>) {
    while !core.stopping.is_cancelled() {
        let mut notices = match core.broker.backlog_notices().await {
            Ok(notices) => notices,
            Err(error) => {
                tracing::warn!(%error, "the broker's notices cannot be had; tried again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        loop {
            let queue = tokio::select! {
                queue = notices.next() => queue,
                () = core.stopping.cancelled() => return,
            };
            match queue {
                Ok(queue) => {
                    if let Some(entry) = entry_of(&core, &queue) {
                        core.io.spawn(serve(core.clone(), entry));
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the broker gives no more notices");
                    tokio::time::sleep(RETRY).await;
                    break;
                }
            }
        }
    }
}

/// Whatever waits in the broker for an identity that has just come.
pub(crate) fn look_for(core: &Arc<Core>, entries: Vec<Arc<IdentityEntry>>) {
    let core = core.clone();
    core.io.clone().spawn(async move {
        let waiting = core.broker.waiting().await.unwrap_or_default();
        let waiting: HashSet<Arc<str>> =
            waiting.iter().filter_map(|queue| entry_of(&core, queue)).map(|entry| entry.text.clone()).collect();
        for entry in entries.into_iter().filter(|entry| waiting.contains(&entry.text)) {
            core.io.spawn(serve(core.clone(), entry));
        }
    });
}

/// Serves one identity's queue until it is empty for a while.
async fn serve(core: Arc<Core>, entry: Arc<IdentityEntry>) {
    // The queue is exclusive: a second server would only wait for the first.
    if entry.served.swap(true, std::sync::atomic::Ordering::AcqRel) {
        return;
    }
    let queue = queue_of(&core, &entry.text);
    let result = match &queue {
        Some(queue) => match core.broker.consume(queue, CREDIT).await {
            Ok(mut consumer) => take_all(&core, &entry, consumer.as_mut()).await,
            Err(error) => Err(error.to_string()),
        },
        None => Err("the network does not know it".to_owned()),
    };
    entry.served.store(false, std::sync::atomic::Ordering::Release);
    match result {
        Ok(()) => {}
        Err(reason) => {
            tracing::warn!(identity = %entry.text, reason, "messages could not be taken from the broker; tried again");
            tokio::time::sleep(RETRY).await;
        }
    }
    // For what came between the last look and the release there is no notice, because somebody served the queue.
    let waiting = core.broker.waiting().await.unwrap_or_default();
    if queue.is_some_and(|queue| waiting.contains(&queue)) && !core.stopping.is_cancelled() {
        core.io.spawn(Box::pin(serve_again(core.clone(), entry)));
    }
}

fn serve_again(core: Arc<Core>, entry: Arc<IdentityEntry>) -> futures::future::BoxFuture<'static, ()> {
    Box::pin(serve(core, entry))
}

async fn take_all(core: &Arc<Core>, entry: &Arc<IdentityEntry>, consumer: &mut dyn Consumer) -> Result<(), String> {
    let acks = consumer.acks();
    loop {
        if matches!(&*entry.state.lock(), EntryState::Removed) {
            return Ok(());
        }
        let delivery = tokio::select! {
            delivery = consumer.next() => delivery.map_err(|error| error.to_string())?,
            () = tokio::time::sleep(IDLE) => return Ok(()),
            () = core.stopping.cancelled() => return Ok(()),
        };
        take(core, entry, delivery, &acks).await?;
    }
}

/// One message: into the database first, then acknowledged.
async fn take(
    core: &Arc<Core>,
    entry: &Arc<IdentityEntry>,
    delivery: Delivery,
    acks: &Arc<dyn Acks>,
) -> Result<(), String> {
    let acknowledge = async |reason: Option<&str>| {
        if let Some(reason) = reason {
            tracing::warn!(identity = %entry.text, message = ?delivery.message.id, reason, "a message was dropped");
        }
        acks.ack(delivery.tag).await.map_err(|error: BrokerError| error.to_string())
    };
    let Ok(envelope) = Envelope::decode(delivery.message.body.clone()) else {
        return acknowledge(Some("it is no message of ours")).await;
    };
    if envelope.to != *entry.text || envelope.message_id() != delivery.message.id.0 {
        return acknowledge(Some("it is addressed to somebody else")).await;
    }
    if envelope.largest_payload() > core.journal_limits().message {
        return acknowledge(Some("it is larger than the network allows")).await;
    }
    let mut unit = Unit::default();
    unit.op(MessageOp::Arrived { message_id: delivery.message.id.0 });
    match envelope.content {
        Some(Content::Initiation(initiation)) => unit.initiate(core, entry.clone(), initiation),
        Some(Content::FrameBatch(addressed)) => match addressed.batch {
            // A session number says which flow, and whoever sends may name any.
            Some(_) if !owns(core, entry, SessionId(addressed.session)).await? => {
                return acknowledge(Some("its session is not of this identity")).await;
            }
            Some(batch) => unit.deliver(entry.clone(), SessionId(addressed.session), addressed.seq, batch),
            None => return acknowledge(Some("it is empty")).await,
        },
        None => return acknowledge(Some("it is empty")).await,
    }
    let (told, result) = oneshot::channel();
    unit.submit(core, entry.author(), move |result| drop(told.send(result)));
    match result.await {
        Ok(Ok(())) | Ok(Err(StoreError::Duplicate)) => acknowledge(None).await,
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the store is closed".to_owned()),
    }
}

async fn owns(core: &Arc<Core>, entry: &Arc<IdentityEntry>, session: SessionId) -> Result<bool, String> {
    let record = core.store.flow(session.flow()).await.map_err(|error| error.to_string())?;
    // One that is not there any more is told so by the commit, which also answers a late confirmation.
    Ok(record.is_none_or(|record| record.identity == entry.row))
}
