//! A typed client: calls with deadlines, failures as [`Problem`], and following a flow over restarts of the host.

mod follow;
mod tls;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use maxhost_model::{Code, Problem};
use parking_lot::Mutex;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use zeroize::Zeroizing;

use crate::proto::v1 as pb;
use crate::proto::v1::attachment_service_client::AttachmentServiceClient;
use crate::proto::v1::flow_service_client::FlowServiceClient;
use crate::proto::v1::host_service_client::HostServiceClient;
use crate::proto::v1::ledger_service_client::LedgerServiceClient;
use crate::proto::v1::network_service_client::NetworkServiceClient;
use crate::proto::v1::notary_service_client::NotaryServiceClient;
use crate::proto::v1::vault_service_client::VaultServiceClient;
use crate::status::to_problem;
use crate::tokens::TokenText;

pub use follow::{FollowFrom, FollowOptions, Observation};

/// Where the host is. Asked again whenever the connection was lost, because a restarted host may listen on another port.
pub type EndpointSource = Arc<dyn Fn() -> Result<String, Problem> + Send + Sync>;

/// The largest answer that is accepted.
const LARGEST_ANSWER: usize = 256 * 1024 * 1024;

/// What a user logs in with.
#[derive(Clone)]
pub struct Login {
    /// His name.
    pub user: String,
    /// His password. It is wiped when it is dropped.
    pub password: Zeroizing<String>,
}

/// Whom the client trusts, and what it shows of itself. All texts are PEM.
#[derive(Clone, Default)]
pub struct ClientTls {
    /// The authorities that the host's certificate must come from.
    pub authorities: Option<String>,
    /// The client's own certificate and private key.
    pub identity: Option<(String, Zeroizing<String>)>,
}

/// A client of one host.
#[derive(Clone)]
pub struct Client {
    source: EndpointSource,
    timeout: Duration,
    /// The value of the header `authorization`, marked as sensitive.
    login: Option<MetadataValue<Ascii>>,
    tls: ClientTls,
    connected: Arc<Mutex<Option<Connected>>>,
}

#[derive(Clone)]
struct Connected {
    endpoint: String,
    channel: Channel,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

// Futures in boxes, here and below, so that what a call is made of is compiled here, once, and not wherever one is awaited.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($service:ident, $request:ident) -> $answer:ident;)*) => { $(
        $(#[$doc])*
        ///
        /// # Errors
        /// What the host answers; `host-unreachable` and `timeout` if it does not.
        pub fn $name(&self, request: pb::$request) -> BoxFuture<'_, Result<pb::$answer, Problem>> {
            Box::pin(async move {
                let channel = self.connect().await?;
                let answer = $service(channel).$name(self.request(request)).await;
                self.answer(answer)
            })
        }
    )* };
}

impl Client {
    /// A client that connects when it is first used. `timeout` bounds each call, and the first connection.
    #[must_use]
    pub fn new(source: EndpointSource, timeout: Duration) -> Client {
        Client { source, timeout, login: None, tls: ClientTls::default(), connected: Arc::new(Mutex::new(None)) }
    }

    /// A client of the host at this address: `http://host:port` or `host:port`.
    #[must_use]
    pub fn at(endpoint: impl Into<String>, timeout: Duration) -> Client {
        let endpoint = endpoint.into();
        Client::new(Arc::new(move || Ok(endpoint.clone())), timeout)
    }

    /// Logs in with each call.
    ///
    /// # Errors
    /// `request-invalid` if the name cannot be sent.
    pub fn with_login(mut self, login: &Login) -> Result<Client, Problem> {
        let header = crate::login::header(&login.user, &login.password);
        self.login = Some(sensitive(&header)?);
        Ok(self)
    }

    /// Shows a token with each call.
    ///
    /// # Errors
    /// `request-invalid` if it cannot be sent.
    pub fn with_token(mut self, token: &TokenText) -> Result<Client, Problem> {
        self.login = Some(sensitive(&crate::login::token_header(token))?);
        Ok(self)
    }

    /// Uses TLS so, where the endpoint is `https://`.
    #[must_use]
    pub fn with_tls(mut self, tls: ClientTls) -> Client {
        self.tls = tls;
        self
    }

    calls! {
        /// Everything about one flow.
        get_flow(flows, GetFlowRequest) -> GetFlowResponse;
        /// A page of flows.
        list_flows(flows, ListFlowsRequest) -> ListFlowsResponse;
        /// Ends a flow.
        kill_flow(flows, KillFlowRequest) -> KillFlowResponse;
        /// Forgets a finished flow.
        remove_client_id(flows, RemoveClientIdRequest) -> RemoveClientIdResponse;
        /// Finished flows with a client id.
        finished_client_ids(flows, FinishedClientIdsRequest) -> FinishedClientIdsResponse;
        /// What an identity can run.
        registered_flows(flows, RegisteredFlowsRequest) -> RegisteredFlowsResponse;
        /// The host at a glance.
        status(hosts, StatusRequest) -> StatusResponse;
        /// Identities of the host.
        list_identities(hosts, ListIdentitiesRequest) -> ListIdentitiesResponse;
        /// One identity.
        get_identity(hosts, GetIdentityRequest) -> GetIdentityResponse;
        /// The hosts of the cluster.
        list_hosts(hosts, ListHostsRequest) -> ListHostsResponse;
        /// Has a host give up what it runs, or take identities again.
        set_draining(hosts, SetDrainingRequest) -> SetDrainingResponse;
        /// Has an identity handed over to a host.
        move_identity(hosts, MoveIdentityRequest) -> MoveIdentityResponse;
        /// Which hosts run identities.
        find_identities(hosts, FindIdentitiesRequest) -> FindIdentitiesResponse;
        /// A page of the audit trail.
        list_audit(hosts, ListAuditRequest) -> ListAuditResponse;
        /// The cluster at a glance.
        cluster_status(hosts, ClusterStatusRequest) -> ClusterStatusResponse;
        /// A page of states.
        query(vaults, VaultQueryRequest) -> VaultQueryResponse;
        /// How many states there are.
        count(vaults, VaultQueryRequest) -> VaultCountResponse;
        /// Sums over states.
        sum(vaults, VaultSumRequest) -> VaultSumResponse;
        /// A page of locks.
        locks(vaults, VaultLocksRequest) -> VaultLocksResponse;
        /// One transaction.
        get_transaction(ledgers, GetTransactionRequest) -> GetTransactionResponse;
        /// A transaction verified again.
        examine(ledgers, ExamineRequest) -> ExamineResponse;
        /// A page of transactions.
        list_transactions(ledgers, ListTransactionsRequest) -> ListTransactionsResponse;
        /// What a transaction comes from.
        graph(ledgers, LedgerGraphRequest) -> LedgerGraphResponse;
        /// A page of the requests that a notary has decided.
        list_requests(notaries, ListNotaryRequestsRequest) -> ListNotaryRequestsResponse;
        /// What a notary knows of a transaction.
        get_request(notaries, GetNotaryRequestRequest) -> GetNotaryRequestResponse;
        /// Which transactions have consumed states.
        consumption(notaries, NotaryConsumptionRequest) -> NotaryConsumptionResponse;
        /// A page of attachments.
        list_attachments(attachments, ListAttachmentsRequest) -> ListAttachmentsResponse;
        /// One attachment.
        get_attachment(attachments, GetAttachmentRequest) -> GetAttachmentResponse;
        /// Parties of the network.
        parties(network, PartiesRequest) -> PartiesResponse;
        /// What a party published about its node.
        node_info(network, NodeInfoRequest) -> NodeInfoResponse;
        /// The network parameters.
        network_parameters(network, NetworkParametersRequest) -> NetworkParametersResponse;
    }

    /// Starts a flow.
    ///
    /// # Errors
    /// What the host answers; `host-unreachable` and `timeout` if it does not. If the request was sent, the remedy says
    /// what to do about a flow that may have been started.
    pub fn start_flow(&self, request: pb::StartFlowRequest) -> BoxFuture<'_, Result<pb::StartFlowResponse, Problem>> {
        Box::pin(async move {
            let channel = self.connect().await?;
            let repeatable = request.client_id.is_some();
            let answer = flows(channel).start_flow(self.request(request)).await;
            self.answer(answer).map_err(|problem| unanswered_start(problem, repeatable))
        })
    }

    /// What a notary has done.
    ///
    /// # Errors
    /// What the host answers; `host-unreachable` and `timeout` if it does not.
    pub fn notary_status(
        &self,
        request: pb::NotaryStatusRequest,
    ) -> BoxFuture<'_, Result<pb::NotaryStatusResponse, Problem>> {
        Box::pin(async move {
            let channel = self.connect().await?;
            let answer = notaries(channel).status(self.request(request)).await;
            self.answer(answer)
        })
    }

    /// Changes of a vault, until the host stops or the connection breaks.
    ///
    /// # Errors
    /// What the host answers; `host-unreachable` and `timeout` if it does not.
    pub fn track(&self, request: pb::VaultTrackRequest) -> BoxFuture<'_, Result<Streaming<pb::VaultUpdate>, Problem>> {
        Box::pin(async move {
            let channel = self.connect().await?;
            let answer = vaults(channel).track(self.logged_in(request)).await;
            self.answer(answer)
        })
    }

    /// The next change of a stream; `None` at its end.
    ///
    /// # Errors
    /// What the host answers.
    pub async fn next_update(
        &self,
        stream: &mut Streaming<pb::VaultUpdate>,
    ) -> Result<Option<pb::VaultUpdate>, Problem> {
        stream.message().await.map_err(|status| to_problem(&status))
    }

    /// Brings a file, in the messages of this stream. Without a limit of time, as it takes as long as the file is large.
    ///
    /// # Errors
    /// What the host answers; `host-unreachable` if it does not.
    pub fn import_attachment(
        &self,
        parts: impl Stream<Item = pb::ImportAttachmentRequest> + Send + 'static,
    ) -> BoxFuture<'_, Result<pb::ImportAttachmentResponse, Problem>> {
        Box::pin(async move {
            let channel = self.connect().await?;
            let answer = attachments(channel).import_attachment(self.logged_in(parts)).await;
            self.answer(answer)
        })
    }

    /// The file of an attachment in pieces, behind a message that says what it is.
    ///
    /// # Errors
    /// What the host answers; `host-unreachable` if it does not.
    pub fn export_attachment(
        &self,
        request: pb::ExportAttachmentRequest,
    ) -> BoxFuture<'_, Result<Streaming<pb::ExportAttachmentResponse>, Problem>> {
        Box::pin(async move {
            let channel = self.connect().await?;
            let answer = attachments(channel).export_attachment(self.logged_in(request)).await;
            self.answer(answer)
        })
    }

    /// The next message of a stream; `None` at its end.
    ///
    /// # Errors
    /// What the host answers.
    pub async fn next_part<T>(&self, stream: &mut Streaming<T>) -> Result<Option<T>, Problem> {
        stream.message().await.map_err(|status| self.problem(&status))
    }

    /// A connection that stands: the one there is, or a new one.
    fn connect(&self) -> BoxFuture<'_, Result<Channel, Problem>> {
        Box::pin(self.connect_unboxed())
    }

    async fn connect_unboxed(&self) -> Result<Channel, Problem> {
        let endpoint = (self.source)()?;
        if let Some(connected) = self.connected.lock().as_ref().filter(|connected| connected.endpoint == endpoint) {
            return Ok(connected.channel.clone());
        }
        let unreachable = |error: &dyn fmt::Display| {
            Problem::new(Code::HostUnreachable, format!("no host answers at {endpoint}: {error}"))
                .detail("endpoint", endpoint.clone())
        };
        let url = if endpoint.contains("://") { endpoint.clone() } else { format!("http://{endpoint}") };
        let no_endpoint = |why: &dyn fmt::Display| {
            Problem::new(Code::Usage, format!("'{endpoint}' is not an endpoint: {why}"))
                .remedy("write an endpoint as http://host:port or https://host:port")
        };
        if !is_port_usable(&url) {
            return Err(no_endpoint(&"its port is no number from 1 to 65535"));
        }
        let secure = url.starts_with("https://");
        if self.login.is_some() && !secure && !is_loopback(&url) {
            return Err(Problem::new(
                Code::Usage,
                format!("a password or a token would cross the network in clear to {endpoint}"),
            )
            .remedy("write the endpoint as https://host:port"));
        }
        // The connection below is what is secured: for the layer of HTTP it is one like any other.
        let target = Endpoint::from_shared(url.replacen("https://", "http://", 1))
            .map_err(|error| no_endpoint(&error))?
            .connect_timeout(self.timeout.min(Duration::from_secs(10)))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20));
        let connected = if secure {
            target.connect_with_connector(secured(tls::config(&self.tls)?)).await
        } else {
            target.connect().await
        };
        let channel = connected.map_err(|error| unreachable(&root_cause(&error)))?;
        *self.connected.lock() = Some(Connected { endpoint, channel: channel.clone() });
        Ok(channel)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = self.logged_in(message);
        request.set_timeout(self.timeout);
        request
    }

    /// A request without a limit of time, for streams.
    fn logged_in<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(login) = &self.login {
            request.metadata_mut().insert("authorization", login.clone());
        }
        request
    }

    fn answer<T>(&self, answer: Result<Response<T>, Status>) -> Result<T, Problem> {
        answer.map(Response::into_inner).map_err(|status| self.problem(&status))
    }

    fn problem(&self, status: &Status) -> Problem {
        let problem = to_problem(status);
        if problem.code == Code::HostUnreachable {
            *self.connected.lock() = None;
        }
        problem
    }
}

/// A header that is not shown and not kept in tables of headers.
fn sensitive(header: &str) -> Result<MetadataValue<Ascii>, Problem> {
    let mut value = MetadataValue::try_from(header)
        .map_err(|_| Problem::new(Code::RequestInvalid, "the user's name or password cannot be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The start was sent, and nobody can tell whether it arrived: says what may be done.
fn unanswered_start(problem: Problem, repeatable: bool) -> Problem {
    match problem.code {
        Code::HostUnreachable | Code::HostStopping | Code::Timeout if repeatable => {
            problem.remedy("start it again with the same client id: a flow that was started already is not started twice")
        }
        Code::HostUnreachable | Code::HostStopping | Code::Timeout => problem.remedy(
            "look with `maxhost flow list` whether the flow was started; a start with --client-id can be repeated safely",
        ),
        _ => problem,
    }
}

fn vaults(channel: Channel) -> VaultServiceClient<Channel> {
    VaultServiceClient::new(channel).max_decoding_message_size(LARGEST_ANSWER)
}

fn ledgers(channel: Channel) -> LedgerServiceClient<Channel> {
    LedgerServiceClient::new(channel).max_decoding_message_size(LARGEST_ANSWER)
}

fn notaries(channel: Channel) -> NotaryServiceClient<Channel> {
    NotaryServiceClient::new(channel)
}

fn attachments(channel: Channel) -> AttachmentServiceClient<Channel> {
    AttachmentServiceClient::new(channel)
}

fn flows(channel: Channel) -> FlowServiceClient<Channel> {
    FlowServiceClient::new(channel).max_decoding_message_size(LARGEST_ANSWER).max_encoding_message_size(LARGEST_ANSWER)
}

fn hosts(channel: Channel) -> HostServiceClient<Channel> {
    HostServiceClient::new(channel).max_decoding_message_size(LARGEST_ANSWER)
}

fn network(channel: Channel) -> NetworkServiceClient<Channel> {
    NetworkServiceClient::new(channel).max_decoding_message_size(LARGEST_ANSWER)
}

/// Makes connections by TLS.
fn secured(
    config: Arc<rustls::ClientConfig>,
) -> impl tower::Service<
    http::Uri,
    Response = TokioIo<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>,
    Error = std::io::Error,
    Future = impl Future<Output = std::io::Result<TokioIo<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>>> + Send,
> + Send
+ 'static {
    tower::service_fn(move |uri: http::Uri| {
        let config = Arc::clone(&config);
        async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
            tls::connect(config, host, uri.port_u16().unwrap_or(443)).await.map(TokioIo::new)
        }
    })
}

/// Whether the port of an address is one, if it has any: another number would be taken for the usual port of HTTP. What is no
/// address is not for this to tell.
fn is_port_usable(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return true };
    let Some(authority) = uri.authority() else { return true };
    let address = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, address)| address);
    address.len() == authority.host().len() || uri.port_u16().is_some_and(|port| port > 0)
}

/// Whether what is sent to this address stays on the machine.
fn is_loopback(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The innermost reason: "Connection refused" says more than "transport error".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
