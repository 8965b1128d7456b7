//! Problems that more than one place tells.

use maxhost_model::{Code, FlowId, Problem};
use tokio_util::sync::CancellationToken;

/// The identity is quarantined, and why.
pub(crate) fn quarantined(name: &str, reason: &Problem) -> Problem {
    let text = format!("identity {name} is quarantined: {}", reason.message);
    Problem::new(Code::IdentityQuarantined, text)
        .remedy(reason.remedy.clone())
        .detail("reason_code", reason.code.as_str())
        .detail("identity", name)
}

/// This host cannot even pass on what it is asked for, because it lacks something of the identity; other hosts may run it.
pub(crate) fn unusable_here(name: &str, reason: &Problem) -> Problem {
    let text = format!("this host cannot use identity {name}, which others may run: {}", reason.message);
    Problem::new(Code::IdentityUnusableHere, text)
        .remedy(format!("ask another host, or mend this one: {}", reason.remedy))
        .detail("reason_code", reason.code.as_str())
        .detail("identity", name)
}

pub(crate) fn no_flow(id: FlowId) -> Problem {
    Problem::new(Code::FlowNotFound, format!("there is no flow {id}")).detail("flow_id", id.to_string())
}

/// The flow has never had a label of this number.
pub(crate) fn cursor_invalid(id: FlowId, cursor: u64, last: u64) -> Problem {
    Problem::new(Code::CursorInvalid, format!("flow {id} has had {last} progress labels, the cursor says {cursor}"))
        .remedy(
            "attach with the cursor of the last event that the host sent for this flow, or with 0 to be told everything \
             again",
        )
        .detail("flow_id", id.to_string())
        .detail("cursor", cursor.to_string())
        .detail("last", last.to_string())
}

pub(crate) fn stopping() -> Problem {
    Problem::new(Code::HostStopping, "the host is stopping")
}

/// What somebody is told whose request was dropped without an answer.
pub(crate) fn unanswered(stopping: &CancellationToken) -> Problem {
    if stopping.is_cancelled() {
        return self::stopping();
    }
    let text = "the host met a defect before anything of the request was written: its log says more";
    Problem::new(Code::Internal, text)
}
