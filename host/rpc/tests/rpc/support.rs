//! A host without an engine: answers what a test tells it to, and counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use maxhost_flows::HostRules;
use maxhost_flows::api::attachment::*;
use maxhost_flows::api::audit::*;
use maxhost_flows::api::ledger::*;
use maxhost_flows::api::notary::*;
use maxhost_flows::api::*;
use maxhost_model::{Code, ErrorId, ErrorKind, FlowError, FlowId, FlowRow, Problem};
use maxhost_rpc::{Client, RpcOptions, RpcServer};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const ALICE: &str = "O=Alice, L=London, C=GB";

pub fn flow_id(row: i64) -> FlowId {
    FlowId::new(FlowRow(row), 7)
}

/// CBOR of `{"rounds": n}`.
pub fn rounds(n: u64) -> Vec<u8> {
    maxhost_cbor::to_vec(&BTreeMap::from([("rounds", n)])).unwrap()
}

pub fn summary(row: i64, phase: FlowPhase, result: Option<FlowResult>) -> FlowSummary {
    FlowSummary {
        flow_id: flow_id(row),
        identity: ALICE.to_owned(),
        flow: "ping-pong/ping".to_owned(),
        client_id: None,
        phase,
        started_ms: 1_000,
        finished_ms: result.is_some().then_some(2_500),
        progress: Some("round 3 of 3".to_owned()),
        result,
        reason: None,
    }
}

pub fn error() -> FlowError {
    FlowError {
        exception: Some("quotes/expired".to_owned()),
        data: Some(rounds(9)),
        error_id: Some(ErrorId(0xabc)),
        peer: Some("O=Bob, L=New York, C=US".to_owned()),
        ..FlowError::new(ErrorKind::FlowException, "too late")
    }
}

#[derive(Default)]
pub struct FakeHost {
    /// What was asked of `start_flow`.
    pub starts: Mutex<Vec<StartFlow>>,
    /// Cursors of `attach`.
    pub attached_at: Mutex<Vec<u64>>,
    /// Streams that are open now.
    pub open_streams: Arc<AtomicUsize>,
    /// Progress labels a flow has.
    pub labels: AtomicUsize,
    /// Streams stay open behind the labels.
    pub endless: AtomicBool,
    /// Streams end some time behind their last event.
    pub late_end: AtomicBool,
    /// Streams that were sent to their end.
    pub whole_streams: Arc<AtomicUsize>,
    /// `status` never answers.
    pub stuck: AtomicBool,
    /// Limits of the last `list_flows`.
    pub limits: Mutex<Vec<u32>>,
    /// Imports that were announced.
    pub announced: AtomicUsize,
    /// Files that were imported, by id.
    pub imported: Mutex<BTreeMap<String, bytes::Bytes>>,
    /// What was noted for the audit trail.
    pub noted: Mutex<Vec<AuditEntry>>,
}

struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn not_found(name: &str) -> Problem {
    Problem::new(Code::IdentityNotFound, format!("no identity fits '{name}'")).detail("identity", name)
}

#[async_trait]
impl LedgerApi for FakeHost {
    async fn vault_query(&self, _: &Caller, _: VaultRequest) -> ApiResult<Paged<StateView>> {
        no_ledgers()
    }
    async fn vault_count(&self, _: &Caller, _: VaultRequest) -> ApiResult<u64> {
        no_ledgers()
    }
    async fn vault_sum(&self, _: &Caller, _: VaultRequest, _: &str, _: Option<&str>) -> ApiResult<Vec<SumView>> {
        no_ledgers()
    }
    async fn vault_track(&self, _: &Caller, _: VaultRequest, _: Option<String>) -> ApiResult<VaultChanges> {
        no_ledgers()
    }
    async fn vault_locks(&self, _: &Caller, _: &str, _: Option<String>, _: u32) -> ApiResult<Paged<LockView>> {
        no_ledgers()
    }
    async fn ledger_transaction(&self, _: &Caller, _: &str, _: &str) -> ApiResult<TransactionView> {
        no_ledgers()
    }
    async fn ledger_list(
        &self,
        _: &Caller,
        _: &str,
        _: Option<String>,
        _: u32,
    ) -> ApiResult<Paged<TransactionSummary>> {
        no_ledgers()
    }
    async fn ledger_examine(&self, _: &Caller, _: &str, _: &str) -> ApiResult<ExaminationView> {
        no_ledgers()
    }
    async fn ledger_graph(&self, _: &Caller, _: &str, _: &str, _: u32) -> ApiResult<Vec<GraphNode>> {
        no_ledgers()
    }
    async fn notary_status(&self, _: &Caller, _: &str) -> ApiResult<NotaryStatus> {
        no_ledgers()
    }
}

#[async_trait]
impl NotaryApi for FakeHost {
    async fn notary_requests(&self, _: &Caller, _: RequestsQuery) -> ApiResult<Paged<RequestView>> {
        no_ledgers()
    }
    async fn notary_transaction(&self, _: &Caller, _: &str, _: &str) -> ApiResult<NotarisedView> {
        no_ledgers()
    }
    async fn notary_consumption(&self, _: &Caller, _: &str, _: &[String]) -> ApiResult<Vec<ConsumptionView>> {
        no_ledgers()
    }
}

#[async_trait]
impl AttachmentApi for FakeHost {
    async fn attachments(
        &self,
        caller: &Caller,
        identity: &str,
        cursor: Option<String>,
        limit: u32,
    ) -> ApiResult<Paged<AttachmentView>> {
        caller.about.identity(identity);
        let imported = self.imported.lock();
        let behind = |id: &String| cursor.as_ref().is_none_or(|cursor| id > cursor);
        let found: Vec<_> = imported.iter().filter(|(id, _)| behind(id)).collect();
        let items: Vec<_> = found.iter().take(limit as usize).map(|(id, file)| view(id, file)).collect();
        let cursor = items.last().filter(|_| found.len() > items.len()).map(|last| last.id.clone());
        Ok(Paged { items, cursor })
    }

    async fn attachment(&self, _: &Caller, _: &str, id: &str) -> ApiResult<AttachmentView> {
        let imported = self.imported.lock();
        let found = imported.get(id).map(|file| view(id, file));
        found.ok_or_else(|| Problem::new(Code::AttachmentNotFound, format!("there is no attachment {id}")))
    }

    async fn attachment_file(&self, _: &Caller, _: &str, id: &str) -> ApiResult<bytes::Bytes> {
        Ok(self.imported.lock()[id].clone())
    }

    async fn may_import(&self, caller: &Caller, import: &ImportAttachment) -> ApiResult<()> {
        caller.about.identity(&import.identity);
        self.announced.fetch_add(1, Ordering::SeqCst);
        match import.bytes {
            ..10_000_000 => Ok(()),
            bytes => Err(Problem::new(Code::AttachmentTooLarge, format!("{bytes} bytes are too many"))),
        }
    }

    async fn import_attachment(
        &self,
        _: &Caller,
        import: &ImportAttachment,
        file: bytes::Bytes,
    ) -> ApiResult<(AttachmentView, bool)> {
        if import.bytes != file.len() as u64 {
            return Err(Problem::new(Code::RequestInvalid, "not what was announced"));
        }
        let new = self.imported.lock().insert(import.id.clone(), file.clone()).is_none();
        Ok((view(&import.id, &file), new))
    }
}

fn view(id: &str, file: &[u8]) -> AttachmentView {
    let (bytes, source) = (file.len() as u64, "rpc:local".to_owned());
    AttachmentView { id: id.to_owned(), code: None, bytes, source, kept_ms: Some(1_500) }
}

#[async_trait]
impl AuditApi for FakeHost {
    fn note(&self, entry: AuditEntry) {
        self.noted.lock().push(entry);
    }
    async fn audit(&self, caller: &Caller, _: AuditQuery) -> ApiResult<Paged<AuditView>> {
        caller.about.detail("the trail itself");
        Ok(Paged { items: vec![], cursor: None })
    }
}

fn no_ledgers<T>() -> ApiResult<T> {
    Err(Problem::new(Code::LedgerRefused, "there is no ledger behind this test"))
}

#[async_trait]
impl HostApi for FakeHost {
    async fn start_flow(&self, caller: &Caller, request: StartFlow) -> ApiResult<Started> {
        assert!(caller.rights.are_all(), "{}", caller.user);
        if !ALICE.contains(&request.identity) {
            return Err(not_found(&request.identity));
        }
        let mut starts = self.starts.lock();
        let repeated = request.client_id.is_some() && starts.iter().any(|start| start.client_id == request.client_id);
        starts.push(request.clone());
        Ok(Started {
            flow_id: flow_id(1),
            identity: ALICE.to_owned(),
            flow: "ping-pong/ping".to_owned(),
            client_id: request.client_id,
            new: !repeated,
        })
    }

    async fn start_and_attach(
        &self,
        caller: &Caller,
        request: StartFlow,
    ) -> ApiResult<(Started, ApiResult<FlowEvents>)> {
        let started = self.start_flow(caller, request).await?;
        let events = self.attach(caller, started.flow_id, 0).await;
        Ok((started, events))
    }

    async fn attach(&self, _: &Caller, flow: FlowId, cursor: u64) -> ApiResult<FlowEvents> {
        if flow.row() == FlowRow(404) {
            return Err(Problem::new(Code::FlowNotFound, format!("there is no flow {flow}")));
        }
        self.attached_at.lock().push(cursor);
        self.open_streams.fetch_add(1, Ordering::SeqCst);
        let open = Open(Arc::clone(&self.open_streams));
        let labels = self.labels.load(Ordering::SeqCst) as u64;
        let phase = stream::iter([Ok(FlowEvent::Phase { phase: FlowPhase::Running, reason: None })]);
        let progress = stream::iter(
            (cursor + 1..=labels).map(|at| Ok(FlowEvent::Progress { cursor: at, label: format!("step {at}") })),
        );
        let start = phase.chain(progress);
        let rest = if self.endless.load(Ordering::SeqCst) {
            stream::pending().boxed()
        } else {
            let result = if flow.row() == FlowRow(13) {
                FlowResult::Error(error())
            } else {
                FlowResult::Value(rounds(3).into())
            };
            let phase = if flow.row() == FlowRow(13) { FlowPhase::Failed } else { FlowPhase::Completed };
            let summary = Box::new(summary(flow.row().0, phase, Some(result)));
            let (late, whole) = (self.late_end.load(Ordering::SeqCst), Arc::clone(&self.whole_streams));
            let end = stream::once(async move {
                if late {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                whole.fetch_add(1, Ordering::SeqCst);
            });
            let nothing = end.filter_map(|()| async { None });
            stream::iter([Ok(FlowEvent::Ended { summary })]).chain(nothing).boxed()
        };
        Ok(Box::pin(start.chain(rest).map(move |event| {
            let _open = &open;
            event
        })))
    }

    async fn find_client_id(&self, _: &Caller, identity: &str, client_id: &str) -> ApiResult<FlowId> {
        match (identity, client_id) {
            ("Alice", "known") => Ok(flow_id(5)),
            _ => Err(Problem::new(Code::ClientIdNotFound, format!("'{client_id}' is not known"))),
        }
    }

    async fn flow(&self, _: &Caller, flow: FlowId) -> ApiResult<FlowDetail> {
        Ok(FlowDetail {
            summary: summary(flow.row().0, FlowPhase::Suspended, None),
            cordapp: "ping-pong 0.1.0".to_owned(),
            component_hash: "ab".repeat(32),
            origin: "rpc:local".to_owned(),
            waiting_for: Some(WaitingFor {
                what: "receive".to_owned(),
                since_ms: 1_000,
                until_ms: None,
                parties: vec!["O=Bob, L=New York, C=US".to_owned()],
                awaited: None,
            }),
            sessions: vec![SessionView { peer: "O=Bob".to_owned(), state: "initiated".to_owned(), unread: 2 }],
            more_sessions: 0,
            journal_entries: 12,
            journal_bytes: 3_400,
            attempts: 2,
            labels: Some(3),
            in_memory: true,
        })
    }

    async fn list_flows(&self, _: &Caller, filter: FlowFilter) -> ApiResult<FlowPage> {
        self.limits.lock().push(filter.limit);
        if filter.page_token.as_deref().is_some_and(|token| token != "3") {
            return Err(Problem::new(Code::RequestInvalid, "page_token: not from this host"));
        }
        let first = if filter.page_token.is_some() { 3 } else { 1 };
        let last = (first + i64::from(filter.limit) - 1).min(4);
        let flows = (first..=last).map(|row| summary(row, FlowPhase::Running, None)).collect();
        Ok(FlowPage { flows, next_page_token: (last < 4).then(|| (last + 1).to_string()) })
    }

    async fn kill_flow(&self, _: &Caller, flow: FlowId) -> ApiResult<bool> {
        Ok(flow.row() == FlowRow(1))
    }

    async fn remove_client_id(&self, _: &Caller, _: Option<&str>, client_id: &str) -> ApiResult<bool> {
        match client_id {
            "foreign" => Err(Problem::new(Code::ClientIdForeign, "this client id belongs to another user")),
            "running" => Err(Problem::new(Code::ClientIdRunning, "its flow runs")),
            id => Ok(id == "known"),
        }
    }

    async fn finished_client_ids(&self, _: &Caller, _: Option<&str>) -> ApiResult<Vec<FinishedClientId>> {
        let finished = |client_id: &str, succeeded| FinishedClientId {
            identity: ALICE.to_owned(),
            client_id: client_id.to_owned(),
            flow_id: flow_id(1),
            succeeded,
        };
        Ok(vec![finished("good", true), finished("bad", false)])
    }

    async fn flow_types(&self, _: &Caller, identity: &str) -> ApiResult<Vec<FlowType>> {
        if identity != "Alice" {
            return Err(not_found(identity));
        }
        Ok(vec![FlowType {
            name: "ping-pong/ping".to_owned(),
            doc: "Bounces a message.".to_owned(),
            version: 1,
            startable: true,
            responds_to: None,
            arguments: Some(serde_json::json!({"type": "object"})),
            result: None,
        }])
    }

    async fn identities(&self, _: &Caller, _: Option<&str>) -> ApiResult<Vec<IdentityView>> {
        Ok(vec![])
    }

    async fn identity(&self, _: &Caller, name: &str) -> ApiResult<IdentityView> {
        Err(not_found(name))
    }

    async fn parties(&self, _: &Caller, _: Option<&str>, _: bool) -> ApiResult<Vec<PartyView>> {
        Ok(vec![party(1)])
    }

    async fn network_feed(&self, _: &Caller) -> ApiResult<(Vec<PartyView>, NetworkChanges)> {
        let changes = stream::iter([Ok(NetworkChange::Added(party(9_999)))]);
        Ok(((0..2_500).map(party).collect(), Box::pin(changes)))
    }

    async fn node_info(&self, _: &Caller, _: &str) -> ApiResult<NodeInfoView> {
        Err(Problem::new(Code::PartyNotFound, "no such party"))
    }

    async fn network_parameters(&self, _: &Caller) -> ApiResult<ParametersView> {
        Err(Problem::new(Code::CertificateInvalid, "the parameters are not signed"))
    }

    async fn status(&self, _: &Caller) -> ApiResult<HostStatus> {
        if self.stuck.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(HostStatus {
            identities: BTreeMap::from([("active", 2)]),
            flows: BTreeMap::new(),
            instances: 0,
            rss_bytes: 1,
            uptime_ms: 2,
            version: "0.1.0".to_owned(),
            counters: BTreeMap::new(),
        })
    }

    async fn hosts(&self, _: &Caller) -> ApiResult<Vec<ClusterHost>> {
        Ok(vec![cluster_host("max-1", HostState::Up), cluster_host("max-2", HostState::Suspended)])
    }

    async fn set_draining(&self, _: &Caller, host: &str, draining: bool) -> ApiResult<ClusterHost> {
        match host {
            "max-1" => Ok(cluster_host(host, if draining { HostState::Draining } else { HostState::Up })),
            other => Err(Problem::new(Code::HostNotFound, format!("no host is called '{other}'"))),
        }
    }

    async fn whereabouts(&self, _: &Caller, name: Option<&str>) -> ApiResult<Vec<Whereabouts>> {
        let rules = HostRules { only: ["max-9".into()].into(), apart: Some("signers".into()), ..HostRules::default() };
        let found = |identity: &str, host: Option<&str>| Whereabouts {
            identity: identity.to_owned(),
            host: host.map(str::to_owned),
            epoch: host.map(|_| 7),
            phase: if host.is_some() { IdentityPhase::Active } else { IdentityPhase::Cold },
            rules: rules.clone(),
            unplaced: host.is_none().then(|| "max-9 is away".to_owned()),
        };
        match name {
            None => Ok(vec![found(ALICE, Some("max-1")), found("O=Bob, L=New York, C=US", None)]),
            Some("Alice") => Ok(vec![found(ALICE, Some("max-1"))]),
            Some(other) => Err(not_found(other)),
        }
    }

    async fn move_identity(&self, _: &Caller, identity: &str, host: &str) -> ApiResult<Whereabouts> {
        let (epoch, phase) = (Some(8), IdentityPhase::Active);
        let (rules, unplaced) = (HostRules::default(), None);
        Ok(Whereabouts { identity: identity.to_owned(), host: Some(host.to_owned()), epoch, phase, rules, unplaced })
    }

    async fn demand(&self, _: &Caller) -> ApiResult<u64> {
        Ok(3)
    }

    async fn cluster_status(&self, caller: &Caller) -> ApiResult<ClusterStatus> {
        let part = |ok| PartHealth { ok, detail: "so".to_owned() };
        Ok(ClusterStatus {
            hosts: self.hosts(caller).await?,
            identities: BTreeMap::from([("owned", 1), ("unplaced", 1)]),
            unplaced: vec![("O=Bob, L=New York, C=US".to_owned(), "max-9 is away".to_owned())],
            demand: None,
            oldest_message: Some(Duration::from_millis(2_500)),
            scheduler: Some("max-1".to_owned()),
            broker: part(true),
            store: part(false),
            ownership: part(true),
        })
    }
}

fn cluster_host(name: &str, state: HostState) -> ClusterHost {
    let (name, labels) = (name.to_owned(), vec!["hsm".to_owned()]);
    ClusterHost { name, state, roles: Roles::BOTH, labels, identities: 1, slots: 500, since_ms: 1_500 }
}

pub fn party(number: usize) -> PartyView {
    PartyView {
        name: format!("O=Party {number:05}, L=London, C=GB"),
        owning_key: vec![1; 44],
        notary: false,
        local: true,
    }
}

/// A served fake.
pub struct Served {
    pub host: Arc<FakeHost>,
    pub endpoint: String,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<()>,
}

pub fn options() -> RpcOptions {
    RpcOptions { max_message_size: 100_000, call_timeout: Duration::from_secs(20), ..RpcOptions::default() }
}

pub async fn serve(options: RpcOptions) -> Served {
    let host = Arc::new(FakeHost::default());
    host.labels.store(3, Ordering::SeqCst);
    let bound = RpcServer::bind(options, None, Arc::clone(&host) as Arc<dyn HostApi>).await.unwrap();
    let endpoint = format!("http://{}", bound.local_addr());
    let shutdown = CancellationToken::new();
    let task = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { bound.serve(shutdown).await.unwrap() }
    });
    Served { host, endpoint, shutdown, task }
}

impl Served {
    pub fn client(&self) -> Client {
        Client::at(self.endpoint.clone(), Duration::from_secs(10))
    }
}

/// Waits until a condition holds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within ten seconds: {what}");
}
