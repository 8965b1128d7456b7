//! Counts and sums over what a query finds (behaviour.md 12.8).

use std::collections::BTreeMap;

use super::criteria::Field;
use super::evaluate::Row;
use super::page::Query;
use super::value::{Number, Value};
use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// What is computed for each group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aggregate {
    /// How many states.
    Count,
    /// The sum of a field; null without a number.
    Sum(Field),
    /// The mean of a field, cut after 18 digits behind the point; null without a number.
    Average(Field),
    /// The smallest value of a field in the order of sorting; null without a value.
    Minimum(Field),
    /// The largest value of a field in the order of sorting; null without a value.
    Maximum(Field),
}

/// A group, and what was computed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The values of the fields that it was grouped by.
    pub by: Vec<Value>,
    /// What was asked for, in order.
    pub values: Vec<Value>,
}

/// Aggregates what a query finds among these states, in groups of equal values of some fields, in their order; null is a
/// value here. Without such fields there is one group, also of nothing. Order and pages of the query play no part.
///
/// # Errors
/// [`Rule::AmountOverflow`] if a sum is beyond the range of numbers.
pub fn aggregate(query: &Query, rows: &[Row], wanted: &[Aggregate], by: &[Field]) -> Result<Vec<Group>> {
    let mut groups: BTreeMap<Vec<Value>, Vec<&Row>> = BTreeMap::new();
    if by.is_empty() {
        groups.insert(Vec::new(), Vec::new());
    }
    for row in rows.iter().filter(|row| query.finds(row)) {
        groups.entry(by.iter().map(|field| row.value(field)).collect()).or_default().push(row);
    }
    let compute = |(by, rows): (Vec<Value>, Vec<&Row>)| {
        let values = wanted.iter().map(|aggregate| compute(aggregate, &rows)).collect::<Result<_>>()?;
        Ok(Group { by, values })
    };
    groups.into_iter().map(compute).collect()
}

fn compute(aggregate: &Aggregate, rows: &[&Row]) -> Result<Value> {
    let values = |field: &Field| {
        let all: Vec<Value> = rows.iter().map(|row| row.value(field)).filter(|value| *value != Value::Null).collect();
        all
    };
    let number = |number: Option<Number>| number.map_or(Value::Null, Value::Number);
    Ok(match aggregate {
        Aggregate::Count => Value::Number(Number::from(rows.len() as u64)),
        Aggregate::Sum(field) => number(sum(&values(field))?.map(|(sum, _)| sum)),
        Aggregate::Average(field) => number(sum(&values(field))?.and_then(|(sum, count)| sum.divided_by(count))),
        Aggregate::Minimum(field) => values(field).into_iter().min().unwrap_or(Value::Null),
        Aggregate::Maximum(field) => values(field).into_iter().max().unwrap_or(Value::Null),
    })
}

/// The sum of the numbers among these, and how many they are; `None` if there is none.
fn sum(values: &[Value]) -> Result<Option<(Number, u64)>> {
    let mut total: Option<(Number, u64)> = None;
    for value in values {
        let Value::Number(number) = value else { continue };
        total = Some(match total {
            None => (*number, 1),
            Some((sum, count)) => {
                let beyond = || Refused::new(Rule::AmountOverflow, "the sum is beyond the range of numbers");
                (sum.plus(*number).ok_or_else(beyond)?, count + 1)
            }
        });
    }
    Ok(total)
}
