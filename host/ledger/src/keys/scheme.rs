//! The signature schemes of the ledger, and the one function that checks a signature (behaviour.md 10.11).
//!
//! A verdict on a signature is part of the verdict on a transaction, so each scheme has exactly one rule on every host
//! and in every guest: strict Ed25519, and ECDSA with the lower of the two values of s only. A batch of signatures is
//! never checked as a whole, because that accepts some that each alone would be refused.

use maxhost_model::{KeyAlgorithm, PublicKey};
use rsa::pkcs1::DecodeRsaPublicKey;
use rsa::traits::PublicKeyParts;
use sha2::Sha256;

use super::composite::CompositeKey;
use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// The smallest RSA modulus that is taken, in bits.
const RSA_MIN_BITS: u32 = 2048;
/// The largest RSA modulus that is taken, in bits: a bound on the time that one signature costs.
const RSA_MAX_BITS: u32 = 4096;

/// A signature scheme, numbered as in Corda.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// RSA with SHA-256 and PKCS #1 v1.5 padding (RFC 8017): checked only, 2048 to 4096 bits.
    RsaSha256,
    /// ECDSA over secp256k1 with SHA-256; 64 bytes of r and s.
    EcdsaSecp256k1,
    /// ECDSA over secp256r1, which is P-256, with SHA-256; 64 bytes of r and s.
    EcdsaSecp256r1,
    /// Ed25519 (RFC 8032), the default.
    Ed25519,
    /// Several keys with weights: signs by the signatures of its parts.
    Composite,
}

impl Scheme {
    /// All schemes.
    pub const ALL: [Scheme; 5] =
        [Scheme::RsaSha256, Scheme::EcdsaSecp256k1, Scheme::EcdsaSecp256r1, Scheme::Ed25519, Scheme::Composite];

    /// Its number in signature metadata. Five was SPHINCS, which is gone.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Scheme::RsaSha256 => 1,
            Scheme::EcdsaSecp256k1 => 2,
            Scheme::EcdsaSecp256r1 => 3,
            Scheme::Ed25519 => 4,
            Scheme::Composite => 6,
        }
    }

    /// The scheme of this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Scheme> {
        Scheme::ALL.into_iter().find(|scheme| scheme.number() == number)
    }

    /// The scheme of this key.
    #[must_use]
    pub fn of(key: &PublicKey) -> Scheme {
        match key.algorithm() {
            KeyAlgorithm::Ed25519 => Scheme::Ed25519,
            KeyAlgorithm::P256 => Scheme::EcdsaSecp256r1,
            KeyAlgorithm::Secp256k1 => Scheme::EcdsaSecp256k1,
            KeyAlgorithm::Rsa => Scheme::RsaSha256,
            KeyAlgorithm::Composite => Scheme::Composite,
        }
    }
}

/// Checks that a key is one that could ever verify a signature: its point is on the curve and not a weak one, its
/// modulus within bounds, its composite tree within the rules.
///
/// # Errors
/// [`Rule::KeyInvalid`], or [`Rule::CompositeInvalid`] for a composite key.
pub fn check_key(key: &PublicKey) -> Result<()> {
    let refuse = |reason: &str| Err(Refused::new(Rule::KeyInvalid, format!("key {key}: {reason}")).detail("key", key));
    match key.algorithm() {
        KeyAlgorithm::Ed25519 if ed25519(key).is_none() => refuse("it is no point of the curve, or a weak one"),
        KeyAlgorithm::P256 if p256::ecdsa::VerifyingKey::from_sec1_bytes(key.raw()).is_err() => {
            refuse("it is no point of secp256r1")
        }
        KeyAlgorithm::Secp256k1 if k256::ecdsa::VerifyingKey::from_sec1_bytes(key.raw()).is_err() => {
            refuse("it is no point of secp256k1")
        }
        KeyAlgorithm::Rsa if rsa_key(key).is_none() => refuse("it is no RSA key of 2048 to 4096 bits"),
        KeyAlgorithm::Composite => CompositeKey::from_public_key(key).map(drop),
        _ => Ok(()),
    }
}

/// Whether a signature is this key's over this message. False for a composite key, which has no signatures of its own.
///
/// Ed25519 is checked as `verify_strict` of its library does: no weak keys, no small-order R, canonical encodings only.
/// ECDSA signatures are 64 bytes of r and s with the lower s, so that nobody can make a second one of a first.
#[must_use]
pub fn verify(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    verify_with_library(key, message, signature).unwrap_or(false)
}

fn verify_with_library(key: &PublicKey, message: &[u8], signature: &[u8]) -> Option<bool> {
    use rsa::signature::Verifier;
    let verdict = match key.algorithm() {
        KeyAlgorithm::Ed25519 => {
            let signature = ed25519_dalek::Signature::from_slice(signature).ok()?;
            ed25519(key)?.verify_strict(message, &signature).is_ok()
        }
        KeyAlgorithm::P256 => {
            let signature = p256::ecdsa::Signature::from_slice(signature).ok()?;
            let low = signature.normalize_s() == signature;
            low && p256::ecdsa::VerifyingKey::from_sec1_bytes(key.raw()).ok()?.verify(message, &signature).is_ok()
        }
        KeyAlgorithm::Secp256k1 => {
            let signature = k256::ecdsa::Signature::from_slice(signature).ok()?;
            let low = signature.normalize_s() == signature;
            low && k256::ecdsa::VerifyingKey::from_sec1_bytes(key.raw()).ok()?.verify(message, &signature).is_ok()
        }
        KeyAlgorithm::Rsa => {
            let signature = rsa::pkcs1v15::Signature::try_from(signature).ok()?;
            rsa::pkcs1v15::VerifyingKey::<Sha256>::new(rsa_key(key)?).verify(message, &signature).is_ok()
        }
        KeyAlgorithm::Composite => false,
    };
    Some(verdict)
}

fn ed25519(key: &PublicKey) -> Option<ed25519_dalek::VerifyingKey> {
    let bytes: &[u8; 32] = key.raw().try_into().ok()?;
    if !is_canonical_y(bytes) {
        return None;
    }
    ed25519_dalek::VerifyingKey::from_bytes(bytes).ok().filter(|parsed| !parsed.is_weak())
}

/// Whether y is below the prime 2^255 - 19 (RFC 8032, 5.1.3): the library takes y beyond it too, as a second form of the
/// same point. The other points with two forms, those with x = 0, are weak.
fn is_canonical_y(bytes: &[u8; 32]) -> bool {
    let [lowest, middle @ .., highest] = bytes;
    *lowest < 0xed || highest & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff)
}

fn rsa_key(key: &PublicKey) -> Option<rsa::PublicKey> {
    let parsed = rsa::PublicKey::from_pkcs1_der(key.raw()).ok()?;
    (RSA_MIN_BITS..=RSA_MAX_BITS).contains(&parsed.n().bit_width()).then_some(parsed)
}
