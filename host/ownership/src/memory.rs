//! Ownership in memory: the embedded default, and a service for tests whose faults happen on command.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use crate::error::OwnershipError;
use crate::ownership::{Change, Changes, Claim, Demand, Demands, Owner, Ownership, SessionState};
use crate::turns;

/// Changes that a slow listener may be behind before it misses some.
const CHANGES: usize = 1024;

/// What several hosts share. A single host has one for itself alone.
#[derive(Clone)]
pub struct Realm {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changes: broadcast::Sender<Change>,
    /// Counts what may concern a listener for demands.
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    hosts: HashMap<Arc<str>, Host>,
    owners: BTreeMap<Arc<str>, Owner>,
    /// Open demands and their numbers.
    demands: BTreeMap<Arc<str>, u64>,
    next_demand: u64,
    /// Above every epoch given so far, whichever the identity.
    next_epoch: i64,
}

struct Host {
    session: watch::Sender<SessionState>,
    slots: u32,
    /// Rises whenever demands told before must be told again.
    round: u64,
    /// How often the connection went away.
    cuts: u64,
}

impl Host {
    fn is_connected(&self) -> bool {
        *self.session.borrow() == SessionState::Connected
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
    /// One without hosts.
    #[must_use]
    pub fn new() -> Realm {
        let shared = Shared {
            state: Mutex::new(State { next_epoch: 1, ..State::default() }),
            changes: broadcast::Sender::new(CHANGES),
            version: watch::Sender::new(0),
        };
        Realm { shared: Arc::new(shared) }
    }

    /// Lets a host in; one of the same name that is there already is lost.
    #[must_use]
    pub fn join(&self, host: &str) -> MemoryOwnership {
        self.expire(host);
        let name: Arc<str> = Arc::from(host);
        let session = watch::Sender::new(SessionState::Connected);
        let receiver = session.subscribe();
        self.shared.state.lock().hosts.insert(Arc::clone(&name), Host { session, slots: 0, round: 0, cuts: 0 });
        MemoryOwnership { realm: self.clone(), host: name, session: receiver }
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
            && *host.session.borrow() == from
        {
            host.round += 1;
            host.cuts += u64::from(from == SessionState::Connected);
            host.session.send_replace(to);
        }
        self.changed();
    }

    fn end(&self, host: &str, state: SessionState) {
        let mut shared = self.shared.state.lock();
        let owned: Vec<Arc<str>> =
            shared.owners.values().filter(|owner| *owner.host == *host).map(|o| Arc::clone(&o.identity)).collect();
        for identity in owned {
            if let Some(owner) = shared.owners.remove(&identity) {
                self.tell(Change::Released(owner));
            }
        }
        if let Some(host) = shared.hosts.get_mut(host)
            && *host.session.borrow() != SessionState::Closed
        {
            host.slots = 0;
            host.cuts += 1;
            host.session.send_replace(state);
        }
        drop(shared);
        self.changed();
    }

    /// Told under the lock, so that changes are heard in the order they happened. Nobody need listen.
    fn tell(&self, change: Change) {
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
    session: watch::Receiver<SessionState>,
}

impl MemoryOwnership {
    /// For a host that is alone.
    #[must_use]
    pub fn embedded(host: &str) -> MemoryOwnership {
        Realm::new().join(host)
    }

    fn check(&self) -> Result<(), OwnershipError> {
        match *self.session.borrow() {
            SessionState::Connected => Ok(()),
            SessionState::Suspended => Err(OwnershipError::Unavailable("no connection".to_owned())),
            SessionState::Lost => Err(OwnershipError::Unavailable("the session was lost".to_owned())),
            SessionState::Closed => Err(OwnershipError::Closed),
        }
    }

    fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.realm.shared.state.lock()
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

    async fn claim(&self, identity: &str, stored_epoch: i64) -> Result<Claim, OwnershipError> {
        self.check()?;
        let mut state = self.state();
        if let Some(Owner { identity, host, epoch }) = state.owners.get(identity).cloned() {
            return Err(OwnershipError::Owned { identity, host, epoch });
        }
        let identity: Arc<str> = Arc::from(identity);
        let epoch = state.next_epoch.max(stored_epoch.saturating_add(1));
        state.next_epoch = epoch.saturating_add(1);
        let owner = Owner { identity: Arc::clone(&identity), host: Arc::clone(&self.host), epoch };
        state.owners.insert(Arc::clone(&identity), owner.clone());
        state.demands.remove(&identity);
        self.realm.tell(Change::Claimed(owner));
        drop(state);
        self.realm.changed();
        Ok(Claim { identity, epoch })
    }

    async fn release(&self, identity: &str) -> Result<bool, OwnershipError> {
        self.check()?;
        let mut state = self.state();
        if state.owners.get(identity).is_none_or(|owner| owner.host != self.host) {
            return Ok(false);
        }
        if let Some(owner) = state.owners.remove(identity) {
            self.realm.tell(Change::Released(owner));
        }
        Ok(true)
    }

    async fn owners(&self) -> Result<Vec<Owner>, OwnershipError> {
        self.check()?;
        Ok(self.state().owners.values().cloned().collect())
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

    fn session(&self) -> watch::Receiver<SessionState> {
        self.session.clone()
    }

    async fn demand(&self, identity: &str) -> Result<(), OwnershipError> {
        self.check()?;
        let mut state = self.state();
        if state.owners.contains_key(identity) || state.demands.contains_key(identity) {
            return Ok(());
        }
        let number = state.next_demand;
        state.next_demand += 1;
        state.demands.insert(Arc::from(identity), number);
        drop(state);
        self.realm.changed();
        Ok(())
    }

    fn demands(&self) -> Box<dyn Demands> {
        Box::new(MemoryDemands {
            realm: self.realm.clone(),
            host: Arc::clone(&self.host),
            version: self.realm.shared.version.subscribe(),
            session: self.session.clone(),
            round: None,
            told: HashSet::new(),
        })
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

    async fn close(&self) {
        let current = self.is_current(&self.state());
        if current {
            self.realm.end(&self.host, SessionState::Closed);
        }
    }
}

struct MemoryChanges {
    realm: Realm,
    host: Arc<str>,
    changes: broadcast::Receiver<Change>,
    session: watch::Receiver<SessionState>,
    /// Of the host, when changes were last complete.
    cuts: u64,
}

impl MemoryChanges {
    /// Whether the connection was away since the last look.
    fn was_cut(&mut self) -> bool {
        let cuts = self.realm.shared.state.lock().hosts.get(&self.host).map_or(self.cuts, |host| host.cuts);
        std::mem::replace(&mut self.cuts, cuts) != cuts
    }
}

#[async_trait]
impl Changes for MemoryChanges {
    async fn next(&mut self) -> Option<Change> {
        loop {
            let reachable = |s: &SessionState| matches!(s, SessionState::Connected | SessionState::Closed);
            if *self.session.wait_for(reachable).await.ok()? == SessionState::Closed {
                return None;
            }
            if self.was_cut() {
                // What happened meanwhile is not told, as it would not be over a connection.
                self.changes = self.changes.resubscribe();
                return Some(Change::Missed);
            }
            tokio::select! {
                biased;
                changed = self.session.changed() => changed.ok()?,
                change = self.changes.recv() => match change {
                    Ok(change) => return Some(change),
                    Err(broadcast::error::RecvError::Lagged(_)) => return Some(Change::Missed),
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            }
        }
    }
}

struct MemoryDemands {
    realm: Realm,
    host: Arc<str>,
    version: watch::Receiver<u64>,
    session: watch::Receiver<SessionState>,
    round: Option<u64>,
    /// Numbers of open demands that were told in this round.
    told: HashSet<u64>,
}

impl MemoryDemands {
    /// An open demand that was not told yet, oldest first.
    fn find(&mut self) -> Option<Demand> {
        let state = self.realm.shared.state.lock();
        let host = state.hosts.get(&self.host).filter(|host| host.is_connected() && host.slots > 0)?;
        if self.round != Some(host.round) {
            self.round = Some(host.round);
            self.told.clear();
        }
        let open: HashSet<u64> = state.demands.values().copied().collect();
        self.told.retain(|number| open.contains(number));
        let untold = state.demands.iter().filter(|(_, number)| !self.told.contains(number));
        let (identity, number) = untold.min_by_key(|(_, number)| **number)?;
        let connected = state.hosts.iter().filter(|(_, host)| host.is_connected());
        let turn = turns::turn(identity, &self.host, connected.map(|(name, host)| (&**name, host.slots)))?;
        self.told.insert(*number);
        Some(Demand { identity: Arc::clone(identity), turn })
    }
}

#[async_trait]
impl Demands for MemoryDemands {
    async fn next(&mut self) -> Option<Demand> {
        loop {
            // Seen before the look, so that what changes after the look wakes us.
            self.version.borrow_and_update();
            if *self.session.borrow() == SessionState::Closed {
                return None;
            }
            if let Some(demand) = self.find() {
                return Some(demand);
            }
            self.version.changed().await.ok()?;
        }
    }
}
