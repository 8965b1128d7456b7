//! The contracts that take part in a transaction, with what all states of each say together.

use std::collections::{BTreeMap, HashSet};

use super::constraint::{ContractAttachment, LedgerRules};
use super::state::{Constraint, ContractId, StateAndRef, TransactionState};
use super::wire::WireTransaction;

/// A contract that takes part, with what its states say that concerns all of them.
pub(super) struct TakingPart<'a> {
    /// The attachment whose code judges.
    pub attachment: &'a ContractAttachment,
    /// The constraints of its inputs and of its outputs, each once.
    pub from: Distinct<'a>,
    pub to: Distinct<'a>,
    /// The newest code that has made one of its inputs; `None` if it has none.
    pub newest: Option<u32>,
    /// It has outputs.
    pub is_made: bool,
}

impl<'a> TakingPart<'a> {
    fn with(attachment: &'a ContractAttachment) -> TakingPart<'a> {
        let (from, to) = (Distinct::default(), Distinct::default());
        TakingPart { attachment, from, to, newest: None, is_made: false }
    }

    /// Whether it is asked: it has an input or an output.
    pub fn is_run(&self) -> bool {
        self.is_made || self.newest.is_some()
    }
}

/// Constraints, each once.
#[derive(Default)]
pub(super) struct Distinct<'a> {
    seen: HashSet<&'a Constraint>,
    /// In the order of their states.
    pub all: Vec<&'a Constraint>,
}

impl<'a> Distinct<'a> {
    fn add(&mut self, constraint: &'a Constraint) {
        if self.seen.insert(constraint) {
            self.all.push(constraint);
        }
    }
}

/// The contracts that take part, each once, whichever keys of its publisher the states name, with their attachments. States that
/// name different keys of one publisher have the same attachment: that of the later key holds the contract for the earlier, too,
/// and nothing else may. Each state is looked at once, however many contracts whoever made the transaction has thought of.
pub(super) fn taking_part<'a>(
    wire: &'a WireTransaction,
    inputs: &'a [StateAndRef],
    rules: &LedgerRules,
    in_use: &BTreeMap<&'a ContractId, &'a ContractAttachment>,
) -> BTreeMap<ContractId, TakingPart<'a>> {
    let (mut all, mut canonical) = (BTreeMap::new(), BTreeMap::new());
    for (contract, attachment) in in_use.iter().map(|(contract, attachment)| (*contract, *attachment)) {
        let name = rules.canonical(contract);
        all.entry(name.clone()).or_insert_with(|| TakingPart::with(attachment));
        canonical.insert(contract, name);
    }
    for TransactionState { contract, constraint, code_version, .. } in inputs.iter().map(|input| &input.state) {
        if let Some(part) = canonical.get(contract).and_then(|contract| all.get_mut(contract)) {
            part.from.add(constraint);
            part.newest = part.newest.max(Some(*code_version));
        }
    }
    for TransactionState { contract, constraint, .. } in &wire.contents().outputs {
        if let Some(part) = canonical.get(contract).and_then(|contract| all.get_mut(contract)) {
            part.to.add(constraint);
            part.is_made = true;
        }
    }
    all
}
