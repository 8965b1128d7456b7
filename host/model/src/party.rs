//! Who takes part: public keys, and the names that own them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use der::asn1::{AnyRef, BitStringRef};
use der::{Decode, Encode, Sequence, Tag, Tagged};
use serde::{Deserialize, Serialize};

use crate::hash::SecureHash;
use crate::invalid::Invalid;
use crate::octets;
use crate::x500::X500Name;

/// The signature schemes in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyAlgorithm {
    /// Ed25519 (RFC 8410): legal identities.
    Ed25519,
    /// ECDSA over P-256, which is secp256r1, with SHA-256 (RFC 5480): certificate authorities, TLS and signers.
    P256,
    /// ECDSA over secp256k1 with SHA-256: signers.
    Secp256k1,
    /// RSA with SHA-256 (RFC 8017): signers whose signatures are checked; no keys of this scheme are made here.
    Rsa,
    /// Several keys with weights and a threshold, which signs by the signatures of its parts.
    Composite,
}

/// The longest public key, in bytes of DER: room for a composite key of a few hundred parts.
pub const MAX_PUBLIC_KEY: usize = 64 * 1024;

impl KeyAlgorithm {
    const ALL: [KeyAlgorithm; 5] = [
        KeyAlgorithm::Ed25519,
        KeyAlgorithm::P256,
        KeyAlgorithm::Secp256k1,
        KeyAlgorithm::Rsa,
        KeyAlgorithm::Composite,
    ];

    /// The DER of the `AlgorithmIdentifier` (RFC 5280), as it stands in every key of this scheme.
    #[must_use]
    pub fn identifier(self) -> &'static [u8] {
        match self {
            KeyAlgorithm::Ed25519 => &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70],
            KeyAlgorithm::P256 => &[
                0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
                0x3d, 0x03, 0x01, 0x07,
            ],
            KeyAlgorithm::Secp256k1 => &[
                0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
                0x0a,
            ],
            KeyAlgorithm::Rsa => {
                &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00]
            }
            // Corda's own object identifier, 2.25.30086077608615255153862931087626791002.
            KeyAlgorithm::Composite => &[
                0x30, 0x15, 0x06, 0x13, 0x69, 0xad, 0xa2, 0xaf, 0x89, 0xd5, 0xb8, 0xe2, 0xaf, 0xf3, 0x8d, 0x93, 0xac,
                0x9d, 0xe6, 0x96, 0x9b, 0xd0, 0x5a,
            ],
        }
    }

    /// The length of the key's own bytes, where the scheme has only one.
    fn key_length(self) -> Option<usize> {
        match self {
            KeyAlgorithm::Ed25519 => Some(32),
            KeyAlgorithm::P256 | KeyAlgorithm::Secp256k1 => Some(65),
            KeyAlgorithm::Rsa | KeyAlgorithm::Composite => None,
        }
    }
}

/// `SubjectPublicKeyInfo` (RFC 5280).
#[derive(Sequence)]
struct Spki<'a> {
    algorithm: AnyRef<'a>,
    key: BitStringRef<'a>,
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
        split(&bytes).ok_or_else(|| {
            Invalid::value("a public key", "not the DER of an Ed25519, P-256, secp256k1, RSA or composite key")
        })?;
        Ok(SpkiBytes(bytes.into()))
    }
}

fn split(der: &[u8]) -> Option<(KeyAlgorithm, &[u8])> {
    if der.len() > MAX_PUBLIC_KEY {
        return None;
    }
    let spki = Spki::from_der(der).ok()?;
    let key = spki.key.as_bytes()?;
    // Both are DER, which has one form for each value, so comparing tag and content compares the whole.
    let algorithm = KeyAlgorithm::ALL.into_iter().find(|algorithm| {
        spki.algorithm.tag() == Tag::Sequence && algorithm.identifier().get(2..) == Some(spki.algorithm.value())
    })?;
    let fits = algorithm.key_length().is_none_or(|length| key.len() == length);
    (fits && !key.is_empty()).then_some((algorithm, key))
}

impl PublicKey {
    /// From the DER of a `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    /// [`Invalid::Value`] unless it is a key of one of the schemes of [`KeyAlgorithm`], in DER. Points are
    /// uncompressed. Whether a point lies on its curve is found out when a signature is checked.
    pub fn from_spki(der: &[u8]) -> Result<PublicKey, Invalid> {
        SpkiBytes::try_from(der.to_vec()).map(PublicKey)
    }

    /// From the key's own bytes: 32 of Ed25519, 65 of an uncompressed point, or the DER inside of the other schemes.
    ///
    /// # Errors
    /// [`Invalid::Value`] if the length is not that of the scheme, or beyond [`MAX_PUBLIC_KEY`].
    pub fn from_raw(algorithm: KeyAlgorithm, key: &[u8]) -> Result<PublicKey, Invalid> {
        let invalid = |error: der::Error| Invalid::value("a public key", error.to_string());
        let spki = Spki {
            algorithm: AnyRef::from_der(algorithm.identifier()).map_err(invalid)?,
            key: BitStringRef::from_bytes(key).map_err(invalid)?,
        };
        SpkiBytes::try_from(spki.to_der().map_err(invalid)?).map(PublicKey)
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

/// A legal entity: a name and the key that signs for it. Parties are equal when their keys are (docs/behaviour.md 8.1).
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
        for (algorithm, length) in
            [(KeyAlgorithm::Ed25519, 32), (KeyAlgorithm::P256, 65), (KeyAlgorithm::Secp256k1, 65)]
        {
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
    fn keys_without_a_fixed_length_are_bounded() {
        for algorithm in [KeyAlgorithm::Rsa, KeyAlgorithm::Composite] {
            let key = PublicKey::from_raw(algorithm, &[7; 300]).unwrap();
            assert_eq!((key.algorithm(), key.raw()), (algorithm, &[7; 300][..]));
            assert_eq!(PublicKey::from_spki(key.spki()).unwrap(), key);
            assert!(PublicKey::from_raw(algorithm, &[]).is_err());
            assert!(PublicKey::from_raw(algorithm, &[7; MAX_PUBLIC_KEY]).is_err());
            let longer = [key.spki(), &[0]].concat();
            assert!(PublicKey::from_spki(&longer).is_err());
        }
        // The same length in a form that is longer than need be is no DER.
        let key = PublicKey::from_raw(KeyAlgorithm::Ed25519, &[7; 32]).unwrap();
        let long_form = [&[0x30, 0x81, 0x2a], &key.spki()[2..]].concat();
        assert!(PublicKey::from_spki(&long_form).is_err());
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
