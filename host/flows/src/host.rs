//! The host: brings everything up, takes identities in and lets them go, and stops in order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::Entry;
use maxhost_broker::{Broker, EmbeddedBroker, EmbeddedOptions};
use maxhost_cordapps::{Catalogue, DataFiles, InstalledContracts};
use maxhost_model::{Code, FlowRow, IdentityRow, Problem, RunId, SecureHash, X500Name};
use maxhost_ownership::{MemoryOwnership, Ownership};
use maxhost_pki::{KeyVault, NetworkMap};
use maxhost_sandbox::contract::ContractEngine;
use maxhost_sandbox::{Sandbox, SandboxOptions};
use maxhost_store::{Claim, ClaimRequest, IdentityRecord, Store, UNCLAIMED};
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};

use crate::activation::GuestCode;
use crate::admission::Slots;
use crate::api::{IdentityPhase, NetworkChange};
use crate::clock::SystemClock;
use crate::contracts::EngineContracts;
use crate::guest_threads::GuestThreads;
use crate::keys::SealedKeys;
use crate::membership::Membership;
use crate::message::IdentityCommand;
use crate::options::{ATTACHMENTS, Cluster, ENVELOPE_BYTES, HostOptions, IdentitySpec, OperatorEvent};
use crate::parts::{Foundations, Parts};
use crate::registry::{AfterLeaving, ColdState, EntryState, IdentityEntry};
use crate::spawner::Spawner;

/// How long a stop waits for the last rows of the audit trail, and notes of results that were read, to be written.
const LAST_AUDIT: Duration = Duration::from_millis(500);
/// Operator events a slow reader may be behind.
const EVENTS: usize = 1024;
/// Identities that are opened at once after a start, to look after their flows.
const OPENING_AT_ONCE: usize = 64;
/// How often it is looked whether an identity that is let go of has closed.
const LOOK: Duration = Duration::from_millis(5);
/// How soon the database is asked again after it did not answer.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// How often quarantined identities are looked at.
const READMISSION: Duration = Duration::from_secs(2);

/// How an identity is held when it is taken in.
struct Claimed {
    claim: Claim,
    /// The key under which the ownership service has given it.
    owned_as: Option<SecureHash>,
}

impl Default for Claimed {
    fn default() -> Claimed {
        Claimed { claim: UNCLAIMED, owned_as: None }
    }
}

/// A running host. Dropping it without [`Host::shutdown`] loses nothing: that is what a crash does too.
pub struct Host {
    pub(crate) parts: Arc<Parts>,
    pub(crate) started: Instant,
    pub(crate) network_changes: broadcast::Sender<NetworkChange>,
    live: Mutex<HashMap<IdentityRow, Vec<FlowRow>>>,
    /// Manifests that came back while their identities were being let go of.
    returning: Mutex<Vec<IdentitySpec>>,
    returned: Arc<Notify>,
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
        let shared = crate::shared_code::of(&store);
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
            let engine = ContractEngine::new(Some(&setup.code_cache.join("contracts"))).map_err(Problem::from)?;
            let installed = Arc::new(InstalledContracts::new(engine, setup.cordapps.clone()));
            installed.rescan();
            let contracts =
                Arc::new(EngineContracts::new(installed, shared, DataFiles::new(setup.data.join(ATTACHMENTS))));
            Ok((vault, network, sandbox, catalogue, contracts))
        })
        .await?;
        let run = store.run();
        let (broker, ownership, membership) = match cluster {
            Some(Cluster { ownership, broker, slots, schedules }) => {
                (broker, ownership, Some(Membership::new(slots, schedules)))
            }
            None => (embedded_broker(&options, &network).await?, embedded_ownership(run), None),
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
        let now_ms = move || i64::try_from(crate::clock::wall_millis(&*clock)).unwrap_or(i64::MAX);
        parts.io.spawn(parts.audit.clone().write(parts.store.clone(), now_ms));
        parts.io.spawn(parts.results_read.clone().write(parts.store.clone()));
        parts.io.spawn(crate::housekeeping::purge(parts.store.clone(), parts.stopping.clone()));
        parts.io.spawn(crate::housekeeping::clean_components(
            parts.store.clone(),
            parts.catalogue.clone(),
            parts.contracts.clone(),
            parts.components_changed.clone(),
            parts.stopping.clone(),
        ));
        for database in 0..parts.store.databases() {
            parts.io.spawn(crate::relay::outbound::run(parts.relay.clone(), database));
        }
        parts.io.spawn(crate::relay::inbound::run(parts.relay.clone()));
        parts.io.spawn(crate::relay::inbound::look_for_held(parts.relay.clone()));
        if parts.membership.is_some() {
            crate::supervisor::start(&parts);
        }
        let host = Arc::new(Host {
            parts,
            started: Instant::now(),
            network_changes: broadcast::Sender::new(EVENTS),
            live: Mutex::new(live),
            returning: Mutex::default(),
            returned: Arc::default(),
        });
        host.parts.io.spawn(readmit(Arc::downgrade(&host), host.returned.clone()));
        Ok(host)
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
    pub async fn put_identities(
        self: &Arc<Host>,
        specs: Vec<IdentitySpec>,
    ) -> Result<Vec<(IdentitySpec, Problem)>, Problem> {
        let mut problems = Vec::new();
        let mut named: Vec<(X500Name, IdentitySpec)> = Vec::with_capacity(specs.len());
        for spec in specs {
            match self.check_name(&spec) {
                Ok(name) => named.push((name, spec)),
                Err(problem) => {
                    self.quarantine(&spec.manifest, Some(spec.name.clone()), problem.clone()).await;
                    problems.push((spec, problem));
                }
            }
        }
        let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
        let rows = self.parts.store.register_identities(&names).await.map_err(Problem::from)?;
        let keys: HashMap<X500Name, SecureHash> = match named.len() {
            0 => HashMap::new(),
            _ => self.parts.network.fingerprints(),
        };
        let mut claims: HashMap<IdentityRow, Claimed> = match named.len() {
            0 => HashMap::new(),
            _ => {
                let records = self.parts.store.identities().await.map_err(Problem::from)?;
                let coming: HashSet<IdentityRow> = rows.iter().copied().collect();
                let absent = records.iter().filter(|record| !coming.contains(&record.row));
                absent.for_each(|record| self.parts.directory.remember(record.row, &record.name));
                self.claim_new(records.into_iter().filter(|record| coming.contains(&record.row)).collect(), &keys)
                    .await?
            }
        };
        let mut waking = Vec::new();
        for ((name, spec), row) in named.into_iter().zip(rows) {
            self.parts.directory.broken.remove(&spec.manifest.display().to_string());
            // It is taken in once it has gone.
            if self.parts.directory.get(name.as_str()).is_some_and(|entry| entry.comes_back(&spec)) {
                continue;
            }
            let problem = self.unusable(&spec);
            let key = keys.get(&name).copied();
            let entry = self.put(name, row, spec.clone(), claims.remove(&row).unwrap_or_default());
            if let Some(key) = key {
                self.parts.directory.set_key(&entry, key);
            }
            // From now on it has what its CorDapps can do, whatever becomes of the files.
            let problem = problem.or_else(|| entry.cordapps(&self.parts.catalogue).err());
            if let Some(problem) = problem {
                set_quarantined(&entry, problem.clone());
                self.parts.events.tell_quarantined(&entry.text, &problem);
                problems.push((spec, problem));
            } else {
                waking.push(entry);
            }
        }
        // What they had left in the outbox when they were last here can be sent now.
        self.parts.outbox.look_at_all();
        match &self.parts.membership {
            Some(membership) => membership.look_for_work(),
            None => {
                self.parts.queues.held(waking.iter().cloned());
                self.parts.io.spawn(wake_busy(self.parts.clone(), waking));
            }
        }
        Ok(problems)
    }

    /// Claims those that are not hosted yet, all in one transaction, so that whoever writes to one of them finds it held.
    /// One that cannot be claimed now is claimed when it is opened. Returns the claims as the database shows them.
    async fn claim_new(
        &self,
        records: Vec<IdentityRecord>,
        keys: &HashMap<X500Name, SecureHash>,
    ) -> Result<HashMap<IdentityRow, Claimed>, Problem> {
        let mut claims = HashMap::with_capacity(records.len());
        let mut requests = Vec::new();
        for record in &records {
            claims.insert(record.row, Claimed { claim: record.claim, owned_as: None });
            let key = X500Name::parse(&record.name).ok().and_then(|name| keys.get(&name).copied());
            let is_to_come = self.parts.membership.is_none() && self.parts.directory.get(&record.name).is_none();
            let Some(key) = key.filter(|_| is_to_come) else { continue };
            if let Ok(owned) = self.parts.ownership.claim(key, record.claim.token).await {
                requests.push((key, ClaimRequest { identity: record.row, token: owned.token, key_fp: None }));
            }
        }
        let claimed = self.parts.store.claim_all(requests.iter().map(|(_, request)| *request).collect()).await;
        for ((key, request), claim) in requests.into_iter().zip(claimed.map_err(Problem::from)?) {
            if let Ok(claim) = claim {
                claims.insert(request.identity, Claimed { claim, owned_as: Some(key) });
            }
        }
        Ok(claims)
    }

    fn check_name(&self, spec: &IdentitySpec) -> Result<X500Name, Problem> {
        let name = X500Name::parse(&spec.name).map_err(Problem::from)?;
        let other = self.parts.directory.get(name.as_str()).map(|entry| entry.spec.lock().manifest.clone());
        match other {
            Some(other) if other != spec.manifest && other.exists() => Err(Problem::new(
                Code::ManifestInvalid,
                format!("{} and {} both name {name}", other.display(), spec.manifest.display()),
            )
            .remedy("remove one of the two manifests")),
            _ => Ok(name),
        }
    }

    /// What can be seen to be wrong without opening the identity.
    fn unusable(&self, spec: &IdentitySpec) -> Option<Problem> {
        if !spec.keys.is_dir() {
            let text = format!("the key folder {} of {} does not exist", spec.keys.display(), spec.name);
            return Some(Problem::new(Code::KeyUnreadable, text));
        }
        // An identity whose manifest names the same CorDapps as before goes on with what it has.
        let known = self.parts.directory.get(&spec.name).filter(|entry| entry.spec.lock().cordapps == spec.cordapps);
        match known {
            Some(entry) => entry.cordapps(&self.parts.catalogue).err(),
            None => self.parts.catalogue.set(&spec.cordapps).err(),
        }
    }

    fn put(&self, name: X500Name, row: IdentityRow, spec: IdentitySpec, claimed: Claimed) -> Arc<IdentityEntry> {
        let spec = IdentitySpec { cordapps: self.parts.directory.shared_cordapps(spec.cordapps), ..spec };
        let Some(entry) = self.parts.directory.get(name.as_str()) else {
            let live = self.live.lock().remove(&row).unwrap_or_default();
            let entry = Arc::new(IdentityEntry::new(row, name, spec, live, claimed.claim));
            if let Some(key) = claimed.owned_as {
                entry.hold(claimed.claim, key, self.parts.ownership.session().borrow().number);
            }
            self.parts.directory.insert(entry.clone());
            self.parts.events.emit(OperatorEvent::IdentityAdded { identity: entry.text.to_string() });
            return entry;
        };
        *entry.spec.lock() = Arc::new(spec);
        let active = {
            let mut state = entry.state.lock();
            if let EntryState::Quarantined { cold, .. } = &mut *state {
                *state = EntryState::Cold(std::mem::take(cold));
            }
            matches!(*state, EntryState::Active { .. })
        };
        if active {
            self.parts.waking.tell(&entry, IdentityCommand::Refresh);
        }
        entry
    }

    /// A manifest that names no usable identity: shown, and in nobody's way. If it was the manifest of an identity that
    /// is hosted, its flows are put away; they go on when it is mended.
    pub async fn quarantine(self: &Arc<Host>, manifest: &Path, name: Option<String>, problem: Problem) {
        let hosted = name.as_ref().and_then(|name| self.parts.directory.get(name));
        match hosted.filter(|entry| entry.spec.lock().manifest == manifest) {
            Some(entry) => self.remove(entry, AfterLeaving::Broken(Box::new(problem))).await,
            None => self.set_broken(manifest, name, problem),
        }
    }

    /// It is told once, however often a file changes and comes to the same. Nobody sees it before it is told.
    fn set_broken(&self, manifest: &Path, name: Option<String>, problem: Problem) {
        let entry = self.parts.directory.broken.entry(manifest.display().to_string());
        let broken = (name, problem);
        if matches!(&entry, Entry::Occupied(known) if *known.get() == broken) {
            return;
        }
        let (name, problem) = &broken;
        self.parts.events.tell_quarantined(name.as_deref().unwrap_or(entry.key()), problem);
        entry.insert(broken);
    }

    /// The manifest of an identity is gone: its flows are put away, and it is hosted no more. `name` may also be that of
    /// a quarantined manifest, or its file.
    ///
    /// # Errors
    /// None at present; the seam is there for owners that must agree.
    pub async fn remove_identity(self: &Arc<Host>, name: &str) -> Result<(), Problem> {
        let is_it =
            |file: &String, known: &Option<String>| known.as_deref() == Some(name) || Path::new(file).ends_with(name);
        self.parts.directory.broken.retain(|file, (known, _)| !is_it(file, known));
        self.returning.lock().retain(|spec| spec.name != name);
        if let Some(entry) = self.parts.directory.get(name) {
            self.remove(entry, AfterLeaving::Forgotten).await;
        }
        Ok(())
    }

    /// Lets an identity go. Returns at once: however long its flows take to suspend, nobody else waits for it.
    async fn remove(self: &Arc<Host>, entry: Arc<IdentityEntry>, after: AfterLeaving) {
        if let Some(pending) = &mut *entry.leaving.lock() {
            *pending = after;
            return;
        }
        *entry.leaving.lock() = Some(after);
        if self.remove_closed(&entry) {
            return self.gone(entry).await;
        }
        self.parts.waking.tell(&entry, IdentityCommand::Drain);
        self.parts.io.spawn(self.clone().let_go(entry));
    }

    /// Removes an identity that has no actor, and remembers its live flows. False if it has one.
    fn remove_closed(&self, entry: &IdentityEntry) -> bool {
        let cold = match &mut *entry.state.lock() {
            EntryState::Active { .. } | EntryState::Removed => return false,
            state @ (EntryState::Cold(_) | EntryState::Quarantined { .. }) => {
                match std::mem::replace(state, EntryState::Removed) {
                    EntryState::Cold(cold) | EntryState::Quarantined { cold, .. } => cold,
                    EntryState::Active { .. } | EntryState::Removed => ColdState::default(),
                }
            }
        };
        self.live.lock().insert(entry.row, cold.live.into());
        self.parts.events.emit(OperatorEvent::IdentityRemoved { identity: entry.text.to_string() });
        true
    }

    /// Waits until an identity that was told to drain has closed.
    async fn let_go(self: Arc<Host>, entry: Arc<IdentityEntry>) {
        // One that could not be opened to drain is closed too.
        while !entry.is_removed() && !self.remove_closed(&entry) {
            if self.sleeps_until_stop(LOOK).await {
                return;
            }
        }
        let flows = loop {
            match self.parts.store.live_flows().await {
                Ok(flows) => break flows,
                Err(error) => tracing::warn!(identity = %entry.text, %error, "its flows cannot be read; tried again"),
            }
            if self.sleeps_until_stop(READ_AGAIN).await {
                return;
            }
        };
        let rows = flows.into_iter().filter(|flow| flow.identity == entry.row).map(|flow| flow.row).collect();
        self.live.lock().insert(entry.row, rows);
        self.gone(entry).await;
    }

    /// Sleeps. True if the host stops meanwhile.
    async fn sleeps_until_stop(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.parts.stopping.cancelled()).await.is_ok()
    }

    /// Forgets an identity that has closed, and does what is to be done then.
    async fn gone(self: &Arc<Host>, entry: Arc<IdentityEntry>) {
        self.forget(&entry).await;
        let after = entry.leaving.lock().take();
        match after {
            None | Some(AfterLeaving::Forgotten) => {}
            Some(AfterLeaving::Broken(problem)) => {
                let manifest = entry.spec.lock().manifest.clone();
                self.set_broken(&manifest, Some(entry.text.to_string()), *problem);
            }
            Some(AfterLeaving::Hosted(spec)) => {
                self.returning.lock().push(*spec);
                self.returned.notify_one();
            }
        }
    }

    async fn forget(&self, entry: &IdentityEntry) {
        // Whoever takes it in next claims it anew: that may be this host.
        if let Some(fingerprint) = entry.release()
            && let Err(error) = self.parts.ownership.hand_over(fingerprint, None).await
        {
            tracing::warn!(identity = %entry.text, %error, "a removed identity could not be released");
        }
        self.parts.directory.remove(&entry.text);
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
        for (names, modified) in [(&changes.added, false), (&changes.modified, true)] {
            for name in names {
                if let Some(view) = self.party_view(name) {
                    let change = if modified { NetworkChange::Modified(view) } else { NetworkChange::Added(view) };
                    let _ = self.network_changes.send(change);
                }
            }
        }
        for name in &changes.removed {
            let _ = self.network_changes.send(NetworkChange::Removed(name.to_string()));
        }
        Ok(())
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
        self.parts.stopping.cancel();
        self.parts.room.slots.close();
        let is_open = |entry: &Arc<IdentityEntry>| entry.mailbox().is_some();
        while self.parts.directory.all().iter().any(is_open) && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if self.parts.membership.is_some() {
            crate::supervisor::raise_last_demands(&self.parts).await;
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

fn embedded_ownership(run: RunId) -> Arc<dyn Ownership> {
    Arc::new(MemoryOwnership::embedded("this host", run))
}

impl Drop for Host {
    fn drop(&mut self) {
        self.parts.placement.stop();
    }
}

fn set_quarantined(entry: &IdentityEntry, problem: Problem) {
    let mut state = entry.state.lock();
    let cold = match &mut *state {
        EntryState::Cold(cold) => std::mem::take(cold),
        EntryState::Quarantined { cold, .. } => std::mem::take(cold),
        // It goes on with what it has.
        EntryState::Active { .. } => return,
        EntryState::Removed => ColdState::default(),
    };
    *state = EntryState::Quarantined { problem: Box::new(problem), cold };
}

/// Opens the identities for which something waits in the database, some at a time.
pub(crate) async fn wake_busy(parts: Arc<Parts>, entries: Vec<Arc<IdentityEntry>>) {
    let Some(waiting) = with_work(&parts).await else { return };
    let is_busy = |entry: &&Arc<IdentityEntry>| match &*entry.state.lock() {
        EntryState::Cold(cold) => !cold.live.is_empty() || waiting.contains(&entry.row),
        _ => false,
    };
    let busy: Vec<_> = entries.iter().filter(is_busy).cloned().collect();
    for some in busy.chunks(OPENING_AT_ONCE) {
        some.iter().for_each(|entry| parts.waking.wake(entry));
        let opening = |entry: &Arc<IdentityEntry>| entry.phase() == IdentityPhase::Opening;
        while some.iter().any(opening) && !parts.stopping.is_cancelled() {
            parts.clock.sleep_until(parts.clock.monotonic() + Duration::from_millis(2)).await;
        }
    }
}

/// The identities for which something waits that nobody will tell them of. Read until it can be: what is overlooked here
/// would wait for ever. `None`: the host stops.
async fn with_work(parts: &Parts) -> Option<HashSet<IdentityRow>> {
    loop {
        match parts.store.left_work(parts.now_millis() as i64).await {
            Ok(left) => {
                let waits = left.into_iter().filter(|left| left.initiations || left.late_confirms);
                return Some(waits.map(|left| left.identity).collect());
            }
            Err(error) => tracing::warn!(%error, "what waits for identities cannot be read; tried again"),
        }
        tokio::select! {
            biased;
            () = parts.stopping.cancelled() => return None,
            () = parts.clock.sleep_until(parts.clock.monotonic() + READMISSION) => {}
        }
    }
}

/// Takes identities in again: those whose manifest came back while they were let go of, and those in quarantine once what
/// was wrong is mended, for whoever mends keys or components need not touch the manifest.
async fn readmit(host: std::sync::Weak<Host>, returned: Arc<Notify>) {
    let mut look_at = tokio::time::Instant::now() + READMISSION;
    loop {
        let look = tokio::select! {
            () = tokio::time::sleep_until(look_at) => true,
            () = returned.notified() => false,
        };
        let Some(host) = host.upgrade() else { return };
        if host.parts.stopping.is_cancelled() {
            return;
        }
        let returning = std::mem::take(&mut *host.returning.lock());
        if !returning.is_empty()
            && let Err(problem) = host.put_identities(returning.clone()).await
        {
            tracing::warn!(%problem, "identities cannot be hosted again yet; tried again");
            host.returning.lock().extend(returning);
        }
        if !look {
            continue;
        }
        look_at = tokio::time::Instant::now() + READMISSION;
        let all = host.parts.directory.all();
        for entry in all.into_iter().filter(|entry| entry.problem().is_some()) {
            let (host, spec) = (host.clone(), entry.spec.lock().as_ref().clone());
            let name = entry.name.clone();
            let mended = blocking(move || match host.unusable(&spec) {
                Some(problem) => Err(problem),
                None => {
                    let (vault, trust) = (&host.parts.vault, host.parts.network.trust_root());
                    let now = std::time::SystemTime::now();
                    maxhost_pki::OpenIdentity::open(vault, &spec.keys, &name, trust, now).map_err(Problem::from)?;
                    Ok(host)
                }
            });
            if let Ok(host) = mended.await {
                let spec = entry.spec.lock().as_ref().clone();
                tracing::info!(identity = %entry.text, "mended: out of quarantine");
                // Whoever is refused is told of there.
                if let Err(problem) = host.put_identities(vec![spec]).await {
                    tracing::warn!(identity = %entry.text, %problem, "cannot be hosted yet");
                }
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Problem> + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Problem::new(Code::Internal, error.to_string()))?
}
