//! Issuing certificates.

use std::fmt;
use std::time::SystemTime;

use maxhost_model::{KeyAlgorithm, PublicKey, X500Name};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose,
    SanType,
};
use time::{Duration, OffsetDateTime};

use crate::certificates::CertificateFields;
use crate::error::{PkiError, Result};
use crate::keys::{PrivateKey, SubjectKey};
use crate::names::{tls_host_name, to_distinguished_name};
use crate::roles::{CertRole, ROLE_OID};

/// An authority: a certificate that may issue others, and its private key.
pub struct CertificateAuthority {
    certificate: Vec<u8>,
    role: Option<CertRole>,
    issuer: Issuer<'static, PrivateKey>,
}

impl CertificateAuthority {
    /// A new root with a new key, valid from the day before `at`.
    ///
    /// # Errors
    /// [`PkiError::Crypto`] if the system gives no randomness.
    pub fn new_root(name: &X500Name, at: SystemTime) -> Result<CertificateAuthority> {
        let key = PrivateKey::generate(KeyAlgorithm::P256)?;
        let params = profile(name, None, at)?;
        let certificate = params.self_signed(&key).map_err(crypto)?.der().to_vec();
        Ok(CertificateAuthority { certificate, role: None, issuer: Issuer::new(params, key) })
    }

    /// A new authority beneath this one, with a new key.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] if this authority may not issue the role.
    pub fn issue_authority(&self, name: &X500Name, role: CertRole, at: SystemTime) -> Result<CertificateAuthority> {
        let key = PrivateKey::generate(KeyAlgorithm::P256)?;
        let certificate = self.issue(name, role, key.public(), at)?;
        let issuer = Issuer::new(profile(name, Some(role), at)?, key);
        Ok(CertificateAuthority { certificate, role: Some(role), issuer })
    }

    /// A certificate of this role for this name and key: DER.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] if this authority may not issue the role.
    pub fn issue(&self, name: &X500Name, role: CertRole, key: &PublicKey, at: SystemTime) -> Result<Vec<u8>> {
        if !role.allows_parent(self.role) {
            let reason = format!("cannot be issued by a {} certificate", self.role.map_or("root", CertRole::describe));
            return Err(PkiError::certificate(format!("a {} certificate", role.describe()), reason));
        }
        let certificate = profile(name, Some(role), at)?.signed_by(&SubjectKey(key), &self.issuer).map_err(crypto)?;
        Ok(certificate.der().to_vec())
    }

    /// An authority whose certificate and key were kept.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] if the certificate is not that of an authority, or not of this key.
    pub fn restore(certificate: Vec<u8>, key: PrivateKey) -> Result<CertificateAuthority> {
        let fields = CertificateFields::parse(&certificate)?;
        if fields.authority.is_none() {
            return Err(PkiError::certificate(fields.describe(), "is not that of a certificate authority"));
        }
        if fields.key != *key.public() {
            return Err(PkiError::certificate(fields.describe(), "does not belong to the private key beside it"));
        }
        // Validity plays no part in what an issuer puts into other certificates.
        let params =
            profile(&fields.name()?, fields.role, SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1 << 30))?;
        Ok(CertificateAuthority { certificate, role: fields.role, issuer: Issuer::new(params, key) })
    }

    /// The same authority under a role that its certificate does not have, to forge certificates with.
    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub(crate) fn with_role(&self, role: Option<CertRole>) -> CertificateAuthority {
        let key = PrivateKey::from_pkcs8(self.key().public().algorithm(), self.key().pkcs8().to_vec().into());
        let mut forger = CertificateAuthority::restore(self.certificate.clone(), key.unwrap()).unwrap();
        forger.role = role;
        forger
    }

    /// An authority without a role beneath this one, as networks have between their root and the doorman.
    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub(crate) fn issue_intermediate(&self, name: &X500Name, at: SystemTime) -> CertificateAuthority {
        let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
        let params = profile(name, None, at).unwrap();
        let certificate = params.signed_by(&SubjectKey(key.public()), &self.issuer).unwrap().der().to_vec();
        CertificateAuthority { certificate, role: None, issuer: Issuer::new(params, key) }
    }

    /// Its certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Its private key.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        self.issuer.key()
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateAuthority({:?}, {:?})", self.role, self.key())
    }
}

fn crypto(error: rcgen::Error) -> PkiError {
    PkiError::Crypto(format!("issuing a certificate: {error}"))
}

/// What a certificate of this role looks like; without a role, a root. Lifetimes are at most those that Corda's tools
/// allow: 20 years for node CAs and identities, 10 for TLS.
fn profile(name: &X500Name, role: Option<CertRole>, at: SystemTime) -> Result<CertificateParams> {
    use KeyUsagePurpose as Usage;
    let mut params = CertificateParams::default();
    params.distinguished_name = to_distinguished_name(name);
    params.use_authority_key_identifier_extension = role.is_some();

    // The path lengths leave room for confidential identities, which a legal identity issues itself.
    let authority = |path_length| IsCa::Ca(path_length);
    let (years, is_ca) = match role {
        None => (30, authority(BasicConstraints::Unconstrained)),
        Some(CertRole::DoormanCa) => (25, authority(BasicConstraints::Constrained(2))),
        Some(CertRole::NodeCa) => (20, authority(BasicConstraints::Constrained(1))),
        Some(CertRole::LegalIdentity | CertRole::ServiceIdentity) => (20, authority(BasicConstraints::Constrained(0))),
        Some(CertRole::Tls) => (10, IsCa::ExplicitNoCa),
        Some(CertRole::ConfidentialLegalIdentity | CertRole::NetworkMap | CertRole::NetworkParameters) => {
            (20, IsCa::ExplicitNoCa)
        }
    };
    params.key_usages = match is_ca {
        IsCa::Ca(_) => vec![Usage::DigitalSignature, Usage::KeyCertSign, Usage::CrlSign],
        _ => vec![Usage::DigitalSignature],
    };
    params.is_ca = is_ca;

    if let Some(role) = role {
        params.custom_extensions.push(CustomExtension::from_oid_content(&ROLE_OID, role.to_der().to_vec()));
    }
    if role == Some(CertRole::Tls) {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::DnsName(tls_host_name(name).try_into().map_err(crypto)?)];
    }

    let (not_before, not_after) = validity(at, years)?;
    params.not_before = not_before;
    params.not_after = not_after;
    Ok(params)
}

/// From midnight UTC of the day before, so that clocks may differ a little, for that many years of 365 days.
fn validity(at: SystemTime, years: i64) -> Result<(OffsetDateTime, OffsetDateTime)> {
    let out_of_range = || PkiError::Crypto("the clock is out of range".to_owned());
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| out_of_range())?.as_secs();
    let days = i64::try_from(seconds / 86_400).map_err(|_| out_of_range())?;
    let not_before =
        OffsetDateTime::UNIX_EPOCH.checked_add(Duration::days(days.saturating_sub(1))).ok_or_else(out_of_range)?;
    let not_after = not_before.checked_add(Duration::days(365 * years)).ok_or_else(out_of_range)?;
    Ok((not_before, not_after))
}
