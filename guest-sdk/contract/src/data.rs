//! The data of states and commands: deterministic CBOR, and what types they are made of.

use alloc::string::String;
use alloc::vec::Vec;

use maxhost_cbor::deterministic::{self, Rules};
use maxhost_cbor::{Error, Limits};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{AnyParty, Hash, LinearId, Party, PublicKey, StateRef, Target, Timestamp};

/// Those of the ledger: no floats, 64 levels.
const RULES: Rules = Rules { floats: false, limits: Limits { depth: 64, size: 64 << 20 } };

/// The bytes of data.
///
/// # Errors
/// Data that has no deterministic form: a float, a key twice, nested too deep.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    deterministic::to_vec(value, RULES)
}

/// Reads data that the host has let through.
///
/// # Errors
/// Bytes that are not of the type.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    // The host has checked that they are deterministic, and checking them here again would cost as much as reading them.
    maxhost_cbor::from_slice_within(bytes, RULES.limits)
}

/// A type that fields of states may have. What it writes is part of the schema, and so of what identifies a type of states:
/// names and types of all fields, of the fields' fields too. [`#[data]`](crate::data) writes it for structs and enums.
pub trait DataType {
    /// Appends the type in words.
    fn type_words(out: &mut String);

    /// Appends what the resolved pointers in it lead to. Most types have none.
    fn pointers(&self, out: &mut Vec<Target>) {
        let _ = out;
    }
}

macro_rules! plain {
    ($($type:ty = $word:literal),* $(,)?) => { $(
        impl DataType for $type {
            fn type_words(out: &mut String) {
                out.push_str($word);
            }
        }
    )* };
}

plain! {
    bool = "bool", u8 = "u8", u16 = "u16", u32 = "u32", u64 = "u64", u128 = "u128",
    i8 = "i8", i16 = "i16", i32 = "i32", i64 = "i64", i128 = "i128",
    String = "text", char = "char", () = "unit",
    Party = "party", AnyParty = "any-party", PublicKey = "key", Hash = "hash", LinearId = "uuid",
    Timestamp = "time", StateRef = "state-ref",
}

impl<T: DataType> DataType for Option<T> {
    fn type_words(out: &mut String) {
        out.push_str("optional ");
        T::type_words(out);
    }

    fn pointers(&self, out: &mut Vec<Target>) {
        self.iter().for_each(|value| value.pointers(out));
    }
}

impl<T: DataType> DataType for Vec<T> {
    fn type_words(out: &mut String) {
        out.push_str("list of ");
        T::type_words(out);
    }

    fn pointers(&self, out: &mut Vec<Target>) {
        self.iter().for_each(|value| value.pointers(out));
    }
}

impl<K: DataType, V: DataType> DataType for alloc::collections::BTreeMap<K, V> {
    fn type_words(out: &mut String) {
        out.push_str("map of ");
        K::type_words(out);
        out.push_str(" to ");
        V::type_words(out);
    }

    fn pointers(&self, out: &mut Vec<Target>) {
        for (key, value) in self {
            key.pointers(out);
            value.pointers(out);
        }
    }
}

impl<T: DataType, const N: usize> DataType for [T; N] {
    fn type_words(out: &mut String) {
        use core::fmt::Write;
        // Writing to a string cannot fail.
        let _ = write!(out, "{N} of ");
        T::type_words(out);
    }

    fn pointers(&self, out: &mut Vec<Target>) {
        self.iter().for_each(|value| value.pointers(out));
    }
}
