//! CBOR of our own types. Reading takes one value that fills all the bytes, because what is read was hashed or signed by
//! somebody.

use maxhost_cbor::Error;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::invalid::Invalid;

/// Encodes a value.
///
/// # Errors
/// [`Invalid::Cbor`] if the value's own `Serialize` refuses, or the value is nested deeper than
/// [`maxhost_cbor::MAX_DEPTH`].
pub fn to_cbor<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Invalid> {
    maxhost_cbor::to_vec(value).map_err(|error| refused::<T>(&error))
}

/// Decodes one value that fills all the bytes.
///
/// # Errors
/// [`Invalid::Cbor`] if they are malformed, nested deeper than [`maxhost_cbor::MAX_DEPTH`], of another type, or more than
/// one value.
pub fn from_cbor<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Invalid> {
    maxhost_cbor::from_slice(bytes).map_err(|error| refused::<T>(&error))
}

/// Whether bytes are one well-formed value of any type (RFC 8949 §5.3.1), nested no deeper than
/// [`maxhost_cbor::MAX_DEPTH`].
///
/// # Errors
/// [`Invalid::Cbor`] if they are not.
pub fn check_cbor(bytes: &[u8]) -> Result<(), Invalid> {
    maxhost_cbor::check_well_formed(bytes, maxhost_cbor::Limits::NONE)
        .map_err(|error| Invalid::Cbor { what: "any value".to_owned(), reason: error.to_string() })
}

fn refused<T: ?Sized>(error: &Error) -> Invalid {
    Invalid::Cbor { what: type_name::<T>(), reason: error.to_string() }
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
    use crate::{
        ErrorId, FlowError, KeyAlgorithm, KeySignature, NetworkParameters, NotaryInfo, Party, PublicKey, Signed,
    };

    #[test]
    fn reading_is_strict() {
        let mut bytes = to_cbor(&vec![1u32, 2]).unwrap();
        assert_eq!(from_cbor::<Vec<u32>>(&bytes).unwrap(), [1, 2]);
        let error = from_cbor::<Vec<String>>(&bytes).unwrap_err().to_string();
        assert!(error.contains("expected a string (at byte 1)"), "{error}");
        let error = from_cbor::<Vec<u32>>(&bytes[..2]).unwrap_err().to_string();
        assert!(error.contains("end after 2, in the middle of a value"), "{error}");
        bytes.push(0);
        assert!(from_cbor::<Vec<u32>>(&bytes).unwrap_err().to_string().contains("1 bytes follow"));
    }

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_raw(KeyAlgorithm::Ed25519, &[byte; 32]).unwrap()
    }

    /// Bytes that the first release wrote, into journals and files and under signatures: they are read, and what is written
    /// is still the same.
    #[test]
    fn bytes_of_the_first_release_are_read_and_written() {
        let party = Party::new("O=Alice, L=London, C=GB".parse().unwrap(), key(9));
        let notary = NotaryInfo { party, validating: true };
        let mut parameters = NetworkParameters::initial(vec![notary], 1_700_000_000_000);
        parameters.package_ownership.insert("com.example".into(), key(3));
        let bytes = hex::decode(concat!(
            "a978186d696e696d756d5f706c6174666f726d5f76657273696f6e188c686e6f74617269657381a2657061727479a2646e616d6577",
            "4f3d416c6963652c204c3d4c6f6e646f6e2c20433d47426a6f776e696e675f6b6579582c302a300506032b65700321000909090909",
            "0909090909090909090909090909090909090909090909090909096a76616c69646174696e67f5706d61785f6d6573736167655f73",
            "697a651a00a00000746d61785f7472616e73616374696f6e5f73697a651a00a00000706d6f6469666965645f74696d655f6d731b00",
            "00018bcfe568006565706f636801782477686974656c69737465645f636f6e74726163745f696d706c656d656e746174696f6e73a0",
            "706576656e745f686f72697a6f6e5f6d731a9a7ec800717061636b6167655f6f776e657273686970a16b636f6d2e6578616d706c65",
            "582c302a300506032b65700321000303030303030303030303030303030303030303030303030303030303030303",
        ))
        .unwrap();
        assert_eq!(from_cbor::<NetworkParameters>(&bytes).unwrap(), parameters);
        assert_eq!(to_cbor(&parameters).unwrap(), bytes);

        let bytes = hex::decode(concat!(
            "a263726177430102036a7369676e61747572657381a2626279582c302a300506032b65700321000404040404040404040404040404",
            "04040404040404040404040404040404040465627974657343050505",
        ))
        .unwrap();
        let signed: Signed<NetworkParameters> = from_cbor(&bytes).unwrap();
        assert_eq!((&signed.raw[..], &signed.signatures[0].by), (&[1, 2, 3][..], &key(4)));
        let again =
            Signed::<NetworkParameters>::new(vec![1, 2, 3], vec![KeySignature { by: key(4), bytes: vec![5; 3] }]);
        assert_eq!(to_cbor(&again).unwrap(), bytes);

        let bytes = hex::decode(concat!(
            "a5646b696e64656c696d6974676d65737361676568746f6f206c6f6e676464617461820118ff686572726f725f69641bffffffffff",
            "ffffff656c696d697463637075",
        ))
        .unwrap();
        let mut error = FlowError::limit("cpu", "too long");
        (error.data, error.error_id) = (Some(vec![1, 255]), Some(ErrorId(u64::MAX)));
        assert_eq!(from_cbor::<FlowError>(&bytes).unwrap(), error);
        assert_eq!(to_cbor(&error).unwrap(), bytes);

        let noted = ("O=Alice".to_owned(), vec![48u8, 42], None::<u8>, Some(-1i8), 1.5f32, 0.1f64);
        let bytes = hex::decode("86674f3d416c696365821830182af620f93e00fb3fb999999999999a").unwrap();
        assert_eq!(
            from_cbor::<Option<(String, Vec<u8>, Option<u8>, Option<i8>, f32, f64)>>(&bytes).unwrap(),
            Some(noted)
        );
    }
}
