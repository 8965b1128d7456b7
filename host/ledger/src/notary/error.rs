//! What a notary answers when it does not sign (behaviour.md 11.5).

use std::collections::BTreeMap;
use std::fmt;

use maxhost_model::SecureHash;
use serde::{Deserialize, Serialize};

use crate::refused::Refused;
use crate::time::{TimeWindow, Timestamp};
use crate::tx::StateRef;

/// How many conflicting states are told in the text of an error. The error itself has all of them.
const SHOWN_IN_TEXT: usize = 5;

/// As what the refused transaction named a state that is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflictKind {
    /// As an input.
    Input,
    /// As a reference.
    Reference,
}

/// What a notary tells about a state that is spent: enough to recognise a transaction that one has, and no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConflictingState {
    /// SHA-256 of the id of the transaction that has consumed it.
    pub consumed_by: SecureHash,
    /// As what it was named.
    pub kind: ConflictKind,
}

/// Why a notary does not sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotaryError {
    /// States are spent. For ever.
    Conflict {
        /// The transaction that was refused.
        id: SecureHash,
        /// The states.
        states: BTreeMap<StateRef, ConflictingState>,
    },
    /// The time-window has not begun, which passes; or it is over, which is for ever.
    TimeWindowInvalid {
        /// The notary's clock when it decided.
        at: Timestamp,
        /// The window.
        window: TimeWindow,
    },
    /// The transaction breaks a rule.
    TransactionInvalid {
        /// The word of the rule.
        code: String,
        /// What is wrong.
        message: String,
    },
    /// The request is not signed by the caller.
    RequestSignatureInvalid {
        /// What is wrong.
        message: String,
    },
    /// The notary had trouble of its own. Try again.
    General {
        /// What trouble, without its inner parts.
        message: String,
    },
}

impl NotaryError {
    /// Whether the same request may be answered otherwise later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            NotaryError::General { .. } => true,
            NotaryError::TimeWindowInvalid { at, window } => !window.is_over(*at),
            _ => false,
        }
    }

    /// The type of the exception that the caller's flow ends with.
    #[must_use]
    pub fn exception(&self) -> &'static str {
        match self {
            NotaryError::Conflict { .. } => "notary/conflict",
            NotaryError::TimeWindowInvalid { .. } => "notary/time-window",
            NotaryError::TransactionInvalid { .. } | NotaryError::RequestSignatureInvalid { .. } => "notary/invalid",
            NotaryError::General { .. } => "notary/general",
        }
    }

    /// A transaction that a rule refuses.
    #[must_use]
    pub fn invalid(refused: &Refused) -> NotaryError {
        NotaryError::TransactionInvalid { code: refused.code().to_owned(), message: refused.message().to_owned() }
    }
}

impl From<Refused> for NotaryError {
    fn from(refused: Refused) -> NotaryError {
        NotaryError::invalid(&refused)
    }
}

impl fmt::Display for NotaryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotaryError::Conflict { id, states } => {
                write!(f, "transaction {id} names {} states that are spent: ", states.len())?;
                for (index, (state, conflict)) in states.iter().take(SHOWN_IN_TEXT).enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}{state} (by a transaction with the hash {})", conflict.consumed_by)?;
                }
                if states.len() > SHOWN_IN_TEXT { f.write_str(", …") } else { Ok(()) }
            }
            NotaryError::TimeWindowInvalid { at, window } => {
                write!(f, "the notary's time, {at}, is outside of the time-window {window}")
            }
            NotaryError::TransactionInvalid { code, message } => write!(f, "{message} [{code}]"),
            NotaryError::RequestSignatureInvalid { message } => f.write_str(message),
            NotaryError::General { message } => write!(f, "the notary had trouble of its own: {message}"),
        }
    }
}

impl std::error::Error for NotaryError {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::codec;
    use crate::fixtures::{network, reference};

    #[test]
    fn a_text_shows_five_states_and_no_transaction_id() {
        let consuming = SecureHash::of(b"secret");
        let conflict =
            ConflictingState { consumed_by: SecureHash::of(consuming.as_bytes()), kind: ConflictKind::Input };
        let states = (0..8).map(|number| (reference(number), conflict.clone())).collect();
        let error = NotaryError::Conflict { id: network(), states };
        let text = error.to_string();
        assert_eq!(text.matches("with the hash").count(), 5);
        assert!(text.contains('…') && !text.contains(&consuming.to_string()));
        let bytes = codec::encode("notary error", &error).unwrap();
        assert_eq!(codec::decode::<NotaryError>("notary error", &bytes).unwrap(), error);
        assert!(!bytes.windows(32).any(|window| window == consuming.as_bytes()));
    }

    #[test]
    fn too_early_passes_and_too_late_does_not() {
        let window = TimeWindow::between(Timestamp::from_nanos(10), Timestamp::from_nanos(20)).unwrap();
        let at = |nanos| NotaryError::TimeWindowInvalid { at: Timestamp::from_nanos(nanos), window };
        assert!(at(9).is_transient());
        assert!(!at(20).is_transient());
    }
}
