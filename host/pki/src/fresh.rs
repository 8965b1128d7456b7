//! Keys that an identity has besides its legal one: each is derived from the identity's own key and a nonce.
//!
//! HKDF with SHA-256 (RFC 5869) makes the 32 bytes of an Ed25519 seed of the seed of the identity's key and the nonce. So
//! there is no further secret to keep: whoever can open the identity's key has all its keys, on any host, and a copy of the
//! database or of a journal gives none of them away.

use maxhost_model::KeyAlgorithm;
use ring::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

use crate::error::{PkiError, Result};
use crate::keys::PrivateKey;

/// Part of what a key is derived from: another version would make other keys.
const VERSION: &[u8] = b"maxhost fresh key v1";
const SEED_LENGTH: usize = 32;
/// What stands before the seed in the PKCS #8 form of an Ed25519 key without its public half (RFC 8410).
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// Where the algorithm and the seed stand in either form: behind the lengths and the version, which differ.
const ALGORITHM: std::ops::Range<usize> = 5..16;

/// The seed inside of the PKCS #8 form of an Ed25519 key, with or without its public half.
fn seed(key: &PrivateKey) -> Option<&[u8]> {
    let pkcs8 = key.pkcs8();
    let is_seed_next = pkcs8.get(ALGORITHM)? == &PKCS8_HEAD[ALGORITHM];
    pkcs8.get(ALGORITHM.end..ALGORITHM.end + SEED_LENGTH).filter(|_| is_seed_next)
}

pub(crate) fn derive(identity: &PrivateKey, nonce: &[u8; 32]) -> Result<PrivateKey> {
    let failed = || PkiError::Crypto("fresh keys are derived from an Ed25519 key, and this is none".to_owned());
    let secret = seed(identity).ok_or_else(failed)?;
    let parts: [&[u8]; 1] = [nonce];
    let mut pkcs8 = Zeroizing::new(PKCS8_HEAD.to_vec());
    let mut derived = Zeroizing::new([0_u8; SEED_LENGTH]);
    Salt::new(HKDF_SHA256, VERSION)
        .extract(secret)
        .expand(&parts, HKDF_SHA256)
        .and_then(|okm| okm.fill(derived.as_mut()))
        .map_err(|_| failed())?;
    // At once in one piece of memory: what grows leaves copies behind.
    pkcs8.reserve_exact(SEED_LENGTH);
    pkcs8.extend_from_slice(derived.as_ref());
    PrivateKey::from_pkcs8(KeyAlgorithm::Ed25519, pkcs8).ok_or_else(failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn identity(seed: u8) -> PrivateKey {
        let pkcs8 = [&PKCS8_HEAD[..], &[seed; SEED_LENGTH]].concat();
        PrivateKey::from_pkcs8(KeyAlgorithm::Ed25519, Zeroizing::new(pkcs8)).unwrap()
    }

    /// Keys that are on ledgers must be derived by every later release as they were.
    #[test]
    fn a_key_and_a_nonce_give_the_same_key_for_ever() {
        let derived = derive(&identity(1), &[2; 32]).unwrap();
        assert_eq!(hex::encode(derived.public().raw()), GOLDEN);
        assert!(crate::keys::verify(derived.public(), b"message", &derived.sign(b"message").unwrap()));
    }

    /// Computed by another implementation of RFC 5869 and RFC 8032.
    const GOLDEN: &str = "2a5ceecad542856693e6adf381138f03ae7e9ba5dfea3492184902b23718a5f2";

    #[test]
    fn keys_of_other_identities_and_nonces_are_others() {
        let keys = [(1, 2), (1, 3), (2, 2)].map(|(seed, nonce)| derive(&identity(seed), &[nonce; 32]).unwrap());
        assert_ne!(keys[0].public(), keys[1].public());
        assert_ne!(keys[0].public(), keys[2].public());
        assert_ne!(keys[0].public(), identity(1).public());
    }

    #[test]
    fn a_key_with_its_public_half_gives_the_same_keys_and_one_of_another_scheme_none() {
        let made = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
        let short = [&PKCS8_HEAD[..], seed(&made).unwrap()].concat();
        let short = PrivateKey::from_pkcs8(KeyAlgorithm::Ed25519, Zeroizing::new(short)).unwrap();
        assert_eq!(short.public(), made.public());
        assert_eq!(derive(&short, &[5; 32]).unwrap().public(), derive(&made, &[5; 32]).unwrap().public());
        assert!(derive(&PrivateKey::generate(KeyAlgorithm::P256).unwrap(), &[5; 32]).is_err());
    }
}
