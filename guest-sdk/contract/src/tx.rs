//! The transaction as a rule reads it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::{
    ContractId, HasKey, Hash, Many, Party, PublicKey, RawCommand, RawState, RawTransaction, Rejection, State,
    StatePointer, StateRef, TimeWindow, Verdict, data,
};

/// A transaction, as one command of one contract sees it. States of a type are asked for by the type: `tx.inputs::<Iou>()`.
/// Types of another contract of the same publisher can be asked for too; their own contract judges them.
#[derive(Debug, Clone, Copy)]
pub struct Tx<'a> {
    raw: &'a RawTransaction,
    contract: &'a ContractId,
    signers: &'a [PublicKey],
}

impl<'a> Tx<'a> {
    pub(crate) fn new(raw: &'a RawTransaction, contract: &'a ContractId, signers: &'a [PublicKey]) -> Tx<'a> {
        Tx { raw, contract, signers }
    }

    /// The id of the transaction.
    #[must_use]
    pub fn id(&self) -> Hash {
        self.raw.id
    }

    /// The contract that judges.
    #[must_use]
    pub fn contract(&self) -> &'a ContractId {
        self.contract
    }

    /// The notary.
    #[must_use]
    pub fn notary(&self) -> Option<&'a Party> {
        self.raw.notary.as_ref()
    }

    /// When it may be notarised; nothing else is known of time.
    #[must_use]
    pub fn time_window(&self) -> Option<TimeWindow> {
        self.raw.time_window
    }

    /// Everything, as the host gave it.
    #[must_use]
    pub fn raw(&self) -> &'a RawTransaction {
        self.raw
    }

    /// The commands to this contract.
    pub fn own_commands(&self) -> impl Iterator<Item = &'a RawCommand> + use<'a> {
        let contract = self.contract;
        self.raw.commands.iter().filter(move |one| one.command.contract == *contract)
    }

    /// The states of a type that are consumed, in order.
    ///
    /// # Errors
    /// `tx/state-malformed` if the data of one are not of the type.
    pub fn inputs<S: State>(&self) -> Result<Many<S>, Rejection> {
        self.typed("input", self.raw.inputs.iter().map(|input| &input.state))
    }

    /// The states of a type that are made, in order.
    ///
    /// # Errors
    /// `tx/state-malformed`.
    pub fn outputs<S: State>(&self) -> Result<Many<S>, Rejection> {
        self.typed("output", self.raw.outputs.iter())
    }

    /// The states of a type that are made and that nothing encumbers, in order: they can be spent alone.
    ///
    /// # Errors
    /// `tx/state-malformed`.
    pub fn free_outputs<S: State>(&self) -> Result<Many<S>, Rejection> {
        self.typed("free output", self.raw.outputs.iter().filter(|output| output.encumbrance.is_none()))
    }

    /// The states of a type that are looked at, in order.
    ///
    /// # Errors
    /// `tx/state-malformed`.
    pub fn references<S: State>(&self) -> Result<Many<S>, Rejection> {
        self.typed("reference", self.raw.references.iter().map(|input| &input.state))
    }

    /// The states of a type that are consumed, with their references.
    ///
    /// # Errors
    /// `tx/state-malformed`.
    pub fn inputs_with_refs<S: State>(&self) -> Result<Many<(StateRef, S)>, Rejection> {
        let own = self.raw.inputs.iter().filter(|input| self.is::<S>(&input.state));
        let read = own.map(|input| read::<S>(&input.state).map(|state| (input.reference, state)));
        Ok(Many::new("input", read.collect::<Result<_, _>>()?))
    }

    /// The state that a pointer leads to, among those that are looked at.
    ///
    /// # Errors
    /// `tx/pointer-unresolved` unless exactly one of them is it, `tx/state-malformed`.
    pub fn resolve<P: StatePointer>(&self, pointer: &P) -> Result<P::State, Rejection> {
        let mut found = Vec::new();
        for input in self.raw.references.iter().filter(|input| self.is::<P::State>(&input.state)) {
            let state: P::State = read(&input.state)?;
            if pointer.points_to(&input.reference, &state) {
                found.push(state);
            }
        }
        let count = found.len();
        found.pop().filter(|_| count == 1).ok_or_else(|| {
            let (contract, name) = (P::State::CONTRACT, P::State::NAME);
            let message = format!("a pointer leads to {count} references of type {contract}/{name}, and not to one");
            Rejection::with_text("tx/pointer-unresolved", message)
        })
    }

    fn typed<'s, S: State>(
        &self,
        what: &'static str,
        states: impl Iterator<Item = &'s RawState>,
    ) -> Result<Many<S>, Rejection> {
        let found = states.filter(|state| self.is::<S>(state)).map(read::<S>).collect::<Result<_, _>>()?;
        Ok(Many::new(what, found))
    }

    fn is<S: State>(&self, state: &RawState) -> bool {
        state.type_name == S::NAME
            && state.contract.name == S::CONTRACT
            && state.contract.publisher == self.contract.publisher
    }

    /// No state of this type is consumed.
    ///
    /// # Errors
    /// `tx/has-inputs`.
    pub fn no_inputs<S: State>(&self) -> Verdict {
        self.none_of::<S>("tx/has-inputs", "consumed", self.raw.inputs.iter().map(|input| &input.state))
    }

    /// No state of this type is made.
    ///
    /// # Errors
    /// `tx/has-outputs`.
    pub fn no_outputs<S: State>(&self) -> Verdict {
        self.none_of::<S>("tx/has-outputs", "made", self.raw.outputs.iter())
    }

    fn none_of<'s, S: State>(
        &self,
        code: &'static str,
        what: &str,
        states: impl Iterator<Item = &'s RawState>,
    ) -> Verdict {
        match states.filter(|state| self.is::<S>(state)).count() {
            0 => Ok(()),
            count => {
                let message = format!("no {}/{} may be {what}, and there are {count}", S::CONTRACT, S::NAME);
                Err(Rejection::with_text(code, message))
            }
        }
    }

    /// What becomes of the states of a type: each that is consumed, with the one of the same linear id that is made.
    ///
    /// # Errors
    /// `tx/left-over` if one has no partner, `tx/linear-id-twice` if two have the same id, `tx/state-malformed`.
    pub fn evolved<S: State>(&self) -> Result<Evolved<S>, Rejection> {
        let mut outputs = self.outputs::<S>()?.into_vec();
        let mut pairs = Vec::new();
        let left_over = |side: &str| {
            let message = format!("an {side} of type {}/{} has no partner of its linear id", S::CONTRACT, S::NAME);
            Rejection::with_text("tx/left-over", message)
        };
        let inputs = self.inputs::<S>()?.into_vec();
        let twice = |states: &[S]| {
            let mut ids: Vec<_> = states.iter().map(S::linear_id).collect();
            ids.sort_unstable();
            ids.windows(2).any(|two| two.first() == two.last())
        };
        if twice(&inputs) || twice(&outputs) {
            return Err(Rejection::new("tx/linear-id-twice", "two states have the same linear id, or none"));
        }
        for old in inputs {
            let partner = outputs.iter().position(|new| new.linear_id() == old.linear_id());
            pairs.push((old, outputs.swap_remove(partner.ok_or_else(|| left_over("input"))?)));
        }
        if outputs.is_empty() { Ok(Evolved(Many::new("pair of states", pairs))) } else { Err(left_over("output")) }
    }

    /// The states of a type by something that they have in common: each is in exactly one group.
    ///
    /// # Errors
    /// `tx/state-malformed`.
    pub fn groups<S: State, K: Ord>(&self, key: impl Fn(&S) -> K) -> Result<Vec<Group<K, S>>, Rejection> {
        let mut groups: Vec<Group<K, S>> = Vec::new();
        let mut place = |state: S, is_input: bool| {
            let key = key(&state);
            let at = groups.binary_search_by(|group| group.key.cmp(&key)).unwrap_or_else(|at| {
                groups.insert(at, Group { key, inputs: Vec::new(), outputs: Vec::new() });
                at
            });
            if let Some(group) = groups.get_mut(at) {
                if is_input { group.inputs.push(state) } else { group.outputs.push(state) }
            }
        };
        self.inputs::<S>()?.into_iter().for_each(|state| place(state, true));
        self.outputs::<S>()?.into_iter().for_each(|state| place(state, false));
        Ok(groups)
    }

    /// All of these must sign: their keys are among the signers of the command that is judged.
    ///
    /// # Errors
    /// `tx/missing-signer`, with the first that is missing.
    pub fn signed_by<P: HasKey>(&self, parties: impl IntoIterator<Item = P>) -> Verdict {
        for party in parties {
            if !self.signers.contains(party.key()) {
                let message = match party.name() {
                    Some(name) => format!("{name} must sign"),
                    None => format!("{} must sign", party.key()),
                };
                return Err(Rejection::with_text("tx/missing-signer", message));
            }
        }
        Ok(())
    }

    /// The keys that sign for the command that is judged.
    #[must_use]
    pub fn signers(&self) -> &'a [PublicKey] {
        self.signers
    }

    /// Two states differ in these fields only: `tx.same_except(&old, &new, &[Iou::OWED])`.
    ///
    /// # Errors
    /// `tx/field-changed`, with the fields that may not change.
    pub fn same_except<S: State>(&self, old: &S, new: &S, fields: &[&str]) -> Verdict {
        let changed: Vec<&str> =
            old.differing_fields(new).into_iter().filter(|field| !fields.contains(field)).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let message = format!("{}/{}: {} may not change", S::CONTRACT, S::NAME, changed.join(", "));
        Err(Rejection::with_text("tx/field-changed", message))
    }

    /// The time-window; there must be one.
    ///
    /// # Errors
    /// `tx/no-time-window`.
    pub fn needs_time_window(&self) -> Result<TimeWindow, Rejection> {
        self.raw.time_window.ok_or_else(|| Rejection::new("tx/no-time-window", "the transaction needs a time-window"))
    }
}

fn read<S: State>(state: &RawState) -> Result<S, Rejection> {
    data::decode(&state.data).map_err(|error| {
        let message: String = format!("the data of a state of type {}/{}: {error}", S::CONTRACT, S::NAME);
        Rejection::with_text("tx/state-malformed", message)
    })
}

/// States with what became of them.
#[derive(Debug, Clone)]
pub struct Evolved<S>(Many<(S, S)>);

impl<S> Evolved<S> {
    /// The only pair: old and new.
    ///
    /// # Errors
    /// `tx/not-one`.
    pub fn only(self) -> Result<(S, S), Rejection> {
        self.0.only()
    }

    /// All pairs.
    #[must_use]
    pub fn into_vec(self) -> Vec<(S, S)> {
        self.0.into_vec()
    }
}

/// States that have something in common.
#[derive(Debug, Clone)]
pub struct Group<K, S> {
    /// What they have in common.
    pub key: K,
    /// Those that are consumed.
    pub inputs: Vec<S>,
    /// Those that are made.
    pub outputs: Vec<S>,
}
