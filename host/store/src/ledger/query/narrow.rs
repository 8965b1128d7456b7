//! What criteria say of the rows of a database: conditions that hold wherever the criteria are true.

use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::query::{Builtin, CompareOp, Criterion, Field, Operand, Query, Value};

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
    Column { column: &'static str, sign: &'static str, value: SqlValue },
    Field(FieldRanges),
}

/// A field of the data whose sort key lies in one of some ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRanges {
    /// The field's name.
    pub(super) name: String,
    /// At least one.
    pub(super) ranges: Vec<Range>,
}

impl FieldRanges {
    /// The fields of which each state that a query finds has every one, as its criteria want them.
    #[must_use]
    pub fn of(query: &Query) -> Vec<FieldRanges> {
        let parts = match narrow(&query.filter) {
            Some(Condition::All(parts)) => parts,
            part => part.into_iter().collect(),
        };
        let field = |part| match part {
            Condition::Field(field) => Some(field),
            _ => None,
        };
        parts.into_iter().filter_map(field).collect()
    }
}

/// Sort keys from one to another, both included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) low: Vec<u8>,
    pub(super) high: Vec<u8>,
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
    if let Condition::Field(new) = &part {
        for known in all.iter_mut() {
            let Condition::Field(known) = known else { continue };
            if let Some(both) =
                Some(&mut *known).filter(|known| known.name == new.name).and_then(|known| cut(known, new))
            {
                known.ranges = both;
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
        let Condition::Field(new) = part else {
            any.push(part);
            continue;
        };
        let same = any.iter_mut().find_map(|known| match known {
            Condition::Field(known) if known.name == new.name => Some(known),
            _ => None,
        });
        match same {
            Some(known) => known
                .ranges
                .extend(new.ranges.into_iter().filter(|range| !known.ranges.contains(range)).collect::<Vec<_>>()),
            None => any.push(Condition::Field(new)),
        }
    }
    for part in &mut any {
        if let Condition::Field(field) = part {
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
    let ranges = |field: &FieldRanges| field.ranges.iter().filter(|range| range.low != range.high).count();
    if ranges(field) <= MOST_RANGES {
        return;
    }
    let low = field.ranges.iter().map(|range| range.low.clone()).min();
    let high = field.ranges.iter().map(|range| range.high.clone()).max();
    if let (Some(low), Some(high)) = (low, high) {
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
            (!ranges.is_empty()).then(|| Narrowed(Condition::Field(FieldRanges { name: name.clone(), ranges })))
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
