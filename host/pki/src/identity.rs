//! The keys of one identity, and opening them.
//!
//! ```text
//! keys/<slug>/name                the X.500 name, as text
//!             certificates.pem    legal identity, TLS, node CA, doorman: in this order, the root left out
//!             identity.key        sealed: signs for the legal identity (Ed25519)
//!             tls.key             sealed: authenticates in TLS (P-256)
//!             node-ca.key         sealed: issues the other two (P-256)
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use maxhost_model::network::Certificate;
use maxhost_model::{NodeIdentity, Party, X500Name};

use crate::certificates::CertificateFields;
use crate::chain::{TrustRoot, in_file, verify_chain};
use crate::error::{PkiError, Result};
use crate::files;
use crate::fresh;
use crate::keys::PrivateKey;
use crate::pem;
use crate::roles::CertRole;
use crate::seal::{KeyVault, Purpose};

pub(crate) const NAME_FILE: &str = "name";
pub(crate) const CERTIFICATES_FILE: &str = "certificates.pem";

/// An identity with its keys opened and its certificates verified.
pub struct OpenIdentity {
    party: Party,
    key: PrivateKey,
    chain: Vec<Vec<u8>>,
    tls_key: PrivateKey,
    tls_chain: Vec<Vec<u8>>,
    not_after: SystemTime,
    folder: PathBuf,
}

impl OpenIdentity {
    /// Opens the keys of this name in a folder and verifies their certificates. Well under a millisecond.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] if a chain does not verify, is not this name's, or does not fit its private key;
    /// [`PkiError::Key`] if a key does not open; if a file cannot be read.
    pub fn open(
        vault: &KeyVault,
        folder: &Path,
        name: &X500Name,
        trust: &TrustRoot,
        at: SystemTime,
    ) -> Result<OpenIdentity> {
        let path = folder.join(CERTIFICATES_FILE);
        let chains = Chains::read(&path)?;
        let open = |chain: &[Vec<u8>], role: CertRole, purpose: Purpose| -> Result<(PrivateKey, SystemTime)> {
            let verified = verify_chain(chain, trust, role, at).map_err(|error| in_file(error, &path))?;
            let refuse = |reason: String| PkiError::certificate(path.display().to_string(), reason);
            if verified.name != *name {
                return Err(refuse(format!(
                    "the {} certificate is that of {}, not of {name}",
                    role.describe(),
                    verified.name
                )));
            }
            let key = vault.open_key(folder, purpose, name)?;
            if verified.key != *key.public() {
                return Err(refuse(format!(
                    "the {} certificate does not fit {}",
                    role.describe(),
                    purpose.file_name()
                )));
            }
            Ok((key, verified.not_after))
        };
        let (key, identity_expires) = open(&chains.identity, CertRole::LegalIdentity, Purpose::Identity)?;
        let (tls_key, tls_expires) = open(&chains.tls, CertRole::Tls, Purpose::Tls)?;
        Ok(OpenIdentity {
            party: Party::new(name.clone(), key.public().clone()),
            key,
            chain: chains.identity,
            tls_key,
            tls_chain: chains.tls,
            not_after: identity_expires.min(tls_expires),
            folder: folder.to_owned(),
        })
    }

    /// Its X.500 name.
    #[must_use]
    pub fn name(&self) -> &X500Name {
        &self.party.name
    }

    /// Its name and key.
    #[must_use]
    pub fn party(&self) -> &Party {
        &self.party
    }

    /// Signs with the identity's key (Ed25519).
    ///
    /// # Errors
    /// None with this scheme; the signature leaves room for others.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        self.key.sign(message)
    }

    /// The identity's signing key.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The key of its own that this nonce stands for, besides its legal one (Ed25519): the same whenever and wherever it is
    /// asked for. Nobody else can tell that the two belong together, or make it of the nonce.
    ///
    /// # Errors
    /// [`PkiError::Crypto`] if the identity's key is of another scheme than Ed25519.
    pub fn fresh_key(&self, nonce: &[u8; 32]) -> Result<PrivateKey> {
        fresh::derive(&self.key, nonce)
    }

    /// Name, key and certificates, as they stand in a node info.
    #[must_use]
    pub fn node_identity(&self) -> NodeIdentity {
        node_identity(self.party.clone(), &self.chain)
    }

    /// The key for TLS.
    #[must_use]
    pub fn tls_key(&self) -> &PrivateKey {
        &self.tls_key
    }

    /// The certificates for TLS in DER, its own first, the root left out.
    #[must_use]
    pub fn tls_chain(&self) -> &[Vec<u8>] {
        &self.tls_chain
    }

    /// When the first of its certificates expires.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The folder of its keys.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl fmt::Debug for OpenIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenIdentity({})", self.party.name)
    }
}

pub(crate) fn node_identity(party: Party, chain: &[Vec<u8>]) -> NodeIdentity {
    NodeIdentity { party, certificates: chain.iter().cloned().map(Certificate).collect() }
}

/// The two chains of an identity, which share their upper part.
pub(crate) struct Chains {
    pub(crate) identity: Vec<Vec<u8>>,
    pub(crate) tls: Vec<Vec<u8>>,
}

impl Chains {
    /// Reads a file of certificates and tells the chains apart by role. Verifies nothing.
    fn read(path: &Path) -> Result<Chains> {
        let mut chains = Chains { identity: Vec::new(), tls: Vec::new() };
        for der in pem::decode(&files::read(path)?, &path.display().to_string())? {
            let role = CertificateFields::parse(&der).map_err(|error| in_file(error, path))?.role();
            if role != Some(CertRole::Tls) {
                chains.identity.push(der.clone());
            }
            if role != Some(CertRole::LegalIdentity) {
                chains.tls.push(der);
            }
        }
        Ok(chains)
    }
}

/// The party whose certificates lie in a folder. Verifies nothing: for our own files only.
pub(crate) fn read_party(folder: &Path) -> Result<Party> {
    let path = folder.join(CERTIFICATES_FILE);
    let chains = Chains::read(&path)?;
    let first = chains
        .identity
        .first()
        .ok_or_else(|| PkiError::certificate(path.display().to_string(), "holds no legal identity certificate"))?;
    let fields = CertificateFields::parse(first)?;
    Ok(Party::new(fields.name()?, fields.key))
}
