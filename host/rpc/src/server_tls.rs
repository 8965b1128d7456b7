//! TLS as the server speaks it. Certificate, key and authorities may be replaced while it serves: they count for connections
//! that come afterwards, and those that are there go on.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use crate::connections::Connection;
use crate::error::RpcError;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What the server shows of itself, and whom it asks for a certificate. All texts are PEM.
#[derive(Clone)]
pub struct Tls {
    /// The server's certificate, followed by those that issued it.
    pub certificate: String,
    /// Its private key. It is wiped when it is dropped.
    pub key: Zeroizing<String>,
    /// The authorities whose certificates clients must have one of; `None`: clients need none.
    pub client_ca: Option<String>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("client_ca", &self.client_ca.is_some()).finish_non_exhaustive()
    }
}

/// TLS of a server, with what it shows at present.
pub struct ServerTls(Mutex<Arc<ServerConfig>>);

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

impl ServerTls {
    /// With this certificate.
    ///
    /// # Errors
    /// [`RpcError::Tls`] if what was given is no PEM, or key and certificate do not belong together.
    pub fn new(tls: &Tls) -> Result<Arc<ServerTls>, RpcError> {
        Ok(Arc::new(ServerTls(Mutex::new(config(tls)?))))
    }

    /// Shows this certificate from now on, and asks new clients for one of these authorities.
    ///
    /// # Errors
    /// As [`ServerTls::new`]; then what was shown before is shown on.
    pub fn replace(&self, tls: &Tls) -> Result<(), RpcError> {
        let config = config(tls)?;
        *self.0.lock() = config;
        Ok(())
    }

    fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.0.lock()).into()
    }
}

fn config(tls: &Tls) -> Result<Arc<ServerConfig>, RpcError> {
    let refuse = |what: &str, error: &dyn fmt::Display| RpcError::Tls(format!("{what}: {error}"));
    let read = |what: &str, pem: &str| -> Result<Vec<CertificateDer<'static>>, RpcError> {
        let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| refuse(what, &error))?;
        if found.is_empty() { Err(refuse(what, &"no certificate is there")) } else { Ok(found) }
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse("the protocol", &error))?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let what = "the authorities of clients";
            let mut roots = RootCertStore::empty();
            for certificate in read(what, authorities)? {
                roots.add(certificate).map_err(|error| refuse(what, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| refuse(what, &error))?)
        }
    };
    let chain = read("the certificate", &tls.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(tls.key.as_bytes()).map_err(|error| refuse("the private key", &error))?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| refuse("certificate and key", &error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// The connections of a listener that have shaken hands. `most`: so many may do so at once.
pub(crate) fn secured(
    connections: impl Stream<Item = io::Result<Connection>> + Send + 'static,
    tls: Arc<ServerTls>,
    most: usize,
) -> impl Stream<Item = io::Result<TlsStream<Connection>>> + Send + 'static {
    connections
        .map(move |connection| {
            let acceptor = tls.acceptor();
            async move {
                let connection = connection.ok()?;
                match tokio::time::timeout(HANDSHAKE, acceptor.accept(connection)).await {
                    Ok(Ok(stream)) => Some(Ok(stream)),
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "a client could not shake hands");
                        None
                    }
                    Err(_) => None,
                }
            }
        })
        .buffer_unordered(most.max(1))
        .filter_map(std::future::ready)
}
