//! Bytes to values. Nothing in here trusts a length: what it reserves is bounded by the bytes that are there.

use std::borrow::Cow;

use serde::de::{self, Deserialize, DeserializeSeed, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::{Error, MAX_DEPTH, byte, major};

/// The value in `bytes`, which must hold exactly one.
///
/// # Errors
/// When the bytes are not CBOR, are nested too deep, or are not of the type.
pub fn from_slice<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Error> {
    let mut reader = Reader { bytes, at: 0, depth: 0 };
    let value = T::deserialize(&mut reader)?;
    match bytes.len() - reader.at {
        0 => Ok(value),
        rest => Err(Error::Trailing(rest)),
    }
}

struct Reader<'de> {
    bytes: &'de [u8],
    /// Never beyond the end of `bytes`.
    at: usize,
    depth: u16,
}

/// The first byte of an item and the number behind it.
#[derive(Clone, Copy)]
struct Head {
    first: u8,
    /// `None`: the length is not known, a break ends the item.
    value: Option<u64>,
}

impl Head {
    fn major(self) -> u8 {
        self.first >> 5
    }
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
            Number::Float(value) if value.fract() == 0.0 && value.abs() < 9_223_372_036_854_775_808.0 => {
                let value = value as i64;
                u64::try_from(value).map_or(Number::Signed(value), Number::Unsigned)
            }
            other => other,
        }
    }
}

impl<'de> Reader<'de> {
    fn peek(&self) -> Result<u8, Error> {
        self.bytes.get(self.at).copied().ok_or(Error::Truncated)
    }

    fn take(&mut self, length: u64) -> Result<&'de [u8], Error> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(length).ok().and_then(|length| rest.get(..length)).ok_or(Error::Truncated)?;
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.take(N as u64)?.try_into().map_err(|_| Error::Truncated)
    }

    fn head(&mut self) -> Result<Head, Error> {
        let at = self.at;
        let first = self.peek()?;
        self.at += 1;
        let value = match first & 0x1f {
            small @ 0..=23 => Some(u64::from(small)),
            24 => Some(u64::from(u8::from_be_bytes(self.array()?))),
            25 => Some(u64::from(u16::from_be_bytes(self.array()?))),
            26 => Some(u64::from(u32::from_be_bytes(self.array()?))),
            27 => Some(u64::from_be_bytes(self.array()?)),
            31 if matches!(first >> 5, major::BYTES | major::TEXT | major::ARRAY | major::MAP) => None,
            _ => return Err(Error::Malformed { at }),
        };
        Ok(Head { first, value })
    }

    /// The head of the next item behind its tags. A tag only adds meaning; big integers alone need theirs.
    fn untagged(&mut self) -> Result<Head, Error> {
        while self.peek()? >> 5 == major::TAG && !matches!(self.peek()?, byte::POSITIVE_BIGNUM | byte::NEGATIVE_BIGNUM)
        {
            self.head()?;
        }
        self.head()
    }

    /// First byte of the next item behind its tags, not consumed.
    fn peek_untagged(&mut self) -> Result<u8, Error> {
        while self.peek()? >> 5 == major::TAG && !matches!(self.peek()?, byte::POSITIVE_BIGNUM | byte::NEGATIVE_BIGNUM)
        {
            self.head()?;
        }
        self.peek()
    }

    fn number(&mut self, head: Head) -> Result<Option<Number>, Error> {
        let Some(value) = head.value else { return Ok(None) };
        Ok(Some(match (head.major(), head.first) {
            (major::UNSIGNED, _) => Number::Unsigned(value),
            (major::NEGATIVE, _) => match i64::try_from(value) {
                Ok(value) => Number::Signed(!value),
                Err(_) => Number::BigSigned(!i128::from(value)),
            },
            (major::TAG, byte::POSITIVE_BIGNUM) => Number::BigUnsigned(self.bignum()?),
            (major::TAG, byte::NEGATIVE_BIGNUM) => match i128::try_from(self.bignum()?) {
                Ok(value) => Number::BigSigned(!value),
                Err(_) => return Err(de::Error::custom("the number is below the range of 128 bits")),
            },
            (_, byte::F16) => Number::Float(half_to_f64(value as u16)),
            (_, byte::F32) => Number::Float(f32::from_bits(value as u32).into()),
            (_, byte::F64) => Number::Float(f64::from_bits(value)),
            _ => return Ok(None),
        }))
    }

    /// The byte string of a big integer whose tag was read.
    fn bignum(&mut self) -> Result<u128, Error> {
        let head = self.head()?;
        let (major::BYTES, Some(length)) = (head.major(), head.value) else {
            return Err(Error::Malformed { at: self.at - 1 });
        };
        let bytes = self.take(length)?;
        let significant = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
        if significant.len() > 16 {
            return Err(de::Error::custom("the number is above the range of 128 bits"));
        }
        Ok(significant.iter().fold(0, |value, byte| (value << 8) | u128::from(*byte)))
    }

    /// The bytes of a text or byte string whose head was read; in one piece or in chunks.
    fn string(&mut self, head: Head) -> Result<Cow<'de, [u8]>, Error> {
        if let Some(length) = head.value {
            return self.take(length).map(Cow::Borrowed);
        }
        let mut whole = Vec::new();
        while self.peek()? != byte::BREAK {
            let chunk = self.head()?;
            match chunk.value {
                Some(length) if chunk.major() == head.major() => whole.extend_from_slice(self.take(length)?),
                _ => return Err(Error::Malformed { at: self.at - 1 }),
            }
        }
        self.at += 1;
        Ok(Cow::Owned(whole))
    }

    fn text(&mut self, head: Head) -> Result<Cow<'de, str>, Error> {
        let at = self.at;
        match self.string(head)? {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Error::NotUtf8 { at }),
            Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Error::NotUtf8 { at }),
        }
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth == MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn visit_array<V: Visitor<'de>>(&mut self, length: Option<u64>, visitor: V) -> Result<V::Value, Error> {
        self.nested(|reader| {
            let mut items = Items { reader, left: length };
            let value = visitor.visit_seq(&mut items)?;
            items.finish(|unread| format!("{unread} elements too many"))?;
            Ok(value)
        })
    }

    fn visit_map<V: Visitor<'de>>(&mut self, length: Option<u64>, visitor: V) -> Result<V::Value, Error> {
        self.nested(|reader| {
            let mut items = Items { reader, left: length };
            let value = visitor.visit_map(&mut items)?;
            items.finish(|unread| format!("{unread} entries too many"))?;
            Ok(value)
        })
    }

    fn visit<V: Visitor<'de>>(&mut self, head: Head, visitor: V) -> Result<V::Value, Error> {
        if let Some(number) = self.number(head)? {
            return number.visit(visitor);
        }
        match head.major() {
            major::TEXT => match self.text(head)? {
                Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
                Cow::Owned(text) => visitor.visit_string(text),
            },
            major::BYTES => match self.string(head)? {
                Cow::Borrowed(bytes) => visitor.visit_borrowed_bytes(bytes),
                Cow::Owned(bytes) => visitor.visit_byte_buf(bytes),
            },
            major::ARRAY => self.visit_array(head.value, visitor),
            major::MAP => self.visit_map(head.value, visitor),
            _ => match head.first {
                byte::TRUE => visitor.visit_bool(true),
                byte::FALSE => visitor.visit_bool(false),
                byte::NULL | byte::UNDEFINED => visitor.visit_unit(),
                _ => Err(Error::Malformed { at: self.at - 1 }),
            },
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
                _ => return Error::Malformed { at: self.at - 1 },
            },
        };
        de::Error::invalid_type(found, expected)
    }

    fn integer<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        let head = self.untagged()?;
        match self.number(head)? {
            Some(number) => number.integral().visit(visitor),
            None => Err(self.mismatch(head, &visitor)),
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

impl<'de> de::Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    fn is_human_readable(&self) -> bool {
        true
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let head = self.untagged()?;
        self.visit(head, visitor)
    }

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let head = self.untagged()?;
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
        if matches!(self.peek()?, byte::NULL | byte::UNDEFINED) {
            self.at += 1;
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
        let head = self.untagged()?;
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
        if self.peek_untagged()? >> 5 == major::TEXT {
            let head = self.head()?;
            return visitor.visit_enum(self.text(head)?.into_deserializer());
        }
        let head = self.head()?;
        if head.major() != major::MAP {
            return Err(self.mismatch(head, &visitor));
        }
        if head.value.is_some_and(|entries| entries != 1) {
            return Err(de::Error::invalid_value(Unexpected::Map, &"a map with one entry, named as the variant"));
        }
        self.nested(|reader| {
            let value = visitor.visit_enum(Variant { reader: &mut *reader })?;
            if head.value.is_none() {
                let at = reader.at;
                if reader.array()? != [byte::BREAK] {
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
        bool f32 f64 bytes byte_buf unit unit_struct seq tuple tuple_struct map
    }
}

/// The elements of an array, or the entries of a map. `left`: how many are unread, `None` until the break.
struct Items<'a, 'de> {
    reader: &'a mut Reader<'de>,
    left: Option<u64>,
}

impl Items<'_, '_> {
    /// Whether there is one more; takes it off the count.
    fn advance(&mut self) -> Result<bool, Error> {
        match &mut self.left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None => Ok(self.reader.peek()? != byte::BREAK),
        }
    }

    fn finish(self, too_many: impl FnOnce(u64) -> String) -> Result<(), Error> {
        match self.left {
            Some(0) => Ok(()),
            Some(unread) => Err(Error::Type(too_many(unread))),
            None if self.reader.peek()? == byte::BREAK => {
                self.reader.at += 1;
                Ok(())
            }
            None => Err(Error::Type(too_many(1))),
        }
    }

    /// No more than the bytes that are there: every item takes at least one.
    fn hint(&self) -> Option<usize> {
        let available = self.reader.bytes.len() - self.reader.at;
        self.left.map(|left| usize::try_from(left).map_or(available, |left| left.min(available)))
    }
}

impl<'de> de::SeqAccess<'de> for &mut Items<'_, 'de> {
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

impl<'de> de::MapAccess<'de> for &mut Items<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if !self.advance()? {
            return Ok(None);
        }
        if self.reader.peek_untagged()? >> 5 != major::TEXT {
            return seed.deserialize(&mut *self.reader).map(Some);
        }
        let head = self.reader.head()?;
        seed.deserialize(Key(self.reader.text(head)?)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

/// A map's key of text: also an integer, written as JSON must write it.
struct Key<'de>(Cow<'de, str>);

macro_rules! integer_keys {
    ($($method:ident)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            if let Ok(number) = self.0.parse() {
                visitor.visit_u64(number)
            } else if let Ok(number) = self.0.parse() {
                visitor.visit_i64(number)
            } else {
                self.deserialize_any(visitor)
            }
        }
    )* };
}

impl<'de> de::Deserializer<'de> for Key<'de> {
    type Error = Error;

    fn is_human_readable(&self) -> bool {
        true
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    integer_keys! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.into_deserializer().deserialize_enum(name, variants, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

/// An enum's variant with content: the only entry of a map.
struct Variant<'a, 'de> {
    reader: &'a mut Reader<'de>,
}

impl<'de> de::EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name = seed.deserialize(&mut *self.reader)?;
        Ok((name, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, 'de> {
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

/// RFC 8949, appendix D.
fn half_to_f64(half: u16) -> f64 {
    let exponent = (half >> 10) & 0x1f;
    let mantissa = f64::from(half & 0x3ff);
    let magnitude = match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (mantissa + 1024.0) * 2f64.powi(i32::from(exponent) - 25),
    };
    if half & 0x8000 == 0 { magnitude } else { -magnitude }
}
