//! Queries of a vault over any SQL database.
//!
//! The database narrows and sorts; what a query finds is decided by the meaning of its criteria ([`Query::finds`]) alone.
//! So the SQL lets through at least what the query finds, in the query's order, and a page is filled from that until it
//! is full. Criteria that SQL cannot tell exactly let everything through.
//!
//! Fields of the data lie in a table of their own, `vault_field (identity, name, value, state)`, as sort keys
//! ([`Value::sort_key`](maxhost_ledger::vault::query::Value::sort_key)): comparisons of values are comparisons of bytes. A
//! field that is null, or is not there, has no row. Parts of parties, such as `owner.name`, have none either.
//!
//! A page is made in one of two ways. Where few states have a field as the query wants it, they are looked up from the field and
//! sorted; where many have, a page is soon full, and states are looked at in their order. Which it is, is counted first.

mod narrow;
mod sql;
mod sql_value;

use std::future::Future;
use std::pin::Pin;

use maxhost_ledger::time::Timestamp;
use maxhost_ledger::vault::query::{Builtin, Cursor, Field, Query, Row, StatusFilter};
use maxhost_model::IdentityRow;

use super::reader::LedgerReader;
use super::record::{VaultPage, VaultRow};
use crate::error::StoreError;
pub use narrow::FieldRanges;
use narrow::{Condition, narrow};
pub use sql::{PageRequest, SqlCriteria, SqlDialect};
pub use sql_value::{SqlValue, integer};

/// So many candidates are read at once at least.
const LEAST_READ: u32 = 64;
/// So many are read at once at most, when few of them are found.
const MOST_READ: u32 = 4_096;
/// So many states that have a field as a query wants it are few: reading them all costs less than looking for them among a
/// million others.
const FEW: u32 = 8_192;
/// So few that nothing better is looked for.
const FEW_ENOUGH: u32 = 256;
/// How many fields of a query are counted at most.
const MOST_COUNTED: u32 = 16;

/// Whether the database can sort by this: leases end without anybody writing it, a reference as a text has no column, and
/// parts of parties have no rows.
fn is_sorted_by_database(query: &Query) -> bool {
    query.sort.iter().all(|key| match &key.field {
        Field::Builtin(Builtin::Lock | Builtin::Ref) => false,
        Field::Builtin(_) => true,
        Field::Data(name) => is_indexed(name),
    })
}
/// Whether a field of the data has rows of its own: parts of parts are found through the whole.
#[must_use]
pub fn is_indexed(name: &str) -> bool {
    !name.contains('.')
}
/// A page of what a query finds, behind a cursor: full unless it is the last.
///
/// # Errors
/// [`StoreError::Ledger`] for a query beyond its bounds or the cursor of another; those of the reader.
pub async fn page(
    reader: &(impl LedgerReader + ?Sized),
    identity: IdentityRow,
    query: &Query,
    cursor: Option<&Cursor>,
    as_of: Option<i64>,
    now: Timestamp,
) -> Result<VaultPage, StoreError> {
    query.check().map_err(StoreError::Ledger)?;
    if let Some(cursor) = cursor {
        cursor.check(query).map_err(StoreError::Ledger)?;
    }
    if !is_sorted_by_database(query) {
        return sorted_here(reader, identity, query, cursor, as_of, now).await;
    }
    let few = few_of(reader, identity, query).await?;
    let wanted = query.limit as usize + 1;
    let mut rows: Vec<VaultRow> = Vec::new();
    let mut after = cursor.cloned();
    let mut limit = query.limit.saturating_add(1).clamp(LEAST_READ, MOST_READ);
    while rows.len() < wanted {
        let request = PageRequest { query, after: after.as_ref(), as_of, now, limit, few: few.as_deref() };
        let read = reader.vault_candidates(identity, &request).await?;
        let last = u32::try_from(read.len()).unwrap_or(u32::MAX) < limit;
        after = read.last().map(|row| query.cursor_after(&row.row)).or(after);
        rows.extend(read.into_iter().filter(|row| finds(query, &row.row, as_of)));
        if last {
            break;
        }
        limit = limit.saturating_mul(2).min(MOST_READ);
    }
    Ok(cut(query, rows))
}

/// Fields of which every state that a query finds has one, if few states have them.
async fn few_of(
    reader: &(impl LedgerReader + ?Sized),
    identity: IdentityRow,
    query: &Query,
) -> Result<Option<Vec<FieldRanges>>, StoreError> {
    let Some(condition) = narrow(&query.filter) else { return Ok(None) };
    let mut left = MOST_COUNTED;
    Ok(fewest(reader, identity, &condition, &mut left).await?.map(|(_, fields)| fields))
}

type Fewest<'a> = Pin<Box<dyn Future<Output = Result<Option<(u32, Vec<FieldRanges>)>, StoreError>> + Send + 'a>>;

/// The fields that the fewest states have, and how many do. `left`: so many may still be counted.
fn fewest<'a, R: LedgerReader + ?Sized>(
    reader: &'a R,
    identity: IdentityRow,
    condition: &'a Condition,
    left: &'a mut u32,
) -> Fewest<'a> {
    Box::pin(async move {
        match condition {
            Condition::Column { .. } => Ok(None),
            Condition::Field(field) => {
                let Some(rest) = left.checked_sub(1) else { return Ok(None) };
                *left = rest;
                let count = reader.count_of_field(identity, field, FEW + 1).await?;
                Ok((count <= FEW).then(|| (count, vec![field.clone()])))
            }
            Condition::All(parts) => {
                let mut best: Option<(u32, Vec<FieldRanges>)> = None;
                for part in parts {
                    let found = fewest(reader, identity, part, left).await?;
                    let least = |found: &(u32, _)| best.as_ref().is_none_or(|(count, _)| found.0 < *count);
                    best = found.filter(least).or(best);
                    if best.as_ref().is_some_and(|(count, _)| *count <= FEW_ENOUGH) {
                        break;
                    }
                }
                Ok(best)
            }
            Condition::Any(parts) => {
                let (mut sum, mut fields) = (0, Vec::new());
                for part in parts {
                    let Some((count, found)) = fewest(reader, identity, part, left).await? else { return Ok(None) };
                    sum += count;
                    fields.extend(found);
                    if sum > FEW {
                        return Ok(None);
                    }
                }
                Ok(Some((sum, fields)))
            }
        }
    })
}

/// A state of another time is found whatever became of it since; its place in the order is that of today.
fn finds(query: &Query, row: &Row, as_of: Option<i64>) -> bool {
    match as_of {
        None => query.finds(row),
        Some(_) => Query { status: StatusFilter::All, ..query.clone() }.finds(row),
    }
}

fn cut(query: &Query, mut rows: Vec<VaultRow>) -> VaultPage {
    let more = rows.len() > query.limit as usize;
    rows.truncate(query.limit as usize);
    let cursor = rows.last().filter(|_| more).map(|last| query.cursor_after(&last.row));
    VaultPage { rows, cursor }
}

/// Looks at all states, and keeps the first of them that are found.
async fn sorted_here(
    reader: &(impl LedgerReader + ?Sized),
    identity: IdentityRow,
    query: &Query,
    cursor: Option<&Cursor>,
    as_of: Option<i64>,
    now: Timestamp,
) -> Result<VaultPage, StoreError> {
    let unsorted = Query { sort: Vec::new(), ..query.clone() };
    let keep = query.limit as usize + 1;
    let mut rows: Vec<VaultRow> = Vec::new();
    each(reader, identity, &unsorted, as_of, now, |row| {
        if cursor.is_none_or(|cursor| query.is_behind(&row.row, cursor)) {
            rows.push(row);
        }
        if rows.len() >= keep.saturating_mul(2) {
            rows.sort_by(|one, other| query.compare(&one.row, &other.row));
            rows.truncate(keep);
        }
        Ok(())
    })
    .await?;
    rows.sort_by(|one, other| query.compare(&one.row, &other.row));
    Ok(cut(query, rows))
}

/// Gives each state that a query finds, in the order of references; its sort and its limit play no part.
///
/// # Errors
/// Those of [`page`], and those of `give`, which end it.
pub async fn each(
    reader: &(impl LedgerReader + ?Sized),
    identity: IdentityRow,
    query: &Query,
    as_of: Option<i64>,
    now: Timestamp,
    mut give: impl FnMut(VaultRow) -> Result<(), StoreError> + Send,
) -> Result<(), StoreError> {
    let query = Query { sort: Vec::new(), ..query.clone() };
    let few = few_of(reader, identity, &query).await?;
    let mut after = None;
    loop {
        let (after_last, few) = (after.as_ref(), few.as_deref());
        let request = PageRequest { query: &query, after: after_last, as_of, now, limit: MOST_READ, few };
        let read = reader.vault_candidates(identity, &request).await?;
        let last = read.len() < MOST_READ as usize;
        after = read.last().map(|row| query.cursor_after(&row.row));
        for row in read {
            if finds(&query, &row.row, as_of) {
                give(row)?;
            }
        }
        if last {
            return Ok(());
        }
    }
}
