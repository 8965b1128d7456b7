//! What criteria say of the rows of a database: conditions that hold wherever the criteria are true.

use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::query::{Builtin, CompareOp, Criterion, Field, Operand, Query, Set, Value};

use super::KEY_EXTERNAL_IDS;
use super::sql_value::{SqlValue, integer};

/// Ranges of one field that are cut with each other at most.
const MOST_CUTS: usize = 64;
/// Ranges of one field, beside single values, that are told apart at most: databases bound the depth of an expression.
const MOST_RANGES: usize = 16;
/// Conditions that stand beside each other at most, for the same reason.
const MOST_PARTS: usize = 128;

/// What must hold for a state that is found, in a form that SQL can tell.
#[derive(Debug)]
pub(super) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Column {
        column: &'static str,
        sign: &'static str,
        value: SqlValue,
    },
    /// The index of fields has no row of this name.
    Lacks(&'static str),
    /// What an index finds.
    Having(Having),
}

/// What an index finds states by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Having {
    /// They have a field so.
    Field(FieldRanges),
    /// They were recorded from one time to another, both included, as databases keep times.
    Recorded {
        /// The first time.
        from: i64,
        /// The last time.
        to: i64,
    },
}

/// How many values the index of fields may have of one field of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    /// One: that of a field of the data.
    One,
    /// A set, of which each has a row of its own: what is said of one of them is not said of another, and a state that has
    /// several of those that are looked for is found by each.
    Several,
}

/// A field of the data whose sort key lies in one of some ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRanges {
    /// The field's name.
    pub(super) name: String,
    /// How many values a state may have of it.
    pub(super) values: Values,
    /// At least one.
    pub(super) ranges: Vec<Range>,
}

impl Having {
    /// Those of which every one holds of each state that a query finds, as its criteria want it.
    #[must_use]
    pub fn of(query: &Query) -> Vec<Having> {
        let having = |part| match part {
            Condition::Having(having) => Some(having),
            _ => None,
        };
        narrow(&query.filter).map(Condition::parts).unwrap_or_default().into_iter().filter_map(having).collect()
    }

    /// What holds where either of the two does not reach further than the other; `None` if they are not of one index, or too
    /// many, or exclude each other, which a database finds out by itself.
    fn and(&self, other: &Having) -> Option<Having> {
        match (self, other) {
            // What is said of two of several values cannot be cut with each other.
            (Having::Field(one), Having::Field(other)) if one.name == other.name && one.values == Values::One => {
                cut(one, other).map(|ranges| Having::Field(FieldRanges { ranges, ..one.clone() }))
            }
            (Having::Recorded { from, to }, Having::Recorded { from: other_from, to: other_to }) => {
                let (from, to) = (*from.max(other_from), *to.min(other_to));
                (from <= to).then_some(Having::Recorded { from, to })
            }
            _ => None,
        }
    }
}

impl Condition {
    /// All that must hold.
    pub(super) fn parts(self) -> Vec<Condition> {
        match self {
            Condition::All(parts) => parts,
            part => vec![part],
        }
    }

    fn having(&self) -> Option<&Having> {
        match self {
            Condition::Having(having) => Some(having),
            _ => None,
        }
    }

    /// If it says nothing but that one of these holds: these.
    pub(super) fn alternatives(&self) -> Option<Vec<&Having>> {
        match self {
            Condition::Having(having) => Some(vec![having]),
            Condition::Any(parts) => parts.iter().map(Condition::having).collect(),
            Condition::All(_) | Condition::Column { .. } | Condition::Lacks(_) => None,
        }
    }
}

impl FieldRanges {
    /// The least and the largest sort key of all ranges.
    pub(super) fn ends(&self) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let low = self.ranges.iter().map(|range| range.low.clone()).min();
        (low, self.ranges.iter().map(|range| range.high.clone()).max())
    }
}

/// Sort keys from one to another, both included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) low: Vec<u8>,
    pub(super) high: Vec<u8>,
}

impl Range {
    /// Whether it is one sort key.
    pub(super) fn is_value(&self) -> bool {
        self.low == self.high
    }
}

/// A condition that holds wherever the criterion is true; `None`: nothing can be said.
pub(super) fn narrow(criterion: &Criterion) -> Option<Condition> {
    narrow_to(criterion, true).map(|Narrowed(condition)| condition)
}

struct Narrowed(Condition);

/// A condition that holds wherever the criterion is true (`wanted`) or false (not `wanted`); `None`: nothing can be said.
fn narrow_to(criterion: &Criterion, wanted: bool) -> Option<Narrowed> {
    match criterion {
        Criterion::All(parts) if wanted => all(parts, wanted),
        Criterion::Any(parts) if !wanted => all(parts, wanted),
        Criterion::All(parts) | Criterion::Any(parts) => {
            let parts: Option<Vec<Condition>> = parts.iter().map(|part| narrow_to(part, wanted).map(|n| n.0)).collect();
            parts.filter(|parts| !parts.is_empty()).and_then(any_of).map(Narrowed)
        }
        Criterion::Not(part) => narrow_to(part, !wanted),
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
            (!parts.is_empty()).then_some(Narrowed(all_of(parts)))
        }
        Criterion::In { value: Operand::Field(field), list, negated: false } if wanted => {
            let one = |item: &Operand| match item {
                Operand::Literal(value) => compare(field, CompareOp::Equal, value).map(|n| n.0),
                Operand::Field(_) => None,
            };
            let parts: Option<Vec<Condition>> = list.iter().map(one).collect();
            parts.filter(|parts| !parts.is_empty()).and_then(any_of).map(Narrowed)
        }
        Criterion::IsEmpty { set: Set::ExternalIds } if wanted => Some(Narrowed(Condition::Lacks(KEY_EXTERNAL_IDS))),
        // Nothing can be told of what has none of them.
        Criterion::HasAny { set: Set::ExternalIds, of } if wanted && !of.is_empty() => {
            let ranges = of.iter().map(|id| range(CompareOp::Equal, &Value::text(id)));
            let mut found: Vec<Range> = Vec::new();
            for range in ranges {
                if !found.contains(&range) {
                    found.push(range);
                }
            }
            let (name, values) = (KEY_EXTERNAL_IDS.to_owned(), Values::Several);
            Some(Narrowed(Condition::Having(Having::Field(FieldRanges { name, values, ranges: found }))))
        }
        _ => None,
    }
}

fn all(parts: &[Criterion], wanted: bool) -> Option<Narrowed> {
    let parts: Vec<Condition> = parts.iter().filter_map(|part| narrow_to(part, wanted)).map(|n| n.0).collect();
    (!parts.is_empty()).then_some(Narrowed(all_of(parts)))
}

/// All of these. A field has one value, so what is said of it twice holds of the one value.
fn all_of(parts: Vec<Condition>) -> Condition {
    let mut all: Vec<Condition> = Vec::new();
    for part in parts {
        match part {
            Condition::All(inner) => inner.into_iter().for_each(|part| and(&mut all, part)),
            part => and(&mut all, part),
        }
    }
    // The rest is left to the meaning of the criteria.
    all.truncate(MOST_PARTS);
    Condition::All(all)
}

fn and(all: &mut Vec<Condition>, part: Condition) {
    if let Condition::Having(new) = &part {
        for known in all.iter_mut() {
            let Condition::Having(known) = known else { continue };
            if let Some(both) = known.and(new) {
                *known = both;
                return;
            }
        }
    }
    all.push(part);
}

/// What lies in both; `None` if nothing does, which a database finds out by itself, or there are too many ranges.
fn cut(one: &FieldRanges, other: &FieldRanges) -> Option<Vec<Range>> {
    if one.ranges.len() * other.ranges.len() > MOST_CUTS {
        return None;
    }
    let pairs = one.ranges.iter().flat_map(|a| other.ranges.iter().map(move |b| (a, b)));
    let both =
        pairs.map(|(a, b)| Range { low: a.low.clone().max(b.low.clone()), high: a.high.clone().min(b.high.clone()) });
    let both: Vec<Range> = both.filter(|range| range.low <= range.high).collect();
    (!both.is_empty()).then_some(both)
}

/// One of these, those of one field together; `None`: they are too many to be told.
fn any_of(parts: Vec<Condition>) -> Option<Condition> {
    let mut any: Vec<Condition> = Vec::new();
    for part in parts {
        let Condition::Having(Having::Field(new)) = part else {
            any.push(part);
            continue;
        };
        let same = any.iter_mut().find_map(|known| match known {
            Condition::Having(Having::Field(known)) if known.name == new.name => Some(known),
            _ => None,
        });
        match same {
            Some(known) => known
                .ranges
                .extend(new.ranges.into_iter().filter(|range| !known.ranges.contains(range)).collect::<Vec<_>>()),
            None => any.push(Condition::Having(Having::Field(new))),
        }
    }
    for part in &mut any {
        if let Condition::Having(Having::Field(field)) = part {
            join(field);
        }
    }
    match any.len() {
        0 | 1 => any.pop(),
        2..=MOST_PARTS => Some(Condition::Any(any)),
        _ => None,
    }
}

/// Of many ranges one is made that has them all.
fn join(field: &mut FieldRanges) {
    let ranges = |field: &FieldRanges| field.ranges.iter().filter(|range| !range.is_value()).count();
    if ranges(field) <= MOST_RANGES {
        return;
    }
    if let (Some(low), Some(high)) = field.ends() {
        field.ranges = vec![Range { low, high }];
    }
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
        Field::Data(name) if super::is_indexed(name) => {
            let ranges: Vec<Range> = kinds_of(value).iter().map(|value| range(op, value)).collect();
            let field = (!ranges.is_empty()).then(|| FieldRanges { name: name.clone(), values: Values::One, ranges });
            field.map(|field| Narrowed(Condition::Having(Having::Field(field))))
        }
        Field::Builtin(Builtin::Notary) => column("s.notary", op, value),
        Field::Builtin(Builtin::Type) => column("s.type", op, value),
        Field::Builtin(Builtin::Ref) => reference(op, value),
        Field::Builtin(Builtin::Recorded) => recorded(op, value),
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

fn recorded(op: CompareOp, value: &Value) -> Option<Narrowed> {
    let time = match value {
        Value::Time(time) => integer(*time),
        Value::Text(text) => integer(text.parse().ok()?),
        _ => return None,
    };
    let (from, to) = match op {
        CompareOp::Equal => (time, time),
        CompareOp::Less => (i64::MIN, time.saturating_sub(1)),
        CompareOp::LessOrEqual => (i64::MIN, time),
        CompareOp::Greater => (time.saturating_add(1), i64::MAX),
        CompareOp::GreaterOrEqual => (time, i64::MAX),
        CompareOp::NotEqual => return None,
    };
    Some(Narrowed(Condition::Having(Having::Recorded { from, to })))
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
