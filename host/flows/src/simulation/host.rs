//! A host as it is in a simulated world: everything that makes flows run is real, but for the guests' code, the disk, the
//! broker, the keys, the threads and the clock.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use maxhost_model::{FlowRow, Problem, X500Name};
use maxhost_ownership::MemoryOwnership;
use maxhost_pki::OpenIdentity;
use maxhost_store::{Caution, Claim, ClaimRequest, Committer, Store, StoreError};
use tokio::sync::oneshot;

use super::database::{Database, Disk};
use super::executor::Executor;
use super::faults::{Faults, unavailable};
use super::fixture::fixture;
use super::guest::Guests;
use super::plan::{Plan, Root};
use super::relay::Broker;
use super::{Broken, OWNERS, PARTIES};
use crate::activation::GuestCode;
use crate::base::clock::tests::VirtualClock;
use crate::base::spawner::Spawner;
use crate::cluster::membership::Membership;
use crate::guests::admission::Slots;
use crate::guests::threads::GuestThreads;
use crate::host::parts::{Foundations, Parts};
use crate::ledger::notary_queue::NotaryQueue;
use crate::options::{Balancing, CordappRef, HostOptions, IdentityLimits, IdentitySpec, NotaryKind};
use crate::registry::entry::IdentityEntry;
use crate::registry::keys::IdentityKeys;
use crate::registry::message::{Durable, IdentityCommand, SharedFailure, StartCommand, Ticket};

/// How soon something that was refused is asked for again.
const AGAIN: Duration = Duration::from_millis(50);
/// Identities that a host that shares them runs at once, and how long the ownership service waits for a sign of life of it.
const SLOTS: u32 = 100;
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// What is around a host, and outlives it.
pub(super) struct Surroundings {
    pub guests: Arc<Guests>,
    pub executor: Executor,
    pub clock: VirtualClock,
    pub broker: Broker,
    pub faults: Faults,
    pub disk: Disk,
    pub broken: Option<Broken>,
}

/// Hands out keys that are open already, unless there is a mishap.
struct OpenKeys(Faults);

impl IdentityKeys for OpenKeys {
    fn open(&self, entry: &IdentityEntry) -> Result<Arc<OpenIdentity>, Problem> {
        if self.0.mishap(30) {
            return Err(unavailable().into());
        }
        let index = usize::try_from(entry.row.0 - 1).unwrap();
        Ok(fixture().keys[index].clone())
    }
}

/// The host's parts.
pub(super) fn parts(plan: &Plan, around: &Surroundings, database: &Database) -> Arc<Parts> {
    let fixture = fixture();
    let options = HostOptions {
        eviction: plan.eviction,
        idle_close: plan.idle_close,
        shadow_replay: plan.shadow_replay,
        always_broker: plan.always_broker,
        memory: plan.memory,
        ..fixture.options.clone()
    };
    Arc::new(Parts::assemble(Foundations {
        options,
        store: Store::new(database.clone()),
        broker: fixture.broker.clone(),
        ownership: Arc::new(MemoryOwnership::embedded("this host", database.run())),
        membership: plan.shares.then(|| Membership::new(SLOTS, false, SESSION_TIMEOUT, Balancing::default())),
        catalogue: fixture.catalogue.clone(),
        contracts: fixture.contracts.clone(),
        network: fixture.network.clone(),
        vault: fixture.vault.clone(),
        keys: Arc::new(OpenKeys(around.faults.clone())),
        code: GuestCode::Scripted(around.guests.clone()),
        slots: Slots::new(plan.slots),
        guests: Arc::new(GuestThreads::none()),
        io: Spawner::simulated(around.executor.clone()),
        clock: Arc::new(around.clock.clone()),
    }))
}

async fn insist<T, F: Future<Output = Result<T, StoreError>>>(parts: &Parts, mut ask: impl FnMut() -> F) -> T {
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(_) => parts.clock.sleep_until(parts.clock.monotonic() + AGAIN).await,
        }
    }
}

/// Takes the identities in, as [`crate::Host::put_identities`] does.
pub(super) async fn start(parts: Arc<Parts>, plan: Plan) {
    let names = &PARTIES[..plan.identities];
    insist(&parts, || parts.store.register_identities(names)).await;
    let records = insist(&parts, || parts.store.identities()).await;
    let live = insist(&parts, || parts.store.live_flows()).await;
    let mut entries = Vec::new();
    for (index, record) in records.iter().enumerate() {
        let key = fixture().keys[index].party().owning_key.fingerprint();
        let mut claim: Claim = record.claim;
        let mut owned_as = None;
        if plan.claims_first {
            let owned = parts.ownership.claim(key, record.claim.token).await.unwrap();
            let request =
                ClaimRequest { identity: record.row, token: owned.token, key_fp: None, caution: Caution::None };
            if let Ok(claimed) = parts.store.claim(request).await {
                (claim, owned_as) = (claimed, Some(key));
            }
        }
        let rows = live.iter().filter(|flow| flow.identity == record.row).map(|flow| flow.row).collect();
        let name = X500Name::parse(&record.name).unwrap();
        let held = parts.directory.held.clone();
        let mut entry = IdentityEntry::new(record.row, name, spec(&plan, index), rows, claim, held);
        if let Some(of_caller) = plan.notary_room {
            entry.notary = Arc::new(NotaryQueue::of_little_room(of_caller));
        }
        let entry = Arc::new(entry);
        if let Some(key) = owned_as {
            entry.hold(claim, key, 1);
        }
        entries.push(entry);
    }
    entries.iter().for_each(|entry| parts.directory.insert(entry.clone()));
    crate::host::hosting::wake_busy(parts, entries).await;
}

fn cordapp(name: &str) -> CordappRef {
    CordappRef { name: name.to_owned(), version: None, hash: None }
}

fn spec(plan: &Plan, index: usize) -> IdentitySpec {
    IdentitySpec {
        name: PARTIES[index].to_owned(),
        cordapps: [cordapp(if plan.is_mute(index) { "heartbeat" } else { "ping-pong" })].into(),
        keys: PathBuf::new(),
        limits: IdentityLimits { flows: plan.flows, ..IdentityLimits::default() },
        notary: match index.checked_sub(OWNERS) {
            Some(0) => Some(NotaryKind::Validating),
            Some(_) => Some(NotaryKind::NonValidating),
            None => None,
        },
        hosts: Default::default(),
        manifest: PathBuf::new(),
    }
}

/// Starts a root from outside, and again until it was told that it runs.
pub(super) async fn start_root(parts: Arc<Parts>, root: Root, index: usize, started: Arc<OnceLock<FlowRow>>) {
    let set = parts.catalogue.set(&[cordapp("ping-pong")]).unwrap();
    let def = set.flows.get("ping-pong/ping").unwrap().clone();
    loop {
        if let Some(entry) = parts.directory.get(PARTIES[root.identity]) {
            let (reply, ticket) = oneshot::channel();
            let command = StartCommand {
                def: def.clone(),
                arguments: Bytes::from(vec![index as u8]),
                client_id: root.named.then(|| format!("root {index}")),
                user: "somebody".to_owned(),
                watched: false,
                reply,
                given: None,
            };
            parts.waking.tell(&entry, IdentityCommand::Start(Box::new(command)));
            if let Ok(Ok(ticket)) = ticket.await
                && let Some(row) = row_of(ticket).await
            {
                let _ = started.set(row);
                return;
            }
        }
        parts.clock.sleep_until(parts.clock.monotonic() + AGAIN).await;
    }
}

/// The row of a flow that was started, now or before.
async fn row_of(ticket: Ticket) -> Option<FlowRow> {
    let row = ticket.flow_id.row();
    match ticket.durable {
        Durable::Once(durable) => matches!(durable.await, Ok(Ok(()))).then_some(row),
        Durable::Shared(mut durable) => match durable.wait_for(Option::is_some).await.ok()?.clone()? {
            Ok(()) => Some(row),
            Err(SharedFailure::ClientIdTaken(row)) => Some(row),
            Err(SharedFailure::Problem(_)) => None,
        },
    }
}
