//! The engine's answers as protobuf messages.

use std::sync::Arc;

use bytes::Bytes;
use maxhost_flows::api;
use maxhost_flows::api::{FlowPhase, FlowResult, IdentityPhase};
use maxhost_model::ids::BadFlowId;
use maxhost_model::{Code, FlowId, Problem};
use prost_types::Timestamp;

use crate::proto::v1 as pb;

/// How deep arrays and objects are nested in JSON that is sent: many libraries read no more, ours among them.
const JSON_LEVELS: u16 = 127;

/// How the caller wants payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PayloadForm {
    Json,
    Cbor,
}

impl PayloadForm {
    /// From the field of a request; a number that is not known is refused.
    pub(crate) fn of(field: i32) -> Result<PayloadForm, Problem> {
        match pb::Encoding::try_from(field) {
            Ok(pb::Encoding::Unspecified | pb::Encoding::Json) => Ok(PayloadForm::Json),
            Ok(pb::Encoding::Cbor) => Ok(PayloadForm::Cbor),
            Err(_) => Err(Problem::new(Code::RequestInvalid, format!("encoding: {field} is no known value"))),
        }
    }

    pub(crate) fn payload(self, cbor: impl Into<Bytes>) -> pb::Payload {
        let cbor = cbor.into();
        let json = match self {
            PayloadForm::Json => maxhost_model::cbor_to_json_text(&cbor).ok(),
            PayloadForm::Cbor => None,
        };
        // What JSON cannot express, or most could not read, is sent as it is, rather than not at all.
        let encoding = match json.filter(|json| json.levels <= JSON_LEVELS) {
            Some(json) => pb::payload::Encoding::Json(json.text),
            None => pb::payload::Encoding::Cbor(cbor.into()),
        };
        pb::Payload { encoding: Some(encoding) }
    }
}

/// Milliseconds since 1970 as a timestamp.
pub(crate) fn timestamp(ms: i64) -> Timestamp {
    // The remainder of a division by 1,000 is below 1,000: the product fits.
    Timestamp { seconds: ms.div_euclid(1_000), nanos: (ms.rem_euclid(1_000) as i32) * 1_000_000 }
}

/// A deadline, milliseconds since 1970, as a timestamp.
fn deadline(ms: u64) -> Timestamp {
    // Both fit: a thousandth of 64 bits needs 55, and the remainder is below 1,000.
    Timestamp { seconds: (ms / 1_000) as i64, nanos: (ms % 1_000) as i32 * 1_000_000 }
}

/// The id in this text. A UUID that no flow can have is that of a flow that is not there.
pub(crate) fn flow_id(text: &str) -> Result<FlowId, Problem> {
    text.parse().map_err(|error: BadFlowId| match &error {
        BadFlowId::NoUuid(id) => Problem::new(Code::FlowIdInvalid, error.to_string()).detail("flow_id", id.clone()),
        BadFlowId::Foreign(id) => Problem::new(Code::FlowNotFound, error.to_string()).detail("flow_id", id.clone()),
    })
}

pub(crate) fn flow_state(phase: FlowPhase) -> pb::FlowState {
    match phase {
        FlowPhase::Running => pb::FlowState::Running,
        FlowPhase::Suspended => pb::FlowState::Suspended,
        FlowPhase::Paused => pb::FlowState::Paused,
        FlowPhase::Hospital => pb::FlowState::Hospital,
        FlowPhase::Completed => pb::FlowState::Completed,
        FlowPhase::Failed => pb::FlowState::Failed,
        FlowPhase::Killed => pb::FlowState::Killed,
    }
}

/// The phase a client asks for.
pub(crate) fn flow_phase(state: i32) -> Result<FlowPhase, Problem> {
    match pb::FlowState::try_from(state) {
        Ok(pb::FlowState::Running) => Ok(FlowPhase::Running),
        Ok(pb::FlowState::Suspended) => Ok(FlowPhase::Suspended),
        Ok(pb::FlowState::Paused) => Ok(FlowPhase::Paused),
        Ok(pb::FlowState::Hospital) => Ok(FlowPhase::Hospital),
        Ok(pb::FlowState::Completed) => Ok(FlowPhase::Completed),
        Ok(pb::FlowState::Failed) => Ok(FlowPhase::Failed),
        Ok(pb::FlowState::Killed) => Ok(FlowPhase::Killed),
        Ok(pb::FlowState::Unspecified) | Err(_) => {
            Err(Problem::new(Code::RequestInvalid, format!("states: {state} is no state of a flow")))
        }
    }
}

pub(crate) fn started(started: api::Started) -> pb::StartedFlow {
    pb::StartedFlow {
        flow_id: started.flow_id.to_string(),
        identity: started.identity,
        flow: started.flow,
        client_id: started.client_id,
        new: started.new,
    }
}

fn flow_error(error: maxhost_model::FlowError, form: PayloadForm) -> pb::FlowError {
    pb::FlowError {
        kind: error.kind.as_str().to_owned(),
        message: error.message,
        exception: error.exception,
        data: error.data.map(|data| form.payload(data)),
        error_id: error.error_id.map(|id| id.to_string()),
        peer: error.peer,
        limit: error.limit,
    }
}

pub(crate) fn flow(summary: api::FlowSummary, form: PayloadForm) -> pb::Flow {
    pb::Flow {
        flow_id: summary.flow_id.to_string(),
        identity: summary.identity,
        flow: summary.flow,
        client_id: summary.client_id,
        state: flow_state(summary.phase).into(),
        started: Some(timestamp(summary.started_ms)),
        finished: summary.finished_ms.map(timestamp),
        progress: summary.progress,
        end: summary.result.map(|result| match result {
            FlowResult::Value(cbor) => pb::flow::End::Result(form.payload(cbor)),
            FlowResult::Error(error) => pb::flow::End::Error(flow_error(error, form)),
        }),
        reason: summary.reason,
    }
}

pub(crate) fn flow_detail(detail: api::FlowDetail, form: PayloadForm) -> pb::GetFlowResponse {
    pb::GetFlowResponse {
        flow: Some(flow(detail.summary, form)),
        cordapp: detail.cordapp,
        component_hash: detail.component_hash,
        origin: detail.origin,
        waiting_for: detail.waiting_for.map(|waiting| pb::WaitingFor {
            what: waiting.what,
            since: Some(timestamp(waiting.since_ms)),
            until: waiting.until_ms.map(deadline),
            parties: waiting.parties,
            awaited: waiting.awaited,
        }),
        sessions: detail
            .sessions
            .into_iter()
            .map(|session| pb::Session { peer: session.peer, state: session.state, unread: session.unread })
            .collect(),
        journal: Some(pb::Journal { entries: detail.journal_entries, bytes: detail.journal_bytes }),
        attempts: detail.attempts,
        more_sessions: detail.more_sessions,
        in_memory: detail.in_memory,
    }
}

/// Bytes of a flow's result, or of the data of its error.
pub(crate) fn payload_bytes(summary: &api::FlowSummary) -> usize {
    match &summary.result {
        Some(FlowResult::Value(value)) => value.len(),
        Some(FlowResult::Error(error)) => error.data.as_ref().map_or(0, Vec::len),
        None => 0,
    }
}

/// An event, with the cursor that a client has who has seen it.
pub(crate) fn flow_event(event: api::FlowEvent, cursor: u64, form: PayloadForm) -> pb::FlowEvent {
    let event = match event {
        api::FlowEvent::Phase { phase, reason } => {
            pb::flow_event::Event::State(pb::StateChange { state: flow_state(phase).into(), reason })
        }
        api::FlowEvent::Progress { label, .. } => pb::flow_event::Event::Progress(label),
        api::FlowEvent::Ended { summary } => pb::flow_event::Event::Ended(flow(*summary, form)),
    };
    pb::FlowEvent { cursor, event: Some(event) }
}

pub(crate) fn flow_type(flow: api::FlowType) -> pb::FlowType {
    pb::FlowType {
        name: flow.name,
        doc: flow.doc,
        version: flow.version,
        startable: flow.startable,
        responds_to: flow.responds_to,
        arguments: flow.arguments.map(|schema| schema.to_string()),
        result: flow.result.map(|schema| schema.to_string()),
    }
}

pub(crate) fn finished_client_id(finished: api::FinishedClientId) -> pb::FinishedClientId {
    pb::FinishedClientId {
        identity: finished.identity,
        client_id: finished.client_id,
        flow_id: finished.flow_id.to_string(),
        succeeded: finished.succeeded,
    }
}

pub(crate) fn party(party: api::PartyView) -> pb::Party {
    pb::Party { name: party.name, owning_key: party.owning_key, notary: party.notary, local: party.local }
}

pub(crate) fn node_info(info: api::NodeInfoView) -> pb::NodeInfoResponse {
    pb::NodeInfoResponse {
        addresses: info.addresses,
        identities: info.identities.into_iter().map(party).collect(),
        platform_version: info.platform_version,
        serial: info.serial,
    }
}

pub(crate) fn parameters(parameters: api::ParametersView) -> pb::NetworkParametersResponse {
    pb::NetworkParametersResponse {
        minimum_platform_version: parameters.minimum_platform_version,
        notaries: parameters.notaries.into_iter().map(|(name, validating)| pb::Notary { name, validating }).collect(),
        max_message_size: parameters.max_message_size,
        max_transaction_size: parameters.max_transaction_size,
        modified: Some(timestamp(parameters.modified_ms)),
        epoch: parameters.epoch,
        hash: parameters.hash,
        publisher_successions: parameters
            .publisher_successions
            .into_iter()
            .map(|keys| pb::PublisherSuccession { keys })
            .collect(),
    }
}

pub(crate) fn network_change(change: api::NetworkChange) -> pb::NetworkMapFeedResponse {
    let event = match change {
        api::NetworkChange::Added(added) => pb::network_map_feed_response::Event::Added(party(added)),
        api::NetworkChange::Modified(modified) => pb::network_map_feed_response::Event::Modified(party(modified)),
        api::NetworkChange::Removed(name) => pb::network_map_feed_response::Event::Removed(name),
    };
    pb::NetworkMapFeedResponse { event: Some(event) }
}

pub(crate) fn audit_row(row: api::audit::AuditView) -> pb::AuditRow {
    pb::AuditRow {
        at: Some(timestamp(row.at_ms)),
        host: row.host,
        user: row.user,
        action: row.action,
        identity: row.identity,
        flow: row.flow,
        flow_id: row.flow_id,
        detail: row.detail,
        token: row.token,
        allowed: row.allowed,
        code: row.code,
        count: row.count,
    }
}

fn identity_state(phase: IdentityPhase) -> pb::IdentityState {
    match phase {
        IdentityPhase::Cold => pb::IdentityState::Cold,
        IdentityPhase::Opening => pb::IdentityState::Opening,
        IdentityPhase::Active => pb::IdentityState::Active,
        IdentityPhase::Draining => pb::IdentityState::Draining,
        IdentityPhase::Quarantined => pb::IdentityState::Quarantined,
    }
}

pub(crate) fn cluster_host(host: api::ClusterHost) -> pb::ClusterHost {
    let state = match host.state {
        api::HostState::Up => pb::HostState::Up,
        api::HostState::Draining => pb::HostState::Draining,
        api::HostState::Suspended => pb::HostState::Suspended,
        api::HostState::Away => pb::HostState::Away,
    };
    let is_there = host.state != api::HostState::Away;
    pb::ClusterHost {
        name: host.name,
        state: state.into(),
        roles: host.roles.names().into_iter().map(str::to_owned).collect(),
        identities: host.identities,
        slots: host.slots,
        labels: host.labels,
        since: is_there.then(|| timestamp(host.since_ms)),
    }
}

pub(crate) fn whereabouts(found: api::Whereabouts) -> pb::Whereabouts {
    let api::Whereabouts { identity, host, epoch, phase, rules, unplaced } = found;
    let words = |words: &[Arc<str>]| words.iter().map(ToString::to_string).collect();
    pb::Whereabouts {
        identity,
        host,
        epoch,
        state: identity_state(phase).into(),
        only: words(&rules.only),
        prefer: words(&rules.prefer),
        apart: rules.apart.map(|group| group.to_string()),
        unplaced,
    }
}

pub(crate) fn cluster_status(status: api::ClusterStatus) -> pb::ClusterStatusResponse {
    let part = |part: api::PartHealth| Some(pb::PartHealth { ok: part.ok, detail: part.detail });
    pb::ClusterStatusResponse {
        hosts: status.hosts.into_iter().map(cluster_host).collect(),
        identities: status.identities.into_iter().map(|(word, count)| (word.to_owned(), count)).collect(),
        demand: status.demand,
        oldest_message_ms: status.oldest_message.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        scheduler: status.scheduler,
        unplaced: status
            .unplaced
            .into_iter()
            .map(|(identity, reason)| pb::UnplacedIdentity { identity, reason })
            .collect(),
        broker: part(status.broker),
        store: part(status.store),
        ownership: part(status.ownership),
    }
}

pub(crate) fn identity(identity: api::IdentityView) -> pb::Identity {
    pb::Identity {
        name: identity.name,
        state: identity_state(identity.phase).into(),
        reason: identity.problem.map(|problem| format!("{}: {}", problem.code, problem.message)),
        cordapps: identity
            .cordapps
            .into_iter()
            .map(|cordapp| pb::Cordapp { name: cordapp.name, version: cordapp.version, hash: cordapp.hash })
            .collect(),
        flows: identity.flows,
        manifest: identity.manifest,
    }
}

pub(crate) fn status(status: api::HostStatus) -> pb::StatusResponse {
    let named = |counts: std::collections::BTreeMap<&'static str, u64>| {
        counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
    };
    pb::StatusResponse {
        identities: named(status.identities),
        flows: named(status.flows),
        instances: status.instances,
        rss_bytes: status.rss_bytes,
        uptime_ms: status.uptime_ms,
        version: status.version,
        counters: named(status.counters),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_and_after_1970_keep_their_milliseconds() {
        assert_eq!(timestamp(1_500), Timestamp { seconds: 1, nanos: 500_000_000 });
        assert_eq!(timestamp(-1), Timestamp { seconds: -1, nanos: 999_000_000 });
        assert_eq!(deadline(1_500), timestamp(1_500));
        let last = Timestamp { seconds: 18_446_744_073_709_551, nanos: 615_000_000 };
        assert_eq!(deadline(u64::MAX), last, "never before 1970");
    }

    #[test]
    fn what_json_cannot_express_is_sent_as_cbor() {
        let garbage = vec![0xff, 0x00];
        let payload = PayloadForm::Json.payload(garbage.clone());
        assert_eq!(payload.encoding, Some(pb::payload::Encoding::Cbor(garbage)));
        // Lists in lists: as JSON as far as most can read it.
        let nested = |levels: usize| [vec![0x81; levels - 1], vec![0x80]].concat();
        let json = format!("{}{}", "[".repeat(127), "]".repeat(127));
        assert_eq!(PayloadForm::Json.payload(nested(127)).encoding, Some(pb::payload::Encoding::Json(json)));
        let deeper = PayloadForm::Json.payload(nested(128)).encoding;
        assert_eq!(deeper, Some(pb::payload::Encoding::Cbor(nested(128))));
    }
}
