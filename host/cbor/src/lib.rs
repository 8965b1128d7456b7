//! CBOR (RFC 8949) for serde, the same code on both sides of the fence: in the host, and in guests, where it must be
//! small. There is no `std` in it, and nothing is allocated but the values themselves.
//!
//! One data model, written in three forms:
//!
//! | form | for | types with a form for people (UUIDs, addresses) | order of map keys |
//! |---|---|---|---|
//! | [`to_vec`], [`from_slice`] | the host's own records | are written as bytes | as the type gives them |
//! | [`readable`] | what also exists as JSON: arguments, messages, results | are written as text | as the type gives them |
//! | [`deterministic`] | what is hashed and signed | are written as bytes | sorted: one value, one sequence of bytes |
//!
//! All three write integers, lengths and floats in their shortest form and only definite lengths (the preferred
//! serialization of RFC 8949 §4.1). All read whatever RFC 8949 calls well-formed; [`deterministic::check`] alone is
//! strict. Integers beyond 64 bits are the big integers of RFC 8949 §3.4.3. Other tags are passed over when reading.
//!
//! Reading is as free as JSON is where nothing is lost by it: an integer is accepted where a float is expected, an
//! integral float where an integer is, and an integer as a map's key may be text.

#![no_std]

extern crate alloc;

mod cursor;
mod de;
pub mod deterministic;
mod error;
mod float;
mod form;
mod head;
mod key;
pub mod readable;
mod ser;
mod well_formed;

use alloc::vec::Vec;
use core::marker::PhantomData;

use serde::de::Deserialize;
use serde::ser::Serialize;

pub use error::{Error, Rule};
pub use well_formed::check_well_formed;

use crate::form::Compact;

/// How deep arrays and maps may be nested, when writing and when reading, unless [`Limits`] say less. No message can
/// exhaust the stack of whoever reads it.
pub const MAX_DEPTH: u16 = 128;

/// How much is written or read at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Levels of arrays and maps. The encoding of an enum's variant with content is a level of its own.
    pub depth: u16,
    /// Bytes of the whole.
    pub size: usize,
}

impl Limits {
    /// [`MAX_DEPTH`] levels, and any size.
    pub const NONE: Limits = Limits { depth: MAX_DEPTH, size: usize::MAX };
}

/// The bytes of a value, in the compact form.
///
/// # Errors
/// [`Error::TooDeep`], or what the value's own `Serialize` reports.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    to_vec_within(value, Limits::NONE)
}

/// The bytes of a value, in the compact form. Stops at the limits.
///
/// # Errors
/// As [`to_vec`], and [`Error::TooLarge`].
pub fn to_vec_within<T: Serialize + ?Sized>(value: &T, limits: Limits) -> Result<Vec<u8>, Error> {
    ser::to_vec::<Compact, T>(value, limits)
}

/// The value in `bytes`, which must hold exactly one. Types with a form for people are read from their bytes.
///
/// # Errors
/// The bytes are not CBOR, are nested deeper than [`MAX_DEPTH`], or are not of the type.
pub fn from_slice<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Error> {
    from_slice_within(bytes, Limits::NONE)
}

/// As [`from_slice`], within limits.
///
/// # Errors
/// As [`from_slice`], and [`Error::TooLarge`].
pub fn from_slice_within<'de, T: Deserialize<'de>>(bytes: &'de [u8], limits: Limits) -> Result<T, Error> {
    de::from_slice::<Compact, _>(PhantomData, bytes, limits)
}
