//! Who is calling: what the login found, as the services see it.

use maxhost_flows::api::Caller;
use maxhost_model::{Code, Problem};
use tonic::Request;

/// The caller of a request, whom [`crate::login::LoginLayer`] has found.
///
/// # Errors
/// `unauthenticated` if nobody logged in.
pub(crate) fn caller<T>(request: &Request<T>) -> Result<Caller, Problem> {
    request.extensions().get::<Caller>().cloned().ok_or_else(nobody)
}

/// The request shows nobody.
pub(crate) fn nobody() -> Problem {
    Problem::new(Code::Unauthenticated, "this host has users, and the request shows none")
}
