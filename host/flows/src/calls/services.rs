//! What the calls of a flow need of the host.

use std::sync::Arc;

use maxhost_journal::{Millis, Nanos};
use maxhost_pki::NetworkMap;

use super::ledger::Findings;
use crate::base::clock::Clock;
use crate::base::spawner::Spawner;
use crate::commit::committer::Committer;
use crate::flow::deadlines::Deadlines;
use crate::guests::admission::GuestRoom;
use crate::guests::placement::Placement;
use crate::ledger::contracts::Contracts;
use crate::ledger::parameters::ParametersOfNetwork;
use crate::ledger::parties::Parties;
use crate::options::Eviction;

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
        crate::base::clock::wall_millis(&*self.clock)
    }
}
