//! Deterministic encoding (RFC 8949 §4.2.1): one value has one sequence of bytes, so that a hash of the bytes is a hash of
//! the value.
//!
//! Lengths, integers and floats have their shortest form, lengths are given beforehand, the keys of a map are sorted by
//! their bytes and no key is there twice. A big integer (RFC 8949 §3.4.3) is one that does not fit 64 bits, without
//! leading zeros, of at most 128 bits. Floats are refused unless [`Rules`] allow them. Other tags, `undefined` and
//! unassigned simple values are refused: readers pass over them, so they would be other bytes for the same value.
//!
//! [`check`] accepts exactly the bytes that [`to_vec`] writes for some value.

use alloc::vec::Vec;
use core::marker::PhantomData;

use serde::de::Deserialize;
use serde::ser::Serialize;

use crate::cursor::Cursor;
use crate::error::{Error, Rule};
use crate::float::{Shortest, half_to_f64, shortest, single_to_f64};
use crate::form::{Compact, Deterministic};
use crate::head::{Head, byte, is_shortest, major};
use crate::{Limits, de, ser};

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Whether floats are.
    pub floats: bool,
    /// How much is.
    pub limits: Limits,
}

impl Rules {
    /// No floats, any size.
    pub const STRICT: Rules = Rules { floats: false, limits: Limits::NONE };
}

/// The only bytes for a value. Types with a form for people are written as bytes. A map that gives its length wrong, or
/// not at all, is written right.
///
/// # Errors
/// [`Error::NotDeterministic`] for a float that is not allowed and a key that a map has twice; [`Error::TooDeep`] and
/// [`Error::TooLarge`] at the limits; what the value's own `Serialize` reports.
pub fn to_vec<T: Serialize + ?Sized>(value: &T, rules: Rules) -> Result<Vec<u8>, Error> {
    to_vec_sized(value, rules, USUAL_SIZE)
}

/// As [`to_vec`], for a value that is likely to take so many bytes.
///
/// # Errors
/// Those of [`to_vec`].
pub fn to_vec_sized<T: Serialize + ?Sized>(value: &T, rules: Rules, size: usize) -> Result<Vec<u8>, Error> {
    if rules.floats {
        ser::to_vec_sized::<Deterministic<true>, T>(value, rules.limits, size)
    } else {
        ser::to_vec_sized::<Deterministic<false>, T>(value, rules.limits, size)
    }
}

/// Most of what is signed fits, so that encoding allocates once.
const USUAL_SIZE: usize = 256;

/// The value in `bytes`, which must be the only ones for it, as far as [`check`] can tell without its type.
///
/// # Errors
/// Those of [`check`]; the value is not of the type.
pub fn from_slice<'de, T: Deserialize<'de>>(bytes: &'de [u8], rules: Rules) -> Result<T, Error> {
    check(bytes, rules)?;
    de::from_slice::<Compact, _>(PhantomData, bytes, rules.limits)
}

/// As [`from_slice`], for bytes of which it is known that they are the only ones for a value.
///
/// # Errors
/// The bytes are no value of the type.
pub fn from_known_slice<'de, T: Deserialize<'de>>(bytes: &'de [u8], rules: Rules) -> Result<T, Error> {
    de::from_slice::<Compact, _>(PhantomData, bytes, rules.limits)
}

/// Whether `bytes` are one value in deterministic encoding.
///
/// # Errors
/// What is wrong, and where.
pub fn check(bytes: &[u8], rules: Rules) -> Result<(), Error> {
    if bytes.len() > rules.limits.size {
        return Err(Error::TooLarge { limit: rules.limits.size });
    }
    let mut checker = Checker { cursor: Cursor { bytes, at: 0 }, rules };
    checker.item(0)?;
    let at = checker.cursor.at;
    match bytes.len() - at {
        0 => Ok(()),
        count => Err(Error::Trailing { at, count }),
    }
}

struct Checker<'a> {
    cursor: Cursor<'a>,
    rules: Rules,
}

fn broken(rule: Rule, at: usize) -> Error {
    Error::NotDeterministic { at, rule }
}

impl Checker<'_> {
    /// Reads one item. `depth`: how many arrays and maps it lies in.
    fn item(&mut self, depth: u16) -> Result<(), Error> {
        let at = self.cursor.at;
        let (head, value) = self.head()?;
        match head.major() {
            major::BYTES => self.cursor.take(value).map(|_| ()),
            major::TEXT => {
                let text_at = self.cursor.at;
                let text = self.cursor.take(value)?;
                core::str::from_utf8(text).map(|_| ()).map_err(|_| Error::NotUtf8 { at: text_at })
            }
            major::ARRAY => {
                let depth = self.descend(at, depth)?;
                (0..value).try_for_each(|_| self.item(depth))
            }
            major::MAP => {
                let depth = self.descend(at, depth)?;
                self.entries(value, depth)
            }
            major::TAG => self.bignum(head, at),
            major::UNSIGNED | major::NEGATIVE => Ok(()),
            _ => self.simple(head, value, at),
        }
    }

    /// A head whose number is given, in its shortest form. Floats have a number too, which is judged elsewhere.
    fn head(&mut self) -> Result<(Head, u64), Error> {
        let at = self.cursor.at;
        let head = self.cursor.head()?;
        let value = head.value.ok_or(broken(Rule::Definite, at))?;
        if head.major() <= major::TAG && !is_shortest(head.first, value) {
            return Err(broken(Rule::Shortest, at));
        }
        Ok((head, value))
    }

    fn descend(&self, at: usize, depth: u16) -> Result<u16, Error> {
        let limit = self.rules.limits.depth;
        if depth >= limit { Err(Error::TooDeep { at, limit }) } else { Ok(depth + 1) }
    }

    fn entries(&mut self, count: u64, depth: u16) -> Result<(), Error> {
        let mut last: Option<&[u8]> = None;
        for _ in 0..count {
            let at = self.cursor.at;
            self.item(depth)?;
            let key = &self.cursor.bytes[at..self.cursor.at];
            match last.map(|last| last.cmp(key)) {
                Some(core::cmp::Ordering::Greater) => return Err(broken(Rule::Order, at)),
                Some(core::cmp::Ordering::Equal) => return Err(broken(Rule::Duplicate, at)),
                Some(core::cmp::Ordering::Less) | None => last = Some(key),
            }
            self.item(depth)?;
        }
        Ok(())
    }

    /// An integer that no head holds.
    fn bignum(&mut self, tag: Head, at: usize) -> Result<(), Error> {
        if !matches!(tag.first, byte::POSITIVE_BIGNUM | byte::NEGATIVE_BIGNUM) {
            return Err(broken(Rule::Foreign, at));
        }
        let bytes_at = self.cursor.at;
        let (head, length) = self.head()?;
        if head.major() != major::BYTES {
            return Err(Error::Malformed { at: bytes_at });
        }
        let bytes = self.cursor.take(length)?;
        let negative = tag.first == byte::NEGATIVE_BIGNUM;
        match bytes {
            [] | [0, ..] => Err(broken(Rule::Shortest, at)),
            _ if bytes.len() <= 8 => Err(broken(Rule::Shortest, at)),
            // What 128 bits with a sign cannot hold.
            [first, ..] if bytes.len() > 16 || negative && bytes.len() == 16 && *first >= 0x80 => {
                Err(broken(Rule::Foreign, at))
            }
            _ => Ok(()),
        }
    }

    fn simple(&mut self, head: Head, value: u64, at: usize) -> Result<(), Error> {
        let (float, width) = match head.first {
            byte::FALSE | byte::TRUE | byte::NULL => return Ok(()),
            byte::F16 => (half_to_f64(value as u16), 2),
            byte::F32 => (single_to_f64(value as u32), 4),
            byte::F64 => (f64::from_bits(value), 8),
            _ if head.first & 0x1f == 24 && value < 32 => return Err(Error::Malformed { at }),
            _ => return Err(broken(Rule::Foreign, at)),
        };
        if !self.rules.floats {
            return Err(broken(Rule::Float, at));
        }
        let needed = match shortest(float.to_bits()) {
            Shortest::Half(_) => 2,
            Shortest::Single(_) => 4,
            Shortest::Double(_) => 8,
        };
        if needed == width { Ok(()) } else { Err(broken(Rule::Shortest, at)) }
    }
}
