//! Bytes that are hashed or signed: deterministic CBOR, checked when built and when received (behaviour.md 10.1).
//!
//! A value has exactly one sequence of bytes, and reading accepts that one only: first the bytes are checked to be
//! deterministic CBOR, then they are decoded, and then the value must encode to the same bytes again. The last step
//! refuses what CBOR allows but the type does not: fields it does not know, a name in another spelling, a default that is
//! written out.

use maxhost_cbor::deterministic::{self, Rules};
use maxhost_cbor::{Error, Limits};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// How deep the data of a component may be nested.
pub const MAX_DEPTH: u16 = 64;

/// The most bytes that one component may have: 64 MiB, however large the network lets transactions be.
pub const MAX_COMPONENT: usize = 64 << 20;

/// What holds for every component, and for the data of states and commands inside.
const RULES: Rules = Rules { floats: false, limits: Limits { depth: MAX_DEPTH, size: MAX_COMPONENT } };

/// Encodes a value that will be hashed or signed.
///
/// # Errors
/// [`Rule::NotCanonical`] if the value has no deterministic form (a float, a key twice), [`Rule::TooDeep`] or
/// [`Rule::TooLarge`] beyond the bounds of a component.
pub fn encode<T: Serialize + ?Sized>(what: &'static str, value: &T) -> Result<Vec<u8>> {
    deterministic::to_vec(value, RULES).map_err(|error| refused(what, &error))
}

/// Decodes a value from the only bytes it has.
///
/// # Errors
/// [`Rule::NotCanonical`] for other bytes of the value, [`Rule::ComponentInvalid`] for bytes of another type, and those of
/// [`encode`].
pub fn decode<T: Serialize + DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T> {
    // What is written is deterministic, so bytes that would be written are: those of a value need no look of their own.
    if let Ok(value) = deterministic::from_known_slice::<T>(bytes, RULES)
        && deterministic::to_vec_sized(&value, RULES, bytes.len()).is_ok_and(|written| written == bytes)
    {
        return Ok(value);
    }
    let value: T = deterministic::from_slice(bytes, RULES).map_err(|error| refused(what, &error))?;
    if encode(what, &value)? != bytes {
        let message = format!("{what}: the bytes are another form of the value, or hold more than the value has");
        return Err(Refused::new(Rule::NotCanonical, message).detail("component", what));
    }
    Ok(value)
}

/// As [`decode`], for bytes that were decoded as this type before: that they are the only ones of the value is not looked at again.
///
/// # Errors
/// [`Rule::ComponentInvalid`] and [`Rule::NotCanonical`] for bytes that cannot be those.
pub fn decode_known<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T> {
    deterministic::from_known_slice(bytes, RULES).map_err(|error| refused(what, &error))
}

/// Checks bytes whose type only a contract knows.
///
/// # Errors
/// Those of [`decode`], but for the type.
pub fn check(what: &'static str, bytes: &[u8]) -> Result<()> {
    deterministic::check(bytes, RULES).map_err(|error| refused(what, &error))
}

fn refused(what: &'static str, error: &Error) -> Refused {
    let rule = match error {
        Error::TooDeep { .. } => Rule::TooDeep,
        Error::TooLarge { .. } => Rule::TooLarge,
        Error::Type { .. } => Rule::ComponentInvalid,
        _ => Rule::NotCanonical,
    };
    Refused::new(rule, format!("{what}: {error}")).detail("component", what)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Sample {
        zeta: u32,
        alpha: Option<String>,
    }

    fn rule(bytes: &[u8]) -> Rule {
        decode::<Sample>("sample", bytes).unwrap_err().rule()
    }

    #[test]
    fn one_value_has_one_form() {
        let sample = Sample { zeta: 5, alpha: None };
        let bytes = encode("sample", &sample).unwrap();
        assert_eq!(hex::encode(&bytes), "a2647a6574610565616c706861f6");
        assert_eq!(decode::<Sample>("sample", &bytes).unwrap(), sample);
        let hex = |text: &str| hex::decode(text).unwrap();
        // Five in two bytes, keys in another order, a field left out, a field too many, an indefinite map, bytes behind.
        assert_eq!(rule(&hex("a2647a657461180565616c706861f6")), Rule::NotCanonical);
        assert_eq!(rule(&hex("a265616c706861f6647a65746105")), Rule::NotCanonical);
        assert_eq!(rule(&hex("a1647a65746105")), Rule::NotCanonical);
        assert_eq!(rule(&hex("a361780a647a6574610565616c706861f6")), Rule::NotCanonical);
        assert_eq!(rule(&hex("bf647a6574610565616c706861f6ff")), Rule::NotCanonical);
        assert_eq!(rule(&hex("a2647a6574610565616c706861f600")), Rule::NotCanonical);
        assert_eq!(rule(&hex("a2647a65746161")), Rule::NotCanonical);
        assert_eq!(rule(&hex("a2647a65746161780565616c706861f6")), Rule::NotCanonical);
        assert_eq!(rule(&hex("a2647a657461617865616c706861f6")), Rule::ComponentInvalid);
    }

    /// The order of texts is not that of their bytes, in which their lengths come first.
    #[test]
    fn however_many_keys_there_are_they_are_sorted() {
        for count in 0..40_u64 {
            let key = |number: u64| "k".repeat(usize::try_from(number * 7 % 40).unwrap()) + &number.to_string();
            let map: BTreeMap<String, Vec<u64>> = (0..count).map(|number| (key(number), vec![number; 3])).collect();
            let bytes = encode("sample", &map).unwrap();
            check("sample", &bytes).unwrap();
            assert_eq!(decode::<BTreeMap<String, Vec<u64>>>("sample", &bytes).unwrap(), map);
            assert_eq!(decode_known::<BTreeMap<String, Vec<u64>>>("sample", &bytes).unwrap(), map);
        }
    }

    #[test]
    fn floats_and_depth_are_refused() {
        assert_eq!(encode("sample", &1.5_f64).unwrap_err().rule(), Rule::NotCanonical);
        assert_eq!(check("sample", &[0xf9, 0x3e, 0]).unwrap_err().rule(), Rule::NotCanonical);
        let mut deep = vec![0x81; usize::from(MAX_DEPTH)];
        deep.push(0);
        check("sample", &deep).unwrap();
        deep.insert(0, 0x81);
        assert_eq!(check("sample", &deep).unwrap_err().rule(), Rule::TooDeep);
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_would_be_written(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = decode::<BTreeMap<String, Option<i64>>>("sample", &bytes) {
                prop_assert_eq!(encode("sample", &value).unwrap(), bytes);
            }
        }

        #[test]
        fn everything_written_is_read(value in proptest::collection::btree_map(".{0,8}", proptest::option::of(any::<i64>()), 0..8)) {
            let bytes = encode("sample", &value).unwrap();
            prop_assert_eq!(decode::<BTreeMap<String, Option<i64>>>("sample", &bytes).unwrap(), value);
        }
    }
}
