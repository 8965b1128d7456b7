//! How a host is put together: who gets which of its parts.

use std::sync::Arc;
use std::time::Duration;

use maxhost_broker::Broker;
use maxhost_cordapps::Catalogue;
use maxhost_journal::{Limits, Millis};
use maxhost_ownership::Ownership;
use maxhost_pki::{KeyVault, NetworkMap};
use maxhost_store::{Store, StoreError};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::activation::{ActivationServices, GuestCode};
use crate::base::clock::Clock;
use crate::base::counters::Counters;
use crate::base::spawner::Spawner;
use crate::calls::{CallServices, Findings};
use crate::cluster::asked_for::AskedFor;
use crate::cluster::candidates::Candidates;
use crate::cluster::membership::Membership;
use crate::commit::committer::Committer;
use crate::commit::late_confirm::{AT_ONCE, LateConfirms};
use crate::commit::outcomes::RecentOutcomes;
use crate::delivery::outbox_notices::{OutboxNotices, QueueNotices};
use crate::delivery::router::{AnswersLateConfirms, Router};
use crate::delivery::waking::{OpensIdentities, Waking};
use crate::flow::deadlines::Deadlines;
use crate::flow::running_flow::RunningFlows;
use crate::guests::admission::{GuestRoom, JournalRoom, Slots};
use crate::guests::memory::GuestMemory;
use crate::guests::placement::{CpuProfile, Placement};
use crate::guests::threads::GuestThreads;
use crate::identity::IdentityServices;
use crate::ledger::contracts::Contracts;
use crate::ledger::parameters::ParametersOfNetwork;
use crate::ledger::parties::Parties;
use crate::ledger::waits::LedgerWaits;
use crate::options::{HostOptions, ImportBounds};
use crate::registry::directory::Directory;
use crate::registry::keys::IdentityKeys;
use crate::registry::oldest::FirstSeen;
use crate::registry::timers::Timers;
use crate::relay::{Counterparties, Kept, RelayServices};
use crate::reporting::audit::AuditTrail;
use crate::reporting::events::OperatorEvents;
use crate::reporting::results_read::ResultsRead;
use crate::reporting::watchers::Watchers;

/// Operator events a slow reader may be behind.
const EVENTS: usize = 1024;

/// What a host is built on: all that is another in a simulation.
pub(crate) struct Foundations {
    pub options: HostOptions,
    pub store: Store,
    pub broker: Arc<dyn Broker>,
    pub ownership: Arc<dyn Ownership>,
    /// Its part in a cluster; `None` for a host that is alone.
    pub membership: Option<Membership>,
    pub catalogue: Arc<Catalogue<CpuProfile>>,
    pub contracts: Arc<dyn Contracts>,
    pub network: Arc<NetworkMap>,
    pub vault: Arc<KeyVault>,
    pub keys: Arc<dyn IdentityKeys>,
    pub code: GuestCode,
    pub slots: Slots,
    /// Threads for guests that compute.
    pub guests: Arc<GuestThreads>,
    /// Threads for everything else.
    pub io: Spawner,
    pub clock: Arc<dyn Clock>,
}

/// What a host has, for its services and for who asks from outside. Everybody else is given what he needs.
pub(crate) struct Parts {
    /// How much of what clients import is kept for each identity.
    pub imports: ImportBounds,
    pub store: Store,
    pub audit: Arc<AuditTrail>,
    pub results_read: Arc<ResultsRead>,
    /// Flows that other hosts were asked to start.
    pub asked_for: Arc<AskedFor>,
    pub broker: Arc<dyn Broker>,
    pub ownership: Arc<dyn Ownership>,
    pub membership: Option<Arc<Membership>>,
    pub catalogue: Arc<Catalogue<CpuProfile>>,
    pub contracts: Arc<dyn Contracts>,
    pub directory: Arc<Directory>,
    /// Flows in memory.
    pub flows: Arc<RunningFlows>,
    pub network: Arc<NetworkMap>,
    pub parameters: Arc<ParametersOfNetwork>,
    pub parties: Parties,
    pub vault: Arc<KeyVault>,
    pub outcomes: Arc<RecentOutcomes>,
    pub watchers: Arc<Watchers>,
    pub counters: Arc<Counters>,
    pub events: OperatorEvents,
    pub room: GuestRoom,
    pub placement: Placement,
    pub io: Spawner,
    pub stopping: CancellationToken,
    pub waking: Arc<Waking>,
    /// Which host should run an identity.
    pub candidates: Arc<Candidates>,
    #[cfg(test)]
    pub committer: Arc<Committer>,
    pub outbox: Arc<OutboxNotices>,
    pub queues: Arc<QueueNotices>,
    pub timers: Arc<Timers>,
    /// Since when initiations wait.
    pub first_seen: FirstSeen,
    /// Rings when installed components came or went.
    pub components_changed: Arc<Notify>,
    pub clock: Arc<dyn Clock>,
    #[cfg(test)]
    pub deadlines: Arc<Deadlines>,
    /// What a journal may hold.
    pub journal: Limits,
    pub relay: Arc<RelayServices>,
    #[expect(dead_code, reason = "others know it weakly")]
    late_confirms: Arc<LateConfirms>,
    #[expect(dead_code, reason = "others know it weakly")]
    identities: Arc<IdentityServices>,
}

impl Parts {
    /// Puts a host together. Nothing runs yet.
    pub fn assemble(foundations: Foundations) -> Parts {
        let Foundations { options, store, broker, ownership, membership, catalogue, network, vault, .. } = foundations;
        let Foundations { keys, code, slots, guests, io, clock, contracts, .. } = foundations;
        let membership = membership.map(Arc::new);
        let (directory, timers) = (Arc::<Directory>::default(), Arc::<Timers>::default());
        let (flows, deadlines) = (Arc::<RunningFlows>::default(), Arc::<Deadlines>::default());
        let (watchers, counters) = (Arc::<Watchers>::default(), Arc::<Counters>::default());
        let (outcomes, outbox) = (Arc::<RecentOutcomes>::default(), Arc::new(OutboxNotices::new(store.databases())));
        let queues = Arc::<QueueNotices>::default();
        let parameters = ParametersOfNetwork::new(network.clone(), store.clone(), options.development);
        let parameters = Arc::new(parameters);
        let (events, stopping) = (OperatorEvents::new(EVENTS), CancellationToken::new());
        let (parties, journal) = (Parties::of(network.clone()), journal_limits(&options, &network));
        let room = GuestRoom { slots, memory: GuestMemory::new(options.memory), journals: JournalRoom::new() };
        let placement = Placement::new(io.clone(), guests);
        let candidates = Arc::new(Candidates::new(directory.clone(), ownership.clone()));
        let waking =
            Waking::new(candidates.clone(), directory.clone(), timers.clone(), membership.clone(), counters.clone());
        let waking = Arc::new(waking);
        let committer = Arc::new(Committer {
            store: store.clone(),
            directory: directory.clone(),
            router: Router::new(flows.clone(), waking.clone()),
            waking: waking.clone(),
            outbox: outbox.clone(),
            watchers: watchers.clone(),
            counters: counters.clone(),
            ledger_waits: LedgerWaits::default(),
            always_broker: options.always_broker,
        });
        let late_confirms = Arc::new(LateConfirms {
            committer: committer.clone(),
            io: io.clone(),
            clock: clock.clone(),
            stopping: stopping.clone(),
            room: Arc::new(Semaphore::new(AT_ONCE)),
        });
        let answers: Arc<dyn AnswersLateConfirms> = late_confirms.clone();
        committer.router.set_late_confirms(Arc::downgrade(&answers));
        let audit = Arc::new(AuditTrail::new(&options.name));
        let relay = Arc::new(RelayServices {
            audit: audit.clone(),
            committer: committer.clone(),
            broker: broker.clone(),
            kept: membership.as_ref().and_then(|_| Kept::new(&store, &broker, options.kept)),
            ownership: ownership.clone(),
            membership: membership.clone(),
            candidates: candidates.clone(),
            network: network.clone(),
            parties: parties.clone(),
            keys: keys.clone(),
            queues: queues.clone(),
            counterparties: Counterparties::new(),
            starts_ahead: Arc::default(),
            start_held: options.start_held,
            message_limit: journal.message,
            clock: clock.clone(),
            io: io.clone(),
            stopping: stopping.clone(),
        });
        let calls = Arc::new(CallServices {
            committer: committer.clone(),
            clock: clock.clone(),
            deadlines: deadlines.clone(),
            parties: parties.clone(),
            network: network.clone(),
            parameters: parameters.clone(),
            contracts: contracts.clone(),
            findings: Findings::new(),
            io: io.clone(),
            placement: placement.clone(),
            room: room.clone(),
            eviction: options.eviction,
            log_lines: options.log_lines,
            log_bytes: options.log_bytes,
        });
        let activation = Arc::new(ActivationServices {
            calls,
            code,
            catalogue: catalogue.clone(),
            outcomes: outcomes.clone(),
            events: events.clone(),
            placement: placement.clone(),
            journal,
            retention: options.retention,
            shadow_replay: options.shadow_replay,
        });
        let identities = Arc::new(IdentityServices {
            activation,
            audit: audit.clone(),
            committer: committer.clone(),
            clock: clock.clone(),
            deadlines: deadlines.clone(),
            events: events.clone(),
            late_confirms: late_confirms.clone(),
            queues: queues.clone(),
            broker: broker.clone(),
            keys,
            ownership: ownership.clone(),
            membership: membership.clone(),
            timers: timers.clone(),
            io: io.clone(),
            idle_close: options.idle_close,
            stopping: stopping.clone(),
        });
        let opener: Arc<dyn OpensIdentities> = identities.clone();
        waking.set_opener(Arc::downgrade(&opener));
        let components_changed = Arc::default();
        Parts {
            imports: options.imports,
            store,
            audit,
            results_read: Arc::default(),
            asked_for: Arc::default(),
            broker,
            ownership,
            membership,
            catalogue,
            contracts,
            directory,
            flows,
            network,
            parameters,
            parties,
            vault,
            outcomes,
            watchers,
            counters,
            events,
            room,
            placement,
            io,
            stopping,
            waking,
            candidates,
            #[cfg(test)]
            committer,
            outbox,
            queues,
            timers,
            first_seen: FirstSeen::default(),
            components_changed,
            clock,
            #[cfg(test)]
            deadlines,
            journal,
            relay,
            late_confirms,
            identities,
        }
    }

    /// Wakes identities when their time has come, until the host stops.
    pub async fn ring_timers(self: Arc<Parts>) {
        let (directory, waking) = (self.directory.clone(), self.waking.clone());
        let wake = move |row| {
            if let Some(entry) = directory.by_row(row) {
                waking.wake(&entry);
            }
        };
        crate::registry::timers::run(self.timers.clone(), self.clock.clone(), self.stopping.clone(), wake).await;
    }

    /// For how long the initiation has waited that waits longest, as far as this host has seen; `None` if none does.
    pub async fn age_of_initiations(&self) -> Result<Option<Duration>, StoreError> {
        let waiting = self.store.first_initiations().await?;
        Ok(self.first_seen.look(waiting, Instant::now()))
    }

    /// Milliseconds since 1970 UTC.
    pub fn now_millis(&self) -> Millis {
        crate::base::clock::wall_millis(&*self.clock)
    }
}

fn journal_limits(options: &HostOptions, network: &NetworkMap) -> Limits {
    let message = network.parameters().parameters().max_message_size;
    Limits {
        entries: options.journal_entries,
        bytes: options.journal_bytes,
        message: usize::try_from(message).unwrap_or(usize::MAX),
        ..Limits::default()
    }
}
