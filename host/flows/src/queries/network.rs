//! Showing identities, the network and the host.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use maxhost_model::{Code, IdentityRow, NameQuery, Problem, PublicKey, X500Name, name_query};
use maxhost_pki::VerifiedParty;
use maxhost_store::FlowState;
use tokio::sync::broadcast;

use crate::api::{
    ApiResult, CordappView, FlowPhase, FlowType, HostStatus, IdentityPhase, IdentityView, NetworkChanges, NodeInfoView,
    ParametersView, PartyView,
};
use crate::base::error::stopping;
use crate::guests::placement::{CpuProfile, FlowDef};
use crate::host::lifecycle::Host;
use crate::host::parts::Parts;
use crate::registry::entry::{EntryState, IdentityEntry};

/// Keys as people compare them.
fn fingerprints(keys: &[PublicKey]) -> Vec<String> {
    keys.iter().map(ToString::to_string).collect()
}

fn cordapp_view(cordapp: &maxhost_cordapps::Cordapp<CpuProfile>) -> CordappView {
    CordappView { name: cordapp.name().to_owned(), version: cordapp.version().to_owned(), hash: cordapp.hash.clone() }
}

impl From<&FlowDef> for FlowType {
    fn from(flow: &FlowDef) -> FlowType {
        FlowType {
            name: flow.name.to_string(),
            doc: flow.descriptor.doc.clone(),
            version: flow.descriptor.version,
            startable: flow.descriptor.startable,
            responds_to: flow.responds_to(),
            arguments: flow.descriptor.arguments.clone(),
            result: flow.descriptor.result.clone(),
        }
    }
}

impl Host {
    /// `live`: see [`Host::live_of_sleepers`].
    fn identity_view(&self, entry: &IdentityEntry, live: Option<&HashMap<IdentityRow, u64>>) -> IdentityView {
        let spec = entry.spec.lock().clone();
        let cordapps = entry.cordapps(&self.parts.catalogue);
        let cordapps = cordapps.map(|set| set.cordapps.iter().map(|cordapp| cordapp_view(cordapp)).collect());
        let of_actor = || entry.live_flows.load(Ordering::Relaxed);
        let flows = match (&*entry.state.lock(), live) {
            (EntryState::Removed, _) => 0,
            (EntryState::Active { .. }, _) => of_actor(),
            // One that has lost its actor since the database was asked has what the actor knew.
            (_, Some(live)) => live.get(&entry.row).copied().unwrap_or_else(of_actor),
            (EntryState::Cold(cold) | EntryState::Quarantined { cold, .. }, None) => cold.live.len() as u64,
        };
        IdentityView {
            name: entry.text.to_string(),
            phase: self.whereabouts_of(entry).phase,
            problem: entry.problem(),
            cordapps: cordapps.unwrap_or_default(),
            flows,
            manifest: Some(spec.manifest.display().to_string()),
        }
    }

    /// How many live flows those of these identities have that have no actor here, where other hosts may run them: what those do
    /// is known from the database only. `None` of a host that is alone.
    async fn live_of_sleepers(&self, entries: &[Arc<IdentityEntry>]) -> ApiResult<Option<HashMap<IdentityRow, u64>>> {
        if self.parts.membership.is_none() {
            return Ok(None);
        }
        let asked: Vec<IdentityRow> =
            entries.iter().filter(|entry| entry.mailbox().is_none()).map(|entry| entry.row).collect();
        let mut live: HashMap<IdentityRow, u64> = asked.iter().map(|row| (*row, 0)).collect();
        if !asked.is_empty() {
            live.extend(self.parts.store.live_counts(&asked).await.map_err(Problem::from)?);
        }
        Ok(Some(live))
    }

    pub(super) async fn identity_views(&self, filter: Option<&str>) -> ApiResult<Vec<IdentityView>> {
        let directory = &self.parts.directory;
        let entries = match filter {
            Some(query) => directory.matching(query),
            None => directory.all(),
        };
        let live = self.live_of_sleepers(&entries).await?;
        let mut views: Vec<IdentityView> =
            entries.iter().map(|entry| self.identity_view(entry, live.as_ref())).collect();
        for broken in directory.broken.iter() {
            let (name, problem) = broken.value();
            let shown = name.clone().unwrap_or_else(|| file_name(broken.key()));
            if filter.is_none_or(|query| shown.to_lowercase().contains(&query.to_lowercase())) {
                views.push(broken_view(broken.key(), shown, problem));
            }
        }
        views.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(views)
    }

    pub(super) async fn one_identity(&self, name: &str) -> ApiResult<IdentityView> {
        let problem = match self.parts.directory.resolve(name) {
            Ok(entry) => {
                let live = self.live_of_sleepers(std::slice::from_ref(&entry)).await?;
                return Ok(self.identity_view(&entry, live.as_ref()));
            }
            Err(problem) => problem,
        };
        let is_named = |file: &str, known: &Option<String>| {
            let path = std::path::Path::new(file);
            let is_file = [path.file_stem(), path.file_name()].into_iter().flatten().any(|part| part == name);
            known.as_ref().is_some_and(|known| known.to_lowercase().contains(&name.to_lowercase())) || is_file
        };
        let broken = self.parts.directory.broken.iter().find(|broken| is_named(broken.key(), &broken.value().0));
        match broken {
            Some(broken) => {
                let (known, reason) = broken.value();
                let shown = known.clone().unwrap_or_else(|| file_name(broken.key()));
                Ok(broken_view(broken.key(), shown, reason))
            }
            None => Err(problem),
        }
    }

    pub(crate) fn party_view(&self, name: &X500Name) -> Option<PartyView> {
        let verified = self.parts.network.party(name).ok().flatten()?;
        Some(shown(&self.parts, verified))
    }

    /// The parties of the network that a query fits. Certificates are verified on a thread for what blocks.
    pub(super) async fn party_views(&self, query: Option<&str>, exact: bool) -> ApiResult<Vec<PartyView>> {
        let (parts, query) = (self.parts.clone(), query.map(str::to_owned));
        let work = move || {
            let whole = query.as_deref().map(NameQuery::new);
            let fits = |name: &X500Name| match (&query, &whole) {
                (Some(query), _) if exact => name.as_str() == query || name_query::has_component(name, query, true),
                (Some(query), Some(whole)) => whole.matches(name) || name_query::has_component(name, query, false),
                _ => true,
            };
            parts.parties.matching(fits).into_iter().map(|verified| shown(&parts, verified)).collect()
        };
        let found = tokio::task::spawn_blocking(work).await;
        found.map_err(|error| Problem::new(Code::Internal, format!("looking for parties failed: {error}")))
    }

    pub(super) async fn feed(&self) -> ApiResult<(Vec<PartyView>, NetworkChanges)> {
        let changes = self.network_changes.subscribe();
        let snapshot = self.party_views(None, false).await?;
        let stopping_token = self.parts.stopping.clone();
        let next = move |(mut changes, stop): (broadcast::Receiver<_>, tokio_util::sync::CancellationToken)| async move {
            let change = tokio::select! {
                change = changes.recv() => change,
                () = stop.cancelled() => return Some((Err(stopping()), (broadcast::Sender::new(1).subscribe(), stop))),
            };
            match change {
                Ok(change) => Some((Ok(change), (changes, stop))),
                Err(broadcast::error::RecvError::Closed) => None,
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let text = "the client was too slow for the changes: take a new snapshot";
                    Some((Err(Problem::new(Code::Overloaded, text)), (changes, stop)))
                }
            }
        };
        Ok((snapshot, Box::pin(futures::stream::unfold((changes, stopping_token), next))))
    }

    pub(super) fn node_info_view(&self, party: &str) -> ApiResult<NodeInfoView> {
        let query = NameQuery::new(party);
        let names = self.parts.network.find(&query);
        let name = match names.as_slice() {
            [name] => name,
            [] => {
                let text = format!("no party of the network fits '{party}'");
                return Err(Problem::new(Code::PartyNotFound, text));
            }
            several => {
                let names: Vec<&str> = several.iter().take(10).map(X500Name::as_str).collect();
                let text = format!("'{party}' fits several parties: {}", names.join("; "));
                return Err(Problem::new(Code::IdentityAmbiguous, text));
            }
        };
        let info = self.parts.network.node_info(name).map_err(Problem::from)?;
        let info = info.ok_or_else(|| Problem::new(Code::PartyNotFound, format!("{name} has left the network")))?;
        let identities = info.identities.iter().filter_map(|identity| self.party_view(&identity.party.name));
        Ok(NodeInfoView {
            addresses: info.addresses.clone(),
            identities: identities.collect(),
            platform_version: info.platform_version,
            serial: i64::try_from(info.serial).unwrap_or(i64::MAX),
        })
    }

    pub(super) fn parameters_view(&self) -> ParametersView {
        let proven = self.parts.network.parameters();
        let encoded = proven.parameters();
        let notaries = encoded.notaries.iter();
        ParametersView {
            minimum_platform_version: encoded.minimum_platform_version,
            notaries: notaries.map(|notary| (notary.party.name.to_string(), notary.validating)).collect(),
            max_message_size: encoded.max_message_size,
            max_transaction_size: encoded.max_transaction_size,
            modified_ms: i64::try_from(encoded.modified_time_ms).unwrap_or(i64::MAX),
            epoch: encoded.epoch,
            hash: proven.hash().to_string(),
            publisher_successions: encoded.publisher_successions.iter().map(|keys| fingerprints(keys)).collect(),
        }
    }

    pub(super) async fn host_status(&self) -> ApiResult<HostStatus> {
        let parts = &self.parts;
        let mut identities: BTreeMap<&'static str, u64> =
            IdentityPhase::ALL.iter().map(|phase| (phase.as_str(), 0)).collect();
        for entry in parts.directory.all() {
            *identities.entry(entry.phase().as_str()).or_default() += 1;
        }
        *identities.entry(IdentityPhase::Quarantined.as_str()).or_default() += parts.directory.broken.len() as u64;
        let mut flows: BTreeMap<&'static str, u64> = FlowPhase::ALL.iter().map(|phase| (phase.as_str(), 0)).collect();
        let live = parts.store.live_states().await.map_err(Problem::from)?;
        let running = parts.flows.count(|flow| !flow.is_waiting());
        for (state, count) in live {
            let phase = match state {
                FlowState::Paused => FlowPhase::Paused,
                FlowState::Hospital => FlowPhase::Hospital,
                _ => FlowPhase::Suspended,
            };
            *flows.entry(phase.as_str()).or_default() += count;
        }
        let suspended = flows.entry(FlowPhase::Suspended.as_str()).or_default();
        *suspended = suspended.saturating_sub(running);
        let counters = &parts.counters;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        flows.insert(FlowPhase::Running.as_str(), running);
        flows.insert(FlowPhase::Completed.as_str(), count(&counters.completed));
        flows.insert(FlowPhase::Failed.as_str(), count(&counters.failed));
        flows.insert(FlowPhase::Killed.as_str(), count(&counters.killed));
        let stats = parts.store.stats();
        Ok(HostStatus {
            identities,
            flows,
            instances: parts.room.slots.in_use(),
            rss_bytes: resident_bytes(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            counters: BTreeMap::from([
                ("flows_started", count(&counters.started)),
                ("steps", count(&counters.steps)),
                ("evictions", count(&counters.evictions)),
                ("replays", count(&counters.replays)),
                ("shadow_replays", count(&counters.shadow_replays)),
                ("fenced_units", count(&counters.fenced_units)),
                ("balance_moves", count(&counters.balance_moves)),
                ("placement_moves", count(&counters.placement_moves)),
                ("balance_ticks", count(&counters.balance_ticks)),
                ("hospitalised", count(&counters.hospital)),
                ("commits", stats.commits),
                ("units", stats.units),
            ]),
        })
    }
}

fn shown(parts: &Parts, verified: VerifiedParty) -> PartyView {
    PartyView {
        local: parts.directory.get(verified.party.name.as_str()).is_some(),
        name: verified.party.name.to_string(),
        owning_key: verified.party.owning_key.spki().to_vec(),
        notary: verified.notary,
    }
}

fn broken_view(file: &str, name: String, problem: &Problem) -> IdentityView {
    IdentityView {
        name,
        phase: IdentityPhase::Quarantined,
        problem: Some(problem.clone()),
        cordapps: Vec::new(),
        flows: 0,
        manifest: Some(file.to_owned()),
    }
}

/// What a manifest without a name is called.
fn file_name(file: &str) -> String {
    let name = std::path::Path::new(file).file_name();
    name.map_or_else(|| file.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Resident memory of this process (proc(5), statm); 0 where the system does not tell.
fn resident_bytes() -> u64 {
    const PAGE: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE
}
