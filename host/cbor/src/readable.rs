//! The form for data that also exists as JSON: types that know a form for people use it, because that is what their
//! JSON Schema says.

use alloc::vec::Vec;
use core::marker::PhantomData;

use serde::de::{Deserialize, DeserializeSeed};
use serde::ser::Serialize;

use crate::form::Readable;
use crate::{Error, Limits, de, ser};

/// The bytes of a value.
///
/// # Errors
/// [`Error::TooDeep`], or what the value's own `Serialize` reports.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    ser::to_vec::<Readable, T>(value, Limits::NONE)
}

/// Appends the bytes of a value to `out`. After an error `out` holds what was written until then.
///
/// # Errors
/// As [`to_vec`].
pub fn to_writer<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), Error> {
    ser::append::<Readable, T>(value, out, Limits::NONE)
}

/// The value in `bytes`, which must hold exactly one.
///
/// # Errors
/// The bytes are not CBOR, are nested deeper than [`MAX_DEPTH`](crate::MAX_DEPTH), or are not of the type.
pub fn from_slice<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Error> {
    from_slice_seed(PhantomData, bytes)
}

/// As [`from_slice`], for a value that needs more than its type to be read.
///
/// # Errors
/// As [`from_slice`].
pub fn from_slice_seed<'de, S: DeserializeSeed<'de>>(seed: S, bytes: &'de [u8]) -> Result<S::Value, Error> {
    de::from_slice::<Readable, S>(seed, bytes, Limits::NONE)
}
