//! Statements about a vault, for any SQL database.

use std::fmt::Write;
use std::ops::Bound;

use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::query::{Builtin, Cursor, Field, Query, StatusFilter, Value};
use maxhost_model::IdentityRow;

use super::narrow::{Condition, FieldRanges, Having, Range, Values, narrow};
use super::slice::{Alike, Indexed, Slice};
use super::sql_value::{SqlValue, integer};

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
    /// Only states of these types, in place of those of the query; `None`: of any.
    pub types: Option<&'a [String]>,
    /// What all these states have alike of the first keys that the query sorts by.
    pub alike: &'a [Alike],
    /// Where they are looked for.
    pub source: Source<'a>,
}

/// Where the states of a page are looked for.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// In the whole vault, in the order of the query if an index has it.
    Vault,
    /// Among all states of the query's status and types, which were counted ([`SqlCriteria::count_states`]).
    Counted,
    /// Of every state that is found one of these holds, and of few states any does: they are looked up.
    Few(&'a [Having]),
    /// A piece of the index of the first key of the sort that they do not have alike.
    Slice(&'a Slice),
}

/// A statement over `vault_state s`, with the values that are bound to it.
#[derive(Debug, Default)]
pub struct SqlCriteria {
    /// Behind `FROM`: tables, conditions, order and limit.
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
    /// The tables of states and of fields, by their whole names.
    states: String,
    fields: String,
    /// What makes a row `k` of the second one of a state `s`.
    of_state: &'static str,
    /// What joins states to others so that these are read first.
    join: &'static str,
    /// Behind a state `s`: it is read by the index of the times of recording.
    by_recorded: &'static str,
    /// The same, by the index of those that are not consumed.
    by_unconsumed: &'static str,
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
        SqlDialect {
            mark: '?',
            states: "vault_state".to_owned(),
            fields: "vault_field".to_owned(),
            of_state: "k.state = s.number",
            join: "CROSS JOIN",
            by_recorded: " INDEXED BY vault_state_recorded",
            by_unconsumed: " INDEXED BY vault_state_unconsumed",
        }
    }

    /// PostgreSQL, with the tables in this schema: states are numbered within an identity.
    #[must_use]
    pub fn postgres(schema: &str) -> SqlDialect {
        let of_state = "k.identity = s.identity AND k.state = s.number";
        let (states, fields) = (format!("{schema}.vault_state"), format!("{schema}.vault_field"));
        SqlDialect { mark: '$', states, fields, of_state, join: "JOIN", by_recorded: "", by_unconsumed: "" }
    }
}

impl SqlCriteria {
    /// The statement's tail for a page.
    #[must_use]
    pub fn page(identity: IdentityRow, request: &PageRequest<'_>, dialect: SqlDialect) -> SqlCriteria {
        let mut sql = SqlCriteria::new(dialect);
        sql.states(identity, request.source, request.query.status);
        sql.push(" WHERE s.identity = ");
        sql.bind(SqlValue::Integer(identity.0));
        sql.slice(identity, request.source);
        sql.status(request.query.status, request.as_of);
        sql.types(request.types);
        for part in narrow(&request.query.filter).map(Condition::parts).unwrap_or_default() {
            // What was looked up is not looked at again.
            if !matches!(request.source, Source::Few(few) if part.alternatives().is_some_and(|any| any.iter().copied().eq(few)))
            {
                sql.push(" AND ");
                sql.condition(&part);
            }
        }
        for alike in request.alike {
            sql.alike(alike);
        }
        let keys = request.query.sort.iter().skip(request.alike.len());
        let mut keys: Vec<(SortTerm, bool)> = keys.map(|key| (SortTerm::of(&key.field), key.descending)).collect();
        if let (Source::Slice(Slice { of: Indexed::Field(_), .. }), Some((first, _))) =
            (request.source, keys.first_mut())
        {
            *first = SortTerm::Joined;
        }
        if let Some(cursor) = request.after {
            sql.behind(&keys, cursor, request.alike.len());
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

    fn new(dialect: SqlDialect) -> SqlCriteria {
        SqlCriteria { sql: String::new(), values: Vec::new(), dialect }
    }

    /// The statement's tail that counts the states of which this holds, up to a number of them. One that two ranges have
    /// counts twice.
    #[must_use]
    pub fn count(identity: IdentityRow, having: &Having, most: u32, dialect: SqlDialect) -> SqlCriteria {
        let mut sql = SqlCriteria::new(dialect);
        sql.push("(");
        sql.having(identity, having, " UNION ALL ");
        sql.push(" LIMIT ");
        sql.bind(SqlValue::Integer(most.into()));
        sql.push(") few");
        sql
    }

    /// The statement's tail that counts the states of a status and of types, up to a number of them.
    #[must_use]
    pub fn count_states(
        identity: IdentityRow,
        status: StatusFilter,
        types: Option<&[String]>,
        most: u32,
        dialect: SqlDialect,
    ) -> SqlCriteria {
        let mut sql = SqlCriteria::new(dialect);
        sql.push("(SELECT 1 FROM ");
        sql.states(identity, Source::Counted, status);
        sql.push(" WHERE s.identity = ");
        sql.bind(SqlValue::Integer(identity.0));
        sql.status(status, None);
        sql.types(types);
        sql.push(" LIMIT ");
        sql.bind(SqlValue::Integer(most.into()));
        sql.push(") few");
        sql
    }

    /// The statement that tells which key is at a place of a slice, of which the first is 0.
    #[must_use]
    pub fn key_at(identity: IdentityRow, slice: &Slice, place: u32, dialect: SqlDialect) -> SqlCriteria {
        let mut sql = SqlCriteria::new(dialect);
        let (row, column) = match slice.of {
            Indexed::Field(_) => ("f", "f.value"),
            Indexed::Recorded => ("s", "s.recorded"),
        };
        sql.push("SELECT ");
        sql.push(column);
        sql.push(" FROM ");
        let SqlDialect { states, fields, by_recorded, .. } = sql.dialect.clone();
        match slice.of {
            Indexed::Field(_) => sql.push(&format!("{fields} f")),
            Indexed::Recorded => sql.push(&format!("{states} s{by_recorded}")),
        }
        sql.push(&format!(" WHERE {row}.identity = "));
        sql.bind(SqlValue::Integer(identity.0));
        sql.bounds(slice, column);
        sql.push(" ORDER BY ");
        sql.push(column);
        sql.push(if slice.descending { " DESC LIMIT 1 OFFSET " } else { " LIMIT 1 OFFSET " });
        sql.bind(SqlValue::Integer(place.into()));
        sql
    }

    /// The states, or those of them that are among few or in a slice.
    fn states(&mut self, identity: IdentityRow, source: Source<'_>, status: StatusFilter) {
        let SqlDialect { states, fields, join, by_recorded, by_unconsumed, .. } = self.dialect.clone();
        match source {
            Source::Counted if status == StatusFilter::Unconsumed => self.push(&format!("{states} s{by_unconsumed}")),
            Source::Vault | Source::Counted => self.push(&format!("{states} s")),
            Source::Few(few) => {
                self.push("(");
                for (place, having) in few.iter().enumerate() {
                    self.push(if place == 0 { "" } else { " UNION " });
                    self.having(identity, having, " UNION ");
                }
                self.push(&format!(") few {join} {states} s ON s.number = few.state"));
            }
            Source::Slice(Slice { of: Indexed::Field(_), .. }) => {
                self.push(&format!("{fields} f {join} {states} s ON s.number = f.state"));
            }
            Source::Slice(Slice { of: Indexed::Recorded, .. }) => self.push(&format!("{states} s{by_recorded}")),
        }
    }

    /// Within the slice, if it is one.
    fn slice(&mut self, identity: IdentityRow, source: Source<'_>) {
        let Source::Slice(slice) = source else { return };
        match slice.of {
            Indexed::Field(_) => {
                self.push(" AND f.identity = ");
                self.bind(SqlValue::Integer(identity.0));
                self.bounds(slice, "f.value");
            }
            Indexed::Recorded => self.bounds(slice, "s.recorded"),
        }
    }

    fn bounds(&mut self, slice: &Slice, column: &str) {
        match &slice.of {
            Indexed::Recorded => self.push(&in_recorded("s")),
            Indexed::Field(name) => {
                self.push(" AND f.name = ");
                self.bind(SqlValue::Text(name.clone()));
            }
        }
        let signs =
            if slice.descending { [(" <= ", " < "), (" >= ", " > ")] } else { [(" >= ", " > "), (" <= ", " < ")] };
        for (bound, (within, beyond)) in [&slice.from, &slice.to].into_iter().zip(signs) {
            let (sign, value) = match bound {
                Bound::Unbounded => continue,
                Bound::Included(value) => (within, value),
                Bound::Excluded(value) => (beyond, value),
            };
            self.push(" AND ");
            self.push(column);
            self.push(sign);
            self.bind(value.clone());
        }
    }

    fn types(&mut self, types: Option<&[String]>) {
        let Some(types) = types else { return };
        self.push(" AND s.type IN (");
        // No type has a NUL in its name, which not every database takes.
        let types: Vec<&String> = types.iter().filter(|name| !name.contains('\0')).collect();
        for (place, name) in types.iter().enumerate() {
            self.push(if place == 0 { "" } else { ", " });
            self.bind(SqlValue::Text((*name).clone()));
        }
        // An empty list finds nothing.
        self.push(if types.is_empty() { "NULL)" } else { ")" });
    }

    fn alike(&mut self, alike: &Alike) {
        let SqlDialect { fields, of_state, .. } = self.dialect.clone();
        match alike {
            Alike::Recorded(time) => {
                self.push(" AND s.recorded = ");
                self.bind(SqlValue::Integer(*time));
            }
            Alike::Field { name, value } => {
                self.push(&format!(" AND EXISTS (SELECT 1 FROM {fields} k WHERE {of_state} AND k.name = "));
                self.bind(SqlValue::Text(name.clone()));
                self.push(" AND k.value = ");
                self.bind(SqlValue::Bytes(value.clone()));
                self.push(")");
            }
            Alike::Lacks { name } => {
                self.push(" AND ");
                self.lacks(name);
            }
        }
    }

    /// The index of fields has no row of this name for the state.
    fn lacks(&mut self, name: &str) {
        let SqlDialect { fields, of_state, .. } = self.dialect.clone();
        self.push(&format!("NOT EXISTS (SELECT 1 FROM {fields} k WHERE {of_state} AND k.name = "));
        self.bind(SqlValue::Text(name.to_owned()));
        self.push(")");
    }

    /// The numbers of the states of which this holds. SQLite looks no further into an index than to an alternative of ranges,
    /// so each is a statement of its own.
    fn having(&mut self, identity: IdentityRow, having: &Having, united: &str) {
        let SqlDialect { states, fields, by_recorded, .. } = self.dialect.clone();
        let field = match having {
            Having::Recorded { from, to } => {
                self.push(&format!("SELECT r.number AS state FROM {states} r{by_recorded} WHERE r.identity = "));
                self.bind(SqlValue::Integer(identity.0));
                self.times("r", *from, *to);
                return self.push(&in_recorded("r"));
            }
            Having::Field(field) => field,
        };
        for (place, part) in parts_of(field).into_iter().enumerate() {
            self.push(if place == 0 { "" } else { united });
            // A state that has several of these values is to be found once.
            let is_one_value = matches!(part[..], [one] if one.is_value());
            let distinct = if field.values == Values::Several && !is_one_value { "DISTINCT " } else { "" };
            self.push(&format!("SELECT {distinct}f.state AS state FROM {fields} f WHERE f.identity = "));
            self.bind(SqlValue::Integer(identity.0));
            self.push(" AND f.name = ");
            self.bind(SqlValue::Text(field.name.clone()));
            self.push(" AND ");
            self.part("f", &part);
        }
    }

    fn times(&mut self, row: &str, from: i64, to: i64) {
        for (sign, time) in [(">=", from), ("<=", to)] {
            self.push(&format!(" AND {row}.recorded {sign} "));
            self.bind(SqlValue::Integer(time));
        }
    }

    /// One range, or one of some values.
    fn part(&mut self, row: &str, part: &[&Range]) {
        match part {
            [one] => self.range(row, one),
            values => {
                self.push(row);
                self.push(".value IN (");
                for (place, value) in values.iter().enumerate() {
                    self.push(if place == 0 { "" } else { ", " });
                    self.bind(SqlValue::Bytes(value.low.clone()));
                }
                self.push(")");
            }
        }
    }

    fn range(&mut self, row: &str, range: &Range) {
        self.push("(");
        self.push(row);
        self.push(".value >= ");
        self.bind(SqlValue::Bytes(range.low.clone()));
        self.push(" AND ");
        self.push(row);
        self.push(".value <= ");
        self.bind(SqlValue::Bytes(range.high.clone()));
        self.push(")");
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
            SortTerm::Joined => self.push("f.value"),
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
    /// The first keys, so many, are alike.
    fn behind(&mut self, keys: &[(SortTerm, bool)], cursor: &Cursor, alike: usize) {
        let (values, reference) = cursor.after();
        let values = values.get(alike..).unwrap_or_default();
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

    fn condition(&mut self, condition: &Condition) {
        match condition {
            Condition::All(parts) => self.joined(parts, " AND "),
            Condition::Any(parts) => self.joined(parts, " OR "),
            Condition::Column { column, sign, value } => {
                self.push(column);
                self.push(sign);
                self.bind(value.clone());
            }
            Condition::Lacks(name) => self.lacks(name),
            Condition::Having(Having::Recorded { from, to }) => {
                self.push("(s.recorded >= ");
                self.bind(SqlValue::Integer(*from));
                self.push(" AND s.recorded <= ");
                self.bind(SqlValue::Integer(*to));
                self.push(")");
            }
            Condition::Having(Having::Field(field)) => {
                // State by state: where few states have it so, they were looked up.
                let SqlDialect { fields, of_state, .. } = self.dialect.clone();
                self.push("EXISTS (SELECT 1 FROM ");
                self.push(&fields);
                self.push(" k WHERE ");
                self.push(of_state);
                self.push(" AND k.name = ");
                self.bind(SqlValue::Text(field.name.clone()));
                for (place, part) in parts_of(field).into_iter().enumerate() {
                    self.push(if place == 0 { " AND (" } else { " OR " });
                    self.part("k", &part);
                }
                self.push("))");
            }
        }
    }

    fn joined(&mut self, parts: &[Condition], word: &str) {
        self.push("(");
        for (place, part) in parts.iter().enumerate() {
            self.push(if place == 0 { "" } else { word });
            self.condition(part);
        }
        self.push(")");
    }
}

/// The index of the times of recording has the states of which this is true, which are all.
fn in_recorded(row: &str) -> String {
    format!(" AND {row}.idx >= 0")
}

/// The ranges of a field, each by itself, and all its single values together.
fn parts_of(field: &FieldRanges) -> Vec<Vec<&Range>> {
    let (values, ranges): (Vec<&Range>, Vec<&Range>) = field.ranges.iter().partition(|range| range.is_value());
    let mut parts: Vec<Vec<&Range>> = ranges.into_iter().map(|range| vec![range]).collect();
    if !values.is_empty() {
        parts.push(values);
    }
    parts
}

/// What states are sorted by, in SQL.
#[derive(Debug)]
enum SortTerm {
    Column(&'static str),
    Field(String),
    /// The field of the slice that states are read from.
    Joined,
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
            (SortTerm::Field(_) | SortTerm::Joined, value) => SqlValue::Bytes(value.sort_key()),
            (SortTerm::Column(_), Value::Text(text)) => SqlValue::Text(text.clone()),
            (SortTerm::Column(_), Value::Time(time)) => SqlValue::Integer(integer(*time)),
            (SortTerm::Column(_), Value::Bool(value)) => SqlValue::Integer((*value).into()),
            (SortTerm::Column(_), _) => SqlValue::Integer(i64::MAX),
        }
    }
}
