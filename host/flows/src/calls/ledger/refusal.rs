//! How refusals reach the author's code: as exceptions with a stable type, and the rule with its details as data.

use std::collections::BTreeMap;

use maxhost_ledger::notary::NotaryError;
use maxhost_ledger::vault::locks::NotAvailable;
use maxhost_ledger::vault::selection::SelectionFailure;
use maxhost_ledger::{Refused, Rule};
use maxhost_model::{ErrorKind, FlowError, from_cbor, to_cbor};
use serde::{Deserialize, Serialize};

/// What goes with an exception.
#[derive(Serialize)]
struct Facts<'a> {
    code: &'a str,
    details: BTreeMap<&'a str, String>,
}

fn exception(kind: &str, message: String, code: &str, details: BTreeMap<&str, String>) -> FlowError {
    FlowError {
        exception: Some(kind.to_owned()),
        data: to_cbor(&Facts { code, details }).ok(),
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
    exception(error.exception(), error.to_string(), code, BTreeMap::new())
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
    use super::*;

    #[test]
    fn the_code_of_a_rule_is_found_in_its_exception() {
        let unknown = Refused::new(Rule::ParametersUnknown, "they are not known").detail("parameters", "none");
        assert_eq!(code_of(&refused(&unknown)), "parameters-unknown");
        assert_eq!(code_of(&protocol("nothing came")), "protocol");
        let other = FlowError { exception: Some("cash/locked".to_owned()), ..argument("nothing") };
        assert_eq!((code_of(&other), code_of(&argument("nothing"))), ("cash/locked".to_owned(), String::new()));
    }
}
