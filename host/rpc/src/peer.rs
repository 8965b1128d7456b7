//! Who is calling: the one place where the identity of a peer becomes a [`Caller`].

use maxhost_flows::api::Caller;
use maxhost_model::Problem;
use tonic::Request;

/// The caller of a request.
///
/// The server listens on loopback only and there are no users yet, so whoever gets through is the local user. With TLS,
/// the certificate of the peer (`request.peer_certs()`) and the metadata of the request decide here.
///
/// # Errors
/// None yet; a peer without a valid login will be refused here.
pub(crate) fn caller<T>(_request: &Request<T>) -> Result<Caller, Problem> {
    Ok(Caller::local())
}
