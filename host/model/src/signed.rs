//! Data that is hashed or signed as the bytes it came as: it is never encoded again to check it.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::{from_cbor, to_cbor};
use crate::hash::SecureHash;
use crate::invalid::Invalid;
use crate::octets;
use crate::party::PublicKey;

/// A value and the CBOR it was built as or read from.
#[derive(Clone)]
pub struct Encoded<T> {
    value: T,
    bytes: Arc<[u8]>,
}

impl<T: Serialize> Encoded<T> {
    /// Encodes a value, once and for all.
    ///
    /// # Errors
    /// [`Invalid::Cbor`] if it cannot be encoded.
    pub fn new(value: T) -> Result<Encoded<T>, Invalid> {
        let bytes = to_cbor(&value)?.into();
        Ok(Encoded { value, bytes })
    }
}

impl<T: DeserializeOwned> Encoded<T> {
    /// Decodes bytes and keeps them.
    ///
    /// # Errors
    /// [`Invalid::Cbor`] if they are not those of the type.
    pub fn decode(bytes: &[u8]) -> Result<Encoded<T>, Invalid> {
        Ok(Encoded { value: from_cbor(bytes)?, bytes: bytes.into() })
    }
}

impl<T> Encoded<T> {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the bytes.
    #[must_use]
    pub fn hash(&self) -> SecureHash {
        SecureHash::of(&self.bytes)
    }

    /// The value alone.
    #[must_use]
    pub fn into_value(self) -> T {
        self.value
    }
}

impl<T> Deref for Encoded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Encoded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T> PartialEq for Encoded<T> {
    fn eq(&self, other: &Encoded<T>) -> bool {
        self.bytes == other.bytes
    }
}

impl<T> Eq for Encoded<T> {}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySignature {
    /// The key that it verifies with.
    pub by: PublicKey,
    /// The signature, in the form of the key's scheme.
    #[serde(with = "octets")]
    pub bytes: Vec<u8>,
}

/// The CBOR of a `T` with signatures over it. Plain data: nothing about it is verified.
#[derive(Clone, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Signed<T> {
    /// What the signatures are over.
    #[serde(with = "octets")]
    pub raw: Vec<u8>,
    /// The signatures.
    pub signatures: Vec<KeySignature>,
    #[serde(skip)]
    of: PhantomData<fn() -> T>,
}

impl<T> Signed<T> {
    /// Joins data and signatures.
    #[must_use]
    pub fn new(raw: Vec<u8>, signatures: Vec<KeySignature>) -> Signed<T> {
        Signed { raw, signatures, of: PhantomData }
    }

    /// SHA-256 of what was signed.
    #[must_use]
    pub fn hash(&self) -> SecureHash {
        SecureHash::of(&self.raw)
    }
}

impl<T: DeserializeOwned> Signed<T> {
    /// The value, whoever signed it.
    ///
    /// # Errors
    /// [`Invalid::Cbor`] if the bytes are not those of the type.
    pub fn decode_unverified(&self) -> Result<Encoded<T>, Invalid> {
        Encoded::decode(&self.raw)
    }
}

impl<T> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").field("hash", &self.hash()).field("signatures", &self.signatures.len()).finish()
    }
}
