//! Two hosts in one process, and services that fail when a test says so.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use maxhost_broker::{
    BacklogNotices, Broker, BrokerError, ClientQueues, Consumer, Credit, EmbeddedBroker, EmbeddedOptions, Holding,
    Markers, Message, QueueName,
};
use maxhost_flows::api::{Arguments, Caller, FlowResult, HostApi, StartFlow};
use maxhost_flows::options::ENVELOPE_BYTES;
use maxhost_flows::{Balancing, CordappRef, Host, HostOptions, IdentitySpec, Passphrase};
use maxhost_model::{Claim, Code, FencingToken, FlowId, Problem, RunId, SecureHash, cbor_to_json};
use maxhost_ownership::{
    Changes, DemandVersion, Demands, HostInfo, MemoryOwnership, Ownedness, Owner, Ownership, OwnershipError, Reach,
    Realm, Session, Slept, Transient,
};
use maxhost_store::{IdentityRecord, Store};
use maxhost_store_sqlite::{SqliteOptions, SqliteStore};
use maxhost_tests::{ALICE, BOB, CAROL, Network, eventually};
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, oneshot, watch};

pub const LONG: Duration = Duration::from_secs(60);

pub struct Cluster {
    pub network: Network,
    pub store: Store,
    pub broker: Arc<dyn Broker>,
    pub realm: Realm,
    /// How many identities each host runs at most.
    pub slots: u32,
    /// When they give identities to each other.
    pub balancing: Balancing,
    /// Sees what the hosts own, and has no slots.
    pub onlooker: Arc<dyn Ownership>,
}

impl Cluster {
    pub async fn new() -> Cluster {
        // What the hosts log, for whoever looks for a defect: RUST_LOG=maxhost_flows=debug. Only the first can set it.
        let filter = tracing_subscriber::EnvFilter::try_from_default_env();
        let _set = filter
            .map(|filter| tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init());
        let network = Network::new();
        fs::create_dir_all(network.path("data")).unwrap();
        let store = SqliteStore::open(SqliteOptions::new(network.path("data/maxhost.db"))).await.unwrap();
        let broker = EmbeddedOptions {
            max_message_bytes: (10 << 20) + ENVELOPE_BYTES,
            ..EmbeddedOptions::new(network.path("data/cluster-broker.db"))
        };
        let broker = EmbeddedBroker::open(broker).await.unwrap();
        let realm = Realm::of_generation(1);
        let onlooker = Arc::new(realm.join("onlooker"));
        Cluster {
            network,
            store,
            broker: Arc::new(broker),
            realm,
            slots: 10,
            balancing: Balancing::default(),
            onlooker,
        }
    }

    pub async fn host(&self, name: &str, change: impl FnOnce(&mut HostOptions)) -> Arc<Host> {
        let ownership = Arc::new(self.realm.join_as(name, self.store.run()));
        self.host_with(name, ownership, change).await
    }

    /// A host with room for so many identities.
    pub async fn host_of(&self, name: &str, slots: u32, change: impl FnOnce(&mut HostOptions)) -> Arc<Host> {
        let ownership = Arc::new(self.realm.join_as(name, self.store.run()));
        self.begin(name, (ownership, slots), change).await
    }

    pub async fn host_with(
        &self,
        name: &str,
        ownership: Arc<dyn Ownership>,
        change: impl FnOnce(&mut HostOptions),
    ) -> Arc<Host> {
        self.begin(name, (ownership, self.slots), change).await
    }

    /// What a manifest says of an identity.
    pub fn spec(&self, name: &str, short: &str) -> IdentitySpec {
        IdentitySpec {
            name: name.to_owned(),
            cordapps: ["ping-pong", "heartbeat", "hostile"].map(cordapp).into(),
            keys: self.network.path(&format!("keys/{short}")),
            limits: Default::default(),
            notary: None,
            hosts: Default::default(),
            manifest: self.network.path(&format!("identities/{short}.toml")),
        }
    }

    pub async fn begin(
        &self,
        name: &str,
        (ownership, slots): (Arc<dyn Ownership>, u32),
        change: impl FnOnce(&mut HostOptions),
    ) -> Arc<Host> {
        let passphrase = fs::read_to_string(self.network.path("keys/passphrase")).unwrap();
        let data = self.network.path(&format!("data/{name}"));
        fs::create_dir_all(&data).unwrap();
        let mut options = HostOptions {
            data,
            idle_close: LONG,
            ..HostOptions::new(self.network.folder(), Passphrase::new(passphrase))
        };
        change(&mut options);
        let session_timeout = Duration::from_secs(6);
        let broker = self.broker.clone();
        let balancing = self.balancing;
        let cluster = maxhost_flows::Cluster { ownership, broker, slots, schedules: true, session_timeout, balancing };
        let host = Host::join(options, self.store.clone(), cluster).await.unwrap();
        let specs = [(ALICE, "alice"), (BOB, "bob"), (CAROL, "carol")];
        let specs = specs.map(|(name, short)| self.spec(name, short)).into();
        assert!(host.put_identities(specs).await.unwrap().is_empty());
        host
    }

    /// The host that owns an identity.
    pub async fn owner(&self, name: &str) -> Option<String> {
        let records = self.store.identities().await.unwrap();
        let record = records.iter().find(|record| record.name == name).unwrap();
        let owners = self.onlooker.owners().await.unwrap();
        let owner = owners.iter().find(|owner| owner.token == record.claim.token);
        owner.filter(|_| record.owner().is_some()).map(|owner| owner.host.to_string())
    }

    /// Returns what the database says of the identities then.
    pub async fn until_nobody_owns_anything(&self) -> Vec<IdentityRecord> {
        eventually("all are asleep", async || {
            let owners = self.onlooker.owners().await.unwrap();
            let records = self.store.identities().await.unwrap();
            match owners.is_empty() && records.iter().all(|record| record.owner().is_none()) {
                true => Ok(records),
                false => {
                    let (left, live) = (self.store.left_work(i64::MAX).await, self.store.live_flows().await);
                    Err(format!("{owners:?} {records:?} {left:?} {live:?}"))
                }
            }
        })
        .await
    }
}

/// A broker that does not tell which queues hold messages.
pub struct Silent(pub Arc<dyn Broker>);

#[async_trait]
impl Broker for Silent {
    async fn send(&self, queue: &QueueName, message: Message, within: Duration) -> Result<(), BrokerError> {
        self.0.send(queue, message, within).await
    }

    async fn prepare(&self, queue: &QueueName) -> Result<(), BrokerError> {
        self.0.prepare(queue).await
    }

    async fn consume(&self, queue: &QueueName, credit: Credit) -> Result<Box<dyn Consumer>, BrokerError> {
        self.0.consume(queue, credit).await
    }

    async fn waiting(&self) -> Result<Vec<QueueName>, BrokerError> {
        Err(maxhost_broker::Transient::TimedOut.into())
    }

    async fn holding(&self, queues: &[QueueName]) -> Result<Vec<Holding>, BrokerError> {
        self.0.holding(queues).await
    }

    async fn oldest(&self) -> Result<Option<Duration>, BrokerError> {
        self.0.oldest().await
    }

    async fn backlog_notices(&self) -> Result<Box<dyn BacklogNotices>, BrokerError> {
        self.0.backlog_notices().await
    }

    fn trouble(&self) -> Option<BrokerError> {
        self.0.trouble()
    }

    fn max_message_bytes(&self) -> usize {
        self.0.max_message_bytes()
    }

    fn client_queues(&self) -> Option<Arc<dyn ClientQueues>> {
        self.0.client_queues()
    }

    fn markers(&self) -> Option<Arc<dyn Markers>> {
        self.0.markers()
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

/// The ownership of a host whose calls a test holds up or loses.
pub struct Gate {
    pub inner: MemoryOwnership,
    /// A call that lets an identity sleep waits for a permit.
    pub sleeps: Semaphore,
    /// Rings when such a call waits.
    pub asleep: Notify,
    /// The same of a call that hands an identity over.
    pub hand_overs: Semaphore,
    pub handing: Notify,
    /// So many calls of each kind are carried out, or not, and answered with an error.
    pub lost_claims: AtomicU32,
    pub lost_sleeps: AtomicU32,
    pub lost_demands: AtomicU32,
}

impl Gate {
    pub fn open(inner: MemoryOwnership) -> Gate {
        Gate {
            inner,
            sleeps: Semaphore::new(1),
            asleep: Notify::new(),
            hand_overs: Semaphore::new(1),
            handing: Notify::new(),
            lost_claims: AtomicU32::new(0),
            lost_sleeps: AtomicU32::new(0),
            lost_demands: AtomicU32::new(0),
        }
    }

    pub fn is_lost(calls: &AtomicU32) -> bool {
        calls.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
    }
}

#[async_trait]
impl Ownership for Gate {
    fn host(&self) -> &str {
        self.inner.host()
    }

    fn run(&self) -> RunId {
        self.inner.run()
    }

    async fn claim(&self, identity: SecureHash, stored: FencingToken) -> Result<Claim, OwnershipError> {
        let claimed = self.inner.claim(identity, stored).await;
        if Gate::is_lost(&self.lost_claims) {
            Err(Transient::unavailable("the answer is lost").into())
        } else {
            claimed
        }
    }

    async fn demand_version(&self, identity: SecureHash) -> Result<Option<DemandVersion>, OwnershipError> {
        self.inner.demand_version(identity).await
    }

    async fn sleep(&self, identity: SecureHash, seen: Option<DemandVersion>) -> Result<Slept, OwnershipError> {
        self.asleep.notify_one();
        let _permit = self.sleeps.acquire().await;
        if Gate::is_lost(&self.lost_sleeps) {
            return Err(Transient::unavailable("the request is lost").into());
        }
        self.inner.sleep(identity, seen).await
    }

    async fn hand_over(&self, identity: SecureHash, target: Option<&str>) -> Result<bool, OwnershipError> {
        self.handing.notify_one();
        let _permit = self.hand_overs.acquire().await;
        self.inner.hand_over(identity, target).await
    }

    async fn owners(&self) -> Result<Vec<Owner>, OwnershipError> {
        self.inner.owners().await
    }

    fn owner_of(&self, identity: &SecureHash) -> Ownedness {
        self.inner.owner_of(identity)
    }

    fn changes(&self) -> Box<dyn Changes> {
        self.inner.changes()
    }

    fn session(&self) -> watch::Receiver<Session> {
        self.inner.session()
    }

    async fn demand(&self, identity: SecureHash) -> Result<(), OwnershipError> {
        if Gate::is_lost(&self.lost_demands) {
            return Err(Transient::unavailable("the request is lost").into());
        }
        self.inner.demand(identity).await
    }

    async fn demand_with(&self, identity: SecureHash, message: Arc<[u8]>) -> Result<(), OwnershipError> {
        if Gate::is_lost(&self.lost_demands) {
            return Err(Transient::unavailable("the request is lost").into());
        }
        self.inner.demand_with(identity, message).await
    }

    fn demands(&self) -> Box<dyn Demands> {
        self.inner.demands()
    }

    async fn wanted(&self) -> Result<Vec<SecureHash>, OwnershipError> {
        self.inner.wanted().await
    }

    async fn demanded(&self) -> Result<Vec<SecureHash>, OwnershipError> {
        self.inner.demanded().await
    }

    async fn offer(&self, free_slots: u32) -> Result<(), OwnershipError> {
        self.inner.offer(free_slots).await
    }

    async fn tell_reach(&self, reach: Reach) -> Result<(), OwnershipError> {
        self.inner.tell_reach(reach).await
    }

    async fn hosts(&self) -> Result<Vec<HostInfo>, OwnershipError> {
        self.inner.hosts().await
    }

    fn known_hosts(&self) -> Option<Vec<HostInfo>> {
        self.inner.known_hosts()
    }

    async fn set_draining(&self, host: &str, draining: bool) -> Result<bool, OwnershipError> {
        self.inner.set_draining(host, draining).await
    }

    fn draining(&self) -> watch::Receiver<bool> {
        self.inner.draining()
    }

    async fn campaign(&self) -> Result<bool, OwnershipError> {
        self.inner.campaign().await
    }

    async fn resign(&self) -> Result<(), OwnershipError> {
        self.inner.resign().await
    }

    fn scheduler(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.inner.scheduler()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

/// A broker that loses what a test says, and notes what it is given.
pub struct Lossy {
    pub inner: Arc<dyn Broker>,
    /// So many messages are taken, and their senders are told that it did not answer.
    pub lost: AtomicU32,
    /// So many messages are not taken, and their senders are told the same.
    pub swallowed: AtomicU32,
    /// Each message is taken twice.
    pub doubles: AtomicBool,
    /// The messages that were taken.
    pub taken: Mutex<Vec<(QueueName, Message)>>,
    /// What the next who listens for notices is given in place of those of the broker.
    pub bell: Mutex<Option<Bell>>,
}

impl Lossy {
    pub fn new(inner: Arc<dyn Broker>) -> Lossy {
        Lossy {
            inner,
            lost: AtomicU32::new(0),
            swallowed: AtomicU32::new(0),
            doubles: AtomicBool::new(false),
            taken: Mutex::default(),
            bell: Mutex::default(),
        }
    }
}

/// A notice of one queue. Whoever asks for the next one has it taken away.
pub struct Bell {
    pub queue: Option<QueueName>,
    pub onlooker: Arc<dyn Ownership>,
    pub identity: SecureHash,
    /// Told whether the identity was wanted when the notice was taken away.
    pub was_wanted: Option<oneshot::Sender<bool>>,
}

#[async_trait]
impl BacklogNotices for Bell {
    async fn next(&mut self) -> Result<QueueName, BrokerError> {
        if let Some(queue) = self.queue.take() {
            return Ok(queue);
        }
        if let Some(told) = self.was_wanted.take() {
            told.send(self.onlooker.demand_version(self.identity).await.unwrap().is_some()).unwrap();
        }
        std::future::pending().await
    }
}

#[async_trait]
impl Broker for Lossy {
    async fn send(&self, queue: &QueueName, message: Message, within: Duration) -> Result<(), BrokerError> {
        if Gate::is_lost(&self.swallowed) {
            return Err(maxhost_broker::Transient::TimedOut.into());
        }
        self.taken.lock().unwrap().push((queue.clone(), message.clone()));
        if self.doubles.load(Ordering::Acquire) {
            self.inner.send(queue, message.clone(), within).await?;
        }
        let sent = self.inner.send(queue, message, within).await;
        if Gate::is_lost(&self.lost) { Err(maxhost_broker::Transient::TimedOut.into()) } else { sent }
    }

    async fn prepare(&self, queue: &QueueName) -> Result<(), BrokerError> {
        self.inner.prepare(queue).await
    }

    async fn consume(&self, queue: &QueueName, credit: Credit) -> Result<Box<dyn Consumer>, BrokerError> {
        self.inner.consume(queue, credit).await
    }

    async fn waiting(&self) -> Result<Vec<QueueName>, BrokerError> {
        self.inner.waiting().await
    }

    async fn holding(&self, queues: &[QueueName]) -> Result<Vec<Holding>, BrokerError> {
        self.inner.holding(queues).await
    }

    async fn oldest(&self) -> Result<Option<Duration>, BrokerError> {
        self.inner.oldest().await
    }

    async fn backlog_notices(&self) -> Result<Box<dyn BacklogNotices>, BrokerError> {
        let bell = self.bell.lock().unwrap().take();
        match bell {
            Some(bell) => Ok(Box::new(bell)),
            None => self.inner.backlog_notices().await,
        }
    }

    fn trouble(&self) -> Option<BrokerError> {
        self.inner.trouble()
    }

    fn max_message_bytes(&self) -> usize {
        self.inner.max_message_bytes()
    }

    fn client_queues(&self) -> Option<Arc<dyn ClientQueues>> {
        self.inner.client_queues()
    }

    fn markers(&self) -> Option<Arc<dyn Markers>> {
        self.inner.markers()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

pub fn cordapp(name: &str) -> CordappRef {
    CordappRef { name: name.to_owned(), version: None, hash: None }
}

pub async fn try_start(host: &Host, identity: &str, flow: &str, arguments: Value) -> Result<FlowId, Problem> {
    let arguments = Arguments::Json(arguments);
    let request = StartFlow { identity: identity.to_owned(), flow: flow.to_owned(), arguments, client_id: None };
    Ok(host.start_flow(&Caller::local(), request).await?.flow_id)
}

/// Starts a flow on whichever host runs the identity, or can.
pub async fn start(hosts: &[&Arc<Host>], identity: &str, flow: &str, arguments: Value) -> FlowId {
    eventually(&format!("{flow} of {identity} starts"), async || {
        let mut problems = Vec::new();
        for host in hosts {
            match try_start(host, identity, flow, arguments.clone()).await {
                Ok(flow) => return Ok(flow),
                Err(problem) => {
                    assert_ne!(problem.code, Code::Timeout, "{problem}");
                    problems.push(problem.to_string());
                }
            }
        }
        Err(problems.join("; "))
    })
    .await
}

pub async fn result(host: &Host, flow: FlowId) -> Value {
    eventually(&format!("the end of {flow}"), async || {
        let shown = host.flow(&Caller::local(), flow).await.map_err(|problem| problem.to_string())?;
        match shown.summary.result {
            Some(FlowResult::Value(cbor)) => Ok(cbor_to_json(&cbor).unwrap()),
            Some(other) => panic!("{flow} ended otherwise: {:?} {other:?}", shown.summary.phase),
            None => Err(format!("{:?} waits for {:?}", shown.summary.phase, shown.waiting_for)),
        }
    })
    .await
}
