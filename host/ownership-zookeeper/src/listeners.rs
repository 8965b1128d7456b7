//! What a host is told as it happens: changes of owners, and demands.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use maxhost_ownership::{Change, Changes, Demand, Demands, Session, SessionState};
use tokio::sync::{broadcast, watch};

use crate::session::Shared;

/// Listens for changes of owners.
pub(crate) struct ZooKeeperChanges {
    changes: broadcast::Receiver<Change>,
    session: watch::Receiver<Session>,
}

impl ZooKeeperChanges {
    pub fn of(shared: &Shared) -> ZooKeeperChanges {
        ZooKeeperChanges { changes: shared.changes.subscribe(), session: shared.session.subscribe() }
    }
}

#[async_trait]
impl Changes for ZooKeeperChanges {
    async fn next(&mut self) -> Option<Change> {
        tokio::select! {
            biased;
            _ = self.session.wait_for(|session| session.state == SessionState::Closed) => None,
            change = self.changes.recv() => match change {
                Ok(change) => Some(change),
                Err(broadcast::error::RecvError::Lagged(_)) => Some(Change::Missed),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        }
    }
}

/// Listens for demands that concern this host.
pub(crate) struct ZooKeeperDemands {
    shared: Arc<Shared>,
    version: watch::Receiver<u64>,
    round: Option<u64>,
    /// The number of the last telling that was given out in this round.
    told: u64,
}

impl ZooKeeperDemands {
    pub fn of(shared: &Arc<Shared>) -> ZooKeeperDemands {
        ZooKeeperDemands { shared: Arc::clone(shared), version: shared.version.subscribe(), round: None, told: 0 }
    }

    fn find(&mut self) -> Option<Demand> {
        if self.shared.slots.load(Ordering::Acquire) == 0 || self.shared.link().is_err() {
            return None;
        }
        let board = self.shared.board.lock();
        if self.round != Some(board.round) {
            (self.round, self.told) = (Some(board.round), 0);
        }
        let (number, demand) = board.next_demand(&self.shared.options.host, self.told)?;
        self.told = number;
        Some(demand)
    }
}

#[async_trait]
impl Demands for ZooKeeperDemands {
    async fn next(&mut self) -> Option<Demand> {
        loop {
            // Seen before the look, so that what changes after the look wakes us.
            self.version.borrow_and_update();
            if self.shared.session.borrow().state == SessionState::Closed {
                return None;
            }
            if let Some(demand) = self.find() {
                return Some(demand);
            }
            self.version.changed().await.ok()?;
        }
    }
}
