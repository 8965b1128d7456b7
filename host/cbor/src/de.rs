//! Bytes to values. What it reserves is bounded by the bytes that are there.

use alloc::borrow::Cow;
use alloc::format;
use core::marker::PhantomData;

use serde::de::{self, Deserialize, DeserializeSeed, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use crate::Limits;
use crate::cursor::Cursor;
use crate::error::Error;
use crate::float::{half_to_f64, single_to_f64};
use crate::form::Form;
use crate::head::{Head, byte, major};
use crate::key::Key;

pub fn from_slice<'de, F: Form, S: DeserializeSeed<'de>>(
    seed: S,
    bytes: &'de [u8],
    limits: Limits,
) -> Result<S::Value, Error> {
    if bytes.len() > limits.size {
        return Err(Error::TooLarge { limit: limits.size });
    }
    let cursor = Cursor { bytes, at: 0 };
    let mut reader = Reader::<F> { cursor, item: 0, depth: 0, limit: limits.depth, form: PhantomData };
    let value = seed.deserialize(&mut reader).map_err(|error| error.found_at(reader.item))?;
    match bytes.len() - reader.cursor.at {
        0 => Ok(value),
        count => Err(Error::Trailing { at: reader.cursor.at, count }),
    }
}

struct Reader<'de, F> {
    cursor: Cursor<'de>,
    /// Where the item begins that was looked at last: what does not fit is there.
    item: usize,
    /// How many arrays and maps are open.
    depth: u16,
    limit: u16,
    form: PhantomData<F>,
}

enum Number {
    Unsigned(u64),
    Signed(i64),
    BigUnsigned(u128),
    BigSigned(i128),
    Float(f64),
}

impl Number {
    fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Number::Unsigned(value) => visitor.visit_u64(value),
            Number::Signed(value) => visitor.visit_i64(value),
            Number::BigUnsigned(value) => visitor.visit_u128(value),
            Number::BigSigned(value) => visitor.visit_i128(value),
            Number::Float(value) => visitor.visit_f64(value),
        }
    }

    /// A float without a fraction is an integer to JSON Schema, so it is one here.
    fn integral(self) -> Number {
        match self {
            // Below 2^63 in magnitude the conversion is exact.
            Number::Float(value) if value.abs() < 9_223_372_036_854_775_808.0 && value as i64 as f64 == value => {
                let value = value as i64;
                u64::try_from(value).map_or(Number::Signed(value), Number::Unsigned)
            }
            other => other,
        }
    }

    /// As a float, unless that would round it.
    fn float(self) -> Result<f64, Error> {
        // A float of 64 bits holds 53 digits of a binary number, wherever they stand.
        let exact = |magnitude: u64| 64 - magnitude.leading_zeros() <= 53 + magnitude.trailing_zeros();
        match self {
            Number::Float(value) => Ok(value),
            Number::Unsigned(value) if exact(value) => Ok(value as f64),
            Number::Signed(value) if exact(value.unsigned_abs()) => Ok(value as f64),
            _ => Err(Error::of_type("the integer has more digits than a float holds")),
        }
    }
}

impl<'de, F: Form> Reader<'de, F> {
    /// The head of the next item behind its tags.
    fn head(&mut self) -> Result<Head, Error> {
        self.item = self.cursor.at;
        self.cursor.peek_untagged()?;
        self.cursor.head()
    }

    fn number(&mut self, head: Head) -> Result<Option<Number>, Error> {
        let Some(value) = head.value else { return Ok(None) };
        Ok(Some(match (head.major(), head.first) {
            (major::UNSIGNED, _) => Number::Unsigned(value),
            (major::NEGATIVE, _) => match i64::try_from(value) {
                Ok(value) => Number::Signed(!value),
                Err(_) => Number::BigSigned(!i128::from(value)),
            },
            (major::TAG, byte::POSITIVE_BIGNUM) => match self.bignum()? {
                // Other encoders write small ones so, too.
                value if value <= u128::from(u64::MAX) => Number::Unsigned(value as u64),
                value => Number::BigUnsigned(value),
            },
            (major::TAG, byte::NEGATIVE_BIGNUM) => match i128::try_from(self.bignum()?) {
                Ok(value) => i64::try_from(!value).map_or(Number::BigSigned(!value), Number::Signed),
                Err(_) => return Err(Error::of_type("the number is below the range of 128 bits")),
            },
            (_, byte::F16) => Number::Float(half_to_f64(value as u16)),
            (_, byte::F32) => Number::Float(single_to_f64(value as u32)),
            (_, byte::F64) => Number::Float(f64::from_bits(value)),
            _ => return Ok(None),
        }))
    }

    /// The byte string of a big integer whose tag was read.
    fn bignum(&mut self) -> Result<u128, Error> {
        let at = self.cursor.at;
        let head = self.cursor.head()?;
        if head.major() != major::BYTES {
            return Err(Error::Malformed { at });
        }
        let bytes = self.cursor.string(head)?;
        let significant = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
        if significant.len() > 16 {
            return Err(Error::of_type("the number is beyond the range of 128 bits"));
        }
        Ok(significant.iter().fold(0, |value, byte| (value << 8) | u128::from(*byte)))
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth >= self.limit {
            return Err(Error::TooDeep { at: self.item, limit: self.limit });
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn visit_array<V: Visitor<'de>>(&mut self, length: Option<u64>, visitor: V) -> Result<V::Value, Error> {
        self.nested(|reader| {
            let mut items = Items { start: reader.item, reader, left: length };
            let value = visitor.visit_seq(&mut items)?;
            items.finish("elements")?;
            Ok(value)
        })
    }

    fn visit_map<V: Visitor<'de>>(&mut self, length: Option<u64>, visitor: V) -> Result<V::Value, Error> {
        self.nested(|reader| {
            let mut items = Items { start: reader.item, reader, left: length };
            let value = visitor.visit_map(&mut items)?;
            items.finish("entries")?;
            Ok(value)
        })
    }

    fn visit<V: Visitor<'de>>(&mut self, head: Head, visitor: V) -> Result<V::Value, Error> {
        if let Some(number) = self.number(head)? {
            return number.visit(visitor);
        }
        match head.major() {
            major::TEXT => match self.cursor.text(head)? {
                Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
                Cow::Owned(text) => visitor.visit_string(text),
            },
            major::BYTES => match self.cursor.string(head)? {
                Cow::Borrowed(bytes) => visitor.visit_borrowed_bytes(bytes),
                Cow::Owned(bytes) => visitor.visit_byte_buf(bytes),
            },
            major::ARRAY => self.visit_array(head.value, visitor),
            major::MAP => self.visit_map(head.value, visitor),
            _ => match head.first {
                byte::TRUE => visitor.visit_bool(true),
                byte::FALSE => visitor.visit_bool(false),
                byte::NULL | byte::UNDEFINED => visitor.visit_unit(),
                _ => Err(self.unassigned(head)),
            },
        }
    }

    /// A simple value without a meaning; one below 32 in two bytes is not even well-formed (RFC 8949 §3.3).
    #[cold]
    fn unassigned(&self, head: Head) -> Error {
        match head.value {
            Some(..32) if head.first & 0x1f == 24 => Error::Malformed { at: self.item },
            _ => Error::of_type("a simple value that has no meaning"),
        }
    }

    /// Says what was found where something else was expected.
    #[cold]
    fn mismatch(&mut self, head: Head, expected: &dyn Expected) -> Error {
        match self.number(head) {
            Ok(Some(Number::Unsigned(value))) => return de::Error::invalid_type(Unexpected::Unsigned(value), expected),
            Ok(Some(Number::Signed(value))) => return de::Error::invalid_type(Unexpected::Signed(value), expected),
            Ok(Some(Number::Float(value))) => return de::Error::invalid_type(Unexpected::Float(value), expected),
            Ok(Some(_)) => return de::Error::invalid_type(Unexpected::Other("big integer"), expected),
            Ok(None) => {}
            Err(error) => return error,
        }
        let found = match head.major() {
            // The text itself may be a secret and may be long: its type is enough.
            major::TEXT => Unexpected::Other("text"),
            major::BYTES => Unexpected::Other("byte string"),
            major::ARRAY => Unexpected::Seq,
            major::MAP => Unexpected::Map,
            _ => match head.first {
                byte::TRUE => Unexpected::Bool(true),
                byte::FALSE => Unexpected::Bool(false),
                byte::NULL | byte::UNDEFINED => Unexpected::Unit,
                _ => return self.unassigned(head),
            },
        };
        de::Error::invalid_type(found, expected)
    }

    fn integer<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        let head = self.head()?;
        match self.number(head)? {
            Some(number) => number.integral().visit(visitor),
            None => Err(self.mismatch(head, &visitor)),
        }
    }

    fn float(&mut self, expected: &dyn Expected) -> Result<f64, Error> {
        let head = self.head()?;
        match self.number(head)? {
            Some(number) => number.float(),
            None => Err(self.mismatch(head, expected)),
        }
    }
}

macro_rules! integers {
    ($($method:ident)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.integer(visitor)
        }
    )* };
}

impl<'de, F: Form> de::Deserializer<'de> for &mut Reader<'de, F> {
    type Error = Error;

    fn is_human_readable(&self) -> bool {
        F::HUMAN_READABLE
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let head = self.head()?;
        self.visit(head, visitor)
    }

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let value = self.float(&visitor)?;
        if value.is_finite() && !(value as f32).is_finite() {
            return Err(Error::of_type("the number is beyond the range of a float of 32 bits"));
        }
        visitor.visit_f64(value)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let value = self.float(&visitor)?;
        visitor.visit_f64(value)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let head = self.head()?;
        if head.major() != major::TEXT {
            return Err(self.mismatch(head, &visitor));
        }
        self.visit(head, visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if matches!(self.cursor.peek()?, byte::NULL | byte::UNDEFINED) {
            self.cursor.at += 1;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let head = self.head()?;
        match head.major() {
            major::MAP => self.visit_map(head.value, visitor),
            major::ARRAY => self.visit_array(head.value, visitor),
            _ => Err(self.mismatch(head, &visitor)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let head = self.head()?;
        if head.major() == major::TEXT {
            return visitor.visit_enum(self.cursor.text(head)?.into_deserializer());
        }
        if head.major() != major::MAP {
            return Err(self.mismatch(head, &visitor));
        }
        if head.value.is_some_and(|entries| entries != 1) {
            return Err(de::Error::invalid_value(Unexpected::Map, &"a map with one entry, named as the variant"));
        }
        self.nested(|reader| {
            let value = visitor.visit_enum(Variant { reader: &mut *reader })?;
            if head.value.is_none() {
                let at = reader.cursor.at;
                if reader.cursor.take(1)? != [byte::BREAK] {
                    return Err(Error::Malformed { at });
                }
            }
            Ok(value)
        })
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool bytes byte_buf unit unit_struct seq tuple tuple_struct map
    }
}

/// The elements of an array, or the entries of a map. `left`: how many are unread, `None` until the break.
struct Items<'a, 'de, F> {
    reader: &'a mut Reader<'de, F>,
    /// Where the array or map begins.
    start: usize,
    left: Option<u64>,
}

impl<F: Form> Items<'_, '_, F> {
    /// Whether there is one more; takes it off the count.
    fn advance(&mut self) -> Result<bool, Error> {
        let more = match &mut self.left {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => self.reader.cursor.peek()? != byte::BREAK,
        };
        if !more {
            // What is found wrong from here on, a missing field say, is wrong with the whole.
            self.reader.item = self.start;
        }
        Ok(more)
    }

    fn finish(self, items: &str) -> Result<(), Error> {
        let cursor = &mut self.reader.cursor;
        let unread = match self.left {
            Some(unread) => unread,
            None if cursor.peek()? == byte::BREAK => {
                cursor.at += 1;
                0
            }
            None => 1,
        };
        if unread == 0 { Ok(()) } else { Err(too_many(self.start, unread, items)) }
    }

    /// No more than the bytes that are there: every item takes at least one.
    fn hint(&self) -> Option<usize> {
        let available = self.reader.cursor.bytes.len() - self.reader.cursor.at;
        self.left.map(|left| usize::try_from(left).map_or(available, |left| left.min(available)))
    }
}

#[cold]
fn too_many(at: usize, unread: u64, items: &str) -> Error {
    Error::Type { at: Some(at), message: format!("{unread} {items} too many") }
}

impl<'de, F: Form> de::SeqAccess<'de> for &mut Items<'_, 'de, F> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if !self.advance()? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'de, F: Form> de::MapAccess<'de> for &mut Items<'_, 'de, F> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if !self.advance()? {
            return Ok(None);
        }
        if self.reader.cursor.peek_untagged()? >> 5 != major::TEXT {
            return seed.deserialize(&mut *self.reader).map(Some);
        }
        let head = self.reader.head()?;
        seed.deserialize(Key(self.reader.cursor.text(head)?)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

/// An enum's variant with content: the only entry of a map.
struct Variant<'a, 'de, F> {
    reader: &'a mut Reader<'de, F>,
}

impl<'de, F: Form> de::EnumAccess<'de> for Variant<'_, 'de, F> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name = seed.deserialize(&mut *self.reader)?;
        Ok((name, self))
    }
}

impl<'de, F: Form> de::VariantAccess<'de> for Variant<'_, 'de, F> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Deserialize::deserialize(self.reader)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.reader)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, Error> {
        de::Deserializer::deserialize_any(self.reader, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        de::Deserializer::deserialize_struct(self.reader, "", fields, visitor)
    }
}
