//! Hashes and linear ids.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::octets;

/// SHA-256 of something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(
    /// Its bytes.
    pub [u8; 32],
);

impl Hash {
    /// The hash of 64 hexadecimal digits in lower case, as it is displayed.
    pub(crate) fn from_hex(text: &str) -> Option<Hash> {
        let digits = text.as_bytes();
        let mut hash = [0; 32];
        if digits.len() != 2 * hash.len() {
            return None;
        }
        for (byte, two) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(*two.first()?)? << 4 | digit(*two.last()?)?;
        }
        Some(Hash(hash))
    }
}

impl TryFrom<Vec<u8>> for Hash {
    type Error = Vec<u8>;

    fn try_from(bytes: Vec<u8>) -> Result<Hash, Vec<u8>> {
        bytes.try_into().map(Hash)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        octets::serialize(self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        octets::deserialize(deserializer)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What stays the same from version to version of one thing: a UUID. In data it is text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinearId([u8; 16]);

impl LinearId {
    /// The id of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> LinearId {
        LinearId(bytes)
    }

    /// A random id (RFC 9562, version 4) from these random bytes.
    #[must_use]
    pub const fn from_random(mut bytes: [u8; 16]) -> LinearId {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        LinearId(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for LinearId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for LinearId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no UUID in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseLinearIdError(String);

impl fmt::Display for ParseLinearIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is no UUID in lower case", self.0)
    }
}

impl core::error::Error for ParseLinearIdError {}

impl FromStr for LinearId {
    type Err = ParseLinearIdError;

    fn from_str(text: &str) -> Result<LinearId, ParseLinearIdError> {
        parse(text).ok_or_else(|| ParseLinearIdError(text.chars().take(64).collect()))
    }
}

fn parse(text: &str) -> Option<LinearId> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 {
        return None;
    }
    let mut id = [0_u8; 16];
    let mut at = 0;
    for (number, byte) in id.iter_mut().enumerate() {
        if matches!(number, 4 | 6 | 8 | 10) {
            if bytes.get(at) != Some(&b'-') {
                return None;
            }
            at += 1;
        }
        *byte = digit(*bytes.get(at)?)? << 4 | digit(*bytes.get(at + 1)?)?;
        at += 2;
    }
    Some(LinearId(id))
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

impl Serialize for LinearId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LinearId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LinearId, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn ids_have_one_text() {
        let id = LinearId::from_random([0xff; 16]);
        let text = "ffffffff-ffff-4fff-bfff-ffffffffffff";
        assert_eq!(id.to_string(), text);
        assert_eq!(text.parse::<LinearId>().unwrap(), id);
        for bad in ["", &text.to_uppercase(), &text.replace('-', ""), &format!("{text}0"), &text.replace("-4", "4-")] {
            assert!(bad.parse::<LinearId>().is_err(), "{bad}");
        }
    }
}
