//! The codec against itself and against an independent one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fmt::Debug;

use maxhost_sdk::cbor::{self, Error};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

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

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u32),
    Text(String),
    Struct { x: f64 },
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

proptest! {
    #[test]
    fn values_survive(value in everything()) {
        let bytes = cbor::to_vec(&value).unwrap();
        prop_assert_eq!(cbor::from_slice::<Everything>(&bytes).unwrap(), value);
    }

    #[test]
    fn an_independent_reader_understands(value in prop::collection::vec(shape(), 0..10)) {
        let bytes = cbor::to_vec(&value).unwrap();
        let read: Vec<Shape> = ciborium::from_reader(bytes.as_slice()).unwrap();
        prop_assert_eq!(read, value);
    }

    #[test]
    fn an_independent_writer_is_understood(value in prop::collection::vec(shape(), 0..10), wide: i128, float: f64) {
        let mut bytes = Vec::new();
        ciborium::into_writer(&(&value, wide, float), &mut bytes).unwrap();
        prop_assert_eq!(cbor::from_slice::<(Vec<Shape>, i128, f64)>(&bytes).unwrap(), (value, wide, float));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = cbor::from_slice::<Everything>(&bytes);
        let _ = cbor::from_slice::<serde_json::Value>(&bytes);
        let _ = cbor::from_slice::<Vec<Shape>>(&bytes);
    }

    #[test]
    fn every_shortening_is_noticed(value in everything(), cut in any::<prop::sample::Index>()) {
        let bytes = cbor::to_vec(&value).unwrap();
        prop_assert!(cbor::from_slice::<Everything>(&bytes[..cut.index(bytes.len())]).is_err());
    }
}

fn through<T: DeserializeOwned>(value: impl Serialize) -> Result<T, Error> {
    cbor::from_slice(&cbor::to_vec(&value).unwrap())
}

fn reads<T: DeserializeOwned + PartialEq + Debug>(bytes: &[u8], value: T) {
    assert_eq!(cbor::from_slice::<T>(bytes), Ok(value));
}

#[test]
fn a_small_message_is_small() {
    assert_eq!(cbor::to_vec(&3u32).unwrap(), [3]);
    assert_eq!(cbor::to_vec(&()).unwrap(), [0xf6]);
    assert_eq!(cbor::to_vec(&-1i64).unwrap(), [0x20]);
    assert_eq!(cbor::to_vec(&1.5f64).unwrap(), [0xfa, 0x3f, 0xc0, 0, 0]);
    assert_eq!(cbor::to_vec(&u128::MAX).unwrap().len(), 18);
}

#[test]
fn numbers_are_as_free_as_in_json() {
    assert_eq!(through::<f64>(3u8), Ok(3.0));
    assert_eq!(through::<u32>(3.0f64), Ok(3));
    assert_eq!(through::<i64>(-3.0f64), Ok(-3));
    assert!(through::<u32>(3.5f64).is_err());
    assert!(through::<u8>(256u32).is_err());
    assert!(through::<u64>(-1i8).is_err());
    let by_text = BTreeMap::from([("-7", true), ("12", false)]);
    assert_eq!(through::<BTreeMap<i32, bool>>(by_text), Ok(BTreeMap::from([(-7, true), (12, false)])));
}

#[test]
fn untagged_enums_work() {
    assert_eq!(through(5u8), Ok(Untagged::Number(5)));
    assert_eq!(through("five"), Ok(Untagged::Text("five".to_owned())));
    assert_eq!(through(serde_json::json!({"x": 2})), Ok(Untagged::Struct { x: 2.0 }));
}

/// From RFC 8949, appendix A, and beyond: what other encoders write.
#[test]
fn foreign_encodings_are_read() {
    reads(&[0xf9, 0x3c, 0x00], 1.0f64);
    reads(&[0xf9, 0x04, 0x00], 0.000_061_035_156_25_f64);
    reads(&[0xf9, 0x00, 0x01], 5.960_464_477_539_063e-8_f64);
    reads(&[0xf9, 0xfc, 0x00], f64::NEG_INFINITY);
    reads(&[0x9f, 1, 2, 0xff], vec![1u8, 2]);
    reads(&[0x7f, 0x62, b's', b't', 0x61, b'r', 0xff], "str".to_owned());
    reads(&[0xbf, 0x61, b'a', 1, 0xff], BTreeMap::from([("a".to_owned(), 1u8)]));
    reads(&[0xbf, 0x63, b'N', b'e', b'w', 1, 0xff], Shape::New(1));
    reads(&[0xd9, 0xd9, 0xf7, 0x18, 0x2a], 42u64);
    reads(&[0xc2, 0x49, 1, 0, 0, 0, 0, 0, 0, 0, 0], 18_446_744_073_709_551_616u128);
    reads(&[0xf7], Option::<u8>::None);
    reads(&[0xa1, 0x64, b'U', b'n', b'i', b't', 0xf6], Shape::Unit);
}

#[test]
fn what_is_wrong_is_said() {
    let error = cbor::from_slice::<u32>(&cbor::to_vec("secret").unwrap()).unwrap_err().to_string();
    assert_eq!(error, "invalid type: text, expected u32");
    assert_eq!(cbor::from_slice::<u8>(&[1, 2, 3]), Err(Error::Trailing(2)));
    assert_eq!(cbor::from_slice::<u8>(&[]), Err(Error::Truncated));
    assert_eq!(cbor::from_slice::<u8>(&[0x1c]), Err(Error::Malformed { at: 0 }));
    assert_eq!(cbor::from_slice::<String>(&[0x61, 0xff]), Err(Error::NotUtf8 { at: 1 }));
    assert!(cbor::from_slice::<(u8, u8)>(&[0x83, 1, 2, 3]).is_err());
}

#[test]
fn lengths_and_depths_are_not_trusted() {
    // Four billion elements announced, none there.
    assert_eq!(cbor::from_slice::<Vec<u64>>(&[0x9a, 0xff, 0xff, 0xff, 0xff]), Err(Error::Truncated));
    assert_eq!(
        cbor::from_slice::<String>(&[0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        Err(Error::Truncated)
    );
    let deep = vec![0x81; 100_000];
    assert_eq!(cbor::from_slice::<serde_json::Value>(&deep), Err(Error::TooDeep));
    assert_eq!(cbor::from_slice::<serde::de::IgnoredAny>(&deep).err(), Some(Error::TooDeep));
}
