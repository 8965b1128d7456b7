//! One message of an identity's queue on its way into the database.
//!
//! A message is looked at before anything of it is stored ([`check`]): it must be signed by the party in whose name it
//! comes, be addressed to the owner of the queue, and name a session with the token that only the session's counterparty
//! has. What fails is refused: told in the log under the target `audit`, and acknowledged, so that it holds up nothing.
//! What passes is acknowledged when the unit that has it is durable. A message that cannot be taken for a reason that stays,
//! because the row of its flow is damaged, say, is counted in the database, and after some tries put aside there
//! ([`InHand::put_aside`]), so that it holds up nothing either.
//!
//! Messages are begun with in the order of the queue. One that cannot be taken yet, because its recipient has no room, say, is
//! tried again when all before it are done ([`Line`]), so the first is the only one that is tried again and again. A command
//! waits for no message: it may be what makes room. The order within a session is that of the numbers in its messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use maxhost_broker::{Acks, BrokerError, Delivery, Message, MessageId, Tag};
use maxhost_journal::{FrameBatch, Initiation};
use maxhost_model::{Problem, SessionId, X500Name};
use maxhost_store::{MessageOp, Recipient, StoreError, UNTAKEN_TRIES, Untaken};
use tokio::sync::{oneshot, watch};

use super::backoff::Backoff;
use super::{RelayServices, commands};
use crate::api::access::Facts;
use crate::api::audit::AuditEntry;
use crate::base::trouble::Trouble;
use crate::commit::unit::Unit;
use crate::delivery::envelope::{Command, Content, Unverified};
use crate::registry::entry::{Errand, IdentityEntry};

/// How soon a message that could not be taken is tried again. The time doubles, up to the longest.
const TRY: Duration = Duration::from_millis(20);
const LONGEST_TRY: Duration = Duration::from_secs(2);
/// The shortest pause after trouble that stays.
const STAYS: Duration = Duration::from_millis(500);
/// Of so many tries in vain one is told as a warning, the eighth at first.
const TOLD: u32 = 32;

/// The messages of one consumer that are not done, in the order in which they were given out.
pub(super) struct Line {
    /// How many have joined.
    joined: AtomicU64,
    /// How many of the first are done.
    done: watch::Sender<u64>,
}

impl Default for Line {
    fn default() -> Line {
        Line { joined: AtomicU64::new(0), done: watch::Sender::new(0) }
    }
}

impl Line {
    fn join(&self) -> u64 {
        self.joined.fetch_add(1, Ordering::Relaxed)
    }

    /// The first is done.
    pub fn go_on(&self) {
        self.done.send_modify(|done| *done += 1);
    }

    fn is_first(&self, place: u64) -> bool {
        *self.done.borrow() >= place
    }

    async fn until_first(&self, place: u64) {
        // The sender is here, so the wait ends with the place alone.
        let _ = self.done.subscribe().wait_for(|done| *done >= place).await;
    }
}

/// A message that the broker has given out and that is not acknowledged.
pub(super) struct InHand {
    message: Message,
    receipt: Receipt,
    /// The identity stays until the message is taken.
    _under_way: Option<Errand>,
}

/// What acknowledges a message.
#[derive(Clone)]
struct Receipt {
    tag: Tag,
    acks: Arc<dyn Acks>,
}

impl Receipt {
    async fn ack(self) -> Result<Outcome, BrokerError> {
        self.acks.ack(self.tag).await.map(|()| Outcome::Done)
    }
}

/// What became of one try.
enum Outcome {
    /// The message is taken or refused, and acknowledged.
    Done,
    /// This host does not hold the identity any more: its messages are not for this host to take.
    NotHeld,
    /// A message that cannot be taken now.
    Later(String),
    /// A command that cannot be carried out now.
    CommandLater(String),
    /// A message that cannot be taken, for a reason that concerns it alone and stays until a person does something.
    Never(Problem),
}

/// What the store says of a message that it does not take.
fn of_error(error: StoreError) -> Outcome {
    match error {
        StoreError::Fenced { .. } => Outcome::NotHeld,
        StoreError::Corrupt { .. } | StoreError::Conflict(_) | StoreError::Ledger(_) => Outcome::Never(error.into()),
        // The others pass, or concern every message.
        _ => Outcome::Later(error.to_string()),
    }
}

/// A try that is under way.
type Trying = BoxFuture<'static, Result<Outcome, BrokerError>>;

/// A message on its way. Gives true when it is done, and false if this host does not hold its recipient any more.
pub(super) type Way = BoxFuture<'static, Result<bool, BrokerError>>;

impl InHand {
    pub fn new(delivery: Delivery, acks: Arc<dyn Acks>, under_way: Option<Errand>) -> InHand {
        let Delivery { tag, message } = delivery;
        InHand { message, receipt: Receipt { tag, acks }, _under_way: under_way }
    }

    /// Begins with a message. It is checked when this returns, and its unit handed in, so units are in the order in which
    /// messages were begun with. What is returned tries it again until it is done; whoever drops it leaves the message to the
    /// broker.
    pub async fn begin(self, services: &Arc<RelayServices>, entry: &Arc<IdentityEntry>, line: &Arc<Line>) -> Way {
        let place = line.join();
        let first = self.attempt(services, entry).await;
        let (services, entry, line) = (services.clone(), entry.clone(), line.clone());
        Box::pin(async move { self.go_on(&services, &entry, &line, place, first).await })
    }

    async fn go_on(
        &self,
        services: &Arc<RelayServices>,
        entry: &Arc<IdentityEntry>,
        line: &Line,
        place: u64,
        mut trying: Trying,
    ) -> Result<bool, BrokerError> {
        let (mut pause, mut failures) = (Backoff::new(TRY, LONGEST_TRY), 0_u32);
        loop {
            let mut shortest = Duration::ZERO;
            let (reason, is_command) = match trying.await? {
                Outcome::Done => return Ok(true),
                Outcome::NotHeld => return Ok(false),
                Outcome::Later(reason) => (reason, false),
                Outcome::CommandLater(reason) => (reason, true),
                Outcome::Never(problem) => {
                    if self.put_aside(services, entry, &problem).await {
                        return self.receipt.clone().ack().await.map(|_| true);
                    }
                    shortest = STAYS;
                    (problem.message, false)
                }
            };
            if is_command || line.is_first(place) {
                failures = failures.saturating_add(1);
                let (identity, message_id) = (&*entry.text, self.message.id);
                if failures % TOLD == 8 {
                    tracing::warn!(
                        identity,
                        ?message_id,
                        failures,
                        reason,
                        "a message cannot be taken from the broker yet"
                    );
                } else {
                    tracing::debug!(
                        identity,
                        ?message_id,
                        failures,
                        reason,
                        "a message cannot be taken from the broker yet"
                    );
                }
                tokio::time::sleep(pause.next().max(shortest)).await;
            } else {
                line.until_first(place).await;
            }
            trying = self.attempt(services, entry).await;
        }
    }

    /// Counts a message that cannot be taken. True if that was often enough: then the database has it, and it may be
    /// acknowledged.
    async fn put_aside(&self, services: &RelayServices, entry: &IdentityEntry, problem: &Problem) -> bool {
        let Message { id, body } = &self.message;
        let unverified = Unverified::decode(body.clone());
        let sender = unverified.iter().flat_map(|message| message.claimed_sender().chars().take(NAME_SHOWN)).collect();
        let untaken = Untaken {
            identity: entry.row,
            message_id: id.0,
            at: i64::try_from(services.now_millis()).unwrap_or(i64::MAX),
            sender,
            reason: crate::base::trouble::reason(problem),
            body: body.clone(),
        };
        let (identity, sender) = (&*entry.text, untaken.sender.clone());
        let counted = match services.committer.store.note_untaken(untaken).await {
            Ok(counted) => counted,
            Err(error) => {
                tracing::debug!(identity, message_id = ?id, %error, "a message that cannot be taken was not counted");
                return false;
            }
        };
        if counted.tries < UNTAKEN_TRIES {
            return false;
        }
        let kept = if counted.is_kept { "kept" } else { "not kept, for want of room" };
        services.audit.note(AuditEntry {
            at_ms: i64::try_from(services.now_millis()).unwrap_or(i64::MAX),
            user: BROKER.to_owned(),
            action: "message-put-aside",
            facts: Facts {
                identity: Some(entry.text.to_string()),
                detail: Some(format!("{id:?}, {kept}, in the name of {sender}: {}", problem.message)),
                ..Facts::default()
            },
            allowed: false,
            code: Some(problem.code.to_string()),
            changes: false,
        });
        tracing::error!(
            target: "audit",
            event = "message-put-aside",
            identity,
            claimed_sender = ?sender,
            message_id = ?id,
            is_kept = counted.is_kept,
            tries = counted.tries,
            code = %problem.code,
            reason = problem.message,
            "a message of the broker cannot be taken and was put aside: see the table untaken of the database"
        );
        true
    }

    /// Begins a try. The message is checked when this returns, and its unit handed in.
    async fn attempt(&self, services: &Arc<RelayServices>, entry: &Arc<IdentityEntry>) -> Trying {
        let receipt = self.receipt.clone();
        match check_while_held(services, entry, self.message.clone()).await {
            Ok(Ok(accepted)) => write(services, entry, accepted, receipt),
            Ok(Err(refusal)) => {
                refusal.audit(services, entry);
                Box::pin(receipt.ack())
            }
            Err(outcome) => Box::pin(std::future::ready(Ok(outcome))),
        }
    }
}

/// Carries out a command that came with the demand for which an identity was opened. It is a copy of one that is in the
/// identity's queue, or will be, so it is checked like that one and tried once: what is not done now is done when the queue is
/// taken from, and what is done now is known again there. Whoever gives up waiting leaves it to the queue, too.
pub(super) async fn take_told(services: &Arc<RelayServices>, entry: &Arc<IdentityEntry>, body: Bytes) {
    let identity = &*entry.text;
    let Some(id) = Unverified::decode(body.clone()).map(|message| MessageId(message.message_id())) else {
        return tracing::warn!(identity, "what came with a demand is no message of this version of maxhost");
    };
    match check_while_held(services, entry, Message { id, body }).await {
        Ok(Ok(Accepted { id, content: Checked::Command(command) })) if command.start.is_some() => {
            if let Err(reason) = commands::carry_out(services.clone(), entry.clone(), id, command).await {
                tracing::debug!(identity, reason, "a command that came with a demand is left to the queue");
            }
        }
        // Only starts are told so.
        Ok(Ok(_)) => {}
        Ok(Err(Refusal { cause, reason, .. })) => {
            tracing::warn!(identity, cause, reason, "a command that came with a demand is not carried out");
        }
        // The same becomes of the copy in the queue, and is told then.
        Err(_) => {}
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

/// As [`check`], as long as the identity is held. To look may take long when the database is away, and whoever holds the
/// identity next waits for its queue.
async fn check_while_held(
    services: &RelayServices,
    entry: &IdentityEntry,
    message: Message,
) -> Result<Result<Accepted, Refusal>, Outcome> {
    let mut checking = std::pin::pin!(check(services, entry, message));
    loop {
        tokio::select! {
            biased;
            checked = &mut checking => return checked,
            () = entry.no_longer_held.notified() => if !entry.is_held() { return Err(Outcome::NotHeld) },
        }
    }
}

/// Looks at a message. Stores nothing.
async fn check(
    services: &RelayServices,
    entry: &IdentityEntry,
    message: Message,
) -> Result<Result<Accepted, Refusal>, Outcome> {
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
        Err(Trouble::Passing(problem)) => return Err(Outcome::Later(problem.message)),
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
            if !is_counterparty(services, entry, session, &batch).await.map_err(of_error)? {
                let reason = "it names a session that the sender does not have with this identity".to_owned();
                return refuse(from, "no-such-session", reason);
            }
            Checked::Frames { session, seq: addressed.seq, batch }
        }
        Some(Content::Command(command)) if command.from == *entry.text => {
            if commands::is_stale(&command, services.shared_millis()) {
                let reason = "it asks for a start that was wanted too long ago".to_owned();
                return refuse(from, "expired", reason);
            }
            Checked::Command(command)
        }
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
) -> Result<bool, StoreError> {
    if let Some(is_counterparty) = services.counterparties.knows(entry.row, session, batch) {
        return Ok(is_counterparty);
    }
    let Some(record) = services.committer.store.flow(session.flow()).await? else { return Ok(true) };
    Ok(services.counterparties.learn(&record, entry.row, session, batch))
}

/// Into the database first, then acknowledged.
fn write(services: &Arc<RelayServices>, entry: &Arc<IdentityEntry>, accepted: Accepted, receipt: Receipt) -> Trying {
    let content = match accepted.content {
        Checked::Command(command) => {
            let carried = commands::carry_out(services.clone(), entry.clone(), accepted.id, command);
            return Box::pin(async move {
                match carried.await {
                    Ok(()) => receipt.ack().await,
                    Err(reason) => Ok(Outcome::CommandLater(reason)),
                }
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
        match result.await.unwrap_or(Err(StoreError::Closed)) {
            Ok(()) | Err(StoreError::Duplicate) => receipt.ack().await,
            Err(error) => Ok(of_error(error)),
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn each_is_first_when_all_before_it_are_done() {
        let line = Arc::new(Line::default());
        let [first, second] = [line.join(), line.join()];
        assert!(line.is_first(first) && !line.is_first(second));
        let waits = tokio::spawn({
            let line = line.clone();
            async move { line.until_first(second).await }
        });
        line.go_on();
        assert!(line.is_first(second));
        tokio::time::timeout(Duration::from_secs(20), waits).await.unwrap().unwrap();
    }
}
