//! Numbers in the JSON Schema of arguments: what a flow could not read in them, or would read as another number, becomes a rule of
//! the schema, so that it is refused before anything is started.

use jsonschema::{Keyword, ValidationError, ValidationOptions};
use maxhost_model::is_exact_integer;
use serde_json::{Number, Value};

/// Whole numbers of a fixed size: what a schema calls them, and their bounds. The keyword `format` alone bounds nothing.
const SIZES: [(&str, i128, i128); 8] = [
    ("int8", i8::MIN as i128, i8::MAX as i128),
    ("int16", i16::MIN as i128, i16::MAX as i128),
    ("int32", i32::MIN as i128, i32::MAX as i128),
    ("int64", i64::MIN as i128, i64::MAX as i128),
    ("uint8", 0, u8::MAX as i128),
    ("uint16", 0, u16::MAX as i128),
    ("uint32", 0, u32::MAX as i128),
    ("uint64", 0, u64::MAX as i128),
];
/// Keywords whose values are data, not schemas.
const DATA: [&str; 4] = ["const", "default", "enum", "examples"];
/// Keywords whose values are schemas by name, which may be any.
const BY_NAME: [&str; 5] = ["properties", "patternProperties", "dependentSchemas", "$defs", "definitions"];
/// The keyword for an integer that may be written as a float, if it is exactly that.
pub(crate) const EXACT_INTEGER: &str = "x-maxhost-exact-integer";
/// The keyword for a float that may be written as an integer, if a float holds it.
const HELD_BY_FLOAT: &str = "x-maxhost-held-by-float";
/// What a schema calls floats of 32 and of 64 bits.
const FLOATS: [&str; 2] = ["float", "double"];
/// A number of 64 bits from here on is an infinite one in 32: the largest finite one, and half of what the next would be above it.
const BEYOND_SINGLES: f64 = 340_282_356_779_733_661_637_539_395_458_142_568_448.0;

/// Gives whole numbers of a fixed size their bounds, where the schema has none, and all numbers the keywords of this module.
pub(crate) fn make_rules(schema: &mut Value) {
    let object = match schema {
        Value::Array(list) => return list.iter_mut().for_each(make_rules),
        Value::Object(object) => object,
        _ => return,
    };
    let names = match object.get("type") {
        Some(Value::String(name)) => vec![name.as_str()],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let (integer, number) = (names.contains(&"integer"), names.contains(&"number"));
    let format = object.get("format").and_then(Value::as_str).map(str::to_owned);
    if let Some((_, least, most)) = SIZES.iter().find(|(name, _, _)| Some(*name) == format.as_deref()) {
        for (keyword, bound) in [("minimum", least), ("maximum", most)] {
            let bound = i64::try_from(*bound).map(Value::from).or_else(|_| u64::try_from(*bound).map(Value::from));
            if let (false, Ok(bound)) = (object.contains_key(keyword), bound) {
                object.insert(keyword.to_owned(), bound);
            }
        }
    }
    for (keyword, value) in object.iter_mut().filter(|(keyword, _)| !DATA.contains(&keyword.as_str())) {
        match value {
            Value::Object(schemas) if BY_NAME.contains(&keyword.as_str()) => {
                schemas.iter_mut().for_each(|(_, schema)| make_rules(schema));
            }
            value => make_rules(value),
        }
    }
    if integer && !number {
        object.insert(EXACT_INTEGER.to_owned(), Value::Bool(true));
    }
    if let Some(format) = format.filter(|format| number && FLOATS.contains(&format.as_str())) {
        object.insert(HELD_BY_FLOAT.to_owned(), Value::String(format));
    }
}

/// A part of a schema as people are shown it, without the keywords of this module.
pub(crate) fn shown(schema: &Value) -> Value {
    match schema {
        Value::Array(list) => list.iter().map(shown).collect(),
        Value::Object(object) => {
            let others =
                object.iter().filter(|(keyword, _)| ![EXACT_INTEGER, HELD_BY_FLOAT].contains(&keyword.as_str()));
            Value::Object(others.map(|(keyword, value)| (keyword.clone(), shown(value))).collect())
        }
        other => other.clone(),
    }
}

/// Makes floats count that have to hold an integer, or fewer bits.
pub(crate) fn held_by_floats(options: ValidationOptions<'_>) -> ValidationOptions<'_> {
    options.with_keyword(HELD_BY_FLOAT, |_, format, _| Ok(Box::new(HeldByFloat { single: format == FLOATS[0] })))
}

/// Makes integers count that were written as floats.
pub(crate) fn exact(options: ValidationOptions<'_>) -> ValidationOptions<'_> {
    options.with_keyword(EXACT_INTEGER, |_, _, _| Ok(Box::new(ExactInteger)))
}

struct ExactInteger;

impl<'i> Keyword<'i> for ExactInteger {
    fn validate(&self, instance: &'i Value) -> Result<(), ValidationError<'i>> {
        match self.is_valid(instance) {
            true => Ok(()),
            false => Err(ValidationError::custom(
                "is written with a point or an exponent, and is no integer exactly: write all its digits",
            )),
        }
    }

    fn is_valid(&self, instance: &'i Value) -> bool {
        match instance {
            Value::Number(number) if number.is_f64() => number.as_f64().is_some_and(is_exact_integer),
            _ => true,
        }
    }
}

struct HeldByFloat {
    single: bool,
}

impl HeldByFloat {
    /// Why a number is not read as a float.
    fn obstacle(&self, number: &Number) -> Option<&'static str> {
        // A float of 64 bits holds 53 digits of a binary number, wherever they stand.
        let is_held = |magnitude: u64| 64 - magnitude.leading_zeros() <= 53 + magnitude.trailing_zeros();
        let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
        let is_beyond = |float: f64| float.is_finite() && float.abs() >= BEYOND_SINGLES;
        match magnitude {
            Some(magnitude) if !is_held(magnitude) => Some("has more digits than a float holds"),
            None if self.single && number.as_f64().is_some_and(is_beyond) => {
                Some("is beyond the range of a float of 32 bits")
            }
            _ => None,
        }
    }
}

impl<'i> Keyword<'i> for HeldByFloat {
    fn validate(&self, instance: &'i Value) -> Result<(), ValidationError<'i>> {
        match instance.as_number().and_then(|number| self.obstacle(number)) {
            Some(obstacle) => Err(ValidationError::custom(obstacle)),
            None => Ok(()),
        }
    }

    fn is_valid(&self, instance: &'i Value) -> bool {
        self.validate(instance).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn singles_end_where_rounding_makes_them_infinite() {
        assert!(!(BEYOND_SINGLES as f32).is_finite());
        assert!((BEYOND_SINGLES.next_down() as f32).is_finite());
        assert!(!(-BEYOND_SINGLES as f32).is_finite());
    }
}
