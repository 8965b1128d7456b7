//! From the outbox to the queues of the recipients.
//!
//! Only rows of identities that this host holds are read and sent, each signed by its sender; those of others wait until
//! their sender is held somewhere. A destination is read on behind the last row that was read: this host writes its rows in
//! the order of their numbers. Another's row may have a higher number and be there sooner, so it is no place to read on
//! from. Whenever an identity is claimed all is read from the first row on. Destinations take turns ([`super::destinations`]): a turn is a batch, whose messages are on
//! their way to the broker at once, and a destination whose messages are not taken pauses, longer each time. A row goes
//! when the broker has the message, and is kept elsewhere for a while if the broker may lose it ([`super::kept`]). A message
//! that no broker will ever take is answered at its sender.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use maxhost_broker::{BrokerError, Message, MessageId, Permanent, QueueName};
use maxhost_journal::{Frame, FrameBatch};
use maxhost_model::{Code, ErrorKind, FlowError, IdentityRow, Problem, SecureHash, SessionId, X500Name};
use maxhost_pki::OpenIdentity;
use maxhost_store::{MessageOp, Op, OutboxRow, Recipient, StoreError, is_last_page, outbox_begin};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::RelayServices;
use super::destinations::{Destinations, Report, Turn};
use crate::base::random::new_error_id;
use crate::commit::unit::Unit;
use crate::delivery::envelope::{Content, Envelope};
use crate::registry::entry::IdentityEntry;

/// Messages of one turn.
const BATCH: u32 = 64;
/// Messages of one turn that are on their way at once.
const PIPELINE: usize = 32;
/// A broker that does not answer by then is asked again after a pause.
pub(super) const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How often all rows are looked at, whatever was noticed.
const SWEEP: Duration = Duration::from_secs(30);
/// How often rows that were read and not sent are read again, whatever was noticed.
const REWIND: Duration = Duration::from_secs(600);
/// Destinations that are read at once.
const DESTINATIONS: u32 = 1_000;

/// Sends what is in the outbox of this database, until the host stops.
pub(crate) async fn run(services: Arc<RelayServices>, database: usize) {
    if let Some(kept) = &services.kept {
        tokio::select! {
            () = kept.has_seen() => {}
            () = services.stopping.cancelled() => return,
        }
    }
    let mut destinations = Destinations::behind(outbox_begin(database));
    let mut turns: JoinSet<Report> = JoinSet::new();
    let mut running: HashMap<tokio::task::Id, Turn> = HashMap::new();
    let mut sweep_at = tokio::time::Instant::now();
    let (mut rewind_at, mut wake_at) = (sweep_at + REWIND, sweep_at);
    loop {
        while let Some(turn) = destinations.next(Instant::now()) {
            let task = turns.spawn(send_batch(services.clone(), turn.clone()));
            running.insert(task.id(), turn);
        }
        let due = destinations.next_due().map_or(sweep_at, |due| tokio::time::Instant::from_std(due).min(sweep_at));
        tokio::select! {
            noted = services.committer.outbox.take(database) => {
                noted.destinations.iter().for_each(|destination| destinations.news(destination));
                if noted.all {
                    destinations.look_at_all();
                    sweep_at = tokio::time::Instant::now();
                }
            }
            Some(ended) = turns.join_next_with_id() => {
                let (id, report) = match ended {
                    Ok((id, report)) => (id, Some(report)),
                    Err(error) => {
                        tracing::error!(%error, "a turn of the relay met a defect; its messages are sent again");
                        (error.id(), None)
                    }
                };
                if let Some(turn) = running.remove(&id) {
                    settle(&mut destinations, &turn, report);
                }
            }
            () = tokio::time::sleep_until(due) => {}
            () = services.stopping.cancelled() => return,
        }
        if sweep_at <= tokio::time::Instant::now() {
            sweep_at += SWEEP;
            if rewind_at <= sweep_at {
                rewind_at = sweep_at + REWIND;
                destinations.look_at_all();
            }
            if let Err(error) = sweep(&services, &mut destinations).await {
                tracing::warn!(%error, "the outbox cannot be read; tried again");
            }
        }
        if services.membership.is_none() && wake_at <= tokio::time::Instant::now() {
            wake_at = tokio::time::Instant::now() + SWEEP;
            if let Err(error) = wake_senders(&services).await {
                tracing::warn!(%error, "whose messages are in the outbox cannot be read; tried again");
            }
        }
    }
}

/// Takes note of every destination for which there are rows.
async fn sweep(services: &RelayServices, destinations: &mut Destinations) -> Result<(), StoreError> {
    let (mut last, mut with_rows): (Arc<str>, HashSet<Arc<str>>) = (Arc::from(""), HashSet::new());
    loop {
        let found = services.committer.store.outbox_destinations(&last, DESTINATIONS).await?;
        found.iter().for_each(|found| destinations.news(&found.destination));
        match found.last() {
            Some(found) => last = found.destination.clone(),
            None => break,
        }
        with_rows.extend(found.into_iter().map(|found| found.destination));
    }
    destinations.keep(&with_rows);
    Ok(())
}

/// Opens identities that have messages in the outbox and that this host, which is alone, does not hold. Where hosts share
/// identities, whoever looks for work without an owner rings for them.
async fn wake_senders(services: &RelayServices) -> Result<(), StoreError> {
    let now = i64::try_from(services.now_millis()).unwrap_or(i64::MAX);
    for left in services.committer.store.left_work(now).await?.into_iter().filter(|left| left.outbox) {
        if let Some(entry) = services.committer.directory.by_row(left.identity).filter(|entry| !entry.is_held()) {
            services.committer.waking.ring(&entry);
        }
    }
    Ok(())
}

fn settle(destinations: &mut Destinations, turn: &Turn, report: Option<Report>) {
    let defect = || Report { after: turn.after, more: true, failure: Some("a defect".to_owned()) };
    let report = report.unwrap_or_else(defect);
    let failures = destinations.report(turn, &report, Instant::now());
    let Some(reason) = &report.failure else { return };
    let destination = &*turn.destination;
    // Once for each time that it begins, and then as seldom as it is tried.
    if failures == 1 || failures.is_multiple_of(8) {
        tracing::warn!(destination, failures, reason, "messages could not be sent; they are kept and sent again");
    } else {
        tracing::debug!(destination, failures, reason, "messages could not be sent; they are kept and sent again");
    }
}

/// What became of one message.
enum Sent {
    /// The row can go.
    Done,
    /// Trouble that passes: the row stays.
    Later(String),
    /// No broker will ever take it.
    Never(BrokerError),
    /// It cannot be read. The row stays for a person to look at, and nothing waits for it.
    Damaged,
}

/// A turn that is under way.
struct Batch {
    services: Arc<RelayServices>,
    destination: Arc<str>,
    queue: QueueName,
    /// Something was not taken: what is not on its way yet waits for the next turn.
    stop: AtomicBool,
}

/// How far a turn has come.
struct Progress {
    report: Report,
    /// The first row that has to be sent again.
    failed_at: Option<i64>,
}

impl Progress {
    fn failed(&mut self, row: i64, reason: String) {
        self.report.failure.get_or_insert(reason);
        self.failed_at = Some(self.failed_at.map_or(row, |at| at.min(row)));
    }
}

/// One turn.
async fn send_batch(services: Arc<RelayServices>, turn: Turn) -> Report {
    let report = Report { after: turn.after, more: true, failure: None };
    let rows = match services.committer.store.outbox_to(&turn.destination, turn.after, BATCH).await {
        Ok(rows) => rows,
        Err(error) => return Report { failure: Some(error.to_string()), ..report },
    };
    // What is committed after this read is noticed, and gives the destination another turn.
    let more = !is_last_page(BATCH, rows.iter().map(|row| row.content.body().len()));
    let report = Report { more, ..report };
    let Some(last) = rows.last().map(|row| row.id) else { return report };
    let key = match destination_key(&services, &turn.destination) {
        Ok(key) => key,
        Err(reason) => return Report { failure: Some(reason), ..report },
    };
    let mut progress = Progress { report, failed_at: None };
    let messages = with_senders(&services, rows).await;
    let batch = Batch {
        services,
        destination: turn.destination,
        queue: QueueName::inbound(&key),
        stop: AtomicBool::new(false),
    };
    let done = batch.send(messages, &mut progress).await;
    if !done.is_empty() {
        // Before the rows go: a message in the broker that nobody is rung for would wait.
        batch.services.sent_to(key).await;
    }
    for (sender, ops) in done.into_values() {
        // If this fails they are sent again, and the recipient recognises them.
        match batch.services.committer.store.commit(sender.entry.author(), ops).await {
            Ok(_) => {}
            Err(error @ StoreError::Fenced { .. }) => {
                batch.services.committer.waking.note_fenced(&error);
                tracing::debug!(identity = %sender.entry.text, %error, "not held any more: its messages are another host's");
            }
            Err(error) => progress.failed(turn.after + 1, error.to_string()),
        }
    }
    let after = progress.failed_at.map_or(last, |at| (at - 1).min(last));
    Report { after, ..progress.report }
}

/// The fingerprint of the recipient's key.
fn destination_key(services: &RelayServices, destination: &str) -> Result<SecureHash, String> {
    let name = X500Name::parse(destination).map_err(|error| format!("the recipient's name is damaged: {error}"))?;
    match services.parties.party(&name) {
        Ok(Some(party)) => Ok(party.owning_key.fingerprint()),
        Ok(None) => Err("the recipient is not on the network map".to_owned()),
        Err(trouble) => Err(format!("the recipient's node info cannot be used: {}", trouble.problem().message)),
    }
}

/// An identity that this host holds, with its keys open.
#[derive(Clone)]
struct Sender {
    entry: Arc<IdentityEntry>,
    keys: Arc<OpenIdentity>,
}

impl Sender {
    /// `None` if this host does not hold the identity: somebody else has to send for it.
    async fn find(services: &Arc<RelayServices>, row: IdentityRow) -> Result<Option<Sender>, String> {
        let Some(entry) = services.committer.directory.by_row(row) else { return Ok(None) };
        if !entry.is_held() {
            // Its owner sends them, and does not let it go before.
            if !entry.key().is_some_and(|key| services.is_owned(&key)) {
                services.committer.waking.ring(&entry);
            }
            return Ok(None);
        }
        match open_keys(services, &entry).await {
            Ok(keys) => Ok(Some(Sender { entry, keys })),
            Err(problem) => Err(format!("the keys of {} cannot be opened: {}", entry.text, problem.message)),
        }
    }
}

/// The keys of an identity: those in use if it is awake, else opened for whoever asks and let go of with him.
pub(super) async fn open_keys(
    services: &Arc<RelayServices>,
    entry: &Arc<IdentityEntry>,
) -> Result<Arc<OpenIdentity>, Problem> {
    if let Some(keys) = entry.keys_in_use() {
        return Ok(keys);
    }
    let (services, owner) = (services.clone(), entry.clone());
    let opened = tokio::task::spawn_blocking(move || services.keys.open(&owner));
    let keys = opened.await.map_err(|error| Problem::new(Code::Internal, error.to_string()))??;
    entry.note_keys(&keys);
    Ok(keys)
}

/// The rows that this host may send, each with its sender.
async fn with_senders(services: &Arc<RelayServices>, rows: Vec<OutboxRow>) -> Vec<(OutboxRow, Sender)> {
    let mut senders: HashMap<IdentityRow, Option<Sender>> = HashMap::new();
    let mut messages = Vec::with_capacity(rows.len());
    for row in rows {
        let sender = match senders.entry(row.identity) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(unknown) => {
                let found = Sender::find(services, row.identity).await.unwrap_or_else(|reason| {
                    tracing::warn!(reason, "messages of an identity cannot be signed; they are kept");
                    None
                });
                unknown.insert(found).clone()
            }
        };
        messages.extend(sender.map(|sender| (row, sender)));
    }
    messages
}

impl Batch {
    /// Sends messages, several at once. Returns, for each sender, what is to be written of those that the broker has.
    async fn send(
        &self,
        messages: Vec<(OutboxRow, Sender)>,
        progress: &mut Progress,
    ) -> HashMap<IdentityRow, (Sender, Vec<Op>)> {
        // From before the first message goes.
        let marker = self.services.kept.as_ref().and_then(|kept| kept.marker());
        let sending = futures::stream::iter(messages).map(|(row, sender)| async move {
            let sent = self.send_one(&row, &sender).await;
            (row, sender, sent)
        });
        let mut sending = std::pin::pin!(sending.buffered(PIPELINE));
        let mut done: HashMap<IdentityRow, (Sender, Vec<Op>)> = HashMap::new();
        while let Some((row, sender, sent)) = sending.next().await {
            match sent {
                Sent::Done => {
                    let (_, ops) = done.entry(row.identity).or_insert_with(|| (sender, Vec::new()));
                    ops.push(MessageOp::OutboxSent { id: row.id, marker }.into());
                }
                Sent::Later(reason) => progress.failed(row.id, reason),
                Sent::Damaged => {}
                Sent::Never(error) => {
                    if let Err(reason) = self.answer_sender(&row, &sender, &error).await {
                        progress.failed(row.id, reason);
                    }
                }
            }
        }
        done
    }

    async fn send_one(&self, row: &OutboxRow, sender: &Sender) -> Sent {
        if self.stop.load(Ordering::Relaxed) {
            return Sent::Later("a message before it was not taken".to_owned());
        }
        let sealed = match Envelope::of_row(row) {
            Ok(envelope) => {
                let id = MessageId(envelope.message_id());
                envelope.seal(self.services.network.trust_root(), &sender.keys).map(|body| Message { id, body })
            }
            Err(error) => {
                let (destination, row) = (&*self.destination, row.id);
                tracing::error!(identity = %sender.entry.text, destination, row, %error, "a damaged message is not sent");
                return Sent::Damaged;
            }
        };
        let sent = match sealed {
            Ok(message) => self.hand_over(message).await,
            Err(error) => Sent::Later(error.to_string()),
        };
        if matches!(sent, Sent::Later(_)) {
            self.stop.store(true, Ordering::Relaxed);
        }
        sent
    }

    async fn hand_over(&self, message: Message) -> Sent {
        match self.services.broker.send(&self.queue, message, SEND_TIMEOUT).await {
            Ok(()) => Sent::Done,
            // The other permanent ones concern the connection, not the message.
            Err(error @ BrokerError::Permanent(Permanent::TooLarge { .. })) => Sent::Never(error),
            Err(error) => Sent::Later(error.to_string()),
        }
    }

    /// A message that can never be delivered. An initiation is rejected in the recipient's stead: the sender's flow gets
    /// what it would get if nobody answered the protocol. In an open session the recipient gets an error in the message's
    /// place, so that both ends learn that the session is over.
    async fn answer_sender(&self, row: &OutboxRow, sender: &Sender, error: &BrokerError) -> Result<(), String> {
        let error_id = new_error_id();
        let (services, identity, destination) = (&self.services, &*sender.entry.text, &*self.destination);
        tracing::error!(identity, destination, %error_id, %error, "a message that can never be delivered ends its session");
        let author = sender.entry.author();
        let itself = Recipient { identity: author.identity, claim: author.claim };
        let mut unit = Unit::default();
        unit.op(MessageOp::OutboxSent { id: row.id, marker: None });
        let envelope = Envelope::of_row(row).map_err(|error| error.to_string())?;
        match envelope.content {
            Some(Content::Initiation(initiation)) => {
                let frames = vec![Frame::reject(format!("the message cannot be delivered: {error}"), error_id)];
                let batch = FrameBatch { from: destination.to_owned(), frames, token: initiation.from_token };
                unit.deliver_under(itself, sender.entry.clone(), SessionId(initiation.from_session), 0, batch);
            }
            Some(Content::FrameBatch(mut addressed)) => {
                let failed = FlowError {
                    error_id: Some(error_id),
                    ..FlowError::new(ErrorKind::UnexpectedEnd, error.to_string())
                };
                if let Some(batch) = &mut addressed.batch {
                    batch.frames = vec![Frame::error(&failed)];
                }
                let envelope = Envelope { to: envelope.to, content: Some(Content::FrameBatch(addressed)) };
                let id = MessageId(envelope.message_id());
                let body =
                    envelope.seal(services.network.trust_root(), &sender.keys).map_err(|error| error.to_string())?;
                match self.hand_over(Message { id, body }).await {
                    Sent::Done | Sent::Damaged => {}
                    Sent::Later(reason) => return Err(reason),
                    Sent::Never(error) => {
                        tracing::error!(identity, destination, %error_id, %error, "nor can the error in its place");
                    }
                }
            }
            // Commands are in no outbox.
            Some(Content::Command(_)) | None => {}
        }
        let (told, result) = oneshot::channel();
        unit.submit(&services.committer, author, move |result| drop(told.send(result)));
        result.await.unwrap_or(Err(StoreError::Closed)).map_err(|error| error.to_string())
    }
}
