//! Pieces of the indexes that vaults are sorted by.

use std::ops::Bound;

use maxhost_ledger::vault::query::{Builtin, Field, Value};

use super::sql_value::{SqlValue, integer};

/// What an index has the states of a vault in the order of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Indexed {
    /// The time of recording.
    Recorded,
    /// A field of the data; states that have none are not in its index.
    Field(String),
}

impl Indexed {
    /// The index of a field, if it has one.
    pub(super) fn of(field: &Field) -> Option<Indexed> {
        match field {
            Field::Builtin(Builtin::Recorded) => Some(Indexed::Recorded),
            Field::Data(name) if super::is_indexed(name) => Some(Indexed::Field(name.clone())),
            _ => None,
        }
    }

    /// A value as the index holds it; `None` for a null, which it does not hold.
    pub(super) fn key(&self, value: &Value) -> Option<SqlValue> {
        match (self, value) {
            (_, Value::Null) => None,
            (Indexed::Recorded, Value::Time(time)) => Some(SqlValue::Integer(integer(*time))),
            (Indexed::Recorded, _) => None,
            (Indexed::Field(_), value) => Some(SqlValue::Bytes(value.sort_key())),
        }
    }

    /// That states have this key.
    pub(super) fn alike(&self, key: &SqlValue) -> Option<Alike> {
        match (self, key) {
            (Indexed::Recorded, SqlValue::Integer(time)) => Some(Alike::Recorded(*time)),
            (Indexed::Field(name), SqlValue::Bytes(value)) => {
                Some(Alike::Field { name: name.clone(), value: value.clone() })
            }
            _ => None,
        }
    }
}

/// States whose keys lie so in an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The index.
    pub of: Indexed,
    /// The largest key comes first.
    pub descending: bool,
    /// Where it begins.
    pub from: Bound<SqlValue>,
    /// Where it ends.
    pub to: Bound<SqlValue>,
}

/// What states have alike of a key that a query sorts by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alike {
    /// They were recorded at this time.
    Recorded(i64),
    /// They have a field so.
    Field {
        /// The field.
        name: String,
        /// Its sort key.
        value: Vec<u8>,
    },
    /// They have no such field, or a null.
    Lacks {
        /// The field.
        name: String,
    },
}

impl Alike {
    /// Whether it is the key of an index.
    pub(super) fn is_of(&self, index: &Indexed) -> bool {
        match (self, index) {
            (Alike::Recorded(_), Indexed::Recorded) => true,
            (Alike::Field { name, .. } | Alike::Lacks { name }, Indexed::Field(field)) => name == field,
            _ => false,
        }
    }
}
