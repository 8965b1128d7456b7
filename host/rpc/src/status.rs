//! [`Problem`] as a gRPC status, and back: the code, the remedy and the facts survive the wire.
//!
//! The richer error model of gRPC is used (`google.rpc.ErrorInfo`, `LocalizedMessage`, `Help`), so that clients in any
//! language can read it without our files.

use std::collections::{BTreeMap, HashMap};

use maxhost_model::{Code, Problem};
use tonic::metadata::MetadataValue;
use tonic::{Code as GrpcCode, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Value of `google.rpc.ErrorInfo.domain`.
pub const DOMAIN: &str = "maxhost";

/// Trailer that repeats the stable code in plain text.
pub const CODE_KEY: &str = "maxhost-code";

/// The gRPC code of a stable code.
#[must_use]
pub fn grpc_code(code: Code) -> GrpcCode {
    use maxhost_model::Class;
    match code {
        Code::IdentityExists | Code::DirectoryInUse => GrpcCode::AlreadyExists,
        Code::ClientIdForeign => GrpcCode::PermissionDenied,
        Code::MessageTooLarge | Code::Overloaded | Code::DiskFull => GrpcCode::ResourceExhausted,
        Code::CursorInvalid => GrpcCode::OutOfRange,
        Code::ArgumentsInvalid
        | Code::ClientIdInvalid
        | Code::FlowIdInvalid
        | Code::NameInvalid
        | Code::RequestInvalid
        | Code::IdentityAmbiguous
        | Code::FlowTypeAmbiguous
        | Code::CordappAmbiguous
        | Code::Usage => GrpcCode::InvalidArgument,
        Code::IdentityQuarantined => GrpcCode::FailedPrecondition,
        Code::Timeout => GrpcCode::DeadlineExceeded,
        Code::JournalCorrupt => GrpcCode::DataLoss,
        Code::FlowFailed | Code::FlowKilled | Code::FlowHospital => GrpcCode::Aborted,
        other => match other.class() {
            Class::NotFound => GrpcCode::NotFound,
            Class::Unavailable => GrpcCode::Unavailable,
            Class::Refused | Class::Usage => GrpcCode::FailedPrecondition,
            Class::Failed => GrpcCode::Internal,
        },
    }
}

/// The status that tells a client of this problem.
#[must_use]
pub fn to_status(problem: Problem) -> Status {
    let code = problem.code;
    let mut details = ErrorDetails::new();
    details
        .set_error_info(code.as_str(), DOMAIN, problem.details.into_iter().collect::<HashMap<_, _>>())
        .set_localized_message("en", problem.remedy)
        .add_help_link("what this code means", format!("docs/errors.md#{code}"));
    let mut status = Status::with_error_details(grpc_code(code), problem.message, details);
    status.metadata_mut().insert(CODE_KEY, MetadataValue::from_static(code.as_str()));
    status
}

/// The problem that a status tells of. A status without our details comes from the transport, or from something else
/// that answered.
#[must_use]
pub fn to_problem(status: &Status) -> Problem {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == DOMAIN);
    let Some(info) = info else { return foreign(status) };
    let facts: BTreeMap<String, String> = info.metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let remedy = details.localized_message().map(|text| text.message.clone());
    match Code::parse(&info.reason) {
        Some(code) => Problem {
            code,
            message: status.message().to_owned(),
            remedy: remedy.unwrap_or_else(|| code.remedy().to_owned()),
            details: facts,
        },
        // A newer host may use codes that this client does not know.
        None => Problem {
            code: code_of_grpc(status.code()),
            message: format!("{} [{}]", status.message(), info.reason),
            remedy: remedy.unwrap_or_default(),
            details: facts,
        },
    }
}

fn foreign(status: &Status) -> Problem {
    let text = status.message();
    let broken = std::error::Error::source(status).is_some()
        || ["transport error", "h2 protocol error", "connection", "broken pipe"].iter().any(|word| text.contains(word));
    match status.code() {
        GrpcCode::Cancelled | GrpcCode::DeadlineExceeded if text.contains("Timeout expired") => {
            Problem::new(Code::Timeout, "the host did not answer in time")
        }
        GrpcCode::Unavailable | GrpcCode::Unknown | GrpcCode::Internal | GrpcCode::Cancelled if broken => {
            Problem::new(Code::HostUnreachable, format!("the connection to the host broke: {text}"))
        }
        GrpcCode::Unimplemented => {
            Problem::new(Code::RequestInvalid, format!("the host does not know this call: {text}"))
                .remedy("use a client of the same version as the host")
        }
        code => Problem::new(code_of_grpc(code), format!("{code}: {text}")),
    }
}

fn code_of_grpc(code: GrpcCode) -> Code {
    match code {
        GrpcCode::Unavailable | GrpcCode::Cancelled => Code::HostUnreachable,
        GrpcCode::DeadlineExceeded => Code::Timeout,
        GrpcCode::ResourceExhausted => Code::Overloaded,
        GrpcCode::OutOfRange => Code::MessageTooLarge,
        GrpcCode::InvalidArgument
        | GrpcCode::NotFound
        | GrpcCode::AlreadyExists
        | GrpcCode::PermissionDenied
        | GrpcCode::Unauthenticated
        | GrpcCode::FailedPrecondition => Code::RequestInvalid,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire_with_its_remedy_and_facts() {
        for &code in Code::ALL {
            let problem = Problem::new(code, "what was wrong: \u{e9}").detail("path", "/peer").remedy("do this");
            let status = to_status(problem.clone());
            assert_ne!(status.code(), GrpcCode::Ok);
            assert_ne!(status.code(), GrpcCode::Unknown);
            assert_eq!(status.metadata().get(CODE_KEY).map(|value| value.as_bytes()), Some(code.as_str().as_bytes()));
            assert_eq!(to_problem(&status), problem);
        }
    }

    #[test]
    fn grpc_codes_say_what_kind_of_failure_it_is() {
        assert_eq!(grpc_code(Code::IdentityNotFound), GrpcCode::NotFound);
        assert_eq!(grpc_code(Code::ArgumentsInvalid), GrpcCode::InvalidArgument);
        assert_eq!(grpc_code(Code::ClientIdForeign), GrpcCode::PermissionDenied);
        assert_eq!(grpc_code(Code::Overloaded), GrpcCode::ResourceExhausted);
        assert_eq!(grpc_code(Code::HostStopping), GrpcCode::Unavailable);
        assert_eq!(grpc_code(Code::Timeout), GrpcCode::DeadlineExceeded);
        assert_eq!(grpc_code(Code::Internal), GrpcCode::Internal);
        assert_eq!(grpc_code(Code::FlowNotStartable), GrpcCode::FailedPrecondition);
    }

    #[test]
    fn what_others_answer_becomes_a_problem_too() {
        let unavailable = Status::unavailable("tcp connect error");
        assert_eq!(to_problem(&unavailable).code, Code::HostUnreachable);
        assert_eq!(to_problem(&Status::unknown("transport error")).code, Code::HostUnreachable);
        assert_eq!(to_problem(&Status::cancelled("Timeout expired")).code, Code::Timeout);
        assert_eq!(to_problem(&Status::unimplemented("")).code, Code::RequestInvalid);
        assert_eq!(to_problem(&Status::internal("odd")).code, Code::Internal);
    }
}
