//! The host's answers in the form of the command line: field names of the user surface, times in RFC 3339.

use jiff::Timestamp;
use maxhost_model::text::{json_line, one_line};
use maxhost_rpc::proto::v1 as pb;
use serde_json::{Map, Value, json};

/// A time.
pub fn time(time: Option<prost_types::Timestamp>) -> Value {
    time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok())
        .map_or(Value::Null, |time| Value::from(format!("{time:.3}")))
}

/// Data of a flow.
pub fn payload(payload: &pb::Payload) -> Value {
    match &payload.encoding {
        Some(pb::payload::Encoding::Json(text)) => serde_json::from_str(text).unwrap_or(Value::Null),
        // Only what JSON cannot express arrives in this form.
        Some(pb::payload::Encoding::Cbor(cbor)) => json!({ "cbor": hex::encode(cbor) }),
        None => Value::Null,
    }
}

/// The word for a state.
pub fn flow_state(state: pb::FlowState) -> &'static str {
    match state {
        pb::FlowState::Unspecified => "unknown",
        pb::FlowState::Running => "running",
        pb::FlowState::Suspended => "suspended",
        pb::FlowState::Paused => "paused",
        pb::FlowState::Hospital => "hospital",
        pb::FlowState::Completed => "completed",
        pb::FlowState::Failed => "failed",
        pb::FlowState::Killed => "killed",
    }
}

/// The error of a flow.
pub fn flow_error(error: &pb::FlowError) -> Value {
    let mut object = Map::new();
    object.insert("kind".to_owned(), error.kind.clone().into());
    object.insert("message".to_owned(), error.message.clone().into());
    object.insert("error_id".to_owned(), error.error_id.clone().into());
    object.insert("peer".to_owned(), error.peer.clone().into());
    object.insert("limit".to_owned(), error.limit.clone().into());
    if let Some(exception) = &error.exception {
        object.insert("exception".to_owned(), exception.clone().into());
    }
    if let Some(data) = &error.data {
        object.insert("data".to_owned(), payload(data));
    }
    Value::Object(object)
}

/// The short form of a flow.
pub fn flow(flow: &pb::Flow) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("flow_id".to_owned(), flow.flow_id.clone().into());
    object.insert("client_id".to_owned(), flow.client_id.clone().into());
    object.insert("identity".to_owned(), flow.identity.clone().into());
    object.insert("flow".to_owned(), flow.flow.clone().into());
    object.insert("state".to_owned(), flow_state(flow.state()).into());
    object.insert("started".to_owned(), time(flow.started));
    object.insert("finished".to_owned(), time(flow.finished));
    object.insert("progress".to_owned(), flow.progress.clone().into());
    match &flow.end {
        Some(pb::flow::End::Result(result)) => {
            object.insert("result".to_owned(), payload(result));
        }
        Some(pb::flow::End::Error(error)) => {
            object.insert("error".to_owned(), flow_error(error));
        }
        None => {}
    }
    if let Some(reason) = &flow.reason {
        object.insert("reason".to_owned(), reason.clone().into());
    }
    object
}

/// Everything about a flow.
pub fn flow_detail(detail: &pb::GetFlowResponse) -> Value {
    let mut object = detail.flow.as_ref().map(flow).unwrap_or_default();
    let waiting = detail.waiting_for.as_ref().map_or(Value::Null, |waiting| {
        json!({
            "what": waiting.what,
            "since": time(waiting.since),
            "until": time(waiting.until),
            "parties": waiting.parties,
        })
    });
    let sessions: Vec<Value> = detail
        .sessions
        .iter()
        .map(|session| json!({"peer": session.peer, "state": session.state, "unread": session.unread}))
        .collect();
    let journal = detail.journal.unwrap_or_default();
    object.insert("cordapp".to_owned(), detail.cordapp.clone().into());
    object.insert("component_hash".to_owned(), detail.component_hash.clone().into());
    object.insert("origin".to_owned(), detail.origin.clone().into());
    object.insert("waiting_for".to_owned(), waiting);
    object.insert("sessions".to_owned(), sessions.into());
    object.insert("more_sessions".to_owned(), detail.more_sessions.into());
    object.insert("journal".to_owned(), json!({"entries": journal.entries, "bytes": journal.bytes}));
    object.insert("attempts".to_owned(), detail.attempts.into());
    object.insert("in_memory".to_owned(), detail.in_memory.into());
    Value::Object(object)
}

/// A flow that can be run.
pub fn flow_type(flow: &pb::FlowType) -> Value {
    let schema =
        |text: &Option<String>| text.as_ref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
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

/// An identity.
pub fn identity(identity: &pb::Identity) -> Value {
    let state = identity_state(identity.state());
    let cordapps: Vec<Value> = identity
        .cordapps
        .iter()
        .map(|cordapp| json!({"name": cordapp.name, "version": cordapp.version, "hash": cordapp.hash}))
        .collect();
    json!({
        "name": identity.name,
        "state": state,
        "reason": identity.reason,
        "cordapps": cordapps,
        "flows": identity.flows,
        "manifest": identity.manifest,
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
    json!({
        "minimum_platform_version": parameters.minimum_platform_version,
        "notaries": notaries,
        "max_message_size": parameters.max_message_size,
        "max_transaction_size": parameters.max_transaction_size,
        "modified": time(parameters.modified),
        "epoch": parameters.epoch,
        "hash": parameters.hash,
    })
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

/// The word for a state.
pub fn identity_state(state: pb::IdentityState) -> &'static str {
    match state {
        pb::IdentityState::Unspecified => "unknown",
        pb::IdentityState::Cold => "cold",
        pb::IdentityState::Opening => "opening",
        pb::IdentityState::Active => "active",
        pb::IdentityState::Draining => "draining",
        pb::IdentityState::Quarantined => "quarantined",
    }
}

/// A host of the cluster.
pub fn cluster_host(host: &pb::ClusterHost) -> Value {
    let state = match host.state() {
        pb::HostState::Unspecified => "unknown",
        pb::HostState::Up => "up",
        pb::HostState::Draining => "draining",
        pb::HostState::Suspended => "suspended",
    };
    json!({
        "host": host.name,
        "roles": host.roles,
        "state": state,
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
    })
}

/// The cluster at a glance.
pub fn cluster_status(status: &pb::ClusterStatusResponse) -> Value {
    let part = |part: &Option<pb::PartHealth>| {
        let part = part.clone().unwrap_or_default();
        json!({"ok": part.ok, "detail": part.detail})
    };
    json!({
        "hosts": status.hosts.iter().map(cluster_host).collect::<Vec<_>>(),
        "identities": status.identities,
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
    fn an_ended_flow_has_a_result_or_an_error_and_named_fields_otherwise_null() {
        let json = pb::payload::Encoding::Json("{\"rounds\":3}".to_owned());
        let mut ended = pb::Flow {
            flow_id: "id".to_owned(),
            started: Some(prost_types::Timestamp { seconds: 1, nanos: 500_000_000 }),
            end: Some(pb::flow::End::Result(pb::Payload { encoding: Some(json) })),
            ..Default::default()
        };
        ended.set_state(pb::FlowState::Completed);
        let object = Value::Object(flow(&ended));
        assert_eq!(object["result"]["rounds"], 3);
        assert_eq!(object["started"], "1970-01-01T00:00:01.500Z");
        assert!(object["client_id"].is_null() && object.get("error").is_none());

        let error = pb::FlowError { kind: "limit".to_owned(), limit: Some("cpu".to_owned()), ..Default::default() };
        ended.end = Some(pb::flow::End::Error(error));
        let object = Value::Object(flow(&ended));
        assert_eq!((&object["error"]["kind"], &object["error"]["limit"]), (&json!("limit"), &json!("cpu")));
        assert!(object["error"]["peer"].is_null() && object.get("result").is_none());
    }

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
