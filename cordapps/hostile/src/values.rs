//! Values at the edges of JSON and CBOR: taken as arguments, and given as results.

use std::borrow::Cow;
use std::collections::BTreeMap;

use maxhost_sdk::prelude::*;
use schemars::{Schema, SchemaGenerator};
use serde::Serializer;
use serde::ser::SerializeMap;

/// One field of each type that has an edge.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Edges {
    /// One byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub small: Option<i8>,
    /// Up to 2^64-1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsigned: Option<u64>,
    /// From -2^63.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed: Option<i64>,
    /// From -2^127.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wide: Option<i128>,
    /// 64 bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub float: Option<f64>,
    /// 32 bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub narrow: Option<f32>,
    /// A text of any length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// By number.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub numbered: BTreeMap<i64, String>,
    /// Lists in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nested: Option<Nested>,
    /// Fields within.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner: Option<Box<Edges>>,
}

/// A list of such lists.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Nested(pub Vec<Nested>);

/// Returns what it is given.
#[flow(startable)]
pub fn reflect(edges: Edges) -> Result<Edges> {
    Ok(edges)
}

/// What to return.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Odd {
    /// No number.
    NotANumber,
    /// More than any number.
    Infinity,
    /// The largest integer of 64 bits.
    Largest,
    /// Beyond 64 bits.
    Wide,
    /// The lowest of 128 bits.
    Lowest,
    /// A byte string.
    Bytes,
    /// Text with a zero in it.
    Zero,
    /// A map with integers as keys.
    Numbered,
    /// A map with a key twice.
    Twice,
    /// Something that is no CBOR: a map whose last key has no value.
    Broken,
}

/// Returns something odd.
#[flow(startable)]
pub fn produce(odd: Odd) -> Result<Produced> {
    Ok(Produced(odd))
}

/// Something odd.
pub struct Produced(Odd);

impl Serialize for Produced {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0 {
            Odd::NotANumber => serializer.serialize_f64(f64::NAN),
            Odd::Infinity => serializer.serialize_f64(f64::NEG_INFINITY),
            Odd::Largest => serializer.serialize_u64(u64::MAX),
            Odd::Wide => serializer.serialize_u128(u128::MAX),
            Odd::Lowest => serializer.serialize_i128(i128::MIN),
            Odd::Bytes => serializer.serialize_bytes(&[0xff, 0]),
            Odd::Zero => serializer.serialize_str("a\0b"),
            Odd::Numbered => BTreeMap::from([(7, true)]).serialize(serializer),
            Odd::Twice => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("a", &1)?;
                map.serialize_entry("a", &2)?;
                map.end()
            }
            Odd::Broken => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_key("no value")?;
                map.end()
            }
        }
    }
}

impl JsonSchema for Produced {
    fn schema_name() -> Cow<'static, str> {
        "Produced".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        true.into()
    }
}
