//! CBOR (RFC 8949) for serde: messages between flows, arguments and results.
//!
//! Made for guests: small, no allocation beyond the values themselves, borrowed text and bytes. And made for data that
//! began as JSON at a client: an integer is accepted where a float is expected and an integral float where an integer
//! is, integer map keys may be text, and types that know a human-readable form (identifiers, addresses) use it, because
//! that is what their JSON Schema says.

mod de;
mod ser;

use std::fmt;

pub use de::from_slice;
pub use ser::{to_vec, to_writer};

/// Deeper nesting than this is refused when reading, so that no message can exhaust the stack.
pub const MAX_DEPTH: u16 = 128;

/// Why bytes are not the value that was asked for, or a value cannot be written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The bytes end in the middle of a value.
    Truncated,
    /// The byte at this offset begins nothing that CBOR knows.
    Malformed {
        /// Offset from the start of the message.
        at: usize,
    },
    /// The text at this offset is not UTF-8.
    NotUtf8 {
        /// Offset from the start of the message.
        at: usize,
    },
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// There are this many bytes after the value.
    Trailing(usize),
    /// The bytes are fine, but are not of the type, or the value cannot be written: in serde's words.
    Type(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Truncated => f.write_str("the message ends in the middle of a value"),
            Error::Malformed { at } => write!(f, "byte {at} of the message is not CBOR"),
            Error::NotUtf8 { at } => write!(f, "the text at byte {at} of the message is not UTF-8"),
            Error::TooDeep => write!(f, "the message is nested deeper than {MAX_DEPTH} levels"),
            Error::Trailing(count) => write!(f, "{count} bytes follow the value"),
            Error::Type(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

impl serde::ser::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Error {
        Error::Type(message.to_string())
    }
}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Error {
        Error::Type(message.to_string())
    }
}

/// Major types, the upper three bits of an item's first byte.
mod major {
    pub const UNSIGNED: u8 = 0;
    pub const NEGATIVE: u8 = 1;
    pub const BYTES: u8 = 2;
    pub const TEXT: u8 = 3;
    pub const ARRAY: u8 = 4;
    pub const MAP: u8 = 5;
    pub const TAG: u8 = 6;
}

/// First bytes that stand for themselves.
mod byte {
    pub const FALSE: u8 = 0xf4;
    pub const TRUE: u8 = 0xf5;
    pub const NULL: u8 = 0xf6;
    pub const UNDEFINED: u8 = 0xf7;
    pub const F16: u8 = 0xf9;
    pub const F32: u8 = 0xfa;
    pub const F64: u8 = 0xfb;
    pub const BREAK: u8 = 0xff;
    /// Major type ARRAY, length unknown.
    pub const ARRAY_OPEN: u8 = 0x9f;
    /// Major type MAP, length unknown.
    pub const MAP_OPEN: u8 = 0xbf;
    /// Tag 2: a byte string that is a big unsigned integer.
    pub const POSITIVE_BIGNUM: u8 = 0xc2;
    /// Tag 3: the same for -1 - n.
    pub const NEGATIVE_BIGNUM: u8 = 0xc3;
}
