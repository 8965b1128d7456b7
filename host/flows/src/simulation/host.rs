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
use maxhost_store::{Claim, ClaimRequest, Committer, Store, StoreError};
use tokio::sync::{broadcast, oneshot};
use tokio_util::sync::CancellationToken;

use super::database::{Database, Disk};
use super::executor::Executor;
use super::faults::{Faults, unavailable};
use super::fixture::fixture;
use super::guest::Guests;
use super::plan::{Plan, Root};
use super::relay::Broker;
use super::{Broken, PARTIES};
use crate::activation::GuestCode;
use crate::admission::Slots;
use crate::clock::tests::VirtualClock;
use crate::core::{Core, IdentityKeys};
use crate::guest_threads::GuestThreads;
use crate::memory::GuestMemory;
use crate::message::{Durable, IdentityCommand, SharedFailure, StartCommand, Ticket};
use crate::options::{CordappRef, HostOptions, IdentityLimits, IdentitySpec};
use crate::registry::IdentityEntry;
use crate::spawner::Spawner;

/// How soon something that was refused is asked for again.
const AGAIN: Duration = Duration::from_millis(50);

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

/// What all identities of the host share.
pub(super) fn core(plan: &Plan, around: &Surroundings, database: &Database) -> Arc<Core> {
    let fixture = fixture();
    let options = HostOptions {
        eviction: plan.eviction,
        idle_close: plan.idle_close,
        shadow_replay: plan.shadow_replay,
        always_broker: plan.always_broker,
        ..fixture.options.clone()
    };
    Arc::new(Core {
        options,
        store: Store::new(database.clone()),
        broker: fixture.broker.clone(),
        ownership: Arc::new(MemoryOwnership::embedded("this host", database.run())),
        membership: None,
        catalogue: fixture.catalogue.clone(),
        directory: Default::default(),
        ports: Default::default(),
        network: fixture.network.clone(),
        vault: fixture.vault.clone(),
        keys: Arc::new(OpenKeys(around.faults.clone())),
        code: GuestCode::Scripted(around.guests.clone()),
        outcomes: Default::default(),
        watchers: Default::default(),
        slots: Slots::new(plan.slots),
        memory: GuestMemory::new(plan.memory),
        guests: GuestThreads::none(),
        io_share: Default::default(),
        io: Spawner::simulated(around.executor.clone()),
        events: broadcast::Sender::new(1),
        counters: Default::default(),
        stopping: CancellationToken::new(),
        outbox: Default::default(),
        queues: Default::default(),
        timers: Default::default(),
        components_changed: Default::default(),
        clock: Arc::new(around.clock.clone()),
        deadlines: Default::default(),
        tick: fixture.tick,
    })
}

async fn insist<T, F: Future<Output = Result<T, StoreError>>>(core: &Core, mut ask: impl FnMut() -> F) -> T {
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(_) => core.clock.sleep_until(core.clock.monotonic() + AGAIN).await,
        }
    }
}

/// Takes the identities in, as [`crate::Host::put_identities`] does.
pub(super) async fn start(core: Arc<Core>, plan: Plan) {
    let names = &PARTIES[..plan.identities];
    insist(&core, || core.store.register_identities(names)).await;
    let records = insist(&core, || core.store.identities()).await;
    let live = insist(&core, || core.store.live_flows()).await;
    let mut entries = Vec::new();
    for (index, record) in records.iter().enumerate() {
        let key = fixture().keys[index].party().owning_key.fingerprint();
        let mut claim: Claim = record.claim;
        let mut owned_as = None;
        if plan.claims_first {
            let owned = core.ownership.claim(key, record.claim.token).await.unwrap();
            let request = ClaimRequest { identity: record.row, token: owned.token, key_fp: None };
            if let Ok(claimed) = core.store.claim(request).await {
                (claim, owned_as) = (claimed, Some(key));
            }
        }
        let rows = live.iter().filter(|flow| flow.identity == record.row).map(|flow| flow.row).collect();
        let name = X500Name::parse(&record.name).unwrap();
        let entry = Arc::new(IdentityEntry::new(record.row, name, spec(&plan, index), rows, claim));
        if let Some(key) = owned_as {
            entry.hold(claim, key, 1);
        }
        entries.push(entry);
    }
    entries.iter().for_each(|entry| core.directory.insert(entry.clone()));
    crate::host::wake_busy(core, entries).await;
}

fn cordapp(name: &str) -> CordappRef {
    CordappRef { name: name.to_owned(), version: None, hash: None }
}

fn spec(plan: &Plan, index: usize) -> IdentitySpec {
    IdentitySpec {
        name: PARTIES[index].to_owned(),
        cordapps: vec![cordapp(if plan.is_mute(index) { "heartbeat" } else { "ping-pong" })],
        keys: PathBuf::new(),
        limits: IdentityLimits { flows: plan.flows, ..IdentityLimits::default() },
        manifest: PathBuf::new(),
    }
}

/// Starts a root from outside, and again until it was told that it runs.
pub(super) async fn start_root(core: Arc<Core>, root: Root, index: usize, started: Arc<OnceLock<FlowRow>>) {
    let set = core.catalogue.set(&[cordapp("ping-pong")]).unwrap();
    let def = set.flows.get("ping-pong/ping").unwrap().clone();
    loop {
        if let Some(entry) = core.directory.get(PARTIES[root.identity]) {
            let (reply, ticket) = oneshot::channel();
            let command = StartCommand {
                def: def.clone(),
                arguments: Bytes::from(vec![index as u8]),
                client_id: root.named.then(|| format!("root {index}")),
                user: "somebody".to_owned(),
                watched: false,
                reply,
            };
            core.tell(&entry, IdentityCommand::Start(Box::new(command)));
            if let Ok(Ok(ticket)) = ticket.await
                && let Some(row) = row_of(ticket).await
            {
                let _ = started.set(row);
                return;
            }
        }
        core.clock.sleep_until(core.clock.monotonic() + AGAIN).await;
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
