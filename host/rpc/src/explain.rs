//! Gives code and remedy to the few failures that happen before a handler is reached: a message over the size limit, one
//! that is not protobuf, a method that does not exist.

use maxhost_model::{Code, Problem};
use tonic::body::Body;
use tonic::{Code as GrpcCode, Status};

use crate::status::{CODE_KEY, to_status};

/// Replaces a bare status that the transport layer made by one that says what to do.
pub(crate) fn explain(response: http::Response<Body>) -> http::Response<Body> {
    let headers = response.headers();
    // Only an answer without a body has its status in the headers; handlers' own statuses carry the code already.
    if !headers.contains_key("grpc-status") || headers.contains_key(CODE_KEY) {
        return response;
    }
    match Status::from_header_map(headers).as_ref().and_then(problem_of) {
        Some(problem) => to_status(problem).into_http(),
        None => response,
    }
}

fn problem_of(status: &Status) -> Option<Problem> {
    let text = status.message();
    match status.code() {
        GrpcCode::OutOfRange if text.contains("message length too large") => {
            Some(Problem::new(Code::MessageTooLarge, format!("the request is too large: {text}")))
        }
        GrpcCode::Unimplemented => Some(
            Problem::new(Code::RequestInvalid, "there is no such service or method")
                .remedy("list the host's methods through gRPC reflection"),
        ),
        GrpcCode::Internal | GrpcCode::InvalidArgument if text.contains("decode") => Some(
            Problem::new(Code::RequestInvalid, format!("the request is not the message this method takes: {text}"))
                .remedy("generate the client from the host's .proto files"),
        ),
        _ => None,
    }
}
