//! Letters to an identity, and how those who wrote them are answered.

use std::sync::Arc;

use bytes::Bytes;
use maxhost_journal::Initiation;
use maxhost_model::{FlowId, FlowRow, Problem};
use tokio::sync::{oneshot, watch};

use crate::activation::ActivationOutcome;
use crate::calls::StartFailure;
use crate::core::Core;
use crate::marks::Mark;
use crate::offer::Offer;
use crate::placement::FlowDef;
use crate::status::RoomWait;
use crate::watchers::Watch;

/// A command to an identity.
pub(crate) enum IdentityCommand {
    /// Just open.
    Wake,
    /// Start a flow.
    Start(Box<StartCommand>),
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

    /// The mark that says what the command would have said, if it cannot be left.
    pub fn mark(&self) -> Option<Mark> {
        match self {
            IdentityCommand::Wake | IdentityCommand::Initiation { .. } | IdentityCommand::News(_) => Some(Mark::Behind),
            IdentityCommand::Drain => Some(Mark::Drain),
            IdentityCommand::Refresh => Some(Mark::Refresh),
            IdentityCommand::Start(_)
            | IdentityCommand::Left { .. }
            | IdentityCommand::Kill { .. }
            | IdentityCommand::Stand { .. } => None,
        }
    }

    /// The identity cannot take the command.
    pub fn refuse(self, problem: Problem) {
        match self {
            IdentityCommand::Start(start) => drop(start.reply.send(Err(problem))),
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
    core: &Arc<Core>,
    durable: oneshot::Receiver<Result<(), StartFailure>>,
) -> watch::Receiver<Option<Result<(), SharedFailure>>> {
    let (sender, receiver) = watch::channel(None);
    let host = core.clone();
    core.io.spawn(async move {
        let result = match durable.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(StartFailure::ClientIdTaken(row))) => Err(SharedFailure::ClientIdTaken(row)),
            Ok(Err(StartFailure::Problem(problem))) => Err(SharedFailure::Problem(problem)),
            Err(_) => Err(SharedFailure::Problem(host.unanswered())),
        };
        let _ = sender.send(Some(result));
    });
    receiver
}
