//! Signing and verifying what a node says of itself.

use std::time::SystemTime;

use maxhost_model::{KeySignature, NodeIdentity, NodeInfo, PublicKey, Signed, network, to_cbor};

use crate::certificates::CertificateFields;
use crate::chain::{TrustRoot, verify_chain};
use crate::error::{PkiError, Result};
use crate::keys::{PrivateKey, verify};
use crate::roles::CertRole;

/// Makes the signed node info of a node with one identity.
///
/// # Errors
/// [`PkiError::Invalid`] if it breaks a rule of docs/behaviour.md 9.1.
pub fn sign_node_info(
    identity: NodeIdentity,
    key: &PrivateKey,
    addresses: Vec<String>,
    serial: u64,
) -> Result<Signed<NodeInfo>> {
    let platform_version = network::PLATFORM_VERSION;
    let info = NodeInfo { addresses, identities: vec![identity], platform_version, serial };
    info.validate()?;
    let raw = to_cbor(&info)?;
    let signature = key.signature(&raw)?;
    Ok(Signed::new(raw, vec![signature]))
}

/// Verifies a node info: its rules, the certificates of each identity up to the trust root, and a signature by each.
///
/// # Errors
/// [`PkiError::Invalid`], [`PkiError::Certificate`] or [`PkiError::Signature`], for the first thing that is wrong.
pub fn verify_node_info(signed: &Signed<NodeInfo>, trust: &TrustRoot, at: SystemTime) -> Result<NodeInfo> {
    let info = signed.decode_unverified()?.into_value();
    info.validate()?;
    for identity in &info.identities {
        let name = &identity.party.name;
        let chain: Vec<&[u8]> = identity.certificates.iter().map(|certificate| certificate.0.as_slice()).collect();
        let role = match chain.first().map(|first| CertificateFields::parse(first)).transpose()? {
            Some(fields) if fields.role() == Some(CertRole::ServiceIdentity) => CertRole::ServiceIdentity,
            _ => CertRole::LegalIdentity,
        };
        let verified = verify_chain(&chain, trust, role, at)?;
        if verified.name != *name || verified.key != identity.party.owning_key {
            return Err(PkiError::certificate(
                format!("the node info of {name}"),
                "the certificate has another name or key",
            ));
        }
        if !is_signed(&signed.raw, &signed.signatures, &verified.key) {
            return Err(PkiError::Signature { of: format!("the node info of {name}") });
        }
    }
    Ok(info)
}

/// Whether one of these signatures over the bytes is by this key.
pub(crate) fn is_signed(raw: &[u8], signatures: &[KeySignature], key: &PublicKey) -> bool {
    signatures.iter().any(|signature| signature.by == *key && verify(key, raw, &signature.bytes))
}
