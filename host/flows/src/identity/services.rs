//! What the actors of identities need of the host.

use std::sync::Arc;
use std::time::Duration;

use maxhost_broker::Broker;
use maxhost_journal::{Millis, Nanos};
use maxhost_ownership::Ownership;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Actor;
use crate::activation::ActivationServices;
use crate::base::clock::Clock;
use crate::base::spawner::Spawner;
use crate::cluster::membership::Membership;
use crate::commit::committer::Committer;
use crate::commit::late_confirm::LateConfirms;
use crate::delivery::outbox_notices::QueueNotices;
use crate::delivery::waking::OpensIdentities;
use crate::flow::deadlines::Deadlines;
use crate::registry::entry::{ColdState, IdentityEntry};
use crate::registry::keys::IdentityKeys;
use crate::registry::message::IdentityCommand;
use crate::registry::timers::Timers;
use crate::reporting::audit::AuditTrail;
use crate::reporting::events::OperatorEvents;

/// The shared parts of the host that the actor of each identity is given. All actors have the same ones.
pub(crate) struct IdentityServices {
    pub activation: Arc<ActivationServices>,
    pub audit: Arc<AuditTrail>,
    pub committer: Arc<Committer>,
    pub clock: Arc<dyn Clock>,
    pub deadlines: Arc<Deadlines>,
    pub events: OperatorEvents,
    pub late_confirms: Arc<LateConfirms>,
    pub queues: Arc<QueueNotices>,
    pub broker: Arc<dyn Broker>,
    pub keys: Arc<dyn IdentityKeys>,
    pub ownership: Arc<dyn Ownership>,
    pub membership: Option<Arc<Membership>>,
    pub timers: Arc<Timers>,
    pub io: Spawner,
    /// An identity without work closes after so long.
    pub idle_close: Duration,
    pub stopping: CancellationToken,
}

impl IdentityServices {
    /// Nanoseconds since 1970 UTC.
    pub fn now(&self) -> Nanos {
        self.clock.wall()
    }

    /// Milliseconds since 1970 UTC.
    pub fn now_millis(&self) -> Millis {
        crate::base::clock::wall_millis(&*self.clock)
    }
}

impl OpensIdentities for IdentityServices {
    fn open(
        self: Arc<Self>,
        entry: &Arc<IdentityEntry>,
        cold: ColdState,
        mailbox: mpsc::Sender<IdentityCommand>,
        commands: mpsc::Receiver<IdentityCommand>,
    ) {
        let actor = Actor::new(self.clone(), entry.clone(), mailbox, commands, cold);
        super::spawn(&self, entry, actor);
    }
}
