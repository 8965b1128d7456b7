//! Those who listen in memory: for changes of owners, and for demands.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{broadcast, watch};

use super::Realm;
use crate::ownership::{Change, Changes, Demand, Demands, Session, SessionState};
use crate::rendezvous;

pub(super) struct MemoryChanges {
    pub(super) realm: Realm,
    pub(super) host: Arc<str>,
    pub(super) changes: broadcast::Receiver<Change>,
    pub(super) session: watch::Receiver<Session>,
    /// The cuts of the host when changes were last complete.
    pub(super) cuts: u64,
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
            let reachable = |s: &Session| matches!(s.state, SessionState::Connected | SessionState::Closed);
            if self.session.wait_for(reachable).await.ok()?.state == SessionState::Closed {
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

pub(super) struct MemoryDemands {
    pub(super) realm: Realm,
    pub(super) host: Arc<str>,
    pub(super) version: watch::Receiver<u64>,
    pub(super) session: watch::Receiver<Session>,
    pub(super) round: Option<u64>,
    /// The number of the last telling that was given out in this round.
    pub(super) told: u64,
}

impl MemoryDemands {
    /// A demand that was not told yet, in the order of tellings.
    fn find(&mut self) -> Option<Demand> {
        let state = self.realm.shared.state.lock();
        let host = state.hosts.get(&self.host).filter(|host| host.is_connected() && host.slots > 0)?;
        if self.round != Some(host.round) {
            self.round = Some(host.round);
            self.told = 0;
        }
        let (number, identity) = state.tellings.after(self.told)?;
        let open = state.demands.get(&identity);
        let target = open.and_then(|demand| demand.target.as_deref());
        let connected = state.hosts.iter().filter(|(_, host)| host.is_connected());
        let weights = connected.map(|(name, host)| (&**name, host.slots));
        let turn = rendezvous::turn(&identity, &self.host, weights, target)?;
        self.told = number;
        Some(Demand { identity, turn, message: open.and_then(|demand| demand.message.clone()) })
    }
}

#[async_trait]
impl Demands for MemoryDemands {
    async fn next(&mut self) -> Option<Demand> {
        loop {
            // Seen before the look, so that what changes after the look wakes us.
            self.version.borrow_and_update();
            if self.session.borrow().state == SessionState::Closed {
                return None;
            }
            if let Some(demand) = self.find() {
                return Some(demand);
            }
            self.version.changed().await.ok()?;
        }
    }
}
