//! Flows over gRPC, in the words of the user surface.

use std::time::Duration;

use maxhost_model::Problem;
pub use maxhost_rpc::json::flow_state as state;
use maxhost_rpc::proto::v1 as pb;
use maxhost_rpc::{FollowFrom, FollowOptions};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::host::Host;

/// No flow of these suites takes longer, on a busy machine.
const LONGEST: Duration = Duration::from_secs(90);
/// How often a waiting test looks.
const POLL: Duration = Duration::from_millis(10);

/// How a flow ended.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// `completed`, `failed` or `killed`.
    pub state: String,
    /// Its result.
    pub result: Option<Value>,
    /// Its error.
    pub error: Option<Failure>,
}

/// The error of a flow.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Failure {
    /// One of the words of the user surface.
    pub kind: String,
    /// For people.
    pub message: String,
    /// The author's type.
    pub exception: Option<String>,
    /// Who sent it.
    pub peer: Option<String>,
    /// Which limit.
    pub limit: Option<String>,
    /// The number under which both sides logged it.
    pub error_id: Option<String>,
}

impl End {
    /// As the answer of the host tells it; nothing of it if the flow has not ended.
    #[must_use]
    pub fn of(flow: &pb::Flow) -> End {
        let (result, error) = match &flow.end {
            Some(pb::flow::End::Result(payload)) => (Some(value(payload)), None),
            Some(pb::flow::End::Error(error)) => (None, Some(Failure::of(error))),
            None => (None, None),
        };
        End { state: state(flow.state()).to_owned(), result, error }
    }

    /// Whether the flow has ended: nothing becomes of it any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "completed" | "failed" | "killed")
    }

    /// Insists on a result.
    pub fn result(&self) -> Value {
        self.result.clone().unwrap_or_else(|| panic!("the flow has no result: {self:?}"))
    }

    /// Insists on an error.
    pub fn failure(&self) -> Failure {
        self.error.clone().unwrap_or_else(|| panic!("the flow did not fail: {self:?}"))
    }
}

impl Failure {
    fn of(error: &pb::FlowError) -> Failure {
        Failure {
            kind: error.kind.clone(),
            message: error.message.clone(),
            exception: error.exception.clone(),
            peer: error.peer.clone(),
            limit: error.limit.clone(),
            error_id: error.error_id.clone(),
        }
    }
}

fn value(payload: &pb::Payload) -> Value {
    match &payload.encoding {
        Some(pb::payload::Encoding::Json(text)) => serde_json::from_str(text).expect("a payload is JSON"),
        other => panic!("a payload is not JSON: {other:?}"),
    }
}

/// A start.
#[must_use]
pub fn request(identity: &str, flow: &str, arguments: &Value) -> pb::StartFlowRequest {
    pb::StartFlowRequest {
        identity: identity.to_owned(),
        flow: flow.to_owned(),
        arguments: Some(pb::start_flow_request::Arguments::Json(arguments.to_string())),
        client_id: None,
        encoding: pb::Encoding::Json.into(),
    }
}

impl Host {
    /// Starts a flow; answers its id.
    pub async fn start(&self, identity: &str, flow: &str, arguments: Value) -> String {
        self.try_start(request(identity, flow, &arguments))
            .await
            .unwrap_or_else(|problem| panic!("{flow}: {problem}"))
            .flow_id
    }

    /// Starts a flow, or says why not.
    ///
    /// # Errors
    /// What the host answers.
    pub async fn try_start(&self, request: pb::StartFlowRequest) -> Result<pb::StartedFlow, Problem> {
        Ok(self.client().start_flow(request).await?.flow.expect("the answer names the flow"))
    }

    /// Starts a flow under a client id.
    ///
    /// # Errors
    /// What the host answers.
    pub async fn start_as(
        &self,
        client_id: &str,
        identity: &str,
        flow: &str,
        arguments: Value,
    ) -> Result<pb::StartedFlow, Problem> {
        let request = request(identity, flow, &arguments);
        self.try_start(pb::StartFlowRequest { client_id: Some(client_id.to_owned()), ..request }).await
    }

    /// Starts a flow and waits for its end.
    pub async fn run(&self, identity: &str, flow: &str, arguments: Value) -> End {
        let from = FollowFrom::Start(request(identity, flow, &arguments));
        match self.client().follow(from, patience(), |_| {}).await {
            Ok(ended) => End::of(&ended),
            Err(problem) => panic!("{flow} {arguments}: {problem}; the log:\n{}", self.log()),
        }
    }

    /// Waits for the end of a flow.
    pub async fn end(&self, flow_id: &str) -> End {
        let from = FollowFrom::Flow { flow_id: flow_id.to_owned(), cursor: 0, encoding: pb::Encoding::Json };
        match self.client().follow(from, patience(), |_| {}).await {
            Ok(ended) => End::of(&ended),
            Err(problem) => panic!("flow {flow_id}: {problem}; the log:\n{}", self.log()),
        }
    }

    /// Everything about a flow.
    ///
    /// # Errors
    /// What the host answers.
    pub async fn try_show(&self, flow_id: &str) -> Result<pb::GetFlowResponse, Problem> {
        let selector = Some(pb::get_flow_request::Selector::FlowId(flow_id.to_owned()));
        self.client().get_flow(pb::GetFlowRequest { selector, encoding: pb::Encoding::Json.into() }).await
    }

    /// Everything about a flow that is there.
    pub async fn show(&self, flow_id: &str) -> pb::GetFlowResponse {
        self.try_show(flow_id).await.unwrap_or_else(|problem| panic!("flow {flow_id}: {problem}"))
    }

    /// State of a flow.
    pub async fn state(&self, flow_id: &str) -> &'static str {
        state(self.show(flow_id).await.flow.expect("the answer names the flow").state())
    }

    /// Waits until a flow shows what is wanted. Fails the test at once when the flow has ended and does not show it.
    pub async fn until(&self, flow_id: &str, fits: impl Fn(&pb::GetFlowResponse) -> bool) -> pb::GetFlowResponse {
        eventually(&format!("flow {flow_id}"), async || {
            let shown = self.show(flow_id).await;
            if fits(&shown) {
                return Ok(shown);
            }
            let end = shown.flow.as_ref().map(End::of).filter(End::is_over);
            assert!(end.is_none(), "flow {flow_id} is over and was never as it was waited for: {end:?}; {shown:?}");
            Err(format!("{shown:?}"))
        })
        .await
    }

    /// Waits until a flow waits for this.
    pub async fn until_waits(&self, flow_id: &str, what: &str) -> pb::GetFlowResponse {
        self.until(flow_id, |shown| shown.waiting_for.as_ref().is_some_and(|waiting| waiting.what == what)).await
    }

    /// Waits until a flow is in this state.
    pub async fn until_state(&self, flow_id: &str, wanted: &str) -> pb::GetFlowResponse {
        self.until(flow_id, |shown| shown.flow.as_ref().is_some_and(|flow| state(flow.state()) == wanted)).await
    }

    /// Kills a flow; whether there was something to kill.
    pub async fn kill(&self, flow_id: &str) -> bool {
        let selector = Some(pb::kill_flow_request::Selector::FlowId(flow_id.to_owned()));
        let answer = self.client().kill_flow(pb::KillFlowRequest { selector }).await;
        answer.unwrap_or_else(|problem| panic!("kill {flow_id}: {problem}")).killed
    }

    /// The host at a glance.
    pub async fn status(&self) -> pb::StatusResponse {
        self.client().status(pb::StatusRequest {}).await.unwrap_or_else(|problem| panic!("status: {problem}"))
    }

    /// Flows of an identity, newest first; `flow` is a part of the name.
    pub async fn flows(&self, identity: Option<&str>, flow: Option<&str>) -> Vec<pb::Flow> {
        let request = pb::ListFlowsRequest {
            identity: identity.map(str::to_owned),
            flow: flow.map(str::to_owned),
            page_size: 10_000,
            ..Default::default()
        };
        self.client().list_flows(request).await.unwrap_or_else(|problem| panic!("list: {problem}")).flows
    }

    /// One identity.
    ///
    /// # Errors
    /// What the host answers.
    pub async fn identity(&self, name: &str) -> Result<pb::Identity, Problem> {
        let answer = self.client().get_identity(pb::GetIdentityRequest { name: name.to_owned() }).await?;
        Ok(answer.identity.expect("the answer names the identity"))
    }

    /// Waits until an identity is in this state.
    pub async fn until_identity(&self, name: &str, wanted: pb::IdentityState) -> pb::Identity {
        eventually(&format!("identity {name}"), async || match self.identity(name).await {
            Ok(identity) if identity.state() == wanted => Ok(identity),
            other => Err(format!("{other:?}")),
        })
        .await
    }

    /// Waits until nothing runs, waits or lies in memory; flows in hospital stay where they are.
    pub async fn until_quiet(&self) -> pb::StatusResponse {
        eventually("a quiet host", async || {
            let status = self.status().await;
            let live = status.flows["running"] + status.flows["suspended"] + status.instances;
            if live == 0 { Ok(status) } else { Err(format!("{status:?}")) }
        })
        .await
    }
}

/// On a machine that is busy a connection alone may take longer than a client waits for one.
fn patience() -> FollowOptions {
    FollowOptions { deadline: Some(Instant::now() + LONGEST), patience: Duration::from_secs(30) }
}

/// Looks until it finds, and fails the test with what it saw last if it does not in time.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + LONGEST;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() >= deadline => panic!("{what} did not come about; last seen: {seen}"),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// Arguments of the flows that take only a peer.
#[must_use]
pub fn with(peer: &str) -> Value {
    json!({ "peer": peer })
}
