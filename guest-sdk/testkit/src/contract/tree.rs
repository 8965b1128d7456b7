//! Data of any type, so that every part of it can be changed.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Tree>),
    Map(BTreeMap<String, Tree>),
}

impl Tree {
    /// The same with one leaf changed, for every leaf, with the path to it.
    pub fn changes(&self) -> Vec<(String, Tree)> {
        let leaf = |tree: Tree| vec![(String::new(), tree)];
        match self {
            Tree::Null => Vec::new(),
            Tree::Bool(value) => leaf(Tree::Bool(!value)),
            Tree::Unsigned(value) => {
                let mut changes = leaf(Tree::Unsigned(value.saturating_add(1)));
                changes.extend(value.checked_sub(1).map(|less| (String::new(), Tree::Unsigned(less))));
                changes
            }
            Tree::Signed(value) => leaf(Tree::Signed(value.saturating_sub(1))),
            Tree::Text(text) => leaf(Tree::Text(changed_text(text))),
            Tree::Bytes(bytes) => {
                let mut changed = bytes.clone();
                // The last byte: the first ones of a key say what kind it is.
                if let Some(last) = changed.last_mut() {
                    *last ^= 1;
                }
                leaf(Tree::Bytes(changed))
            }
            Tree::List(items) => {
                let mut changes = Vec::new();
                for (index, item) in items.iter().enumerate() {
                    for (path, changed) in item.changes() {
                        let mut items = items.clone();
                        items[index] = changed;
                        changes.push((join(&index.to_string(), &path), Tree::List(items)));
                    }
                }
                changes
            }
            Tree::Map(fields) => {
                let mut changes = Vec::new();
                for (name, field) in fields {
                    for (path, changed) in field.changes() {
                        let mut fields = fields.clone();
                        fields.insert(name.clone(), changed);
                        changes.push((join(name, &path), Tree::Map(fields)));
                    }
                }
                changes
            }
        }
    }
}

fn join(name: &str, path: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{name}.{path}") }
}

/// The same kind of text: the last letter or digit is another.
fn changed_text(text: &str) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    match letters.iter_mut().rev().find(|letter| letter.is_ascii_alphanumeric()) {
        Some(letter) => {
            *letter = match *letter {
                'a' => 'b',
                'A' => 'B',
                '0' => '1',
                other if other.is_ascii_digit() => '0',
                other if other.is_ascii_uppercase() => 'A',
                _ => 'a',
            }
        }
        None => letters.push('x'),
    }
    letters.into_iter().collect()
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Tree::Null => serializer.serialize_unit(),
            Tree::Bool(value) => serializer.serialize_bool(*value),
            Tree::Unsigned(value) => serializer.serialize_u64(*value),
            Tree::Signed(value) => serializer.serialize_i64(*value),
            Tree::Text(text) => serializer.serialize_str(text),
            Tree::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Tree::List(items) => items.serialize(serializer),
            Tree::Map(fields) => fields.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("data")
    }

    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Tree, E> {
        Ok(u64::try_from(value).map_or(Tree::Signed(value), Tree::Unsigned))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Tree, E> {
        Ok(Tree::Bytes(bytes.to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, value)) = entries.next_entry()? {
            map.insert(key, value);
        }
        Ok(Tree::Map(map))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_leaf_is_changed_once_or_twice() {
        let tree: Tree = maxhost_cbor::from_slice(
            &maxhost_cbor::to_vec(&BTreeMap::from([("a", BTreeMap::from([("b", 5_u64)])), ("c", BTreeMap::new())]))
                .unwrap(),
        )
        .unwrap();
        let paths: Vec<String> = tree.changes().into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["a.b", "a.b"]);
        assert_eq!(changed_text("GBP"), "GBA");
        assert_eq!(changed_text(""), "x");
        assert_eq!(Tree::List(vec![Tree::Bool(true), Tree::Null]).changes().len(), 1);
    }
}
