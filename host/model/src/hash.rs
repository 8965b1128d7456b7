//! Hashes as the ledger knows them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::invalid::Invalid;
use crate::octets;

/// A SHA-256 hash. As text: 64 hexadecimal digits, written in lower case, read in any.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecureHash(#[serde(with = "octets")] [u8; 32]);

impl SecureHash {
    /// The hash of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> SecureHash {
        SecureHash(Sha256::digest(bytes).into())
    }

    /// The hash of these pieces, one behind the other.
    ///
    /// # Errors
    /// The first that comes in place of a piece.
    pub fn of_pieces<E>(pieces: impl IntoIterator<Item = Result<Vec<u8>, E>>) -> Result<SecureHash, E> {
        let mut hasher = Sha256::new();
        for piece in pieces {
            hasher.update(piece?);
        }
        Ok(SecureHash(hasher.finalize().into()))
    }

    /// A hash that was computed elsewhere.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> SecureHash {
        SecureHash(bytes)
    }

    /// Its 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for SecureHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for SecureHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SecureHash {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<SecureHash, Invalid> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| Invalid::value("a SHA-256 hash", "expected 64 hexadecimal digits"))?;
        Ok(SecureHash(bytes))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{from_cbor, to_cbor};

    #[test]
    fn a_hash_round_trips() {
        let hash = SecureHash::of(b"abc");
        assert_eq!(hash.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hash.to_string().to_uppercase().parse::<SecureHash>().unwrap(), hash);
        assert_eq!(serde_json::from_str::<SecureHash>(&serde_json::to_string(&hash).unwrap()).unwrap(), hash);
        let cbor = to_cbor(&hash).unwrap();
        assert_eq!(cbor.len(), 34);
        assert_eq!(from_cbor::<SecureHash>(&cbor).unwrap(), hash);
        assert!(from_cbor::<SecureHash>(&to_cbor(&"abcd").unwrap()).is_err());
        for bad in ["", "ba78", &"zz".repeat(32)] {
            assert!(bad.parse::<SecureHash>().is_err());
        }
    }
}
