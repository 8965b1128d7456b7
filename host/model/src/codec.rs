//! CBOR of our own types: strict when reading, because what is read was hashed or signed by somebody.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::invalid::Invalid;

/// How deep CBOR and JSON may be nested.
pub const MAX_DEPTH: usize = 128;

/// Encodes a value.
///
/// # Errors
/// [`Invalid::Cbor`] if the value's own `Serialize` refuses.
pub fn to_cbor<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Invalid> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes)
        .map_err(|error| Invalid::Cbor { what: type_name::<T>(), reason: error.to_string() })?;
    Ok(bytes)
}

/// Decodes one value that fills all the bytes.
///
/// # Errors
/// [`Invalid::Cbor`] if they are malformed, nested deeper than [`MAX_DEPTH`], of another type, or more than one value.
pub fn from_cbor<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Invalid> {
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH)
        .map_err(|error| Invalid::Cbor { what: type_name::<T>(), reason: describe(&error) })?;
    if !rest.is_empty() {
        let reason = format!("{} bytes follow the value", rest.len());
        return Err(Invalid::Cbor { what: type_name::<T>(), reason });
    }
    Ok(value)
}

/// The words of ciborium's errors, whose own text is a debug print.
pub(crate) fn describe<E: std::fmt::Debug>(error: &ciborium::de::Error<E>) -> String {
    match error {
        ciborium::de::Error::Io(_) => "they end too early".to_owned(),
        ciborium::de::Error::Syntax(at) => format!("malformed at byte {at}"),
        ciborium::de::Error::Semantic(Some(at), text) => format!("{text} (at byte {at})"),
        ciborium::de::Error::Semantic(None, text) => text.clone(),
        ciborium::de::Error::RecursionLimitExceeded => format!("nested deeper than {MAX_DEPTH}"),
    }
}

fn type_name<T: ?Sized>() -> String {
    let full = std::any::type_name::<T>();
    // `Vec<a::b::C>` and the like stay as they are; plain paths lose their modules.
    if full.contains('<') { full.to_owned() } else { full.rsplit("::").next().unwrap_or(full).to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reading_is_strict() {
        let mut bytes = to_cbor(&vec![1u32, 2]).unwrap();
        assert_eq!(from_cbor::<Vec<u32>>(&bytes).unwrap(), [1, 2]);
        assert!(from_cbor::<Vec<String>>(&bytes).is_err());
        assert!(from_cbor::<Vec<u32>>(&bytes[..2]).unwrap_err().to_string().contains("end too early"));
        bytes.push(0);
        assert!(from_cbor::<Vec<u32>>(&bytes).unwrap_err().to_string().contains("1 bytes follow"));
    }
}
