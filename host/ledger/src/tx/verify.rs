//! What is checked of a transaction once the states that it names are known, before its contracts run (behaviour.md
//! 10.7, 10.8).

use std::collections::{BTreeMap, BTreeSet};

use maxhost_model::SecureHash;

use super::constraint::{self, ContractAttachment, LedgerRules, ReadConstraint};
use super::encumbrance;
use super::limits::MAX_CONTRACTS;
use super::state::{ContractId, StateAndRef, StateRef, TransactionState};
use super::taking_part::{Distinct, TakingPart, taking_part};
use super::wire::WireTransaction;
use crate::codec;
use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// What a transaction names, resolved: in the order in which it names them.
#[derive(Debug, Clone, Copy)]
pub struct Resolved<'a> {
    /// The states of its inputs.
    pub inputs: &'a [StateAndRef],
    /// The states of its references.
    pub references: &'a [StateAndRef],
    /// Its attachments.
    pub attachments: &'a [ContractAttachment],
}

/// A contract that must verify the transaction, and the attachment whose code does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToRun {
    /// The contract, as [`LedgerRules::canonical`] has it.
    pub contract: ContractId,
    /// The id of the attachment.
    pub attachment: SecureHash,
}

/// Checks a transaction by the rules that need no contract, and returns the contracts that must verify it: those of its
/// inputs and outputs, each once.
///
/// # Errors
/// The first rule that is broken, in the order of behaviour.md 10.7.
pub fn verify(
    wire: &WireTransaction,
    resolved: Resolved<'_>,
    network: &SecureHash,
    rules: &LedgerRules,
) -> Result<Vec<ToRun>> {
    check(wire, resolved, network, rules).map_err(|refused| refused.of(wire.id()))
}

fn check(
    wire: &WireTransaction,
    resolved: Resolved<'_>,
    network: &SecureHash,
    rules: &LedgerRules,
) -> Result<Vec<ToRun>> {
    let contents = wire.contents();
    contents.header.check_network(network)?;
    check_resolved("input", &contents.inputs, resolved.inputs)?;
    check_resolved("reference", &contents.references, resolved.references)?;
    if !resolved.attachments.iter().map(|attachment| &attachment.id).eq(&contents.attachments) {
        return Err(Refused::new(Rule::AttachmentMissing, "the attachments given are not those of the transaction"));
    }
    check_size(wire, resolved, rules)?;
    check_count(wire, resolved, rules)?;
    check_notaries(wire, resolved, rules)?;
    encumbrance::check_inputs(resolved.inputs)?;
    encumbrance::check_outputs(&contents.outputs)?;
    let in_use = attachments_in_use(wire, resolved, rules)?;
    check_constraints(wire, resolved, rules, &in_use)?;
    let taking_part = taking_part(wire, resolved.inputs, rules, &in_use);
    check_transitions(rules, &taking_part)?;
    check_versions(wire, &in_use, &taking_part)?;
    contracts_to_run(wire, rules, &taking_part)
}

fn check_resolved(what: &'static str, named: &[StateRef], given: &[StateAndRef]) -> Result<()> {
    if given.iter().map(|state| &state.reference).eq(named) {
        return Ok(());
    }
    Err(Refused::new(Rule::StateUnknown, format!("the states given are not those of each {what}")))
}

/// The bytes that count: distinct attachments, the states of inputs and references, commands and outputs.
fn check_size(wire: &WireTransaction, resolved: Resolved<'_>, rules: &LedgerRules) -> Result<()> {
    let mut size = wire.own_size();
    let mut seen = BTreeSet::new();
    for attachment in resolved.attachments.iter().filter(|attachment| seen.insert(attachment.id)) {
        size = size.saturating_add(attachment.size);
    }
    for state in resolved.inputs.iter().chain(resolved.references) {
        size = size.saturating_add(codec::encode("state", &state.state)?.len() as u64);
    }
    if size < rules.max_transaction_size {
        return Ok(());
    }
    let message = format!("it has {size} bytes with all it needs, and the limit is {}", rules.max_transaction_size);
    Err(Refused::new(Rule::TooLarge, message).detail("bytes", size).detail("limit", rules.max_transaction_size))
}

/// Before anything is looked for that each contract needs. Those that name keys of one publisher are one.
fn check_count(wire: &WireTransaction, resolved: Resolved<'_>, rules: &LedgerRules) -> Result<()> {
    let (mut named, mut contracts) = (BTreeSet::new(), BTreeSet::new());
    for contract in all_states(wire, resolved).map(|state| &state.contract) {
        if named.insert(contract) && contracts.insert(rules.canonical(contract)) && contracts.len() > MAX_CONTRACTS {
            let message = format!("its states are of more than {MAX_CONTRACTS} contracts");
            return Err(Refused::new(Rule::ContractsTooMany, message).detail("limit", MAX_CONTRACTS));
        }
    }
    Ok(())
}

/// Notaries are compared by name, so that one whose key was rotated is still the same. Under which key an output names its
/// notary is bound when it is made: to that of the transaction's notary, or of an input that names it so.
fn check_notaries(wire: &WireTransaction, resolved: Resolved<'_>, rules: &LedgerRules) -> Result<()> {
    let contents = wire.contents();
    let Some(notary) = &contents.notary else { return Ok(()) };
    let mismatch = |what: String, other: &maxhost_model::Party| {
        let message = format!("{what} is kept by {other}, and the notary of the transaction is {notary}");
        Refused::new(Rule::NotaryMismatch, message).detail("notary", other)
    };
    for state in resolved.inputs.iter().chain(resolved.references) {
        if state.state.notary.name != notary.name {
            return Err(mismatch(format!("the state {}", state.reference), &state.state.notary));
        }
    }
    if !resolved.inputs.is_empty() || !resolved.references.is_empty() {
        let is_kept = |output: &TransactionState| {
            let by_inputs = || resolved.inputs.iter().any(|input| input.state.notary == output.notary);
            output.notary == *notary || (output.notary.name == notary.name && by_inputs())
        };
        let other = (0_u32..).zip(&contents.outputs).find(|(_, output)| !is_kept(output));
        if let Some((index, output)) = other {
            return Err(mismatch(format!("output {index}"), &output.notary).detail("index", index));
        }
    }
    if wire.needs_notary() && !rules.notaries.contains(notary) {
        let message = format!("{notary} is no notary of the network");
        return Err(Refused::new(Rule::NotaryUntrusted, message).detail("notary", notary));
    }
    Ok(())
}

fn all_states<'a>(wire: &'a WireTransaction, resolved: Resolved<'a>) -> impl Iterator<Item = &'a TransactionState> {
    let before = resolved.inputs.iter().chain(resolved.references).map(|state| &state.state);
    before.chain(&wire.contents().outputs)
}

/// For each contract of an input, reference or output the one attachment that holds it.
fn attachments_in_use<'a>(
    wire: &'a WireTransaction,
    resolved: Resolved<'a>,
    rules: &LedgerRules,
) -> Result<BTreeMap<&'a ContractId, &'a ContractAttachment>> {
    let mut in_use = BTreeMap::new();
    for contract in all_states(wire, resolved).map(|state| &state.contract) {
        if in_use.contains_key(contract) {
            continue;
        }
        if contract.publisher.is_none() && !rules.development {
            let message = format!("the contract {contract} has no publisher, and this is no development network");
            return Err(Refused::new(Rule::ContractUnsigned, message).detail("contract", &contract.name));
        }
        let mut holding = resolved.attachments.iter().filter(|one| constraint::holds(one, contract, rules));
        let attachment = holding.next().ok_or_else(|| {
            let message = format!("no attachment holds the contract {contract}");
            Refused::new(Rule::AttachmentMissing, message).detail("contract", &contract.name)
        })?;
        if let Some(other) = holding.next() {
            let message =
                format!("the attachments {} and {} both hold the contract {contract}", attachment.id, other.id);
            return Err(Refused::new(Rule::AttachmentConflict, message).detail("contract", &contract.name));
        }
        in_use.insert(contract, attachment);
    }
    Ok(in_use)
}

fn check_constraints(
    wire: &WireTransaction,
    resolved: Resolved<'_>,
    rules: &LedgerRules,
    in_use: &BTreeMap<&ContractId, &ContractAttachment>,
) -> Result<()> {
    for state in all_states(wire, resolved) {
        if let Some(attachment) = in_use.get(&state.contract) {
            constraint::check_satisfied(&state.constraint, &state.contract, attachment, rules)?;
        }
    }
    Ok(())
}

fn check_transitions<'a>(rules: &LedgerRules, taking_part: &BTreeMap<ContractId, TakingPart<'a>>) -> Result<()> {
    for (contract, TakingPart { attachment, from, to, .. }) in taking_part {
        if attachment.no_propagation {
            continue;
        }
        let read = |side: &Distinct<'a>| {
            side.all.iter().copied().map(|one| ReadConstraint::of(one, rules)).collect::<Vec<ReadConstraint<'a>>>()
        };
        let (from, to) = (read(from), read(to));
        for (input, output) in from.iter().flat_map(|input| to.iter().map(move |output| (input, output))) {
            if !constraint::may_follow(input, output, attachment, rules) {
                let message = format!(
                    "a state of the contract {contract} under a {} constraint may not become one under a {} constraint",
                    input.constraint.kind(),
                    output.constraint.kind()
                );
                return Err(Refused::new(Rule::ConstraintTransition, message).detail("contract", &contract.name));
            }
        }
    }
    Ok(())
}

/// An output is made by the code that comes with it, and never by older code than an input of its contract was.
fn check_versions(
    wire: &WireTransaction,
    in_use: &BTreeMap<&ContractId, &ContractAttachment>,
    taking_part: &BTreeMap<ContractId, TakingPart<'_>>,
) -> Result<()> {
    for (index, output) in (0_u32..).zip(&wire.contents().outputs) {
        let Some(attachment) = in_use.get(&output.contract) else { continue };
        if output.code_version != attachment.version {
            let message = format!(
                "output {index} names version {} of its code, and the attachment is version {}",
                output.code_version, attachment.version
            );
            return Err(Refused::new(Rule::CodeVersionWrong, message).detail("index", index));
        }
    }
    for (contract, TakingPart { attachment, newest, is_made, .. }) in taking_part {
        if let Some(newest) = newest.filter(|newest| *is_made && *newest > attachment.version) {
            let message = format!(
                "an input of the contract {contract} was made by version {newest}, and outputs by version {}",
                attachment.version
            );
            return Err(Refused::new(Rule::VersionDowngrade, message).detail("contract", &contract.name));
        }
    }
    Ok(())
}

/// Contracts of references are not run. A command to a contract that is not run would be checked by nobody.
fn contracts_to_run(
    wire: &WireTransaction,
    rules: &LedgerRules,
    taking_part: &BTreeMap<ContractId, TakingPart<'_>>,
) -> Result<Vec<ToRun>> {
    for (index, command) in (0_u32..).zip(&wire.contents().commands) {
        let part = taking_part.get(&rules.canonical(&command.value.contract));
        if !part.is_some_and(TakingPart::is_run) {
            let message = format!("command {index} is for {}, of which no state takes part", command.value.contract);
            return Err(Refused::new(Rule::CommandForeign, message).detail("command", index));
        }
    }
    let run = taking_part.iter().filter(|(_, part)| part.is_run());
    Ok(run.map(|(contract, part)| ToRun { contract: contract.clone(), attachment: part.attachment.id }).collect())
}

/// Checks that the parameters of a transaction are no older than those of any transaction whose states it names.
///
/// # Errors
/// [`Rule::ParametersOrder`].
pub fn check_epochs(id: SecureHash, epoch: u32, of_states: impl IntoIterator<Item = (StateRef, u32)>) -> Result<()> {
    match of_states.into_iter().find(|(_, theirs)| *theirs > epoch) {
        Some((state, theirs)) => {
            let message = format!("its parameters are of epoch {epoch}, and those of the state {state} of {theirs}");
            Err(Refused::new(Rule::ParametersOrder, message).of(id).detail("state", state))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use maxhost_model::Party;

    use super::*;
    use crate::fixtures::{
        PUBLISHER_KEY, attachment, command, contents, contract, key, ledger_rules, network, notary, party, reference,
        state, wire,
    };
    use crate::keys::{CompositeKey, WeightedKey};
    use crate::tx::{Constraint, Contents, Name};

    struct Case {
        contents: Contents,
        inputs: Vec<StateAndRef>,
        references: Vec<StateAndRef>,
        attachments: Vec<ContractAttachment>,
        rules: LedgerRules,
    }

    fn input(number: u32) -> StateAndRef {
        StateAndRef { state: state(number), reference: reference(number) }
    }

    fn sound() -> Case {
        Case {
            contents: contents(),
            inputs: vec![input(1)],
            references: vec![],
            attachments: vec![attachment()],
            rules: ledger_rules(),
        }
    }

    fn outcome(change: impl FnOnce(&mut Case)) -> Result<Vec<ToRun>> {
        let mut case = sound();
        change(&mut case);
        let resolved = Resolved { inputs: &case.inputs, references: &case.references, attachments: &case.attachments };
        verify(&wire(&case.contents), resolved, &network(), &case.rules)
    }

    fn rule(change: impl FnOnce(&mut Case)) -> Rule {
        let refused = outcome(change).unwrap_err();
        assert!(refused.transaction().is_some());
        refused.rule()
    }

    fn other_notary() -> Party {
        party("Other Notary", 77)
    }

    #[test]
    fn a_sound_transaction_runs_its_contracts() {
        let run = outcome(|_| ()).unwrap();
        assert_eq!(run, [ToRun { contract: contract(), attachment: attachment().id }]);
    }

    #[test]
    fn each_rule_has_its_own_code() {
        assert_eq!(rule(|c| c.contents.header.network = attachment().id), Rule::NetworkWrong);
        assert_eq!(rule(|c| c.inputs.clear()), Rule::StateUnknown);
        assert_eq!(rule(|c| c.inputs[0].reference = reference(9)), Rule::StateUnknown);
        assert_eq!(rule(|c| c.attachments.clear()), Rule::AttachmentMissing);
        assert_eq!(rule(|c| c.rules.notaries.clear()), Rule::NotaryUntrusted);
        assert_eq!(rule(|c| c.contents.outputs[0].notary = other_notary()), Rule::NotaryMismatch);
        assert_eq!(rule(|c| c.inputs[0].state.notary = other_notary()), Rule::NotaryMismatch);
        assert_eq!(rule(|c| c.inputs[0].state.encumbrance = Some(3)), Rule::EncumbranceInputMissing);
        assert_eq!(rule(|c| c.contents.outputs[0].encumbrance = Some(0)), Rule::EncumbranceOutputMissing);
        assert_eq!(rule(|c| c.attachments[0].contracts = ["iou".to_owned()].into()), Rule::AttachmentMissing);
        assert_eq!(rule(|c| c.contents.outputs[0].contract.publisher = None), Rule::ContractUnsigned);
        assert_eq!(rule(|c| c.attachments[0].signers = [key(9)].into()), Rule::AttachmentMissing);
        let by = |byte| Constraint::Signature(key(byte));
        assert_eq!(rule(|c| c.contents.outputs[0].constraint = by(9)), Rule::ConstraintUnsatisfied);
        assert_eq!(rule(|c| c.inputs[0].state.constraint = by(9)), Rule::ConstraintUnsatisfied);
        assert_eq!(rule(|c| c.contents.outputs[0].constraint = Constraint::AlwaysAccept), Rule::ConstraintInvalid);
        assert_eq!(
            rule(|c| c.inputs[0].state.constraint = Constraint::Hash(attachment().code_hash)),
            Rule::ConstraintTransition
        );
        assert_eq!(rule(|c| c.contents.outputs[0].code_version = 2), Rule::CodeVersionWrong);
        assert_eq!(rule(|c| c.inputs[0].state.code_version = 2), Rule::VersionDowngrade);
        let foreign = |c: &mut Case| {
            c.contents.commands[0].value.contract.name = crate::tx::Name::new("other").unwrap();
        };
        assert_eq!(rule(foreign), Rule::CommandForeign);
    }

    #[test]
    fn two_attachments_may_not_hold_one_contract() {
        let second = ContractAttachment { id: network(), ..attachment() };
        assert_eq!(
            rule(|c| {
                c.contents.attachments.push(second.id);
                c.attachments.push(second.clone());
            }),
            Rule::AttachmentConflict
        );
        let unrelated = ContractAttachment { id: network(), contracts: BTreeSet::new(), ..attachment() };
        outcome(|c| {
            c.contents.attachments.push(unrelated.id);
            c.attachments.push(unrelated.clone());
        })
        .unwrap();
    }

    #[test]
    fn a_state_goes_on_under_code_that_a_successor_has_signed() {
        let successor = |c: &mut Case| {
            c.rules.rotations = vec![vec![key(PUBLISHER_KEY), key(9)]];
            c.attachments[0].signers = [key(9)].into();
        };
        let by = |byte| Constraint::Signature(key(byte));
        // The input and the output name the older key: the contract is called as before.
        assert_eq!(outcome(successor).unwrap(), [ToRun { contract: contract(), attachment: attachment().id }]);
        // Whatever the output names, it is one contract, which runs once and sees both sides.
        let renamed = |c: &mut Case| {
            successor(c);
            c.contents.outputs[0].contract.publisher = Some(key(9));
            c.contents.outputs[0].constraint = by(9);
        };
        assert_eq!(outcome(renamed).unwrap(), [ToRun { contract: contract(), attachment: attachment().id }]);
        let commanded = |c: &mut Case| {
            renamed(c);
            c.contents.commands[0].value.contract.publisher = Some(key(9));
        };
        assert_eq!(outcome(commanded).unwrap().len(), 1);
        // So the rules from input to output hold for it too.
        let unbound = |c: &mut Case| {
            renamed(c);
            c.rules.development = true;
            c.contents.outputs[0].constraint = Constraint::AlwaysAccept;
        };
        assert_eq!(rule(unbound), Rule::ConstraintTransition);
        // What has come under the newer key does not go back under the older one, whatever the output is called: whoever has
        // stolen that could take it from the next owner.
        for publisher in [PUBLISHER_KEY, 9] {
            let taken_back = |c: &mut Case| {
                successor(c);
                c.inputs[0].state.constraint = by(9);
                c.inputs[0].state.contract.publisher = Some(key(publisher));
                assert_eq!(c.contents.outputs[0].constraint, by(PUBLISHER_KEY));
            };
            assert_eq!(rule(taken_back), Rule::ConstraintTransition);
        }
        let downgraded = |c: &mut Case| {
            renamed(c);
            c.inputs[0].state.code_version = 2;
        };
        assert_eq!(rule(downgraded), Rule::VersionDowngrade);

        // Without the succession, or with a key in the place of its successor, there is no such contract.
        let unknown = |c: &mut Case| {
            successor(c);
            c.rules.rotations.clear();
        };
        assert_eq!(rule(unknown), Rule::AttachmentMissing);
        let replaced = |c: &mut Case| {
            successor(c);
            c.rules.rotations = vec![vec![key(9), key(PUBLISHER_KEY)]];
        };
        assert_eq!(rule(replaced), Rule::AttachmentMissing);
        let older_code = |c: &mut Case| {
            c.rules.rotations = vec![vec![key(PUBLISHER_KEY), key(9)]];
            c.inputs[0].state.constraint = by(9);
        };
        assert_eq!(rule(older_code), Rule::ConstraintUnsatisfied);
        let made_by_older = |c: &mut Case| {
            c.rules.rotations = vec![vec![key(PUBLISHER_KEY), key(9)]];
            c.contents.outputs[0].contract.publisher = Some(key(9));
        };
        assert_eq!(rule(made_by_older), Rule::AttachmentMissing);
        // Code of both keys in one transaction: it would not be said which of them judges.
        let both = |c: &mut Case| {
            successor(c);
            let older = ContractAttachment { id: network(), ..attachment() };
            c.contents.attachments.push(older.id);
            c.attachments.push(older);
        };
        assert_eq!(rule(both), Rule::AttachmentConflict);
    }

    #[test]
    fn contracts_that_one_signer_publishes_with_others_are_contracts_of_their_own() {
        let of = |other: u8| {
            let parts = [PUBLISHER_KEY, other].map(|byte| WeightedKey { key: key(byte), weight: 1 });
            ContractId { publisher: CompositeKey::build(parts.into(), Some(1)).ok(), ..contract() }
        };
        let many = |c: &mut Case| {
            c.rules.max_transaction_size = u64::MAX;
            c.rules.rotations = vec![vec![key(PUBLISHER_KEY), key(0)]];
            c.contents.outputs.extend((1..=63).map(|other| TransactionState { contract: of(other), ..state(1) }));
        };
        let run = outcome(many).unwrap();
        assert_eq!(run.iter().filter(|one| one.contract == contract()).count(), 1);
        for other in (1..=63).map(of) {
            assert_eq!(run.iter().filter(|one| one.contract == other).count(), 1, "{other}");
        }
        assert_eq!(run.len(), MAX_CONTRACTS);
        // What holds from input to output holds for each by itself.
        let loosened = |c: &mut Case| {
            many(c);
            c.rules.development = true;
            c.contents.outputs[7].constraint = Constraint::AlwaysAccept;
        };
        assert_eq!(outcome(loosened).unwrap().len(), MAX_CONTRACTS, "it has no input");
        let taken_over = |c: &mut Case| {
            loosened(c);
            c.inputs[0].state.contract = of(7);
        };
        assert_eq!(rule(taken_over), Rule::ConstraintTransition);
        let older = |c: &mut Case| {
            many(c);
            c.inputs[0].state.contract = of(8);
            c.inputs[0].state.code_version = 2;
        };
        assert_eq!(rule(older), Rule::VersionDowngrade);
    }

    /// Whoever judges a transaction asks each contract in an instance of its own.
    #[test]
    fn the_contracts_of_one_transaction_are_bounded() {
        let named = |number: usize| ContractId { name: Name::new(format!("c{number}")).unwrap(), ..contract() };
        let of = |c: &mut Case, contracts: usize| {
            c.rules.max_transaction_size = u64::MAX;
            c.attachments[0].contracts.extend((0..contracts).map(|number| format!("c{number}")));
        };
        // One is that of the input.
        let outputs = |c: &mut Case, contracts: usize| {
            of(c, contracts);
            c.contents
                .outputs
                .extend((1..contracts).map(|number| TransactionState { contract: named(number), ..state(1) }));
        };
        assert_eq!(outcome(|c| outputs(c, MAX_CONTRACTS)).unwrap().len(), MAX_CONTRACTS);
        let refused = outcome(|c| outputs(c, MAX_CONTRACTS + 1)).unwrap_err();
        assert_eq!(refused.rule(), Rule::ContractsTooMany);
        assert_eq!(refused.rule().as_str(), "too-many-contracts");
        // States of one contract count once, however many there are, and whichever key of its publisher they name.
        outcome(|c| {
            outputs(c, MAX_CONTRACTS);
            let again: Vec<TransactionState> = c.contents.outputs.clone();
            c.contents.outputs.extend(again);
        })
        .unwrap();
        let renamed = |c: &mut Case, contracts: usize| {
            outputs(c, contracts);
            c.rules.rotations = vec![vec![key(PUBLISHER_KEY), key(9)]];
            c.attachments[0].signers = [key(9)].into();
            let later = ContractId { publisher: Some(key(9)), ..contract() };
            c.contents.outputs.push(TransactionState { contract: later, ..state(1) });
        };
        assert_eq!(outcome(|c| renamed(c, MAX_CONTRACTS)).unwrap().len(), MAX_CONTRACTS);
        assert_eq!(rule(|c| renamed(c, MAX_CONTRACTS + 1)), Rule::ContractsTooMany);
        // Those of inputs and references count too.
        let named_before = |c: &mut Case, inputs: usize, references: usize| {
            of(c, inputs + references);
            for number in 1..inputs {
                let at = reference(100 + u32::try_from(number).unwrap());
                c.contents.inputs.push(at);
                c.inputs.push(StateAndRef {
                    state: TransactionState { contract: named(number), ..state(1) },
                    reference: at,
                });
            }
            for number in inputs..inputs + references {
                let at = reference(100 + u32::try_from(number).unwrap());
                c.contents.references.push(at);
                let state = TransactionState { contract: named(number), ..state(1) };
                c.references.push(StateAndRef { state, reference: at });
            }
        };
        assert_eq!(outcome(|c| named_before(c, 30, MAX_CONTRACTS - 30)).unwrap().len(), 30);
        assert_eq!(rule(|c| named_before(c, 30, MAX_CONTRACTS - 29)), Rule::ContractsTooMany);
        assert_eq!(rule(|c| named_before(c, MAX_CONTRACTS + 1, 0)), Rule::ContractsTooMany);
    }

    #[test]
    fn the_size_stays_below_the_limit() {
        let own = wire(&contents()).own_size() + codec::encode("state", &state(1)).unwrap().len() as u64;
        outcome(|c| c.attachments[0].size = c.rules.max_transaction_size - own - 1).unwrap();
        assert_eq!(rule(|c| c.attachments[0].size = c.rules.max_transaction_size - own), Rule::TooLarge);
    }

    #[test]
    fn a_notary_is_known_by_name_and_trusted_by_key() {
        let rotated = Party::new(notary().name, key(99));
        // Who made a state with a key of his own for the notary could sign as it when the state is moved to another.
        let to_be_kept_by = |c: &mut Case, notary: &Party| c.contents.outputs[0].notary = notary.clone();
        assert_eq!(rule(|c| to_be_kept_by(c, &rotated)), Rule::NotaryMismatch);
        outcome(|c| {
            c.inputs[0].state.notary = rotated.clone();
            to_be_kept_by(c, &rotated);
        })
        .unwrap();
        outcome(|c| c.inputs[0].state.notary = rotated.clone()).unwrap();
        assert_eq!(rule(|c| c.contents.notary = Some(rotated.clone())), Rule::NotaryUntrusted);
    }

    #[test]
    fn an_issue_may_name_any_notaries() {
        let run = outcome(|c| {
            c.contents.inputs.clear();
            c.inputs.clear();
            c.contents.notary = None;
            c.contents.outputs = vec![state(1), TransactionState { notary: other_notary(), ..state(2) }];
        });
        run.unwrap();
    }

    #[test]
    fn contracts_of_references_are_not_run_but_must_be_there() {
        let other = ContractId { name: crate::tx::Name::new("other").unwrap(), ..contract() };
        let referenced =
            || StateAndRef { state: TransactionState { contract: other.clone(), ..state(5) }, reference: reference(5) };
        let with = |c: &mut Case| {
            c.contents.references.push(reference(5));
            c.references.push(referenced());
        };
        assert_eq!(rule(with), Rule::AttachmentMissing);
        let run = outcome(|c| {
            with(c);
            c.attachments[0].contracts.insert("other".to_owned());
        });
        assert_eq!(run.unwrap().len(), 1);
        let commanded = |c: &mut Case| {
            with(c);
            c.attachments[0].contracts.insert("other".to_owned());
            let mut more = command(&[1]);
            more.value.contract = other.clone();
            c.contents.commands.push(more);
        };
        assert_eq!(rule(commanded), Rule::CommandForeign);
    }

    #[test]
    fn parameters_are_no_older_than_those_of_the_states() {
        let id = network();
        check_epochs(id, 3, [(reference(1), 3), (reference(2), 1)]).unwrap();
        assert_eq!(check_epochs(id, 2, [(reference(1), 3)]).unwrap_err().rule(), Rule::ParametersOrder);
    }
}
