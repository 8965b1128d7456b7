//! Listening and serving, with or without TLS and users.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use maxhost_flows::api::HostApi;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::transport::Server;
use tower::util::MapResponseLayer;

use crate::admission::Admission;
use crate::audit::AuditLayer;
use crate::budget::{Budget, Limits};
use crate::connections::{BACKLOG, Connections, accept};
use crate::error::RpcError;
use crate::explain::explain;
use crate::login::{LoginLayer, Logins};
use crate::metered::{MESSAGE_OVERHEAD, MeterLayer, keep};
use crate::proto::FILE_DESCRIPTOR_SET;
use crate::proto::externalscaler::external_scaler_server::ExternalScalerServer;
use crate::proto::v1::attachment_service_server::AttachmentServiceServer;
use crate::proto::v1::flow_service_server::FlowServiceServer;
use crate::proto::v1::host_service_server::HostServiceServer;
use crate::proto::v1::ledger_service_server::LedgerServiceServer;
use crate::proto::v1::network_service_server::NetworkServiceServer;
use crate::proto::v1::notary_service_server::NotaryServiceServer;
use crate::proto::v1::vault_service_server::VaultServiceServer;
use crate::server_tls::{ServerTls, secured};
use crate::services::attachment::{Attachments, LARGEST_CHUNK};
use crate::services::{flow::Flows, host::Hosts, ledger::Ledgers, network::Network, scaler::Scaler};

/// An answer may be a page of many results; this is what a client must be ready for.
const LARGEST_ANSWER: usize = 256 * 1024 * 1024;
/// A message to one of the services that are open to everybody, bytes.
const OPEN_MESSAGE: usize = 4 * 1024;
/// How long open connections may take to end once the host was asked to stop. The whole host stops within two seconds.
const DRAIN: Duration = Duration::from_millis(1_500);

/// How the server listens and what it allows.
#[derive(Debug, Clone)]
pub struct RpcOptions {
    /// `host:port`; port 0 picks a free one. Without TLS loopback addresses only.
    pub listen: String,
    /// TLS, if it is wanted.
    pub tls: Option<Arc<ServerTls>>,
    /// Bytes of arguments that a request may carry: the network's largest message.
    pub max_message_size: usize,
    /// Calls under way at once, over all connections. More are refused as `overloaded`.
    pub max_calls: usize,
    /// Attached streams at once, over all connections.
    pub max_streams: usize,
    /// Connections at once. More wait; silent ones are closed for them.
    pub max_connections: usize,
    /// Bytes that all requests under way may hold, from the first byte to the answer: more are refused as `overloaded`. Two of the
    /// largest size are always let in. Where there are users, one of them may have a quarter of it.
    pub max_request_bytes: usize,
    /// A request that brings less than 64 KiB in this time, and is not there, has stalled and is given up.
    pub request_silence: Duration,
    /// How long a call may take, streams apart.
    pub call_timeout: Duration,
    /// How often an idle connection is asked whether it lives.
    pub keepalive: Duration,
    /// How many identities a host of the cluster runs, as autoscalers are told.
    pub slots_per_host: u32,
}

impl Default for RpcOptions {
    fn default() -> RpcOptions {
        RpcOptions {
            listen: "127.0.0.1:0".to_owned(),
            tls: None,
            max_message_size: 10 * 1024 * 1024,
            max_calls: 4_096,
            max_streams: 10_000,
            max_connections: 4_096,
            max_request_bytes: 256 << 20,
            request_silence: Duration::from_secs(10),
            call_timeout: Duration::from_secs(60),
            keepalive: Duration::from_secs(30),
            slots_per_host: 500,
        }
    }
}

/// The gRPC server of a host.
pub struct RpcServer;

impl RpcServer {
    /// Listens. Connections are accepted from now on and served by [`Bound::serve`]. Without `logins` every caller is the local
    /// user, who may do everything.
    ///
    /// # Errors
    /// The address is not one or is in use; it can be reached from other machines, and there is no TLS or nobody logs in.
    pub async fn bind(
        options: RpcOptions,
        logins: Option<Arc<dyn Logins>>,
        api: Arc<dyn HostApi>,
    ) -> Result<Bound, RpcError> {
        let guarded = options.tls.is_some() && logins.is_some();
        let (address, listener) = listener(&options.listen, guarded).await?;
        let local_addr = listener.local_addr().map_err(|source| RpcError::Bind { address, source })?;
        Ok(Bound { options, logins, api, listener, local_addr })
    }
}

/// Whether a server could listen there now; `guarded`: it has TLS and logins. The port is free again afterwards.
///
/// # Errors
/// What [`RpcServer::bind`] would fail with.
pub async fn can_listen(listen: &str, guarded: bool) -> Result<(), RpcError> {
    listener(listen, guarded).await.map(drop)
}

/// Whether a server may listen there, as far as that can be told without doing so; `guarded`: it has TLS and logins.
///
/// # Errors
/// The address is not one; it can be reached from other machines, and is not guarded.
pub async fn may_listen(listen: &str, guarded: bool) -> Result<(), RpcError> {
    address(listen, guarded).await.map(drop)
}

async fn listener(text: &str, guarded: bool) -> Result<(SocketAddr, TcpListener), RpcError> {
    let address = address(text, guarded).await?;
    let listener = listen(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => RpcError::PortInUse { address },
        _ => RpcError::Bind { address, source },
    })?;
    Ok((address, listener))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted host takes its port again at once, though connections of the one before linger in the kernel.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The address to listen on: the first that the text resolves to. All of them are loopback addresses, unless the port is
/// guarded by TLS and logins.
async fn address(listen: &str, guarded: bool) -> Result<SocketAddr, RpcError> {
    let invalid = |source| RpcError::ListenInvalid { listen: listen.to_owned(), source };
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(listen).await.map_err(invalid)?.collect();
    if !guarded && let Some(&address) = addresses.iter().find(|address| !address.ip().is_loopback()) {
        return Err(RpcError::NotLoopback { listen: listen.to_owned(), address });
    }
    addresses.first().copied().ok_or_else(|| invalid(io::Error::other("no address has this name")))
}

/// A server that listens and does not serve yet.
pub struct Bound {
    options: RpcOptions,
    logins: Option<Arc<dyn Logins>>,
    api: Arc<dyn HostApi>,
    listener: TcpListener,
    local_addr: SocketAddr,
}

impl Bound {
    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` is cancelled. Then streams end with `host-stopping`, calls under way may finish, and
    /// after 1.5 seconds at the latest this returns.
    ///
    /// # Errors
    /// The server broke down by itself.
    pub fn serve(self, shutdown: CancellationToken) -> BoxFuture<'static, Result<(), RpcError>> {
        // In a box, so that all the server is made of is compiled here, once, and not wherever this is awaited.
        Box::pin(self.serve_unboxed(shutdown))
    }

    async fn serve_unboxed(self, shutdown: CancellationToken) -> Result<(), RpcError> {
        let routes = routes(&self.options, Arc::clone(&self.api), shutdown.clone()).await?;
        let most = self.options.max_connections;
        let incoming = accept(self.listener, Connections::new(most));
        let largest = self.options.max_message_size.saturating_add(MESSAGE_OVERHEAD);
        let limits = Limits {
            requests: self.options.max_calls.saturating_add(self.options.max_streams),
            bytes: self.options.max_request_bytes.max(largest.saturating_mul(2)),
            largest,
        };
        let meter = MeterLayer { budget: Budget::new(limits), silence: self.options.request_silence };
        let router = Server::builder()
            .layer(MapResponseLayer::new(explain))
            .layer(MapResponseLayer::new(keep))
            .layer(AuditLayer(self.api))
            .layer(meter)
            .layer(LoginLayer(self.logins))
            // A request that does not come to its end is given up; the answer has its own limit.
            .timeout(self.options.call_timeout.saturating_add(DRAIN))
            .http2_keepalive_interval(Some(self.options.keepalive))
            .http2_keepalive_timeout(Some(Duration::from_secs(20)))
            .max_concurrent_streams(Some(u32::try_from(self.options.max_streams).unwrap_or(u32::MAX)))
            .initial_stream_window_size(Some(1024 * 1024))
            .initial_connection_window_size(Some(4 * 1024 * 1024))
            .add_routes(routes);
        let stop = shutdown.clone().cancelled_owned();
        let server = async {
            match self.options.tls {
                Some(tls) => router.serve_with_incoming_shutdown(secured(incoming, tls, most), stop).await,
                None => router.serve_with_incoming_shutdown(incoming, stop).await,
            }
        };
        let drained = async {
            shutdown.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            ended = server => Ok(ended?),
            () = drained => Ok(()),
        }
    }
}

async fn routes(options: &RpcOptions, api: Arc<dyn HostApi>, shutdown: CancellationToken) -> Result<Routes, RpcError> {
    let admission = Admission::new(api, options.max_calls, options.max_streams, options.call_timeout, shutdown.clone());
    let request = options.max_message_size.saturating_add(MESSAGE_OVERHEAD);
    let flows = FlowServiceServer::new(Flows(admission.clone()))
        .max_decoding_message_size(request)
        .max_encoding_message_size(LARGEST_ANSWER)
        .accept_compressed(CompressionEncoding::Gzip);
    let network = NetworkServiceServer::new(Network(admission.clone()))
        .max_decoding_message_size(MESSAGE_OVERHEAD)
        .max_encoding_message_size(LARGEST_ANSWER)
        .accept_compressed(CompressionEncoding::Gzip);
    let ledgers = Ledgers(admission.clone());
    let vaults = VaultServiceServer::new(ledgers.clone())
        .max_decoding_message_size(MESSAGE_OVERHEAD)
        .max_encoding_message_size(LARGEST_ANSWER)
        .accept_compressed(CompressionEncoding::Gzip);
    let transactions = LedgerServiceServer::new(ledgers.clone())
        .max_decoding_message_size(MESSAGE_OVERHEAD)
        .max_encoding_message_size(LARGEST_ANSWER)
        .accept_compressed(CompressionEncoding::Gzip);
    let notaries = NotaryServiceServer::new(ledgers).max_decoding_message_size(MESSAGE_OVERHEAD);
    // What comes in pieces is not compressed, so that what is counted on the way is what lies in memory.
    let attachments = AttachmentServiceServer::new(Attachments::new(admission.clone()))
        .max_decoding_message_size(LARGEST_CHUNK + MESSAGE_OVERHEAD)
        .max_encoding_message_size(LARGEST_ANSWER);
    let scaler = Scaler { admission: admission.clone(), slots_per_host: options.slots_per_host };
    let scaler = ExternalScalerServer::new(scaler).max_decoding_message_size(MESSAGE_OVERHEAD);
    let hosts = HostServiceServer::new(Hosts(admission))
        .max_decoding_message_size(MESSAGE_OVERHEAD)
        .max_encoding_message_size(LARGEST_ANSWER)
        .accept_compressed(CompressionEncoding::Gzip);

    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<FlowServiceServer<Flows>>().await;
    health.set_serving::<NetworkServiceServer<Network>>().await;
    health.set_serving::<HostServiceServer<Hosts>>().await;
    health.set_serving::<VaultServiceServer<Ledgers>>().await;
    health.set_serving::<LedgerServiceServer<Ledgers>>().await;
    health.set_serving::<NotaryServiceServer<Ledgers>>().await;
    health.set_serving::<AttachmentServiceServer<Attachments>>().await;
    health.set_serving::<ExternalScalerServer<Scaler>>().await;
    tokio::spawn(async move {
        shutdown.cancelled().await;
        health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        health.set_not_serving::<FlowServiceServer<Flows>>().await;
        health.set_not_serving::<NetworkServiceServer<Network>>().await;
        health.set_not_serving::<HostServiceServer<Hosts>>().await;
        health.set_not_serving::<VaultServiceServer<Ledgers>>().await;
        health.set_not_serving::<LedgerServiceServer<Ledgers>>().await;
        health.set_not_serving::<NotaryServiceServer<Ledgers>>().await;
        health.set_not_serving::<AttachmentServiceServer<Attachments>>().await;
        health.set_not_serving::<ExternalScalerServer<Scaler>>().await;
    });

    // Python's reflection client asks for v1alpha.
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::builder();
    routes
        .add_service(flows)
        .add_service(network)
        .add_service(hosts)
        .add_service(vaults)
        .add_service(transactions)
        .add_service(notaries)
        .add_service(attachments)
        .add_service(scaler)
        .add_service(health_service.max_decoding_message_size(OPEN_MESSAGE))
        .add_service(reflection().build_v1()?.max_decoding_message_size(OPEN_MESSAGE))
        .add_service(reflection().build_v1alpha()?.max_decoding_message_size(OPEN_MESSAGE));
    Ok(routes.routes())
}
