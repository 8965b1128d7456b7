//! `maxhost notary`.

use maxhost_model::Problem;
use maxhost_rpc::Client;
use maxhost_rpc::proto::v1 as pb;
use serde_json::{Value, json};

use super::audit::time_or_ago;
use crate::cli::{NotaryCommand, NotaryOutcome, NotaryRequestsArgs};
use crate::context::{Context, Outcome};
use crate::render;

/// Requests that are asked for at once.
const PAGE: u32 = 1_000;
/// The columns of the list for people.
const HEADER: [&str; 6] = ["AT", "ID", "OUTCOME", "STATES", "BATCH", "CALLER"];

/// Does what was typed.
pub fn execute(context: &Context, command: NotaryCommand) -> Outcome {
    match command {
        NotaryCommand::Status { identity } => status(context, identity),
        NotaryCommand::Requests(args) => requests(context, args),
        NotaryCommand::Show { id, identity } => show(context, identity, id),
        NotaryCommand::Consumed { states, identity } => consumed(context, identity, states),
    }
}

fn status(context: &Context, identity: String) -> Outcome {
    let client = context.client()?;
    let status = context.block_on(client.notary_status(pb::NotaryStatusRequest { identity }))?;
    let object = json!({
        "validating": status.validating,
        "committed": status.committed,
        "conflicts": status.conflicts,
        "states": status.states,
        "queue": status.queue,
    });
    context.out.object(&object, || render::lines(&object));
    Ok(0)
}

fn requests(context: &Context, args: NotaryRequestsArgs) -> Outcome {
    let time = |option: &str, text: Option<&str>| text.map(|text| time_or_ago(option, text)).transpose();
    let request = pb::ListNotaryRequestsRequest {
        from: time("--since", args.since.as_deref())?,
        until: time("--until", args.until.as_deref())?,
        identity: args.identity,
        caller: args.caller,
        outcome: args.outcome.map_or(pb::NotaryOutcome::Unspecified, asked).into(),
        limit: 0,
        cursor: args.cursor,
    };
    let client = context.client()?;
    let (mut rows, cursor) = context.block_on(read(client, request, args.limit))?;
    if context.out.is_json() {
        rows.extend(cursor.map(|cursor| json!({ "cursor": cursor })));
        context.out.list(&rows, &[], |_| Vec::new());
        return Ok(0);
    }
    context.out.list(&rows, &HEADER, |row| {
        ["at", "id", "outcome", "states", "batch", "caller"].map(|field| render::cell(row, field)).to_vec()
    });
    if let Some(cursor) = cursor {
        context.out.note(&format!("there are more: --cursor {cursor}"));
    }
    Ok(0)
}

/// So many requests, page by page, and where to go on. A page may be empty where more follow.
async fn read(
    client: Client,
    mut request: pb::ListNotaryRequestsRequest,
    limit: u32,
) -> Result<(Vec<Value>, Option<String>), Problem> {
    let mut rows = Vec::new();
    loop {
        let left = limit.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        if left == 0 {
            return Ok((rows, request.cursor));
        }
        request.limit = left.min(PAGE);
        let answer = client.list_requests(request.clone()).await?;
        rows.extend(answer.requests.iter().map(listed));
        request.cursor = answer.cursor;
        if request.cursor.is_none() {
            return Ok((rows, None));
        }
    }
}

fn show(context: &Context, identity: String, id: String) -> Outcome {
    let client = context.client()?;
    let answer = context.block_on(client.get_request(pb::GetNotaryRequestRequest { identity, id }))?;
    let decided = answer.decided.as_ref().map(
        |decided| json!({ "committed": decided.committed, "batch": decided.batch, "at": render::time(decided.at) }),
    );
    let requests: Vec<Value> = answer.requests.iter().map(shown).collect();
    let object = json!({ "id": answer.id, "decided": decided, "requests": requests, "more": answer.more });
    context.out.object(&object, || tree(&object));
    Ok(0)
}

fn consumed(context: &Context, identity: String, states: Vec<String>) -> Outcome {
    let client = context.client()?;
    let answer = context.block_on(client.consumption(pb::NotaryConsumptionRequest { identity, states }))?;
    let rows: Vec<Value> = answer
        .states
        .iter()
        .map(|state| {
            let by = state.consumed.as_ref();
            json!({
                "ref": state.r#ref,
                "consumed_by": by.map(|by| &by.id),
                "at": by.map_or(Value::Null, |by| render::time(by.at)),
                "batch": by.and_then(|by| by.batch),
            })
        })
        .collect();
    context.out.list(&rows, &["REF", "CONSUMED BY", "AT"], |row| {
        ["ref", "consumed_by", "at"].map(|field| render::cell(row, field)).to_vec()
    });
    Ok(0)
}

fn asked(outcome: NotaryOutcome) -> pb::NotaryOutcome {
    match outcome {
        NotaryOutcome::Committed => pb::NotaryOutcome::Committed,
        NotaryOutcome::Repeated => pb::NotaryOutcome::Repeated,
        NotaryOutcome::Conflict => pb::NotaryOutcome::Conflict,
        NotaryOutcome::TooLate => pb::NotaryOutcome::TooLate,
        NotaryOutcome::TooEarly => pb::NotaryOutcome::TooEarly,
    }
}

/// The word for what was answered; none of what an older version has logged.
fn word(outcome: pb::NotaryOutcome) -> Option<&'static str> {
    match outcome {
        pb::NotaryOutcome::Unspecified => None,
        pb::NotaryOutcome::Committed => Some("committed"),
        pb::NotaryOutcome::Repeated => Some("repeated"),
        pb::NotaryOutcome::Conflict => Some("conflict"),
        pb::NotaryOutcome::TooLate => Some("too-late"),
        pb::NotaryOutcome::TooEarly => Some("too-early"),
    }
}

/// A request in a list.
fn listed(request: &pb::NotaryRequest) -> Value {
    json!({
        "id": request.id,
        "caller": request.caller,
        "outcome": word(request.outcome()),
        "states": request.states,
        "conflicting": request.conflicting,
        "batch": request.batch,
        "at": render::time(request.at),
    })
}

/// A request with the states that kept its transaction from being committed.
fn shown(request: &pb::NotaryRequest) -> Value {
    let conflict = |conflict: &pb::NotaryConflict| {
        let by = conflict.consumed.as_ref();
        json!({
            "ref": conflict.r#ref,
            "kind": conflict.kind,
            "consumed_by": by.map(|by| &by.id),
            "at": by.map_or(Value::Null, |by| render::time(by.at)),
        })
    };
    let mut object = listed(request);
    object["conflicts"] = request.conflicts.iter().map(conflict).collect();
    object
}

/// What is known of a transaction, for people.
fn tree(object: &Value) -> String {
    let mut text = match &object["decided"] {
        Value::Null => format!("{}: nothing is decided for ever", render::cell(object, "id")),
        decided if decided["committed"] == true => {
            format!(
                "{}: committed {} in batch {}",
                render::cell(object, "id"),
                render::cell(decided, "at"),
                decided["batch"]
            )
        }
        decided => format!("{}: too late since {}", render::cell(object, "id"), render::cell(decided, "at")),
    };
    for request in object["requests"].as_array().into_iter().flatten() {
        let [at, outcome, caller] = ["at", "outcome", "caller"].map(|field| render::cell(request, field));
        text += &format!("\n├─ {at} {outcome} {caller}");
        for conflict in request["conflicts"].as_array().into_iter().flatten() {
            let [kind, reference, by] = ["kind", "ref", "consumed_by"].map(|field| render::cell(conflict, field));
            text += &format!("\n│  └─ {kind} {reference}, consumed by {by}");
        }
    }
    if object["more"] == true {
        text += "\n└─ and more";
    }
    text
}
