//! Letters to an identity, and how those who wrote them are answered.

use std::sync::Arc;

use bytes::Bytes;
use maxhost_journal::Initiation;
use maxhost_model::{FlowId, FlowRow, IdentityRow, Problem};
use maxhost_store::{Queued, StoreError};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::base::clock::Moment;
use crate::base::spawner::Spawner;
use crate::flow::offer::Offer;
use crate::flow::status::RoomWait;
use crate::guests::placement::FlowDef;
use crate::registry::marks::Mark;
use crate::reporting::watchers::Watch;

/// A command to an identity.
pub(crate) enum IdentityCommand {
    /// Just open.
    Wake,
    /// Start a flow.
    Start(Box<StartCommand>),
    /// Start a flow for which another host was asked.
    StartFor(Box<RemoteStart>),
    /// A peer wants a session. The row is in the database, or on its way there if an offer comes along.
    Initiation { id: i64, initiation: Box<Initiation>, offer: Option<Offer> },
    /// Something arrived for a flow that is not in memory.
    News(FlowRow),
    /// A run is over.
    Left { row: FlowRow, outcome: ActivationOutcome },
    /// End a flow. Answers whether there was something to kill.
    Kill { row: FlowRow, reply: oneshot::Sender<Result<bool, Problem>> },
    /// What is known of a flow beyond its journal.
    Stand { row: FlowRow, reply: oneshot::Sender<Option<Stand>> },
    /// Let the identity go: its manifest went, or the host stops.
    Drain,
    /// The manifest or the CorDapps changed.
    Refresh,
}

/// How an activation ends.
#[derive(Debug)]
pub(crate) enum ActivationOutcome {
    /// The flow has ended, durably.
    Ended,
    /// It was never started: the first unit was refused, or, if there is a problem, trouble came before it.
    NotStarted(Option<Problem>),
    /// It waits, in the database, until then or for news.
    Evicted { until: Option<Moment> },
    /// It gave up its instance, or got none, and has something to do at once.
    Again,
    /// Trouble that is not its own and passes: to be tried again.
    Retry(Problem),
    /// There is no room for what it sends: to be tried again.
    NoRoom(NoRoom),
    /// Its run met a defect of the host.
    Defect(Problem),
    /// It needs a person.
    Hospital(String),
}

/// Where a message found no room.
#[derive(Debug)]
pub(crate) struct NoRoom {
    /// Whose quota it is: the recipient's, or the sender's own if the messages wait for the broker.
    pub identity: IdentityRow,
    pub queued: Queued,
    pub problem: Problem,
}

/// Where a flow stands, as its identity knows and the database may not.
#[derive(Debug, Clone)]
pub(crate) struct Stand {
    /// How often its guest was begun.
    pub attempts: u32,
    /// What it sends finds no room.
    pub no_room: Option<RoomWait>,
}

/// A start by RPC.
pub(crate) struct StartCommand {
    pub def: Arc<FlowDef>,
    pub arguments: Bytes,
    pub client_id: Option<String>,
    pub user: String,
    /// The starter wants to hear of everything from the first moment.
    pub watched: bool,
    /// By the host that was asked for it, if that is another.
    pub given: Option<Given>,
    pub reply: oneshot::Sender<Result<Ticket, Problem>>,
}

/// What a start has from the host that was asked for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given {
    pub id: FlowId,
    /// Of the message that brought it, by which it is known when it comes again.
    pub message_id: [u8; 16],
}

/// A start for which another host was asked.
pub(crate) struct RemoteStart {
    /// The flow's full name, `cordapp/flow`.
    pub flow: String,
    pub arguments: Bytes,
    pub client_id: Option<String>,
    pub user: String,
    pub given: Given,
    pub reply: oneshot::Sender<Result<Ticket, Problem>>,
}

/// A flow that is being started.
pub(crate) struct Ticket {
    pub flow_id: FlowId,
    pub flow: Arc<str>,
    pub new: bool,
    pub user: String,
    pub durable: Durable,
    /// If it was asked for and the flow is new.
    pub watch: Option<Watch>,
}

/// Why a flow was not started.
#[derive(Debug)]
pub(crate) enum StartFailure {
    /// Another flow has this client id.
    ClientIdTaken(maxhost_model::FlowRow),
    /// Anything else.
    Problem(Problem),
}

/// Tells the one who started the flow that it is durable, or why it is not.
pub(crate) fn answer_start(reply: Option<oneshot::Sender<Result<(), StartFailure>>>, result: Result<(), &StoreError>) {
    let Some(reply) = reply else { return };
    // Nobody waits any more: fine, the flow runs.
    let _ = reply.send(match result {
        // A command that came twice was carried out the first time.
        Ok(()) | Err(StoreError::Duplicate) => Ok(()),
        Err(StoreError::ClientIdTaken { flow }) => Err(StartFailure::ClientIdTaken(*flow)),
        Err(error) => Err(StartFailure::Problem(Problem::from(error.clone()))),
    });
}

/// Tells when a start is durable.
pub(crate) enum Durable {
    Once(oneshot::Receiver<Result<(), StartFailure>>),
    Shared(watch::Receiver<Option<Result<(), SharedFailure>>>),
}

/// A [`StartFailure`] that several callers learn of.
#[derive(Debug, Clone)]
pub(crate) enum SharedFailure {
    ClientIdTaken(FlowRow),
    Problem(Problem),
}

impl IdentityCommand {
    /// Whether what it tells of is in the database, where whoever opens the identity finds it.
    pub fn is_in_database(&self) -> bool {
        matches!(self, IdentityCommand::News(_) | IdentityCommand::Initiation { offer: None, .. })
    }

    /// Whether somebody waits for its answer, and can have it carried out by another host instead.
    pub fn is_request(&self) -> bool {
        matches!(self, IdentityCommand::Start(_) | IdentityCommand::StartFor(_) | IdentityCommand::Kill { .. })
    }

    /// The mark that says what the command would have said, if it cannot be left.
    pub fn mark(&self) -> Option<Mark> {
        match self {
            IdentityCommand::Wake | IdentityCommand::Initiation { .. } | IdentityCommand::News(_) => Some(Mark::Behind),
            IdentityCommand::Drain => Some(Mark::Drain),
            IdentityCommand::Refresh => Some(Mark::Refresh),
            IdentityCommand::Start(_)
            | IdentityCommand::StartFor(_)
            | IdentityCommand::Left { .. }
            | IdentityCommand::Kill { .. }
            | IdentityCommand::Stand { .. } => None,
        }
    }

    /// The identity cannot take the command.
    pub fn refuse(self, problem: Problem) {
        match self {
            IdentityCommand::Start(start) => drop(start.reply.send(Err(problem))),
            IdentityCommand::StartFor(start) => drop(start.reply.send(Err(problem))),
            IdentityCommand::Kill { reply, .. } => drop(reply.send(Err(problem))),
            IdentityCommand::Stand { reply, .. } => drop(reply.send(None)),
            IdentityCommand::Wake
            | IdentityCommand::Initiation { .. }
            | IdentityCommand::News(_)
            | IdentityCommand::Left { .. }
            | IdentityCommand::Drain
            | IdentityCommand::Refresh => {}
        }
    }
}

/// Lets several callers learn how a start went.
pub(crate) fn share(
    io: &Spawner,
    stopping: &CancellationToken,
    durable: oneshot::Receiver<Result<(), StartFailure>>,
) -> watch::Receiver<Option<Result<(), SharedFailure>>> {
    let (sender, receiver) = watch::channel(None);
    let stopping = stopping.clone();
    io.spawn(async move {
        let result = match durable.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(StartFailure::ClientIdTaken(row))) => Err(SharedFailure::ClientIdTaken(row)),
            Ok(Err(StartFailure::Problem(problem))) => Err(SharedFailure::Problem(problem)),
            Err(_) => Err(SharedFailure::Problem(crate::base::error::unanswered(&stopping))),
        };
        let _ = sender.send(Some(result));
    });
    receiver
}
