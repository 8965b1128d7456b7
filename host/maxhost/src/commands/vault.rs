//! `maxhost vault`: find, follow and see who holds the states of an identity.

use maxhost_rpc::proto::v1 as pb;
use serde_json::{Map, Value, json};

use crate::cli::{StateRelevancy, StateStatus, VaultCommand, VaultQueryArgs, VaultWhich};
use crate::context::{Context, Outcome};
use crate::render;

/// What the answer about a group has besides its fields.
const FIGURES: [&str; 2] = ["sum", "count"];

/// Does what was typed.
pub fn execute(context: &Context, command: VaultCommand) -> Outcome {
    match command {
        VaultCommand::Query(args) => query(context, args),
        VaultCommand::Track { which, cursor } => track(context, which, cursor),
        VaultCommand::Locks { identity, limit, cursor } => locks(context, identity, limit, cursor),
    }
}

fn request(which: VaultWhich) -> pb::VaultQueryRequest {
    let status = match which.status {
        None => pb::StateStatus::Unspecified,
        Some(StateStatus::Unconsumed) => pb::StateStatus::Unconsumed,
        Some(StateStatus::Consumed) => pb::StateStatus::Consumed,
        Some(StateStatus::All) => pb::StateStatus::All,
    };
    let relevancy = match which.relevancy {
        None => pb::StateRelevancy::Unspecified,
        Some(StateRelevancy::All) => pb::StateRelevancy::All,
        Some(StateRelevancy::Relevant) => pb::StateRelevancy::Relevant,
        Some(StateRelevancy::NotRelevant) => pb::StateRelevancy::NotRelevant,
    };
    pb::VaultQueryRequest {
        identity: which.identity,
        types: which.types,
        status: status.into(),
        r#where: which.filter,
        sort: None,
        limit: None,
        cursor: None,
        encoding: pb::Encoding::Json.into(),
        relevancy: relevancy.into(),
        external_ids: which.external_ids,
        key_external_ids: which.key_external_ids,
    }
}

fn query(context: &Context, args: VaultQueryArgs) -> Outcome {
    let client = context.client()?;
    let VaultQueryArgs { which, sort, limit, cursor, sum, by, count } = args;
    let request = pb::VaultQueryRequest { sort, limit, cursor, ..request(which) };
    if count {
        let count = context.block_on(client.count(request))?.count;
        context.out.object(&json!({ "count": count }), || count.to_string());
        return Ok(0);
    }
    if let Some(field) = sum {
        let request = pb::VaultSumRequest { query: Some(request), field, by };
        let sums = context.block_on(client.sum(request))?.sums;
        let values: Vec<Value> = sums.iter().map(sum_of).collect();
        context.out.list(&values, &["GROUP", "SUM", "COUNT"], |value| {
            let all = value["by"].as_object().or_else(|| value.as_object()).into_iter().flatten();
            let is_in_by = value["by"].is_object();
            let group = all.filter(|(key, _)| is_in_by || !FIGURES.contains(&key.as_str()));
            let group: Vec<String> = group.map(|(key, value)| format!("{key} = {}", render::plain(value))).collect();
            vec![group.join(", "), render::plain(&value["sum"]), render::plain(&value["count"])]
        });
        return Ok(0);
    }
    let answer = context.block_on(client.query(request))?;
    let mut states: Vec<Value> = answer.states.iter().map(render::vault_state).collect();
    if context.out.is_json() {
        states.extend(answer.cursor.map(|cursor| json!({ "cursor": cursor })));
        context.out.list(&states, &[], |_| Vec::new());
        return Ok(0);
    }
    context.out.list(&states, &["REF", "TYPE", "STATUS", "STATE", "LOCK"], |state| {
        let in_flight = state["in_flight"].as_str().map(|id| format!("in flight: {id}"));
        let lock = state["lock"]["holder"].as_str().map(str::to_owned).or(in_flight).unwrap_or_default();
        vec![
            render::cell(state, "ref"),
            render::cell(state, "type"),
            render::cell(state, "status"),
            state["state"].to_string(),
            lock,
        ]
    });
    if let Some(cursor) = answer.cursor {
        context.out.note(&format!("there are more: --cursor {cursor}"));
    }
    Ok(0)
}

/// A group with its figures. Where a field of the group is called as a figure is, `by` has the whole group.
fn sum_of(sum: &pb::VaultSum) -> Value {
    let by = render::parsed(&sum.by);
    let mut object: Map<String, Value> = by.as_object().cloned().unwrap_or_default();
    if FIGURES.iter().chain(&["by"]).any(|name| object.contains_key(*name)) {
        object.insert("by".to_owned(), by);
    }
    object.insert("sum".to_owned(), render::parsed(&sum.sum));
    object.insert("count".to_owned(), sum.count.into());
    Value::Object(object)
}

fn track(context: &Context, which: VaultWhich, cursor: Option<String>) -> Outcome {
    let client = context.client()?;
    let request = pb::VaultTrackRequest { query: Some(request(which)), cursor };
    context.block_on_endless(async {
        let mut changes = client.track(request).await?;
        loop {
            let Some(change) = client.next_update(&mut changes).await? else { return Ok(0) };
            let produced: Vec<Value> = change.produced.iter().map(render::vault_state).collect();
            let mut object = json!({
                "produced": produced,
                "consumed": change.consumed,
                "cursor": change.cursor,
                "transaction": change.transaction,
            });
            if change.more {
                object["more"] = true.into();
            }
            context.out.object(&object, || {
                let came = produced.iter().map(|state| {
                    format!("+ {} {} {}", render::cell(state, "ref"), render::cell(state, "type"), state["state"])
                });
                let went = change.consumed.iter().map(|reference| format!("- {reference}"));
                came.chain(went).collect::<Vec<_>>().join("\n")
            });
        }
    })
}

fn locks(context: &Context, identity: String, limit: u32, cursor: Option<String>) -> Outcome {
    let client = context.client()?;
    let answer = context.block_on(client.locks(pb::VaultLocksRequest { identity, limit, cursor }))?;
    let mut locks: Vec<Value> = answer
        .locks
        .iter()
        .map(|lock| json!({ "ref": lock.r#ref, "holder": lock.holder, "until": render::time(lock.until) }))
        .collect();
    if context.out.is_json() {
        locks.extend(answer.cursor.map(|cursor| json!({ "cursor": cursor })));
        context.out.list(&locks, &[], |_| Vec::new());
        return Ok(0);
    }
    context.out.list(&locks, &["REF", "HOLDER", "UNTIL"], |lock| {
        vec![render::cell(lock, "ref"), render::cell(lock, "holder"), render::cell(lock, "until")]
    });
    if let Some(cursor) = answer.cursor {
        context.out.note(&format!("there are more: --cursor {cursor}"));
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_a_group_that_is_called_as_a_figure_is_not_lost() {
        let sum = |by: &str| sum_of(&pb::VaultSum { by: by.to_owned(), sum: "7".to_owned(), count: 2 });
        assert_eq!(sum(r#"{"currency":"GBP"}"#), json!({"currency": "GBP", "sum": 7, "count": 2}));
        let group = json!({"count": 5, "sum": "x", "owner": "Ann"});
        let shown = json!({"by": group, "count": 2, "sum": 7, "owner": "Ann"});
        assert_eq!(sum(&group.to_string()), shown);
        assert_eq!(sum(r#"{"by":1}"#), json!({"by": {"by": 1}, "count": 2, "sum": 7}));
    }
}
