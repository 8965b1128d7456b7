//! Ownership in memory: the embedded default, and a service for tests whose faults happen on command.

mod listeners;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use maxhost_model::{Claim, FencingToken, RunId, SecureHash};
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use self::listeners::{MemoryChanges, MemoryDemands};
use crate::error::{Lost, OwnershipError, Permanent, Transient};
use crate::owner::Owner;
use crate::ownership::{
    Change, Changes, DEMAND_MESSAGE_BYTES, DemandVersion, Demands, HostInfo, Ownedness, Ownership, Reach, Session,
    SessionState, Slept,
};
use crate::roles::Roles;
use crate::tellings::Tellings;

/// Changes that a slow listener may be behind before it misses some.
const CHANGES: usize = 1024;

/// What several hosts share. A single host has one for itself alone.
#[derive(Clone)]
pub struct Realm {
    shared: Arc<Shared>,
}

struct Shared {
    generation: i64,
    state: Mutex<State>,
    changes: broadcast::Sender<Change>,
    /// Counts what may concern a listener for demands.
    version: watch::Sender<u64>,
    scheduler: watch::Sender<Option<Arc<str>>>,
}

#[derive(Default)]
struct State {
    hosts: HashMap<Arc<str>, Host>,
    owners: BTreeMap<SecureHash, Owner>,
    demands: HashMap<SecureHash, OpenDemand>,
    tellings: Tellings,
    /// Hosts that are to give up what they own, with those that listen for it.
    draining: HashMap<Arc<str>, watch::Sender<bool>>,
    /// How many demands were made so far.
    demands_made: i64,
    /// Above every epoch given so far, whichever the identity.
    next_epoch: i64,
    runs: i64,
}

struct OpenDemand {
    version: DemandVersion,
    target: Option<Arc<str>>,
    message: Option<Arc<[u8]>>,
}

struct Host {
    session: watch::Sender<Session>,
    run: RunId,
    slots: u32,
    /// Rises whenever demands told before must be told again.
    round: u64,
    /// How often the connection went away.
    cuts: u64,
    /// When it joined, in milliseconds since 1970.
    since_ms: i64,
    labels: Arc<[Arc<str>]>,
    reach: Option<Reach>,
}

impl Host {
    fn state(&self) -> SessionState {
        self.session.borrow().state
    }

    fn is_connected(&self) -> bool {
        self.state() == SessionState::Connected
    }
}

impl State {
    /// Makes sure that there is a demand, and returns it.
    fn demand(&mut self, identity: SecureHash) -> &mut OpenDemand {
        self.demands.entry(identity).or_insert_with(|| {
            self.demands_made += 1;
            OpenDemand { version: DemandVersion { created: self.demands_made, bumps: 0 }, target: None, message: None }
        })
    }

    /// Tells the demand for an identity, or tells it again, if there is one and nobody owns the identity.
    fn tell_demand(&mut self, identity: SecureHash) {
        if self.demands.contains_key(&identity) && !self.owners.contains_key(&identity) {
            self.tellings.tell(identity);
        } else {
            self.tellings.withdraw(&identity);
        }
    }

    /// The hosts that have a session, by name.
    fn live_hosts(&self) -> Vec<HostInfo> {
        let live = self
            .hosts
            .iter()
            .filter(|(_, host)| matches!(host.state(), SessionState::Connected | SessionState::Suspended));
        let info = |(name, host): (&Arc<str>, &Host)| HostInfo {
            name: Arc::clone(name),
            run: host.run,
            free_slots: host.slots,
            since_ms: host.since_ms,
            draining: self.draining.get(name).is_some_and(|draining| *draining.borrow()),
            // Hosts of one process have both.
            roles: Roles::BOTH,
            labels: Arc::clone(&host.labels),
            reach: host.reach.clone(),
        };
        let mut hosts: Vec<HostInfo> = live.map(info).collect();
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        hosts
    }

    /// Whether `host` owns the identity.
    fn is_owned_by(&self, identity: &SecureHash, host: &str) -> bool {
        self.owners.get(identity).is_some_and(|owner| *owner.host == *host)
    }
}

impl fmt::Debug for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Realm").finish_non_exhaustive()
    }
}

impl Default for Realm {
    fn default() -> Realm {
        Realm::new()
    }
}

impl Realm {
    /// A realm without hosts, of generation 0.
    #[must_use]
    pub fn new() -> Realm {
        Realm::of_generation(0)
    }

    /// A realm without hosts whose claims have this generation.
    #[must_use]
    pub fn of_generation(generation: i64) -> Realm {
        let shared = Shared {
            generation,
            state: Mutex::new(State { next_epoch: 1, ..State::default() }),
            changes: broadcast::Sender::new(CHANGES),
            version: watch::Sender::new(0),
            scheduler: watch::Sender::new(None),
        };
        Realm { shared: Arc::new(shared) }
    }

    /// Lets a host in, as a run of its own; one of the same name that is there already is lost.
    #[must_use]
    pub fn join(&self, host: &str) -> MemoryOwnership {
        let run = {
            let mut state = self.shared.state.lock();
            state.runs += 1;
            RunId(state.runs)
        };
        self.join_as(host, run)
    }

    /// Lets a host in as this run; one of the same name that is there already is lost.
    #[must_use]
    pub fn join_as(&self, host: &str, run: RunId) -> MemoryOwnership {
        self.expire(host);
        let name: Arc<str> = Arc::from(host);
        let session = watch::Sender::new(Session { number: 1, state: SessionState::Connected });
        let receiver = session.subscribe();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let joined = Host { session, run, slots: 0, round: 0, cuts: 0, since_ms, labels: Arc::default(), reach: None };
        self.shared.state.lock().hosts.insert(Arc::clone(&name), joined);
        MemoryOwnership { realm: self.clone(), host: name, run, session: receiver }
    }

    /// Gives a host that has joined these labels.
    pub fn label(&self, host: &str, labels: &[&str]) {
        if let Some(host) = self.shared.state.lock().hosts.get_mut(host) {
            host.labels = labels.iter().map(|label| Arc::from(*label)).collect();
        }
        self.changed();
    }

    /// Cuts a host's connection; what it owns stays its own.
    pub fn disconnect(&self, host: &str) {
        self.set_session(host, SessionState::Connected, SessionState::Suspended);
    }

    /// Gives a host its connection back: the old session if it was not lost, else a new one.
    pub fn reconnect(&self, host: &str) {
        self.set_session(host, SessionState::Suspended, SessionState::Connected);
        self.set_session(host, SessionState::Lost, SessionState::Connected);
    }

    /// Ends a host's session, as if it had been silent for too long: all it owned is free.
    pub fn expire(&self, host: &str) {
        self.end(host, SessionState::Lost);
    }

    fn set_session(&self, host: &str, from: SessionState, to: SessionState) {
        if let Some(host) = self.shared.state.lock().hosts.get_mut(host)
            && host.state() == from
        {
            host.round += 1;
            host.cuts += u64::from(from == SessionState::Connected);
            host.session.send_modify(|session| {
                session.number += u64::from(from == SessionState::Lost);
                session.state = to;
            });
        }
        self.changed();
    }

    fn end(&self, host: &str, to: SessionState) {
        let mut state = self.shared.state.lock();
        let owned: Vec<SecureHash> =
            state.owners.values().filter(|owner| *owner.host == *host).map(|owner| owner.identity).collect();
        for identity in owned {
            self.free(&mut state, identity);
        }
        self.resign(host);
        if let Some(host) = state.hosts.get_mut(host)
            && host.state() != SessionState::Closed
        {
            host.slots = 0;
            host.cuts += 1;
            host.session.send_modify(|session| session.state = to);
        }
        drop(state);
        self.changed();
    }

    /// There is no scheduler any more, if it was this host.
    fn resign(&self, host: &str) {
        self.shared.scheduler.send_if_modified(|scheduler| {
            let is_this = scheduler.as_deref() == Some(host);
            if is_this {
                *scheduler = None;
            }
            is_this
        });
    }

    /// Takes an identity from its owner. A demand that is left is told to the hosts.
    fn free(&self, state: &mut State, identity: SecureHash) {
        if let Some(owner) = state.owners.remove(&identity) {
            self.tell(Change::Released(owner));
        }
        state.tell_demand(identity);
    }

    /// Tells a change. The caller holds the lock, so that changes are heard in the order they happened.
    fn tell(&self, change: Change) {
        // Nobody need listen.
        let _ = self.shared.changes.send(change);
    }

    fn changed(&self) {
        self.shared.version.send_modify(|version| *version += 1);
    }
}

/// A host's place in a [`Realm`]. Dropping it is like losing the host: what it owned is free.
#[derive(Debug)]
pub struct MemoryOwnership {
    realm: Realm,
    host: Arc<str>,
    run: RunId,
    session: watch::Receiver<Session>,
}

impl MemoryOwnership {
    /// The ownership of a host that is alone. Its claims have generation 0.
    #[must_use]
    pub fn embedded(host: &str, run: RunId) -> MemoryOwnership {
        Realm::new().join_as(host, run)
    }

    fn check(&self) -> Result<(), OwnershipError> {
        match self.session.borrow().state {
            SessionState::Connected => Ok(()),
            SessionState::Suspended => Err(Transient::unavailable("no connection").into()),
            SessionState::Lost => Err(Transient::unavailable("the session was lost").into()),
            SessionState::Closed => Err(Permanent::Closed.into()),
        }
    }

    fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.realm.shared.state.lock()
    }

    /// Raises a demand, or makes one.
    fn raise(&self, identity: SecureHash, message: Option<Arc<[u8]>>) -> Result<(), OwnershipError> {
        self.check()?;
        let mut state = self.state();
        let demand = state.demand(identity);
        demand.version.bumps += 1;
        demand.message = message;
        state.tell_demand(identity);
        drop(state);
        self.realm.changed();
        Ok(())
    }

    /// Whether this handle is still the host's: another of the same name may have joined since.
    fn is_current(&self, state: &State) -> bool {
        state.hosts.get(&self.host).is_some_and(|host| host.session.subscribe().same_channel(&self.session))
    }
}

impl Drop for MemoryOwnership {
    fn drop(&mut self) {
        let current = self.is_current(&self.state());
        if current {
            self.realm.end(&self.host, SessionState::Lost);
        }
    }
}

#[async_trait]
impl Ownership for MemoryOwnership {
    fn host(&self) -> &str {
        &self.host
    }

    fn run(&self) -> RunId {
        self.run
    }

    async fn claim(&self, identity: SecureHash, stored: FencingToken) -> Result<Claim, OwnershipError> {
        self.check()?;
        let mut state = self.state();
        let generation = self.realm.shared.generation;
        if let Some(owner) = state.owners.get(&identity) {
            if owner.host != self.host {
                return Err(Lost::Owned(owner.clone()).into());
            }
            if owner.token < stored {
                return Err(Permanent::Behind { identity, stored, offered: owner.token }.into());
            }
            return Ok(Claim { token: owner.token, run: self.run });
        }
        let above = if stored.generation == generation { stored.epoch.saturating_add(1) } else { 0 };
        let token = FencingToken { generation, epoch: state.next_epoch.max(above) };
        if token <= stored {
            return Err(Permanent::Behind { identity, stored, offered: token }.into());
        }
        state.next_epoch = token.epoch.saturating_add(1);
        let demand = state.demand(identity);
        demand.target = None;
        let owner = Owner { identity, host: Arc::clone(&self.host), token };
        state.owners.insert(identity, owner.clone());
        state.tell_demand(identity);
        self.realm.tell(Change::Claimed(owner));
        drop(state);
        self.realm.changed();
        Ok(Claim { token, run: self.run })
    }

    async fn demand_version(&self, identity: SecureHash) -> Result<Option<DemandVersion>, OwnershipError> {
        self.check()?;
        Ok(self.state().demands.get(&identity).map(|demand| demand.version))
    }

    async fn sleep(&self, identity: SecureHash, seen: Option<DemandVersion>) -> Result<Slept, OwnershipError> {
        self.check()?;
        let mut state = self.state();
        if !state.is_owned_by(&identity, &self.host) {
            return Ok(Slept::NotOwner);
        }
        let present = state.demands.get(&identity).map(|demand| demand.version);
        let is_wanted = present.is_some() && present != seen;
        if !is_wanted {
            state.demands.remove(&identity);
        }
        self.realm.free(&mut state, identity);
        drop(state);
        self.realm.changed();
        Ok(if is_wanted { Slept::Wanted } else { Slept::Asleep })
    }

    async fn hand_over(&self, identity: SecureHash, target: Option<&str>) -> Result<bool, OwnershipError> {
        self.check()?;
        let mut state = self.state();
        if !state.is_owned_by(&identity, &self.host) {
            return Ok(false);
        }
        let demand = state.demand(identity);
        demand.target = target.map(Arc::from);
        demand.message = None;
        demand.version.bumps += 1;
        self.realm.free(&mut state, identity);
        drop(state);
        self.realm.changed();
        Ok(true)
    }

    async fn owners(&self) -> Result<Vec<Owner>, OwnershipError> {
        self.check()?;
        Ok(self.state().owners.values().cloned().collect())
    }

    fn owner_of(&self, identity: &SecureHash) -> Ownedness {
        if self.check().is_err() {
            return Ownedness::Unknown;
        }
        self.state().owners.get(identity).cloned().map_or(Ownedness::Free, Ownedness::Owned)
    }

    fn changes(&self) -> Box<dyn Changes> {
        let state = self.state();
        Box::new(MemoryChanges {
            realm: self.realm.clone(),
            host: Arc::clone(&self.host),
            changes: self.realm.shared.changes.subscribe(),
            session: self.session.clone(),
            cuts: state.hosts.get(&self.host).map_or(0, |host| host.cuts),
        })
    }

    fn session(&self) -> watch::Receiver<Session> {
        self.session.clone()
    }

    async fn demand(&self, identity: SecureHash) -> Result<(), OwnershipError> {
        self.raise(identity, None)
    }

    async fn demand_with(&self, identity: SecureHash, message: Arc<[u8]>) -> Result<(), OwnershipError> {
        self.raise(identity, Some(message).filter(|message| message.len() <= DEMAND_MESSAGE_BYTES))
    }

    fn demands(&self) -> Box<dyn Demands> {
        Box::new(MemoryDemands {
            realm: self.realm.clone(),
            host: Arc::clone(&self.host),
            version: self.realm.shared.version.subscribe(),
            session: self.session.clone(),
            round: None,
            told: 0,
        })
    }

    async fn wanted(&self) -> Result<Vec<SecureHash>, OwnershipError> {
        self.check()?;
        Ok(self.state().tellings.iter().copied().collect())
    }

    async fn demanded(&self) -> Result<Vec<SecureHash>, OwnershipError> {
        self.check()?;
        Ok(self.state().demands.keys().copied().collect())
    }

    async fn offer(&self, free_slots: u32) -> Result<(), OwnershipError> {
        self.check()?;
        if let Some(host) = self.state().hosts.get_mut(&self.host) {
            if host.slots == 0 && free_slots > 0 {
                host.round += 1;
            }
            host.slots = free_slots;
        }
        self.realm.changed();
        Ok(())
    }

    async fn tell_reach(&self, reach: Reach) -> Result<(), OwnershipError> {
        self.check()?;
        if let Some(host) = self.state().hosts.get_mut(&self.host) {
            host.reach = Some(reach);
        }
        self.realm.changed();
        Ok(())
    }

    async fn hosts(&self) -> Result<Vec<HostInfo>, OwnershipError> {
        self.check()?;
        Ok(self.state().live_hosts())
    }

    fn known_hosts(&self) -> Option<Vec<HostInfo>> {
        self.check().ok()?;
        Some(self.state().live_hosts())
    }

    async fn set_draining(&self, host: &str, draining: bool) -> Result<bool, OwnershipError> {
        self.check()?;
        let before = self.state().draining.entry(Arc::from(host)).or_default().send_replace(draining);
        Ok(before != draining)
    }

    fn draining(&self) -> watch::Receiver<bool> {
        self.state().draining.entry(Arc::clone(&self.host)).or_default().subscribe()
    }

    async fn campaign(&self) -> Result<bool, OwnershipError> {
        // With the lock, so that no session ends meanwhile.
        let _state = self.state();
        self.check()?;
        let mut is_this = false;
        self.realm.shared.scheduler.send_if_modified(|scheduler| {
            let was_none = scheduler.is_none();
            is_this = **scheduler.get_or_insert_with(|| Arc::clone(&self.host)) == *self.host;
            was_none
        });
        Ok(is_this)
    }

    async fn resign(&self) -> Result<(), OwnershipError> {
        self.check()?;
        self.realm.resign(&self.host);
        Ok(())
    }

    fn scheduler(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.realm.shared.scheduler.subscribe()
    }

    async fn close(&self) {
        let current = self.is_current(&self.state());
        if current {
            self.realm.end(&self.host, SessionState::Closed);
        }
    }
}
