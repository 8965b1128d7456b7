//! JSON at the edge, CBOR inside: how one becomes the other. A value arrives as what it was, or is refused with its place
//! and the reason; nothing is rounded, and nothing becomes `null`.
//!
//! | JSON | CBOR | back |
//! |---|---|---|
//! | integer within `i64` or `u64` | integer | the same |
//! | other number | float | the same |
//! | text, `true`, `false`, `null`, array | the same | the same |
//! | object | map with text keys, in the order of the keys | the same |
//! | – | byte string | text: base64 with padding (RFC 4648 §4) |
//! | – | integer beyond 64 bits, within 128 | text: decimal |
//! | – | NaN, infinities | text: `NaN`, `Infinity`, `-Infinity` |
//! | – | map key that is no text | its JSON as text |
//! | – | tag | the tagged value |
//! | – | `undefined` | `null` |
//!
//! [`cbor_to_json_text`](crate::cbor_to_json_text) writes the text without the tree. JSON text that says more than this table can hold is refused by [`parse_json`](crate::parse_json).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value as Json};

use crate::invalid::{Invalid, excerpt};
use crate::json_path::JsonPath;

/// Encodes JSON as CBOR, the same bytes for the same JSON: everything in its shortest form, keys in the order in which
/// `serde_json` keeps them.
///
/// # Errors
/// [`Invalid::Cbor`] if it is nested deeper than [`maxhost_cbor::MAX_DEPTH`].
pub fn json_to_cbor(json: &Json) -> Result<Vec<u8>, Invalid> {
    maxhost_cbor::readable::to_vec(json).map_err(|error| refuse(&error))
}

/// Decodes CBOR to JSON, by the table of this module.
///
/// # Errors
/// [`Invalid::Cbor`] if the bytes are malformed, more than one value, nested deeper than [`maxhost_cbor::MAX_DEPTH`], hold
/// an integer beyond 128 bits, or if two keys of a map have the same text.
pub fn cbor_to_json(bytes: &[u8]) -> Result<Json, Invalid> {
    read(bytes, Wide::Text)
}

/// The JSON that a JSON Schema judges in place of CBOR. It is that of [`cbor_to_json`], but an integer beyond 64 bits is a
/// number, so that a schema that asks for an integer gets one: the nearest that JSON has on the far side of it, and so
/// beyond every bound of 64 bits that the integer itself is beyond.
///
/// # Errors
/// Those of [`cbor_to_json`].
pub fn cbor_for_schema(bytes: &[u8]) -> Result<Json, Invalid> {
    read(bytes, Wide::Number)
}

/// As [`cbor_for_schema`], to tell floats from integers beyond 64 bits, which are both numbers there: every number that is an
/// integer exactly is one, a wider one the outermost of 64 bits. What is left as a float is no integer to whoever reads it: readers
/// take floats below 2^63 in magnitude for integers, and none beyond.
///
/// # Errors
/// Those of [`cbor_to_json`].
pub fn cbor_for_exact_integers(bytes: &[u8]) -> Result<Json, Invalid> {
    read(bytes, Wide::Outermost)
}

fn read(bytes: &[u8], wide: Wide) -> Result<Json, Invalid> {
    let whole = Place { path: JsonPath::Root, wide };
    maxhost_cbor::readable::from_slice_seed(whole, bytes).map_err(|error| refuse(&error))
}

fn refuse(error: &maxhost_cbor::Error) -> Invalid {
    Invalid::Cbor { what: "a JSON value".to_owned(), reason: error.to_string() }
}

/// What becomes of an integer beyond 64 bits.
#[derive(Clone, Copy)]
enum Wide {
    Text,
    Number,
    /// And floats are integers where they are exactly that.
    Outermost,
}

/// A place that is read: any value is welcome there.
struct Place<'a> {
    path: JsonPath<'a>,
    wide: Wide,
}

impl Place<'_> {
    fn integer(&self, integer: i128) -> Json {
        if let Ok(signed) = i64::try_from(integer) {
            return Json::from(signed);
        }
        if let Ok(unsigned) = u64::try_from(integer) {
            return Json::from(unsigned);
        }
        match self.wide {
            Wide::Text => Json::String(integer.to_string()),
            Wide::Number if integer < 0 => Json::from(-at_least(integer.unsigned_abs())),
            Wide::Number => Json::from(at_least(integer.unsigned_abs())),
            Wide::Outermost if integer < 0 => Json::from(i64::MIN),
            Wide::Outermost => Json::from(u64::MAX),
        }
    }
}

/// The least float that is not below this integer.
fn at_least(integer: u128) -> f64 {
    let nearest = integer as f64;
    // 2^128 saturates on the way back, and is above every integer there is.
    if (nearest as u128) < integer { nearest.next_up() } else { nearest }
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Json, E> {
        Ok(match (i128::try_from(value), self.wide) {
            (Ok(value), _) => self.integer(value),
            (Err(_), Wide::Text) => Json::String(value.to_string()),
            (Err(_), Wide::Number) => Json::from(at_least(value)),
            (Err(_), Wide::Outermost) => Json::from(u64::MAX),
        })
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Json, E> {
        Ok(self.integer(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Json, E> {
        if matches!(self.wide, Wide::Outermost) && value.fract() == 0.0 && value.abs() < 9_223_372_036_854_775_808.0 {
            return Ok(Json::from(value as i64));
        }
        Ok(match Number::from_f64(value) {
            Some(number) => Json::Number(number),
            None if value.is_nan() => Json::from("NaN"),
            None if value > 0.0 => Json::from("Infinity"),
            None => Json::from("-Infinity"),
        })
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::from(text))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Json, E> {
        Ok(Json::String(text))
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Json, E> {
        Ok(Json::String(STANDARD.encode(bytes)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::with_capacity(items.size_hint().unwrap_or(0).min(RESERVED));
        loop {
            let place = Place { path: JsonPath::Element(&self.path, list.len()), wide: self.wide };
            match items.next_element_seed(place)? {
                Some(item) => list.push(item),
                None => return Ok(Json::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = entries.next_key_seed(Place { path: self.path, wide: Wide::Text })? {
            let key = match key {
                Json::String(text) => text,
                other => other.to_string(),
            };
            let path = JsonPath::Field(&self.path, &key);
            if fields.contains_key(&key) {
                return Err(de::Error::custom(format_args!(
                    "the map at '{}' has the key '{}' twice",
                    self.path,
                    excerpt(&key)
                )));
            }
            let value = entries.next_value_seed(Place { path, wide: self.wide })?;
            fields.insert(key, value);
        }
        Ok(Json::Object(fields))
    }
}

/// So many elements are reserved beforehand at most: what a length announces need not come.
const RESERVED: usize = 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{from_cbor, to_cbor};

    fn decode(bytes: &[u8]) -> Json {
        cbor_to_json(bytes).unwrap()
    }

    fn encode(json: &Json) -> Vec<u8> {
        json_to_cbor(json).unwrap()
    }

    #[test]
    fn numbers_keep_their_value_and_kind() {
        for json in [
            json!(0),
            json!(-1),
            json!(23),
            json!(24),
            json!(65_536),
            json!(i64::MAX as u64 + 1),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(1.0),
            json!(-0.0),
            json!(-0.5),
            json!(0.1),
            json!(1e300),
            json!(5e-324),
        ] {
            let back = decode(&encode(&json));
            assert_eq!(back.to_string(), json.to_string());
            assert_eq!(back.is_f64(), json.is_f64());
        }
    }

    #[test]
    fn rust_types_read_what_json_wrote() {
        #[derive(serde::Deserialize, PartialEq, Debug)]
        struct Ping {
            peer: String,
            count: u32,
            rate: f32,
            note: Option<String>,
        }
        let bytes = encode(&json!({"peer": "O=Bob", "count": 3, "rate": 0.5, "note": null}));
        let ping: Ping = from_cbor(&bytes).unwrap();
        assert_eq!(ping, Ping { peer: "O=Bob".into(), count: 3, rate: 0.5, note: None });
    }

    #[test]
    fn what_json_lacks_becomes_text() {
        // {7: h'ff00', true: -Infinity, "tag": 0("2026-01-01T00:00:00Z")}
        let bytes = [&hex("a30742ff00f5f9fc0063746167c074")[..], b"2026-01-01T00:00:00Z"].concat();
        assert_eq!(decode(&bytes), json!({"7": "/wA=", "true": "-Infinity", "tag": "2026-01-01T00:00:00Z"}));
        for wide in [u128::from(u64::MAX) + 1, i128::MAX as u128 + 1, u128::MAX] {
            assert_eq!(decode(&to_cbor(&wide).unwrap()), json!(wide.to_string()));
        }
        for wide in [i128::MIN, i128::from(i64::MIN) - 1, -(1 << 64) - 1] {
            assert_eq!(decode(&to_cbor(&wide).unwrap()), json!(wide.to_string()));
        }
        assert_eq!(decode(&to_cbor(&[f64::NAN, f64::INFINITY]).unwrap()), json!(["NaN", "Infinity"]));
        assert_eq!(decode(&[0xf7]), Json::Null);
        assert_eq!(decode(&to_cbor("a\0b").unwrap()), json!("a\0b"));
    }

    #[test]
    fn a_schema_sees_wide_integers_as_numbers_beyond_every_bound_they_are_beyond() {
        let seen = |value: i128| cbor_for_schema(&to_cbor(&value).unwrap()).unwrap();
        assert_eq!(seen(i64::MIN.into()), json!(i64::MIN));
        assert_eq!(seen(u64::MAX.into()), json!(u64::MAX));
        assert!(seen(i128::from(i64::MIN) - 1).as_f64().unwrap() < i64::MIN as f64);
        assert!(seen(i128::from(u64::MAX) + 1).as_f64().unwrap() >= 2f64.powi(64));
        assert_eq!(cbor_for_schema(&to_cbor(&u128::MAX).unwrap()).unwrap().as_f64(), Some(2f64.powi(128)));
        // As a key it is text, as all keys are.
        let key = to_cbor(&BTreeMap::from([(u128::MAX, 1)])).unwrap();
        assert_eq!(cbor_for_schema(&key).unwrap(), json!({u128::MAX.to_string(): 1}));
    }

    #[test]
    fn floats_are_told_from_wide_integers() {
        fn seen(value: impl serde::Serialize) -> Json {
            cbor_for_exact_integers(&to_cbor(&value).unwrap()).unwrap()
        }
        for wide in [u128::from(u64::MAX) + 1, u128::MAX] {
            assert_eq!(seen(wide), json!(u64::MAX));
        }
        assert_eq!((seen(i128::MIN), seen(i128::from(i64::MIN) - 1)), (json!(i64::MIN), json!(i64::MIN)));
        assert_eq!((seen(7), seen(u64::MAX), seen(i64::MIN)), (json!(7), json!(u64::MAX), json!(i64::MIN)));
        // A float below 2^63 is the integer that it is; beyond it is none.
        for (float, integer) in [(3.0, 3), (-0.0, 0), (72_057_594_037_927_952.0, 72_057_594_037_927_952_i64)] {
            assert_eq!(seen(float), json!(integer));
        }
        for float in [0.5, -1.5, 9_223_372_036_854_775_808.0, -9_223_372_036_854_775_808.0, 1e30] {
            assert_eq!(seen(float), json!(float));
        }
        assert_eq!(seen([f64::NAN, f64::INFINITY]), json!(["NaN", "Infinity"]));
    }

    fn hex(digits: &str) -> Vec<u8> {
        ::hex::decode(digits).unwrap()
    }

    #[test]
    fn bad_bytes_are_refused_with_their_place() {
        let refusal = |bytes: &[u8]| cbor_to_json(bytes).unwrap_err().to_string();
        // {"a": [{1: 0, "1": 0}]}
        let twice = refusal(&hex("a1616181a20100613100"));
        assert!(twice.contains("the map at '/a/0' has the key '1' twice"), "{twice}");
        assert!(refusal(&[vec![0x81; 100_000], vec![0]].concat()).contains("nested deeper than 128 levels"));
        // Beyond 128 bits.
        assert!(refusal(&hex("c25101000000000000000000000000000000000000")).contains("beyond the range of 128 bits"));
        // An array that claims 2^60 items must not be believed.
        assert!(cbor_to_json(&[0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(cbor_to_json(&[0x5b, 0x10, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(cbor_to_json(&[]).is_err());
        assert!(refusal(&[0, 0]).contains("1 bytes follow"));
        assert!(refusal(&hex("61ff")).contains("not UTF-8"));
        assert!(refusal(&[0xe0]).contains("no meaning"));
        let deep = (0..200).fold(Json::Null, |inner, _| json!([inner]));
        assert!(json_to_cbor(&deep).unwrap_err().to_string().contains("nested deeper"));
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Json::from),
            ".*".prop_map(Json::from),
        ];
        leaf.prop_recursive(6, 64, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Json::from),
                proptest::collection::btree_map(".*", inner, 0..8)
                    .prop_map(|map| Json::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_round_trips(json in any_json()) {
            prop_assert_eq!(decode(&encode(&json)), json);
        }

        #[test]
        fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(json) = cbor_to_json(&bytes) {
                prop_assert_eq!(decode(&encode(&json)), json);
            }
        }
    }
}
