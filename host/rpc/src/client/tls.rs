//! TLS as the client speaks it.
//!
//! Whoever makes one certificate by hand for one host names that certificate as the authority too. Such a one often says of
//! itself that it is an authority, and then no verifier of chains takes it for a server's. It is taken here if it is, byte for
//! byte, the one that was named, is valid for the host's name, and is valid now.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use maxhost_model::{Code, Problem};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ClientTls;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A configuration for connections to a host.
///
/// # Errors
/// `config-invalid` if there is no authority, or what was given is no PEM or no key.
pub(super) fn config(tls: &ClientTls) -> Result<Arc<ClientConfig>, Problem> {
    let refuse = |what: &str, error: &dyn std::fmt::Display| {
        Problem::new(Code::ConfigInvalid, format!("TLS cannot be used: {what}: {error}"))
            .remedy("name files in PEM with --ca, --cert and --key")
    };
    let named = tls.authorities.as_deref().unwrap_or_default();
    let own: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(named.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| refuse("the authorities", &error))?;
    let mut roots = RootCertStore::empty();
    for certificate in &own {
        roots.add(certificate.clone()).map_err(|error| refuse("the authorities", &error))?;
    }
    let provider = Arc::new(ring::default_provider());
    let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| refuse("the authorities that the host's certificate must come from", &error))?;
    let verifier = Arc::new(Verifier { chains, own, provider: Arc::clone(&provider) });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse("the protocol", &error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((certificates, key)) => {
            let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificates.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|error| refuse("the certificate", &error))?;
            let key =
                PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| refuse("the private key", &error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| refuse("the certificate", &error))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Connects to an address and shakes hands.
///
/// # Errors
/// Of the network, or of TLS with its reason.
pub(super) async fn connect(config: Arc<ClientConfig>, host: &str, port: u16) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("'{host}': {error}")))?;
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    tokio::time::timeout(HANDSHAKE, TlsConnector::from(config).connect(name, stream))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long"))?
}

/// Verifies chains, and takes a certificate that was named itself.
#[derive(Debug)]
struct Verifier {
    chains: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.chains.verify_server_cert(certificate, intermediates, name, ocsp, now);
        let Err(error) = verified else { return verified };
        if !self.own.iter().any(|own| own == certificate) {
            return Err(error);
        }
        let bad = |_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
        let parsed = rustls::server::ParsedCertificate::try_from(certificate).map_err(bad)?;
        rustls::client::verify_server_name(&parsed, name)?;
        let (_, fields) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if seconds < fields.validity().not_before.timestamp() {
            return Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYet));
        }
        if seconds > fields.validity().not_after.timestamp() {
            return Err(rustls::Error::InvalidCertificate(CertificateError::Expired));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
