//! Building transactions (behaviour.md 10.19).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use maxhost_model::{Party, PublicKey, SecureHash};

use super::component::Salt;
use super::constraint::{self, ContractAttachment, LedgerRules, automatic, holds};
use super::header::Header;
use super::state::{
    Command, CommandValue, Constraint, ContractId, Data, Name, SchemaId, StateAndRef, StateRef, TransactionState,
};
use super::wire::{Contents, WireTransaction};
use crate::refused::{Refused, Result};
use crate::rules::Rule;
use crate::time::TimeWindow;

/// An output that is not finished: what is left open is filled in when the transaction is built.
#[derive(Debug, Clone)]
pub struct OutputDraft {
    /// The contract that governs it.
    pub contract: ContractId,
    /// Its type.
    pub type_name: Name,
    /// The version of that type.
    pub schema: SchemaId,
    /// What it says.
    pub data: Data,
    /// Who keeps it; the notary of the transaction if none is named.
    pub notary: Option<Party>,
    /// The output that must be spent together with it.
    pub encumbrance: Option<u32>,
    /// Which code may govern it; chosen by the rules if none is named.
    pub constraint: Option<Constraint>,
    /// States that it points to, which become references when the transaction is built.
    pub pointers: Vec<Pointer>,
}

/// A state that another points to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pointer {
    /// This state and no other.
    Static(StateRef),
    /// The newest unconsumed state with this linear id, of this contract and type.
    Linear {
        /// The linear id: a UUID.
        id: [u8; 16],
        /// The contract and type, as `iou/Iou`.
        qualified_type: String,
    },
}

/// Finds what pointers point to.
pub trait Pointers {
    /// The state, and the pointers in it.
    ///
    /// # Errors
    /// [`Rule::StateUnknown`] if there is none, or the linear state has come to its end.
    fn resolve(&self, pointer: &Pointer) -> Result<(StateAndRef, Vec<Pointer>)>;
}

/// No state is pointed to.
impl Pointers for () {
    fn resolve(&self, _: &Pointer) -> Result<(StateAndRef, Vec<Pointer>)> {
        Err(Refused::new(Rule::StateUnknown, "nothing resolves the pointers of states here"))
    }
}

/// What a transaction is built with, besides what its author has put in.
#[derive(Debug, Clone, Copy)]
pub struct BuildWith<'a> {
    /// SHA-256 of the root certificate of the network.
    pub network: SecureHash,
    /// The hash of the current network parameters.
    pub parameters: SecureHash,
    /// What those parameters allow.
    pub rules: &'a LedgerRules,
    /// The installed attachments. Of several that hold one contract the newest is taken.
    pub installed: &'a [ContractAttachment],
}

/// A transaction that is being put together. A copy is independent of what it was copied from.
#[derive(Debug, Clone, Default)]
pub struct TransactionBuilder {
    notary: Option<Party>,
    inputs: Vec<StateAndRef>,
    references: Vec<StateAndRef>,
    outputs: Vec<OutputDraft>,
    commands: Vec<Command>,
    attachments: BTreeSet<SecureHash>,
    time_window: Option<TimeWindow>,
}

/// The most states that pointers may bring in: a bound on circles of ever new states.
pub const MAX_POINTED: usize = 1024;

/// The refusal of states that lead to more than [`MAX_POINTED`] others.
#[must_use]
pub fn too_many_pointed() -> Refused {
    refuse(format!("states point to more than {MAX_POINTED} others"))
}

fn refuse(message: impl Into<String>) -> Refused {
    Refused::new(Rule::BuilderInvalid, message)
}

impl TransactionBuilder {
    /// Begins a transaction, with this notary or with that of the first state that is put in.
    #[must_use]
    pub fn new(notary: Option<Party>) -> TransactionBuilder {
        TransactionBuilder { notary, ..TransactionBuilder::default() }
    }

    /// The notary.
    #[must_use]
    pub fn notary(&self) -> Option<&Party> {
        self.notary.as_ref()
    }

    /// The states that are consumed.
    #[must_use]
    pub fn inputs(&self) -> &[StateAndRef] {
        &self.inputs
    }

    /// The states that are looked at.
    #[must_use]
    pub fn references(&self) -> &[StateAndRef] {
        &self.references
    }

    /// Consumes a state.
    ///
    /// # Errors
    /// [`Rule::NotaryMismatch`] if it is kept by a notary of another name, [`Rule::InputDuplicate`] if it is there
    /// already, [`Rule::ReferenceIsInput`] if it is a reference.
    pub fn input(&mut self, state: StateAndRef) -> Result<&mut TransactionBuilder> {
        self.check_new(&state, true)?;
        self.take_notary(&state)?;
        self.inputs.push(state);
        Ok(self)
    }

    /// Looks at a state.
    ///
    /// # Errors
    /// [`Rule::NotaryMismatch`], [`Rule::ReferenceDuplicate`], [`Rule::ReferenceIsInput`].
    pub fn reference(&mut self, state: StateAndRef) -> Result<&mut TransactionBuilder> {
        self.check_new(&state, false)?;
        self.take_notary(&state)?;
        self.references.push(state);
        Ok(self)
    }

    fn check_new(&self, state: &StateAndRef, as_input: bool) -> Result<()> {
        let within = |states: &[StateAndRef]| states.iter().any(|other| other.reference == state.reference);
        let rule = match (within(&self.inputs), within(&self.references)) {
            (false, false) => return Ok(()),
            (true, _) if as_input => Rule::InputDuplicate,
            (_, true) if !as_input => Rule::ReferenceDuplicate,
            _ => Rule::ReferenceIsInput,
        };
        let message = format!("the state {} is in the transaction already", state.reference);
        Err(Refused::new(rule, message).detail("state", state.reference))
    }

    /// A notary of the same name with another key is the same notary with a new key, and replaces the one with the old.
    fn take_notary(&mut self, state: &StateAndRef) -> Result<()> {
        match &self.notary {
            Some(own) if own.name != state.state.notary.name => {
                let message = format!(
                    "the state {} is kept by {}, and the notary of the transaction is {own}",
                    state.reference, state.state.notary
                );
                Err(Refused::new(Rule::NotaryMismatch, message).detail("state", state.reference))
            }
            _ => {
                self.notary = Some(state.state.notary.clone());
                Ok(())
            }
        }
    }

    /// Makes a state. Returns its index.
    ///
    /// # Errors
    /// [`Rule::BuilderInvalid`] beyond what an index can count.
    pub fn output(&mut self, output: OutputDraft) -> Result<u32> {
        let index = u32::try_from(self.outputs.len()).map_err(|_| refuse("there are too many outputs"))?;
        self.outputs.push(output);
        Ok(index)
    }

    /// Does something, to be signed by these keys.
    ///
    /// # Errors
    /// [`Rule::SignerMissing`] without keys.
    pub fn command(&mut self, value: CommandValue, signers: Vec<PublicKey>) -> Result<&mut TransactionBuilder> {
        if signers.is_empty() {
            return Err(Refused::new(Rule::SignerMissing, "a command needs a signer"));
        }
        self.commands.push(Command { value, signers });
        Ok(self)
    }

    /// Adds an attachment that no state needs. Those of contracts are added when the transaction is built.
    pub fn attachment(&mut self, id: SecureHash) -> &mut TransactionBuilder {
        self.attachments.insert(id);
        self
    }

    /// Says when it may be notarised, in place of what was said before.
    ///
    /// # Errors
    /// [`Rule::NotaryMissing`] if there is no notary yet.
    pub fn time_window(&mut self, window: TimeWindow) -> Result<&mut TransactionBuilder> {
        if self.notary.is_none() {
            return Err(Refused::new(Rule::NotaryMissing, "a time-window needs a notary: name it first"));
        }
        self.time_window = Some(window);
        Ok(self)
    }

    /// Finishes the transaction: pointed-to states become references, each contract gets its attachment, each output its
    /// notary, its constraint and the version of its code. The builder stays as it was.
    ///
    /// # Errors
    /// [`Rule::AttachmentMissing`] and [`Rule::AttachmentConflict`] for contracts, [`Rule::BuilderInvalid`] for what
    /// cannot be filled in, and the rules of structure.
    pub fn build(&self, with: BuildWith<'_>, pointers: &impl Pointers, salt: Salt) -> Result<WireTransaction> {
        let mut whole = self.clone();
        whole.follow(pointers)?;
        let mut attachments = whole.attachments.clone();
        let contracts = whole.contracts();
        let mut code = BTreeMap::new();
        for contract in &contracts {
            let attachment = whole.attachment_of(contract, &contracts, with)?;
            attachments.insert(attachment.id);
            code.insert(*contract, attachment);
        }
        let finish = |draft| whole.finish(draft, &code, with);
        let outputs = whole.outputs.iter().map(finish).collect::<Result<_>>()?;
        let references_of = |states: &[StateAndRef]| states.iter().map(|state| state.reference).collect();
        let contents = Contents {
            header: Header::current(with.network),
            inputs: references_of(&whole.inputs),
            outputs,
            commands: whole.commands.clone(),
            attachments: attachments.into_iter().collect(),
            notary: whole.notary.clone(),
            time_window: whole.time_window,
            references: references_of(&whole.references),
            parameters: Some(with.parameters),
        };
        WireTransaction::new(&contents, salt)
    }

    /// Makes references of the states that outputs point to, and that those point to, unless they are in the transaction
    /// already. What is built does so by itself.
    ///
    /// # Errors
    /// Those of finding the states, those of [`TransactionBuilder::reference`], and [`too_many_pointed`].
    pub fn follow(&mut self, pointers: &impl Pointers) -> Result<()> {
        let mut left: Vec<Pointer> = self.outputs.iter().rev().flat_map(|output| output.pointers.clone()).collect();
        let mut seen = BTreeSet::new();
        while let Some(pointer) = left.pop() {
            if !seen.insert(pointer.clone()) {
                continue;
            }
            if seen.len() > MAX_POINTED {
                return Err(too_many_pointed());
            }
            let (state, further) = pointers.resolve(&pointer)?;
            let known = self.inputs.iter().chain(&self.references).any(|other| other.reference == state.reference);
            if !known {
                self.reference(state)?;
            }
            left.extend(further);
        }
        Ok(())
    }

    fn contracts(&self) -> BTreeSet<&ContractId> {
        let states = self.inputs.iter().chain(&self.references).map(|state| &state.state.contract);
        states.chain(self.outputs.iter().map(|output| &output.contract)).collect()
    }

    /// The attachment that the author has chosen for a contract, or the newest that is installed, of those with which its states
    /// may go: a file that a key has signed which was replaced may still be installed, and newer by its number. It is the same
    /// one for all of `contracts` that name keys of one publisher: they are one contract.
    fn attachment_of<'a>(
        &self,
        contract: &ContractId,
        contracts: &BTreeSet<&ContractId>,
        with: BuildWith<'a>,
    ) -> Result<&'a ContractAttachment> {
        let same: Vec<&&ContractId> =
            contracts.iter().filter(|other| with.rules.is_same_contract(other, contract)).collect();
        let holds_all =
            |attachment: &&ContractAttachment| same.iter().all(|contract| holds(attachment, contract, with.rules));
        let holding: Vec<&ContractAttachment> = with.installed.iter().filter(holds_all).collect();
        let chosen: Vec<&&ContractAttachment> =
            holding.iter().filter(|attachment| self.attachments.contains(&attachment.id)).collect();
        if let [one, other, ..] = chosen.as_slice() {
            let message = format!("the attachments {} and {} both hold the contract {contract}", one.id, other.id);
            return Err(Refused::new(Rule::AttachmentConflict, message).detail("contract", &contract.name));
        }
        let newest = || {
            let constraints = match holding.len() {
                0 | 1 => Vec::new(),
                _ => self.constraints_of(contract, with.rules),
            };
            holding.iter().max_by_key(|attachment| {
                let satisfies = |constraint: &&Constraint| {
                    constraint::check_satisfied(constraint, contract, attachment, with.rules).is_ok()
                };
                (constraints.iter().all(satisfies), attachment.version, attachment.id)
            })
        };
        chosen.first().copied().or_else(newest).copied().ok_or_else(|| {
            let message = format!("no installed attachment holds the contract {contract}");
            Refused::new(Rule::AttachmentMissing, message).detail("contract", &contract.name)
        })
    }

    /// The constraints of the states of a contract that are consumed or looked at, each once.
    fn constraints_of(&self, contract: &ContractId, rules: &LedgerRules) -> Vec<&Constraint> {
        let states = self.inputs.iter().chain(&self.references).map(|state| &state.state);
        let own = states.filter(|state| rules.is_same_contract(&state.contract, contract));
        own.map(|state| &state.constraint).collect::<HashSet<_>>().into_iter().collect()
    }

    fn finish(
        &self,
        draft: &OutputDraft,
        code: &BTreeMap<&ContractId, &ContractAttachment>,
        with: BuildWith<'_>,
    ) -> Result<TransactionState> {
        let attachment =
            code.get(&draft.contract).copied().ok_or_else(|| refuse("an output has a contract without code"))?;
        let constraint = match &draft.constraint {
            Some(chosen) => chosen.clone(),
            None => {
                let is_own = |input: &&StateAndRef| with.rules.is_same_contract(&input.state.contract, &draft.contract);
                let own = self.inputs.iter().filter(is_own);
                let inputs: Vec<&Constraint> = own.map(|input| &input.state.constraint).collect();
                automatic(&draft.contract, &inputs, attachment, with.rules)?
            }
        };
        constraint::check_allowed(&constraint, with.rules)?;
        let notary = draft.notary.as_ref().or(self.notary.as_ref());
        let notary =
            notary.ok_or_else(|| refuse("an output needs a notary, and neither it nor the transaction has one"))?;
        Ok(TransactionState {
            contract: draft.contract.clone(),
            type_name: draft.type_name.clone(),
            schema: draft.schema.clone(),
            code_version: attachment.version,
            data: draft.data.clone(),
            notary: notary.clone(),
            encumbrance: draft.encumbrance,
            constraint,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixtures::{
        PUBLISHER_KEY, attachment, command, contract, key, ledger_rules, network, notary, parameters_hash, party,
        reference, salt, state,
    };
    use crate::time::Timestamp;
    use crate::tx::verify::{Resolved, verify};

    fn draft(number: u32) -> OutputDraft {
        let state = state(number);
        OutputDraft {
            contract: state.contract,
            type_name: state.type_name,
            schema: state.schema,
            data: state.data,
            notary: None,
            encumbrance: None,
            constraint: None,
            pointers: vec![],
        }
    }

    fn input(number: u32) -> StateAndRef {
        StateAndRef { state: state(number), reference: reference(number) }
    }

    fn build(builder: &TransactionBuilder, pointers: &impl Pointers) -> Result<WireTransaction> {
        let rules = ledger_rules();
        let older = ContractAttachment { id: network(), version: 0, ..attachment() };
        let installed = [older, attachment()];
        let with =
            BuildWith { network: network(), parameters: parameters_hash(), rules: &rules, installed: &installed };
        builder.build(with, pointers, salt())
    }

    fn rule<T>(result: Result<T>) -> Rule {
        result.err().unwrap().rule()
    }

    #[test]
    fn what_is_built_verifies() {
        let mut builder = TransactionBuilder::new(None);
        builder.input(input(1)).unwrap();
        builder.output(draft(2)).unwrap();
        builder.command(command(&[1]).value, vec![key(1)]).unwrap();
        let wire = build(&builder, &()).unwrap();
        let output = &wire.contents().outputs[0];
        assert_eq!(output.notary, notary());
        assert_eq!(output.constraint, Constraint::Signature(key(PUBLISHER_KEY)));
        assert_eq!(wire.contents().attachments, [attachment().id], "the newest");
        let resolved = Resolved { inputs: &[input(1)], references: &[], attachments: &[attachment()] };
        assert_eq!(verify(&wire, resolved, &network(), &ledger_rules()).unwrap().len(), 1);
    }

    #[test]
    fn states_of_both_keys_of_a_publisher_are_spent_together() {
        let rules = LedgerRules { rotations: vec![vec![key(PUBLISHER_KEY), key(9)]], ..ledger_rules() };
        let newer = ContractAttachment { id: network(), signers: [key(9)].into(), ..attachment() };
        // Code of the older key that is newer by its version does not hold what the newer key has made.
        let older = ContractAttachment { version: 2, ..attachment() };
        let mut of_successor = input(2);
        of_successor.state.contract.publisher = Some(key(9));
        of_successor.state.constraint = Constraint::Signature(key(9));
        let mut builder = TransactionBuilder::new(None);
        builder.input(input(1)).unwrap();
        builder.input(of_successor.clone()).unwrap();
        builder.output(draft(3)).unwrap();
        builder.command(command(&[1]).value, vec![key(1)]).unwrap();
        let with = BuildWith {
            network: network(),
            parameters: parameters_hash(),
            rules: &rules,
            installed: &[older, newer.clone()],
        };
        let wire = builder.build(with, &(), salt()).unwrap();
        assert_eq!(wire.contents().attachments, [newer.id]);
        assert_eq!(wire.contents().outputs[0].constraint, Constraint::Signature(key(9)), "of the successor");
        let resolved = Resolved { inputs: &[input(1), of_successor], references: &[], attachments: &[newer] };
        let run = verify(&wire, resolved, &network(), &rules).unwrap();
        assert_eq!(run.iter().map(|one| &one.contract).collect::<Vec<_>>(), [&contract()], "one contract, once");
    }

    #[test]
    fn code_of_a_replaced_key_that_is_still_installed_is_not_taken_for_states_that_ask_for_the_successor() {
        let rules = LedgerRules { rotations: vec![vec![key(PUBLISHER_KEY), key(9)]], ..ledger_rules() };
        let successors = ContractAttachment { id: network(), signers: [key(9)].into(), ..attachment() };
        // The file of the replaced key is as new, or newer by its number.
        for version in [1, 2] {
            let replaced = ContractAttachment { version, ..attachment() };
            let installed = [successors.clone(), replaced.clone()];
            let with =
                BuildWith { network: network(), parameters: parameters_hash(), rules: &rules, installed: &installed };
            for is_reference in [false, true] {
                let mut moved = input(1);
                moved.state.constraint = Constraint::Signature(key(9));
                let mut builder = TransactionBuilder::new(None);
                let (inputs, references) = if is_reference {
                    builder.input(input(2)).unwrap().reference(moved.clone()).unwrap();
                    (vec![input(2)], vec![moved])
                } else {
                    builder.input(moved.clone()).unwrap();
                    (vec![moved], vec![])
                };
                builder.output(draft(3)).unwrap();
                builder.command(command(&[1]).value, vec![key(1)]).unwrap();
                let wire = builder.build(with, &(), salt()).unwrap();
                assert_eq!(wire.contents().attachments, [successors.id]);
                assert_eq!(wire.contents().outputs[0].constraint, Constraint::Signature(key(9)));
                let attachments = std::slice::from_ref(&successors);
                let resolved = Resolved { inputs: &inputs, references: &references, attachments };
                assert_eq!(verify(&wire, resolved, &network(), &rules).unwrap().len(), 1);
            }
            // States that ask for the replaced key go with the newest of both, as before.
            let mut builder = TransactionBuilder::new(None);
            builder.input(input(1)).unwrap();
            builder.output(draft(3)).unwrap();
            builder.command(command(&[1]).value, vec![key(1)]).unwrap();
            let wire = builder.build(with, &(), salt()).unwrap();
            let newest = installed.iter().max_by_key(|file| (file.version, file.id)).unwrap();
            assert_eq!(wire.contents().attachments, [newest.id]);
        }
    }

    #[test]
    fn calls_that_do_not_fit_are_refused() {
        let mut builder = TransactionBuilder::new(None);
        let window = TimeWindow::until_only(Timestamp::from_nanos(1));
        assert_eq!(rule(builder.time_window(window)), Rule::NotaryMissing);
        builder.input(input(1)).unwrap();
        builder.reference(input(2)).unwrap();
        builder.time_window(window).unwrap();
        assert_eq!(rule(builder.input(input(1))), Rule::InputDuplicate);
        assert_eq!(rule(builder.input(input(2))), Rule::ReferenceIsInput);
        assert_eq!(rule(builder.reference(input(1))), Rule::ReferenceIsInput);
        assert_eq!(rule(builder.reference(input(2))), Rule::ReferenceDuplicate);
        let mut foreign = input(3);
        foreign.state.notary = party("Other Notary", 77);
        assert_eq!(rule(builder.input(foreign)), Rule::NotaryMismatch);
        let mut rotated = input(4);
        rotated.state.notary = Party::new(notary().name, key(99));
        builder.input(rotated).unwrap();
        assert_eq!(builder.notary().unwrap().owning_key, key(99));
        assert_eq!(rule(builder.command(command(&[1]).value, vec![])), Rule::SignerMissing);
        builder.command(command(&[1]).value, vec![key(1)]).unwrap();
        builder.attachment(network()).attachment(attachment().id);
        assert_eq!(rule(build(&builder, &())), Rule::AttachmentConflict);
    }

    #[test]
    fn an_output_needs_a_notary_and_an_installed_contract() {
        let mut builder = TransactionBuilder::new(None);
        builder.output(draft(1)).unwrap();
        builder.command(command(&[1]).value, vec![key(1)]).unwrap();
        assert_eq!(rule(build(&builder, &())), Rule::BuilderInvalid);
        let mut builder = TransactionBuilder::new(Some(notary()));
        let unknown = ContractId { name: Name::new("other").unwrap(), ..contract() };
        builder.output(OutputDraft { contract: unknown, ..draft(1) }).unwrap();
        builder.command(command(&[1]).value, vec![key(1)]).unwrap();
        assert_eq!(rule(build(&builder, &())), Rule::AttachmentMissing);
    }

    struct Known(BTreeMap<Pointer, (StateAndRef, Vec<Pointer>)>);

    impl Pointers for Known {
        fn resolve(&self, pointer: &Pointer) -> Result<(StateAndRef, Vec<Pointer>)> {
            let found = self.0.get(pointer).cloned();
            found.ok_or_else(|| Refused::new(Rule::StateUnknown, "exited"))
        }
    }

    #[test]
    fn pointers_become_references_once_each() {
        let to = |number| Pointer::Static(reference(number));
        let linear = Pointer::Linear { id: [5; 16], qualified_type: "cash/Cash".to_owned() };
        let known = Known(
            [
                (to(5), (input(5), vec![linear.clone(), to(1)])),
                (linear, (input(6), vec![to(5)])),
                (to(1), (input(1), vec![])),
            ]
            .into(),
        );
        let mut builder = TransactionBuilder::new(None);
        builder.input(input(1)).unwrap();
        builder.output(OutputDraft { pointers: vec![to(5)], ..draft(2) }).unwrap();
        builder.command(command(&[1]).value, vec![key(1)]).unwrap();
        let wire = build(&builder, &known).unwrap();
        let references: BTreeSet<StateRef> = wire.contents().references.iter().copied().collect();
        assert_eq!(references, [reference(5), reference(6)].into());
        assert!(builder.references().is_empty(), "the builder stays as it was");
        builder.output(OutputDraft { pointers: vec![to(9)], ..draft(3) }).unwrap();
        assert_eq!(rule(build(&builder, &known)), Rule::StateUnknown);
    }

    #[test]
    fn pointers_lead_to_so_many_states_and_to_no_more() {
        let to = |number| Pointer::Static(reference(number));
        let follow = |length: u32| {
            let further = |number| if number < length { vec![to(number + 1)] } else { vec![] };
            let known = Known((1..=length).map(|number| (to(number), (input(number), further(number)))).collect());
            let mut builder = TransactionBuilder::new(None);
            builder.output(OutputDraft { pointers: vec![to(1)], ..draft(0) }).unwrap();
            builder.follow(&known).map(|()| builder.references().len())
        };
        let most = u32::try_from(MAX_POINTED).unwrap();
        assert_eq!(follow(most), Ok(MAX_POINTED));
        assert_eq!(rule(follow(most + 1)), Rule::BuilderInvalid);
    }
}
