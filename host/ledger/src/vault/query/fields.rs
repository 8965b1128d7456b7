//! The fields of a state's data, as queries see them (behaviour.md 12.6).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use maxhost_cbor::Limits;
use maxhost_model::PublicKey;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::value::{Number, Value};
use crate::codec::MAX_DEPTH;
use crate::refused::{Refused, Result};
use crate::rules::Rule;
use crate::tx::Data;

/// The most fields that are taken from one state; those behind are not found.
pub const MAX_FIELDS: usize = 256;

/// The longest text or bytes of a field that is taken: what is longer has no value for queries.
pub const MAX_FIELD_BYTES: usize = 4096;

/// The fields of a state's data. Parts of a map are joined by points; a party, which is a map with a name and a key, is
/// its name, or, if it is not named, the fingerprint of its key. Fields named in `times` are times, if their text is one. Lists, and what is beyond the bounds, have no value.
///
/// # Errors
/// [`Rule::ComponentInvalid`] if the data are no map of fields.
pub fn fields(data: &Data, times: &BTreeSet<String>) -> Result<BTreeMap<String, Value>> {
    let limits = Limits { depth: MAX_DEPTH, size: usize::MAX };
    let tree: Tree = maxhost_cbor::from_slice_within(data.bytes(), limits)
        .map_err(|error| Refused::new(Rule::ComponentInvalid, format!("the data of a state: {error}")))?;
    let Tree::Map(parts) = tree else {
        return Err(Refused::new(Rule::ComponentInvalid, "the data of a state are no map of fields"));
    };
    let mut found = BTreeMap::new();
    flatten("", parts, times, &mut found);
    Ok(found)
}

fn flatten(prefix: &str, parts: BTreeMap<String, Tree>, times: &BTreeSet<String>, found: &mut BTreeMap<String, Value>) {
    for (name, tree) in parts {
        let path = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        if found.len() == MAX_FIELDS || path.len() > MAX_FIELD_BYTES {
            return;
        }
        match tree {
            Tree::Leaf(Value::Text(text)) if times.contains(&path) => {
                let time = text.parse().map_or(Value::Null, Value::Time);
                found.insert(path, time);
            }
            Tree::Leaf(value) => drop(found.insert(path, value)),
            Tree::Map(parts) => {
                if let Some(party) = party(&parts) {
                    found.insert(path.clone(), party);
                }
                flatten(&path, parts, times, found);
            }
        }
    }
}

/// What stands for a map, if it is a party.
fn party(parts: &BTreeMap<String, Tree>) -> Option<Value> {
    match (parts.get("name")?, parts.get("owning_key")?) {
        (Tree::Leaf(name @ Value::Text(_)), _) => Some(name.clone()),
        (Tree::Leaf(Value::Null), Tree::Leaf(Value::Bytes(spki))) => {
            let key = PublicKey::from_spki(spki).ok()?;
            Some(Value::text(key.fingerprint().to_string()))
        }
        _ => None,
    }
}

/// Data of any type, as far as queries look at them.
enum Tree {
    Leaf(Value),
    Map(BTreeMap<String, Tree>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Tree, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

type Visited<E> = std::result::Result<Tree, E>;

fn number<E>(value: i128) -> Visited<E> {
    Ok(Tree::Leaf(Number::integer(value).map_or(Value::Null, Value::Number)))
}

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the data of a state")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Visited<E> {
        Ok(Tree::Leaf(Value::Bool(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Visited<E> {
        number(i128::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Visited<E> {
        number(i128::from(value))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Visited<E> {
        number(value)
    }

    fn visit_u128<E: Error>(self, value: u128) -> Visited<E> {
        number(i128::try_from(value).unwrap_or(i128::MAX))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Visited<E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_str<E: Error>(self, text: &str) -> Visited<E> {
        Ok(Tree::Leaf(if text.len() > MAX_FIELD_BYTES { Value::Null } else { Value::text(text) }))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Visited<E> {
        Ok(Tree::Leaf(if bytes.len() > MAX_FIELD_BYTES { Value::Null } else { Value::Bytes(bytes.to_vec()) }))
    }

    fn visit_unit<E: Error>(self) -> Visited<E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_none<E: Error>(self) -> Visited<E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Visited<D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Visited<D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Visited<A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Visited<A::Error> {
        let mut parts = BTreeMap::new();
        while let Some(key) = map.next_key::<Tree>()? {
            let value: Tree = map.next_value()?;
            // A key that is no text is no name of a field.
            if let Tree::Leaf(Value::Text(name)) = key {
                parts.insert(name, value);
            }
        }
        Ok(Tree::Map(parts))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde::Serialize;

    use super::*;
    use crate::fixtures::{key, party};

    #[derive(Serialize)]
    struct Iou {
        lender: maxhost_model::Party,
        quantity: u64,
        paid: i64,
        due: Option<String>,
        note: String,
        parts: Vec<u8>,
        inner: Inner,
        hidden: Unnamed,
    }

    #[derive(Serialize)]
    struct Unnamed {
        name: Option<String>,
        owning_key: PublicKey,
    }

    #[derive(Serialize)]
    struct Inner {
        done: bool,
    }

    #[test]
    fn data_become_fields() {
        let iou = Iou {
            lender: party("Ann", 1),
            quantity: u64::MAX,
            paid: -5,
            due: Some("2026-03-01T00:00:00Z".to_owned()),
            note: "x".repeat(MAX_FIELD_BYTES + 1),
            parts: vec![1, 2],
            inner: Inner { done: true },
            hidden: Unnamed { name: None, owning_key: key(2) },
        };
        let found = fields(&Data::encode(&iou).unwrap(), &["due".to_owned()].into()).unwrap();
        assert_eq!(found["lender"], Value::text("O=Ann, L=London, C=GB"));
        assert_eq!(found["lender.name"], found["lender"]);
        assert_eq!(found["quantity"], Value::Number(Number::from(u64::MAX)));
        assert_eq!(found["paid"], Value::Number(Number::from(-5_i64)));
        assert!(matches!(found["due"], Value::Time(_)));
        assert_eq!(found["note"], Value::Null);
        assert_eq!(found["parts"], Value::Null);
        assert_eq!(found["inner.done"], Value::Bool(true));
        assert_eq!(found["hidden"], Value::text(key(2).fingerprint().to_string()));
        assert!(!found.contains_key("inner"));
        assert_eq!(fields(&Data::encode(&5).unwrap(), &BTreeSet::new()).unwrap_err().rule(), Rule::ComponentInvalid);
    }

    #[test]
    fn the_number_of_fields_is_bounded() {
        let many: BTreeMap<String, u32> = (0..1000).map(|number| (format!("f{number}"), number)).collect();
        assert_eq!(fields(&Data::encode(&many).unwrap(), &BTreeSet::new()).unwrap().len(), MAX_FIELDS);
    }

    proptest! {
        #[test]
        fn any_data_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(data) = Data::from_bytes(bytes) {
                let _ = fields(&data, &BTreeSet::new());
            }
        }
    }
}
