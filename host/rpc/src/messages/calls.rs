//! What a request asks for, and one attempt to do it. Methods are called as their permissions, and take and give what the methods
//! of the gRPC services do.

use std::sync::Arc;
use std::time::Duration;

use maxhost_flows::Action;
use maxhost_flows::api::ledger::Paged;
use maxhost_flows::api::{Arguments, Caller, FlowFilter, FlowPhase, HostApi, StartFlow, Started};
use maxhost_model::{Code, FlowId, Problem};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::conversion::aside;
use crate::convert::{self, PayloadForm};
use crate::json;
use crate::proto::v1 as pb;
use crate::services::ledger::{state, vault_request};

/// The version of the form of requests and answers.
pub(super) const VERSION: u32 = 1;
/// What a list gives when no size is named, and the most that it gives.
const DEFAULT_PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 1_000;
/// What another host was asked for and has not done in time is not asked for again before this: it finds the first time waiting
/// when it comes.
const ASK_AGAIN: Duration = Duration::from_secs(600);

/// The body of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(rename = "version")]
    _version: u32,
    method: String,
    #[serde(default)]
    params: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StartParams {
    identity: String,
    flow: String,
    #[serde(default)]
    arguments: Option<Value>,
    client_id: String,
    #[serde(default)]
    wait: bool,
}

/// Which flow: its id, or a client id of the user.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FlowParams {
    flow_id: Option<String>,
    identity: Option<String>,
    client_id: Option<String>,
    #[serde(default)]
    wait: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParams {
    identity: Option<String>,
    #[serde(default)]
    states: Vec<String>,
    flow: Option<String>,
    page_size: Option<u32>,
    page_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentitiesParams {
    filter: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VaultParams {
    identity: String,
    #[serde(default)]
    types: Vec<String>,
    status: Option<String>,
    r#where: Option<String>,
    sort: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
    relevancy: Option<String>,
    #[serde(default)]
    external_ids: Vec<String>,
    #[serde(default)]
    key_external_ids: Vec<String>,
}

/// How a request names a flow.
enum Which {
    Id(FlowId),
    Client { identity: String, client_id: String },
}

enum What {
    Start { start: StartFlow, client_id: String, wait: bool },
    Get { which: Which, wait: bool },
    Kill(Which),
    List(FlowFilter),
    Identities(Option<String>),
    Vault(pb::VaultQueryRequest),
}

/// What a request asks for, and how far it has come.
pub(super) struct Call {
    what: What,
    /// The flow that is waited for, as soon as it is known.
    flow: Option<FlowId>,
    /// When another host was asked and did not do it in time.
    asked: Option<Instant>,
    /// Whether it has changed something.
    has_changed: bool,
}

impl Call {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// `request-invalid`, with the field where that is known; `flow-id-invalid`, `flow-not-found`.
    pub fn read(body: &[u8]) -> Result<Call, Problem> {
        let invalid = |reason: String| Problem::new(Code::RequestInvalid, format!("the body of the request: {reason}"));
        let text = std::str::from_utf8(body).map_err(|_| invalid("it is not UTF-8".to_owned()))?;
        let json = maxhost_model::parse_json(text).map_err(|error| invalid(error.to_string()))?;
        if !json.is_object() {
            return Err(invalid("it is not an object".to_owned()));
        }
        // Told before all else, because a newer version may have other fields.
        if let Some(other) = json.get("version").filter(|version| version.as_u64() != Some(u64::from(VERSION))) {
            let text = format!("version {other} is not known here; write version {VERSION}");
            return Err(invalid(text).detail("field", "version"));
        }
        let Body { _version: _, method, params } =
            serde_json::from_value(json).map_err(|error| invalid(error.to_string()))?;
        let what = What::read(&method, params.unwrap_or_else(|| json!({})))?;
        Ok(Call { what, flow: None, asked: None, has_changed: false })
    }

    /// The permission that it needs.
    pub fn action(&self) -> Action {
        match &self.what {
            What::Start { .. } => Action::StartFlow,
            What::Get { .. } => Action::GetFlow,
            What::Kill(_) => Action::KillFlow,
            What::List(_) => Action::ListFlows,
            What::Identities(_) => Action::ListIdentities,
            What::Vault(_) => Action::QueryVault,
        }
    }

    /// Whether it waits for the end of a flow.
    pub fn waits(&self) -> bool {
        matches!(&self.what, What::Start { wait: true, .. } | What::Get { wait: true, .. })
    }

    /// Whether an old one is answered if what it has begun is there: a start is looked up then, and begins nothing.
    pub fn outlives_its_age(&self) -> bool {
        self.waits() || matches!(&self.what, What::Start { .. })
    }

    /// Whether it has changed something, as far as is known.
    pub fn has_changed(&self) -> bool {
        self.has_changed
    }

    /// Does what is asked for, or looks how it is getting on; `None` if what it waits for has not come yet. A request that is
    /// not fresh begins nothing.
    ///
    /// # Errors
    /// Those of the method.
    pub async fn attempt(
        &mut self,
        api: &Arc<dyn HostApi>,
        caller: &Caller,
        is_fresh: bool,
    ) -> Result<Option<Value>, Problem> {
        match &self.what {
            What::Start { wait, .. } => {
                let wait = *wait;
                if self.flow.is_none() {
                    let started = self.start(api, caller, is_fresh).await?;
                    self.has_changed = started.new;
                    self.flow = Some(started.flow_id);
                    if !wait {
                        return Ok(Some(of_started(started)));
                    }
                }
                let Some(id) = self.flow else { return Ok(None) };
                let summary = api.flow(caller, id).await?.summary;
                if summary.result.is_none() && !summary.phase.is_ended() {
                    return Ok(None);
                }
                let bytes = convert::payload_bytes(&summary);
                let shown = move || Value::Object(json::flow(&convert::flow(summary, PayloadForm::Json)));
                aside(bytes, shown).await.map(Some)
            }
            What::Get { which, wait } => {
                let id = match self.flow {
                    Some(id) => id,
                    None => which.find(api, caller).await?,
                };
                let detail = api.flow(caller, id).await?;
                let is_over = !wait || detail.summary.phase.is_ended();
                self.flow = Some(id);
                if !is_over {
                    return Ok(None);
                }
                let bytes = convert::payload_bytes(&detail.summary);
                let shown = move || json::flow_detail(&convert::flow_detail(detail, PayloadForm::Json));
                aside(bytes, shown).await.map(Some)
            }
            What::Kill(which) => {
                let id = which.find(api, caller).await?;
                let killed = match self.is_asked() {
                    true if api.flow(caller, id).await?.summary.phase.is_ended() => true,
                    true => return Err(not_in_time("killed the flow")),
                    false => self.note_asked(api.kill_flow(caller, id).await)?,
                };
                self.has_changed = killed;
                Ok(Some(json!({ "killed": killed })))
            }
            What::List(filter) => {
                let page = api.list_flows(caller, filter.clone()).await?;
                let flow = |flow| Value::Object(json::flow(&convert::flow(flow, PayloadForm::Json)));
                let flows: Vec<Value> = page.flows.into_iter().map(flow).collect();
                Ok(Some(json!({ "flows": flows, "next_page_token": page.next_page_token })))
            }
            What::Identities(filter) => {
                let found = api.identities(caller, filter.as_deref()).await?;
                let identities: Vec<Value> =
                    found.into_iter().map(|one| json::identity(&convert::identity(one))).collect();
                Ok(Some(json!({ "identities": identities })))
            }
            What::Vault(query) => {
                let (request, form) = vault_request(Some(query.clone()))?;
                let Paged { items, cursor } = api.vault_query(caller, request).await?;
                let bytes = items.iter().map(|state| state.data.len()).sum();
                let shown = move || items.into_iter().map(|one| json::vault_state(&state(one, form))).collect();
                let states: Vec<Value> = aside(bytes, shown).await?;
                Ok(Some(json!({ "states": states, "cursor": cursor })))
            }
        }
    }

    async fn start(&mut self, api: &Arc<dyn HostApi>, caller: &Caller, is_fresh: bool) -> Result<Started, Problem> {
        let What::Start { start, client_id, .. } = &self.what else {
            return Err(Problem::new(Code::Internal, "this request starts no flow"));
        };
        if is_fresh && !self.is_asked() {
            let started = api.start_flow(caller, start.clone()).await;
            return self.note_asked(started);
        }
        match api.find_client_id(caller, &start.identity, client_id).await {
            Ok(id) => {
                let found = api.flow(caller, id).await?.summary;
                let (identity, flow) = (found.identity, found.flow);
                Ok(Started { flow_id: id, identity, flow, client_id: Some(client_id.clone()), new: false })
            }
            Err(problem) if problem.code != Code::ClientIdNotFound => Err(problem),
            Err(_) if is_fresh => Err(not_in_time("started the flow")),
            Err(_) => {
                let text =
                    format!("the request is too old to start a flow, and none is known under client id '{client_id}'");
                Err(Problem::new(Code::RequestExpired, text))
            }
        }
    }

    /// Whether another host was asked lately, and may still do it.
    fn is_asked(&self) -> bool {
        self.asked.is_some_and(|at| at.elapsed() < ASK_AGAIN)
    }

    fn note_asked<T>(&mut self, outcome: Result<T, Problem>) -> Result<T, Problem> {
        if outcome.as_ref().is_err_and(|problem| problem.code == Code::Timeout) {
            self.asked = Some(Instant::now());
        }
        outcome
    }
}

impl What {
    fn read(method: &str, params: Value) -> Result<What, Problem> {
        if !params.is_object() {
            return Err(Problem::new(Code::RequestInvalid, "params is not an object").detail("field", "params"));
        }
        Ok(match method {
            "StartFlow" => {
                let StartParams { identity, flow, arguments, client_id, wait } = read(method, params)?;
                let arguments = Arguments::Json(arguments.unwrap_or_else(|| json!({})));
                let start = StartFlow { identity, flow, arguments, client_id: Some(client_id.clone()) };
                What::Start { start, client_id, wait }
            }
            "GetFlow" => {
                let params: FlowParams = read(method, params)?;
                let wait = params.wait;
                What::Get { which: Which::read(params)?, wait }
            }
            "KillFlow" => {
                let params: FlowParams = read(method, params)?;
                if params.wait {
                    return Err(invalid_param("wait", "a kill is answered when the flow has ended anyway"));
                }
                What::Kill(Which::read(params)?)
            }
            "ListFlows" => {
                let ListParams { identity, states, flow, page_size, page_token } = read(method, params)?;
                let phase = |word: &String| {
                    FlowPhase::parse(word)
                        .ok_or_else(|| invalid_param("states", &format!("'{word}' is no state of a flow")))
                };
                let phases = states.iter().map(phase).collect::<Result<_, _>>()?;
                let limit = page_size.filter(|size| *size > 0).unwrap_or(DEFAULT_PAGE).min(LARGEST_PAGE);
                What::List(FlowFilter { identity, phases, flow, limit, page_token })
            }
            "ListIdentities" => {
                let IdentitiesParams { filter } = read(method, params)?;
                What::Identities(filter)
            }
            "QueryVault" => {
                let params: VaultParams = read(method, params)?;
                let VaultParams { identity, types, status, r#where, sort, limit, cursor, .. } = params;
                let status = match status.as_deref() {
                    None | Some("unconsumed") => pb::StateStatus::Unconsumed,
                    Some("consumed") => pb::StateStatus::Consumed,
                    Some("all") => pb::StateStatus::All,
                    Some(other) => {
                        let text = format!("'{other}' is none of unconsumed, consumed, all");
                        return Err(invalid_param("status", &text));
                    }
                };
                let limit = Some(limit.unwrap_or(DEFAULT_PAGE).min(LARGEST_PAGE));
                let relevancy = match params.relevancy.as_deref() {
                    None => pb::StateRelevancy::Unspecified,
                    Some("all") => pb::StateRelevancy::All,
                    Some("relevant") => pb::StateRelevancy::Relevant,
                    Some("not-relevant") => pb::StateRelevancy::NotRelevant,
                    Some(other) => {
                        let text = format!("'{other}' is none of all, relevant, not-relevant");
                        return Err(invalid_param("relevancy", &text));
                    }
                };
                What::Vault(pb::VaultQueryRequest {
                    identity,
                    types,
                    status: status.into(),
                    r#where,
                    sort,
                    limit,
                    cursor,
                    encoding: pb::Encoding::Json.into(),
                    relevancy: relevancy.into(),
                    external_ids: params.external_ids,
                    key_external_ids: params.key_external_ids,
                })
            }
            other => {
                let known = "StartFlow, GetFlow, KillFlow, ListFlows, ListIdentities, QueryVault";
                let text = format!("there is no method '{other}' for messages: {known}");
                return Err(Problem::new(Code::RequestInvalid, text).detail("field", "method"));
            }
        })
    }
}

impl Which {
    fn read(params: FlowParams) -> Result<Which, Problem> {
        match params {
            FlowParams { flow_id: Some(id), identity: None, client_id: None, .. } => {
                Ok(Which::Id(convert::flow_id(&id)?))
            }
            FlowParams { flow_id: None, identity: Some(identity), client_id: Some(client_id), .. } => {
                Ok(Which::Client { identity, client_id })
            }
            _ => Err(invalid_param("flow_id", "name the flow by flow_id, or by identity and client_id")),
        }
    }

    async fn find(&self, api: &Arc<dyn HostApi>, caller: &Caller) -> Result<FlowId, Problem> {
        match self {
            Which::Id(id) => Ok(*id),
            Which::Client { identity, client_id } => api.find_client_id(caller, identity, client_id).await,
        }
    }
}

fn read<T: DeserializeOwned>(method: &str, params: Value) -> Result<T, Problem> {
    serde_json::from_value(params).map_err(|error| {
        Problem::new(Code::RequestInvalid, format!("params of {method}: {error}")).detail("field", "params")
    })
}

fn invalid_param(field: &str, reason: &str) -> Problem {
    Problem::new(Code::RequestInvalid, format!("params.{field}: {reason}")).detail("field", format!("params.{field}"))
}

fn not_in_time(what: &str) -> Problem {
    Problem::new(Code::Timeout, format!("no host has {what} yet"))
}

fn of_started(started: Started) -> Value {
    let Started { flow_id, identity, flow, client_id, new } = started;
    json!({ "flow_id": flow_id.to_string(), "identity": identity, "flow": flow, "client_id": client_id, "new": new })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn requests_are_read_strictly() {
        let read = |text: &str| Call::read(text.as_bytes());
        let start =
            r#"{"version":1,"method":"StartFlow","params":{"identity":"A","flow":"f","client_id":"c","wait":true}}"#;
        let call = read(start).unwrap();
        assert!(call.waits() && call.outlives_its_age() && call.action() == Action::StartFlow);
        let killed = read(r#"{"version":1,"method":"KillFlow","params":{"identity":"A","client_id":"c"}}"#).unwrap();
        assert!(!killed.outlives_its_age() && killed.action() == Action::KillFlow);
        assert!(read(r#"{"version":1,"method":"ListIdentities"}"#).is_ok());
        for (bad, says) in [
            ("", "ends too early"),
            (r#"[1,"ListFlows",{}]"#, "not an object"),
            (r#"{"version":1,"method":"ListIdentities","params":[null]}"#, "not an object"),
            ("{\"version\":1", "ends too early"),
            (r#"{"method":"ListFlows"}"#, "version"),
            (r#"{"version":2,"method":"ListFlows","more":1}"#, "version 2 is not known"),
            (r#"{"version":1,"method":"Attach"}"#, "no method 'Attach'"),
            (r#"{"version":1,"method":"ListFlows","user":"ann"}"#, "user"),
            (r#"{"version":1,"method":"StartFlow","params":{"identity":"A","flow":"f"}}"#, "client_id"),
            (r#"{"version":1,"method":"GetFlow","params":{"client_id":"c"}}"#, "by identity and client_id"),
            (r#"{"version":1,"method":"GetFlow","params":{"flow_id":"c"}}"#, "c"),
            (r#"{"version":1,"method":"ListFlows","params":{"states":["done"]}}"#, "'done' is no state"),
            (r#"{"version":1,"method":"QueryVault","params":{"identity":"A","status":"x"}}"#, "unconsumed"),
        ] {
            let problem = read(bad).err().unwrap();
            assert!(matches!(problem.code, Code::RequestInvalid | Code::FlowIdInvalid), "{bad}: {}", problem.code);
            assert!(problem.message.contains(says), "{bad}: {}", problem.message);
        }
        assert!(Call::read(b"\xff").is_err());
    }
}
