//! Writes criteria in the language, so that what is printed reads as the same tree.

use std::fmt;

use super::criteria::{Criterion, Field, Operand, Set};
use super::parser::KEYWORDS;
use super::value::Value;
use super::whose::KEY_EXTERNAL_ID;
use crate::time::Timestamp;

/// How tightly a condition holds together; what holds less tightly than its surroundings is put in parentheses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tightness {
    Any,
    All,
    Not,
    Whole,
}

impl fmt::Display for Criterion {
    /// In the language, as far as it reaches: what has no name in it is written as a call that the language refuses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(self, Tightness::Any, f)
    }
}

fn write(criterion: &Criterion, around: Tightness, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let own = tightness(criterion);
    let parentheses = own < around;
    if parentheses {
        f.write_str("(")?;
    }
    match criterion {
        // Of nothing, all are true and any is false.
        Criterion::All(parts) if parts.is_empty() => f.write_str("true = true")?,
        Criterion::Any(parts) if parts.is_empty() => f.write_str("true = false")?,
        // A part as tight as the whole is put in parentheses, so that the tree stays as it is.
        Criterion::All(parts) => joined(parts, " and ", Tightness::Not, f)?,
        Criterion::Any(parts) => joined(parts, " or ", Tightness::All, f)?,
        Criterion::Not(part) => {
            f.write_str("not ")?;
            write(part, Tightness::Not, f)?;
        }
        leaf => write_leaf(leaf, f)?,
    }
    if parentheses { f.write_str(")") } else { Ok(()) }
}

fn tightness(criterion: &Criterion) -> Tightness {
    match criterion {
        Criterion::Any(parts) if parts.len() > 1 => Tightness::Any,
        Criterion::All(parts) if parts.len() > 1 => Tightness::All,
        Criterion::Any(parts) | Criterion::All(parts) => parts.first().map_or(Tightness::Whole, tightness),
        Criterion::Not(_) => Tightness::Not,
        _ => Tightness::Whole,
    }
}

fn joined(parts: &[Criterion], word: &str, around: Tightness, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let around = if parts.len() == 1 { Tightness::Any } else { around };
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(word)?;
        }
        write(part, around, f)?;
    }
    Ok(())
}

fn write_leaf(leaf: &Criterion, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let not = |negated: bool| if negated { "not " } else { "" };
    match leaf {
        Criterion::Compare { left, op, right } => write!(f, "{left} {} {right}", op.sign()),
        Criterion::Between { value, low, high, negated } => {
            write!(f, "{value} {}between {low} and {high}", not(*negated))
        }
        Criterion::In { value, list, negated } => {
            write!(f, "{value} {}in (", not(*negated))?;
            for (index, item) in list.iter().enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                write!(f, "{comma}{item}")?;
            }
            f.write_str(")")
        }
        Criterion::Like { value, pattern, ignore_case, negated } => {
            let word = if *ignore_case { "ilike" } else { "like" };
            write!(f, "{value} {}{word} {}", not(*negated), quoted(pattern, '\''))
        }
        Criterion::IsNull { value, negated } => write!(f, "{value} is {}null", not(*negated)),
        Criterion::HasAny { set: Set::ExternalIds, of } if !of.is_empty() => {
            write!(f, "{} in (", quoted(KEY_EXTERNAL_ID, '"'))?;
            for (index, id) in of.iter().enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                write!(f, "{comma}{}", quoted(id, '\''))?;
            }
            f.write_str(")")
        }
        Criterion::IsEmpty { set: Set::ExternalIds } => write!(f, "{} is null", quoted(KEY_EXTERNAL_ID, '"')),
        Criterion::IsEmpty { set } => write!(f, "is_empty({set:?})"),
        Criterion::HasAny { set, of } => write!(f, "has_any({set:?}, {of:?})"),
        Criterion::IsExactly { set, these } => write!(f, "is_exactly({set:?}, {these:?})"),
        Criterion::All(_) | Criterion::Any(_) | Criterion::Not(_) => Ok(()),
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operand::Field(field) => fmt::Display::fmt(field, f),
            Operand::Literal(Value::Bool(value)) => write!(f, "{value}"),
            Operand::Literal(Value::Number(number)) => write!(f, "{number}"),
            Operand::Literal(Value::Text(text)) => f.write_str(&quoted(text, '\'')),
            Operand::Literal(Value::Bytes(bytes)) => f.write_str(&quoted(&hex::encode(bytes), '\'')),
            Operand::Literal(Value::Time(time)) => f.write_str(&quoted(&Timestamp::to_string(time), '\'')),
            Operand::Literal(Value::Null) => f.write_str("null"),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Builtin(builtin) => match builtin.name() {
                Some(name) => f.write_str(name),
                None => write!(f, "{builtin:?}()"),
            },
            Field::Data(name) if is_plain(name) => f.write_str(name),
            Field::Data(name) => f.write_str(&quoted(name, '"')),
        }
    }
}

/// Whether a name reads as the field that it is, without quotes.
fn is_plain(name: &str) -> bool {
    let mut chars = name.chars();
    let word = chars.next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && chars.all(|c| c.is_alphanumeric() || c == '_' || c == '.');
    let keyword = KEYWORDS.iter().any(|keyword| name.eq_ignore_ascii_case(keyword));
    let builtin = super::criteria::Builtin::NAMED.iter().any(|(known, _)| *known == name);
    word && !keyword && !builtin
}

fn quoted(text: &str, quote: char) -> String {
    let doubled = text.replace(quote, &format!("{quote}{quote}"));
    format!("{quote}{doubled}{quote}")
}
