//! Commands for an identity that another host runs. They go through the identity's queue, so they reach whoever runs it, and
//! somebody runs it for them if nobody does. Whoever has sent one finds in the database what became of it.

use std::sync::Arc;
use std::time::Duration;

use maxhost_broker::{BrokerError, Message, MessageId, QueueName, Transient};
use maxhost_model::{Class, Code, FencingToken, FlowId, Problem};
use maxhost_ownership::DEMAND_MESSAGE_BYTES;
use maxhost_store::{ClientOp, PROCESSED_RETENTION};
use tokio::sync::oneshot;

use super::RelayServices;
use super::outbound::{SEND_TIMEOUT, open_keys};
use crate::base::error::{unanswered, unusable_here};
use crate::delivery::envelope::{AskedForget, AskedStart, Command, Content, Envelope, OwnersClaim};
use crate::registry::entry::IdentityEntry;
use crate::registry::message::{Durable, Given, IdentityCommand, RemoteStart, SharedFailure, StartFailure};

/// A start with a client id that was asked for longer ago begins nothing: its flow may be forgotten by now with its client id, and
/// soon it is not remembered any more that the command was taken, so that a copy of it, from whoever has the broker, would start
/// the flow once more. A day is left for clocks that differ.
const STALE: Duration = Duration::from_secs(PROCESSED_RETENTION.as_secs() - 24 * 3_600);

/// What is to be done.
pub(crate) enum Asked {
    /// A flow is to be started, under this id.
    Start(FlowId, AskedStart),
    Kill(FlowId),
    /// A flow that has ended and has a client id is to be forgotten.
    Forget(FlowId, AskedForget),
    /// The identity is to be handed over to the host of this name, by the owner with this claim.
    Move {
        to: String,
        from: FencingToken,
    },
}

/// What became of a command that the broker was given.
#[must_use]
pub(crate) enum Sent {
    /// The broker has it.
    Taken,
    /// It was not confirmed, for this reason, and may be in the queue all the same, or be carried out without it.
    Unknown(Problem),
}

/// Puts a command into an identity's queue.
///
/// # Errors
/// It is certainly not there: no host that may run the identity is there (`identity-pinned`), this host cannot open the keys of the identity, there is no connection to the broker, or the
/// broker has refused it.
pub(crate) async fn send(
    services: &Arc<RelayServices>,
    entry: &Arc<IdentityEntry>,
    asked: Asked,
) -> Result<Sent, Problem> {
    if let Some(trouble) = services.broker.trouble() {
        return Err(trouble.into());
    }
    let Some(key) = entry.key() else {
        let text = format!("the network does not know identity {}", entry.text);
        return Err(Problem::new(Code::IdentityDraining, text));
    };
    if let Err(problem) = services.candidates.check_placed(entry) {
        // Whoever may run it finds it wanted when he comes.
        services.membership.iter().for_each(|membership| membership.ring(key));
        return Err(problem);
    }
    let keys = open_keys(services, entry).await.map_err(|problem| unusable_here(&entry.text, &problem))?;
    let none = Command { from: entry.text.to_string(), ..Command::default() };
    let of = |flow: FlowId| Command { flow_id: flow.to_bytes().to_vec().into(), ..none.clone() };
    let is_start = matches!(asked, Asked::Start(..));
    let command = match asked {
        Asked::Start(flow, start) => Command { start: Some(start), ..of(flow) },
        Asked::Kill(flow) => of(flow),
        Asked::Forget(flow, forget) => Command { forget: Some(forget), ..of(flow) },
        Asked::Move { to, from } => Command { move_to: Some(to), move_from: Some(from.into()), ..none },
    };
    let envelope = Envelope { to: entry.text.to_string(), content: Some(Content::Command(command)) };
    let id = MessageId(envelope.message_id());
    let body = envelope.seal(services.network.trust_root(), &keys).map_err(Problem::from)?;
    let queue = QueueName::inbound(&key);
    // Somebody opens the identity while the broker takes the message. That it is in the queue is told when it is. A start that
    // goes along is carried out by whoever opens the identity, without looking into the queue; most are before the broker has it, and
    // whoever waits for the flow gives this up then.
    let ahead = match is_start && body.len() <= DEMAND_MESSAGE_BYTES {
        true => services.start_goes_along(key, Arc::from(&*body)).await,
        false => None,
    };
    let is_told_ahead = ahead.is_some() || services.is_sent_to(key);
    let sent = match services.broker.send(&queue, Message { id, body }, SEND_TIMEOUT).await {
        Ok(()) => Sent::Taken,
        Err(error) if may_be_taken(&error) || ahead.is_some() => Sent::Unknown(error.into()),
        Err(error) => return Err(error.into()),
    };
    match is_told_ahead {
        true => services.sent_to_soon(key),
        false => services.sent_to(key).await,
    }
    Ok(sent)
}

/// Whether a message may be in its queue though this is what the broker answered.
fn may_be_taken(error: &BrokerError) -> bool {
    matches!(error, BrokerError::Transient(Transient::TimedOut | Transient::Unavailable(_)))
}

/// Whether a command asks for a start that was wanted too long ago.
pub(super) fn is_stale(command: &Command, now_millis: u64) -> bool {
    let stale = u64::try_from(STALE.as_millis()).unwrap_or(u64::MAX);
    let is_past = |start: &AskedStart| now_millis > start.expires.saturating_add(stale);
    command.start.as_ref().is_some_and(|start| start.client_id.is_some() && is_past(start))
}

/// Does what a command asks for. Returns when it is durable, or can never be done.
///
/// # Errors
/// Why it could not be done now: it stays in the queue.
pub(super) async fn carry_out(
    services: Arc<RelayServices>,
    entry: Arc<IdentityEntry>,
    message_id: [u8; 16],
    command: Command,
) -> Result<(), String> {
    if let Some(host) = command.move_to {
        hand_over(&services, &entry, host, command.move_from);
        return Ok(());
    }
    let id = <[u8; 16]>::try_from(&*command.flow_id).ok().and_then(FlowId::from_bytes);
    let done = match (id, command.start, command.forget) {
        (Some(id), Some(start), _) => carry_out_start(&services, &entry, Given { id, message_id }, start).await,
        (Some(id), None, Some(forget)) => forget_flow(&services, &entry, id, forget).await,
        (Some(id), None, None) => {
            let (reply, killed) = oneshot::channel();
            services.committer.waking.tell(&entry, IdentityCommand::Kill { row: id.row(), reply });
            killed.await.unwrap_or_else(|_| Err(unanswered(&services.stopping))).map(drop)
        }
        (None, ..) => Err(Problem::new(Code::FlowIdInvalid, "a command names no flow")),
    };
    match done {
        Err(problem) if problem.class() == Class::Unavailable => Err(problem.message),
        Err(problem) => {
            tracing::warn!(identity = %entry.text, %problem, "a command of another host was not carried out");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Has the identity handed over. A command that was repeated, or whose acknowledgement was lost, comes again at a later owner:
/// he is not the one who was asked, and somebody may have wanted the identity to be where it is by then.
fn hand_over(services: &RelayServices, entry: &IdentityEntry, host: String, from: Option<OwnersClaim>) {
    let is_here = *host == *services.ownership.host();
    match !is_here && entry.move_to(host.clone(), from.map(FencingToken::from)) {
        true => tracing::info!(identity = %entry.text, host, "asked to hand the identity over"),
        false => tracing::debug!(identity = %entry.text, host, is_here, "a former owner was asked to hand it over"),
    }
}

/// Forgets a flow that has ended. A command that comes again finds that the client id is gone, or that it stands for another
/// flow by now.
async fn forget_flow(
    services: &RelayServices,
    entry: &IdentityEntry,
    id: FlowId,
    forget: AskedForget,
) -> Result<(), Problem> {
    let AskedForget { user, client_id } = forget;
    let store = &services.committer.store;
    if store.client(entry.row, &user, &client_id).await.map_err(Problem::from)? != Some(id.row()) {
        return Ok(());
    }
    if store.flow(id.row()).await.map_err(Problem::from)?.is_some_and(|record| record.state.is_live()) {
        return Err(Problem::new(Code::ClientIdRunning, format!("the flow of client id '{client_id}' has not ended")));
    }
    let remove = ClientOp::Remove { user, client_id };
    store.commit(entry.author(), vec![remove.into()]).await.map_err(Problem::from).map(drop)
}

async fn carry_out_start(
    services: &RelayServices,
    entry: &Arc<IdentityEntry>,
    given: Given,
    start: AskedStart,
) -> Result<(), Problem> {
    let AskedStart { flow, arguments, user, client_id, expires } = start;
    if client_id.is_none() && services.shared_millis() > expires {
        tracing::debug!(identity = %entry.text, id = %given.id, "nobody waits any more for a flow that was asked for");
        return Ok(());
    }
    let known = services.committer.store.flow(given.id.row()).await.map_err(Problem::from)?;
    if known.is_some_and(|known| known.id == given.id) {
        // The command comes again.
        return Ok(());
    }
    let (reply, ticket) = oneshot::channel();
    let start = RemoteStart { flow, arguments, client_id, user, given, reply };
    services.committer.waking.tell(entry, IdentityCommand::StartFor(Box::new(start)));
    let ticket = ticket.await.map_err(|_| unanswered(&services.stopping))??;
    match ticket.durable {
        Durable::Once(durable) => match durable.await.map_err(|_| unanswered(&services.stopping))? {
            // Whoever has sent it finds the flow by the client id.
            Ok(()) | Err(StartFailure::ClientIdTaken(_)) => Ok(()),
            Err(StartFailure::Problem(problem)) => Err(problem),
        },
        Durable::Shared(mut durable) => match durable.wait_for(Option::is_some).await.map(|told| told.clone()) {
            Ok(Some(Err(SharedFailure::Problem(problem)))) => Err(problem),
            Ok(_) => Ok(()),
            Err(_) => Err(unanswered(&services.stopping)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_with_a_client_id_goes_stale_before_it_is_forgotten_that_it_was_taken() {
        const DAY: u64 = 24 * 3_600_000;
        let start = |client_id: Option<&str>| {
            let client_id = client_id.map(str::to_owned);
            Command {
                start: Some(AskedStart { client_id, expires: DAY, ..AskedStart::default() }),
                ..Command::default()
            }
        };
        assert!(STALE < PROCESSED_RETENTION);
        assert!(!is_stale(&start(Some("a")), 7 * DAY) && is_stale(&start(Some("a")), 7 * DAY + 1));
        // Without a client id nobody waits for it after that moment; a kill changes nothing when it comes again.
        assert!(!is_stale(&start(None), 9 * DAY) && !is_stale(&Command::default(), 9 * DAY));
        let far = AskedStart { client_id: Some("a".to_owned()), expires: u64::MAX, ..AskedStart::default() };
        assert!(!is_stale(&Command { start: Some(far), ..Command::default() }, 9 * DAY));
    }
}
