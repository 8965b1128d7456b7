//! Values at the edges, and what is said of wrong ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::Ipv4Addr;

use maxhost_cbor::deterministic::{self, Rules};
use maxhost_cbor::{Error, Limits, MAX_DEPTH, Rule, check_well_formed, from_slice, readable, to_vec, to_vec_within};
use serde::de::DeserializeOwned;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use support::{Value, array, hex, integer, map, text};

fn through<T: DeserializeOwned>(value: impl Serialize) -> Result<T, Error> {
    from_slice(&to_vec(&value).unwrap())
}

fn reads<T: DeserializeOwned + PartialEq + Debug>(digits: &str, value: T) {
    assert_eq!(from_slice::<T>(&hex(digits)), Ok(value), "{digits}");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Unit,
    New(i64),
    Tuple(u8, u8),
    Named { a: u8 },
}

#[test]
fn numbers_are_as_free_as_in_json() {
    assert_eq!(through::<f64>(3u8), Ok(3.0));
    assert_eq!(through::<f32>(-3i8), Ok(-3.0));
    assert_eq!(through::<u32>(3.0f64), Ok(3));
    assert_eq!(through::<i64>(-3.0f64), Ok(-3));
    assert!(through::<u32>(3.5f64).is_err());
    assert!(through::<u8>(256u32).is_err());
    assert!(through::<u64>(-1i8).is_err());
    let by_text = BTreeMap::from([("-7", true), ("12", false)]);
    assert_eq!(through::<BTreeMap<i32, bool>>(by_text), Ok(BTreeMap::from([(-7, true), (12, false)])));
}

/// An integer becomes a float only if it stays itself.
#[test]
fn nothing_is_rounded() {
    assert_eq!(through::<f64>(1u64 << 53), Ok(9_007_199_254_740_992.0));
    assert_eq!(through::<f64>(i64::MIN), Ok(-9_223_372_036_854_775_808.0));
    assert_eq!(through::<f64>(u64::MAX << 11), Ok(18_446_744_073_709_549_568.0));
    for beyond in [i128::from(u64::MAX), (1 << 53) + 1, -(1 << 53) - 1, i128::from(u64::MAX << 10), i128::MAX] {
        let error = through::<f64>(beyond).unwrap_err().to_string();
        assert_eq!(error, "the integer has more digits than a float holds (at byte 0)", "{beyond}");
    }
    assert!(through::<f64>(u128::MAX).is_err());
    // 2^63 and 2^64 as floats are no i64 and u64; they are not cut down to one.
    assert!(through::<i64>(9_223_372_036_854_775_808.0f64).is_err());
    assert!(through::<u64>(18_446_744_073_709_551_616.0f64).is_err());
    assert_eq!(through::<i64>(-9_223_372_036_854_774_784.0f64), Ok(-9_223_372_036_854_774_784));
    assert!(through::<f32>(1e300f64).unwrap_err().to_string().contains("32 bits"));
    assert_eq!(through::<f32>(f64::INFINITY), Ok(f32::INFINITY));
    assert!(through::<i64>(f64::NAN).is_err());
}

#[test]
fn integers_at_their_ends_survive() {
    for value in [0, 23, 24, 255, 256, 65_535, 65_536, 4_294_967_295, 4_294_967_296, u64::MAX] {
        assert_eq!(through::<u64>(value), Ok(value));
        assert_eq!(through::<u128>(value), Ok(value.into()));
    }
    for value in [-1, -24, -25, -256, -257, i64::MIN, i64::MAX] {
        assert_eq!(through::<i64>(value), Ok(value));
        assert_eq!(through::<i128>(value), Ok(value.into()));
    }
    for value in [i128::MIN, i128::MAX, -(1 << 64), -(1 << 64) - 1] {
        assert_eq!(through::<i128>(value), Ok(value));
    }
    assert_eq!(through::<u128>(u128::MAX), Ok(u128::MAX));
    assert!(through::<i128>(u128::MAX).is_err());
    assert!(through::<u128>(-1i128).is_err());
}

/// What other encoders write, and we never do.
#[test]
fn foreign_encodings_are_read() {
    reads("9f0102ff", vec![1u8, 2]);
    reads("7f6273746172ff", "str".to_owned());
    reads("bf616101ff", BTreeMap::from([("a".to_owned(), 1u8)]));
    reads("bf634e657701ff", Shape::New(1));
    reads("d9d9f7182a", 42u64);
    reads("c0c182182a02", (42u8, 2u8));
    reads("c241ff", 255u8);
    reads("c340", -1i8);
    reads("c2581100000000000000000000000000000000ff", 255u64);
    reads("c25f41014101ff", 257u16);
    reads("f7", Option::<u8>::None);
    reads("a164556e6974f6", Shape::Unit);
    reads("1b0000000000000001", 1u8);
    reads("c16161", "a".to_owned());
}

#[test]
fn types_with_a_form_for_people_use_it_in_readable_cbor_only() {
    let address = Ipv4Addr::new(10, 0, 0, 1);
    assert_eq!(readable::to_vec(&address).unwrap(), to_vec("10.0.0.1").unwrap());
    assert_eq!(readable::from_slice::<Ipv4Addr>(&to_vec("10.0.0.1").unwrap()), Ok(address));
    assert_eq!(to_vec(&address).unwrap(), hex("840a000001"));
    assert_eq!(from_slice::<Ipv4Addr>(&hex("840a000001")), Ok(address));
    assert_eq!(deterministic::to_vec(&address, Rules::STRICT).unwrap(), hex("840a000001"));
    let mut out = vec![1, 2];
    readable::to_writer(&address, &mut out).unwrap();
    assert_eq!(out[..2], [1, 2]);
    assert_eq!(out[2..], to_vec("10.0.0.1").unwrap());
}

#[test]
fn enums_are_a_text_or_a_map_of_one_entry() {
    for (value, digits) in [
        (Shape::Unit, "64556e6974"),
        (Shape::New(-1), "a1634e657720"),
        (Shape::Tuple(1, 2), "a1655475706c65820102"),
        (Shape::Named { a: 1 }, "a1654e616d6564a1616101"),
    ] {
        assert_eq!(to_vec(&value).unwrap(), hex(digits));
        reads(digits, value);
    }
    for digits in ["a0", "a2634e657701634e657701", "80", "01", "a1654e616d656401", "63626164"] {
        assert!(from_slice::<Shape>(&hex(digits)).is_err(), "{digits}");
    }
}

/// A sequence that does not know its length, and a map that tells it wrong.
struct Wrong;

impl Serialize for Wrong {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Unknown;
        impl Serialize for Unknown {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut seq = serializer.serialize_seq(None)?;
                (0..30u8).try_for_each(|number| seq.serialize_element(&number))?;
                seq.end()
            }
        }
        let mut map = serializer.serialize_map(Some(1000))?;
        map.serialize_entry("b", &Unknown)?;
        map.serialize_entry("a", &())?;
        map.end()
    }
}

#[test]
fn lengths_are_what_is_there() {
    let numbers = || array((0..30).map(integer));
    let (a, b) = ((text("a"), Value::Null), (text("b"), numbers()));
    assert_eq!(to_vec(&Wrong).unwrap(), to_vec(&map([b.clone(), a.clone()])).unwrap());
    assert_eq!(deterministic::to_vec(&Wrong, Rules::STRICT).unwrap(), to_vec(&map([a, b])).unwrap());
}

#[test]
fn keys_are_sorted_by_their_bytes_and_never_twice() {
    // The order of the example in RFC 8949 §4.2.1.
    let keys = ["0a", "1864", "20", "617a", "626161", "811864", "8120", "f4"];
    let values: Vec<Value> = keys.iter().map(|key| from_slice(&hex(key)).unwrap()).collect();
    let unsorted = map(values.iter().rev().cloned().map(|key| (key, Value::Null)));
    let expected = format!("a8{}", keys.map(|key| format!("{key}f6")).join(""));
    let bytes = deterministic::to_vec(&unsorted, Rules::STRICT).unwrap();
    assert_eq!(bytes, hex(&expected));
    assert_eq!(deterministic::check(&bytes, Rules::STRICT), Ok(()));

    let twice = map([(text("a"), integer(1)), (text("b"), integer(2)), (text("a"), integer(3))]);
    let refused = |at| Err(Error::NotDeterministic { at, rule: Rule::Duplicate });
    assert_eq!(deterministic::to_vec(&twice, Rules::STRICT), refused(7));
    assert_eq!(deterministic::check(&hex("a2616101616102"), Rules::STRICT), refused(4).map(|_: Vec<u8>| ()));
    let unsorted = Err(Error::NotDeterministic { at: 5, rule: Rule::Order });
    assert_eq!(deterministic::check(&hex("81a2616201616102"), Rules::STRICT), unsorted);
}

#[test]
fn what_is_not_deterministic_is_found_with_its_place() {
    for (digits, at, rule) in [
        ("1817", 0, Rule::Shortest),
        ("821900ff00", 1, Rule::Shortest),
        ("1a0000ffff", 0, Rule::Shortest),
        ("1b00000000ffffffff", 0, Rule::Shortest),
        ("3817", 0, Rule::Shortest),
        ("580100", 0, Rule::Shortest),
        ("780161", 0, Rule::Shortest),
        ("980100", 0, Rule::Shortest),
        ("b8010000", 0, Rule::Shortest),
        ("c240", 0, Rule::Shortest),
        ("c248ffffffffffffffff", 0, Rule::Shortest),
        ("c24a00010000000000000000", 0, Rule::Shortest),
        ("c25109090909090909090909090909090909090909", 0, Rule::Foreign),
        ("c35080000000000000000000000000000000", 0, Rule::Foreign),
        ("c2580901000000000000000000", 1, Rule::Shortest),
        ("81c100", 1, Rule::Foreign),
        ("81f7", 1, Rule::Foreign),
        ("8261619fff", 3, Rule::Definite),
        ("81f93c00", 1, Rule::Float),
    ] {
        let error = deterministic::check(&hex(digits), Rules::STRICT);
        assert_eq!(error, Err(Error::NotDeterministic { at, rule }), "{digits}");
    }
    assert_eq!(deterministic::check(&hex("810000"), Rules::STRICT), Err(Error::Trailing { at: 2, count: 1 }));
    assert_eq!(deterministic::check(&hex("c2509fffffffffffffffffffffffffffffff"), Rules::STRICT), Ok(()));
    assert_eq!(deterministic::check(&hex("c3507fffffffffffffffffffffffffffffff"), Rules::STRICT), Ok(()));
    assert_eq!(deterministic::check(&hex("c201"), Rules::STRICT), Err(Error::Malformed { at: 1 }));
    assert_eq!(deterministic::check(&hex("61ff"), Rules::STRICT), Err(Error::NotUtf8 { at: 1 }));
    // The type is looked at last.
    assert_eq!(deterministic::from_slice::<u8>(&hex("07"), Rules::STRICT), Ok(7));
    assert!(deterministic::from_slice::<u8>(&hex("1807"), Rules::STRICT).is_err());
    assert!(deterministic::from_slice::<u8>(&hex("6161"), Rules::STRICT).is_err());
}

#[derive(Debug, Deserialize)]
#[allow(dead_code)]
struct Trade {
    buyer: String,
    legs: Vec<Leg>,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code)]
struct Leg {
    rate: u32,
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let error = from_slice::<u32>(&to_vec("secret").unwrap()).unwrap_err().to_string();
    assert_eq!(error, "invalid type: text, expected u32 (at byte 0)");
    assert_eq!(from_slice::<u8>(&[1, 2, 3]), Err(Error::Trailing { at: 1, count: 2 }));
    assert_eq!(from_slice::<u8>(&[]), Err(Error::Truncated { at: 0 }));
    assert_eq!(from_slice::<u8>(&[0x1c]), Err(Error::Malformed { at: 0 }));
    assert_eq!(from_slice::<String>(&[0x61, 0xff]), Err(Error::NotUtf8 { at: 1 }));
    assert_eq!(from_slice::<(u8, u8)>(&hex("83010203")).unwrap_err().to_string(), "1 elements too many (at byte 0)");
    let trade = |json: serde_json::Value| from_slice::<Trade>(&to_vec(&json).unwrap()).unwrap_err();
    let wrong = trade(serde_json::json!({"buyer": "A", "legs": [{"rate": 1}, {"rate": -2}]}));
    assert_eq!(wrong.to_string(), "invalid value: integer `-2`, expected u32 (at byte 28)");
    let missing = trade(serde_json::json!({"buyer": "A", "legs": [{"rate": 1}, {}]}));
    assert_eq!(missing.to_string(), "missing field `rate` (at byte 22)");
}

#[test]
fn lengths_and_depths_are_not_trusted() {
    // Four billion elements announced, none there.
    assert_eq!(from_slice::<Vec<u64>>(&hex("9affffffff")), Err(Error::Truncated { at: 5 }));
    assert_eq!(from_slice::<String>(&hex("7bffffffffffffffff")), Err(Error::Truncated { at: 9 }));
    let deep = vec![0x81; 100_000];
    let too_deep = Error::TooDeep { at: 128, limit: 128 };
    assert_eq!(from_slice::<Value>(&deep).err(), Some(too_deep.clone()));
    assert_eq!(from_slice::<serde::de::IgnoredAny>(&deep).err(), Some(too_deep.clone()));
    assert_eq!(check_well_formed(&deep, Limits::NONE), Err(too_deep.clone()));
    assert_eq!(deterministic::check(&deep, Rules::STRICT), Err(too_deep));
    // Tags are passed over in a loop.
    assert_eq!(from_slice::<Value>(&[vec![0xc6; 100_000], vec![0]].concat()), Ok(integer(0)));
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Nest {
    End,
    New(Box<Nest>),
    Tuple(u8, Box<Nest>),
    Named { next: Box<Nest> },
}

/// What can be written can be read, up to the same level, whatever it is made of.
#[test]
fn the_limit_of_depth_is_the_same_for_writing_and_reading() {
    let arrays = |depth: usize| (0..depth).fold(Value::Null, |inner, _| array([inner]));
    let maps = |depth: usize| (0..depth).fold(Value::Null, |inner, _| map([(integer(1), inner)]));
    for value in [arrays(MAX_DEPTH.into()), maps(MAX_DEPTH.into())] {
        let bytes = to_vec(&value).unwrap();
        assert_eq!(from_slice::<Value>(&bytes), Ok(value));
        assert_eq!(deterministic::check(&bytes, Rules::STRICT), Ok(()));
    }
    for value in [arrays(129), maps(129)] {
        assert!(matches!(to_vec(&value), Err(Error::TooDeep { limit: MAX_DEPTH, .. })));
    }
    type Step = fn(Box<Nest>) -> Nest;
    let enums = |depth: u16, step: Step| (0..depth).fold(Nest::End, |inner, _| step(Box::new(inner)));
    let steps: [(u16, Step); 3] = [(1, Nest::New), (2, |next| Nest::Tuple(0, next)), (2, |next| Nest::Named { next })];
    for (levels, step) in steps {
        let most = enums(MAX_DEPTH / levels, step);
        let bytes = to_vec(&most).unwrap();
        assert_eq!(from_slice::<Nest>(&bytes), Ok(most));
        assert!(matches!(to_vec(&enums(MAX_DEPTH / levels + 1, step)), Err(Error::TooDeep { .. })));
    }
    let limits = Limits { depth: 1, ..Limits::NONE };
    assert!(to_vec_within(&array([integer(1)]), limits).is_ok());
    assert!(to_vec_within(&array([array([])]), limits).is_err());
}

#[test]
fn limits_of_size_are_kept_while_writing() {
    let limits = Limits { size: 100, ..Limits::NONE };
    let too_large = Err(Error::TooLarge { limit: 100 });
    assert_eq!(to_vec_within(&vec![7u8; 99], limits), too_large);
    assert_eq!(to_vec_within(&vec![7u8; 98], limits).map(|bytes| bytes.len()), Ok(100));
    assert_eq!(to_vec_within(&"x".repeat(1 << 20), limits), too_large);
    assert_eq!(deterministic::to_vec(&vec![7u8; 99], Rules { floats: false, limits }), too_large);
    assert_eq!(deterministic::check(&[0; 101], Rules { floats: false, limits }), Err(Error::TooLarge { limit: 100 }));
}
