//! What the way through the broker needs of the host.

use std::sync::Arc;
use std::time::Duration;

use maxhost_broker::{Broker, QueueName};
use maxhost_journal::Millis;
use maxhost_model::SecureHash;
use maxhost_ownership::{Ownedness, Ownership};
use maxhost_pki::NetworkMap;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::ahead::{Ahead, StartsAhead};
use super::counterparties::Counterparties;
use super::kept::Kept;
use crate::base::clock::Clock;
use crate::base::spawner::Spawner;
use crate::cluster::candidates::Candidates;
use crate::cluster::membership::Membership;
use crate::commit::committer::Committer;
use crate::delivery::outbox_notices::QueueNotices;
use crate::ledger::parties::Parties;
use crate::registry::keys::IdentityKeys;
use crate::reporting::audit::AuditTrail;

/// An identity that was rung for is mostly opened within this time.
const OPENED_WITHIN: Duration = Duration::from_millis(100);

/// The shared parts of the host that both ways of the relay are given.
pub(crate) struct RelayServices {
    pub committer: Arc<Committer>,
    pub audit: Arc<AuditTrail>,
    pub broker: Arc<dyn Broker>,
    /// Keeps what the broker has confirmed; `None` for a host that need not.
    pub kept: Option<Arc<Kept>>,
    pub ownership: Arc<dyn Ownership>,
    pub membership: Option<Arc<Membership>>,
    /// Which host should run an identity.
    pub candidates: Arc<Candidates>,
    pub network: Arc<NetworkMap>,
    pub parties: Parties,
    pub keys: Arc<dyn IdentityKeys>,
    /// Whose queues are to be looked into.
    pub queues: Arc<QueueNotices>,
    /// Whose sessions are whose.
    pub counterparties: Counterparties,
    /// Starts that go along with demands.
    pub starts_ahead: Arc<StartsAhead>,
    /// How long the broker is not given such a start.
    pub start_held: Duration,
    /// Bytes of the largest message of a flow.
    pub message_limit: usize,
    pub clock: Arc<dyn Clock>,
    pub io: Spawner,
    pub stopping: CancellationToken,
}

impl RelayServices {
    /// The broker has messages for an identity of the cluster: somebody has to take them. Whoever owns it may have let it go
    /// before they came, and this host's copy of who owns what may be behind, so the destination is remembered for a while.
    /// Returns when the demand is durable, so that whoever then removes the rows of the messages leaves nothing that nobody
    /// knows of; if the service does not answer, the demand is raised when it does.
    pub async fn sent_to(&self, identity: SecureHash) {
        let Some(membership) = &self.membership else { return };
        if self.committer.directory.by_key(&identity).is_none() {
            return;
        }
        membership.note_sent(identity);
        // Noted before it is looked, so that an owner who goes in between is heard of.
        if self.is_owned(&identity) {
            return;
        }
        membership.take_sent_to(&identity);
        if let Err(error) = self.ownership.demand(identity).await {
            tracing::debug!(%identity, %error, "a demand could not be raised; tried again");
            membership.ring(identity);
        }
    }

    /// A message for an identity of the cluster is on its way to the broker: if nobody owns the identity, somebody may open it
    /// meanwhile. A hint that saves time; [`RelayServices::sent_to`] is what makes sure of it. True if it was given.
    pub fn is_sent_to(&self, identity: SecureHash) -> bool {
        if self.membership.is_none() || self.is_owned(&identity) {
            return false;
        }
        let (broker, ownership) = (self.broker.clone(), self.ownership.clone());
        // Neither waits for the other. Whoever opens the identity makes sure of its queue, too, and is not disturbed by this.
        self.io.spawn(async move {
            let queue = QueueName::inbound(&identity);
            let (prepared, demanded) = tokio::join!(broker.prepare(&queue), ownership.demand(identity));
            if let Err(error) = prepared {
                // Whoever sends the message is told.
                tracing::debug!(%identity, %error, "a queue could not be made sure of");
            }
            if let Err(error) = demanded {
                tracing::debug!(%identity, %error, "a demand could not be raised ahead");
            }
        });
        true
    }

    /// As [`RelayServices::is_sent_to`], for a start: `command` goes along, for whoever opens the identity. `None` if the hint was not
    /// given. Else this returns when the broker is to be given the command; what it returns is kept until that is done.
    pub async fn start_goes_along(&self, identity: SecureHash, command: Arc<[u8]>) -> Option<Ahead> {
        if self.membership.is_none() || self.is_owned(&identity) {
            return None;
        }
        let (ownership, ahead) = (self.ownership.clone(), self.starts_ahead.begin(identity));
        let (told, failed) = oneshot::channel();
        self.io.spawn(async move {
            if let Err(error) = ownership.demand_with(identity, command).await {
                tracing::debug!(%identity, %error, "a demand could not be raised ahead");
                // Whoever has given up meanwhile need not know.
                let _ = told.send(());
            }
        });
        ahead.wait(self.start_held, failed).await;
        Some(ahead)
    }

    /// As [`RelayServices::sent_to`], for a message that was told ahead. Somebody is opening its recipient, so there may be an owner in
    /// a moment, and the demand need not be raised once more. Returns at once. The broker might as well have confirmed the
    /// message only when it is looked.
    pub fn sent_to_soon(self: &Arc<Self>, identity: SecureHash) {
        let Some(membership) = &self.membership else { return };
        // From now on, so that an owner who goes before it is looked is heard of.
        membership.note_sent(identity);
        let services = self.clone();
        self.io.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(OPENED_WITHIN) => {}
                () = services.stopping.cancelled() => {}
            }
            services.sent_to(identity).await;
        });
    }

    /// Milliseconds since 1970 UTC.
    pub fn now_millis(&self) -> Millis {
        crate::base::clock::wall_millis(&*self.clock)
    }

    /// The time of the database's server, in milliseconds since 1970: what a host tells another one counts by that, because the
    /// clocks of machines differ. Where it is not known, the time of this machine.
    pub fn shared_millis(&self) -> Millis {
        crate::base::clock::shared_millis(&self.committer.store, &*self.clock)
    }

    /// Whether somebody owns an identity, as far as this host knows.
    pub fn is_owned(&self, identity: &SecureHash) -> bool {
        matches!(self.ownership.owner_of(identity), Ownedness::Owned(_))
    }
}
