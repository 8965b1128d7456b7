//! Reading one certificate: the fields that the rules of a network speak of.

use maxhost_model::{KeyAlgorithm, PublicKey, X500Name};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use crate::error::{PkiError, Result};
use crate::names;
use crate::roles::{CertRole, ROLE_OID};

/// A certificate's fields. Nothing about it is verified.
#[derive(Debug, Clone)]
pub struct CertificateFields {
    /// The part that is signed.
    pub(crate) signed_part: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) signature_algorithm: KeyAlgorithm,
    /// DER names, compared as bytes between a certificate and its issuer.
    pub(crate) subject: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) key: PublicKey,
    pub(crate) role: Option<CertRole>,
    pub(crate) authority: Option<Authority>,
    /// Seconds since the Unix epoch, both inclusive.
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

/// The right to issue certificates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Authority {
    /// How many further authorities may stand beneath it.
    pub(crate) path_length: Option<u32>,
}

impl CertificateFields {
    /// Reads a DER certificate.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] if it is malformed, uses another key or signature scheme than Ed25519 and P-256 with
    /// SHA-256, carries a bad role, or a critical extension that is not understood here.
    pub fn parse(der: &[u8]) -> Result<CertificateFields> {
        let certificate = match X509Certificate::from_der(der) {
            Ok(([], certificate)) => certificate,
            Ok(_) => return Err(refuse("bytes follow the certificate")),
            Err(_) => return Err(refuse("malformed DER")),
        };
        let key = PublicKey::from_spki(certificate.public_key().raw)
            .map_err(|_| refuse("its key is neither Ed25519 nor P-256"))?;
        let role = read_role(&certificate)?;
        check_critical_extensions(&certificate, role)?;
        Ok(CertificateFields {
            signed_part: certificate.tbs_certificate.as_ref().to_vec(),
            signature: certificate.signature_value.data.to_vec(),
            signature_algorithm: read_signature_algorithm(&certificate, der)?,
            subject: certificate.subject().as_raw().to_vec(),
            issuer: certificate.issuer().as_raw().to_vec(),
            key,
            role,
            authority: read_authority(&certificate)?,
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }

    /// The subject.
    ///
    /// # Errors
    /// If it breaks a rule of docs/behaviour.md 7.
    pub fn name(&self) -> Result<X500Name> {
        names::from_der(&self.subject)
    }

    /// The key that it is about.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Its role, if it has one.
    #[must_use]
    pub fn role(&self) -> Option<CertRole> {
        self.role
    }

    /// For error messages: the role and the subject, as far as they can be read.
    pub(crate) fn describe(&self) -> String {
        let role = self.role.map_or("CA", CertRole::describe);
        match self.name() {
            Ok(name) => format!("the {role} certificate of {name}"),
            Err(_) => format!("a {role} certificate"),
        }
    }
}

fn refuse(reason: &str) -> PkiError {
    PkiError::certificate("a certificate", reason)
}

/// The scheme of the signature. It stands twice in a certificate, and only one of the two is signed; both must be, to
/// the byte, what RFC 8410 and RFC 5758 prescribe.
fn read_signature_algorithm(certificate: &X509Certificate<'_>, der: &[u8]) -> Result<KeyAlgorithm> {
    const ED25519: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
    const ECDSA_SHA256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    // The signed part is a slice of `der`; what follows it is the second statement of the scheme.
    let signed_part: &[u8] = certificate.tbs_certificate.as_ref();
    let end = signed_part.as_ptr().addr().wrapping_sub(der.as_ptr().addr()).wrapping_add(signed_part.len());
    let outer = der.get(end..).unwrap_or_default();
    let inner = certificate.tbs_certificate.signature.algorithm.as_bytes();
    for (algorithm, encoded) in [(KeyAlgorithm::Ed25519, ED25519), (KeyAlgorithm::P256, ECDSA_SHA256)] {
        if outer.starts_with(encoded) && encoded.ends_with(inner) {
            return Ok(algorithm);
        }
    }
    Err(refuse("its signature is neither Ed25519 nor ECDSA with SHA-256"))
}

fn read_role(certificate: &X509Certificate<'_>) -> Result<Option<CertRole>> {
    let mut role = None;
    for extension in certificate.extensions() {
        let is_role = extension.oid.iter().is_some_and(|parts| parts.eq(ROLE_OID));
        if is_role && role.replace(CertRole::from_der(extension.value)?).is_some() {
            return Err(refuse("it carries two roles"));
        }
    }
    Ok(role)
}

fn read_authority(certificate: &X509Certificate<'_>) -> Result<Option<Authority>> {
    let constraints = certificate.basic_constraints().map_err(|_| refuse("malformed basic constraints"))?;
    let usage = certificate.key_usage().map_err(|_| refuse("malformed key usage"))?;
    let may_sign = usage.is_none_or(|usage| usage.value.key_cert_sign());
    Ok(match constraints {
        Some(constraints) if constraints.value.ca && may_sign => {
            Some(Authority { path_length: constraints.value.path_len_constraint })
        }
        _ => None,
    })
}

/// A critical extension must be obeyed or the certificate refused (RFC 5280 §4.2). Name constraints are accepted where
/// our own rule is stricter: all that a node CA issues carries the very name of the node.
fn check_critical_extensions(certificate: &X509Certificate<'_>, role: Option<CertRole>) -> Result<()> {
    for extension in certificate.extensions().iter().filter(|extension| extension.critical) {
        let understood = match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(_)
            | ParsedExtension::KeyUsage(_)
            | ParsedExtension::ExtendedKeyUsage(_)
            | ParsedExtension::SubjectAlternativeName(_) => true,
            ParsedExtension::NameConstraints(_) => role == Some(CertRole::NodeCa),
            _ => extension.oid.iter().is_some_and(|parts| parts.eq(ROLE_OID)),
        };
        if !understood {
            return Err(refuse(&format!("it has the critical extension {}, which is not understood", extension.oid)));
        }
    }
    Ok(())
}
