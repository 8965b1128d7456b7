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

    /// The error within the bounds that every record, log line and message may rely on (`docs/behaviour.md`, section 4):
    /// a text over [`MAX_FAILURE_TEXT`] is cut, data over [`MAX_FAILURE_DATA`] is left out, and the text says so. Words
    /// that are no words of ours, such as a type's name, are cut to [`MAX_FAILURE_WORD`]. A bounded error stays as it is.
    #[must_use]
    pub fn bounded(mut self) -> FlowError {
        if let Some(data) = self.data.take_if(|data| data.len() > MAX_FAILURE_DATA) {
            let note = format!(" [{} bytes of data left out, {MAX_FAILURE_DATA} are allowed]", data.len());
            let room = MAX_FAILURE_TEXT - note.len();
            self.message = cut_text(std::mem::take(&mut self.message), room);
            self.message.push_str(&note);
        }
        self.message = cut_text(self.message, MAX_FAILURE_TEXT);
        for word in [&mut self.exception, &mut self.peer, &mut self.limit].into_iter().flatten() {
            word.truncate(word.floor_char_boundary(MAX_FAILURE_WORD));
        }
        self
    }

    /// The error for a place where many are shown at once: a short text and no data.
    #[must_use]
    pub fn brief(mut self) -> FlowError {
        self.message = cut_text(self.message, BRIEF_TEXT);
        self.data = None;
        self
    }
}

/// The longest text of an error where many are shown at once: a list of flows, a line of a log. Bytes.
const BRIEF_TEXT: usize = 1024;
/// The longest text of a flow's error, bytes.
pub const MAX_FAILURE_TEXT: usize = 16 * 1024;
/// The most data of a flow's exception, bytes.
pub const MAX_FAILURE_DATA: usize = 64 * 1024;
/// The longest name in a flow's error, bytes: of a type, a party, a limit.
pub const MAX_FAILURE_WORD: usize = 1024;

/// Cuts a text to so many bytes, at least 64, between two characters. A text that was cut ends with how long it was.
#[must_use]
pub fn cut_text(mut text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let note = format!("… [cut, {} bytes]", text.len());
    text.truncate(text.floor_char_boundary(most.saturating_sub(note.len())));
    text.push_str(&note);
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_cut_to_its_bounds_and_says_so() {
        let error = FlowError {
            exception: Some("t".repeat(5_000)),
            data: Some(vec![0; MAX_FAILURE_DATA + 1]),
            peer: Some("p".repeat(5_000)),
            ..FlowError::new(ErrorKind::FlowException, "é".repeat(20_000_000))
        };
        let bounded = error.bounded();
        assert!(bounded.message.len() <= MAX_FAILURE_TEXT, "{} bytes", bounded.message.len());
        assert!(bounded.message.contains("[cut, 40000000 bytes]"), "the text says that it was cut");
        assert!(bounded.message.ends_with("[65537 bytes of data left out, 65536 are allowed]"));
        assert_eq!(bounded.data, None);
        assert_eq!(bounded.exception.as_ref().map(String::len), Some(MAX_FAILURE_WORD));
        assert_eq!(bounded.clone().bounded(), bounded, "twice is once");
    }

    #[test]
    fn an_error_within_its_bounds_stays_as_it_is() {
        let error = FlowError {
            data: Some(vec![7; MAX_FAILURE_DATA]),
            ..FlowError::new(ErrorKind::FlowException, "x".repeat(MAX_FAILURE_TEXT))
        };
        assert_eq!(error.clone().bounded(), error);
    }
}
