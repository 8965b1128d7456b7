//! Whole queries: order, pages, cursors (behaviour.md 12.7).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use maxhost_model::text::{is_storable, one_line};
use serde::{Deserialize, Serialize};

use super::criteria::{Criterion, Field};
use super::evaluate::{Row, Status, evaluate};
use super::parser::{parse_field, parse_within};
use super::value::Value;
use crate::codec;
use crate::refused::{Refused, Result};
use crate::rules::Rule;
use crate::tx::{MAX_NAME, StateRef};

/// How many states a page has, unless the caller says otherwise.
pub const DEFAULT_LIMIT: u32 = 200;

/// The most states of one page.
pub const MAX_LIMIT: u32 = 10_000;

/// The most fields to sort by.
pub const MAX_SORT: usize = 8;

/// The most types that a query may name.
const MAX_TYPES: usize = 100;

/// The longest name of a type, bytes: a contract, `/` and a type.
const MAX_TYPE: usize = 2 * MAX_NAME + 1;

/// The longest text of a cursor: an expression as it is printed, and some values.
const MAX_CURSOR: usize = 512 * 1024;

/// Which states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StatusFilter {
    /// Those that can still be spent.
    #[default]
    Unconsumed,
    /// Those that cannot.
    Consumed,
    /// States whether they are consumed or not.
    All,
}

/// A field to sort by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SortKey {
    /// The field.
    pub field: Field,
    /// Whether the largest comes first.
    pub descending: bool,
}

impl SortKey {
    /// Reads `FIELD[:asc|:desc],…`.
    ///
    /// # Errors
    /// [`Rule::QueryInvalid`] for what is no field, or more than [`MAX_SORT`].
    pub fn parse_list(text: &str) -> Result<Vec<SortKey>> {
        let keys: Vec<SortKey> = text.split(',').map(SortKey::parse).collect::<Result<_>>()?;
        if keys.len() > MAX_SORT {
            return Err(invalid(format!("states are sorted by at most {MAX_SORT} fields")));
        }
        Ok(keys)
    }

    fn parse(text: &str) -> Result<SortKey> {
        let (name, descending) = match text.trim().rsplit_once(':') {
            Some((name, order)) if order.eq_ignore_ascii_case("desc") => (name, true),
            Some((name, order)) if order.eq_ignore_ascii_case("asc") => (name, false),
            Some((_, order)) => {
                let shown: String = order.chars().take(40).collect();
                return Err(invalid(format!("the order of sorting is asc or desc, not '{shown}'")));
            }
            None => (text.trim(), false),
        };
        Ok(SortKey { field: parse_field(name)?, descending })
    }
}

fn invalid(message: impl Into<String>) -> Refused {
    Refused::new(Rule::QueryInvalid, message)
}

/// A query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Which states.
    pub status: StatusFilter,
    /// Their types, as `cash/Cash`; of any type if none is given.
    pub types: Option<Vec<String>>,
    /// What must hold for them.
    pub filter: Criterion,
    /// By what they are sorted; by reference in the end.
    pub sort: Vec<SortKey>,
    /// How many a page has.
    pub limit: u32,
}

impl Default for Query {
    fn default() -> Query {
        Query {
            status: StatusFilter::default(),
            types: None,
            filter: Criterion::everything(),
            sort: Vec::new(),
            limit: DEFAULT_LIMIT,
        }
    }
}

impl Query {
    /// Checks the bounds of a query.
    ///
    /// # Errors
    /// [`Rule::QueryInvalid`] for a limit of 0 or above [`MAX_LIMIT`], too many fields or types, and for a type that is none.
    pub fn check(&self) -> Result<()> {
        if self.limit == 0 || self.limit > MAX_LIMIT {
            return Err(
                invalid(format!("a page has 1 to {MAX_LIMIT} states, not {}", self.limit)).detail("field", "limit")
            );
        }
        if self.sort.len() > MAX_SORT || self.types.as_ref().is_some_and(|types| types.len() > MAX_TYPES) {
            return Err(invalid(format!("a query has at most {MAX_SORT} fields to sort by, and {MAX_TYPES} types")));
        }
        let is_no_type = |name: &&String| name.len() > MAX_TYPE || !is_storable(name);
        if let Some(wrong) = self.types.iter().flatten().find(is_no_type) {
            let shown: String = one_line(wrong).chars().take(80).collect();
            let message = format!("'{shown}' is no type of states: write contract/type, as cash/Cash");
            return Err(invalid(message).detail("field", "types"));
        }
        // A sort that was written is in a cursor as it was read, and cursors come from outside.
        let is_no_field = |key: &SortKey| matches!(&key.field, Field::Data(name) if !is_storable(name));
        if self.sort.iter().any(is_no_field) {
            return Err(invalid("no field has the NUL character in its name").detail("field", "sort"));
        }
        Ok(())
    }

    /// Whether a state is found.
    #[must_use]
    pub fn finds(&self, row: &Row) -> bool {
        let status = match self.status {
            StatusFilter::Unconsumed => row.status == Status::Unconsumed,
            StatusFilter::Consumed => row.status == Status::Consumed,
            StatusFilter::All => true,
        };
        let typed = self.types.as_ref().is_none_or(|types| types.contains(&row.type_name));
        status && typed && evaluate(&self.filter, row) == Some(true)
    }

    /// Where a page ends whose last state this is.
    #[must_use]
    pub fn cursor_after(&self, last: &Row) -> Cursor {
        Cursor { query: self.written(), limit: self.limit, after: self.place(last), vault: None }
    }

    /// Where a page ends whose last state has this reference, if the states are in no other order than that of references.
    #[must_use]
    pub fn cursor_behind(&self, reference: StateRef) -> Option<Cursor> {
        let after = Place { keys: Vec::new(), reference };
        self.sort.is_empty().then(|| Cursor { query: self.written(), limit: self.limit, after, vault: None })
    }

    /// How two states stand to each other in the order of this query.
    #[must_use]
    pub fn compare(&self, one: &Row, other: &Row) -> Ordering {
        self.order(&self.place(one), &self.place(other))
    }

    /// Whether a state comes behind a cursor of this query.
    #[must_use]
    pub fn is_behind(&self, row: &Row, cursor: &Cursor) -> bool {
        self.order(&self.place(row), &cursor.after) == Ordering::Greater
    }

    fn place(&self, row: &Row) -> Place {
        Place { keys: self.sort.iter().map(|key| row.value(&key.field)).collect(), reference: row.reference }
    }

    fn order(&self, one: &Place, other: &Place) -> Ordering {
        let keys = self.sort.iter().zip(one.keys.iter().zip(&other.keys));
        let by_key = keys.map(|(key, (a, b))| if key.descending { b.cmp(a) } else { a.cmp(b) });
        by_key.fold(Ordering::Equal, Ordering::then).then(one.reference.cmp(&other.reference))
    }

    fn written(&self) -> Written {
        Written {
            status: self.status,
            types: self.types.clone(),
            filter: self.filter.to_string(),
            sort: self.sort.clone(),
        }
    }
}

/// Where a state stands in the order of a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    keys: Vec<Value>,
    reference: StateRef,
}

/// What makes a query the same query: all of it but the size of pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    status: StatusFilter,
    types: Option<Vec<String>>,
    filter: String,
    sort: Vec<SortKey>,
}

/// Where a page ended: the last state that was shown, and the query. Opaque to callers. It stays good whatever happens
/// to the states: what stayed is neither shown twice nor left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    query: Written,
    limit: u32,
    after: Place,
    /// Whose vault the query was about. Cursors of before do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vault: Option<String>,
}

impl Cursor {
    /// The query that this cursor goes on with, without asking for its options again.
    ///
    /// # Errors
    /// [`Rule::CursorInvalid`] if the query used more than the language can say: then it must be given again.
    pub fn query(&self) -> Result<Query> {
        let refuse = |_| Refused::new(Rule::CursorInvalid, "this cursor goes on with its query only: give it again");
        let written = &self.query;
        let query = Query {
            status: written.status,
            types: written.types.clone(),
            filter: parse_within(&written.filter, MAX_CURSOR).map_err(refuse)?,
            sort: written.sort.clone(),
            limit: self.limit,
        };
        query.check()?;
        Ok(query)
    }

    /// The values by which the last state that was shown is sorted, and its reference.
    #[must_use]
    pub fn after(&self) -> (&[Value], StateRef) {
        (&self.after.keys, self.after.reference)
    }

    /// The same cursor, good for the vault of this identity only.
    #[must_use]
    pub fn within(self, vault: &str) -> Cursor {
        Cursor { vault: Some(vault.to_owned()), ..self }
    }

    /// Checks that this cursor was made for the vault of this identity, as far as it tells.
    ///
    /// # Errors
    /// [`Rule::CursorInvalid`].
    pub fn check_vault(&self, vault: &str) -> Result<()> {
        match &self.vault {
            Some(other) if other != vault => {
                let text = format!("this cursor was made for a query of the vault of {}", one_line(other));
                Err(Refused::new(Rule::CursorInvalid, text))
            }
            _ => Ok(()),
        }
    }

    /// Checks that this cursor was made by this query. The size of the page may be another.
    ///
    /// # Errors
    /// [`Rule::CursorInvalid`].
    pub fn check(&self, query: &Query) -> Result<()> {
        if self.query == query.written() && self.after.keys.len() == query.sort.len() {
            return Ok(());
        }
        Err(Refused::new(Rule::CursorInvalid, "this cursor was made by another query"))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = codec::encode("cursor", self).map_err(|_| fmt::Error)?;
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Cursor {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Cursor> {
        let refuse = || Refused::new(Rule::CursorInvalid, "this is no cursor of a query");
        if text.len() > MAX_CURSOR {
            return Err(refuse());
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| refuse())?;
        let cursor: Cursor = codec::decode("cursor", &bytes).map_err(|_| refuse())?;
        let (keys, sort) = (&cursor.after.keys, &cursor.query.sort);
        // Fields of the data may have any text: databases keep those as bytes.
        let is_no_text = |(key, value): (&SortKey, &Value)| matches!((&key.field, value), (Field::Builtin(_), Value::Text(text)) if !is_storable(text));
        if keys.len() != sort.len() || sort.len() > MAX_SORT || sort.iter().zip(keys).any(is_no_text) {
            return Err(refuse());
        }
        Ok(cursor)
    }
}

/// Some of the states that a query finds, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<'a> {
    /// The states.
    pub rows: Vec<&'a Row>,
    /// Where to go on; `None` if there is no more.
    pub cursor: Option<Cursor>,
}

/// The states that a query finds among these, after a cursor. The naive way, which databases are tested against.
///
/// # Errors
/// [`Rule::QueryInvalid`] beyond the bounds of a query, [`Rule::CursorInvalid`] for the cursor of another.
pub fn page<'a>(query: &Query, rows: &'a [Row], cursor: Option<&Cursor>) -> Result<Page<'a>> {
    query.check()?;
    if let Some(cursor) = cursor {
        cursor.check(query)?;
    }
    let mut found: Vec<(Place, &Row)> =
        rows.iter().filter(|row| query.finds(row)).map(|row| (query.place(row), row)).collect();
    found.sort_by(|(one, _), (other, _)| query.order(one, other));
    let after = |place: &Place| cursor.is_none_or(|cursor| query.order(place, &cursor.after) == Ordering::Greater);
    let mut rest = found.into_iter().filter(|(place, _)| after(place)).peekable();
    let taken: Vec<(Place, &Row)> = rest.by_ref().take(query.limit as usize).collect();
    let last = rest.peek().is_some().then(|| taken.last()).flatten();
    let cursor = last.map(|(_, row)| query.cursor_after(row));
    Ok(Page { rows: taken.into_iter().map(|(_, row)| row).collect(), cursor })
}
