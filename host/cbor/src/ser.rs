//! Values to bytes.

use alloc::vec::Vec;
use core::marker::PhantomData;

use serde::ser::{self, Serialize};

use crate::Limits;
use crate::error::{Error, Rule};
use crate::float::{self, Shortest};
use crate::form::{Form, Keys};
use crate::head::{self, byte, major};

/// Most messages fit, so that encoding allocates once.
const USUAL_SIZE: usize = 64;

pub fn to_vec<F: Form, T: Serialize + ?Sized>(value: &T, limits: Limits) -> Result<Vec<u8>, Error> {
    to_vec_sized::<F, T>(value, limits, USUAL_SIZE)
}

/// As [`to_vec`], for what is likely to take so many bytes.
pub fn to_vec_sized<F: Form, T: Serialize + ?Sized>(value: &T, limits: Limits, size: usize) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(size);
    append::<F, T>(value, &mut out, limits)?;
    Ok(out)
}

pub fn append<F: Form, T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>, limits: Limits) -> Result<(), Error> {
    let base = out.len();
    let mut serializer = Serializer::<F> { out, base, depth: 0, limits, form: PhantomData };
    value.serialize(&mut serializer)?;
    serializer.check_size(0)
}

struct Serializer<'a, F> {
    out: &'a mut Vec<u8>,
    /// Where the value begins in `out`.
    base: usize,
    /// How many arrays and maps are open.
    depth: u16,
    limits: Limits,
    form: PhantomData<F>,
}

impl<F: Form> Serializer<'_, F> {
    fn head(&mut self, major: u8, value: u64) {
        head::write(major, value, self.out);
    }

    /// Whether this many more bytes are within the limit.
    fn check_size(&self, more: usize) -> Result<(), Error> {
        if self.out.len() - self.base > self.limits.size.saturating_sub(more) {
            return Err(Error::TooLarge { limit: self.limits.size });
        }
        Ok(())
    }

    /// A text or byte string, whatever its size.
    fn short_string(&mut self, major: u8, bytes: &[u8]) {
        self.head(major, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// A text or byte string that is within the limit: it is the one item that can be large by itself.
    fn string(&mut self, major: u8, bytes: &[u8]) -> Result<(), Error> {
        self.check_size(bytes.len())?;
        self.short_string(major, bytes);
        Ok(())
    }

    /// The name of a field or variant.
    fn name(&mut self, name: &'static str) {
        self.short_string(major::TEXT, name.as_bytes());
    }

    fn bignum(&mut self, tag: u8, value: u128) {
        let bytes = value.to_be_bytes();
        self.out.push(tag);
        self.short_string(major::BYTES, &bytes[(value.leading_zeros() / 8) as usize..]);
    }

    fn descend(&mut self) -> Result<(), Error> {
        if self.depth >= self.limits.depth {
            return Err(Error::TooDeep { at: self.out.len() - self.base, limit: self.limits.depth });
        }
        self.depth += 1;
        Ok(())
    }

    /// The variant of an enum with content: a map with one entry.
    fn variant(&mut self, name: &'static str) -> Result<(), Error> {
        self.descend()?;
        self.head(major::MAP, 1);
        self.name(name);
        Ok(())
    }
}

impl<'a, F: Form> Serializer<'a, F> {
    /// Opens an array or map. The length is a hint: what counts is how much is written.
    fn open<'b>(&'b mut self, major: u8, length: Option<usize>, levels: u16) -> Result<Compound<'a, 'b, F>, Error> {
        self.descend()?;
        let start = self.out.len();
        let announced = length.unwrap_or(0) as u64;
        self.head(major, announced);
        let body = self.out.len();
        Ok(Compound { serializer: self, major, levels, start, body, announced, count: 0, keys: F::Keys::new() })
    }
}

impl<'a, 'b, F: Form> ser::Serializer for &'b mut Serializer<'a, F> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Compound<'a, 'b, F>;
    type SerializeTuple = Compound<'a, 'b, F>;
    type SerializeTupleStruct = Compound<'a, 'b, F>;
    type SerializeTupleVariant = Compound<'a, 'b, F>;
    type SerializeMap = Compound<'a, 'b, F>;
    type SerializeStruct = Compound<'a, 'b, F>;
    type SerializeStructVariant = Compound<'a, 'b, F>;

    fn is_human_readable(&self) -> bool {
        F::HUMAN_READABLE
    }

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.out.push(if value { byte::TRUE } else { byte::FALSE });
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), Error> {
        match u64::try_from(value) {
            Ok(value) => self.head(major::UNSIGNED, value),
            // -1 - value, which for two's complement is the inverted bits.
            Err(_) => self.head(major::NEGATIVE, !value as u64),
        }
        Ok(())
    }

    fn serialize_i128(self, value: i128) -> Result<(), Error> {
        if let Ok(value) = u128::try_from(value) {
            return self.serialize_u128(value);
        }
        let magnitude = !value as u128;
        match u64::try_from(magnitude) {
            Ok(magnitude) => self.head(major::NEGATIVE, magnitude),
            Err(_) => self.bignum(byte::NEGATIVE_BIGNUM, magnitude),
        }
        Ok(())
    }

    fn serialize_u8(self, value: u8) -> Result<(), Error> {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), Error> {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), Error> {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), Error> {
        self.head(major::UNSIGNED, value);
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Result<(), Error> {
        match u64::try_from(value) {
            Ok(value) => self.head(major::UNSIGNED, value),
            Err(_) => self.bignum(byte::POSITIVE_BIGNUM, value),
        }
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        self.serialize_f64(float::single_to_f64(value.to_bits()))
    }

    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        if !F::FLOATS {
            return Err(Error::NotDeterministic { at: self.out.len() - self.base, rule: Rule::Float });
        }
        match float::shortest(value.to_bits()) {
            Shortest::Half(bits) => {
                self.out.push(byte::F16);
                self.out.extend_from_slice(&bits.to_be_bytes());
            }
            Shortest::Single(bits) => {
                self.out.push(byte::F32);
                self.out.extend_from_slice(&bits.to_be_bytes());
            }
            Shortest::Double(bits) => {
                self.out.push(byte::F64);
                self.out.extend_from_slice(&bits.to_be_bytes());
            }
        }
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        self.string(major::TEXT, value.as_bytes())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        self.string(major::BYTES, value)
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.out.push(byte::NULL);
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _name: &'static str, _index: u32, variant: &'static str) -> Result<(), Error> {
        self.name(variant);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _name: &'static str, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.variant(variant)?;
        value.serialize(&mut *self)?;
        self.depth -= 1;
        Ok(())
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Compound<'a, 'b, F>, Error> {
        self.open(major::ARRAY, length, 1)
    }

    fn serialize_tuple(self, length: usize) -> Result<Compound<'a, 'b, F>, Error> {
        self.open(major::ARRAY, Some(length), 1)
    }

    fn serialize_tuple_struct(self, _name: &'static str, length: usize) -> Result<Compound<'a, 'b, F>, Error> {
        self.open(major::ARRAY, Some(length), 1)
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Compound<'a, 'b, F>, Error> {
        self.variant(variant)?;
        self.open(major::ARRAY, Some(length), 2)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Compound<'a, 'b, F>, Error> {
        self.open(major::MAP, length, 1)
    }

    fn serialize_struct(self, _name: &'static str, length: usize) -> Result<Compound<'a, 'b, F>, Error> {
        self.open(major::MAP, Some(length), 1)
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Compound<'a, 'b, F>, Error> {
        self.variant(variant)?;
        self.open(major::MAP, Some(length), 2)
    }
}

/// An array or map being written.
struct Compound<'a, 'b, F: Form> {
    serializer: &'b mut Serializer<'a, F>,
    major: u8,
    /// How many levels end with it: two for an enum's variant.
    levels: u16,
    /// Where its head begins in the output, and where that ends.
    start: usize,
    body: usize,
    /// The length in the head.
    announced: u64,
    /// How many elements or entries are written.
    count: u64,
    keys: F::Keys,
}

impl<F: Form> Compound<'_, '_, F> {
    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(&mut *self.serializer)
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.count += 1;
        self.value(value)
    }

    fn field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Error> {
        self.count += 1;
        let start = self.serializer.out.len();
        self.serializer.name(key);
        self.keys.add(start, self.serializer.out.len());
        self.value(value)
    }

    fn close(self) -> Result<(), Error> {
        let Serializer { out, base, depth, .. } = &mut *self.serializer;
        *depth -= self.levels;
        self.keys.finish(out, *base)?;
        if self.count != self.announced {
            correct_length(out, self.start, self.body, self.major, self.count);
        }
        self.serializer.check_size(0)
    }
}

/// Writes the length that was not known, or was told wrong, when the array or map was opened.
#[cold]
fn correct_length(out: &mut Vec<u8>, start: usize, body: usize, major: u8, count: u64) {
    let written = out.split_off(body);
    out.truncate(start);
    head::write(major, count, out);
    out.extend_from_slice(&written);
}

macro_rules! arrays {
    ($($kind:ident: $method:ident;)*) => { $(
        impl<F: Form> ser::$kind for Compound<'_, '_, F> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.element(value)
            }

            fn end(self) -> Result<(), Error> {
                self.close()
            }
        }
    )* };
}

arrays! {
    SerializeSeq: serialize_element;
    SerializeTuple: serialize_element;
    SerializeTupleStruct: serialize_field;
    SerializeTupleVariant: serialize_field;
}

macro_rules! structs {
    ($($kind:ident)*) => { $(
        impl<F: Form> ser::$kind for Compound<'_, '_, F> {
            type Ok = ();
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Error> {
                self.field(key, value)
            }

            fn end(self) -> Result<(), Error> {
                self.close()
            }
        }
    )* };
}

structs! { SerializeStruct SerializeStructVariant }

impl<F: Form> ser::SerializeMap for Compound<'_, '_, F> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.count += 1;
        let start = self.serializer.out.len();
        self.value(key)?;
        self.keys.add(start, self.serializer.out.len());
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.value(value)
    }

    fn end(self) -> Result<(), Error> {
        self.close()
    }
}
