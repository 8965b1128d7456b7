//! Serde of bytes: a byte string in CBOR and other binary forms, hexadecimal text in JSON and TOML. For
//! `#[serde(with = "maxhost_model::octets")]`.

use std::fmt;
use std::marker::PhantomData;

use serde::{Deserializer, Serializer, de};

/// Writes bytes.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer, T: AsRef<[u8]>>(bytes: &T, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        serializer.serialize_str(&hex::encode(bytes))
    } else {
        serializer.serialize_bytes(bytes.as_ref())
    }
}

/// Reads bytes into anything that is made of them.
///
/// # Errors
/// Bad hexadecimal text, or bytes that the target refuses (a wrong length, say).
pub fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<Vec<u8>>,
{
    struct Octets<T>(PhantomData<T>);

    impl<T: TryFrom<Vec<u8>>> Octets<T> {
        fn make<E: de::Error>(bytes: Vec<u8>) -> Result<T, E> {
            let length = bytes.len();
            T::try_from(bytes).map_err(|_| E::custom(format!("{length} bytes are not what is expected here")))
        }
    }

    impl<T: TryFrom<Vec<u8>>> de::Visitor<'_> for Octets<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes, or their hexadecimal text")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            Octets::make(hex::decode(text).map_err(E::custom)?)
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<T, E> {
            Octets::make(bytes.to_vec())
        }

        fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<T, E> {
            Octets::make(bytes)
        }
    }

    if deserializer.is_human_readable() {
        deserializer.deserialize_str(Octets(PhantomData))
    } else {
        deserializer.deserialize_byte_buf(Octets(PhantomData))
    }
}
