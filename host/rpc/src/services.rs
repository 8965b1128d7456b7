//! The services: each turns requests into calls of the engine.

pub(crate) mod attachment;
pub(crate) mod flow;
pub(crate) mod host;
pub(crate) mod ledger;
pub(crate) mod network;
pub(crate) mod notary;
pub(crate) mod scaler;

use maxhost_model::{Code, Problem};

/// A field that must not be empty.
fn required(name: &str, value: String) -> Result<String, Problem> {
    if value.trim().is_empty() {
        return Err(Problem::new(Code::RequestInvalid, format!("the field '{name}' is missing")).detail("field", name));
    }
    Ok(value)
}

/// A field that is left out when it is empty.
fn optional(value: Option<String>) -> Option<String> {
    value.filter(|text| !text.is_empty())
}
