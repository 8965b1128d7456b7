//! The one error of this crate: data that a rule of the ledger refuses. Never retriable: the same data is refused again.
//! What may be tried again is no error of this kind but an answer of its own: a notary's verdict, or a selection that
//! found its states locked.

use std::collections::BTreeMap;
use std::fmt;

use maxhost_model::SecureHash;

use crate::rules::Rule;

/// What the functions of this crate return.
pub type Result<T> = std::result::Result<T, Refused>;

/// Data that a rule refuses.
#[derive(Clone, PartialEq, Eq)]
pub struct Refused(Box<Inner>);

#[derive(Clone, PartialEq, Eq)]
struct Inner {
    rule: Rule,
    message: String,
    transaction: Option<SecureHash>,
    details: BTreeMap<&'static str, String>,
}

impl Refused {
    /// Data that breaks this rule; the message says what was wrong and where.
    #[must_use]
    pub fn new(rule: Rule, message: impl Into<String>) -> Refused {
        Refused(Box::new(Inner { rule, message: message.into(), transaction: None, details: BTreeMap::new() }))
    }

    /// Names the transaction, unless it is named already.
    #[must_use]
    pub fn of(mut self, transaction: SecureHash) -> Refused {
        self.0.transaction.get_or_insert(transaction);
        self
    }

    /// Adds a fact for programs: a key, a contract, an index.
    #[must_use]
    pub fn detail(mut self, key: &'static str, value: impl fmt::Display) -> Refused {
        self.0.details.insert(key, value.to_string());
        self
    }

    /// The rule that was broken.
    #[must_use]
    pub fn rule(&self) -> Rule {
        self.0.rule
    }

    /// The stable word of the rule.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.rule.as_str()
    }

    /// What was wrong and where, for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The transaction that was refused, when it is known.
    #[must_use]
    pub fn transaction(&self) -> Option<SecureHash> {
        self.0.transaction
    }

    /// Facts for programs.
    #[must_use]
    pub fn details(&self) -> &BTreeMap<&'static str, String> {
        &self.0.details
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = self.0.transaction {
            write!(f, "transaction {id}: ")?;
        }
        write!(f, "{} [{}]", self.0.message, self.code())
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Refused {}
