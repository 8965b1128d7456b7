//! The one error of this crate: data that breaks a rule of its type. Never retriable: the same data is refused again.

use crate::codes::Code;
use crate::error::Problem;

/// Data that breaks a rule of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// A text, or a list of attributes, is no X.500 name.
    #[error("'{text}' is not an X.500 name: {}{reason}", .attribute.map(|a| format!("{a}: ")).unwrap_or_default())]
    Name {
        /// What was given, cut to a readable length.
        text: String,
        /// The attribute that breaks a rule, if it is one.
        attribute: Option<&'static str>,
        /// The rule, and how it is broken.
        reason: String,
    },
    /// A hash, a key or another value with a fixed form is malformed.
    #[error("{what} is malformed: {reason}")]
    Value {
        /// What it should have been.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Bytes are not the CBOR of what was expected.
    #[error("the bytes are not valid CBOR of {what}: {reason}")]
    Cbor {
        /// The type that was expected.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// Text is no JSON, or says something that would not be kept as it is.
    #[error("{}{reason}", .path.as_ref().map(|path| format!("at '{path}': ")).unwrap_or_default())]
    Json {
        /// Where, as a JSON pointer, if it is known.
        path: Option<String>,
        /// Line and column, counted from 1, if it is no JSON.
        line: Option<(usize, usize)>,
        /// What is wrong.
        reason: String,
    },
    /// Network parameters break a rule.
    #[error("network parameters: {field}: {reason}")]
    Parameters {
        /// The field.
        field: &'static str,
        /// The rule, and how it is broken.
        reason: String,
    },
    /// A node info breaks a rule.
    #[error("node info: {field}: {reason}")]
    NodeInfo {
        /// The field.
        field: &'static str,
        /// The rule, and how it is broken.
        reason: String,
    },
}

impl Invalid {
    pub(crate) fn value(what: &'static str, reason: impl Into<String>) -> Invalid {
        Invalid::Value { what, reason: reason.into() }
    }
}

impl From<&Invalid> for Problem {
    fn from(invalid: &Invalid) -> Problem {
        let code = match invalid {
            Invalid::Name { .. } => Code::NameInvalid,
            Invalid::Value { .. } | Invalid::Cbor { .. } | Invalid::Json { .. } => Code::RequestInvalid,
            Invalid::Parameters { .. } | Invalid::NodeInfo { .. } => Code::NetworkInvalid,
        };
        let problem = Problem::new(code, invalid.to_string());
        match invalid {
            Invalid::Name { attribute: Some(attribute), .. } => problem.detail("attribute", *attribute),
            Invalid::Parameters { field, .. } | Invalid::NodeInfo { field, .. } => problem.detail("field", *field),
            _ => problem,
        }
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Problem {
        Problem::from(&invalid)
    }
}

/// The beginning of a text, for messages: at most 80 characters, control characters escaped.
#[must_use]
pub fn excerpt(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut shown = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == LONGEST {
            shown.push('…');
            break;
        }
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}
