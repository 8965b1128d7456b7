//! JSON at the edge, CBOR inside: how one becomes the other.
//!
//! | JSON | CBOR | back |
//! |---|---|---|
//! | integer within `i64` or `u64` | integer | the same |
//! | other number | float, 64 bit | the same |
//! | text, `true`, `false`, `null`, array | the same | the same |
//! | object | map with text keys, in the order of the keys | the same |
//! | – | byte string | text: base64 with padding (RFC 4648 §4) |
//! | – | integer beyond 64 bit | text: decimal |
//! | – | NaN, infinities | text: `NaN`, `Infinity`, `-Infinity` |
//! | – | map key that is no text | its JSON as text |
//! | – | tag | the tagged value |
//! | – | `undefined` | `null` |

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ciborium::Value as Cbor;
use serde_json::{Map, Number, Value as Json};

use crate::codec::{MAX_DEPTH, from_cbor};
use crate::invalid::{Invalid, excerpt};

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const POSITIVE_BIGNUM: u64 = 2;
const NEGATIVE_BIGNUM: u64 = 3;

/// Encodes JSON as CBOR, the same bytes for the same JSON: lengths definite, integers shortest, keys in the order in
/// which `serde_json` keeps them.
#[must_use]
pub fn json_to_cbor(json: &Json) -> Vec<u8> {
    let mut out = Vec::new();
    write(json, &mut out);
    out
}

fn write(json: &Json, out: &mut Vec<u8>) {
    match json {
        Json::Null => out.push(0xf6),
        Json::Bool(false) => out.push(0xf4),
        Json::Bool(true) => out.push(0xf5),
        Json::Number(number) => write_number(number, out),
        Json::String(text) => write_text(text, out),
        Json::Array(items) => {
            write_head(ARRAY, items.len() as u64, out);
            items.iter().for_each(|item| write(item, out));
        }
        Json::Object(fields) => {
            write_head(MAP, fields.len() as u64, out);
            for (key, value) in fields {
                write_text(key, out);
                write(value, out);
            }
        }
    }
}

fn write_number(number: &Number, out: &mut Vec<u8>) {
    if let Some(unsigned) = number.as_u64() {
        write_head(UNSIGNED, unsigned, out);
    } else if let Some(signed) = number.as_i64() {
        // CBOR keeps -1 - n; `!` is that without overflow.
        write_head(NEGATIVE, (!signed).cast_unsigned(), out);
    } else {
        out.push(0xfb);
        out.extend_from_slice(&number.as_f64().unwrap_or(f64::NAN).to_be_bytes());
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    write_head(TEXT, text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// The head of an item (RFC 8949 §3): the major type and the shortest form of its number.
fn write_head(major: u8, number: u64, out: &mut Vec<u8>) {
    let major = major << 5;
    if let Ok(byte) = u8::try_from(number) {
        if byte < 24 {
            out.push(major | byte);
        } else {
            out.extend_from_slice(&[major | 24, byte]);
        }
    } else if let Ok(short) = u16::try_from(number) {
        out.push(major | 25);
        out.extend_from_slice(&short.to_be_bytes());
    } else if let Ok(word) = u32::try_from(number) {
        out.push(major | 26);
        out.extend_from_slice(&word.to_be_bytes());
    } else {
        out.push(major | 27);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// Decodes CBOR to JSON, by the table of this module.
///
/// # Errors
/// [`Invalid::Cbor`] if the bytes are malformed, more than one value, nested deeper than [`MAX_DEPTH`], or if two keys
/// of a map have the same text.
pub fn cbor_to_json(bytes: &[u8]) -> Result<Json, Invalid> {
    convert(from_cbor(bytes)?, 0)
}

fn convert(cbor: Cbor, depth: usize) -> Result<Json, Invalid> {
    if depth > MAX_DEPTH {
        return Err(refuse(format!("nested deeper than {MAX_DEPTH}")));
    }
    Ok(match cbor {
        Cbor::Null => Json::Null,
        Cbor::Bool(value) => Json::Bool(value),
        Cbor::Integer(integer) => integer_to_json(integer.into()),
        Cbor::Float(float) => float_to_json(float),
        Cbor::Text(text) => Json::String(text),
        Cbor::Bytes(bytes) => Json::String(STANDARD.encode(bytes)),
        Cbor::Array(items) => {
            Json::Array(items.into_iter().map(|item| convert(item, depth + 1)).collect::<Result<_, _>>()?)
        }
        Cbor::Map(entries) => map_to_json(entries, depth)?,
        Cbor::Tag(tag @ (POSITIVE_BIGNUM | NEGATIVE_BIGNUM), inner) => match *inner {
            Cbor::Bytes(bytes) => bignum_to_json(tag == NEGATIVE_BIGNUM, &bytes),
            other => convert(other, depth + 1)?,
        },
        Cbor::Tag(_, inner) => convert(*inner, depth + 1)?,
        _ => return Err(refuse("it holds a value of an unknown kind".to_owned())),
    })
}

fn integer_to_json(integer: i128) -> Json {
    if let Ok(signed) = i64::try_from(integer) {
        Json::from(signed)
    } else if let Ok(unsigned) = u64::try_from(integer) {
        Json::from(unsigned)
    } else {
        Json::String(integer.to_string())
    }
}

fn float_to_json(float: f64) -> Json {
    match Number::from_f64(float) {
        Some(number) => Json::Number(number),
        None if float.is_nan() => Json::from("NaN"),
        None if float > 0.0 => Json::from("Infinity"),
        None => Json::from("-Infinity"),
    }
}

/// A big number that fits 127 bits is shown as decimal, a larger one as base64 of its bytes.
fn bignum_to_json(negative: bool, bytes: &[u8]) -> Json {
    let significant = bytes.iter().position(|byte| *byte != 0).map_or(&[][..], |start| &bytes[start..]);
    let mut wide = [0; 16];
    match wide.len().checked_sub(significant.len()) {
        Some(start) if significant.len() < 16 || significant.first().is_some_and(|byte| byte & 0x80 == 0) => {
            wide[start..].copy_from_slice(significant);
            let value = i128::from_be_bytes(wide);
            integer_to_json(if negative { !value } else { value })
        }
        _ => Json::String(STANDARD.encode(bytes)),
    }
}

fn map_to_json(entries: Vec<(Cbor, Cbor)>, depth: usize) -> Result<Json, Invalid> {
    let mut fields = Map::with_capacity(entries.len());
    for (key, value) in entries {
        let key = match convert(key, depth + 1)? {
            Json::String(text) => text,
            other => other.to_string(),
        };
        let value = convert(value, depth + 1)?;
        if fields.contains_key(&key) {
            return Err(refuse(format!("a map has the key '{}' twice", excerpt(&key))));
        }
        fields.insert(key, value);
    }
    Ok(Json::Object(fields))
}

fn refuse(reason: String) -> Invalid {
    Invalid::Cbor { what: "a JSON value".to_owned(), reason }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::to_cbor;

    fn decode(bytes: &[u8]) -> Json {
        cbor_to_json(bytes).unwrap()
    }

    #[test]
    fn numbers_keep_their_value_and_kind() {
        for json in [
            json!(0),
            json!(-1),
            json!(23),
            json!(24),
            json!(65_536),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(1.0),
            json!(-0.5),
            json!(1e300),
        ] {
            let back = decode(&json_to_cbor(&json));
            assert_eq!(back, json);
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
        let bytes = json_to_cbor(&json!({"peer": "O=Bob", "count": 3, "rate": 0.5, "note": null}));
        let ping: Ping = from_cbor(&bytes).unwrap();
        assert_eq!(ping, Ping { peer: "O=Bob".into(), count: 3, rate: 0.5, note: None });
    }

    #[test]
    fn what_json_lacks_becomes_text() {
        let map = Cbor::Map(vec![
            (Cbor::Integer(7.into()), Cbor::Bytes(vec![0xff, 0])),
            (Cbor::Bool(true), Cbor::Float(f64::NEG_INFINITY)),
            (Cbor::Text("tag".into()), Cbor::Tag(0, Box::new(Cbor::Text("2026-01-01T00:00:00Z".into())))),
        ]);
        let json = decode(&to_cbor(&map).unwrap());
        assert_eq!(json, json!({"7": "/wA=", "true": "-Infinity", "tag": "2026-01-01T00:00:00Z"}));
        assert_eq!(decode(&to_cbor(&(u128::from(u64::MAX) + 1)).unwrap()), json!("18446744073709551616"));
        assert_eq!(decode(&to_cbor(&i128::MIN).unwrap()), json!(i128::MIN.to_string()));
        assert_eq!(decode(&[0xf7]), Json::Null);
    }

    #[test]
    fn bad_bytes_are_refused() {
        let twice = Cbor::Map(vec![(Cbor::Integer(1.into()), Cbor::Null), (Cbor::Text("1".into()), Cbor::Null)]);
        assert!(cbor_to_json(&to_cbor(&twice).unwrap()).unwrap_err().to_string().contains("twice"));
        let deep = [vec![0x81; 100_000], vec![0]].concat();
        assert!(cbor_to_json(&deep).unwrap_err().to_string().contains("nested deeper"));
        let tags = [vec![0xc6; 100_000], vec![0]].concat();
        assert!(cbor_to_json(&tags).is_err());
        // An array that claims 2^60 items must not be believed.
        assert!(cbor_to_json(&[0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(cbor_to_json(&[0x5b, 0x10, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(cbor_to_json(&[]).is_err());
        assert!(cbor_to_json(&[0, 0]).is_err());
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
            prop_assert_eq!(decode(&json_to_cbor(&json)), json);
        }

        #[test]
        fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(json) = cbor_to_json(&bytes) {
                prop_assert_eq!(decode(&json_to_cbor(&json)), json);
            }
        }
    }
}
