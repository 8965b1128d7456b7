//! What activations need of the host.

use std::sync::Arc;
use std::time::Duration;

use maxhost_cordapps::Catalogue;
use maxhost_journal::Limits;
use maxhost_store::Store;

use super::GuestCode;
use crate::base::counters::Counters;
use crate::calls::CallServices;
use crate::commit::committer::Committer;
use crate::commit::outcomes::RecentOutcomes;
use crate::guests::placement::{CpuProfile, Placement};
use crate::reporting::events::OperatorEvents;

/// The shared parts of the host that each activation of a flow is given. All activations have the same ones.
pub(crate) struct ActivationServices {
    pub calls: Arc<CallServices>,
    /// What runs the code of flows.
    pub code: GuestCode,
    pub catalogue: Arc<Catalogue<CpuProfile>>,
    pub outcomes: Arc<RecentOutcomes>,
    pub events: OperatorEvents,
    pub placement: Placement,
    /// What a journal may hold.
    pub journal: Limits,
    /// How long the end of a flow is kept.
    pub retention: Duration,
    /// The share of flows that are run again before they end.
    pub shadow_replay: f64,
}

impl ActivationServices {
    pub fn committer(&self) -> &Arc<Committer> {
        &self.calls.committer
    }

    pub fn store(&self) -> &Store {
        &self.calls.committer.store
    }

    pub fn counters(&self) -> &Counters {
        &self.calls.committer.counters
    }
}
