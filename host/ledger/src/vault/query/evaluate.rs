//! The meaning of criteria: a naive evaluator, which databases are tested against (behaviour.md 12.6).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::criteria::{Builtin, CompareOp, Criterion, Field, Operand, Set};
use super::value::Value;
use crate::time::Timestamp;
use crate::tx::StateRef;

/// Whether a state is still there to be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// It is.
    Unconsumed,
    /// It is not.
    Consumed,
}

/// Who holds a state, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// The holder, which contains the id of a flow.
    pub holder: String,
    /// The end of the lease.
    pub until: Timestamp,
}

/// What a query knows of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its reference.
    pub reference: StateRef,
    /// Contract and type, as `cash/Cash`.
    pub type_name: String,
    /// Whether it is still there.
    pub status: Status,
    /// When it was recorded.
    pub recorded: Timestamp,
    /// When it was consumed.
    pub consumed: Option<Timestamp>,
    /// The name of its notary.
    pub notary: String,
    /// Who holds it. A lease that is over is none.
    pub lock: Option<Lock>,
    /// Whether it is one's own.
    pub relevant: bool,
    /// The kind of its constraint.
    pub constraint: String,
    /// The names of its participants, and the fingerprints of their keys.
    pub participants: BTreeSet<String>,
    /// The external ids of its keys, as far as the identity has made them.
    pub external_ids: BTreeSet<String>,
    /// The fields of its data, parts of parts joined by points.
    pub data: BTreeMap<String, Value>,
}

impl Row {
    /// The value of a field.
    #[must_use]
    pub fn value(&self, field: &Field) -> Value {
        match field {
            Field::Builtin(Builtin::Ref) => Value::text(self.reference.to_string()),
            Field::Builtin(Builtin::Notary) => Value::text(&self.notary),
            Field::Builtin(Builtin::Recorded) => Value::Time(self.recorded),
            Field::Builtin(Builtin::Consumed) => self.consumed.map_or(Value::Null, Value::Time),
            Field::Builtin(Builtin::Lock) => self.lock.as_ref().map_or(Value::Null, |lock| Value::text(&lock.holder)),
            Field::Builtin(Builtin::Type) => Value::text(&self.type_name),
            Field::Builtin(Builtin::Relevant) => Value::Bool(self.relevant),
            Field::Builtin(Builtin::Constraint) => Value::text(&self.constraint),
            Field::Data(name) => self.data.get(name).cloned().unwrap_or(Value::Null),
        }
    }

    fn set(&self, set: Set) -> &BTreeSet<String> {
        match set {
            Set::Participants => &self.participants,
            Set::ExternalIds => &self.external_ids,
        }
    }
}

/// True, false, or unknown. A state is found when it is true.
pub type Truth = Option<bool>;

/// Whether a condition holds for a state.
#[must_use]
pub fn evaluate(criterion: &Criterion, row: &Row) -> Truth {
    match criterion {
        Criterion::All(parts) => fold(parts, row, false),
        Criterion::Any(parts) => fold(parts, row, true),
        Criterion::Not(part) => evaluate(part, row).map(|truth| !truth),
        Criterion::Compare { left, op, right } => compare(&value(left, row), *op, &value(right, row)),
        Criterion::Between { value: of, low, high, negated } => {
            let of = value(of, row);
            let above = compare(&of, CompareOp::GreaterOrEqual, &value(low, row));
            let below = compare(&of, CompareOp::LessOrEqual, &value(high, row));
            turned(and(above, below), *negated)
        }
        Criterion::In { value: of, list, negated } => {
            let of = value(of, row);
            let equal = list.iter().map(|item| compare(&of, CompareOp::Equal, &value(item, row)));
            turned(equal.fold(Some(false), or), *negated)
        }
        Criterion::Like { value: of, pattern, ignore_case, negated } => {
            let truth = match value(of, row) {
                Value::Text(text) => Some(like(&text, pattern, *ignore_case)),
                _ => None,
            };
            turned(truth, *negated)
        }
        Criterion::IsNull { value: of, negated } => turned(Some(value(of, row) == Value::Null), *negated),
        Criterion::HasAny { set, of } => Some(!row.set(*set).is_disjoint(of)),
        Criterion::IsEmpty { set } => Some(row.set(*set).is_empty()),
        Criterion::IsExactly { set, these } => Some(!these.is_empty() && row.set(*set) == these),
    }
}

fn value(operand: &Operand, row: &Row) -> Value {
    match operand {
        Operand::Field(field) => row.value(field),
        Operand::Literal(value) => value.clone(),
    }
}

fn compare(left: &Value, op: CompareOp, right: &Value) -> Truth {
    let ordering = left.compare(right)?;
    Some(match op {
        CompareOp::Equal => ordering == Ordering::Equal,
        CompareOp::NotEqual => ordering != Ordering::Equal,
        CompareOp::Less => ordering == Ordering::Less,
        CompareOp::LessOrEqual => ordering != Ordering::Greater,
        CompareOp::Greater => ordering == Ordering::Greater,
        CompareOp::GreaterOrEqual => ordering != Ordering::Less,
    })
}

fn turned(truth: Truth, negated: bool) -> Truth {
    truth.map(|truth| truth != negated)
}

/// False wins over unknown, and unknown over true.
fn and(one: Truth, other: Truth) -> Truth {
    match (one, other) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

/// True wins over unknown, and unknown over false.
fn or(one: Truth, other: Truth) -> Truth {
    match (one, other) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

fn fold(parts: &[Criterion], row: &Row, any: bool) -> Truth {
    let truths = parts.iter().map(|part| evaluate(part, row));
    if any { truths.fold(Some(false), or) } else { truths.fold(Some(true), and) }
}

/// Whether a text fits a pattern: `%` stands for any characters, also none, and `_` for exactly one. There is no way to
/// write these two as themselves. Without case both are compared in lower case.
#[must_use]
pub fn like(text: &str, pattern: &str, ignore_case: bool) -> bool {
    if ignore_case {
        return fits(&text.to_lowercase(), &pattern.to_lowercase());
    }
    fits(text, pattern)
}

/// Goes through both at once, and back to the last `%` when it does not go on: at most the product of both lengths.
fn fits(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
    let (mut t, mut p) = (0, 0);
    let mut last_any: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('%') => {
                last_any = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '_' || text.get(t) == Some(c) => {
                t += 1;
                p += 1;
            }
            _ => match last_any {
                Some((any, from)) => {
                    last_any = Some((any, from + 1));
                    (p, t) = (any + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_none_or(|rest| rest.iter().all(|c| *c == '%'))
}
