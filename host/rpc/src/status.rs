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

/// What a status may say, in bytes of the header that carries it: clients refuse an answer with more than 8 KiB of
/// headers, and tell their users of a broken connection instead. Text stands there twice, in the message and in the
/// details.
const LONGEST_MESSAGE: usize = 4_000;
const LONGEST_REMEDY: usize = 800;
const LONGEST_FACT: usize = 400;

/// The gRPC code of a stable code.
#[must_use]
pub fn grpc_code(code: Code) -> GrpcCode {
    use maxhost_model::Class;
    match code {
        Code::IdentityExists | Code::UserExists | Code::DirectoryInUse => GrpcCode::AlreadyExists,
        Code::ClientIdForeign | Code::PermissionDenied => GrpcCode::PermissionDenied,
        Code::Unauthenticated | Code::TokenUnknown | Code::TokenExpired | Code::TokenRevoked => {
            GrpcCode::Unauthenticated
        }
        Code::LoginDelayed => GrpcCode::ResourceExhausted,
        Code::MessageTooLarge | Code::Overloaded | Code::DiskFull => GrpcCode::ResourceExhausted,
        Code::CursorInvalid => GrpcCode::OutOfRange,
        Code::ArgumentsInvalid
        | Code::ClientIdInvalid
        | Code::FlowIdInvalid
        | Code::NameInvalid
        | Code::QueryInvalid
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

/// The status that tells a client of this problem. Text that is too long for headers is cut short.
#[must_use]
pub fn to_status(problem: Problem) -> Status {
    let code = problem.code;
    let facts = problem.details.into_iter().map(|(key, fact)| (key, shortened(fact, LONGEST_FACT)));
    let mut details = ErrorDetails::new();
    details
        .set_error_info(code.as_str(), DOMAIN, facts.collect::<HashMap<_, _>>())
        .set_localized_message("en", shortened(problem.remedy, LONGEST_REMEDY))
        .add_help_link("what this code means", format!("docs/errors.md#{code}"));
    let message = shortened(problem.message, LONGEST_MESSAGE);
    let mut status = Status::with_error_details(grpc_code(code), message, details);
    status.metadata_mut().insert(CODE_KEY, MetadataValue::from_static(code.as_str()));
    status
}

/// A text that takes no more than so many bytes in headers. In the message each byte that is not plain takes three, and
/// the details are base64, which makes four bytes of three.
fn shortened(mut text: String, most: usize) -> String {
    let taken = |c: char| {
        let plain = c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ',' | ':' | '/' | '=' | '\'');
        (if plain { 1 } else { 3 * c.len_utf8() }) + (4 * c.len_utf8()).div_ceil(3)
    };
    let mut sum = 0;
    let end = text.char_indices().find(|(_, c)| {
        sum += taken(*c);
        sum > most
    });
    if let Some((end, _)) = end {
        text.truncate(end);
        text.push('\u{2026}');
    }
    text
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
        // No gRPC server answers without this header: the endpoint is that of something else.
        _ if text.contains("grpc-status header missing") => {
            Problem::new(Code::HostUnreachable, format!("what answers there is no host: {text}"))
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
    fn no_text_is_too_long_for_headers() {
        for text in ["x", "\u{2603}", "{", "\u{1f600}"] {
            let long = text.repeat(100_000);
            let mut problem = Problem::new(Code::ArgumentsInvalid, long.clone()).remedy(long.clone());
            for key in ["path", "expected", "flow", "file"] {
                problem = problem.detail(key, long.clone());
            }
            let status = to_status(problem);
            let http = status.into_http::<()>();
            let size: usize = http.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
            assert!(size < 8_000, "{text}: {size}");
            let shown = Status::from_header_map(http.headers()).map(|status| to_problem(&status));
            assert!(shown.is_some_and(|shown| {
                shown.code == Code::ArgumentsInvalid
                    && shown.message.starts_with(text)
                    && shown.message.ends_with('\u{2026}')
                    && shown.details["path"].starts_with(text)
            }));
        }
        let short = Problem::new(Code::ArgumentsInvalid, "\u{e9}".repeat(300));
        assert_eq!(to_problem(&to_status(short.clone())), short);
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
        let web = Status::unimplemented("grpc-status header missing, mapped from HTTP status code 404");
        assert_eq!(to_problem(&web).code, Code::HostUnreachable);
        assert_eq!(to_problem(&Status::internal("odd")).code, Code::Internal);
    }
}
