//! What the calls of a flow need of the host.

use std::sync::Arc;

use maxhost_journal::{Millis, Nanos};
use maxhost_pki::NetworkMap;

use super::ledger::Findings;
use crate::admission::GuestRoom;
use crate::clock::Clock;
use crate::committer::Committer;
use crate::contracts::Contracts;
use crate::deadlines::Deadlines;
use crate::options::Eviction;
use crate::parameters::ParametersOfNetwork;
use crate::parties::Parties;
use crate::placement::Placement;
use crate::spawner::Spawner;

/// The shared parts of the host that the calls of each flow are given. All flows have the same ones.
pub(crate) struct CallServices {
    pub committer: Arc<Committer>,
    pub clock: Arc<dyn Clock>,
    pub deadlines: Arc<Deadlines>,
    pub parties: Parties,
    pub network: Arc<NetworkMap>,
    pub parameters: Arc<ParametersOfNetwork>,
    pub contracts: Arc<dyn Contracts>,
    pub findings: Findings,
    pub io: Spawner,
    pub placement: Placement,
    pub room: GuestRoom,
    /// When the instance of a flow that waits is dropped.
    pub eviction: Eviction,
    /// Log lines of one run at most.
    pub log_lines: u32,
    /// Their bytes.
    pub log_bytes: u64,
}

impl CallServices {
    /// Nanoseconds since 1970 UTC.
    pub fn now(&self) -> Nanos {
        self.clock.wall()
    }

    /// Milliseconds since 1970 UTC.
    pub fn now_millis(&self) -> Millis {
        crate::clock::wall_millis(&*self.clock)
    }
}
