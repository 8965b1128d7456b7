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
//! sorted; where many have, a page is soon full, and states are looked at in their order: that of their references, or of the
//! index of what they are sorted by. Which it is, is counted first, unless an index has the order: then some states of it are
//! looked at before.

mod narrow;
mod slice;
mod sql;
mod sql_value;
mod walk;

use std::future::Future;
use std::pin::Pin;

use maxhost_ledger::time::Timestamp;
use maxhost_ledger::vault::query::{Builtin, Cursor, Field, Query, Row, StatusFilter};
use maxhost_model::IdentityRow;

use super::reader::LedgerReader;
use super::record::{VaultPage, VaultRow};
use crate::error::StoreError;
use crate::reader::{PAGE_BYTES, is_last_page};
pub use narrow::Having;
use narrow::{Condition, narrow};
pub use slice::{Alike, Indexed, Slice};
pub use sql::{PageRequest, Source, SqlCriteria, SqlDialect};
pub use sql_value::{SqlValue, integer};
use walk::{Search, Walked, is_walked};

/// So many candidates are read at once at least.
const LEAST_READ: u32 = 64;
/// So many are read at once at most, when few of them are found.
const MOST_READ: u32 = 4_096;
/// So few that nothing better is looked for.
const FEW_ENOUGH: u32 = 256;
/// Before anything is counted, such a part of what may be walked is.
const SHORT_WALK: u32 = 16;
/// How many fields of a query are counted at most.
const MOST_COUNTED: u32 = 16;

/// How many states are looked at before a page is made in another way.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// So many states that have a field as a query wants it, or that one key of a sort has, are few: reading them all costs
    /// less than looking for them among a million others.
    pub few: u32,
    /// So many states of an index are looked at at once, at least.
    pub piece: u32,
    /// So many are looked at in an index before it is counted whether sorting the whole vault costs less.
    pub walked: u32,
    /// A vault of so many states is rather sorted than searched further.
    pub sorted: u32,
}

impl Default for Effort {
    fn default() -> Effort {
        Effort { few: 8_192, piece: 512, walked: 16_384, sorted: 131_072 }
    }
}

/// Under this name the fields of a state have the external ids of its keys, in CBOR, and the index of fields has a row
/// for each of them. It is no name that a query or an order can look at: there it would be one value.
pub const KEY_EXTERNAL_IDS: &str = "@key.@external_ids";

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
/// A page of what a query finds, behind a cursor: full, in states or in bytes ([`PAGE_BYTES`]), unless it is the last.
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
    page_with(reader, identity, query, cursor, (as_of, now), Effort::default()).await
}

/// As [`page`], at a time, with bounds of its own on what is looked at: the page is the same with any.
///
/// # Errors
/// Those of [`page`].
pub async fn page_with(
    reader: &(impl LedgerReader + ?Sized),
    identity: IdentityRow,
    query: &Query,
    cursor: Option<&Cursor>,
    (as_of, now): (Option<i64>, Timestamp),
    effort: Effort,
) -> Result<VaultPage, StoreError> {
    query.check().map_err(StoreError::Ledger)?;
    if let Some(cursor) = cursor {
        cursor.check(query).map_err(StoreError::Ledger)?;
    }
    if !is_sorted_by_database(query) {
        return sorted_here(reader, identity, query, cursor, as_of, now).await;
    }
    let few = few_of(reader, identity, query, effort.few).await?;
    let mut search = Search::new(reader, identity, query, (as_of, now), effort);
    match few {
        Some(few) => search.read(Source::Few(&few), cursor).await?,
        None if is_walked(query) => in_order(&mut search, cursor).await?,
        None => search.read(Source::Vault, cursor).await?,
    }
    Ok(cut(query, search.rows))
}

/// Fills a page in the order of an index. Most pages are full after a few of its states; only when one is not, it is counted
/// whether sorting the vault costs less.
async fn in_order<R: LedgerReader + ?Sized>(
    search: &mut Search<'_, R>,
    cursor: Option<&Cursor>,
) -> Result<(), StoreError> {
    let Effort { few, walked, sorted, .. } = search.effort;
    let mut after = cursor.cloned();
    for (walked, sortable) in [(walked / SHORT_WALK, few), (walked, sorted)] {
        search.effort.walked = walked;
        if search.walk(after.as_ref()).await? == Walked::Done {
            return Ok(());
        }
        after = search.rows.last().map(|row| search.query.cursor_after(&row.row)).or(after);
        if search.has_at_most(sortable).await? {
            return search.read(Source::Counted, after.as_ref()).await;
        }
    }
    search.effort.walked = u32::MAX;
    search.walk(after.as_ref()).await.map(drop)
}

/// What one of which holds of every state that a query finds, if it holds of few states.
async fn few_of(
    reader: &(impl LedgerReader + ?Sized),
    identity: IdentityRow,
    query: &Query,
    few: u32,
) -> Result<Option<Vec<Having>>, StoreError> {
    let Some(condition) = narrow(&query.filter) else { return Ok(None) };
    let mut left = MOST_COUNTED;
    Ok(fewest(reader, identity, &condition, few, &mut left).await?.map(|(_, having)| having))
}

type Fewest<'a> = Pin<Box<dyn Future<Output = Result<Option<(u32, Vec<Having>)>, StoreError>> + Send + 'a>>;

/// What holds of the fewest states, at most `few`, and of how many. `left`: so many times it may still be counted.
fn fewest<'a, R: LedgerReader + ?Sized>(
    reader: &'a R,
    identity: IdentityRow,
    condition: &'a Condition,
    few: u32,
    left: &'a mut u32,
) -> Fewest<'a> {
    Box::pin(async move {
        match condition {
            Condition::Column { .. } | Condition::Lacks(_) => Ok(None),
            Condition::Having(having) => {
                let Some(rest) = left.checked_sub(1) else { return Ok(None) };
                *left = rest;
                let count = reader.count_of(identity, having, few + 1).await?;
                Ok((count <= few).then(|| (count, vec![having.clone()])))
            }
            Condition::All(parts) => {
                let mut best: Option<(u32, Vec<Having>)> = None;
                for part in parts {
                    let found = fewest(reader, identity, part, few, left).await?;
                    let least = |found: &(u32, _)| best.as_ref().is_none_or(|(count, _)| found.0 < *count);
                    best = found.filter(least).or(best);
                    if best.as_ref().is_some_and(|(count, _)| *count <= FEW_ENOUGH) {
                        break;
                    }
                }
                Ok(best)
            }
            Condition::Any(parts) => {
                let (mut sum, mut any) = (0, Vec::new());
                for part in parts {
                    let Some((count, found)) = fewest(reader, identity, part, few, left).await? else {
                        return Ok(None);
                    };
                    sum += count;
                    any.extend(found);
                    if sum > few {
                        return Ok(None);
                    }
                }
                Ok(Some((sum, any)))
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

/// How many of these states fit a page: at most so many, and none behind [`PAGE_BYTES`] bytes.
fn fitting(rows: &[VaultRow], most: usize) -> usize {
    let mut ahead = 0_usize;
    let fits = |row: &&VaultRow| {
        let fits = ahead < PAGE_BYTES;
        ahead = ahead.saturating_add(row.bytes());
        fits
    };
    rows.iter().take(most).take_while(fits).count()
}

fn cut(query: &Query, mut rows: Vec<VaultRow>) -> VaultPage {
    let fitting = fitting(&rows, query.limit as usize);
    let more = rows.len() > fitting;
    rows.truncate(fitting);
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
    let (mut rows, mut bytes): (Vec<VaultRow>, usize) = (Vec::new(), 0);
    each(reader, identity, &unsorted, as_of, now, |row| {
        if cursor.is_none_or(|cursor| query.is_behind(&row.row, cursor)) {
            bytes = bytes.saturating_add(row.bytes());
            rows.push(row);
        }
        if rows.len() >= keep.saturating_mul(2) || bytes >= 2 * PAGE_BYTES {
            rows.sort_by(|one, other| query.compare(&one.row, &other.row));
            // One more than fits, so that it is clear whether there is another page.
            rows.truncate(fitting(&rows, keep - 1) + 1);
            bytes = rows.iter().map(VaultRow::bytes).sum();
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
    let few = few_of(reader, identity, &query, Effort::default().few).await?;
    let source = few.as_deref().map_or(Source::Vault, Source::Few);
    let mut after = None;
    loop {
        let (after_last, types) = (after.as_ref(), query.types.as_deref());
        let request =
            PageRequest { query: &query, after: after_last, as_of, now, limit: MOST_READ, types, alike: &[], source };
        let read = reader.vault_candidates(identity, &request).await?;
        let last = is_last_page(MOST_READ, read.iter().map(VaultRow::bytes));
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
