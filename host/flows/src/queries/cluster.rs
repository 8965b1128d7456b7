//! Showing the cluster: its hosts, which of them runs which identity, and whether what they share can be used. A host that
//! is alone is a cluster of one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use maxhost_model::{Code, FencingToken, Problem, SecureHash};
use maxhost_ownership::{HostInfo, Ownedness, SessionState};
use tokio::time::Instant;

use crate::api::{ApiResult, ClusterHost, ClusterStatus, HostState, IdentityPhase, PartHealth, Roles, Whereabouts};
use crate::cluster::host_rules;
use crate::host::lifecycle::Host;
use crate::registry::entry::{EntryState, IdentityEntry};
use crate::relay::commands::{self, Asked, Sent};

/// A part that does not answer by then is told as one that does not.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a hand-over to a host may take, and how often it is looked whether it has it.
const MOVE: Duration = Duration::from_secs(20);
const MOVE_LOOK: Duration = Duration::from_millis(50);
/// After so long the same owner is asked again, because what he was asked may be lost. Who owns the identity after him is asked
/// at once.
const MOVE_AGAIN: Duration = Duration::from_secs(5);

impl Host {
    pub(super) async fn cluster_hosts(&self) -> ApiResult<Vec<ClusterHost>> {
        let ownership = &self.parts.ownership;
        let hosts = ownership.hosts().await.map_err(Problem::from)?;
        let mut owned: HashMap<String, u64> = HashMap::new();
        for owner in ownership.owners().await.map_err(Problem::from)? {
            *owned.entry(owner.host.to_string()).or_default() += 1;
        }
        Ok(hosts
            .into_iter()
            .map(|host| self.cluster_host(&host, owned.get(&*host.name).copied().unwrap_or(0)))
            .collect())
    }

    fn cluster_host(&self, host: &HostInfo, identities: u64) -> ClusterHost {
        let is_this = *host.name == *self.parts.ownership.host();
        let is_cut = is_this && self.parts.ownership.session().borrow().state != SessionState::Connected;
        let slots = match &self.parts.membership {
            Some(membership) if is_this => u64::from(membership.slots()),
            Some(_) => u64::from(host.free_slots) + identities,
            // One that is alone has room for whatever its manifests name.
            None => self.parts.directory.len() as u64,
        };
        let stands_back = host.reach.as_ref().is_some_and(|reach| reach.stands_back);
        let state = match (is_cut || stands_back, host.draining) {
            (true, _) => HostState::Suspended,
            (false, true) => HostState::Draining,
            (false, false) => HostState::Up,
        };
        let name = host.name.to_string();
        let labels = host.labels.iter().map(ToString::to_string).collect();
        ClusterHost { name, state, roles: host.roles, labels, identities, slots, since_ms: host.since_ms }
    }

    pub(super) async fn ask_to_drain(&self, host: &str, draining: bool) -> ApiResult<ClusterHost> {
        if self.parts.membership.is_none() {
            return Err(Problem::new(Code::RequestInvalid, "this host is alone: nobody could take over what it runs")
                .remedy("stop the host instead, or let it share its identities with others: docs/operating.md"));
        }
        // Nobody asks a host to drain that is not there: the name may be written wrongly. To take it back is possible all the
        // same, because the wish outlives the host.
        if draining {
            self.host_named(host).await?;
        }
        let is_news = self.parts.ownership.set_draining(host, draining).await.map_err(Problem::from)?;
        match self.host_named(host).await {
            Err(problem) if problem.code == Code::HostNotFound && is_news => Ok(ClusterHost {
                name: host.to_owned(),
                state: HostState::Away,
                roles: Roles { flows: false, rpc: false },
                labels: Vec::new(),
                identities: 0,
                slots: 0,
                since_ms: 0,
            }),
            found => found,
        }
    }

    async fn host_named(&self, host: &str) -> ApiResult<ClusterHost> {
        let hosts = self.cluster_hosts().await?;
        let names: Vec<String> = hosts.iter().map(|host| host.name.clone()).collect();
        hosts.into_iter().find(|found| found.name == host).ok_or_else(|| {
            let text = format!("no host of the cluster is called '{host}'; there are {}", names.join(", "));
            Problem::new(Code::HostNotFound, text).detail("host", host)
        })
    }

    /// Has an identity handed over to the host of this name, also one that sleeps. Returns when that host owns it.
    ///
    /// # Errors
    /// There is no such host, or it takes no identities; it has not taken this one in time.
    pub(super) async fn hand_to(&self, entry: &Arc<IdentityEntry>, to: &str) -> ApiResult<Whereabouts> {
        if self.parts.membership.is_none() {
            return Err(Problem::new(Code::RequestInvalid, "this host is alone: there is no other to run an identity")
                .remedy("let it share its identities with others: docs/operating.md"));
        }
        let target = self.host_named(to).await?;
        let found = self.whereabouts_of(entry);
        if found.host.as_deref() == Some(to) {
            return Ok(found);
        }
        let rules = entry.spec.lock().hosts.clone();
        let known = self.parts.ownership.known_hosts().unwrap_or_default();
        let is_forbidden = known.iter().any(|host| *host.name == *to && !host_rules::may_run(&rules, host));
        let refused = match target {
            ClusterHost { roles: Roles { flows: false, .. }, .. } => Some("runs no flows: it answers clients only"),
            _ if is_forbidden => Some("is none of those that the identity's manifest names in placement.only"),
            ClusterHost { state: HostState::Draining, .. } => Some("gives up what it runs and takes nothing"),
            ClusterHost { state: HostState::Suspended, .. } => Some("does not reach all that hosts share"),
            ClusterHost { identities, slots, .. } if identities >= slots => Some("has no slot free"),
            _ => None,
        };
        if let Some(why) = refused {
            return Err(Problem::new(Code::RequestInvalid, format!("host '{to}' {why}"))
                .remedy("name another host; `maxhost host list` shows them")
                .detail("host", to));
        }
        let deadline = Instant::now() + MOVE;
        let mut asked = None;
        loop {
            let owner = self.ownedness_of(entry);
            if !matches!(&owner, Ownedness::Owned(owner) if *owner.host == *to) {
                asked = self.ask_to_move(entry, to, &owner, asked).await?;
            }
            let found = self.whereabouts_of(entry);
            match &found.host {
                Some(host) if host == to => return Ok(found),
                _ if Instant::now() < deadline => {}
                host => {
                    let at = host.as_ref().map_or("nobody runs it".to_owned(), |host| format!("{host} runs it"));
                    let text = format!("{} was to be handed over to {to}, and is not yet: {at}", entry.text);
                    return Err(Problem::new(Code::Timeout, text)
                        .remedy(format!("look again with `maxhost identity where \"{}\"`", entry.text))
                        .detail("host", to));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(MOVE_LOOK) => {}
                () = self.parts.stopping.cancelled() => return Err(crate::base::error::stopping()),
            }
        }
    }

    /// Asks the owner of an identity to hand it over, unless he was asked a moment ago; has it run by somebody if nobody owns
    /// it, because only an owner can be asked. Returns who was asked last, and when.
    ///
    /// # Errors
    /// The owner cannot be asked from this host.
    async fn ask_to_move(
        &self,
        entry: &Arc<IdentityEntry>,
        to: &str,
        owner: &Ownedness,
        last: Option<(Option<FencingToken>, Instant)>,
    ) -> ApiResult<Option<(Option<FencingToken>, Instant)>> {
        let from = match owner {
            Ownedness::Owned(owner) => Some(owner.token),
            Ownedness::Free => None,
            Ownedness::Unknown => return Ok(last),
        };
        if last.is_some_and(|(asked, at)| asked == from && at.elapsed() < MOVE_AGAIN) {
            return Ok(last);
        }
        match (from, entry.key()) {
            (Some(from), _) => {
                let asked = Asked::Move { to: to.to_owned(), from };
                // One that was not confirmed is followed by another.
                let (Sent::Taken | Sent::Unknown(_)) = commands::send(&self.parts.relay, entry, asked).await?;
            }
            (None, Some(key)) => {
                self.parts.relay.is_sent_to(key);
            }
            (None, None) => {}
        }
        Ok(Some((from, Instant::now())))
    }

    fn ownedness_of(&self, entry: &IdentityEntry) -> Ownedness {
        entry.key().map_or(Ownedness::Unknown, |key| self.parts.ownership.owner_of(&key))
    }

    pub(super) fn whereabouts_of(&self, entry: &IdentityEntry) -> Whereabouts {
        let ownership = &self.parts.ownership;
        let owner = match self.ownedness_of(entry) {
            // A host that is alone keeps what it owns: its identities sleep all the same.
            Ownedness::Owned(_) if self.parts.membership.is_none() && entry.is_at_rest() => None,
            Ownedness::Owned(owner) => Some(owner),
            Ownedness::Free | Ownedness::Unknown => None,
        };
        let phase = match &owner {
            Some(owner) if *owner.host != *ownership.host() => IdentityPhase::Active,
            _ => entry.phase(),
        };
        // Before the answer is made, in which the lock would be held while the manifest is looked at again.
        let rules = entry.spec.lock().hosts.clone();
        Whereabouts {
            identity: entry.text.to_string(),
            host: owner.as_ref().map(|owner| owner.host.to_string()),
            epoch: owner.map(|owner| owner.token.epoch),
            phase,
            rules,
            unplaced: self.unplaced(entry),
        }
    }

    /// Why no host may run an identity now. A host that is alone runs all.
    fn unplaced(&self, entry: &IdentityEntry) -> Option<String> {
        self.parts.membership.as_ref()?;
        self.parts.candidates.unplaced(entry).map(|unplaced| unplaced.reason)
    }

    pub(super) fn all_whereabouts(&self) -> Vec<Whereabouts> {
        let mut all: Vec<Whereabouts> =
            self.parts.directory.all().iter().map(|entry| self.whereabouts_of(entry)).collect();
        all.sort_by(|a, b| a.identity.cmp(&b.identity));
        all
    }

    pub(super) async fn cluster_at_a_glance(&self) -> ApiResult<ClusterStatus> {
        let (hosts, demand) = tokio::join!(self.cluster_hosts(), self.slots_in_demand());
        let (ownership, hosts) = match hosts {
            Ok(hosts) => (self.ownership_health(), hosts),
            Err(problem) => (PartHealth { ok: false, detail: problem.message }, Vec::new()),
        };
        let mut identities = BTreeMap::from([("owned", 0), ("asleep", 0), ("unplaced", 0), ("quarantined", 0)]);
        let mut unplaced = Vec::new();
        for entry in self.parts.directory.all() {
            let is_quarantined = matches!(&*entry.state.lock(), EntryState::Quarantined { .. });
            let found = self.whereabouts_of(&entry);
            let word = match (found.host, found.unplaced) {
                (Some(_), _) => "owned",
                (None, _) if is_quarantined => "quarantined",
                (None, Some(reason)) => {
                    unplaced.push((found.identity, reason));
                    "unplaced"
                }
                (None, None) => "asleep",
            };
            *identities.entry(word).or_default() += 1;
        }
        unplaced.sort();
        unplaced.truncate(ClusterStatus::UNPLACED);
        let scheduler = self.parts.ownership.scheduler().borrow().as_deref().map(str::to_owned);
        Ok(ClusterStatus {
            hosts,
            identities,
            unplaced,
            demand: demand.ok(),
            oldest_message: self.oldest_message().await.ok().flatten(),
            scheduler,
            broker: self.broker_health().await,
            store: self.store_health().await,
            ownership,
        })
    }

    /// One slot for each identity of this network that is demanded. A demand outlives its owner and ends when the identity
    /// sleeps, so this does not fall because hosts have taken what was wanted. A host that is alone wants no others.
    ///
    /// # Errors
    /// It is not known.
    pub(super) async fn slots_in_demand(&self) -> ApiResult<u64> {
        if self.parts.membership.is_none() {
            return Ok(0);
        }
        let demanded = self.parts.ownership.demanded().await.map_err(Problem::from)?;
        let is_ours = |identity: &&SecureHash| self.parts.directory.by_key(identity).is_some();
        Ok(demanded.iter().filter(is_ours).count() as u64)
    }

    /// For how long the message has waited that waits longest: in the broker, in the database for the broker, or in the
    /// database for its recipient. `None` if nothing waits. Rows have the time that hosts have run, an initiation counts from when
    /// this host saw it first, and what the broker has counts as [`Broker::oldest`] says.
    ///
    /// # Errors
    /// The broker or the database does not answer in time, so it is not known.
    ///
    /// [`Broker::oldest`]: maxhost_broker::Broker::oldest
    pub async fn oldest_message(&self) -> ApiResult<Option<Duration>> {
        let looking = async {
            let (store, broker) = (&self.parts.store, &self.parts.broker);
            let (broker, outbox, initiations) =
                tokio::join!(broker.oldest(), store.oldest_outbox(), self.parts.age_of_initiations());
            let outbox = outbox.map_err(Problem::from)?.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
            Ok([broker.map_err(Problem::from)?, outbox, initiations.map_err(Problem::from)?]
                .into_iter()
                .flatten()
                .max())
        };
        tokio::time::timeout(PATIENCE, looking)
            .await
            .unwrap_or_else(|_| Err(Problem::new(Code::Timeout, "broker or database do not answer in time")))
    }

    pub(super) fn ownership_health(&self) -> PartHealth {
        let state = self.parts.ownership.session().borrow().state;
        let detail = match (state, &self.parts.membership) {
            (SessionState::Connected, Some(_)) => "answers",
            (SessionState::Connected, None) => "embedded: this host is alone",
            (SessionState::Suspended, _) => "does not answer",
            (SessionState::Lost, _) => "the session of this host is over",
            (SessionState::Closed, _) => "this host has left the cluster",
        };
        PartHealth { ok: state == SessionState::Connected, detail: detail.to_owned() }
    }

    async fn broker_health(&self) -> PartHealth {
        if let Some(trouble) = self.parts.broker.trouble() {
            return PartHealth { ok: false, detail: trouble.to_string() };
        }
        match tokio::time::timeout(PATIENCE, self.parts.broker.waiting()).await {
            Ok(Ok(waiting)) => {
                PartHealth { ok: true, detail: format!("answers; {} queues wait for somebody", waiting.len()) }
            }
            Ok(Err(error)) => PartHealth { ok: false, detail: error.to_string() },
            // Many queues take long to count.
            Err(_) => PartHealth { ok: true, detail: "connected; its queues could not be counted in time".to_owned() },
        }
    }

    async fn store_health(&self) -> PartHealth {
        match tokio::time::timeout(PATIENCE, self.parts.store.identities()).await {
            Ok(Ok(known)) => PartHealth { ok: true, detail: format!("answers; it knows {} identities", known.len()) },
            Ok(Err(error)) => PartHealth { ok: false, detail: error.to_string() },
            Err(_) => PartHealth { ok: false, detail: "does not answer in time".to_owned() },
        }
    }
}
