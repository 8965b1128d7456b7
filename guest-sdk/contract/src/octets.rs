//! Serde of bytes: a byte string in CBOR.

use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use serde::{Deserializer, Serializer, de};

/// Writes bytes.
pub(crate) fn serialize<S: Serializer>(bytes: impl AsRef<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes.as_ref())
}

/// Reads bytes into what is made of them.
pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<Vec<u8>>>(deserializer: D) -> Result<T, D::Error> {
    struct Bytes<T>(PhantomData<T>);

    impl<T: TryFrom<Vec<u8>>> de::Visitor<'_> for Bytes<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<T, E> {
            self.visit_byte_buf(bytes.to_vec())
        }

        fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<T, E> {
            T::try_from(bytes).map_err(|_| E::custom("bytes of another length"))
        }
    }

    deserializer.deserialize_byte_buf(Bytes(PhantomData))
}
