//! JSON text: read exactly, or refused with the place and the reason.
//!
//! A JSON library may round a number to the nearest that it can hold, and let the last of two equal keys win. Here such
//! text is refused:
//!
//! - a whole number beyond 64 bits (below -2^63 or above 2^64-1);
//! - a number with a fraction or an exponent that no float of 64 bits holds: one of more than 17 significant digits that is
//!   not exactly a float, one that is too large, or too small. Up to 17 digits are the digits of one float, which is
//!   meant (IEEE 754-2019 §5.12.2). But where the nearest float is exactly a number of that many digits itself, nobody who
//!   means it writes another: `1.0000000000000001` is not 1, and `9007199254740993.0` not 9007199254740992;
//! - an object with a key twice (RFC 8259 §4 leaves open what it means).

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::Value as Json;
use serde_json::error::Category;

use crate::codes::Code;
use crate::error::Problem;
use crate::invalid::{Invalid, excerpt};
use crate::json_path::JsonPath;

/// So many significant digits tell every float of 64 bits apart.
const DIGITS: usize = 17;
/// A number of no more digits comes back from the float that is nearest to it.
const SURE_DIGITS: usize = 15;
/// No float of 64 bits has more significant digits than this, when all are written.
const ALL_DIGITS: usize = 767;

/// The value of JSON text.
///
/// # Errors
/// [`Invalid::Json`] if it is no JSON, is nested deeper than `serde_json` allows (127 levels), or would not be kept as it
/// is.
pub fn parse_json(text: &str) -> Result<Json, Invalid> {
    let json = serde_json::from_str(text).map_err(|error| Invalid::Json {
        path: None,
        line: Some((error.line(), error.column())),
        reason: reason(&error),
    })?;
    Reader { text, at: 0 }.value(JsonPath::Root)?;
    Ok(json)
}

/// The value of the JSON text that a flow is to be started with.
///
/// # Errors
/// `arguments-invalid`, where [`parse_json`] refuses. Details: `path`, or `line` and `column`.
pub fn parse_arguments(text: &str) -> Result<Json, Problem> {
    parse_json(text).map_err(|error| match error {
        Invalid::Json { path: Some(path), reason, .. } => {
            let place = match path.as_str() {
                "" => "the arguments".to_owned(),
                path => format!("arguments{}", path.replace('/', ".")),
            };
            let remedy = match reason.starts_with(HAS_THE_KEY) {
                true => "say once what is meant: readers differ in which of the two counts",
                false => "change the value, or give the arguments as CBOR, which has whole numbers of 128 bits",
            };
            Problem::new(Code::ArgumentsInvalid, format!("{place}: {reason}")).remedy(remedy).detail("path", path)
        }
        Invalid::Json { line: Some((line, column)), reason, .. } => {
            Problem::new(Code::ArgumentsInvalid, format!("the arguments are not JSON: {reason}"))
                .remedy("give the arguments as one JSON object")
                .detail("line", line.to_string())
                .detail("column", column.to_string())
        }
        other => Problem::new(Code::ArgumentsInvalid, other.to_string()),
    })
}

/// What the reason begins with if an object has a key twice.
const HAS_THE_KEY: &str = "it has the key";

fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match error.classify() {
        Category::Eof => format!("it ends too early: {text}"),
        _ if text.starts_with("recursion limit exceeded") => {
            text.replace("recursion limit exceeded", "nested too deep")
        }
        _ if text.starts_with("number out of range") => text.replace("number out of range", "the number is too large"),
        _ => text,
    }
}

/// Goes through text that is known to be JSON, no deeper nested than `serde_json` allows.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    fn skip_while(&mut self, skipped: impl Fn(u8) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let length = rest.bytes().position(|byte| !skipped(byte)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn space(&mut self) {
        self.skip_while(|byte| byte.is_ascii_whitespace());
    }

    /// The next byte that is no space, not passed over.
    fn next(&mut self) -> u8 {
        self.space();
        self.peek()
    }

    fn value(&mut self, path: JsonPath<'_>) -> Result<(), Invalid> {
        match self.next() {
            b'{' => self.object(path),
            b'[' => self.array(path),
            b'"' => {
                self.string();
                Ok(())
            }
            b'-' | b'0'..=b'9' => {
                let number = self.skip_while(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
                check_number(number).map_err(|reason| refused(path, reason))
            }
            _ => {
                self.skip_while(|byte| byte.is_ascii_alphabetic());
                Ok(())
            }
        }
    }

    /// Steps over the brackets and commas of an array or object: whether another item follows.
    fn another(&mut self, close: u8) -> bool {
        let end = self.next() == close;
        // The opening bracket and a comma are passed over alike.
        self.at += 1;
        if !end && self.next() == close {
            self.at += 1;
            return false;
        }
        !end
    }

    fn array(&mut self, path: JsonPath<'_>) -> Result<(), Invalid> {
        let mut index = 0;
        while self.another(b']') {
            self.value(JsonPath::Element(&path, index))?;
            index += 1;
        }
        Ok(())
    }

    fn object(&mut self, path: JsonPath<'_>) -> Result<(), Invalid> {
        let mut keys = HashSet::new();
        while self.another(b'}') {
            self.space();
            let key = unescaped(self.string());
            self.space();
            // The colon.
            self.at += 1;
            self.value(JsonPath::Field(&path, &key))?;
            if keys.contains(&key) {
                return Err(refused(path, format!("{HAS_THE_KEY} '{}' twice", excerpt(&key))));
            }
            keys.insert(key);
        }
        Ok(())
    }

    /// A text with its quotes.
    fn string(&mut self) -> &'a str {
        let start = self.at;
        self.at += 1;
        loop {
            self.skip_while(|byte| byte != b'"' && byte != b'\\');
            match self.peek() {
                b'\\' => self.at += 2,
                _ => {
                    self.at += 1;
                    let end = self.at.min(self.text.len());
                    return self.text.get(start..end).unwrap_or_default();
                }
            }
        }
    }
}

fn refused(path: JsonPath<'_>, reason: String) -> Invalid {
    Invalid::Json { path: Some(path.to_string()), line: None, reason }
}

/// The text of a key with its quotes.
fn unescaped(quoted: &str) -> Cow<'_, str> {
    match quoted.get(1..quoted.len().saturating_sub(1)) {
        Some(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
        _ => Cow::Owned(serde_json::from_str(quoted).unwrap_or_default()),
    }
}

/// Whether a number is kept as it is.
fn check_number(text: &str) -> Result<(), String> {
    if !text.contains(['.', 'e', 'E']) {
        return match text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok() {
            true => Ok(()),
            false => {
                Err(format!("{} is a whole number beyond 64 bits, which JSON arguments cannot carry", excerpt(text)))
            }
        };
    }
    let given = significant(text);
    let Ok(float) = text.parse::<f64>() else { return Err(format!("{} is not a number", excerpt(text))) };
    let exactly = || significant(&format!("{float:.ALL_DIGITS$e}")) == given;
    let shortest = || significant(&format!("{float:e}")) == given;
    // Floats next to zero have fewer digits to tell them apart.
    let kept = match float.is_normal() {
        true => match given.0.len() {
            // All numbers of so many digits are told apart by the floats that are nearest to them.
            digits if digits <= SURE_DIGITS => true,
            digits if digits <= DIGITS => shortest() || !is_short(float) || exactly(),
            _ => exactly(),
        },
        false => float.is_finite() && (shortest() || exactly()),
    };
    if kept { Ok(()) } else { Err(format!("{} would be rounded: a float of 64 bits does not hold it", excerpt(text))) }
}

/// Whether the fewest digits that tell a float from all others are all that it has.
fn is_short(float: f64) -> bool {
    significant(&format!("{float:e}")) == significant(&format!("{float:.ALL_DIGITS$e}"))
}

/// Whether whoever wrote a float in JSON wrote this very integer, as far as the float tells: none if it has a fraction, and none
/// if the text may have been that of another integer, which only was rounded to it. Below 2^53 in magnitude it is the integer, since
/// [`parse_json`] has taken the text; readers of integers take floats below 2^63.
pub fn is_exact_integer(float: f64) -> bool {
    let magnitude = float.abs();
    float.fract() == 0.0
        && magnitude < 9_223_372_036_854_775_808.0
        && (magnitude < 9_007_199_254_740_992.0 || is_short(float))
}

/// The digits of a number, from the first to the last that is not zero, and the power of ten of the first. Zero has none.
fn significant(number: &str) -> (String, i64) {
    let number = number.trim_start_matches('-');
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let kept = digits.trim_start_matches('0');
    if kept.is_empty() {
        return (String::new(), 0);
    }
    let leading = digits.len() - kept.len();
    // An exponent that no number holds belongs to no float either.
    let exponent = exponent.parse::<i64>().unwrap_or(i64::MAX / 2);
    (kept.trim_end_matches('0').to_owned(), exponent + whole.len() as i64 - 1 - leading as i64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn refusal(text: &str) -> (Option<String>, String) {
        match parse_json(text) {
            Err(Invalid::Json { path, reason, .. }) => (path, reason),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn numbers_that_stay_themselves_are_taken() {
        for text in [
            "0",
            "-0",
            "-1",
            "9223372036854775807",
            "9223372036854775808",
            "18446744073709551615",
            "-9223372036854775808",
            "0.1",
            "0.10",
            "-0.0",
            "0.0e-999",
            "1e22",
            "1E+22",
            "1.7976931348623157e308",
            "2.2250738585072014e-308",
            "5e-324",
            "0.30000000000000004",
            "0.10000000000000001",
            "100000000000000000000.0",
            "1.00000000000000000000000000",
            // The nearest float has more digits than anybody writes.
            "1e23",
            "7.205759403792795e16",
            "72057594037927952.0",
            "0.00000000000000010000000000000001",
            // Exactly 2^-20 and 2^70.
            "0.00000095367431640625",
            "1180591620717411303424.0",
            "0.1000000000000000055511151231257827021181583404541015625",
        ] {
            let json = parse_json(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(json.as_f64().unwrap(), text.parse::<f64>().unwrap(), "{text}");
        }
    }

    #[test]
    fn numbers_that_would_be_rounded_are_refused_with_their_place() {
        for number in ["18446744073709551616", "-9223372036854775809", "340282366920938463463374607431768211455"] {
            let (path, reason) = refusal(&format!(r#"{{"a/b": [1, {{"~": {number}}}]}}"#));
            assert_eq!(path.as_deref(), Some("/a~1b/1/~0"));
            assert_eq!(reason, format!("{number} is a whole number beyond 64 bits, which JSON arguments cannot carry"));
        }
        for number in [
            "1.0000000000000001",
            "0.50000000000000001",
            "9007199254740993.0",
            "9.007199254740993e15",
            "-4503599627370497.3",
            "0.12345678901234567891",
            "-9223372036854775809.0",
            "9.223372036854775809e18",
            "1e-400",
            "1e-325",
            "4e-324",
            "1.2345e-320",
            "0.1000000000000000055511151231257827021181583404541015624",
        ] {
            let (path, reason) = refusal(&format!("[{number}]"));
            assert_eq!(path.as_deref(), Some("/0"));
            assert!(reason.contains("would be rounded"), "{number}: {reason}");
        }
        for number in ["1e309", "-1e999", "1e99999999999999999999"] {
            let (path, reason) = refusal(number);
            assert!(path.is_none() && reason.contains("too large"), "{number}: {reason}");
        }
    }

    #[test]
    fn a_float_is_an_integer_where_no_other_integer_was_written() {
        for exact in [0.0, -0.0, 1.0, -3.0, 9_007_199_254_740_991.0, 9_007_199_254_740_992.0, 1e18, -9e18] {
            assert!(is_exact_integer(exact), "{exact}");
        }
        // 2^56+16 is written with other digits, and from 2^63 on no reader of integers takes floats.
        for other in [0.5, -1.25, 72_057_594_037_927_952.0, 9_223_372_036_854_775_808.0, 1e19, 1e30, f64::MAX] {
            assert!(!is_exact_integer(other) && !is_exact_integer(-other), "{other}");
        }
        assert!(!is_exact_integer(f64::NAN) && !is_exact_integer(f64::INFINITY));
    }

    #[test]
    fn keys_are_there_once() {
        let (path, reason) = refusal(r#"{"x": [{}, {"a": 1, "b": {"a": 2}, "\u0061": 3}]}"#);
        assert_eq!((path.as_deref(), reason.as_str()), (Some("/x/1"), "it has the key 'a' twice"));
        let fine = json!({"a": {"a": {"a": 1}}, "": "", "\"": ["\\", "]}"], "b": []});
        assert_eq!(parse_json(&fine.to_string()).unwrap(), fine);
        assert_eq!(parse_json(" { \"a\" : [ 1 , [ ] , { } ] } ").unwrap(), json!({"a": [1, [], {}]}));
    }

    #[test]
    fn what_is_no_json_is_refused_with_line_and_column() {
        for (text, words) in [
            ("", "too early"),
            ("{", "too early"),
            ("{\n\"a\": tru}", "line 2 column 9"),
            ("[1] 2", "trailing characters"),
            ("NaN", "expected"),
            ("01", "invalid number"),
            (r#""\ud800""#, "escape"),
        ] {
            let (path, reason) = refusal(text);
            assert!(path.is_none() && reason.contains(words), "{text}: {reason}");
        }
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse_json(&nested(127)).is_ok());
        assert!(refusal(&nested(128)).1.contains("nested too deep"));
        assert!(refusal(&nested(1_000_000)).1.contains("nested too deep"));
        assert_eq!(parse_json(r#""a\u0000b""#).unwrap(), json!("a\0b"));
    }

    #[test]
    fn refused_arguments_say_where() {
        let problem = parse_arguments(r#"{"a": [1e400]}"#).unwrap_err();
        assert_eq!((problem.code, problem.details["line"].as_str()), (Code::ArgumentsInvalid, "1"));
        let problem = parse_arguments(r#"{"a": [18446744073709551616]}"#).unwrap_err();
        assert_eq!(problem.details["path"], "/a/0");
        assert!(problem.message.starts_with("arguments.a.0: 18446744073709551616 is a whole number"), "{problem}");
        assert!(problem.remedy.contains("128 bits"), "{}", problem.remedy);
        let twice = parse_arguments(r#"{"": 1, "": 1}"#).unwrap_err();
        assert!(twice.message.starts_with("the arguments: it has the key"), "{twice}");
        assert!(twice.remedy.contains("once"), "{}", twice.remedy);
    }

    proptest! {
        /// Whatever a JSON library writes for a float comes back as that float.
        #[test]
        fn floats_survive(float in any::<f64>().prop_filter("finite", |float| float.is_finite())) {
            for text in [format!("{float:?}"), format!("{float:e}"), format!("{float:.16e}"), json!(float).to_string()] {
                // Of floats next to zero the shortest digits are asked for.
                if text.contains(['.', 'e']) && (float.is_normal() || !text.contains(".16e")) {
                    if let Ok(json) = parse_json(&text) {
                        prop_assert_eq!(json.as_f64().unwrap().to_bits(), float.to_bits());
                    } else {
                        prop_assert!(!float.is_normal(), "{text}");
                    }
                }
            }
        }

        /// An integer that is written with a point is that integer, or is not taken for any.
        #[test]
        fn integers_with_a_point_are_themselves_or_none(whole in any::<i64>(), bits in 0_u32..63) {
            let whole = whole >> bits;
            if let Ok(json) = parse_json(&format!("{whole}.0")) {
                let float = json.as_f64().unwrap();
                prop_assert!(!is_exact_integer(float) || float as i128 == i128::from(whole), "{whole}: {float}");
                prop_assert!(whole.unsigned_abs() >= 1 << 53 || is_exact_integer(float), "{whole}");
            } else {
                prop_assert!(whole.unsigned_abs() > 1 << 53, "{whole}");
            }
        }

        #[test]
        fn any_text_gives_an_answer(text in "[\\[\\]{}\",:0-9eE.+\\-a\\\\ ]{0,30}") {
            let ours = parse_json(&text);
            let theirs = serde_json::from_str::<Json>(&text);
            if let Ok(json) = ours {
                prop_assert_eq!(theirs.unwrap(), json);
            } else if theirs.is_ok() {
                let explained = matches!(ours, Err(Invalid::Json { path: Some(_), .. }));
                prop_assert!(explained);
            }
        }
    }
}
