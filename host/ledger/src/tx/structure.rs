//! The rules of structure: what holds for every transaction, whatever its contracts say (behaviour.md 10.6).

use std::collections::BTreeSet;
use std::fmt::Display;

use super::state::StateRef;
use super::wire::Contents;
use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// Checks the contents of a transaction.
///
/// # Errors
/// The first rule that is broken, each with its own code; behaviour.md 10.6 lists them in this order.
pub fn check(contents: &Contents) -> Result<()> {
    let refuse = |rule, message: &str| Err(Refused::new(rule, message));
    if contents.inputs.is_empty() && contents.outputs.is_empty() {
        return refuse(Rule::NothingDone, "a transaction needs an input or an output");
    }
    if contents.commands.is_empty() {
        return refuse(Rule::CommandMissing, "a transaction needs a command");
    }
    if let Some(index) = contents.commands.iter().position(|command| command.signers.is_empty()) {
        let message = format!("command {index} names no signer");
        return Err(Refused::new(Rule::SignerMissing, message).detail("command", index));
    }
    if contents.notary.is_none() {
        if contents.time_window.is_some() {
            return refuse(Rule::NotaryMissing, "a time-window needs a notary");
        }
        if !contents.inputs.is_empty() || !contents.references.is_empty() {
            return refuse(Rule::NotaryMissing, "inputs and references need a notary");
        }
    }
    if contents.parameters.is_none() {
        return refuse(Rule::ParametersMissing, "a transaction names the network parameters it is judged by");
    }
    check_states(&contents.inputs, &contents.references)?;
    distinct(Rule::AttachmentDuplicate, "attachment", &contents.attachments)
}

/// Checks that no state is named twice, as an input, as a reference, or as both.
///
/// # Errors
/// [`Rule::InputDuplicate`], [`Rule::ReferenceDuplicate`], [`Rule::ReferenceIsInput`].
pub fn check_states(inputs: &[StateRef], references: &[StateRef]) -> Result<()> {
    distinct(Rule::InputDuplicate, "input", inputs)?;
    distinct(Rule::ReferenceDuplicate, "reference", references)?;
    let inputs: BTreeSet<_> = inputs.iter().collect();
    if let Some(both) = references.iter().find(|reference| inputs.contains(reference)) {
        let message = format!("the state {both} is input and reference at once");
        return Err(Refused::new(Rule::ReferenceIsInput, message).detail("state", both));
    }
    Ok(())
}

fn distinct<T: Ord + Display>(rule: Rule, what: &'static str, items: &[T]) -> Result<()> {
    let mut seen = BTreeSet::new();
    match items.iter().find(|item| !seen.insert(*item)) {
        Some(twice) => Err(Refused::new(rule, format!("the {what} {twice} is given twice")).detail(what, twice)),
        None => Ok(()),
    }
}
