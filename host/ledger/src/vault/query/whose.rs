//! Criteria that say whose states are found, and under which external id (behaviour.md 12.4).

use maxhost_model::text::is_storable;

use super::criteria::{Builtin, CompareOp, Criterion, Field, Operand};
use super::value::Value;
use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// The field under which a vault keeps the external id that a contract says a state has. In the language it is written in
/// double quotes.
pub const EXTERNAL_ID: &str = "@external_id";

/// The most external ids that a query names.
pub const MAX_EXTERNAL_IDS: usize = 100;

/// The longest external id that a query names, bytes. No state has a longer one.
const MAX_EXTERNAL_ID: usize = 512;

/// Whose states are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Relevancy {
    /// Anybody's.
    #[default]
    All,
    /// One's own.
    Relevant,
    /// Those that are not one's own.
    NotRelevant,
}

impl Relevancy {
    /// What holds for these states; `None`: nothing in particular.
    #[must_use]
    pub fn criterion(self) -> Option<Criterion> {
        let relevant = match self {
            Relevancy::All => return None,
            Relevancy::Relevant => true,
            Relevancy::NotRelevant => false,
        };
        Some(Criterion::Compare {
            left: Operand::Field(Field::Builtin(Builtin::Relevant)),
            op: CompareOp::Equal,
            right: Operand::Literal(Value::Bool(relevant)),
        })
    }
}

/// What holds for states that have one of these external ids; `None` if none is named.
///
/// # Errors
/// [`Rule::QueryInvalid`] for more than [`MAX_EXTERNAL_IDS`], and for one that no state can have.
pub fn of_external_ids(ids: &[String]) -> Result<Option<Criterion>> {
    if ids.is_empty() {
        return Ok(None);
    }
    let refuse = |message: String| Err(Refused::new(Rule::QueryInvalid, message).detail("field", "external_ids"));
    if ids.len() > MAX_EXTERNAL_IDS {
        return refuse(format!("a query names at most {MAX_EXTERNAL_IDS} external ids, not {}", ids.len()));
    }
    if ids.iter().any(|id| id.len() > MAX_EXTERNAL_ID || !is_storable(id)) {
        return refuse(format!("an external id has at most {MAX_EXTERNAL_ID} bytes, and no NUL character"));
    }
    Ok(Some(Criterion::In {
        value: Operand::Field(Field::Data(EXTERNAL_ID.to_owned())),
        list: ids.iter().map(|id| Operand::Literal(Value::text(id))).collect(),
        negated: false,
    }))
}

impl Criterion {
    /// This, and that too. What is joined is not nested deeper than it need be.
    #[must_use]
    pub fn and(self, other: Criterion) -> Criterion {
        match self {
            Criterion::All(parts) if parts.is_empty() => other,
            Criterion::All(mut parts) => {
                parts.push(other);
                Criterion::All(parts)
            }
            one => Criterion::All(vec![one, other]),
        }
    }

    /// Whether it looks at a field.
    #[must_use]
    pub fn mentions(&self, field: &Field) -> bool {
        let is = |operand: &Operand| matches!(operand, Operand::Field(named) if named == field);
        match self {
            Criterion::All(parts) | Criterion::Any(parts) => parts.iter().any(|part| part.mentions(field)),
            Criterion::Not(part) => part.mentions(field),
            Criterion::Compare { left, right, .. } => is(left) || is(right),
            Criterion::Between { value, low, high, .. } => is(value) || is(low) || is(high),
            Criterion::In { value, list, .. } => is(value) || list.iter().any(is),
            Criterion::Like { value, .. } | Criterion::IsNull { value, .. } => is(value),
            Criterion::HasAny { .. } | Criterion::IsExactly { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{MAX_EXPRESSION, parse};
    use super::*;

    fn relevant() -> Field {
        Field::Builtin(Builtin::Relevant)
    }

    #[test]
    fn what_is_added_reads_as_it_is_written() {
        let external = of_external_ids(&["a'b".to_owned(), "c".to_owned()]).unwrap().unwrap();
        for text in ["true = true", "a = 1", "a = 1 or b = 2", "a = 1 and b = 2", "not (a = 1 and b = 2)"] {
            let own = parse(text).unwrap().and(Relevancy::Relevant.criterion().unwrap()).and(external.clone());
            assert!(own.to_string().len() < MAX_EXPRESSION);
            assert_eq!(parse(&own.to_string()).unwrap(), own, "{own}");
        }
        assert_eq!(Relevancy::NotRelevant.criterion().unwrap(), parse("relevant = false").unwrap());
        assert_eq!(Relevancy::All.criterion(), None);
    }

    #[test]
    fn a_condition_tells_which_fields_it_looks_at() {
        for text in ["relevant = true", "a = 1 or not relevant = false", "relevant is null", "relevant in (true)"] {
            assert!(parse(text).unwrap().mentions(&relevant()), "{text}");
        }
        for text in ["a = 1", "\"relevant\" = true", "a = 'relevant'"] {
            assert!(!parse(text).unwrap().mentions(&relevant()), "{text}");
        }
    }

    #[test]
    fn external_ids_that_no_state_has_are_refused() {
        let many = vec!["a".to_owned(); MAX_EXTERNAL_IDS + 1];
        for ids in [many, vec!["x".repeat(MAX_EXTERNAL_ID + 1)], vec!["a\0".to_owned()]] {
            assert_eq!(of_external_ids(&ids).unwrap_err().rule(), Rule::QueryInvalid);
        }
        assert!(of_external_ids(&vec!["x".repeat(MAX_EXTERNAL_ID); MAX_EXTERNAL_IDS]).unwrap().is_some());
        assert_eq!(of_external_ids(&[]).unwrap(), None);
    }
}
