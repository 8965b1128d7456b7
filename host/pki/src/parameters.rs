//! The network parameters: signing and reading them, and what proves them to others when other parameters are in force
//! (docs/behaviour.md 10.23).

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use maxhost_model::network::Certificate;
use maxhost_model::{Encoded, NetworkParameters, SecureHash, Signed, from_cbor, to_cbor};
use serde::{Deserialize, Serialize};

use crate::chain::{TrustRoot, in_file, verify_chain};
use crate::error::{PkiError, Result};
use crate::files;
use crate::keys::PrivateKey;
use crate::node_info::is_signed;
use crate::pem;
use crate::roles::CertRole;

pub(crate) const PARAMETERS_FILE: &str = "parameters";
pub(crate) const PARAMETERS_CERTIFICATE_FILE: &str = "parameters.pem";

/// Parameters with what proves them are no larger, bytes: they are read, kept and sent as a whole.
pub const MAX_PARAMETERS_SIZE: usize = 1 << 20;

/// Parameters as they travel: with the operator's signature, and the certificates of whoever signed, up to the root of the
/// network.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proof {
    parameters: Signed<NetworkParameters>,
    certificates: Vec<Certificate>,
}

impl Proof {
    /// Checks who signed, at a time, and the rules of docs/behaviour.md 9.2.
    fn verify(
        &self,
        trust: &TrustRoot,
        at: impl FnOnce(&NetworkParameters) -> SystemTime,
    ) -> Result<Encoded<NetworkParameters>> {
        let parameters = self.parameters.decode_unverified()?;
        let chain: Vec<&[u8]> = self.certificates.iter().map(|certificate| certificate.0.as_slice()).collect();
        let signer = verify_chain(&chain, trust, CertRole::NetworkParameters, at(&parameters))?;
        if !is_signed(&self.parameters.raw, &self.parameters.signatures, &signer.key) {
            return Err(PkiError::Signature { of: format!("the network parameters {}", parameters.hash()) });
        }
        parameters.validate()?;
        Ok(parameters)
    }
}

/// Parameters that the network's operator has made, with what proves it to others.
#[derive(Debug, Clone)]
pub struct ProvenParameters {
    parameters: Encoded<NetworkParameters>,
    hash: SecureHash,
    proof: Arc<[u8]>,
}

impl ProvenParameters {
    fn new(parameters: Encoded<NetworkParameters>, proof: Vec<u8>) -> Result<ProvenParameters> {
        if proof.len() > MAX_PARAMETERS_SIZE {
            return Err(too_large(proof.len()));
        }
        Ok(ProvenParameters { hash: parameters.hash(), parameters, proof: proof.into() })
    }

    /// Reads what somebody gives as parameters, and verifies that the operator of the network made them. The certificates
    /// have to be valid at the time that the parameters tell as that of their making, but not now: a ledger outlives them.
    ///
    /// # Errors
    /// [`PkiError::Invalid`], [`PkiError::Certificate`] or [`PkiError::Signature`], for the first thing that is wrong.
    pub fn verify(proof: &[u8], trust: &TrustRoot) -> Result<ProvenParameters> {
        if proof.len() > MAX_PARAMETERS_SIZE {
            return Err(too_large(proof.len()));
        }
        let read: Proof = from_cbor(proof)?;
        let made = |parameters: &NetworkParameters| {
            let made = UNIX_EPOCH.checked_add(Duration::from_millis(parameters.modified_time_ms));
            let now = SystemTime::now();
            made.map_or(now, |made| made.min(now))
        };
        ProvenParameters::new(read.verify(trust, made)?, proof.to_vec())
    }

    /// The parameters.
    #[must_use]
    pub fn parameters(&self) -> &Encoded<NetworkParameters> {
        &self.parameters
    }

    /// SHA-256 of the parameters, by which transactions name them.
    #[must_use]
    pub fn hash(&self) -> SecureHash {
        self.hash
    }

    /// What [`ProvenParameters::verify`] reads.
    #[must_use]
    pub fn proof(&self) -> &[u8] {
        &self.proof
    }
}

fn too_large(bytes: usize) -> PkiError {
    let reason = format!("{bytes} bytes with what proves them, and {MAX_PARAMETERS_SIZE} are allowed");
    PkiError::Invalid(maxhost_model::Invalid::Parameters { field: "size", reason })
}

/// Signs network parameters and writes them, durably.
///
/// # Errors
/// [`PkiError::Invalid`] if they break a rule of docs/behaviour.md 9.2, or if the file cannot be written.
pub(crate) fn write_parameters(
    folder: &Path,
    parameters: NetworkParameters,
    key: &PrivateKey,
) -> Result<Encoded<NetworkParameters>> {
    parameters.validate()?;
    let encoded = Encoded::new(parameters)?;
    let signed = Signed::<NetworkParameters>::new(encoded.bytes().to_vec(), vec![key.signature(encoded.bytes())?]);
    let bytes = to_cbor(&signed)?;
    // With its certificates it has to fit too.
    if bytes.len() > MAX_PARAMETERS_SIZE / 2 {
        return Err(too_large(bytes.len()));
    }
    files::replace_durably(&folder.join(PARAMETERS_FILE), &bytes, files::PUBLIC)?;
    Ok(encoded)
}

/// Reads the network parameters of a network folder and verifies them: signature, the signer's certificate, rules.
///
/// # Errors
/// If a file cannot be read or anything does not verify; the error names the file.
pub fn read_parameters(folder: &Path, trust: &TrustRoot, at: SystemTime) -> Result<ProvenParameters> {
    let certificate_path = folder.join(PARAMETERS_CERTIFICATE_FILE);
    let chain = pem::decode(&files::read(&certificate_path)?, &certificate_path.display().to_string())?;
    let path = folder.join(PARAMETERS_FILE);
    let malformed = |error: maxhost_model::Invalid| PkiError::network(&path, error.to_string());
    let parameters: Signed<NetworkParameters> = from_cbor(&files::read(&path)?).map_err(malformed)?;
    let proof = Proof { parameters, certificates: chain.into_iter().map(Certificate).collect() };
    let of_file = |error: PkiError| match error {
        PkiError::Certificate { .. } => in_file(error, &certificate_path),
        PkiError::Signature { .. } => {
            PkiError::Signature { of: format!("the network parameters in {}", path.display()) }
        }
        PkiError::Invalid(invalid) => malformed(invalid),
        other => other,
    };
    let verified = proof.verify(trust, |_| at).map_err(of_file)?;
    ProvenParameters::new(verified, to_cbor(&proof)?).map_err(of_file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::authority::CertificateAuthority;
    use maxhost_model::{KeyAlgorithm, X500Name};

    struct Operator {
        trust: TrustRoot,
        certificate: Vec<u8>,
        key: PrivateKey,
    }

    fn name(common: &str) -> X500Name {
        format!("CN={common}, O=Net, L=London, C=GB").parse().unwrap()
    }

    fn operator(role: CertRole) -> Operator {
        let at = SystemTime::now();
        let root = CertificateAuthority::new_root(&name("Root"), at).unwrap();
        let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
        let certificate = root.issue(&name("Parameters"), role, key.public(), at).unwrap();
        Operator { trust: TrustRoot::from_der(root.certificate().to_vec()).unwrap(), certificate, key }
    }

    fn now_ms() -> u64 {
        u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
    }

    impl Operator {
        fn proof(&self, parameters: &NetworkParameters) -> Proof {
            let raw = to_cbor(parameters).unwrap();
            let signature = self.key.signature(&raw).unwrap();
            let certificates = vec![Certificate(self.certificate.clone())];
            Proof { parameters: Signed::new(raw, vec![signature]), certificates }
        }

        fn refusal(&self, proof: &Proof) -> PkiError {
            ProvenParameters::verify(&to_cbor(proof).unwrap(), &self.trust).unwrap_err()
        }
    }

    #[test]
    fn what_the_operator_signed_is_proved_to_anybody() {
        let operator = operator(CertRole::NetworkParameters);
        let parameters = NetworkParameters::initial(Vec::new(), now_ms());
        let bytes = to_cbor(&operator.proof(&parameters)).unwrap();
        let proven = ProvenParameters::verify(&bytes, &operator.trust).unwrap();
        assert_eq!(**proven.parameters(), parameters);
        assert_eq!(proven.hash(), Encoded::new(parameters).unwrap().hash());
        assert_eq!(proven.proof(), bytes);
    }

    #[test]
    fn what_nobody_may_sign_is_refused() {
        let operator = operator(CertRole::NetworkParameters);
        let parameters = NetworkParameters::initial(Vec::new(), now_ms());
        let good = || operator.proof(&parameters);

        let unsigned = Proof { parameters: Signed::new(good().parameters.raw, Vec::new()), ..good() };
        assert!(matches!(operator.refusal(&unsigned), PkiError::Signature { .. }));
        let larger = NetworkParameters { max_transaction_size: 1 << 30, ..parameters.clone() };
        let altered = Signed::new(to_cbor(&larger).unwrap(), good().parameters.signatures);
        assert!(matches!(operator.refusal(&Proof { parameters: altered, ..good() }), PkiError::Signature { .. }));
        assert!(matches!(
            operator.refusal(&Proof { certificates: Vec::new(), ..good() }),
            PkiError::Certificate { .. }
        ));

        // Another network's operator, and one of this network who may sign other things.
        let other = self::operator(CertRole::NetworkParameters);
        assert!(matches!(operator.refusal(&other.proof(&parameters)), PkiError::Certificate { .. }));
        let map = self::operator(CertRole::NetworkMap);
        assert!(matches!(map.refusal(&map.proof(&parameters)), PkiError::Certificate { .. }));

        let broken = NetworkParameters { epoch: 0, ..parameters.clone() };
        assert!(matches!(operator.refusal(&operator.proof(&broken)), PkiError::Invalid(_)));
        // Made before the signer had his certificate.
        let early = NetworkParameters { modified_time_ms: 1, ..parameters };
        assert!(matches!(operator.refusal(&operator.proof(&early)), PkiError::Certificate { .. }));
        let large = ProvenParameters::verify(&vec![0; MAX_PARAMETERS_SIZE + 1], &operator.trust);
        assert!(matches!(large, Err(PkiError::Invalid(_))));
        assert!(ProvenParameters::verify(b"", &operator.trust).is_err());
    }
}
