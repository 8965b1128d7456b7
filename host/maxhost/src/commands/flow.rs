//! `maxhost flow`: start, watch and end flows.

use std::path::Path;

use maxhost_model::{Code, Problem};
use maxhost_rpc::proto::v1 as pb;
use maxhost_rpc::proto::v1::flow_event::Event;
use maxhost_rpc::{Client, FollowFrom, FollowOptions, Observation};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cli::{FlowCommand, FlowState, StartArgs};
use crate::context::{Context, INTERRUPTED, Outcome};
use crate::units::show_size;
use crate::{files, render};

/// More than any network allows a message to have: whatever is larger is not even read.
const LARGEST_ARGUMENTS: u64 = 256 << 20;
/// How many flows are asked for at once.
const PAGE: u32 = 1_000;

/// Does what was typed.
pub fn execute(context: &Context, command: FlowCommand) -> Outcome {
    match command {
        FlowCommand::Start(args) => start(context, args),
        FlowCommand::Show { id } => show(context, id),
        FlowCommand::List { identity, state, flow, limit } => list(context, identity, &state, flow, limit),
        FlowCommand::Watch { id, cursor } => {
            let client = context.client()?;
            let from = FollowFrom::Flow { flow_id: id.clone(), cursor, encoding: pb::Encoding::Json };
            follow(context, &client, from, Some((id, cursor)), true)
        }
        FlowCommand::Kill { id } => kill(context, id),
        FlowCommand::Forget { client_id, identity } => forget(context, client_id, identity),
        FlowCommand::Types { identity } => types(context, identity),
    }
}

fn start(context: &Context, args: StartArgs) -> Outcome {
    let json = arguments(args.arguments.as_deref())?;
    let client = context.client()?;
    let request = pb::StartFlowRequest {
        identity: args.identity,
        flow: args.flow,
        arguments: Some(pb::start_flow_request::Arguments::Json(json)),
        client_id: args.client_id,
        encoding: pb::Encoding::Json.into(),
    };
    if args.wait || args.watch {
        return follow(context, &client, FollowFrom::Start(request), None, args.watch);
    }
    context.block_on(async {
        let started = client.start_flow(request).await?.flow.unwrap_or_default();
        // A flow of an earlier start may have ended since; a new one runs.
        let state = if started.new { "running".to_owned() } else { state_of(&client, &started.flow_id).await? };
        let object = json!({
            "flow_id": started.flow_id,
            "client_id": started.client_id,
            "identity": started.identity,
            "flow": started.flow,
            "state": state,
            "new": started.new,
        });
        context.out.object(&object, || started.flow_id.clone());
        if !started.new {
            context.out.note("an earlier start with this client id made this flow");
        }
        Ok(0)
    })
}

/// The arguments as JSON text: as given, from a file (`@FILE`) or from standard input (`-`).
fn arguments(given: Option<&str>) -> Result<String, Problem> {
    let text = match given {
        None => "{}".to_owned(),
        Some("-") => all_of("standard input", files::read_all(std::io::stdin().lock(), LARGEST_ARGUMENTS))?,
        Some(given) => match given.strip_prefix('@') {
            Some(file) => all_of(&format!("'{file}'"), files::read_at_most(Path::new(file), LARGEST_ARGUMENTS))?,
            None => given.to_owned(),
        },
    };
    match maxhost_model::parse_arguments(&text) {
        Ok(_) => Ok(text),
        Err(problem) if problem.details.contains_key("line") => {
            Err(problem.remedy("give one JSON object, in single quotes for the shell: '{\"count\": 3}'"))
        }
        Err(problem) => Err(problem),
    }
}

/// Arguments that were read from somewhere.
fn all_of(place: &str, read: std::io::Result<Option<Vec<u8>>>) -> Result<String, Problem> {
    let failed = |code: Code, why: &dyn std::fmt::Display| {
        Problem::new(code, format!("cannot read the arguments from {place}: {why}"))
    };
    let bytes = read.map_err(|error| failed(files::unreadable(&error), &error))?.ok_or_else(|| {
        let most = show_size(LARGEST_ARGUMENTS);
        Problem::new(Code::MessageTooLarge, format!("the arguments from {place} are larger than {most}"))
    })?;
    String::from_utf8(bytes).map_err(|_| failed(Code::FileUnreadable, &"they are no UTF-8"))
}

async fn state_of(client: &Client, flow_id: &str) -> Result<String, Problem> {
    let shown = client.get_flow(get(flow_id)).await?;
    Ok(render::flow_state(shown.flow.unwrap_or_default().state()).to_owned())
}

fn get(flow_id: &str) -> pb::GetFlowRequest {
    let selector = Some(pb::get_flow_request::Selector::FlowId(flow_id.to_owned()));
    pb::GetFlowRequest { selector, encoding: pb::Encoding::Json.into() }
}

/// Follows a flow to its end, over restarts of the host; a flow that is put into hospital needs a person, so waiting for it
/// is over too. Ctrl-C leaves it running.
fn follow(context: &Context, client: &Client, from: FollowFrom, id: Option<(String, u64)>, watch: bool) -> Outcome {
    let (held, mut hospital) = tokio::sync::mpsc::channel(1);
    let (flow_id, seen) = id.unzip();
    let mut follower = Follower { context, watch, flow_id, seen: seen.unwrap_or(0), held };
    let flow = context.block_on(async {
        let deadline = context.global.timeout.map(|timeout| Instant::now() + timeout);
        let options = FollowOptions { deadline, patience: context.global.patience() };
        tokio::select! {
            flow = client.follow(from, options, |observation| follower.observe(&observation)) => flow.map(Some),
            Some(reason) = hospital.recv() => Err(in_hospital(&reason)),
            _ = tokio::signal::ctrl_c() => Ok(None),
        }
    });
    let flow = flow.map_err(|problem| match &follower.flow_id {
        Some(id) if problem.code == Code::FlowHospital => {
            let remedy = format!("see `maxhost flow show {id}`; kill the flow if it cannot be mended");
            problem.remedy(remedy).detail("flow_id", id.clone())
        }
        _ => problem,
    })?;
    match flow {
        Some(flow) => ended(context, &flow, watch),
        None => {
            let id = follower.flow_id.as_deref().unwrap_or("ID");
            context.out.warn(&format!("interrupted: the flow goes on; follow it with `maxhost flow watch {id}`"));
            Ok(INTERRUPTED)
        }
    }
}

fn in_hospital(reason: &str) -> Problem {
    Problem::new(Code::FlowHospital, format!("the flow needs a person: {reason}"))
}

/// Tells what is observed while it happens.
struct Follower<'a> {
    context: &'a Context,
    watch: bool,
    flow_id: Option<String>,
    /// The last label that was told, by its number.
    seen: u64,
    /// Takes the reason why the flow is in hospital.
    held: tokio::sync::mpsc::Sender<String>,
}

impl Follower<'_> {
    fn observe(&mut self, observation: &Observation<'_>) {
        let out = self.context.out;
        match observation {
            Observation::Event { event: Event::Started(started), .. } => {
                self.flow_id = Some(started.flow_id.clone());
                self.tell(
                    || json!({"event": "started", "flow_id": started.flow_id, "identity": started.identity, "flow": started.flow, "new": started.new}),
                    || format!("{} started: {}", started.flow, started.flow_id),
                );
            }
            Observation::Event { event: Event::State(change), .. } => {
                let state = render::flow_state(change.state());
                self.tell(
                    || json!({"event": "state", "state": state, "reason": change.reason}),
                    || {
                        change
                            .reason
                            .as_ref()
                            .map_or(state.to_owned(), |reason| format!("{state}: {}", render::printable(reason)))
                    },
                );
                if change.state() == pb::FlowState::Hospital {
                    // Full: it was told already.
                    let _told = self.held.try_send(change.reason.clone().unwrap_or_default());
                }
            }
            Observation::Event { event: Event::Progress(label), cursor } => {
                // Labels are numbered without a gap. A host drops the oldest when there are many at once.
                let left_out = cursor.saturating_sub(self.seen).saturating_sub(1);
                self.seen = *cursor;
                if left_out > 0 {
                    self.tell(
                        || json!({"event": "gap", "labels": left_out}),
                        || format!("  … {left_out} labels left out"),
                    );
                }
                self.tell(
                    || json!({"event": "progress", "cursor": cursor, "label": label}),
                    || format!("  {}", render::printable(label)),
                );
            }
            Observation::Event { event: Event::Ended(_), .. } => {}
            Observation::Lost(problem) => {
                out.warn(&format!("{}; waiting for the host to come back", problem.message));
            }
            Observation::Back => out.warn("the host is back"),
        }
    }

    fn tell(&self, object: impl FnOnce() -> Value, text: impl FnOnce() -> String) {
        let out = self.context.out;
        match (self.watch, out.is_json()) {
            (true, true) => out.json(&object()),
            (true, false) => out.note(&text()),
            (false, _) => {}
        }
    }
}

/// Prints a flow that has ended.
fn ended(context: &Context, flow: &pb::Flow, watch: bool) -> Outcome {
    let mut object = render::flow(flow);
    let result = object.get("result").cloned().unwrap_or(Value::Null);
    if context.out.is_json() {
        if watch {
            object.insert("event".to_owned(), "ended".into());
        }
        context.out.json(&Value::Object(object));
    }
    match failure(flow) {
        None => {
            if !context.out.is_json() {
                context.out.json(&result);
            }
            Ok(0)
        }
        Some(problem) => Err(problem),
    }
}

/// The problem that a failed flow is to whoever waits for its result.
fn failure(flow: &pb::Flow) -> Option<Problem> {
    let code = match flow.state() {
        pb::FlowState::Completed => return None,
        pb::FlowState::Killed => Code::FlowKilled,
        _ => Code::FlowFailed,
    };
    let problem = match &flow.end {
        Some(pb::flow::End::Error(error)) => {
            let from = error.peer.as_ref().map(|peer| format!(" from {peer}")).unwrap_or_default();
            let limit = error.limit.as_ref().map(|limit| format!(" ({limit})")).unwrap_or_default();
            let problem = Problem::new(
                code,
                format!("{} ended in an error: {}{limit}{from}: {}", flow.flow, error.kind, error.message),
            )
            .detail("kind", error.kind.clone());
            match &error.error_id {
                Some(id) => problem.detail("error_id", id.clone()),
                None => problem,
            }
        }
        _ => Problem::new(code, format!("{} ended without a result", flow.flow)),
    };
    let problem = problem.detail("flow_id", flow.flow_id.clone());
    Some(problem.remedy(format!("see `maxhost flow show {}`", flow.flow_id)))
}

fn show(context: &Context, id: String) -> Outcome {
    let client = context.client()?;
    let detail = render::flow_detail(&context.block_on(client.get_flow(get(&id)))?);
    context.out.object(&detail, || render::lines(&detail));
    Ok(0)
}

fn list(
    context: &Context,
    identity: Option<String>,
    states: &[FlowState],
    flow: Option<String>,
    limit: u32,
) -> Outcome {
    let client = context.client()?;
    let mut request = pb::ListFlowsRequest {
        identity,
        states: states.iter().map(|&state| wire_state(state).into()).collect(),
        flow,
        page_size: 0,
        page_token: None,
        encoding: pb::Encoding::Json.into(),
    };
    let mut left = limit;
    let mut flows = Vec::new();
    context.block_on(async {
        while left > 0 {
            request.page_size = left.min(PAGE);
            let page = client.list_flows(request.clone()).await?;
            left = left.saturating_sub(u32::try_from(page.flows.len()).unwrap_or(u32::MAX));
            flows.extend(page.flows.iter().map(|flow| Value::Object(render::flow(flow))));
            match page.next_page_token {
                Some(token) => request.page_token = Some(token),
                None => break,
            }
        }
        Ok(())
    })?;
    context.out.list(&flows, &["FLOW ID", "STATE", "FLOW", "IDENTITY", "STARTED", "PROGRESS"], |flow| {
        ["flow_id", "state", "flow", "identity", "started", "progress"].map(|field| render::cell(flow, field)).into()
    });
    Ok(0)
}

fn wire_state(state: FlowState) -> pb::FlowState {
    match state {
        FlowState::Running => pb::FlowState::Running,
        FlowState::Suspended => pb::FlowState::Suspended,
        FlowState::Paused => pb::FlowState::Paused,
        FlowState::Hospital => pb::FlowState::Hospital,
        FlowState::Completed => pb::FlowState::Completed,
        FlowState::Failed => pb::FlowState::Failed,
        FlowState::Killed => pb::FlowState::Killed,
    }
}

fn kill(context: &Context, id: String) -> Outcome {
    let client = context.client()?;
    let selector = Some(pb::kill_flow_request::Selector::FlowId(id.clone()));
    let (killed, shown) = context.block_on(async {
        let killed = client.kill_flow(pb::KillFlowRequest { selector }).await?.killed;
        match client.get_flow(get(&id)).await {
            Ok(shown) => Ok((killed, render::flow_detail(&shown))),
            // Nothing is kept of some flows once they have ended.
            Err(problem) if problem.code == Code::FlowNotFound => {
                Ok((killed, json!({"flow_id": id, "state": "killed"})))
            }
            Err(problem) => Err(problem),
        }
    })?;
    let mut object = shown;
    object["killed"] = killed.into();
    context.out.object(&object, || if killed { format!("{id} is killed") } else { format!("{id} had ended already") });
    Ok(0)
}

fn forget(context: &Context, client_id: String, identity: Option<String>) -> Outcome {
    let client = context.client()?;
    let request = pb::RemoveClientIdRequest { identity, client_id: client_id.clone() };
    if !context.block_on(client.remove_client_id(request))?.removed {
        return Err(Problem::new(Code::ClientIdNotFound, format!("there is nothing to forget under '{client_id}'"))
            .detail("client_id", client_id));
    }
    context.out.object(&json!({"client_id": client_id, "removed": true}), || format!("{client_id} is forgotten"));
    Ok(0)
}

fn types(context: &Context, identity: String) -> Outcome {
    let client = context.client()?;
    let flows = context.block_on(client.registered_flows(pb::RegisteredFlowsRequest { identity }))?.flows;
    let startable: Vec<Value> = flows.iter().filter(|flow| flow.startable).map(render::flow_type).collect();
    if context.out.is_json() {
        context.out.list(&startable, &[], |_| vec![]);
        return Ok(0);
    }
    let blocks: Vec<String> = startable
        .iter()
        .map(|flow| {
            let doc = render::cell(flow, "doc");
            format!("{}\n  {doc}\n{}", render::cell(flow, "name"), properties(&flow["arguments"]))
        })
        .collect();
    context.out.data(&blocks.join("\n"));
    Ok(0)
}

/// The top level of a JSON schema, a line a property.
fn properties(schema: &Value) -> String {
    let required =
        |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|required| required == name));
    let Some(properties) = schema["properties"].as_object() else { return String::new() };
    properties
        .iter()
        .map(|(name, property)| {
            let kind = match (&property["type"], &property["format"]) {
                (_, Value::String(format)) => format.clone(),
                (Value::String(kind), _) => kind.clone(),
                (Value::Null, _) => "value".to_owned(),
                (kind, _) => kind.to_string(),
            };
            let optional = if required(name) { "" } else { ", optional" };
            let doc = property["description"].as_str().map(|doc| format!("  {doc}")).unwrap_or_default();
            format!("    {}\n", render::printable(&format!("{name}: {kind}{optional}{doc}")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn arguments_come_from_the_line_or_a_file() {
        assert_eq!(arguments(None).unwrap(), "{}");
        assert_eq!(arguments(Some("{\"a\":1}")).unwrap(), "{\"a\":1}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[1]").unwrap();
        assert_eq!(arguments(Some(&format!("@{}", file.path().display()))).unwrap(), "[1]");
        assert_eq!(arguments(Some("@/does/not/exist")).unwrap_err().code, Code::FileNotFound);
        let problem = arguments(Some("{\n'a'}")).unwrap_err();
        assert_eq!((problem.code, problem.details["line"].as_str()), (Code::ArgumentsInvalid, "2"));
    }

    #[test]
    fn a_failed_flow_is_a_problem_of_the_right_kind() {
        let mut flow = pb::Flow { flow: "a/b".to_owned(), flow_id: "id".to_owned(), ..Default::default() };
        flow.set_state(pb::FlowState::Completed);
        assert_eq!(failure(&flow), None);
        flow.set_state(pb::FlowState::Failed);
        let error = pb::FlowError {
            kind: "flow-exception".to_owned(),
            message: "too late".to_owned(),
            peer: Some("O=Bob, L=New York, C=US".to_owned()),
            ..Default::default()
        };
        flow.end = Some(pb::flow::End::Error(error));
        let problem = failure(&flow).unwrap();
        assert_eq!(problem.code, Code::FlowFailed);
        assert!(problem.message.contains("flow-exception from O=Bob"), "{problem}");
        flow.set_state(pb::FlowState::Killed);
        assert_eq!(failure(&flow).unwrap().code, Code::FlowKilled);
    }

    #[test]
    fn a_schema_is_told_in_lines() {
        let schema = json!({
            "properties": {"peer": {"type": "string", "format": "x500-name"}, "count": {"type": "integer", "description": "how often"}},
            "required": ["peer"],
        });
        assert_eq!(properties(&schema), "    count: integer, optional  how often\n    peer: x500-name\n");
    }
}
