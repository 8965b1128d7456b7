//! Why bytes are not the value that was asked for, or a value cannot be written.

use alloc::string::{String, ToString};
use core::fmt;

/// Why bytes are not the value that was asked for, or a value cannot be written. Offsets count bytes from the start of
/// what is read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The bytes end in the middle of a value.
    Truncated {
        /// How many bytes there are.
        at: usize,
    },
    /// What begins at this offset is nothing that CBOR knows.
    Malformed {
        /// The offset in the input, bytes.
        at: usize,
    },
    /// A text is not UTF-8.
    NotUtf8 {
        /// Where the text begins, behind its length.
        at: usize,
    },
    /// Arrays and maps are nested too deep.
    TooDeep {
        /// Where the level that is one too many begins.
        at: usize,
        /// How many levels are allowed.
        limit: u16,
    },
    /// There are more bytes than are allowed.
    TooLarge {
        /// How many are allowed.
        limit: usize,
    },
    /// Bytes follow the value.
    Trailing {
        /// Where the value ends.
        at: usize,
        /// How many follow.
        count: usize,
    },
    /// The bytes are well-formed, but not the only ones for their value, or the value has no deterministic bytes.
    NotDeterministic {
        /// The offset in the input, bytes.
        at: usize,
        /// The rule that is broken.
        rule: Rule,
    },
    /// The bytes are fine but not of the type, or the value refuses to be written.
    Type {
        /// Where the value begins that does not fit; `None` when nothing was read.
        at: Option<usize>,
        /// What does not fit, in serde's words.
        message: String,
    },
}

/// A rule of [`deterministic`](crate::deterministic) encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// A number or a length has a shorter form (RFC 8949 §4.1).
    Shortest,
    /// A map's keys are not in the order of their bytes (RFC 8949 §4.2.1).
    Order,
    /// A map has a key twice (RFC 8949 §5.6).
    Duplicate,
    /// A length is not given beforehand (RFC 8949 §4.2.1).
    Definite,
    /// Floats are not allowed here.
    Float,
    /// A tag other than those of big integers, `undefined` or an unassigned simple value: readers pass over them, so
    /// that they would be other bytes for the same value.
    Foreign,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Shortest => "the number is not in its shortest form",
            Rule::Order => "the keys of the map are not sorted",
            Rule::Duplicate => "the map has a key twice",
            Rule::Definite => "the length is not given beforehand",
            Rule::Float => "floats are not allowed",
            Rule::Foreign => "only the tags of big integers and the values false, true and null are allowed",
        })
    }
}

impl Error {
    /// Where it was noticed, if it belongs to one place.
    #[must_use]
    pub fn offset(&self) -> Option<usize> {
        match self {
            Error::Truncated { at }
            | Error::Malformed { at }
            | Error::NotUtf8 { at }
            | Error::TooDeep { at, .. }
            | Error::Trailing { at, .. }
            | Error::NotDeterministic { at, .. } => Some(*at),
            Error::Type { at, .. } => *at,
            Error::TooLarge { .. } => None,
        }
    }

    #[cold]
    pub(crate) fn of_type(message: impl Into<String>) -> Error {
        Error::Type { at: None, message: message.into() }
    }

    /// Says where, if that is not known from deeper inside.
    #[cold]
    pub(crate) fn found_at(self, offset: usize) -> Error {
        match self {
            Error::Type { at: None, message } => Error::Type { at: Some(offset), message },
            other => other,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Truncated { at } => write!(f, "the bytes end after {at}, in the middle of a value"),
            Error::Malformed { at } => write!(f, "byte {at} is not CBOR"),
            Error::NotUtf8 { at } => write!(f, "the text at byte {at} is not UTF-8"),
            Error::TooDeep { at, limit } => write!(f, "nested deeper than {limit} levels at byte {at}"),
            Error::TooLarge { limit } => write!(f, "larger than {limit} bytes"),
            Error::Trailing { count, .. } => write!(f, "{count} bytes follow the value"),
            Error::NotDeterministic { at, rule } => write!(f, "not deterministic at byte {at}: {rule}"),
            Error::Type { at: Some(at), message } => write!(f, "{message} (at byte {at})"),
            Error::Type { at: None, message } => f.write_str(message),
        }
    }
}

impl core::error::Error for Error {}

impl serde::ser::Error for Error {
    #[cold]
    fn custom<T: fmt::Display>(message: T) -> Error {
        Error::of_type(message.to_string())
    }
}

impl serde::de::Error for Error {
    #[cold]
    fn custom<T: fmt::Display>(message: T) -> Error {
        Error::of_type(message.to_string())
    }
}
