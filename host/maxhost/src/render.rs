//! The host's answers in the form of the command line: field names of the user surface, times in RFC 3339.

use maxhost_model::text::{json_line, one_line};
use maxhost_rpc::proto::v1 as pb;
use serde_json::{Value, json};

pub use maxhost_rpc::json::{
    flow, flow_detail, flow_state, identity, identity_state, parsed, payload, time, vault_state,
};

/// A flow that can be run.
pub fn flow_type(flow: &pb::FlowType) -> Value {
    let schema = |text: &Option<String>| text.as_deref().map_or(Value::Null, parsed);
    json!({
        "name": flow.name,
        "doc": flow.doc,
        "version": flow.version,
        "startable": flow.startable,
        "responds_to": flow.responds_to,
        "arguments": schema(&flow.arguments),
        "result": schema(&flow.result),
    })
}

/// A party of the network.
pub fn party(party: &pb::Party) -> Value {
    json!({
        "name": party.name,
        "owning_key": hex::encode(&party.owning_key),
        "notary": party.notary,
        "local": party.local,
    })
}

/// The network parameters.
pub fn parameters(parameters: &pb::NetworkParametersResponse) -> Value {
    let notaries: Vec<Value> = parameters
        .notaries
        .iter()
        .map(|notary| json!({"name": notary.name, "validating": notary.validating}))
        .collect();
    let mut shown = json!({
        "minimum_platform_version": parameters.minimum_platform_version,
        "notaries": notaries,
        "max_message_size": parameters.max_message_size,
        "max_transaction_size": parameters.max_transaction_size,
        "modified": time(parameters.modified),
        "epoch": parameters.epoch,
        "hash": parameters.hash,
    });
    if !parameters.publisher_successions.is_empty() {
        let successions: Vec<&Vec<String>> = parameters.publisher_successions.iter().map(|one| &one.keys).collect();
        shown["publisher_successions"] = json!(successions);
    }
    shown
}

/// The host at a glance.
pub fn status(status: &pb::StatusResponse) -> Value {
    json!({
        "version": status.version,
        "uptime_ms": status.uptime_ms,
        "rss_bytes": status.rss_bytes,
        "identities": status.identities,
        "flows": status.flows,
        "instances": status.instances,
        "counters": status.counters,
    })
}

/// A host of the cluster.
pub fn cluster_host(host: &pb::ClusterHost) -> Value {
    let state = match host.state() {
        pb::HostState::Unspecified => "unknown",
        pb::HostState::Up => "up",
        pb::HostState::Draining => "draining",
        pb::HostState::Suspended => "suspended",
        pb::HostState::Away => "away",
    };
    json!({
        "host": host.name,
        "roles": host.roles,
        "state": state,
        "labels": host.labels,
        "identities": host.identities,
        "slots": host.slots,
        "since": time(host.since),
    })
}

/// Which host runs an identity.
pub fn whereabouts(found: &pb::Whereabouts) -> Value {
    json!({
        "identity": found.identity,
        "host": found.host,
        "epoch": found.epoch,
        "state": identity_state(found.state()),
        "only": found.only,
        "prefer": found.prefer,
        "apart": found.apart,
        "unplaced": found.unplaced,
    })
}

/// The cluster at a glance.
pub fn cluster_status(status: &pb::ClusterStatusResponse) -> Value {
    let part = |part: &Option<pb::PartHealth>| {
        let part = part.clone().unwrap_or_default();
        json!({"ok": part.ok, "detail": part.detail})
    };
    let unplaced = status.unplaced.iter();
    let unplaced: Vec<Value> =
        unplaced.map(|unplaced| json!({"identity": unplaced.identity, "reason": unplaced.reason})).collect();
    json!({
        "hosts": status.hosts.iter().map(cluster_host).collect::<Vec<_>>(),
        "identities": status.identities,
        "unplaced": unplaced,
        "demand": status.demand,
        "oldest_message_ms": status.oldest_message_ms,
        "scheduler": status.scheduler,
        "broker": part(&status.broker),
        "store": part(&status.store),
        "ownership": part(&status.ownership),
    })
}

/// A text field of an object, for a table.
pub fn cell(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        other => json_line(other.to_string()),
    }
}

/// A text in one line, without what would move the cursor or change colours: CorDapps and peers write what they like.
pub fn printable(text: &str) -> String {
    one_line(text).into_owned()
}

/// An object as `field  value` lines, for people. Empty fields are left out.
pub fn lines(value: &Value) -> String {
    let Some(object) = value.as_object() else { return json_line(value.to_string()) };
    let shown: Vec<(&String, String)> = object
        .iter()
        .filter_map(|(name, value)| match value {
            Value::Null => None,
            Value::Array(list) if list.is_empty() => None,
            Value::Array(list) if name != "result" => {
                Some((name, list.iter().map(plain).collect::<Vec<_>>().join("; ")))
            }
            // The flow's own data is JSON as it is.
            other if name == "result" => Some((name, json_line(other.to_string()))),
            other => Some((name, plain(other))),
        })
        .collect();
    let width = shown.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    shown.iter().map(|(name, text)| format!("{name:width$}  {text}")).collect::<Vec<_>>().join("\n")
}

/// A value in one line: of an object its fields, the empty ones left out.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        Value::Object(object) => {
            let shown = object
                .iter()
                .filter(|(_, value)| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()));
            shown.map(|(name, value)| format!("{} {}", one_line(name), plain(value))).collect::<Vec<_>>().join(", ")
        }
        other => json_line(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_leave_out_what_is_empty() {
        let text = lines(&json!({"name": "x", "reason": null, "list": [], "parties": ["a", "b"], "n": 1}));
        assert_eq!(text, "n        1\nname     x\nparties  a; b");
    }

    #[test]
    fn people_read_no_json_and_no_control_characters() {
        let apps = json!([{"name": "a", "version": "1.0"}, {"name": "b", "reason": null}]);
        let text = lines(
            &json!({"cordapps": apps, "journal": {"bytes": 5}, "result": {"n": [1]}, "progress": "a\u{1b}[31m\nb"}),
        );
        assert_eq!(
            text,
            "cordapps  name a, version 1.0; name b\njournal   bytes 5\nprogress  a\\u{1b}[31m\\nb\nresult    {\"n\":[1]}"
        );
    }
}
