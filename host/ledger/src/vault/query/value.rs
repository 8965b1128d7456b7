//! Values that queries compare: of fields, and of literals (behaviour.md 12.6).

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A decimal number: an integer, and at most 18 digits behind the point. Below zero as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Number(
    /// In units of 10 to the power of -18. Every integer of 64 bits fits.
    i128,
);

/// The number one: values have eighteen digits behind the point.
const ONE: i128 = 1_000_000_000_000_000_000;

impl Number {
    /// An integer; `None` if it is beyond some 1.7 × 10^20.
    #[must_use]
    pub fn integer(value: i128) -> Option<Number> {
        value.checked_mul(ONE).map(Number)
    }

    /// Reads digits, and digits behind a point. `None` if they are none, or beyond the range.
    #[must_use]
    pub fn parse(text: &str) -> Option<Number> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !plain(whole) || !plain(fraction) || fraction.len() > 18 {
            return None;
        }
        let whole: i128 = whole.parse().ok()?;
        let padded: i128 = format!("{fraction:0<18}").parse().ok()?;
        let value = whole.checked_mul(ONE)?.checked_add(padded)?;
        Some(Number(if negative { -value } else { value }))
    }

    /// The sum; `None` beyond the range.
    #[must_use]
    pub fn plus(self, other: Number) -> Option<Number> {
        self.0.checked_add(other.0).map(Number)
    }

    /// Divided by a count, cut after 18 digits behind the point; `None` by zero.
    #[must_use]
    pub fn divided_by(self, count: u64) -> Option<Number> {
        self.0.checked_div(i128::from(count)).map(Number)
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Number {
        Number(i128::from(value) * ONE)
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Number {
        Number(i128::from(value) * ONE)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, fraction) =
            (self.0.unsigned_abs() / ONE.unsigned_abs(), self.0.unsigned_abs() % ONE.unsigned_abs());
        if fraction == 0 {
            return write!(f, "{sign}{whole}");
        }
        let digits = format!("{fraction:018}");
        write!(f, "{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

/// A value. The order is that of sorting: within a kind as the kind says, kinds one after the other, null last.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    /// False before true.
    Bool(bool),
    /// By size.
    Number(Number),
    /// By code point.
    Text(String),
    /// Byte by byte.
    Bytes(#[serde(with = "maxhost_model::octets")] Vec<u8>),
    /// Earlier first.
    Time(Timestamp),
    /// There is no value.
    Null,
}

/// How a [`Value`] begins in [`Value::sort_key`]: one byte a kind, in the order of sorting.
mod kind {
    pub(super) const BOOL: u8 = 1;
    pub(super) const NUMBER: u8 = 2;
    pub(super) const TEXT: u8 = 3;
    pub(super) const BYTES: u8 = 4;
    pub(super) const TIME: u8 = 5;
    pub(super) const NULL: u8 = 255;
}

/// Of a text or of bytes a sort key has so many bytes at most, so that any database can index it. Values that begin with
/// the same bytes have the same key.
pub const MAX_SORT_KEY: usize = 1024;

impl Value {
    /// Bytes that stand in the order of the values when they are compared byte by byte: what databases index and sort by.
    /// Values of one kind share their first byte.
    #[must_use]
    pub fn sort_key(&self) -> Vec<u8> {
        let cut = |first: u8, bytes: &[u8]| {
            let mut key = vec![first];
            key.extend_from_slice(bytes.get(..MAX_SORT_KEY).unwrap_or(bytes));
            key
        };
        match self {
            Value::Bool(value) => vec![kind::BOOL, u8::from(*value)],
            // Numbers below zero come first once the sign is turned round.
            Value::Number(Number(value)) => cut(kind::NUMBER, &(value ^ i128::MIN).to_be_bytes()),
            Value::Text(text) => cut(kind::TEXT, text.as_bytes()),
            Value::Bytes(bytes) => cut(kind::BYTES, bytes),
            Value::Time(time) => cut(kind::TIME, &time.nanos().to_be_bytes()),
            Value::Null => vec![kind::NULL],
        }
    }

    /// Whether [`Value::sort_key`] tells the value from every other one.
    #[must_use]
    pub fn has_whole_sort_key(&self) -> bool {
        match self {
            Value::Text(text) => text.len() <= MAX_SORT_KEY,
            Value::Bytes(bytes) => bytes.len() <= MAX_SORT_KEY,
            _ => true,
        }
    }

    /// A text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    /// How one compares to the other, as a condition sees it: `None`, which is neither true nor false, if one is null or
    /// they are of kinds that do not compare. A text compares to a time if it is one.
    #[must_use]
    pub fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Null, _) | (_, Value::Null) => None,
            (Value::Time(time), Value::Text(text)) => Some(time.cmp(&text.parse().ok()?)),
            (Value::Text(text), Value::Time(time)) => Some(text.parse::<Timestamp>().ok()?.cmp(time)),
            (Value::Bool(_), Value::Bool(_))
            | (Value::Number(_), Value::Number(_))
            | (Value::Text(_), Value::Text(_))
            | (Value::Bytes(_), Value::Bytes(_))
            | (Value::Time(_), Value::Time(_)) => Some(self.cmp(other)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_exact() {
        let number = |text: &str| Number::parse(text).unwrap();
        assert_eq!(number("1.50").to_string(), "1.5");
        assert_eq!(number("-0.000000000000000001").to_string(), "-0.000000000000000001");
        assert!(number("9007199254740993") > number("9007199254740992.5"));
        assert_eq!(number("18446744073709551615"), Number::from(u64::MAX));
        for bad in ["", "-", "1.", ".1", "1e3", "0.0000000000000000001", &"9".repeat(30)] {
            assert_eq!(Number::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn texts_compare_by_code_point_and_times_as_times() {
        let text = |text: &str| Value::text(text);
        assert_eq!(text("Z").compare(&text("a")), Some(Ordering::Less));
        assert_eq!(text("\u{ffff}").compare(&text("\u{10000}")), Some(Ordering::Less));
        let time = Value::Time("2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(time.compare(&text("2026-01-01T01:00:00.000+01:00")), Some(Ordering::Equal));
        assert_eq!(time.compare(&text("soon")), None);
        assert_eq!(time.compare(&Value::Number(Number::from(5_u64))), None);
        assert_eq!(Value::Null.compare(&Value::Null), None);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|number| Value::Number(Number::from(number))),
            (-3_i64..3).prop_map(|number| Value::Number(Number::from(number))),
            "\\PC{0,4}".prop_map(Value::Text),
            proptest::collection::vec(any::<u8>(), 0..4).prop_map(Value::Bytes),
            any::<u32>().prop_map(|nanos| Value::Time(Timestamp::from_nanos(nanos.into()))),
            Just(Value::Null),
        ]
    }

    proptest! {
        #[test]
        fn sort_keys_stand_in_the_order_of_the_values(one in any_value(), other in any_value()) {
            prop_assert_eq!(one.sort_key().cmp(&other.sort_key()), one.cmp(&other));
        }

        #[test]
        fn numbers_round_trip(value in any::<i64>(), fraction in 0_u64..1_000_000_000_000_000_000) {
            let text = format!("{value}.{fraction:018}");
            let number = Number::parse(&text).unwrap();
            prop_assert_eq!(Number::parse(&number.to_string()), Some(number));
            prop_assert_eq!(Number::parse(&value.to_string()), Some(Number::from(value)));
        }
    }
}
