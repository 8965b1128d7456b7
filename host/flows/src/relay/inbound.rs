//! From an identity's queue into the database.
//!
//! A message is looked at before anything of it is stored ([`check`]): it must be signed by the party in whose name it
//! comes, be addressed to the owner of the queue, and name a session with the token that only the session's counterparty
//! has. What fails is refused: told in the log under the target `audit`, and acknowledged, so that it holds up nothing.
//! What passes is acknowledged when the unit that has it is durable; several are on their way at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use maxhost_broker::{Acks, Consumer, Credit, Delivery, Holding, Message, QueueName, Tag};
use maxhost_journal::wire::session_token;
use maxhost_journal::{FrameBatch, Initiation, StartRecord};
use maxhost_model::{SecureHash, SessionId, X500Name};
use maxhost_store::{MessageOp, Recipient, StoreError};
use tokio::sync::oneshot;

use super::{RelayServices, commands};
use crate::access::Facts;
use crate::api::audit::AuditEntry;
use crate::envelope::{Command, Content, Unverified};
use crate::outbox_notices::{QueueErrand, QueueNotice};
use crate::registry::{Errand, IdentityEntry};
use crate::trouble::Trouble;
use crate::unit::Unit;

/// What one identity may have in hand before it is committed.
const CREDIT: Credit = Credit { messages: 64, bytes: 4 << 20 };
/// How soon a failed step is tried again. The time doubles, up to the longest.
const RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(15);
/// An identity is kept for so long for the first of the messages that were in its queue when it was claimed.
const FIRST: Duration = Duration::from_secs(2);
/// A consumer with nothing to do for so long lets go of its queue; the next message calls it back.
const IDLE: Duration = Duration::from_secs(10);

/// Listens for queues that nobody serves, and serves those of our identities, until the host stops.
pub(crate) async fn run(services: Arc<RelayServices>) {
    while !services.stopping.is_cancelled() {
        let mut notices = match services.broker.backlog_notices().await {
            Ok(notices) => notices,
            Err(error) => {
                tracing::warn!(%error, "the broker's queues cannot be watched; tried again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        loop {
            let queue = tokio::select! {
                queue = notices.next() => queue,
                () = services.stopping.cancelled() => return,
            };
            match queue {
                Ok(queue) => {
                    if let Some(entry) = entry_of(&services, &queue) {
                        begin(&services, QueueNotice { entry, errand: QueueErrand::default() });
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the broker's queues cannot be watched");
                    tokio::time::sleep(RETRY).await;
                    break;
                }
            }
        }
    }
}

/// Whose queue it is, of the identities that have a manifest here.
fn entry_of(services: &RelayServices, queue: &QueueName) -> Option<Arc<IdentityEntry>> {
    services.committer.directory.by_key(&queue.fingerprint()?)
}

/// Has somebody serve an identity's queue: this host if it holds the identity. If it does not, somebody has to run the
/// identity first, and looks into the queue then.
fn begin(services: &Arc<RelayServices>, notice: QueueNotice) {
    match notice.entry.is_held() {
        true => services.io.spawn(serve(services.clone(), notice)),
        false => services.committer.waking.ring(&notice.entry),
    }
}

/// Serves whatever waits in the broker for identities that are held since a moment ago, and rings for those that were let go
/// and have something in their queue, until the host stops.
pub(crate) async fn look_for_held(services: Arc<RelayServices>) {
    loop {
        let noted = tokio::select! {
            noted = services.queues.take() => noted,
            () = services.stopping.cancelled() => return,
        };
        // Where other hosts may hold an identity, its queue is served for as long as it is held, also an empty one.
        let is_served = |entry: &IdentityEntry| services.membership.is_some() && entry.is_held();
        for notice in noted.iter().filter(|notice| is_served(&notice.entry)) {
            services.io.spawn(serve(services.clone(), notice.clone()));
        }
        let queues: Vec<QueueName> =
            noted.iter().filter_map(|notice| notice.entry.key()).map(|key| QueueName::inbound(&key)).collect();
        let holding = match services.broker.holding(&queues).await {
            Ok(holding) => holding,
            Err(error) => {
                tracing::warn!(%error, "the broker's queues cannot be read; tried again");
                services.queues.again(noted);
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => continue,
                    () = services.stopping.cancelled() => return,
                }
            }
        };
        let of_key = |queue: Holding| Some((queue.queue.fingerprint()?, queue.is_consumed));
        let holding: HashMap<SecureHash, bool> = holding.into_iter().filter_map(of_key).collect();
        for notice in noted {
            match notice.entry.key().and_then(|key| holding.get(&key)) {
                None => notice.errand.end(),
                // Whoever serves it ends the errand.
                Some(_) if is_served(&notice.entry) => {}
                Some(false) => begin(&services, notice),
                // Whoever consumes it now takes what is in it.
                Some(true) => {}
            }
        }
    }
}

/// Serves one identity's queue until it is empty for a while; where other hosts may hold the identity, for as long as this
/// one does, because a notice of what comes for nobody may reach any host.
async fn serve(services: Arc<RelayServices>, notice: QueueNotice) {
    let QueueNotice { entry, errand } = notice;
    let mut pause = RETRY;
    // The queue is exclusive: a second server would only wait for the first.
    while !services.stopping.is_cancelled() && !entry.served.swap(true, Ordering::AcqRel) {
        let result = serve_once(&services, &entry, &errand).await;
        entry.served.store(false, Ordering::Release);
        match result {
            Ok(Served::All) => pause = RETRY,
            // It may be held again since.
            Ok(Served::NotHeld) if entry.is_held() => continue,
            Ok(Served::NotHeld) => {
                // What this host had in hand is in the queue again.
                if services.membership.is_some() && !services.stopping.is_cancelled() {
                    services.queues.let_go(&entry);
                }
                return;
            }
            Err(Interrupted(reason)) => {
                errand.end();
                tracing::warn!(identity = %entry.text, reason, "messages could not be taken from the broker; tried again");
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_RETRY),
                    () = services.stopping.cancelled() => return,
                }
            }
        }
        if services.membership.is_some() {
            continue;
        }
        // What came between the last look and the release is told to nobody, because somebody served the queue.
        match services.broker.waiting().await {
            Ok(waiting) if !waiting.iter().any(|queue| queue.fingerprint() == entry.key()) => return,
            Ok(_) | Err(_) => {}
        }
    }
}

/// Why a queue is served no longer, when nothing is wrong.
enum Served {
    /// It has been empty for a while.
    All,
    /// This host does not hold the identity any more: its messages are not for this host to take.
    NotHeld,
}

/// Trouble that passes: the messages stay in the broker.
struct Interrupted(String);

impl From<maxhost_broker::BrokerError> for Interrupted {
    fn from(error: maxhost_broker::BrokerError) -> Interrupted {
        Interrupted(error.to_string())
    }
}

impl From<StoreError> for Interrupted {
    fn from(error: StoreError) -> Interrupted {
        Interrupted(error.to_string())
    }
}

async fn serve_once(
    services: &Arc<RelayServices>,
    entry: &Arc<IdentityEntry>,
    errand: &QueueErrand,
) -> Result<Served, Interrupted> {
    let Some(key) = entry.key() else { return Ok(Served::NotHeld) };
    let mut consumer = services.broker.consume(&QueueName::inbound(&key), CREDIT).await?;
    take_all(services, entry, consumer.as_mut(), errand).await
}

/// A message on its way into the database.
type Taken = futures::future::BoxFuture<'static, Result<Option<Served>, Interrupted>>;

async fn take_all(
    services: &Arc<RelayServices>,
    entry: &Arc<IdentityEntry>,
    consumer: &mut dyn Consumer,
    errand: &QueueErrand,
) -> Result<Served, Interrupted> {
    let acks = consumer.acks();
    let mut taken: FuturesOrdered<Taken> = FuturesOrdered::new();
    loop {
        if !entry.is_held() {
            return Ok(Served::NotHeld);
        }
        tokio::select! {
            biased;
            Some(result) = taken.next() => {
                if let Some(served) = result? {
                    return Ok(served);
                }
            }
            delivery = consumer.next(), if taken.len() < CREDIT.messages as usize => {
                let Delivery { tag, message } = delivery?;
                let under_way = services.membership.as_ref().map(|_| Errand::of(entry));
                errand.end();
                let Some(checked) = check_while_held(services, entry, message).await? else {
                    return Ok(Served::NotHeld);
                };
                match checked {
                    Ok(accepted) => taken.push_back(take(services, entry, accepted, (tag, acks.clone()), under_way)),
                    Err(refusal) => {
                        refusal.audit(services, entry);
                        acks.ack(tag).await?;
                    }
                }
            }
            () = entry.no_longer_held.notified() => {}
            // There were messages, and somebody else has taken them.
            () = tokio::time::sleep(FIRST), if errand.is_there() => errand.end(),
            () = tokio::time::sleep(IDLE), if taken.is_empty() && services.membership.is_none() => return Ok(Served::All),
            () = services.stopping.cancelled() => return Ok(Served::NotHeld),
        }
    }
}

/// A message that was found right.
struct Accepted {
    id: [u8; 16],
    content: Checked,
}

enum Checked {
    Initiation(Initiation),
    Frames { session: SessionId, seq: u32, batch: FrameBatch },
    Command(Command),
}

/// Why a message is not taken.
struct Refusal {
    /// A word for whoever counts them.
    cause: &'static str,
    message: maxhost_broker::MessageId,
    claimed_sender: String,
    reason: String,
}

impl Refusal {
    fn audit(&self, services: &RelayServices, entry: &IdentityEntry) {
        services.audit.note(AuditEntry {
            at_ms: i64::try_from(services.now_millis()).unwrap_or(i64::MAX),
            user: BROKER.to_owned(),
            action: "message-refused",
            facts: Facts {
                identity: Some(entry.text.to_string()),
                detail: Some(format!("in the name of {}: {}", self.claimed_sender, self.reason)),
                ..Facts::default()
            },
            allowed: false,
            code: Some(self.cause.to_owned()),
            changes: false,
        });
        tracing::warn!(
            target: "audit",
            event = "message-refused",
            identity = %entry.text,
            cause = self.cause,
            claimed_sender = ?self.claimed_sender,
            message_id = ?self.message,
            reason = self.reason,
            "a message of the broker was refused and nothing of it stored"
        );
    }
}

/// Whose the row of a refused message is: who sent it is not known.
const BROKER: &str = "(broker)";
/// Longest part of a claimed name that is logged, characters.
const NAME_SHOWN: usize = 256;

/// As [`check`]; `None` if the identity is not held any more. To look may take long when the database is away, and whoever
/// holds the identity next waits for its queue.
async fn check_while_held(
    services: &RelayServices,
    entry: &IdentityEntry,
    message: Message,
) -> Result<Option<Result<Accepted, Refusal>>, Interrupted> {
    let mut checking = std::pin::pin!(check(services, entry, message));
    loop {
        tokio::select! {
            biased;
            checked = &mut checking => return checked.map(Some),
            () = entry.no_longer_held.notified() => if !entry.is_held() { return Ok(None) },
        }
    }
}

/// Looks at a message. Stores nothing.
async fn check(
    services: &RelayServices,
    entry: &IdentityEntry,
    message: Message,
) -> Result<Result<Accepted, Refusal>, Interrupted> {
    let Message { id, body } = message;
    let mut claimed_sender = String::new();
    let refuse = |claimed_sender: &str, cause, reason: String| {
        let claimed_sender = claimed_sender.to_owned();
        Ok(Err(Refusal { cause, message: id, claimed_sender, reason }))
    };
    let Some(unverified) = Unverified::decode(body) else {
        return refuse("", "unreadable", "it is no message of this version of maxhost".to_owned());
    };
    claimed_sender.extend(unverified.claimed_sender().chars().take(NAME_SHOWN));
    let from = &*claimed_sender;
    if !unverified.is_signed() {
        return refuse(from, "unsigned", "it has no signature".to_owned());
    }
    let party = match X500Name::parse(unverified.claimed_sender()) {
        Ok(name) if name.as_str() == unverified.claimed_sender() => party(services, &name),
        _ => return refuse(from, "unknown-sender", "the sender's name is no canonical X.500 name".to_owned()),
    };
    let party = match party {
        Ok(Some(party)) => party,
        Ok(None) => return refuse(from, "unknown-sender", "the sender is not on the network map".to_owned()),
        Err(Trouble::Passing(problem)) => return Err(Interrupted(problem.message)),
        Err(Trouble::Permanent(problem)) => return refuse(from, "unknown-sender", problem.message),
    };
    let Some(envelope) = unverified.verify(services.network.trust_root(), &party.owning_key) else {
        return refuse(from, "forged", "the signature is not the sender's, or not for this network".to_owned());
    };
    if envelope.to != *entry.text {
        let reason = format!("it is addressed to {}", envelope.to.chars().take(NAME_SHOWN).collect::<String>());
        return refuse(from, "misdirected", reason);
    }
    if envelope.message_id() != id.0 {
        return refuse(from, "wrong-id", "its id is not that of what is in it".to_owned());
    }
    let limit = services.message_limit;
    if envelope.largest_payload() > limit {
        let reason = format!("it has {} bytes; the network allows {limit}", envelope.largest_payload());
        return refuse(from, "too-large", reason);
    }
    let content = match envelope.content {
        Some(Content::Initiation(initiation)) => Checked::Initiation(initiation),
        Some(Content::FrameBatch(addressed)) => {
            let session = SessionId(addressed.session);
            let Some(batch) = addressed.batch else { return refuse(from, "unreadable", "it is empty".to_owned()) };
            if !is_counterparty(services, entry, session, &batch).await? {
                let reason = "it names a session that the sender does not have with this identity".to_owned();
                return refuse(from, "no-such-session", reason);
            }
            Checked::Frames { session, seq: addressed.seq, batch }
        }
        Some(Content::Command(command)) if command.from == *entry.text => Checked::Command(command),
        Some(Content::Command(_)) => {
            return refuse(from, "foreign-command", "only the identity itself may ask for this".to_owned());
        }
        None => return refuse(from, "unreadable", "it is empty".to_owned()),
    };
    Ok(Ok(Accepted { id: id.0, content }))
}

/// A party as the network map verifies it; one that is not known may have come a moment ago.
fn party(services: &RelayServices, name: &X500Name) -> Result<Option<maxhost_model::Party>, Trouble> {
    if let Some(party) = services.parties.party(name)? {
        return Ok(Some(party));
    }
    services.network.refresh().map_err(maxhost_model::Problem::from)?;
    services.parties.party(name)
}

/// Whether the sender of a batch, whose signature was found right, is the counterparty of the session it is for. The
/// numbers of flows that are gone are nobody's: a message for one stores nothing, and the commit tells so, which also
/// answers a late confirmation.
async fn is_counterparty(
    services: &RelayServices,
    entry: &IdentityEntry,
    session: SessionId,
    batch: &FrameBatch,
) -> Result<bool, Interrupted> {
    let Some(record) = services.committer.store.flow(session.flow()).await? else { return Ok(true) };
    if record.identity != entry.row {
        return Ok(false);
    }
    let Ok(start) = StartRecord::decode(&record.start) else { return Ok(false) };
    Ok(session_token(&start.seed, session.index(), &batch.from) == batch.token)
}

/// Into the database first, then acknowledged.
fn take(
    services: &Arc<RelayServices>,
    entry: &Arc<IdentityEntry>,
    accepted: Accepted,
    (tag, acks): (Tag, Arc<dyn Acks>),
    under_way: Option<Errand>,
) -> Taken {
    let content = match accepted.content {
        Checked::Command(command) => {
            let carried = commands::carry_out(services.clone(), entry.clone(), accepted.id, command);
            return Box::pin(async move {
                let _under_way = under_way;
                carried.await.map_err(Interrupted)?;
                acks.ack(tag).await?;
                Ok(None)
            });
        }
        content => content,
    };
    let author = entry.author();
    let recipient = Recipient { identity: author.identity, claim: author.claim };
    let mut unit = Unit::default();
    unit.op(MessageOp::Arrived { message_id: accepted.id });
    match content {
        Checked::Command(_) => {}
        Checked::Initiation(initiation) => {
            unit.initiate_under(&services.committer, recipient, entry.clone(), initiation)
        }
        Checked::Frames { session, seq, batch } => unit.deliver_under(recipient, entry.clone(), session, seq, batch),
    }
    let (told, result) = oneshot::channel();
    unit.submit(&services.committer, author, move |result| drop(told.send(result)));
    Box::pin(async move {
        let _under_way = under_way;
        match result.await.unwrap_or(Err(StoreError::Closed)) {
            Ok(()) | Err(StoreError::Duplicate) => {
                acks.ack(tag).await?;
                Ok(None)
            }
            Err(StoreError::Fenced { .. }) => Ok(Some(Served::NotHeld)),
            Err(error) => Err(error.into()),
        }
    })
}
