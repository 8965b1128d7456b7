//! Values as databases keep them.

use maxhost_ledger::time::Timestamp;

/// A value that is bound to a statement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SqlValue {
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(String),
    /// Bytes, compared one by one.
    Bytes(Vec<u8>),
}

/// A time as it is stored: nanoseconds since 1970.
#[must_use]
pub fn integer(time: Timestamp) -> i64 {
    i64::try_from(time.nanos()).unwrap_or(i64::MAX)
}
