//! What can go wrong, in two families: [`FlowError`], the end of one flow as its client, its author and its peers see
//! it; and [`Problem`], a request that could not be served.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codes::{Class, Code};
use crate::ids::ErrorId;

/// The kind of a flow's error: one word for the client, the author's code and the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// A business error, thrown here or received from a peer.
    FlowException,
    /// The peer ended, rejected the session or failed for a reason it keeps to itself.
    UnexpectedEnd,
    /// A panic or any other error of our own.
    Unexpected,
    /// An argument that the host refuses.
    IllegalArgument,
    /// A call that is not allowed in this state.
    IllegalState,
    /// `close` before the peer confirmed.
    PrematureClose,
    /// Killed by an operator.
    Killed,
    /// A limit was reached.
    Limit,
}

impl ErrorKind {
    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::FlowException => "flow-exception",
            ErrorKind::UnexpectedEnd => "unexpected-end",
            ErrorKind::Unexpected => "unexpected",
            ErrorKind::IllegalArgument => "illegal-argument",
            ErrorKind::IllegalState => "illegal-state",
            ErrorKind::PrematureClose => "premature-close",
            ErrorKind::Killed => "killed",
            ErrorKind::Limit => "limit",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a flow failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowError {
    /// What kind of failure.
    pub kind: ErrorKind,
    /// For people. For `unexpected` it is shown on this side only.
    pub message: String,
    /// The author's type of a flow exception.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception: Option<String>,
    /// The author's data of a flow exception, CBOR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Vec<u8>>,
    /// The number under which both sides logged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_id: Option<ErrorId>,
    /// Who sent it, when it was received: an X.500 name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Which limit was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
}

impl FlowError {
    /// An error of this kind with nothing but a message.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> FlowError {
        FlowError {
            kind,
            message: message.into(),
            exception: None,
            data: None,
            error_id: None,
            peer: None,
            limit: None,
        }
    }

    /// A limit was reached.
    #[must_use]
    pub fn limit(name: &str, message: impl Into<String>) -> FlowError {
        FlowError { limit: Some(name.to_owned()), ..FlowError::new(ErrorKind::Limit, message) }
    }
}

impl fmt::Display for FlowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(limit) = &self.limit {
            write!(f, " ({limit})")?;
        }
        if let Some(peer) = &self.peer {
            write!(f, " from {peer}")?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(id) = self.error_id {
            write!(f, " [error id {id}]")?;
        }
        Ok(())
    }
}

impl std::error::Error for FlowError {}

/// A request that could not be served: what a user meets, at the command line or through gRPC.
///
/// Every crate has its own error enum; at the edge each becomes one of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// The stable word for it; `docs/errors.md` explains each.
    pub code: Code,
    /// What was wrong, and where.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// Facts for programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

impl Problem {
    /// With the remedy that `docs/errors.md` gives for this code.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Problem {
        Problem { code, message: message.into(), remedy: code.remedy().to_owned(), details: BTreeMap::new() }
    }

    /// A remedy that fits this case better than the general one.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Problem {
        self.remedy = remedy.into();
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn detail(mut self, key: &str, value: impl Into<String>) -> Problem {
        self.details.insert(key.to_owned(), value.into());
        self
    }

    /// What kind of answer this is.
    #[must_use]
    pub fn class(&self) -> Class {
        self.code.class()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code)
    }
}

impl std::error::Error for Problem {}
