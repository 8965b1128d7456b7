//! Hashes of the ledger: SHA-256, the double hash of leaves, the two hashes with a meaning, and hashes of other
//! algorithms as text (behaviour.md 10.3, 10.4).

use std::fmt;
use std::str::FromStr;

use maxhost_model::SecureHash;

use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// The hash that pads a Merkle tree to a power of two: all bits zero.
pub const ZERO: SecureHash = SecureHash::from_bytes([0; 32]);

/// The hash that stands for an absent component group: all bits one.
pub const ONES: SecureHash = SecureHash::from_bytes([0xff; 32]);

/// The hash of an inner node of a Merkle tree: H(left ‖ right).
#[must_use]
pub fn node(left: &SecureHash, right: &SecureHash) -> SecureHash {
    let mut both = [0; 64];
    both[..32].copy_from_slice(left.as_bytes());
    both[32..].copy_from_slice(right.as_bytes());
    SecureHash::of(&both)
}

/// The double hash H(H(bytes)).
#[must_use]
pub fn twice(bytes: &[u8]) -> SecureHash {
    SecureHash::of(SecureHash::of(bytes).as_bytes())
}

/// A digest algorithm that a transaction may name in its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DigestAlgorithm {
    /// SHA-256 (FIPS 180-4): the only one in use.
    Sha256,
}

impl DigestAlgorithm {
    /// Its name in a header and before the colon of a hash's text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DigestAlgorithm::Sha256 => "SHA-256",
        }
    }

    /// The algorithm of this name.
    ///
    /// # Errors
    /// [`Rule::HashUnsupported`].
    pub fn parse(name: &str) -> Result<DigestAlgorithm> {
        if name == DigestAlgorithm::Sha256.name() {
            return Ok(DigestAlgorithm::Sha256);
        }
        let shown: String = name.chars().take(32).collect();
        Err(Refused::new(Rule::HashUnsupported, format!("the digest algorithm '{shown}' is not in use here"))
            .detail("algorithm", shown))
    }
}

/// A transaction id as people write it: 64 hexadecimal digits, or those after the name of an algorithm and a colon.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TransactionIdText(pub SecureHash);

impl FromStr for TransactionIdText {
    type Err = Refused;

    fn from_str(text: &str) -> Result<TransactionIdText> {
        let digits = match text.split_once(':') {
            Some((algorithm, digits)) => {
                DigestAlgorithm::parse(algorithm)?;
                digits
            }
            None => text,
        };
        let hash =
            digits.parse().map_err(|error| Refused::new(Rule::ValueInvalid, format!("transaction id: {error}")))?;
        Ok(TransactionIdText(hash))
    }
}

impl fmt::Display for TransactionIdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_are_read_with_and_without_their_algorithm() {
        let hash = SecureHash::of(b"x");
        assert_eq!(hash.to_string().parse::<TransactionIdText>().unwrap().0, hash);
        assert_eq!(format!("SHA-256:{hash}").parse::<TransactionIdText>().unwrap().0, hash);
        let other = format!("BLAKE2:{hash}").parse::<TransactionIdText>().unwrap_err();
        assert_eq!(other.rule(), Rule::HashUnsupported);
        assert_eq!("abc".parse::<TransactionIdText>().unwrap_err().rule(), Rule::ValueInvalid);
    }

    #[test]
    fn hashes_are_those_of_the_standard() {
        // SHA-256 of 64 zero bytes, and of the hash of nothing.
        assert_eq!(node(&ZERO, &ZERO).to_string(), "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b");
        assert_eq!(twice(b"").to_string(), "5df6e0e2761359d30a8275058e299fcc0381534545f55cf43e41983f5d4c9456");
    }
}
