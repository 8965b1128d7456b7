//! Signing and verifying what a node says of itself, and the network parameters.

use std::path::Path;
use std::time::SystemTime;

use maxhost_model::{
    Encoded, KeySignature, NetworkParameters, NodeIdentity, NodeInfo, PublicKey, Signed, from_cbor, network, to_cbor,
};

use crate::certificates::CertificateFields;
use crate::chain::{TrustRoot, in_file, verify_chain};
use crate::error::{PkiError, Result};
use crate::files;
use crate::keys::{PrivateKey, verify};
use crate::pem;
use crate::roles::CertRole;

pub(crate) const PARAMETERS_FILE: &str = "parameters";
pub(crate) const PARAMETERS_CERTIFICATE_FILE: &str = "parameters.pem";

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

fn is_signed(raw: &[u8], signatures: &[KeySignature], key: &PublicKey) -> bool {
    signatures.iter().any(|signature| signature.by == *key && verify(key, raw, &signature.bytes))
}

/// Signs network parameters and writes them.
pub(crate) fn write_parameters(
    folder: &Path,
    parameters: NetworkParameters,
    key: &PrivateKey,
) -> Result<Encoded<NetworkParameters>> {
    parameters.validate()?;
    let encoded = Encoded::new(parameters)?;
    let signed = Signed::<NetworkParameters>::new(encoded.bytes().to_vec(), vec![key.signature(encoded.bytes())?]);
    files::replace_durably(&folder.join(PARAMETERS_FILE), &to_cbor(&signed)?, files::PUBLIC)?;
    Ok(encoded)
}

/// Reads the network parameters of a network folder and verifies them: signature, the signer's certificate, rules.
///
/// # Errors
/// If a file cannot be read or anything does not verify; the error names the file.
pub fn read_parameters(folder: &Path, trust: &TrustRoot, at: SystemTime) -> Result<Encoded<NetworkParameters>> {
    let certificate_path = folder.join(PARAMETERS_CERTIFICATE_FILE);
    let chain = pem::decode(&files::read(&certificate_path)?, &certificate_path.display().to_string())?;
    let signer = verify_chain(&chain, trust, CertRole::NetworkParameters, at)
        .map_err(|error| in_file(error, &certificate_path))?;

    let path = folder.join(PARAMETERS_FILE);
    let malformed = |error: maxhost_model::Invalid| PkiError::network(&path, error.to_string());
    let signed: Signed<NetworkParameters> = from_cbor(&files::read(&path)?).map_err(malformed)?;
    if !is_signed(&signed.raw, &signed.signatures, &signer.key) {
        return Err(PkiError::Signature { of: format!("the network parameters in {}", path.display()) });
    }
    let parameters = signed.decode_unverified().map_err(malformed)?;
    parameters.validate().map_err(malformed)?;
    Ok(parameters)
}
