//! Queries of a vault over any SQL database.
//!
//! The database narrows and sorts; what a query finds is decided by the meaning of its criteria ([`Query::finds`]) alone.
//! So the SQL lets through at least what the query finds, in the query's order, and a page is filled from that until it
//! is full. Criteria that SQL cannot tell exactly let everything through.
//!
//! Fields of the data lie in a table of their own, `vault_field (identity, name, value, state)`, as sort keys
//! ([`Value::sort_key`]): comparisons of values are comparisons of bytes. A field that is null, or is not there, has no
//! row. Parts of parties, such as `owner.name`, have none either.

use std::fmt::Write;

use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::query::{
    Builtin, CompareOp, Criterion, Cursor, Field, Operand, Query, Row, StatusFilter, Value,
};
use maxhost_model::IdentityRow;

use super::reader::LedgerReader;
use super::record::{VaultPage, VaultRow};
use crate::error::StoreError;

/// So many candidates are read at once at least.
const LEAST_READ: u32 = 64;
/// So many are read at once at most, when few of them are found.
const MOST_READ: u32 = 4_096;

/// A value that is bound to a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqlValue {
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(String),
    /// Bytes, compared one by one.
    Bytes(Vec<u8>),
}

/// A page that is asked for.
#[derive(Debug)]
pub struct PageRequest<'a> {
    /// The query.
    pub query: &'a Query,
    /// Behind this state.
    pub after: Option<&'a Cursor>,
    /// As the vault was after this change; `None`: as it is.
    pub as_of: Option<i64>,
    /// Leases that are over at this time are none.
    pub now: Timestamp,
    /// At most so many.
    pub limit: u32,
}

/// Conditions, order and bound of a statement over `vault_state s`, with the values that are bound to it.
#[derive(Debug, Default)]
pub struct SqlCriteria {
    /// Behind `WHERE`, with order and limit.
    pub sql: String,
    /// The values of its parameters, in order.
    pub values: Vec<SqlValue>,
    dialect: SqlDialect,
}

/// How a database writes what is not the same everywhere.
#[derive(Debug, Clone)]
pub struct SqlDialect {
    /// What stands before the number of a parameter: `?` or `$`.
    mark: char,
    /// The table of fields, by its whole name.
    fields: String,
    /// What makes a row `k` of it one of a state `s`.
    of_state: &'static str,
}

impl Default for SqlDialect {
    fn default() -> SqlDialect {
        SqlDialect::sqlite()
    }
}

impl SqlDialect {
    /// SQLite: states have numbers of their own over all identities.
    #[must_use]
    pub fn sqlite() -> SqlDialect {
        SqlDialect { mark: '?', fields: "vault_field".to_owned(), of_state: "k.state = s.number" }
    }

    /// PostgreSQL, with the tables in this schema: states are numbered within an identity.
    #[must_use]
    pub fn postgres(schema: &str) -> SqlDialect {
        let of_state = "k.identity = s.identity AND k.state = s.number";
        SqlDialect { mark: '$', fields: format!("{schema}.vault_field"), of_state }
    }
}

impl SqlCriteria {
    /// The statement's tail for a page.
    #[must_use]
    pub fn page(identity: IdentityRow, request: &PageRequest<'_>, dialect: SqlDialect) -> SqlCriteria {
        let mut sql = SqlCriteria { sql: String::new(), values: Vec::new(), dialect };
        sql.push("s.identity = ");
        sql.bind(SqlValue::Integer(identity.0));
        sql.status(request.query.status, request.as_of);
        if let Some(types) = &request.query.types {
            sql.push(" AND s.type IN (");
            // No type has a NUL in its name, which not every database takes.
            let types: Vec<&String> = types.iter().filter(|name| !name.contains('\0')).collect();
            for (place, name) in types.iter().enumerate() {
                sql.push(if place == 0 { "" } else { ", " });
                sql.bind(SqlValue::Text((*name).clone()));
            }
            // An empty list finds nothing.
            sql.push(if types.is_empty() { "NULL)" } else { ")" });
        }
        if let Some(Narrowed(condition)) = narrow(&request.query.filter, true) {
            sql.push(" AND ");
            sql.condition(&condition, identity);
        }
        let keys: Vec<(SortTerm, bool)> =
            request.query.sort.iter().map(|key| (SortTerm::of(&key.field), key.descending)).collect();
        if let Some(cursor) = request.after {
            sql.behind(&keys, cursor);
        }
        sql.push(" ORDER BY ");
        for (term, descending) in &keys {
            sql.term(term);
            sql.push(if *descending { " DESC, " } else { ", " });
        }
        sql.push("s.tx, s.idx LIMIT ");
        sql.bind(SqlValue::Integer(request.limit.into()));
        sql
    }

    fn push(&mut self, text: &str) {
        self.sql.push_str(text);
    }

    fn bind(&mut self, value: SqlValue) {
        self.values.push(value);
        let (mark, number) = (self.dialect.mark, self.values.len());
        // Writing to a text cannot fail.
        let _ = write!(self.sql, "{mark}{number}");
    }

    fn status(&mut self, status: StatusFilter, as_of: Option<i64>) {
        match as_of {
            None => self.push(match status {
                StatusFilter::Unconsumed => " AND s.consumed_by IS NULL",
                StatusFilter::Consumed => " AND s.consumed_by IS NOT NULL",
                StatusFilter::All => "",
            }),
            Some(change) => {
                self.push(" AND s.change_in <= ");
                self.bind(SqlValue::Integer(change));
                let (before, after) = match status {
                    StatusFilter::All => return,
                    StatusFilter::Unconsumed => (" AND (s.change_out IS NULL OR s.change_out > ", ")"),
                    StatusFilter::Consumed => (" AND s.change_out <= ", ""),
                };
                self.push(before);
                self.bind(SqlValue::Integer(change));
                self.push(after);
            }
        }
    }

    fn term(&mut self, term: &SortTerm) {
        match term {
            SortTerm::Column(column) => self.push(column),
            SortTerm::Field(name) => {
                let SqlDialect { fields, of_state, .. } = &self.dialect;
                let start = format!("coalesce((SELECT k.value FROM {fields} k WHERE {of_state} AND k.name = ");
                self.push(&start);
                self.bind(SqlValue::Text(name.clone()));
                self.push("), ");
                self.bind(SqlValue::Bytes(Value::Null.sort_key()));
                self.push(")");
            }
        }
    }

    /// Behind the state that a cursor names: a later value of the first key, or the same and a later one of the next.
    fn behind(&mut self, keys: &[(SortTerm, bool)], cursor: &Cursor) {
        let (values, reference) = cursor.after();
        self.push(" AND (");
        for (at, (term, descending)) in keys.iter().enumerate() {
            for ((equal, _), value) in keys.iter().zip(values).take(at) {
                self.term(equal);
                self.push(" = ");
                self.bind(equal.value(value));
                self.push(" AND ");
            }
            self.term(term);
            self.push(if *descending { " < " } else { " > " });
            self.bind(values.get(at).map_or(SqlValue::Integer(0), |value| term.value(value)));
            self.push(" OR ");
        }
        for ((equal, _), value) in keys.iter().zip(values) {
            self.term(equal);
            self.push(" = ");
            self.bind(equal.value(value));
            self.push(" AND ");
        }
        self.push("(s.tx, s.idx) > (");
        self.reference(&reference);
        self.push("))");
    }

    fn reference(&mut self, reference: &StateRef) {
        self.bind(SqlValue::Bytes(reference.tx.as_bytes().to_vec()));
        self.push(", ");
        self.bind(SqlValue::Integer(reference.index.into()));
    }

    fn condition(&mut self, condition: &Condition, identity: IdentityRow) {
        match condition {
            Condition::All(parts) => self.joined(parts, " AND ", identity),
            Condition::Any(parts) => self.joined(parts, " OR ", identity),
            Condition::Column { column, sign, value } => {
                self.push(column);
                self.push(sign);
                self.bind(value.clone());
            }
            Condition::Field { name, ranges } => {
                // One value names few states as a rule: they are looked up from it. A range is looked at state by state.
                let lookup = ranges.iter().all(|range| range.low == range.high);
                self.push(if lookup { "s.number IN (SELECT f.state FROM " } else { "EXISTS (SELECT 1 FROM " });
                self.sql.push_str(&self.dialect.fields);
                self.push(" f WHERE f.identity = ");
                self.bind(SqlValue::Integer(identity.0));
                if !lookup {
                    self.push(" AND f.state = s.number");
                }
                self.push(" AND f.name = ");
                self.bind(SqlValue::Text(name.clone()));
                self.push(" AND (");
                for (place, range) in ranges.iter().enumerate() {
                    self.push(if place == 0 { "(f.value >= " } else { " OR (f.value >= " });
                    self.bind(SqlValue::Bytes(range.low.clone()));
                    self.push(" AND f.value <= ");
                    self.bind(SqlValue::Bytes(range.high.clone()));
                    self.push(")");
                }
                self.push("))");
            }
        }
    }

    fn joined(&mut self, parts: &[Condition], word: &str, identity: IdentityRow) {
        self.push("(");
        for (place, part) in parts.iter().enumerate() {
            self.push(if place == 0 { "" } else { word });
            self.condition(part, identity);
        }
        self.push(")");
    }
}

/// What states are sorted by, in SQL.
#[derive(Debug)]
enum SortTerm {
    Column(&'static str),
    Field(String),
}

impl SortTerm {
    fn of(field: &Field) -> SortTerm {
        match field {
            Field::Builtin(Builtin::Ref) => SortTerm::Column("s.tx"),
            Field::Builtin(Builtin::Notary) => SortTerm::Column("s.notary"),
            Field::Builtin(Builtin::Recorded) => SortTerm::Column("s.recorded"),
            // Null is last, which no time is.
            Field::Builtin(Builtin::Consumed) => SortTerm::Column("coalesce(s.consumed, 9223372036854775807)"),
            Field::Builtin(Builtin::Type) => SortTerm::Column("s.type"),
            Field::Builtin(Builtin::Relevant) => SortTerm::Column("s.relevant"),
            Field::Builtin(Builtin::Constraint) => SortTerm::Column("s.constraint_kind"),
            Field::Builtin(Builtin::Lock) => SortTerm::Column("s.lock_holder"),
            Field::Data(name) => SortTerm::Field(name.clone()),
        }
    }

    /// A value as the column holds it.
    fn value(&self, value: &Value) -> SqlValue {
        match (self, value) {
            (SortTerm::Field(_), value) => SqlValue::Bytes(value.sort_key()),
            (SortTerm::Column(_), Value::Text(text)) => SqlValue::Text(text.clone()),
            (SortTerm::Column(_), Value::Time(time)) => SqlValue::Integer(integer(*time)),
            (SortTerm::Column(_), Value::Bool(value)) => SqlValue::Integer((*value).into()),
            (SortTerm::Column(_), _) => SqlValue::Integer(i64::MAX),
        }
    }
}

/// A time as it is stored: nanoseconds since 1970.
#[must_use]
pub fn integer(time: Timestamp) -> i64 {
    i64::try_from(time.nanos()).unwrap_or(i64::MAX)
}

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

/// What must hold for a state that is found, in a form that SQL can tell.
#[derive(Debug)]
enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Column { column: &'static str, sign: &'static str, value: SqlValue },
    Field { name: String, ranges: Vec<Range> },
}

/// Sort keys from one to another, both included.
#[derive(Debug)]
struct Range {
    low: Vec<u8>,
    high: Vec<u8>,
}

struct Narrowed(Condition);

/// A condition that holds wherever the criterion is true (`wanted`) or false (not `wanted`); `None`: nothing can be said.
fn narrow(criterion: &Criterion, wanted: bool) -> Option<Narrowed> {
    match criterion {
        Criterion::All(parts) if wanted => all(parts, wanted),
        Criterion::Any(parts) if !wanted => all(parts, wanted),
        Criterion::All(parts) | Criterion::Any(parts) => {
            let parts: Option<Vec<Condition>> = parts.iter().map(|part| narrow(part, wanted).map(|n| n.0)).collect();
            parts.filter(|parts| !parts.is_empty()).map(|parts| Narrowed(Condition::Any(parts)))
        }
        Criterion::Not(part) => narrow(part, !wanted),
        Criterion::Compare { left: Operand::Field(field), op, right: Operand::Literal(value) } if wanted => {
            compare(field, *op, value)
        }
        Criterion::Compare { left: Operand::Literal(value), op, right: Operand::Field(field) } if wanted => {
            compare(field, turned(*op), value)
        }
        Criterion::Between {
            value: Operand::Field(field),
            low: Operand::Literal(low),
            high: Operand::Literal(high),
            negated: false,
        } if wanted => {
            let parts = [compare(field, CompareOp::GreaterOrEqual, low), compare(field, CompareOp::LessOrEqual, high)];
            let parts: Vec<Condition> = parts.into_iter().flatten().map(|n| n.0).collect();
            (!parts.is_empty()).then_some(Narrowed(Condition::All(parts)))
        }
        Criterion::In { value: Operand::Field(field), list, negated: false } if wanted => {
            let one = |item: &Operand| match item {
                Operand::Literal(value) => compare(field, CompareOp::Equal, value).map(|n| n.0),
                Operand::Field(_) => None,
            };
            let parts: Option<Vec<Condition>> = list.iter().map(one).collect();
            parts.filter(|parts| !parts.is_empty()).map(|parts| Narrowed(Condition::Any(parts)))
        }
        _ => None,
    }
}

fn all(parts: &[Criterion], wanted: bool) -> Option<Narrowed> {
    let parts: Vec<Condition> = parts.iter().filter_map(|part| narrow(part, wanted)).map(|n| n.0).collect();
    (!parts.is_empty()).then_some(Narrowed(Condition::All(parts)))
}

fn turned(op: CompareOp) -> CompareOp {
    match op {
        CompareOp::Less => CompareOp::Greater,
        CompareOp::LessOrEqual => CompareOp::GreaterOrEqual,
        CompareOp::Greater => CompareOp::Less,
        CompareOp::GreaterOrEqual => CompareOp::LessOrEqual,
        same @ (CompareOp::Equal | CompareOp::NotEqual) => same,
    }
}

fn compare(field: &Field, op: CompareOp, value: &Value) -> Option<Narrowed> {
    match field {
        Field::Data(name) if is_indexed(name) => {
            let ranges: Vec<Range> = kinds_of(value).iter().map(|value| range(op, value)).collect();
            (!ranges.is_empty()).then(|| Narrowed(Condition::Field { name: name.clone(), ranges }))
        }
        Field::Builtin(Builtin::Notary) => column("s.notary", op, value),
        Field::Builtin(Builtin::Type) => column("s.type", op, value),
        Field::Builtin(Builtin::Ref) => reference(op, value),
        Field::Builtin(Builtin::Recorded) => time_column("s.recorded", op, value),
        Field::Builtin(Builtin::Relevant) => match (op, value) {
            (CompareOp::Equal, Value::Bool(value)) => {
                let value = SqlValue::Integer((*value).into());
                Some(Narrowed(Condition::Column { column: "s.relevant", sign: " = ", value }))
            }
            _ => None,
        },
        _ => None,
    }
}

fn sign(op: CompareOp) -> &'static str {
    match op {
        CompareOp::Equal => " = ",
        CompareOp::NotEqual => " <> ",
        CompareOp::Less => " < ",
        CompareOp::LessOrEqual => " <= ",
        CompareOp::Greater => " > ",
        CompareOp::GreaterOrEqual => " >= ",
    }
}

fn column(column: &'static str, op: CompareOp, value: &Value) -> Option<Narrowed> {
    // Not every database takes a NUL in a text.
    let Value::Text(text) = value else { return None };
    if text.contains('\0') {
        return None;
    }
    Some(Narrowed(Condition::Column { column, sign: sign(op), value: SqlValue::Text(text.clone()) }))
}

/// A reference that is named whole is looked up.
fn reference(op: CompareOp, value: &Value) -> Option<Narrowed> {
    let Value::Text(text) = value else { return None };
    let reference: StateRef = text.parse().ok().filter(|_| op == CompareOp::Equal)?;
    let part = |column, value| Condition::Column { column, sign: " = ", value };
    Some(Narrowed(Condition::All(vec![
        part("s.tx", SqlValue::Bytes(reference.tx.as_bytes().to_vec())),
        part("s.idx", SqlValue::Integer(reference.index.into())),
    ])))
}

fn time_column(column: &'static str, op: CompareOp, value: &Value) -> Option<Narrowed> {
    let time = match value {
        Value::Time(time) => *time,
        Value::Text(text) => text.parse().ok()?,
        _ => return None,
    };
    Some(Narrowed(Condition::Column { column, sign: sign(op), value: SqlValue::Integer(integer(time)) }))
}

/// A text may be compared to a time, and a time to a text.
fn kinds_of(value: &Value) -> Vec<Value> {
    match value {
        // A text that is compared to a time may name it in many ways.
        Value::Null | Value::Time(_) => Vec::new(),
        Value::Text(text) => match text.parse() {
            Ok(time) => vec![value.clone(), Value::Time(time)],
            Err(_) => vec![value.clone()],
        },
        other => vec![other.clone()],
    }
}

/// Where the sort keys of values lie that compare so; a key that was cut stands for all that begin with it.
fn range(op: CompareOp, value: &Value) -> Range {
    let key = value.sort_key();
    let first = key.first().copied().unwrap_or_default();
    let (least, most) = (vec![first], vec![first + 1]);
    match op {
        CompareOp::Equal => Range { low: key.clone(), high: key },
        CompareOp::NotEqual => Range { low: least, high: most },
        CompareOp::Less | CompareOp::LessOrEqual => Range { low: least, high: key },
        CompareOp::Greater | CompareOp::GreaterOrEqual => Range { low: key, high: most },
    }
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
    let wanted = query.limit as usize + 1;
    let mut rows: Vec<VaultRow> = Vec::new();
    let mut after = cursor.cloned();
    let mut limit = query.limit.saturating_add(1).clamp(LEAST_READ, MOST_READ);
    while rows.len() < wanted {
        let request = PageRequest { query, after: after.as_ref(), as_of, now, limit };
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
    let mut after = None;
    loop {
        let request = PageRequest { query: &query, after: after.as_ref(), as_of, now, limit: MOST_READ };
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
