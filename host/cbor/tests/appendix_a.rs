//! The examples of RFC 8949, appendix A: what they mean, and which of them are deterministic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use maxhost_cbor::deterministic::{self, Rules};
use maxhost_cbor::{Error, Limits, Rule, check_well_formed, from_slice, readable, to_vec};
use support::{Value, array, hex, integer, map, text};

const RULES: Rules = Rules { floats: true, limits: Limits::NONE };

/// Examples that are deterministic: they are written as they stand.
fn deterministic_examples() -> Vec<(&'static str, Value)> {
    let numbers = |range: std::ops::RangeInclusive<i128>| array(range.map(integer));
    vec![
        ("00", integer(0)),
        ("01", integer(1)),
        ("0a", integer(10)),
        ("17", integer(23)),
        ("1818", integer(24)),
        ("1819", integer(25)),
        ("1864", integer(100)),
        ("1903e8", integer(1000)),
        ("1a000f4240", integer(1_000_000)),
        ("1b000000e8d4a51000", integer(1_000_000_000_000)),
        ("1bffffffffffffffff", integer(18_446_744_073_709_551_615)),
        ("c249010000000000000000", integer(18_446_744_073_709_551_616)),
        ("3bffffffffffffffff", integer(-18_446_744_073_709_551_616)),
        ("c349010000000000000000", integer(-18_446_744_073_709_551_617)),
        ("20", integer(-1)),
        ("29", integer(-10)),
        ("3863", integer(-100)),
        ("3903e7", integer(-1000)),
        ("f90000", Value::Float(0.0)),
        ("f98000", Value::Float(-0.0)),
        ("f93c00", Value::Float(1.0)),
        ("fb3ff199999999999a", Value::Float(1.1)),
        ("f93e00", Value::Float(1.5)),
        ("f97bff", Value::Float(65_504.0)),
        ("fa47c35000", Value::Float(100_000.0)),
        ("fa7f7fffff", Value::Float(3.402_823_466_385_288_6e38)),
        ("fb7e37e43c8800759c", Value::Float(1.0e300)),
        ("f90001", Value::Float(5.960_464_477_539_063e-8)),
        ("f90400", Value::Float(0.000_061_035_156_25)),
        ("f9c400", Value::Float(-4.0)),
        ("fbc010666666666666", Value::Float(-4.1)),
        ("f97c00", Value::Float(f64::INFINITY)),
        ("f97e00", Value::Float(f64::from_bits(0x7ff8_0000_0000_0000))),
        ("f9fc00", Value::Float(f64::NEG_INFINITY)),
        ("f4", Value::Bool(false)),
        ("f5", Value::Bool(true)),
        ("f6", Value::Null),
        ("40", Value::Bytes(vec![])),
        ("4401020304", Value::Bytes(vec![1, 2, 3, 4])),
        ("60", text("")),
        ("6161", text("a")),
        ("6449455446", text("IETF")),
        ("62225c", text("\"\\")),
        ("62c3bc", text("\u{fc}")),
        ("63e6b0b4", text("\u{6c34}")),
        ("64f0908591", text("\u{10151}")),
        ("80", array([])),
        ("83010203", numbers(1..=3)),
        ("8301820203820405", array([integer(1), numbers(2..=3), numbers(4..=5)])),
        ("98190102030405060708090a0b0c0d0e0f101112131415161718181819", numbers(1..=25)),
        ("a0", map([])),
        ("a201020304", map([(integer(1), integer(2)), (integer(3), integer(4))])),
        ("a26161016162820203", map([(text("a"), integer(1)), (text("b"), numbers(2..=3))])),
        ("826161a161626163", array([text("a"), map([(text("b"), text("c"))])])),
        (
            "a56161614161626142616361436164614461656145",
            map("abcde".chars().map(|letter| (text(&letter.to_string()), text(&letter.to_uppercase().to_string())))),
        ),
    ]
}

/// Examples that mean something, but are not the only bytes for it.
fn other_examples() -> Vec<(&'static str, Value, Rule)> {
    let numbers = |range: std::ops::RangeInclusive<i128>| array(range.map(integer));
    let infinity = Value::Float(f64::INFINITY);
    let nested = || array([integer(1), numbers(2..=3), numbers(4..=5)]);
    let ab = || map([(text("a"), integer(1)), (text("b"), numbers(2..=3))]);
    vec![
        ("fa7f800000", infinity.clone(), Rule::Shortest),
        ("fa7fc00000", Value::Float(f64::from_bits(0x7ff8_0000_0000_0000)), Rule::Shortest),
        ("faff800000", Value::Float(f64::NEG_INFINITY), Rule::Shortest),
        ("fb7ff0000000000000", infinity, Rule::Shortest),
        ("fb7ff8000000000000", Value::Float(f64::from_bits(0x7ff8_0000_0000_0000)), Rule::Shortest),
        ("fbfff0000000000000", Value::Float(f64::NEG_INFINITY), Rule::Shortest),
        ("f7", Value::Null, Rule::Foreign),
        ("c074323031332d30332d32315432303a30343a30305a", text("2013-03-21T20:04:00Z"), Rule::Foreign),
        ("c11a514b67b0", integer(1_363_896_240), Rule::Foreign),
        ("c1fb41d452d9ec200000", Value::Float(1_363_896_240.5), Rule::Foreign),
        ("d74401020304", Value::Bytes(vec![1, 2, 3, 4]), Rule::Foreign),
        ("d818456449455446", Value::Bytes(b"dIETF".to_vec()), Rule::Foreign),
        ("d82076687474703a2f2f7777772e6578616d706c652e636f6d", text("http://www.example.com"), Rule::Foreign),
        ("5f42010243030405ff", Value::Bytes(vec![1, 2, 3, 4, 5]), Rule::Definite),
        ("7f657374726561646d696e67ff", text("streaming"), Rule::Definite),
        ("9fff", array([]), Rule::Definite),
        ("9f018202039f0405ffff", nested(), Rule::Definite),
        ("9f01820203820405ff", nested(), Rule::Definite),
        ("83018202039f0405ff", nested(), Rule::Definite),
        ("83019f0203ff820405", nested(), Rule::Definite),
        ("9f0102030405060708090a0b0c0d0e0f101112131415161718181819ff", numbers(1..=25), Rule::Definite),
        ("bf61610161629f0203ffff", ab(), Rule::Definite),
        ("826161bf61626163ff", array([text("a"), map([(text("b"), text("c"))])]), Rule::Definite),
        (
            "bf6346756ef563416d7421ff",
            map([(text("Fun"), Value::Bool(true)), (text("Amt"), integer(-2))]),
            Rule::Definite,
        ),
    ]
}

#[test]
fn deterministic_examples_are_read_written_and_accepted() {
    for (digits, value) in deterministic_examples() {
        let bytes = hex(digits);
        assert_eq!(from_slice::<Value>(&bytes).expect(digits), value, "{digits}");
        assert_eq!(readable::from_slice::<Value>(&bytes).expect(digits), value, "{digits}");
        assert_eq!(to_vec(&value).unwrap(), bytes, "{digits}");
        assert_eq!(readable::to_vec(&value).unwrap(), bytes, "{digits}");
        assert_eq!(deterministic::to_vec(&value, RULES).unwrap(), bytes, "{digits}");
        assert_eq!(deterministic::check(&bytes, RULES), Ok(()), "{digits}");
        assert_eq!(check_well_formed(&bytes, Limits::NONE), Ok(()), "{digits}");
    }
}

#[test]
fn floats_are_allowed_only_where_the_rules_say_so() {
    for (digits, value) in deterministic_examples() {
        let bytes = hex(digits);
        let refused = Err(Error::NotDeterministic { at: 0, rule: Rule::Float });
        let is_float = matches!(value, Value::Float(_));
        let expected = if is_float { refused.clone() } else { Ok(()) };
        assert_eq!(deterministic::check(&bytes, Rules::STRICT), expected, "{digits}");
        let written = deterministic::to_vec(&value, Rules::STRICT);
        assert_eq!(written, if is_float { refused.map(|()| vec![]) } else { Ok(bytes) }, "{digits}");
    }
}

#[test]
fn other_examples_are_read_but_not_accepted_as_deterministic() {
    for (digits, value, rule) in other_examples() {
        let bytes = hex(digits);
        assert_eq!(from_slice::<Value>(&bytes).expect(digits), value, "{digits}");
        let error = deterministic::check(&bytes, RULES).expect_err(digits);
        assert!(matches!(error, Error::NotDeterministic { rule: found, .. } if found == rule), "{digits}: {error:?}");
        assert_eq!(check_well_formed(&bytes, Limits::NONE), Ok(()), "{digits}");
    }
}

/// Appendix A has three simple values without a meaning. No Rust value is written as one.
#[test]
fn simple_values_without_a_meaning_are_refused() {
    for digits in ["f0", "f8ff", "f820"] {
        let error = from_slice::<Value>(&hex(digits)).expect_err(digits).to_string();
        assert!(error.contains("no meaning"), "{digits}: {error}");
        let error = deterministic::check(&hex(digits), RULES);
        assert_eq!(error, Err(Error::NotDeterministic { at: 0, rule: Rule::Foreign }), "{digits}");
        assert_eq!(check_well_formed(&hex(digits), Limits::NONE), Ok(()), "{digits}");
    }
    // Below 32 in two bytes is not well-formed at all (RFC 8949 §3.3).
    for digits in ["f800", "f818", "f81f"] {
        assert_eq!(from_slice::<Value>(&hex(digits)), Err(Error::Malformed { at: 0 }), "{digits}");
        assert_eq!(deterministic::check(&hex(digits), RULES), Err(Error::Malformed { at: 0 }), "{digits}");
        assert_eq!(check_well_formed(&hex(digits), Limits::NONE), Err(Error::Malformed { at: 0 }), "{digits}");
    }
}

/// What RFC 8949, appendix F, lists as not well-formed, by its kinds.
#[test]
fn what_is_not_well_formed_is_refused() {
    let truncated = [
        "18",
        "19",
        "1a",
        "1b",
        "1901",
        "1a0102",
        "1b01020304050607",
        "38",
        "58",
        "78",
        "98",
        "9a01ff00",
        "b8",
        "d8",
        "f8",
        "f900",
        "fa0000",
        "fb000000",
        "41",
        "61",
        "5affffffff00",
        "5bffffffffffffffff010203",
        "7affffffff00",
        "7b7fffffffffffffff010203",
        "81",
        "818181818181818181",
        "8200",
        "a1",
        "a20102",
        "a100",
        "a2000000",
        "c0",
        "5f4100",
        "7f6100",
        "9f",
        "9f0102",
        "bf",
        "bf01020102",
        "819f",
        "9f8000",
        "9f9f9f9f9fffffffff",
        "9f819f819f9fffffff",
    ];
    for digits in truncated {
        let error = from_slice::<Value>(&hex(digits)).expect_err(digits);
        assert_eq!(error, Error::Truncated { at: digits.len() / 2 }, "{digits}");
        assert_eq!(check_well_formed(&hex(digits), Limits::NONE), Err(error), "{digits}");
        assert!(deterministic::check(&hex(digits), RULES).is_err(), "{digits}");
    }
    let malformed = [
        "1c",
        "1d",
        "1e",
        "3c",
        "3d",
        "3e",
        "5c",
        "5d",
        "5e",
        "7c",
        "7d",
        "7e",
        "9c",
        "9d",
        "9e",
        "bc",
        "bd",
        "be",
        "dc",
        "dd",
        "de",
        "fc",
        "fd",
        "fe",
        "5f00ff",
        "5f21ff",
        "5f6100ff",
        "5f80ff",
        "5fa0ff",
        "5fc000ff",
        "5fe0ff",
        "7f4100ff",
        "5f5f4100ffff",
        "7f7f6100ffff",
        "ff",
        "81ff",
        "8200ff",
        "a1ff",
        "a1ff00",
        "a100ff",
        "a20000ff",
        "9f81ff",
        "bf00ff",
        "1f",
        "3f",
        "df",
    ];
    for digits in malformed {
        let error = from_slice::<Value>(&hex(digits)).expect_err(digits);
        assert!(matches!(error, Error::Malformed { .. }), "{digits}: {error:?}");
        assert!(matches!(check_well_formed(&hex(digits), Limits::NONE), Err(Error::Malformed { .. })), "{digits}");
        assert!(deterministic::check(&hex(digits), RULES).is_err(), "{digits}");
    }
}
