//! Opening connections: TCP without delay, TLS by our own stream, SASL, and a look at what the broker says of itself.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use fe2o3_amqp::Connection;
use fe2o3_amqp::connection::ConnectionHandle;
use fe2o3_amqp::sasl_profile::SaslProfile;
use maxhost_broker::BrokerError;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::{of_io, of_open, refused, unavailable};
use crate::heard::Heard;
use crate::open_frame::{Opening, Told};
use crate::options::{AmqpOptions, Tls};

/// How long one server may take until a connection to it is open.
const OPEN: Duration = Duration::from_secs(10);

/// Opens a connection to the first server that answers; `name` tells connections of the host apart, and `heard` is told
/// whenever something comes on it.
pub(crate) async fn connect(
    options: &AmqpOptions,
    name: &str,
    heard: &Heard,
) -> Result<ConnectionHandle<()>, BrokerError> {
    let mut failed = None;
    for (server, port) in &options.address.servers {
        let opened = match tokio::time::timeout(OPEN, open(options, (server, *port), name, heard)).await {
            Ok(opened) => opened,
            Err(_) => Err(unavailable(format!("{server}:{port} did not answer within {OPEN:?}"))),
        };
        match opened {
            Ok(connection) => return Ok(connection),
            // What is refused tells more than what cannot be reached.
            Err(error) if failed.as_ref().is_none_or(BrokerError::is_transient) => failed = Some(error),
            Err(_) => {}
        }
    }
    Err(failed.unwrap_or_else(|| refused("its address names no server")))
}

/// A stream to a server, encrypted if it is said how.
pub(crate) async fn stream(server: &str, port: u16, tls: Option<&Arc<ClientConfig>>) -> Result<Stream, BrokerError> {
    let unreachable = |error: io::Error| unavailable(io::Error::new(error.kind(), format!("{server}:{port}: {error}")));
    let tcp = TcpStream::connect((server, port)).await.map_err(unreachable)?;
    // Without it, a small frame waits for the answer to the one before it.
    tcp.set_nodelay(true).map_err(unreachable)?;
    let Some(tls) = tls else { return Ok(Stream::Plain(tcp)) };
    let name = ServerName::try_from(server.to_owned())
        .map_err(|_| refused(format!("'{server}' is no name that a certificate can have")))?;
    let connector = TlsConnector::from(Arc::clone(tls));
    Ok(Stream::Tls(Box::new(connector.connect(name, tcp).await.map_err(of_handshake)?)))
}

async fn open(
    options: &AmqpOptions,
    (server, port): (&str, u16),
    name: &str,
    heard: &Heard,
) -> Result<ConnectionHandle<()>, BrokerError> {
    let tls = options.tls.as_ref().map(client_config).transpose()?;
    let stream = stream(server, port, tls.as_ref()).await?;
    let opening = Arc::new(Mutex::new(Opening::default()));
    let profile = match &options.credentials {
        None => SaslProfile::Anonymous,
        Some(credentials) => SaslProfile::Plain {
            username: credentials.user.clone(),
            password: credentials.password.as_str().to_owned(),
        },
    };
    let idle = u32::try_from(options.idle_timeout.as_millis()).unwrap_or(u32::MAX);
    let connection = Connection::builder()
        .container_id(name)
        .scheme("amqp")
        .hostname(server)
        .channel_max(u16::MAX)
        .idle_time_out(idle)
        .sasl_profile(profile)
        .open_with_stream(Watched { stream, opening: Arc::clone(&opening), heard: heard.clone() })
        .await
        .map_err(of_open)?;
    let told = opening.lock().told();
    if let Some(told) = told {
        check_product(told.is_rabbitmq, options.management.is_some())?;
        check_idle_timeout(told, options.session_timeout)?;
    }
    Ok(connection)
}

/// RabbitMQ is asked over HTTP, and other brokers are not.
fn check_product(is_rabbitmq: bool, has_management: bool) -> Result<(), BrokerError> {
    match (is_rabbitmq, has_management) {
        (true, false) => Err(refused(
            "it is RabbitMQ, and broker.management is not set to the address of its management, such as \
             https://SERVER:15671",
        )),
        (false, true) => Err(refused("it is no RabbitMQ: leave broker.management out, which only RabbitMQ has")),
        _ => Ok(()),
    }
}

/// A host that hangs must lose its consumers before others may take its identities.
fn check_idle_timeout(told: Told, session_timeout: Option<Duration>) -> Result<(), BrokerError> {
    let Some(session_timeout) = session_timeout else { return Ok(()) };
    // A peer waits twice as long as it says (OASIS AMQP 1.0, part 2, section 2.4.5). RabbitMQ looks at intervals of twice its
    // heartbeat, and gives up at the third that nothing has come in: measured with 3.10.8.
    let (times, set) = match told.is_rabbitmq {
        false => (2, "set amqpIdleTimeout of the broker's acceptor"),
        true => (6, "set heartbeat in its rabbitmq.conf to at most a sixth of that, in seconds"),
    };
    match told.idle_timeout {
        None => Err(refused(format!("it never takes its queues from a host that hangs: {set}"))),
        Some(idle) if idle * times > session_timeout => Err(refused(format!(
            "it takes its queues from a host that hangs after {:?}, which is more than the session timeout of the \
             ownership service, {session_timeout:?}: {set}",
            idle * times
        ))),
        Some(_) => Ok(()),
    }
}

pub(crate) fn client_config(tls: &Tls) -> Result<Arc<ClientConfig>, BrokerError> {
    let unreadable = |what: &str| refused(format!("{what} cannot be read: it must be in PEM"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(tls.authorities.as_bytes()) {
        let certificate = certificate.map_err(|_| unreadable("the certificate of its authority"))?;
        roots.add(certificate).map_err(|_| unreadable("the certificate of its authority"))?;
    }
    if roots.is_empty() {
        return Err(unreadable("the certificate of its authority"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unavailable)?
        .with_root_certificates(roots);
    let config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
            let chain = chain.map_err(|_| unreadable("the host's certificate"))?;
            let key =
                PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| unreadable("the host's private key"))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| refused(format!("the host's certificate and key do not fit: {error}")))?
        }
    };
    Ok(Arc::new(config))
}

fn of_handshake(error: io::Error) -> BrokerError {
    of_io(&error).unwrap_or_else(|| unavailable(error))
}

/// A connection, encrypted or not.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A stream that looks at what the broker says when the connection is opened, and notes that it says something.
#[derive(Debug)]
struct Watched {
    stream: Stream,
    opening: Arc<Mutex<Opening>>,
    heard: Heard,
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = read {
            let new = &buf.filled()[before..];
            if !new.is_empty() {
                self.heard.note();
            }
            self.opening.lock().see(new);
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
