//! What holds for every value, and for every sequence of bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use maxhost_cbor::deterministic::{self, Rules};
use maxhost_cbor::{Error, Limits, MAX_DEPTH, check_well_formed, from_slice, readable, to_vec, to_vec_within};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use support::{Value, integer};

const FLOATS: Rules = Rules { floats: true, limits: Limits::NONE };

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Unit,
    New(i64),
    Pair(u8, String),
    Named { a: Option<f64>, b: Vec<u8> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Everything {
    flag: bool,
    small: i8,
    large: u64,
    negative: i64,
    wide: i128,
    widest: u128,
    float: f64,
    narrow: f32,
    letter: char,
    text: String,
    nothing: (),
    maybe: Option<String>,
    list: Vec<Shape>,
    numbered: BTreeMap<i32, String>,
    tuple: (u8, bool),
    #[serde(flatten)]
    rest: BTreeMap<String, u32>,
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Unit),
        any::<i64>().prop_map(Shape::New),
        (any::<u8>(), ".{0,30}").prop_map(|(a, b)| Shape::Pair(a, b)),
        (any::<Option<i32>>(), any::<Vec<u8>>())
            .prop_map(|(a, b)| Shape::Named { a: a.map(|a| f64::from(a) / 3.0), b }),
    ]
}

fn everything() -> impl Strategy<Value = Everything> {
    let numbers = (any::<bool>(), any::<i8>(), any::<u64>(), any::<i64>(), any::<i128>(), any::<u128>());
    let floats = (any::<f64>(), any::<f32>());
    let texts = (any::<char>(), ".{0,300}", any::<Option<String>>());
    let many = (
        prop::collection::vec(shape(), 0..30),
        any::<BTreeMap<i32, String>>(),
        any::<(u8, bool)>(),
        prop::collection::btree_map("r[a-z]{1,5}", any::<u32>(), 0..4),
    );
    (numbers, floats, texts, many).prop_map(|(numbers, floats, texts, many)| Everything {
        flag: numbers.0,
        small: numbers.1,
        large: numbers.2,
        negative: numbers.3,
        wide: numbers.4,
        widest: numbers.5,
        float: floats.0,
        narrow: floats.1,
        letter: texts.0,
        text: texts.1,
        nothing: (),
        maybe: texts.2,
        list: many.0,
        numbered: many.1,
        tuple: many.2,
        rest: many.3.into_iter().map(|(key, value)| (format!("rest-{key}"), value)).collect(),
    })
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|value| integer(value.into())),
        any::<i128>().prop_map(integer),
        any::<u128>().prop_map(Value::Positive),
        any::<u64>().prop_map(|bits| Value::Float(f64::from_bits(bits))),
        any::<u16>().prop_map(|value| Value::Float(f64::from(value) / 8.0)),
        any::<Vec<u8>>().prop_map(Value::Bytes),
        ".{0,30}".prop_map(Value::Text),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..30).prop_map(Value::Array),
            prop::collection::vec((inner.clone(), inner), 0..8).prop_map(Value::Map),
        ]
    })
}

/// Bytes that look like CBOR more often than chance would have it.
fn likely_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        any::<u8>(),
        prop::sample::select(vec![
            0x00, 0x01, 0x17, 0x18, 0x19, 0x20, 0x41, 0x60, 0x61, 0x81, 0x82, 0xa1, 0xa2, 0xc2, 0xc3, 0x49, 0x5f, 0x7f,
            0x9f, 0xbf, 0xf4, 0xf6, 0xf9, 0xfa, 0xfb, 0xff,
        ]),
    ];
    prop::collection::vec(byte, 0..40)
}

/// Whether a map of it has a key twice.
fn has_duplicates(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_duplicates),
        Value::Map(entries) => {
            let keys: BTreeSet<Vec<u8>> = entries.iter().filter_map(|(key, _)| canonical(key)).collect();
            keys.len() < entries.len()
                || entries.iter().any(|(key, value)| has_duplicates(key) || has_duplicates(value))
        }
        _ => false,
    }
}

fn canonical(value: &Value) -> Option<Vec<u8>> {
    deterministic::to_vec(value, FLOATS).ok()
}

/// The same value with all maps turned round.
fn reversed(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(reversed).collect()),
        Value::Map(entries) => {
            Value::Map(entries.iter().rev().map(|(key, value)| (reversed(key), reversed(value))).collect())
        }
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn values_survive(value in everything()) {
        let bytes = to_vec(&value).unwrap();
        prop_assert_eq!(from_slice::<Everything>(&bytes).unwrap(), value.clone());
        let bytes = readable::to_vec(&value).unwrap();
        prop_assert_eq!(readable::from_slice::<Everything>(&bytes).unwrap(), value.clone());
        let bytes = deterministic::to_vec(&value, FLOATS).unwrap();
        prop_assert_eq!(deterministic::from_slice::<Everything>(&bytes, FLOATS).unwrap(), value);
    }

    #[test]
    fn any_value_survives(value in any_value()) {
        prop_assert_eq!(from_slice::<Value>(&to_vec(&value).unwrap()).unwrap(), value);
    }

    #[test]
    fn an_independent_reader_understands(value in prop::collection::vec(shape(), 0..10), wide: i128, float: f64, narrow: f32) {
        let bytes = to_vec(&(&value, wide, float, narrow)).unwrap();
        let read: (Vec<Shape>, i128, f64, f32) = ciborium::from_reader(bytes.as_slice()).unwrap();
        prop_assert_eq!(read, (value, wide, float, narrow));
    }

    #[test]
    fn an_independent_writer_is_understood(value in everything()) {
        let mut bytes = Vec::new();
        ciborium::into_writer(&value, &mut bytes).unwrap();
        prop_assert_eq!(from_slice::<Everything>(&bytes).unwrap(), value);
    }

    /// Where the independent writer knows lengths beforehand it writes the very same bytes.
    #[test]
    fn an_independent_writer_agrees(value in prop::collection::vec(shape(), 0..10), wide: i128, float: f64, narrow: f32) {
        let value = (&value, wide, float, narrow);
        let mut bytes = Vec::new();
        ciborium::into_writer(&value, &mut bytes).unwrap();
        prop_assert_eq!(to_vec(&value).unwrap(), bytes);
    }

    #[test]
    fn what_is_written_deterministically_is_accepted(value in any_value()) {
        match deterministic::to_vec(&value, FLOATS) {
            Ok(bytes) => {
                prop_assert_eq!(deterministic::check(&bytes, FLOATS), Ok(()));
                prop_assert!(!has_duplicates(&value));
                prop_assert_eq!(canonical(&reversed(&value)).unwrap(), bytes);
            }
            Err(error) => {
                let duplicate = matches!(error, Error::NotDeterministic { rule: maxhost_cbor::Rule::Duplicate, .. });
                prop_assert!(duplicate && has_duplicates(&value), "{error}");
            }
        }
    }

    /// What is accepted is what is written for the value: bytes like CBOR, and deterministic bytes with one byte changed.
    #[test]
    fn only_what_is_written_deterministically_is_accepted(bytes in likely_bytes()) {
        if deterministic::check(&bytes, FLOATS).is_ok() {
            let value: Value = from_slice(&bytes).unwrap();
            prop_assert_eq!(deterministic::to_vec(&value, FLOATS).unwrap(), bytes);
        }
    }

    #[test]
    fn a_changed_byte_is_another_value_or_refused(value in any_value(), at in any::<prop::sample::Index>(), other: u8) {
        let Some(bytes) = canonical(&value) else { return Ok(()) };
        let mut changed = bytes.clone();
        *at.get_mut(&mut changed) = other;
        if changed != bytes && deterministic::check(&changed, FLOATS).is_ok() {
            let read: Value = from_slice(&changed).unwrap();
            prop_assert_eq!(deterministic::to_vec(&read, FLOATS).unwrap(), changed);
            prop_assert_ne!(canonical(&read), Some(bytes));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in likely_bytes()) {
        let _ = from_slice::<Everything>(&bytes);
        let _ = from_slice::<Vec<Shape>>(&bytes);
        let _ = readable::from_slice::<serde_json::Value>(&bytes);
        let _ = from_slice::<serde::de::IgnoredAny>(&bytes);
        let _ = deterministic::check(&bytes, Rules::STRICT);
    }

    /// What can be read as anything is well-formed; what is not well-formed cannot be read.
    #[test]
    fn only_what_is_well_formed_is_read(bytes in likely_bytes()) {
        match (check_well_formed(&bytes, Limits::NONE), from_slice::<Value>(&bytes)) {
            (Ok(()), Ok(_)) | (Err(_), Err(_)) => {}
            // Numbers beyond 128 bits, and simple values that have no meaning.
            (Ok(()), Err(error)) => prop_assert!(matches!(error, Error::Type { .. } | Error::Malformed { .. }), "{error}"),
            (Err(error), Ok(value)) => prop_assert!(false, "{error}: {value:?}"),
        }
    }

    #[test]
    fn every_shortening_is_noticed(value in everything(), cut in any::<prop::sample::Index>()) {
        let bytes = to_vec(&value).unwrap();
        let at = cut.index(bytes.len());
        prop_assert!(from_slice::<Everything>(&bytes[..at]).is_err());
        prop_assert_eq!(from_slice::<Value>(&bytes[..at]), Err(Error::Truncated { at }));
    }

    #[test]
    fn a_limit_of_size_is_kept(value in any_value(), size in 0usize..200) {
        let limits = Limits { size, depth: MAX_DEPTH };
        let whole = to_vec(&value).unwrap();
        let refused = Err(Error::TooLarge { limit: size });
        let expected = if whole.len() <= size { Ok(whole.clone()) } else { refused };
        prop_assert_eq!(to_vec_within(&value, limits), expected);
        let read = maxhost_cbor::from_slice_within::<Value>(&whole, limits);
        prop_assert_eq!(read.is_ok(), whole.len() <= size);
    }
}
