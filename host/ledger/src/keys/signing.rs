//! Keys that sign: for flows that hold a key in memory, for guests, and for tests. Signatures are deterministic
//! (RFC 8032, RFC 6979), so no randomness is needed.

use std::fmt;

use maxhost_model::{KeyAlgorithm, PublicKey};
use rsa::signature::Signer;
use zeroize::Zeroizing;

use super::scheme::Scheme;
use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// A private key of a scheme that signs here.
pub struct SigningKey {
    secret: Secret,
    public: PublicKey,
}

enum Secret {
    Ed25519(Box<ed25519_dalek::SigningKey>),
    Secp256k1(k256::ecdsa::SigningKey),
    Secp256r1(p256::ecdsa::SigningKey),
}

impl SigningKey {
    /// The key of these 32 secret bytes: the seed of Ed25519, or the scalar of an elliptic curve.
    ///
    /// # Errors
    /// [`Rule::KeyInvalid`] if there are not 32 bytes, the scalar is zero or beyond the order of the curve, or the
    /// scheme only checks signatures (RSA) or has none of its own (composite).
    pub fn from_seed(scheme: Scheme, seed: &[u8]) -> Result<SigningKey> {
        let refuse = |reason: &str| Refused::new(Rule::KeyInvalid, format!("no key of {scheme:?}: {reason}"));
        let seed: Zeroizing<[u8; 32]> =
            Zeroizing::new(seed.try_into().map_err(|_| refuse("32 secret bytes are needed"))?);
        let (secret, algorithm, raw) = match scheme {
            Scheme::Ed25519 => {
                let key = ed25519_dalek::SigningKey::from_bytes(&seed);
                let raw = key.verifying_key().to_bytes().to_vec();
                (Secret::Ed25519(Box::new(key)), KeyAlgorithm::Ed25519, raw)
            }
            Scheme::EcdsaSecp256k1 => {
                let key = k256::ecdsa::SigningKey::from_slice(seed.as_slice())
                    .map_err(|_| refuse("the scalar is zero or beyond the order"))?;
                let raw = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
                (Secret::Secp256k1(key), KeyAlgorithm::Secp256k1, raw)
            }
            Scheme::EcdsaSecp256r1 => {
                let key = p256::ecdsa::SigningKey::from_slice(seed.as_slice())
                    .map_err(|_| refuse("the scalar is zero or beyond the order"))?;
                let raw = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
                (Secret::Secp256r1(key), KeyAlgorithm::P256, raw)
            }
            Scheme::RsaSha256 | Scheme::Composite => return Err(refuse("this scheme only checks signatures")),
        };
        let public = PublicKey::from_raw(algorithm, &raw).map_err(|error| refuse(&error.to_string()))?;
        Ok(SigningKey { secret, public })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a message, in the form that [`verify`](super::verify) takes: always 64 bytes.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.secret {
            Secret::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
            Secret::Secp256k1(key) => {
                let signature: k256::ecdsa::Signature = key.sign(message);
                signature.normalize_s().to_bytes().to_vec()
            }
            Secret::Secp256r1(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.normalize_s().to_bytes().to_vec()
            }
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {:?})", self.public)
    }
}
