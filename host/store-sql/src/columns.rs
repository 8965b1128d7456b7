//! The columns of a row. What does not fit is a broken row, which is named.
#![allow(clippy::missing_errors_doc)]

use bytes::Bytes;
use maxhost_ledger::tx::StateRef;
use maxhost_model::SecureHash;
use maxhost_store::StoreError;
use maxhost_store::ledger::codec::hash;
use sqlx::{ColumnIndex, Decode, Row, Type};

/// A row of a database that has columns of this type.
pub trait HasColumn<T>: Row {
    /// What is in a column.
    fn value(&self, index: usize) -> Result<T, sqlx::Error>;
}

impl<R, T> HasColumn<T> for R
where
    R: Row,
    usize: ColumnIndex<R>,
    T: for<'r> Decode<'r, R::Database> + Type<R::Database>,
{
    fn value(&self, index: usize) -> Result<T, sqlx::Error> {
        self.try_get(index)
    }
}

/// A row of a database that has the types of columns which all readers here need.
pub trait StoredRow:
    HasColumn<i64>
    + HasColumn<Option<i64>>
    + HasColumn<bool>
    + HasColumn<String>
    + HasColumn<Option<String>>
    + HasColumn<Vec<u8>>
    + HasColumn<Option<Vec<u8>>>
{
}

impl<R> StoredRow for R where
    R: HasColumn<i64>
        + HasColumn<Option<i64>>
        + HasColumn<bool>
        + HasColumn<String>
        + HasColumn<Option<String>>
        + HasColumn<Vec<u8>>
        + HasColumn<Option<Vec<u8>>>
{
}

/// A row of a table that cannot be read: which one, and what is wrong with it.
pub fn corrupt(table: &'static str, key: impl ToString) -> StoreError {
    StoreError::Corrupt { table, key: key.to_string() }
}

/// A column; what does not fit its type is a broken row, named by the number in the first column.
pub fn column<T>(
    row: &(impl HasColumn<T> + HasColumn<i64>),
    index: usize,
    table: &'static str,
) -> Result<T, StoreError> {
    HasColumn::<T>::value(row, index).map_err(|error| {
        let key = HasColumn::<i64>::value(row, 0).map_or_else(|_| "?".to_owned(), |key| key.to_string());
        corrupt(table, format!("{key}: {error}"))
    })
}

/// Reads a column of bytes; an error names the table.
pub fn bytes(row: &impl StoredRow, index: usize, table: &'static str) -> Result<Bytes, StoreError> {
    column::<Vec<u8>>(row, index, table).map(Bytes::from)
}

/// A count, which no database has below zero.
pub fn count(row: &impl StoredRow, index: usize, table: &'static str) -> Result<u64, StoreError> {
    column::<i64>(row, index, table).map(i64::unsigned_abs)
}

/// A number within a flow or session, such as that of a segment or a message, or the index of a state.
pub fn sequence(row: &impl StoredRow, index: usize, table: &'static str) -> Result<u32, StoreError> {
    let number: i64 = column(row, index, table)?;
    u32::try_from(number).map_err(|_| corrupt(table, format!("number {number}")))
}

/// A hash.
pub fn hash_at(row: &impl StoredRow, index: usize, table: &'static str) -> Result<SecureHash, StoreError> {
    hash(table, &column::<Vec<u8>>(row, index, table)?)
}

/// The reference of a state, from the first two columns: transaction and index.
pub fn reference(row: &impl StoredRow, table: &'static str) -> Result<StateRef, StoreError> {
    Ok(StateRef::new(hash_at(row, 0, table)?, sequence(row, 1, table)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use sqlx::sqlite::{SqliteConnection, SqliteRow};
    use sqlx::{AssertSqlSafe, Connection};

    use super::*;

    async fn row(columns: &str) -> SqliteRow {
        let mut database = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::query(AssertSqlSafe(format!("SELECT {columns}"))).fetch_one(&mut database).await.unwrap()
    }

    fn told<T: std::fmt::Debug>(read: Result<T, StoreError>) -> String {
        read.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn columns_are_read_by_their_type() {
        let row = row("x'0102', -7, NULL, 'text', 1 > 0, 4294967295").await;
        assert_eq!(bytes(&row, 0, "t").unwrap(), Bytes::from_static(&[1, 2]));
        assert_eq!(column::<i64>(&row, 1, "t").unwrap(), -7);
        assert_eq!(column::<Option<i64>>(&row, 2, "t").unwrap(), None);
        assert_eq!(column::<Option<String>>(&row, 3, "t").unwrap().as_deref(), Some("text"));
        assert!(column::<bool>(&row, 4, "t").unwrap());
        assert_eq!(sequence(&row, 5, "t").unwrap(), u32::MAX);
    }

    #[tokio::test]
    async fn a_broken_row_is_named_by_its_table_and_its_number() {
        let row = row("41, 'text', 4294967296, x'00'").await;
        let of = |error: String| {
            assert!(error.starts_with("table t holds a broken row: 41: "), "{error}");
        };
        of(told(column::<i64>(&row, 1, "t")));
        of(told(column::<String>(&row, 0, "t")));
        of(told(bytes(&row, 0, "t")));
        of(told(column::<i64>(&row, 9, "t")));
        assert!(told(sequence(&row, 2, "t")).ends_with("number 4294967296"));
        assert!(told(hash_at(&row, 3, "t")).ends_with("a hash of 1 bytes"));
        // One without a number in its first column has none to be named by.
        let nameless = self::row("'key', 'text'").await;
        assert!(told(column::<i64>(&nameless, 1, "t")).starts_with("table t holds a broken row: ?: "));
    }
}
