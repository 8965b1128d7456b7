//! Who takes part: public keys, and the names that own them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::hash::SecureHash;
use crate::invalid::Invalid;
use crate::octets;
use crate::x500::X500Name;

/// The signature schemes in use (RFC 8410 and RFC 5480 give the DER that stands before the key itself).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    /// Ed25519: legal identities.
    Ed25519,
    /// ECDSA over P-256 with SHA-256: certificate authorities and TLS.
    P256,
}

impl KeyAlgorithm {
    const ALL: [KeyAlgorithm; 2] = [KeyAlgorithm::Ed25519, KeyAlgorithm::P256];

    fn prefix(self) -> &'static [u8] {
        match self {
            KeyAlgorithm::Ed25519 => &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00],
            KeyAlgorithm::P256 => &[
                0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
                0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
            ],
        }
    }

    fn key_length(self) -> usize {
        match self {
            KeyAlgorithm::Ed25519 => 32,
            KeyAlgorithm::P256 => 65,
        }
    }
}

/// A public key: the DER of its `SubjectPublicKeyInfo` (RFC 5280), shared by all clones.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicKey(#[serde(with = "octets")] SpkiBytes);

/// The bytes of a key, of a scheme we know.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct SpkiBytes(Arc<[u8]>);

impl AsRef<[u8]> for SpkiBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for SpkiBytes {
    type Error = Invalid;

    fn try_from(bytes: Vec<u8>) -> Result<SpkiBytes, Invalid> {
        split(&bytes).ok_or_else(|| Invalid::value("a public key", "neither an Ed25519 nor a P-256 key in DER"))?;
        Ok(SpkiBytes(bytes.into()))
    }
}

fn split(der: &[u8]) -> Option<(KeyAlgorithm, &[u8])> {
    KeyAlgorithm::ALL.into_iter().find_map(|algorithm| {
        let key = der.strip_prefix(algorithm.prefix())?;
        (key.len() == algorithm.key_length()).then_some((algorithm, key))
    })
}

impl PublicKey {
    /// From the DER of a `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    /// [`Invalid::Value`] unless it is an Ed25519 or an uncompressed P-256 key.
    pub fn from_spki(der: &[u8]) -> Result<PublicKey, Invalid> {
        SpkiBytes::try_from(der.to_vec()).map(PublicKey)
    }

    /// From the key's own bytes: 32 of Ed25519, or 65 of an uncompressed P-256 point.
    ///
    /// # Errors
    /// [`Invalid::Value`] if the length is not that of the scheme.
    pub fn from_raw(algorithm: KeyAlgorithm, key: &[u8]) -> Result<PublicKey, Invalid> {
        SpkiBytes::try_from([algorithm.prefix(), key].concat()).map(PublicKey)
    }

    /// The DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.0.0
    }

    /// The signature scheme.
    #[must_use]
    pub fn algorithm(&self) -> KeyAlgorithm {
        split(self.spki()).map_or(KeyAlgorithm::Ed25519, |(algorithm, _)| algorithm)
    }

    /// The key's own bytes, without the DER around them.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        split(self.spki()).map_or(&[], |(_, key)| key)
    }

    /// SHA-256 of the DER: what people compare and what queues are named after.
    #[must_use]
    pub fn fingerprint(&self) -> SecureHash {
        SecureHash::of(self.spki())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.fingerprint(), f)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.algorithm(), self.fingerprint())
    }
}

/// A legal entity: a name and the key that signs for it. Parties are equal when their keys are (spec 7.2).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Party {
    /// Its name.
    pub name: X500Name,
    /// The key it signs with.
    pub owning_key: PublicKey,
}

impl Party {
    /// A name with its key.
    #[must_use]
    pub fn new(name: X500Name, owning_key: PublicKey) -> Party {
        Party { name, owning_key }
    }
}

impl PartialEq for Party {
    fn eq(&self, other: &Party) -> bool {
        self.owning_key == other.owning_key
    }
}

impl Eq for Party {}

impl Hash for Party {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.owning_key.hash(state);
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.name, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{from_cbor, to_cbor};

    #[test]
    fn keys_know_their_scheme_and_round_trip() {
        for (algorithm, length) in [(KeyAlgorithm::Ed25519, 32), (KeyAlgorithm::P256, 65)] {
            let key = PublicKey::from_raw(algorithm, &vec![7; length]).unwrap();
            assert_eq!((key.algorithm(), key.raw().len()), (algorithm, length));
            assert_eq!(PublicKey::from_spki(key.spki()).unwrap(), key);
            assert_eq!(from_cbor::<PublicKey>(&to_cbor(&key).unwrap()).unwrap(), key);
            assert_eq!(serde_json::from_value::<PublicKey>(serde_json::to_value(&key).unwrap()).unwrap(), key);
            assert_eq!(key.to_string().len(), 64);
            assert!(PublicKey::from_raw(algorithm, &vec![7; length + 1]).is_err());
        }
        assert!(PublicKey::from_spki(b"").is_err());
        assert!(from_cbor::<PublicKey>(&to_cbor(&"00").unwrap()).is_err());
    }

    #[test]
    fn parties_are_equal_by_key() {
        let key = |byte| PublicKey::from_raw(KeyAlgorithm::Ed25519, &[byte; 32]).unwrap();
        let alice: X500Name = "O=Alice, L=London, C=GB".parse().unwrap();
        let bob: X500Name = "O=Bob, L=London, C=GB".parse().unwrap();
        assert_eq!(Party::new(alice.clone(), key(1)), Party::new(bob, key(1)));
        assert_ne!(Party::new(alice.clone(), key(1)), Party::new(alice, key(2)));
    }
}
