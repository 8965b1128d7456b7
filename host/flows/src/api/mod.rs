//! What the outside may ask of a host: the seam between the engine and its edges.
//!
//! [`HostApi`] is a trait because the gRPC edge will also serve from a process of its own, which reaches the engine
//! through the broker; until then [`crate::Host`] is the one implementation.

pub(crate) mod access;
pub mod attachment;
pub mod audit;
mod cluster;
pub mod ledger;
mod network;
pub mod notary;

use std::collections::BTreeMap;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use maxhost_model::{FlowError, FlowId, Problem};
use serde_json::Value;

use self::attachment::AttachmentApi;
use self::audit::AuditApi;
pub use self::cluster::{ClusterHost, ClusterStatus, HostState, PartHealth, Roles, Whereabouts};
use self::ledger::LedgerApi;
pub use self::network::{NetworkChange, NetworkChanges, NodeInfoView, ParametersView, PartyView};
use self::notary::NotaryApi;
pub use crate::api::access::Caller;

/// The answer of every operation.
pub type ApiResult<T> = Result<T, Problem>;

/// Arguments of a flow as they came in.
#[derive(Debug, Clone, PartialEq)]
pub enum Arguments {
    /// JSON; turned into CBOR after it passed the flow's schema.
    Json(Value),
    /// CBOR; checked against the schema in its JSON form, then handed on as it is.
    Cbor(Vec<u8>),
}

/// Starts a flow.
#[derive(Debug, Clone)]
pub struct StartFlow {
    /// An identity of this host: its name, or a part that fits exactly one.
    pub identity: String,
    /// `cordapp/flow`, or `flow` where unique.
    pub flow: String,
    /// What it is called with.
    pub arguments: Arguments,
    /// Makes the start idempotent (docs/behaviour.md 6.1): 1 to 512 characters.
    pub client_id: Option<String>,
}

/// A flow that was started, or found by its client id. It is durable when this is returned.
#[derive(Debug, Clone)]
pub struct Started {
    /// Its public id.
    pub flow_id: FlowId,
    /// Full name of the identity.
    pub identity: String,
    /// Full name of the flow.
    pub flow: String,
    /// As given.
    pub client_id: Option<String>,
    /// False if an earlier start with this client id made it.
    pub new: bool,
}

/// What a flow is doing: the `state` that commands and RPC clients are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FlowPhase {
    /// Computing, or about to.
    Running,
    /// Waiting, in memory or not.
    Suspended,
    /// Held by an operator.
    Paused,
    /// Held because of a failure that a person has to look at.
    Hospital,
    /// Ended with a result.
    Completed,
    /// Ended with an error.
    Failed,
    /// Ended by an operator.
    Killed,
}

impl FlowPhase {
    /// All phases.
    pub const ALL: [FlowPhase; 7] = [
        FlowPhase::Running,
        FlowPhase::Suspended,
        FlowPhase::Paused,
        FlowPhase::Hospital,
        FlowPhase::Completed,
        FlowPhase::Failed,
        FlowPhase::Killed,
    ];

    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FlowPhase::Running => "running",
            FlowPhase::Suspended => "suspended",
            FlowPhase::Paused => "paused",
            FlowPhase::Hospital => "hospital",
            FlowPhase::Completed => "completed",
            FlowPhase::Failed => "failed",
            FlowPhase::Killed => "killed",
        }
    }

    /// The phase of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<FlowPhase> {
        FlowPhase::ALL.into_iter().find(|phase| phase.as_str() == word)
    }

    /// Completed, failed or killed.
    #[must_use]
    pub fn is_ended(self) -> bool {
        matches!(self, FlowPhase::Completed | FlowPhase::Failed | FlowPhase::Killed)
    }
}

/// How a flow ended.
#[derive(Debug, Clone, PartialEq)]
pub enum FlowResult {
    /// Its result, CBOR.
    Value(Bytes),
    /// Its error.
    Error(FlowError),
}

/// The short form of a flow. Times are milliseconds since 1970.
#[derive(Debug, Clone)]
pub struct FlowSummary {
    /// Public id.
    pub flow_id: FlowId,
    /// Full name of the identity.
    pub identity: String,
    /// The flow's full name, `cordapp/flow`.
    pub flow: String,
    /// As given at the start.
    pub client_id: Option<String>,
    /// What it is doing.
    pub phase: FlowPhase,
    /// When it was started.
    pub started_ms: i64,
    /// When it ended.
    pub finished_ms: Option<i64>,
    /// Last progress label.
    pub progress: Option<String>,
    /// Its end.
    pub result: Option<FlowResult>,
    /// Why it is in hospital.
    pub reason: Option<String>,
}

/// What a suspended flow waits for.
#[derive(Debug, Clone)]
pub struct WaitingFor {
    /// `receive`, `receive-all`, `wait-any`, `sleep`, `flow-info`, `confirmation`; `slot`: room in its identity;
    /// `instance`: room in the host; `memory`: memory for its guest; `recipient`: room for what it sends to the party that
    /// is named; `broker`: room for what it sends through the broker; `ledger-commit`: a transaction that becomes part of the
    /// ledger; `state-consumption`: states that are consumed.
    pub what: String,
    /// Since when, milliseconds since 1970.
    pub since_ms: i64,
    /// Deadline, if it has one.
    pub until_ms: Option<u64>,
    /// Names of the parties it waits for.
    pub parties: Vec<String>,
    /// The transaction that it waits for; or the first state, and how many more.
    pub awaited: Option<String>,
}

/// One session of a flow.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// Name of the counterparty.
    pub peer: String,
    /// `uninitiated`, `initiating`, `initiated`, `ended`, `errored`, `rejected`, `closed`.
    pub state: String,
    /// Messages that arrived and were not consumed.
    pub unread: u32,
}

/// Everything about one flow.
#[derive(Debug, Clone)]
pub struct FlowDetail {
    /// The short form.
    pub summary: FlowSummary,
    /// `name version`.
    pub cordapp: String,
    /// SHA-256 of the component, hex.
    pub component_hash: String,
    /// `rpc:USER`, `peer:NAME`.
    pub origin: String,
    /// What it waits for.
    pub waiting_for: Option<WaitingFor>,
    /// Its sessions; of one that has ended the first 100.
    pub sessions: Vec<SessionView>,
    /// How many more it had.
    pub more_sessions: u32,
    /// Entries in the journal.
    pub journal_entries: u64,
    /// Size of the journal, with the messages it keeps.
    pub journal_bytes: u64,
    /// How often its guest was begun: 1 for the start, and one more each time it came back from its journal, after it had
    /// left memory, out of hospital, after trouble or a restart of the host. An attempt that wrote nothing is counted only
    /// while its identity is awake.
    pub attempts: u32,
    /// How many progress labels it has given, which is the highest cursor; `None` if its journal cannot be read.
    pub labels: Option<u64>,
    /// Whether an instance is in memory.
    pub in_memory: bool,
}

/// Something that happened to a flow.
#[derive(Debug, Clone)]
pub enum FlowEvent {
    /// A change of phase; the first event tells the phase at that moment.
    Phase {
        /// The phase.
        phase: FlowPhase,
        /// Why, in hospital.
        reason: Option<String>,
    },
    /// A progress label, in program order. `cursor` resumes behind it.
    Progress {
        /// Counts the labels of the flow from 1.
        cursor: u64,
        /// The label.
        label: String,
    },
    /// The end; the stream ends after it.
    Ended {
        /// The whole truth.
        summary: Box<FlowSummary>,
    },
}

/// Events of one flow. Ends after [`FlowEvent::Ended`], or with an error when the host stops: attach again.
pub type FlowEvents = Pin<Box<dyn Stream<Item = ApiResult<FlowEvent>> + Send>>;

/// Which flows to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct FlowFilter {
    /// Identity, by name or unique part.
    pub identity: Option<String>,
    /// Only these phases; empty: all.
    pub phases: Vec<FlowPhase>,
    /// Part of `cordapp/flow`.
    pub flow: Option<String>,
    /// At most so many (1 to 10,000).
    pub limit: u32,
    /// Page token of the answer before.
    pub page_token: Option<String>,
}

/// A page of flows.
#[derive(Debug, Clone)]
pub struct FlowPage {
    /// Newest first.
    pub flows: Vec<FlowSummary>,
    /// More, if any.
    pub next_page_token: Option<String>,
}

/// A flow that can be started.
#[derive(Debug, Clone)]
pub struct FlowType {
    /// The flow's full name, `cordapp/flow`.
    pub name: String,
    /// First paragraph of its documentation.
    pub doc: String,
    /// Protocol version.
    pub version: u32,
    /// May be started by RPC.
    pub startable: bool,
    /// The protocol it answers, `cordapp/flow`.
    pub responds_to: Option<String>,
    /// JSON Schema of its arguments.
    pub arguments: Option<Value>,
    /// JSON Schema of its result.
    pub result: Option<Value>,
}

/// A finished flow that was started with a client id.
#[derive(Debug, Clone)]
pub struct FinishedClientId {
    /// Full name of the identity.
    pub identity: String,
    /// The client id.
    pub client_id: String,
    /// The flow.
    pub flow_id: FlowId,
    /// Completed, rather than failed or killed.
    pub succeeded: bool,
}

/// What an identity is doing: the `state` that commands and RPC clients are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IdentityPhase {
    /// Rows only.
    Cold,
    /// Being opened.
    Opening,
    /// An actor runs.
    Active,
    /// Being let go.
    Draining,
    /// Its manifest, keys or CorDapps are broken.
    Quarantined,
}

impl IdentityPhase {
    /// All phases.
    pub const ALL: [IdentityPhase; 5] = [
        IdentityPhase::Cold,
        IdentityPhase::Opening,
        IdentityPhase::Active,
        IdentityPhase::Draining,
        IdentityPhase::Quarantined,
    ];

    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            IdentityPhase::Cold => "cold",
            IdentityPhase::Opening => "opening",
            IdentityPhase::Active => "active",
            IdentityPhase::Draining => "draining",
            IdentityPhase::Quarantined => "quarantined",
        }
    }
}

/// A CorDapp as an identity uses it.
#[derive(Debug, Clone)]
pub struct CordappView {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the component, hex.
    pub hash: String,
}

/// An identity of this host.
#[derive(Debug, Clone)]
pub struct IdentityView {
    /// X.500 name; for a quarantined manifest that has none, its file name.
    pub name: String,
    /// What it is doing.
    pub phase: IdentityPhase,
    /// Why it is quarantined.
    pub problem: Option<Problem>,
    /// What it runs.
    pub cordapps: Vec<CordappView>,
    /// Live flows: running, suspended, in hospital.
    pub flows: u64,
    /// The manifest file.
    pub manifest: Option<String>,
}

/// The host at a glance.
#[derive(Debug, Clone)]
pub struct HostStatus {
    /// Identities by phase.
    pub identities: BTreeMap<&'static str, u64>,
    /// Live flows by phase (running, suspended, paused, hospital), and ended ones since the start of the host.
    pub flows: BTreeMap<&'static str, u64>,
    /// Flow instances in memory.
    pub instances: u64,
    /// Resident memory of the process.
    pub rss_bytes: u64,
    /// Since the start of the host.
    pub uptime_ms: u64,
    /// Version of the host.
    pub version: String,
    /// Durable steps, commits and the like since the start of the host, by name.
    pub counters: BTreeMap<&'static str, u64>,
}

/// Everything the edges may ask.
#[async_trait]
pub trait HostApi: LedgerApi + NotaryApi + AttachmentApi + AuditApi {
    /// Starts a flow; durable on return.
    async fn start_flow(&self, caller: &Caller, request: StartFlow) -> ApiResult<Started>;
    /// Starts a flow, durable on return, and gives its events from the first one on, or why those cannot be had.
    async fn start_and_attach(
        &self,
        caller: &Caller,
        request: StartFlow,
    ) -> ApiResult<(Started, ApiResult<FlowEvents>)>;
    /// Events behind a cursor (0: all that are kept).
    async fn attach(&self, caller: &Caller, flow: FlowId, cursor: u64) -> ApiResult<FlowEvents>;
    /// The flow that a client id stands for.
    async fn find_client_id(&self, caller: &Caller, identity: &str, client_id: &str) -> ApiResult<FlowId>;
    /// Everything about one flow.
    async fn flow(&self, caller: &Caller, flow: FlowId) -> ApiResult<FlowDetail>;
    /// A page of flows.
    async fn list_flows(&self, caller: &Caller, filter: FlowFilter) -> ApiResult<FlowPage>;
    /// True if something was killed (docs/behaviour.md 4.8).
    async fn kill_flow(&self, caller: &Caller, flow: FlowId) -> ApiResult<bool>;
    /// Forgets a finished flow (docs/behaviour.md 6.2). True if something was removed.
    async fn remove_client_id(&self, caller: &Caller, identity: Option<&str>, client_id: &str) -> ApiResult<bool>;
    /// Finished flows of the caller that have a client id.
    async fn finished_client_ids(&self, caller: &Caller, identity: Option<&str>) -> ApiResult<Vec<FinishedClientId>>;
    /// What an identity can run: startable flows first, sorted by name.
    async fn flow_types(&self, caller: &Caller, identity: &str) -> ApiResult<Vec<FlowType>>;
    /// Identities of this host; `filter` is a name, or a part that several may fit.
    async fn identities(&self, caller: &Caller, filter: Option<&str>) -> ApiResult<Vec<IdentityView>>;
    /// One identity.
    async fn identity(&self, caller: &Caller, name: &str) -> ApiResult<IdentityView>;
    /// Parties of the network: `exact` compares whole components.
    async fn parties(&self, caller: &Caller, query: Option<&str>, exact: bool) -> ApiResult<Vec<PartyView>>;
    /// Snapshot of the map and what changes after it.
    async fn network_feed(&self, caller: &Caller) -> ApiResult<(Vec<PartyView>, NetworkChanges)>;
    /// The node info of a party.
    async fn node_info(&self, caller: &Caller, party: &str) -> ApiResult<NodeInfoView>;
    /// The network parameters.
    async fn network_parameters(&self, caller: &Caller) -> ApiResult<ParametersView>;
    /// The host at a glance.
    async fn status(&self, caller: &Caller) -> ApiResult<HostStatus>;
    /// The hosts of the cluster, by name.
    async fn hosts(&self, caller: &Caller) -> ApiResult<Vec<ClusterHost>>;
    /// Asks a host to give up what it runs and take nothing more, or to take identities again.
    async fn set_draining(&self, caller: &Caller, host: &str, draining: bool) -> ApiResult<ClusterHost>;
    /// Has an identity handed over to the host of this name; returns when that host owns it.
    async fn move_identity(&self, caller: &Caller, identity: &str, host: &str) -> ApiResult<Whereabouts>;
    /// Which host runs each identity that a name or a part of one fits; `None`: all.
    async fn whereabouts(&self, caller: &Caller, filter: Option<&str>) -> ApiResult<Vec<Whereabouts>>;
    /// How many slots are wanted, whether a host has given them or not.
    async fn demand(&self, caller: &Caller) -> ApiResult<u64>;
    /// The cluster at a glance.
    async fn cluster_status(&self, caller: &Caller) -> ApiResult<ClusterStatus>;
}
