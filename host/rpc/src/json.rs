//! The host's answers in JSON, as the command line prints them and messages carry them: field names of the user surface, times
//! in RFC 3339.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::proto::v1 as pb;

/// A time. `null` only if there is none: a year that RFC 3339 has no digits for has a sign and more of them (ISO 8601).
#[must_use]
pub fn time(time: Option<prost_types::Timestamp>) -> Value {
    let Some(time) = time else { return Value::Null };
    match Timestamp::new(time.seconds, time.nanos) {
        Ok(time) => Value::from(format!("{time:.3}")),
        Err(_) => Value::from(far_time(time)),
    }
}

/// A time that is too far away for a calendar's library. The date is reckoned in eras of 400 years, 146,097 days each, which
/// begin on the first of March.
fn far_time(time: prost_types::Timestamp) -> String {
    let days = time.seconds.div_euclid(86_400) + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = match year + era * 400 + next {
        year @ 0..=9_999 => format!("{year:04}"),
        year => format!("{year:+05}"),
    };
    let second = time.seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let milliseconds = time.nanos.clamp(0, 999_999_999) / 1_000_000;
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

/// JSON that came as text. What cannot be read here, because it is nested deeper than 127 levels, is shown as the text that it
/// is, in an object with the key `json`.
#[must_use]
pub fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!({ "json": text }))
}

/// Data of a flow.
#[must_use]
pub fn payload(payload: &pb::Payload) -> Value {
    match &payload.encoding {
        Some(pb::payload::Encoding::Json(text)) => parsed(text),
        // Only what JSON cannot express, or is nested too deep for readers of JSON, arrives in this form.
        Some(pb::payload::Encoding::Cbor(cbor)) => json!({ "cbor": hex::encode(cbor) }),
        None => Value::Null,
    }
}

/// The word for a state.
#[must_use]
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
#[must_use]
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
#[must_use]
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
#[must_use]
pub fn flow_detail(detail: &pb::GetFlowResponse) -> Value {
    let mut object = detail.flow.as_ref().map(flow).unwrap_or_default();
    let waiting = detail.waiting_for.as_ref().map_or(Value::Null, |waiting| {
        json!({
            "what": waiting.what,
            "since": time(waiting.since),
            "until": time(waiting.until),
            "parties": waiting.parties,
            "awaited": waiting.awaited,
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

/// An identity.
#[must_use]
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

/// The word for a state.
#[must_use]
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

/// A state of a vault.
#[must_use]
pub fn vault_state(state: &pb::VaultState) -> Value {
    let status = match state.status() {
        pb::StateStatus::Consumed => "consumed",
        _ => "unconsumed",
    };
    let mut shown = json!({
        "ref": state.r#ref,
        "type": state.r#type,
        "state": state.state.as_ref().map_or(Value::Null, payload),
        "status": status,
        "recorded": time(state.recorded),
        "consumed": time(state.consumed),
        "consumed_by": state.consumed_by,
        "notary": state.notary,
        "participants": state.participants,
        "relevant": state.relevant,
        "lock": state.lock.as_ref().map(|lock| json!({ "holder": lock.holder, "until": time(lock.until) })),
        "encumbered_by": state.encumbered_by,
        "in_flight": state.in_flight,
    });
    if let (Some(id), Some(object)) = (&state.external_id, shown.as_object_mut()) {
        object.insert("external_id".to_owned(), json!(id));
    }
    if let (false, Some(object)) = (state.key_external_ids.is_empty(), shown.as_object_mut()) {
        object.insert("key_external_ids".to_owned(), json!(state.key_external_ids));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_however_far_it_is() {
        let shown = |seconds, nanos| time(Some(prost_types::Timestamp { seconds, nanos }));
        assert_eq!(shown(0, 1_000_000), "1970-01-01T00:00:00.001Z");
        assert_eq!(shown(253_402_300_799, 999_000_000), "9999-12-31T23:59:59.999Z");
        assert_eq!(shown(253_402_300_800, 0), "+10000-01-01T00:00:00.000Z");
        assert_eq!(shown(9_223_372_036_854_775, 807_000_000), "+292278994-08-17T07:12:55.807Z");
        assert_eq!(shown(-9_223_372_036_854_776, 192_000_000), "-292275055-05-16T16:47:04.192Z");
        assert!(shown(i64::MAX, 0).is_string() && shown(i64::MIN, 0).is_string() && shown(0, -1).is_string());
        assert!(time(None).is_null());
        // The same reckoning where the library has an answer too.
        for seconds in [0, 951_782_400, 951_868_800, 4_107_542_400, -1, -62_135_596_800, 1_709_164_800] {
            let far = far_time(prost_types::Timestamp { seconds, nanos: 5_000_000 });
            assert_eq!(shown(seconds, 5_000_000), far, "{seconds}");
        }
    }

    #[test]
    fn data_that_came_as_json_are_never_null_in_silence() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let data = |text: String| payload(&pb::Payload { encoding: Some(pb::payload::Encoding::Json(text)) });
        assert_eq!(data(nested(127)).to_string(), nested(127));
        for text in [nested(128), nested(10_000), "no JSON".to_owned()] {
            assert_eq!(data(text.clone()), json!({ "json": text }));
        }
        assert!(data("null".to_owned()).is_null());
    }

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
}
