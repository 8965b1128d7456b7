//! Criteria that say whose states are found, and under which external id (behaviour.md 12.4).

use maxhost_model::text::is_storable;

use std::collections::BTreeSet;

use super::criteria::{Builtin, CompareOp, Criterion, Field, Operand, Set};
use super::value::Value;
use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// The field under which a vault keeps the external id that a contract says a state has. In the language it is written in
/// double quotes.
pub const EXTERNAL_ID: &str = "@external_id";

/// What stands in the language, in double quotes, for the external ids of the keys that a state has: `=`, `!=` and `in`, with
/// texts, and `is null` where there are none.
pub const KEY_EXTERNAL_ID: &str = "@key_external_id";

/// The most external ids that a query names.
pub const MAX_EXTERNAL_IDS: usize = 100;

/// The longest external id of a state or of a key, bytes.
pub const MAX_EXTERNAL_ID: usize = 512;

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

/// Checks the external id of a key: a text of 1 to [`MAX_EXTERNAL_ID`] bytes without a NUL character.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check_key_external_id(id: &str) -> std::result::Result<(), String> {
    if id.is_empty() || id.len() > MAX_EXTERNAL_ID {
        return Err(format!("the external id of a key has 1 to {MAX_EXTERNAL_ID} bytes, not {}", id.len()));
    }
    if is_storable(id) { Ok(()) } else { Err("the external id of a key has no NUL character".to_owned()) }
}

/// What holds for states that have a key with one of these external ids; `None` if none is named.
///
/// # Errors
/// [`Rule::QueryInvalid`] for more than [`MAX_EXTERNAL_IDS`], and for one that no key can have.
pub fn of_key_external_ids(ids: &[String]) -> Result<Option<Criterion>> {
    if ids.is_empty() {
        return Ok(None);
    }
    let refuse = |message: String| Err(Refused::new(Rule::QueryInvalid, message).detail("field", "key_external_ids"));
    if ids.len() > MAX_EXTERNAL_IDS {
        return refuse(format!("a query names at most {MAX_EXTERNAL_IDS} external ids of keys, not {}", ids.len()));
    }
    if let Some(wrong) = ids.iter().find_map(|id| check_key_external_id(id).err()) {
        return refuse(wrong);
    }
    Ok(Some(Criterion::HasAny { set: Set::ExternalIds, of: ids.iter().cloned().collect() }))
}

/// What a comparison with [`KEY_EXTERNAL_ID`] means; of any other it is itself.
///
/// # Errors
/// In words, what cannot be said of it.
pub(super) fn of_keys(criterion: Criterion) -> std::result::Result<Criterion, &'static str> {
    let is = |operand: &Operand| matches!(operand, Operand::Field(Field::Data(name)) if name == KEY_EXTERNAL_ID);
    let unclear = "external ids of keys are compared with '=', '!=' and 'in', to texts, or with 'is null'";
    let texts = |list: &[Operand]| -> std::result::Result<BTreeSet<String>, &'static str> {
        let text = |one: &Operand| match one {
            Operand::Literal(Value::Text(text)) => Ok(text.clone()),
            _ => Err(unclear),
        };
        list.iter().map(text).collect()
    };
    let has = |of: BTreeSet<String>, negated: bool| {
        let has = Criterion::HasAny { set: Set::ExternalIds, of };
        if negated { Criterion::Not(Box::new(has)) } else { has }
    };
    match &criterion {
        Criterion::Compare { left, op: CompareOp::Equal, right } if is(left) => {
            Ok(has(texts(std::slice::from_ref(right))?, false))
        }
        Criterion::Compare { left, op: CompareOp::NotEqual, right } if is(left) => {
            Ok(has(texts(std::slice::from_ref(right))?, true))
        }
        Criterion::In { value, list, negated } if is(value) => Ok(has(texts(list)?, *negated)),
        Criterion::IsNull { value, negated } if is(value) => {
            let none = Criterion::IsEmpty { set: Set::ExternalIds };
            Ok(if *negated { none.negate() } else { none })
        }
        other if other.mentions(&Field::Data(KEY_EXTERNAL_ID.to_owned())) => Err(unclear),
        _ => Ok(criterion),
    }
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
            Criterion::HasAny { .. } | Criterion::IsExactly { .. } | Criterion::IsEmpty { .. } => false,
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
    fn external_ids_of_keys_are_a_set_and_read_as_they_are_written() {
        let of = |ids: &[&str]| of_key_external_ids(&ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>());
        let both = of(&["b'", "a"]).unwrap().unwrap();
        assert_eq!(both.to_string(), "\"@key_external_id\" in ('a', 'b''')");
        assert_eq!(parse(&both.to_string()).unwrap(), both);
        assert_eq!(parse("\"@key_external_id\" = 'a'").unwrap(), of(&["a"]).unwrap().unwrap());
        for text in
            ["\"@key_external_id\" != 'a'", "\"@key_external_id\" not in ('a')", "not \"@key_external_id\" = 'a'"]
        {
            let criterion = parse(text).unwrap();
            assert_eq!(criterion, Criterion::Not(Box::new(of(&["a"]).unwrap().unwrap())), "{text}");
            assert_eq!(parse(&criterion.to_string()).unwrap(), criterion);
        }
        let none = Criterion::IsEmpty { set: Set::ExternalIds };
        assert_eq!(parse("\"@key_external_id\" is null").unwrap(), none);
        assert_eq!(parse("\"@key_external_id\" is not null").unwrap(), none.clone().negate());
        assert_eq!(none.to_string(), "\"@key_external_id\" is null");
        assert_eq!(parse(&none.clone().negate().to_string()).unwrap(), none.negate());
        for text in ["< 'a'", "like 'a%'", "= 1", "= a", "in ('a', 1)", "between 'a' and 'b'"] {
            let refused = parse(&format!("\"@key_external_id\" {text}")).unwrap_err();
            assert_eq!(refused.rule(), Rule::QueryInvalid, "{text}");
        }
        for ids in [&["".to_owned()][..], &["x".repeat(MAX_EXTERNAL_ID + 1)], &["a\0".to_owned()]] {
            assert_eq!(of_key_external_ids(ids).unwrap_err().rule(), Rule::QueryInvalid);
        }
        assert!(of_key_external_ids(&vec!["a".to_owned(); MAX_EXTERNAL_IDS + 1]).is_err());
        assert_eq!(of(&[]).unwrap(), None);
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
