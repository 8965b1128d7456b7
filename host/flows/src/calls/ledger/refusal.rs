//! How refusals reach the author's code: as exceptions with a stable type, and the rule with its details as data.

use std::collections::BTreeMap;

use maxhost_ledger::notary::{ConflictKind, ConflictingState, NotaryError};
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::locks::NotAvailable;
use maxhost_ledger::vault::selection::SelectionFailure;
use maxhost_ledger::{Refused, Rule};
use maxhost_model::{ErrorKind, FlowError, from_cbor, to_cbor};
use serde::{Deserialize, Serialize};

/// So many conflicting states go with an exception, so that its data are not left out for their size: those that are inputs
/// first.
const MAX_CONFLICTS: usize = 256;

/// What goes with an exception.
#[derive(Serialize)]
struct Facts<'a> {
    code: &'a str,
    details: BTreeMap<&'a str, String>,
    /// The states for which a notary has refused a transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    conflicts: Option<Conflicts>,
}

#[derive(Serialize)]
struct Conflicts {
    states: Vec<ConflictFact>,
    /// So many besides.
    more: usize,
}

#[derive(Serialize)]
struct ConflictFact {
    state: String,
    kind: ConflictKind,
    /// SHA-256 of the id of the transaction that has consumed it.
    consumed_by: String,
}

impl Conflicts {
    fn of(states: &BTreeMap<StateRef, ConflictingState>) -> Conflicts {
        let is = |kind: ConflictKind| states.iter().filter(move |(_, conflict)| conflict.kind == kind);
        let ordered = is(ConflictKind::Input).chain(is(ConflictKind::Reference)).take(MAX_CONFLICTS);
        let facts = ordered.map(|(state, ConflictingState { consumed_by, kind })| ConflictFact {
            state: state.to_string(),
            kind: *kind,
            consumed_by: consumed_by.to_string(),
        });
        Conflicts { states: facts.collect(), more: states.len().saturating_sub(MAX_CONFLICTS) }
    }
}

fn exception(kind: &str, message: String, code: &str, details: BTreeMap<&str, String>) -> FlowError {
    with_facts(kind, message, &Facts { code, details, conflicts: None })
}

fn with_facts(kind: &str, message: String, facts: &Facts<'_>) -> FlowError {
    FlowError {
        exception: Some(kind.to_owned()),
        data: to_cbor(facts).ok(),
        ..FlowError::new(ErrorKind::FlowException, message)
    }
    .bounded()
}

/// A rule of the ledger refuses something.
pub(crate) fn refused(refused: &Refused) -> FlowError {
    let kind = match refused.rule() {
        Rule::SignatureMissing => "ledger/missing-signatures",
        _ => "ledger/rejected",
    };
    let mut details: BTreeMap<&str, String> =
        refused.details().iter().map(|(key, value)| (*key, value.clone())).collect();
    details.extend(refused.transaction().map(|id| ("transaction", id.to_string())));
    exception(kind, refused.message().to_owned(), refused.code(), details)
}

/// The code of the rule that an exception of this file is about; the type of any other.
pub(crate) fn code_of(error: &FlowError) -> String {
    #[derive(Deserialize)]
    struct Told {
        code: String,
    }
    let told = error.data.as_deref().and_then(|data| from_cbor::<Told>(data).ok());
    told.map(|told| told.code).or_else(|| error.exception.clone()).unwrap_or_default()
}

/// A notary refuses a transaction.
pub(crate) fn notary(error: &NotaryError) -> FlowError {
    let code = match error {
        NotaryError::Conflict { .. } => "conflict",
        NotaryError::TimeWindowInvalid { .. } => "time-window",
        NotaryError::TransactionInvalid { code, .. } => code,
        NotaryError::RequestSignatureInvalid { .. } => "request-signature-invalid",
        NotaryError::General { .. } => "general",
    };
    let (mut details, mut conflicts) = (BTreeMap::new(), None);
    if let NotaryError::Conflict { id, states } = error {
        details.insert("transaction", id.to_string());
        conflicts = Some(Conflicts::of(states));
    }
    with_facts(error.exception(), error.to_string(), &Facts { code, details, conflicts })
}

/// States could not be selected.
pub(crate) fn selection(failure: &SelectionFailure) -> FlowError {
    let mut details = BTreeMap::new();
    match failure {
        SelectionFailure::Insufficient { needed, have } => {
            details.insert("needed", needed.to_string());
            details.insert("have", have.to_string());
        }
        SelectionFailure::Locked { needed, amount, holders, soonest } => {
            details.insert("needed", needed.to_string());
            details.insert("locked", amount.to_string());
            details.insert("holders", holders.iter().take(10).cloned().collect::<Vec<_>>().join(", "));
            details.extend(soonest.map(|soonest| ("soonest", soonest.to_string())));
        }
        SelectionFailure::TimedOut { needed, waited_ms } => {
            details.insert("needed", needed.to_string());
            details.insert("waited_ms", waited_ms.to_string());
        }
        SelectionFailure::Fragmented { needed, most } => {
            details.insert("needed", needed.to_string());
            details.insert("most", most.to_string());
        }
    }
    let word = failure.exception();
    exception(word, failure.to_string(), word, details)
}

/// A peer does not keep to a protocol of the platform.
pub(crate) fn protocol(message: impl Into<String>) -> FlowError {
    exception("ledger/protocol", message.into(), "protocol", BTreeMap::new())
}

/// An argument of a guest is not usable.
pub(crate) fn argument(message: impl Into<String>) -> FlowError {
    FlowError::new(ErrorKind::IllegalArgument, message)
}

/// States that were asked for by name cannot be had.
pub(crate) fn locked(missing: &NotAvailable) -> FlowError {
    let states: Vec<String> = missing.0.iter().take(10).map(ToString::to_string).collect();
    let details = BTreeMap::from([("states", states.join(", "))]);
    exception("vault/locked", missing.to_string(), "vault/locked", details)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]
    use maxhost_model::{MAX_FAILURE_DATA, SecureHash, from_cbor};
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Told {
        conflicts: ToldConflicts,
    }

    #[derive(Deserialize)]
    struct ToldConflicts {
        states: Vec<ToldState>,
        more: usize,
    }

    #[derive(Deserialize)]
    struct ToldState {
        kind: ConflictKind,
    }

    #[test]
    fn a_conflict_of_any_size_tells_inputs_from_references() {
        let id = SecureHash::of(b"id");
        let conflict = |index: u32| {
            // The inputs are behind the references in the order of the states.
            let kind = if index < 9_000 { ConflictKind::Reference } else { ConflictKind::Input };
            (StateRef::new(id, index), ConflictingState { consumed_by: id, kind })
        };
        let error = notary(&NotaryError::Conflict { id, states: (0..9_003).map(conflict).collect() });
        let data = error.data.expect("data that are not too large");
        assert!(data.len() < MAX_FAILURE_DATA, "{} bytes", data.len());
        let Told { conflicts: ToldConflicts { states, more } } = from_cbor(&data).expect("it can be read");
        assert_eq!((states.len(), more), (MAX_CONFLICTS, 9_003 - MAX_CONFLICTS));
        assert_eq!(states.iter().filter(|state| state.kind == ConflictKind::Input).count(), 3);
    }

    #[test]
    fn the_code_of_a_rule_is_found_in_its_exception() {
        let unknown = Refused::new(Rule::ParametersUnknown, "they are not known").detail("parameters", "none");
        assert_eq!(code_of(&refused(&unknown)), "parameters-unknown");
        assert_eq!(code_of(&protocol("nothing came")), "protocol");
        let other = FlowError { exception: Some("cash/locked".to_owned()), ..argument("nothing") };
        assert_eq!((code_of(&other), code_of(&argument("nothing"))), ("cash/locked".to_owned(), String::new()));
    }
}
