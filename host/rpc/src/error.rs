//! What can go wrong when the edge is set up.

use std::io;
use std::net::SocketAddr;

use maxhost_model::{Code, Problem};

/// The server could not be set up, or broke down.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RpcError {
    /// The listen address is not `host:port`.
    #[error("'{listen}' is not an address to listen on: expected host:port, such as 127.0.0.1:0")]
    ListenInvalid {
        /// As configured.
        listen: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The listen address can be reached from other machines.
    #[error("'{listen}' is {address}, which is not a loopback address")]
    NotLoopback {
        /// As configured.
        listen: String,
        /// What it resolves to.
        address: SocketAddr,
    },
    /// Somebody else listens there.
    #[error("{address} is in use by another process")]
    PortInUse {
        /// The address that was to be listened on.
        address: SocketAddr,
    },
    /// The system refused to listen there.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address that was to be listened on.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The certificate, the key or the authorities of clients cannot be used.
    #[error("the certificate or the key cannot be used: {0}")]
    Tls(String),
    /// The reflection service refused the compiled protobuf files.
    #[error("the reflection service cannot be made: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server ended by itself.
    #[error("the gRPC server failed: {0}")]
    Serve(#[from] tonic::transport::Error),
}

impl From<RpcError> for Problem {
    fn from(error: RpcError) -> Problem {
        let message = error.to_string();
        match &error {
            RpcError::ListenInvalid { .. } => Problem::new(Code::ConfigInvalid, format!("rpc.listen: {message}"))
                .remedy("write rpc.listen as host:port; port 0 picks a free one"),
            RpcError::NotLoopback { listen, .. } => {
                Problem::new(Code::ListenRefused, format!("rpc.listen: {message}")).detail("listen", listen.clone())
            }
            RpcError::PortInUse { address } => {
                Problem::new(Code::PortInUse, format!("rpc.listen: {message}")).detail("address", address.to_string())
            }
            RpcError::Bind { address, .. } => Problem::new(Code::ConfigInvalid, format!("rpc.listen: {message}"))
                .remedy("set rpc.listen to an address of this machine and a port that the host's user may use")
                .detail("address", address.to_string()),
            RpcError::Tls(reason) => Problem::new(Code::ConfigInvalid, format!("rpc.tls: {reason}")).remedy(
                "name files in PEM: a certificate chain, its private key (PKCS #8), and the authorities of clients",
            ),
            RpcError::Reflection(_) | RpcError::Serve(_) => Problem::new(Code::Internal, message),
        }
    }
}
