//! The host: brings everything up, takes over what changes in its folders, and stops in order.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use maxhost_broker::{Broker, EmbeddedBroker, EmbeddedOptions};
use maxhost_cordapps::{Catalogue, DataFiles, InstalledContracts};
use maxhost_model::{FlowRow, IdentityRow, Problem, RunId};
use maxhost_ownership::{MemoryOwnership, Ownership};
use maxhost_pki::{Changes, KeyVault, NetworkMap};
use maxhost_sandbox::contract::ContractEngine;
use maxhost_sandbox::{Sandbox, SandboxOptions};
use maxhost_store::Store;
use tokio::sync::broadcast;

use crate::activation::GuestCode;
use crate::api::NetworkChange;
use crate::base::clock::SystemClock;
use crate::base::spawner::{Spawner, blocking};
use crate::cluster::membership::Membership;
use crate::guests::admission::Slots;
use crate::guests::threads::GuestThreads;
use crate::host::hosting::Hosting;
use crate::host::parts::{Foundations, Parts};
use crate::ledger::contracts::EngineContracts;
use crate::options::{
    ATTACHMENTS, COMPILED_CONTRACTS, Cluster, ENVELOPE_BYTES, HostOptions, IdentitySpec, OperatorEvent,
};
use crate::registry::entry::IdentityEntry;
use crate::registry::keys::SealedKeys;
use crate::registry::message::IdentityCommand;

/// How long a stop waits for the last rows of the audit trail, and notes of results that were read, to be written.
const LAST_AUDIT: Duration = Duration::from_millis(500);
/// Operator events a slow reader may be behind.
const EVENTS: usize = 1024;

/// A running host. Dropping it without [`Host::shutdown`] loses nothing: that is what a crash does too.
pub struct Host {
    pub(crate) parts: Arc<Parts>,
    pub(crate) started: Instant,
    pub(crate) network_changes: broadcast::Sender<NetworkChange>,
    hosting: Arc<Hosting>,
    /// Whether notices of the broker are answered.
    listens: AtomicBool,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("identities", &self.parts.directory.len()).finish_non_exhaustive()
    }
}

impl Host {
    /// Opens the network, the keys and the CorDapps. Identities come with [`Host::put_identities`]. The
    /// caller holds the lock of the data folder ([`maxhost_store::DataLock`]).
    ///
    /// # Errors
    /// The passphrase is wrong, or a folder or file cannot be used.
    pub async fn start(options: HostOptions, store: Store) -> Result<Arc<Host>, Problem> {
        Host::bring_up(options, store, None).await
    }

    /// As [`Host::start`], for a host that shares its identities with others. It runs those that somebody wants, as many as
    /// it has slots for, and lets them go when nothing is to be done for them.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub async fn join(options: HostOptions, store: Store, cluster: Cluster) -> Result<Arc<Host>, Problem> {
        Host::bring_up(options, store, Some(cluster)).await
    }

    async fn bring_up(mut options: HostOptions, store: Store, cluster: Option<Cluster>) -> Result<Arc<Host>, Problem> {
        let passphrase = std::mem::take(&mut options.passphrase);
        let kept = options.data.join("components");
        let setup = options.clone();
        let shared = crate::cluster::shared_code::of(&store);
        let (vault, network, sandbox, catalogue, contracts) = blocking(move || {
            let vault = {
                let passphrase = maxhost_pki::Passphrase::new(passphrase.expose()).map_err(Problem::from)?;
                KeyVault::unlock(&setup.keys, &passphrase).map_err(Problem::from)?
            };
            // Whatever follows may take long; nobody needs it any more.
            drop(passphrase);
            let network = NetworkMap::load(&setup.network).map_err(Problem::from)?;
            let sandbox = Sandbox::new(SandboxOptions {
                max_instances: setup.instances,
                ..SandboxOptions::new(&setup.code_cache)
            })
            .map_err(Problem::from)?;
            let catalogue = Catalogue::new(sandbox.clone(), setup.cordapps.clone(), kept, shared.clone());
            catalogue.rescan();
            let code = setup.code_cache.join(COMPILED_CONTRACTS);
            let engine = ContractEngine::new(Some(&code)).map_err(Problem::from)?;
            let installed = Arc::new(InstalledContracts::new(engine, setup.cordapps.clone()));
            installed.rescan();
            let contracts =
                Arc::new(EngineContracts::new(installed, shared, DataFiles::new(setup.data.join(ATTACHMENTS))));
            Ok((vault, network, sandbox, catalogue, contracts))
        })
        .await?;
        let run = store.run();
        let (broker, ownership, membership) = match cluster {
            Some(Cluster { ownership, broker, slots, schedules, session_timeout, balancing }) => {
                (broker, ownership, Some(Membership::new(slots, schedules, session_timeout, balancing)))
            }
            None => (embedded_broker(&options, &network).await?, embedded_ownership(&options, run), None),
        };
        let mut live: HashMap<IdentityRow, Vec<FlowRow>> = HashMap::new();
        for flow in store.live_flows().await.map_err(Problem::from)? {
            live.entry(flow.identity).or_default().push(flow.row);
        }
        let (vault, network) = (Arc::new(vault), Arc::new(network));
        let guests = GuestThreads::start(options.guest_threads, &tokio::runtime::Handle::current())?;
        let parts = Arc::new(Parts::assemble(Foundations {
            slots: Slots::new(sandbox.slots()),
            guests: Arc::new(guests),
            io: Spawner::on(tokio::runtime::Handle::current()),
            options,
            store,
            broker,
            ownership,
            membership,
            catalogue: Arc::new(catalogue),
            contracts,
            keys: Arc::new(SealedKeys { vault: vault.clone(), network: network.clone() }),
            code: GuestCode::default(),
            network,
            vault,
            clock: Arc::new(SystemClock::new()),
        }));
        parts.io.spawn(parts.clone().ring_timers());
        let clock = parts.clock.clone();
        let now_ms = move || i64::try_from(crate::base::clock::wall_millis(&*clock)).unwrap_or(i64::MAX);
        parts.io.spawn(parts.audit.clone().write(parts.store.clone(), now_ms));
        parts.io.spawn(parts.results_read.clone().write(parts.store.clone()));
        parts.io.spawn(crate::host::housekeeping::purge(parts.store.clone(), parts.stopping.clone()));
        parts.io.spawn(crate::host::housekeeping::clean_components(
            parts.store.clone(),
            parts.catalogue.clone(),
            parts.contracts.clone(),
            parts.components_changed.clone(),
            parts.stopping.clone(),
        ));
        if let Some(kept) = parts.relay.kept.clone() {
            parts.io.spawn(crate::relay::kept::run(kept, parts.outbox.clone(), parts.stopping.clone()));
        }
        for database in 0..parts.store.databases() {
            parts.io.spawn(crate::relay::outbound::run(parts.relay.clone(), database));
        }
        parts.io.spawn(crate::relay::inbound::look_for_held(parts.relay.clone()));
        if parts.membership.is_some() {
            crate::host::supervisor::start(&parts);
        }
        let hosting = Hosting::start(parts.clone(), live);
        let network_changes = broadcast::Sender::new(EVENTS);
        let listens = AtomicBool::new(false);
        Ok(Arc::new(Host { parts, started: Instant::now(), network_changes, hosting, listens }))
    }

    /// What operators care about from now on, and, for who asks first, what has happened to flows before.
    #[must_use]
    pub fn events(&self) -> (Vec<OperatorEvent>, broadcast::Receiver<OperatorEvent>) {
        self.parts.events.subscribe()
    }

    /// Takes one identity in, or takes its changed manifest over.
    ///
    /// # Errors
    /// See [`Host::put_identities`].
    pub async fn put_identity(self: &Arc<Host>, spec: IdentitySpec) -> Result<(), Problem> {
        let mut problems = self.put_identities(vec![spec]).await?;
        match problems.pop() {
            Some((_, problem)) => Err(problem),
            None => Ok(()),
        }
    }

    /// Takes identities in. Those that cannot be hosted are quarantined and returned; the others run on.
    ///
    /// # Errors
    /// Only if the database fails: then none was taken in.
    pub async fn put_identities(&self, specs: Vec<IdentitySpec>) -> Result<Vec<(IdentitySpec, Problem)>, Problem> {
        let problems = self.hosting.put_identities(specs).await?;
        // A notice of the broker is given to one host, and one for an identity that is not known yet would be lost.
        if !self.listens.swap(true, Ordering::AcqRel) {
            self.parts.io.spawn(crate::relay::inbound::run(self.parts.relay.clone()));
        }
        Ok(problems)
    }

    /// A manifest that names no usable identity: shown, and in nobody's way. If it was the manifest of an identity that
    /// is hosted, its flows are put away; they go on when it is mended.
    pub async fn quarantine(&self, manifest: &Path, name: Option<String>, problem: Problem) {
        self.hosting.quarantine(manifest, name, problem).await;
    }

    /// The manifest of an identity is gone: its flows are put away, and it is hosted no more. `name` may also be that of
    /// a quarantined manifest, or its file.
    pub async fn remove_identity(&self, name: &str) {
        self.hosting.remove_identity(name).await;
    }

    /// The folder of components changed: new flows run on what is there now. Identities that could not be hosted for
    /// want of a CorDapp are tried again. True if something changed.
    ///
    /// # Errors
    /// The database fails.
    pub async fn reload_cordapps(self: &Arc<Host>) -> Result<bool, Problem> {
        let parts = self.parts.clone();
        let rescan = move || {
            parts.contracts.rescan();
            parts.catalogue.rescan()
        };
        let changed = tokio::task::spawn_blocking(rescan).await.unwrap_or(false);
        if !changed {
            return Ok(false);
        }
        let mut again = Vec::new();
        let mut former: BTreeMap<String, usize> = BTreeMap::new();
        for entry in self.parts.directory.all() {
            // It takes what is there now, so that nothing that is gone is held on to.
            let _whatever_it_has = entry.cordapps(&self.parts.catalogue);
            if let Some(problem) = entry.former_cordapps(&self.parts.catalogue) {
                *former.entry(problem.message).or_default() += 1;
            }
            if entry.mailbox().is_some() {
                self.parts.waking.tell(&entry, IdentityCommand::Refresh);
            } else if entry.problem().is_some() {
                again.push(entry.spec.lock().as_ref().clone());
            }
        }
        for (reason, identities) in former {
            tracing::warn!(identities, reason, "identities go on with the CorDapps they have, until the host stops");
        }
        self.put_identities(again).await?;
        self.parts.components_changed.notify_one();
        Ok(true)
    }

    /// The network folder changed.
    ///
    /// # Errors
    /// It cannot be read; what is known stays.
    pub async fn reload_network(self: &Arc<Host>) -> Result<(), Problem> {
        let parts = self.parts.clone();
        let changes = blocking(move || parts.network.refresh().map_err(Problem::from)).await?;
        self.reload_parameters().await?;
        let host = self.clone();
        // Certificates are verified, of thousands of parties perhaps.
        blocking(move || {
            host.tell_of_parties(&changes);
            Ok(())
        })
        .await
    }

    /// Tells whoever follows the network what has changed. Nobody is told of a party that does not verify.
    fn tell_of_parties(&self, changes: &Changes) {
        for (names, modified) in [(&changes.added, false), (&changes.modified, true)] {
            for name in names {
                if self.network_changes.receiver_count() == 0 {
                    return;
                }
                if let Some(view) = self.party_view(name) {
                    let change = if modified { NetworkChange::Modified(view) } else { NetworkChange::Added(view) };
                    let _ = self.network_changes.send(change);
                }
            }
        }
        for name in &changes.removed {
            let _ = self.network_changes.send(NetworkChange::Removed(name.to_string()));
        }
    }

    /// Puts later parameters in force that lie in the network folder. What cannot be taken is told to whoever reads the log.
    async fn reload_parameters(&self) -> Result<(), Problem> {
        let parts = self.parts.clone();
        match blocking(move || Ok(parts.network.newer_parameters())).await? {
            Ok(None) => {}
            Ok(Some(newer)) => {
                let (epoch, hash) = (newer.parameters().epoch, newer.hash());
                self.parts.network.put_in_force(newer);
                tracing::info!(epoch, %hash, "other network parameters are in force");
            }
            Err(error) => {
                let Problem { code, message, .. } = Problem::from(error);
                tracing::warn!(%code, "the network parameters in the folder are not taken, those in force stay: {message}");
            }
        }
        Ok(())
    }

    /// Stops in order: flows give up their instances, the database and the broker are closed. What does not end in time is
    /// cut off, which loses nothing.
    pub async fn shutdown(&self, deadline: Duration) {
        self.leave(deadline).await;
        self.close().await;
    }

    /// Closes what is left after [`Host::leave`]. Whoever serves clients has ended that, so that their last calls are in the
    /// audit trail.
    pub async fn close(&self) {
        tokio::join!(self.parts.audit.finish(LAST_AUDIT), self.parts.results_read.finish(LAST_AUDIT));
        self.parts.broker.close().await;
        self.parts.store.close().await;
    }

    /// As [`Host::shutdown`], but for the database and the broker, which others in this process may use. Other hosts of a
    /// cluster take over what this one ran.
    pub async fn leave(&self, deadline: Duration) {
        let end = Instant::now() + deadline;
        // What has not been told by then is told with the stop.
        let _over = tokio::time::timeout(deadline / 2, crate::host::draining::leave(&self.parts)).await;
        self.parts.stopping.cancel();
        self.parts.room.slots.close();
        let is_open = |entry: &Arc<IdentityEntry>| entry.mailbox().is_some();
        while self.parts.directory.all().iter().any(is_open) && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if self.parts.membership.is_some() {
            crate::host::supervisor::raise_last_demands(&self.parts).await;
            self.parts.ownership.close().await;
        }
        self.parts.placement.stop();
    }
}

async fn embedded_broker(options: &HostOptions, network: &NetworkMap) -> Result<Arc<dyn Broker>, Problem> {
    let largest = usize::try_from(network.parameters().parameters().max_message_size).unwrap_or(usize::MAX);
    let max_message_bytes = largest.saturating_add(ENVELOPE_BYTES);
    let broker = EmbeddedOptions { max_message_bytes, ..EmbeddedOptions::new(&options.broker) };
    Ok(Arc::new(EmbeddedBroker::open(broker).await.map_err(Problem::from)?))
}

fn embedded_ownership(options: &HostOptions, run: RunId) -> Arc<dyn Ownership> {
    Arc::new(MemoryOwnership::embedded(&options.name, run))
}

impl Drop for Host {
    fn drop(&mut self) {
        self.parts.placement.stop();
    }
}
