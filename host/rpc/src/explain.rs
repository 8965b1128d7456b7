//! Gives code and remedy to the few failures that happen before a handler is reached: a message over the size limit, one
//! that is not protobuf, a method that does not exist.

use bytes::Bytes;
use maxhost_model::{Code, Problem};
use tonic::body::Body;
use tonic::{Code as GrpcCode, Status};

use crate::status::{CODE_KEY, to_status};

const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// Replaces a bare status that the transport layer made by one that says what to do.
pub(crate) fn explain(response: http::Response<Body>) -> http::Response<Body> {
    let headers = response.headers();
    // Only an answer without a body has its status in the headers; handlers' own statuses carry the code already.
    if !headers.contains_key("grpc-status") || headers.contains_key(CODE_KEY) {
        return response;
    }
    let Some(status) = Status::from_header_map(headers) else { return response };
    let Some(problem) = problem_of(&status) else { return response };
    let accepted = headers.get(ACCEPT_ENCODING).cloned();
    let mut explained = to_status(problem);
    if status.code() == GrpcCode::Unimplemented || is_about_compression(&status) {
        // Clients act on the code that the rules of gRPC give such a failure: ours stands in the details.
        explained = Status::with_details_and_metadata(
            status.code(),
            explained.message(),
            Bytes::copy_from_slice(explained.details()),
            explained.metadata().clone(),
        );
    }
    let mut response = explained.into_http();
    if let Some(accepted) = accepted {
        response.headers_mut().insert(ACCEPT_ENCODING, accepted);
    }
    response
}

/// The words of the transport layer for what it cannot decompress.
fn is_about_compression(status: &Status) -> bool {
    ["compressed", "compression", "decompressing"].iter().any(|word| status.message().contains(word))
}

/// What a bare status of the transport layer says, if it is one of those that callers can do something about.
pub(crate) fn problem_of(status: &Status) -> Option<Problem> {
    if status.metadata().contains_key(CODE_KEY) {
        return None;
    }
    let text = status.message();
    match status.code() {
        GrpcCode::OutOfRange if text.contains("message length too large") => {
            Some(Problem::new(Code::MessageTooLarge, format!("the request is too large: {text}")))
        }
        // The codes of these two are in the specification of gRPC's compression.
        GrpcCode::Unimplemented if is_about_compression(status) => Some(
            Problem::new(Code::RequestInvalid, format!("the request cannot be read: {text}"))
                .remedy("send it as it is, or compressed with gzip"),
        ),
        GrpcCode::Internal if is_about_compression(status) => Some(
            Problem::new(Code::RequestInvalid, format!("the request cannot be read: {text}"))
                .remedy("name the encoding of compressed messages in grpc-encoding: gzip is known here"),
        ),
        GrpcCode::ResourceExhausted if is_about_compression(status) => {
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
