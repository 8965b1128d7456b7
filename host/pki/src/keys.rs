//! Signing and verifying with the schemes of the network: Ed25519 and ECDSA over P-256.

use std::fmt;

use maxhost_model::{KeyAlgorithm, KeySignature, PublicKey};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    UnparsedPublicKey,
};
use zeroize::Zeroizing;

use crate::error::{PkiError, Result};

/// A private key. It is never shown; its PKCS #8 form is wiped from memory when it is dropped.
pub struct PrivateKey {
    pair: Pair,
    public: PublicKey,
    pkcs8: Zeroizing<Vec<u8>>,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair, SystemRandom),
}

impl PrivateKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`PkiError::Crypto`] if the system gives no randomness.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<PrivateKey> {
        let random = SystemRandom::new();
        let document = match algorithm {
            KeyAlgorithm::Ed25519 => Ed25519KeyPair::generate_pkcs8(&random),
            KeyAlgorithm::P256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random),
            other => return Err(PkiError::Crypto(format!("keys of {other:?} are not made here"))),
        };
        let document = document.map_err(|_| PkiError::Crypto("no randomness for a new key".to_owned()))?;
        PrivateKey::from_pkcs8(algorithm, Zeroizing::new(document.as_ref().to_vec()))
            .ok_or_else(|| PkiError::Crypto("a new key is malformed".to_owned()))
    }

    /// Reads the PKCS #8 form; `None` if it is not that of a key of this scheme.
    #[must_use]
    pub fn from_pkcs8(algorithm: KeyAlgorithm, pkcs8: Zeroizing<Vec<u8>>) -> Option<PrivateKey> {
        let pair = match algorithm {
            // Other programs leave the public half out.
            KeyAlgorithm::Ed25519 => Pair::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).ok()?),
            KeyAlgorithm::P256 => {
                let random = SystemRandom::new();
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8, &random).ok()?;
                Pair::P256(pair, random)
            }
            _ => return None,
        };
        let raw = match &pair {
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
            Pair::P256(pair, _) => pair.public_key().as_ref(),
        };
        let public = PublicKey::from_raw(algorithm, raw).ok()?;
        Some(PrivateKey { pair, public, pkcs8 })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The PKCS #8 form, for sealing and for TLS. Secret.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// Signs a message: 64 bytes of Ed25519, or a DER signature of ECDSA with SHA-256.
    ///
    /// # Errors
    /// [`PkiError::Crypto`] if the system gives no randomness (ECDSA only).
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        match &self.pair {
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::P256(pair, random) => match pair.sign(random, message) {
                Ok(signature) => Ok(signature.as_ref().to_vec()),
                Err(_) => Err(PkiError::Crypto("no randomness for a signature".to_owned())),
            },
        }
    }

    /// Signs a message and says with which key.
    ///
    /// # Errors
    /// As [`PrivateKey::sign`].
    pub fn signature(&self, message: &[u8]) -> Result<KeySignature> {
        Ok(KeySignature { by: self.public.clone(), bytes: self.sign(message)? })
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {:?})", self.public)
    }
}

/// Whether the signature is this key's over this message: for the two schemes that certificates are signed with. A
/// signature of any other scheme is none here.
#[must_use]
pub fn verify(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    match key.algorithm() {
        KeyAlgorithm::Ed25519 => UnparsedPublicKey::new(&ED25519, key.raw()).verify(message, signature).is_ok(),
        KeyAlgorithm::P256 => {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.raw()).verify(message, signature).is_ok()
        }
        _ => false,
    }
}

/// What goes into a certificate. Certificates are issued for keys that [`PrivateKey::generate`] makes; of any other key
/// the bytes would not fit the scheme named here, and whoever reads the certificate would refuse it.
fn rcgen_algorithm(key: &PublicKey) -> &'static rcgen::SignatureAlgorithm {
    match key.algorithm() {
        KeyAlgorithm::Ed25519 => &rcgen::PKCS_ED25519,
        _ => &rcgen::PKCS_ECDSA_P256_SHA256,
    }
}

/// A public key as the subject of a certificate.
pub(crate) struct SubjectKey<'a>(pub(crate) &'a PublicKey);

impl rcgen::PublicKeyData for SubjectKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.raw()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        rcgen_algorithm(self.0)
    }
}

impl rcgen::PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.public.raw()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        rcgen_algorithm(&self.public)
    }
}

impl rcgen::SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, rcgen::Error> {
        PrivateKey::sign(self, message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_schemes_sign_and_verify() {
        for algorithm in [KeyAlgorithm::Ed25519, KeyAlgorithm::P256] {
            let key = PrivateKey::generate(algorithm).unwrap();
            let signature = key.signature(b"message").unwrap();
            assert!(verify(&signature.by, b"message", &signature.bytes));
            assert!(!verify(&signature.by, b"massage", &signature.bytes));
            assert!(!verify(&signature.by, b"message", &signature.bytes[1..]));
            let other = PrivateKey::generate(algorithm).unwrap();
            assert!(!verify(other.public(), b"message", &signature.bytes));
            let again = PrivateKey::from_pkcs8(algorithm, Zeroizing::new(key.pkcs8().to_vec())).unwrap();
            assert_eq!(again.public(), key.public());
            assert!(!format!("{key:?}").contains(&hex::encode(key.pkcs8())));
        }
        let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
        assert!(PrivateKey::from_pkcs8(KeyAlgorithm::Ed25519, Zeroizing::new(key.pkcs8().to_vec())).is_none());
    }
}
