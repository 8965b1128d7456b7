//! What the outside is told of a cluster: its hosts, which of them runs an identity, and what they share.

use std::collections::BTreeMap;
use std::time::Duration;

pub use maxhost_ownership::Roles;

use super::IdentityPhase;
use crate::options::HostRules;

/// What a host of the cluster is doing: the `state` that commands and RPC clients are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostState {
    /// It runs identities.
    Up,
    /// It gives up what it runs and takes nothing more.
    Draining,
    /// It does not reach the ownership service, which only the host itself knows of itself; or it runs no identities because
    /// another host reaches more of the database and the broker.
    Suspended,
    /// It is not in the cluster. Told of a host that need not drain any more when it comes back.
    Away,
}

impl HostState {
    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            HostState::Up => "up",
            HostState::Draining => "draining",
            HostState::Suspended => "suspended",
            HostState::Away => "away",
        }
    }
}

/// A host of the cluster.
#[derive(Debug, Clone)]
pub struct ClusterHost {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: HostState,
    /// What it does at all.
    pub roles: Roles,
    /// Words that manifests may name it by, beside its name.
    pub labels: Vec<String>,
    /// How many identities it owns.
    pub identities: u64,
    /// How many it may own at once; 0 if it runs no flows.
    pub slots: u64,
    /// Since when it is in the cluster, in milliseconds since 1970.
    pub since_ms: i64,
}

/// Which host runs an identity.
#[derive(Debug, Clone)]
pub struct Whereabouts {
    /// X.500 name.
    pub identity: String,
    /// The name of the host that owns it; `None` while it sleeps.
    pub host: Option<String>,
    /// The epoch of its owner's claim.
    pub epoch: Option<i64>,
    /// What it is doing, as far as this host knows: of one that another host owns it is known that it is active.
    pub phase: IdentityPhase,
    /// What its manifest says of hosts.
    pub rules: HostRules,
    /// Why no host may run it now: its manifest pins it to hosts of which none is there, takes identities and has room.
    pub unplaced: Option<String>,
}

/// Whether a part that the hosts share can be used.
#[derive(Debug, Clone)]
pub struct PartHealth {
    /// It answers.
    pub ok: bool,
    /// What it is, or what is wrong with it.
    pub detail: String,
}

/// The cluster at a glance.
#[derive(Debug, Clone)]
pub struct ClusterStatus {
    /// Its hosts, by name.
    pub hosts: Vec<ClusterHost>,
    /// Identities: `owned` by a host, `asleep`, `unplaced`, which no host may run now, and `quarantined` on this host.
    pub identities: BTreeMap<&'static str, u64>,
    /// Names of those that are unplaced, with the reason; the first [`ClusterStatus::UNPLACED`] of them, by name.
    pub unplaced: Vec<(String, String)>,
    /// Slots that are wanted, whether a host has given them or not; `None` if that is not known.
    pub demand: Option<u64>,
    /// For how long the message has waited that waits longest; `None` if nothing waits, or that is not known.
    pub oldest_message: Option<Duration>,
    /// The host that raises demand for identities that are due; `None` if there is none, or that is not known.
    pub scheduler: Option<String>,
    /// The broker.
    pub broker: PartHealth,
    /// The database.
    pub store: PartHealth,
    /// The ownership service.
    pub ownership: PartHealth,
}

impl ClusterStatus {
    /// How many unplaced identities are named.
    pub const UNPLACED: usize = 10;
}
