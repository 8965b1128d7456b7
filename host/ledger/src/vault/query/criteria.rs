//! The tree of criteria (behaviour.md 12.4).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::value::Value;

/// The longest expression, in characters.
pub const MAX_EXPRESSION: usize = 16 * 1024;

/// How deep parentheses and `not` may be nested.
pub const MAX_DEPTH: usize = 64;

/// The most values in one list.
pub const MAX_LIST: usize = 1000;

/// What every state has, whatever its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Builtin {
    /// Its reference, as `ID:INDEX`.
    Ref,
    /// The name of its notary.
    Notary,
    /// When it was recorded.
    Recorded,
    /// When it was consumed; null while it is not.
    Consumed,
    /// Who holds it; null while nobody does.
    Lock,
    /// Contract and type, as `cash/Cash`. Not a name of the language.
    Type,
    /// Whether it is one's own.
    Relevant,
    /// The kind of its constraint. Not a name of the language.
    Constraint,
}

impl Builtin {
    /// Those that have a name in the language, with it.
    pub const NAMED: [(&'static str, Builtin); 6] = [
        ("ref", Builtin::Ref),
        ("notary", Builtin::Notary),
        ("recorded", Builtin::Recorded),
        ("consumed", Builtin::Consumed),
        ("lock", Builtin::Lock),
        ("relevant", Builtin::Relevant),
    ];

    /// Its name in the language, if it has one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Builtin::NAMED.iter().find(|(_, builtin)| *builtin == self).map(|(name, _)| *name)
    }

    /// Whether its values are points in time.
    #[must_use]
    pub fn is_time(self) -> bool {
        matches!(self, Builtin::Recorded | Builtin::Consumed)
    }
}

/// A field.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Field {
    /// One that every state has.
    Builtin(Builtin),
    /// One of the state's data; parts of a part are joined by points. Null in a state that lacks it.
    Data(String),
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operand {
    /// The value of a field.
    Field(Field),
    /// A value that was written.
    Literal(Value),
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CompareOp {
    /// Equal, `=`.
    Equal,
    /// Not equal, `!=`.
    NotEqual,
    /// Less, `<`.
    Less,
    /// Less or equal, `<=`.
    LessOrEqual,
    /// Greater, `>`.
    Greater,
    /// Greater or equal, `>=`.
    GreaterOrEqual,
}

impl CompareOp {
    /// The sign of it.
    #[must_use]
    pub fn sign(self) -> &'static str {
        match self {
            CompareOp::Equal => "=",
            CompareOp::NotEqual => "!=",
            CompareOp::Less => "<",
            CompareOp::LessOrEqual => "<=",
            CompareOp::Greater => ">",
            CompareOp::GreaterOrEqual => ">=",
        }
    }
}

/// What a state has several of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Set {
    /// The names of its participants, and the fingerprints of their keys.
    Participants,
    /// The external ids of its keys, as far as the identity has made them.
    ExternalIds,
}

/// A condition on a state. True, false, or neither (unknown), as in SQL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// All of these; true of none.
    All(Vec<Criterion>),
    /// One of these at least; false of none.
    Any(Vec<Criterion>),
    /// Not this.
    Not(Box<Criterion>),
    /// Two values compare.
    Compare {
        /// The left one.
        left: Operand,
        /// The comparison.
        op: CompareOp,
        /// The right one.
        right: Operand,
    },
    /// A value is within two others, both included.
    Between {
        /// The value.
        value: Operand,
        /// The least.
        low: Operand,
        /// The most.
        high: Operand,
        /// Whether it is turned round.
        negated: bool,
    },
    /// A value is one of a list; of an empty list never.
    In {
        /// The value.
        value: Operand,
        /// The list.
        list: Vec<Operand>,
        /// Whether it is turned round.
        negated: bool,
    },
    /// A text fits a pattern, in which `%` stands for any characters and `_` for one.
    Like {
        /// The text.
        value: Operand,
        /// The pattern.
        pattern: String,
        /// Whether upper and lower case are the same.
        ignore_case: bool,
        /// Whether it is turned round.
        negated: bool,
    },
    /// There is no value. Never unknown.
    IsNull {
        /// The value.
        value: Operand,
        /// Whether it is turned round.
        negated: bool,
    },
    /// One of a set is among these. Not in the language. Never unknown.
    HasAny {
        /// The set.
        set: Set,
        /// The values of which one must be in the set.
        of: BTreeSet<String>,
    },
    /// A set has nothing in it. In the language only of the external ids of keys. Never unknown.
    IsEmpty {
        /// The set.
        set: Set,
    },
    /// A set is exactly this one, and not empty. Not in the language. Never unknown.
    IsExactly {
        /// The set.
        set: Set,
        /// This one.
        these: BTreeSet<String>,
    },
}

impl Criterion {
    /// What holds for every state.
    #[must_use]
    pub fn everything() -> Criterion {
        Criterion::All(Vec::new())
    }

    /// Not this.
    #[must_use]
    pub fn negate(self) -> Criterion {
        Criterion::Not(Box::new(self))
    }

    /// How deep it is nested.
    #[must_use]
    pub fn depth(&self) -> usize {
        match self {
            Criterion::All(parts) | Criterion::Any(parts) => 1 + parts.iter().map(Criterion::depth).max().unwrap_or(0),
            Criterion::Not(part) => 1 + part.depth(),
            _ => 1,
        }
    }
}
