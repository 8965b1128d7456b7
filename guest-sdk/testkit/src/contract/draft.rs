//! A transaction that is put together, judged, and changed.

use std::sync::Arc;

use maxhost_contract::{
    CommandSet, ContractId, HasKey, Hash, PublicKey, RawCommand, RawCommandValue, RawInput, RawState, RawTransaction,
    Rejection, SchemaId, State, StateRef, TimeWindow, Timestamp, decode, encode,
};

use super::ledger::{Inner, fail};
use super::mutation::Mutations;

/// A transaction that is not committed yet. A fork is independent of what it was forked from.
#[derive(Clone)]
pub struct Draft {
    ledger: Arc<Inner>,
    pub(super) raw: RawTransaction,
}

impl Draft {
    pub(super) fn new(ledger: Arc<Inner>) -> Draft {
        let raw = RawTransaction {
            id: ledger.next_id(),
            inputs: Vec::new(),
            references: Vec::new(),
            outputs: Vec::new(),
            commands: Vec::new(),
            attachments: Vec::new(),
            notary: Some(ledger.notary.clone()),
            time_window: None,
            parameters: None,
        };
        Draft { ledger, raw }
    }

    /// The same transaction, to be changed in another way.
    #[must_use]
    pub fn fork(&self) -> Draft {
        let mut fork = self.clone();
        fork.raw.id = self.ledger.next_id();
        fork
    }

    /// Consumes a state.
    #[must_use]
    pub fn input<S: State>(mut self, state: &Committed<S>) -> Draft {
        self.raw.inputs.push(RawInput { reference: state.reference, state: self.raw_state(&state.state) });
        self
    }

    /// Looks at a state.
    #[must_use]
    pub fn reference<S: State>(mut self, state: &Committed<S>) -> Draft {
        self.raw.references.push(RawInput { reference: state.reference, state: self.raw_state(&state.state) });
        self
    }

    /// Makes a state.
    #[must_use]
    pub fn output<S: State>(mut self, state: &S) -> Draft {
        self.raw.outputs.push(self.raw_state(state));
        self
    }

    /// Consumes a state and makes it anew with a change.
    #[must_use]
    pub fn evolve<S: State>(self, state: &Committed<S>, change: impl FnOnce(&mut S)) -> Draft {
        let mut changed = state.state.clone();
        change(&mut changed);
        self.input(state).output(&changed)
    }

    /// Does something, signed by these. It speaks to the contract of the code under test; if there are several, to the one
    /// that has such commands.
    #[must_use]
    #[track_caller]
    pub fn command<C: CommandSet, P: HasKey>(self, command: &C, signers: impl IntoIterator<Item = P>) -> Draft {
        let fits = self.ledger.code.contracts.iter().find(|contract| contract.commands == C::NAMES);
        let Some(contract) = fits.map(|contract| contract.name) else {
            fail("no contract of the code under test has these commands: name it with command_to")
        };
        self.command_to(contract, command, signers)
    }

    /// Does something with states of a contract by its name.
    #[must_use]
    #[track_caller]
    pub fn command_to<C: CommandSet, P: HasKey>(
        mut self,
        contract: &str,
        command: &C,
        signers: impl IntoIterator<Item = P>,
    ) -> Draft {
        let value = command.encode().unwrap_or_else(|error| fail(&format!("the command cannot be written: {error}")));
        self.raw.commands.push(RawCommand {
            command: RawCommandValue {
                contract: self.ledger.contract(contract),
                name: command.name().to_owned(),
                value,
            },
            signers: keys(signers),
        });
        self
    }

    /// Lets these sign the last command instead of those who did.
    #[must_use]
    pub fn signers<P: HasKey>(mut self, signers: impl IntoIterator<Item = P>) -> Draft {
        if let Some(last) = self.raw.commands.last_mut() {
            last.signers = keys(signers);
        }
        self
    }

    /// It may be notarised before this point only.
    #[must_use]
    pub fn until(mut self, time: Timestamp) -> Draft {
        self.window().until = Some(time);
        self
    }

    /// It may be notarised from this point on only.
    #[must_use]
    pub fn from(mut self, time: Timestamp) -> Draft {
        self.window().from = Some(time);
        self
    }

    fn window(&mut self) -> &mut TimeWindow {
        self.raw.time_window.get_or_insert(TimeWindow { from: None, until: None })
    }

    /// Changes anything, as the host would see it.
    #[must_use]
    pub fn edit(mut self, change: impl FnOnce(&mut RawTransaction)) -> Draft {
        change(&mut self.raw);
        self
    }

    /// Changes the data of an output of this type.
    #[must_use]
    #[track_caller]
    pub fn edit_output<S: State>(mut self, index: usize, change: impl FnOnce(&mut S)) -> Draft {
        let Some(output) = self.raw.outputs.get_mut(index) else { fail(&format!("there is no output {index}")) };
        let mut state: S =
            decode(&output.data).unwrap_or_else(|error| fail(&format!("output {index} is of another type: {error}")));
        change(&mut state);
        output.data = encode(&state).unwrap_or_else(|error| fail(&format!("the state cannot be written: {error}")));
        self
    }

    /// What the contracts say: `None` if they accept it.
    #[must_use]
    pub fn rejection(&self) -> Option<Rejection> {
        self.ledger.judge(&self.raw).rejection
    }

    /// The contracts accept it.
    ///
    /// # Panics
    /// If one does not, or none was asked.
    #[track_caller]
    pub fn verifies(&self) -> Verified {
        let judged = self.ledger.judge(&self.raw);
        if judged.asked == 0 {
            fail("no contract of the code under test was asked: it has neither inputs nor outputs of theirs");
        }
        match judged.rejection {
            None => Verified { fuel_share: judged.fuel_share },
            Some(rejection) => fail(&format!("the transaction is refused: {rejection}")),
        }
    }

    /// A contract refuses it with this fault: `fails_with(Fault::OverPaid)`, or by its code.
    ///
    /// # Panics
    /// If all accept it, or the fault is another.
    #[track_caller]
    pub fn fails_with(&self, fault: impl Into<Rejection>) {
        let wanted = fault.into();
        match self.rejection() {
            Some(rejection) if rejection.code() == wanted.code() => {}
            Some(other) => {
                fail(&format!("the transaction should be refused with {}, and is with {other}", wanted.code()))
            }
            None => fail(&format!("the transaction should be refused with {}, and is accepted", wanted.code())),
        }
    }

    /// Judges it; its outputs can be spent from here on.
    ///
    /// # Panics
    /// As [`Draft::verifies`].
    #[track_caller]
    pub fn commit(&self) -> Outputs {
        self.verifies();
        Outputs { tx: self.raw.id, states: self.raw.outputs.clone() }
    }

    /// The same transaction with one thing changed, in every way that there is.
    #[must_use]
    pub fn mutations(&self) -> Mutations {
        Mutations::of(self)
    }

    fn raw_state<S: State>(&self, state: &S) -> RawState {
        let contract: ContractId = self.ledger.contract(S::CONTRACT);
        RawState {
            contract,
            type_name: S::NAME.to_owned(),
            // Contracts never look at the hash: the host has compared it.
            schema: SchemaId { version: S::VERSION, hash: Hash([0; 32]) },
            code_version: self.ledger.code.code_version,
            data: encode(state).unwrap_or_else(|error| fail(&format!("the state cannot be written: {error}"))),
            notary: self.ledger.notary.clone(),
            encumbrance: None,
        }
    }
}

fn keys<P: HasKey>(signers: impl IntoIterator<Item = P>) -> Vec<PublicKey> {
    signers.into_iter().map(|signer| signer.key().clone()).collect()
}

/// A transaction that was accepted.
#[derive(Debug, Clone, Copy)]
pub struct Verified {
    fuel_share: f64,
}

impl Verified {
    /// The contract that used most used less than this share of the network's fuel.
    ///
    /// # Panics
    /// If it used more.
    #[track_caller]
    pub fn fuel_share_below(self, share: f64) {
        if self.fuel_share >= share {
            fail(&format!("a contract used {:.4} of the fuel, and {share} is the bound", self.fuel_share));
        }
    }

    /// The share of the network's fuel that the contract used which used most; 0 if it was judged natively only.
    #[must_use]
    pub fn fuel_share(self) -> f64 {
        self.fuel_share
    }
}

/// The outputs of a transaction that was committed.
#[derive(Debug, Clone)]
pub struct Outputs {
    tx: Hash,
    states: Vec<RawState>,
}

/// A state that can be spent.
#[derive(Debug, Clone)]
pub struct Committed<S> {
    /// Where it was made.
    pub reference: StateRef,
    /// The state.
    pub state: S,
}

impl Outputs {
    /// The outputs of a type, in order.
    ///
    /// # Panics
    /// If the data of one are not of the type.
    #[must_use]
    #[track_caller]
    pub fn all<S: State>(&self) -> Vec<Committed<S>> {
        let numbered = (0_u32..).zip(&self.states);
        let own = numbered.filter(|(_, state)| state.contract.name == S::CONTRACT && state.type_name == S::NAME);
        own.map(|(index, state)| Committed {
            reference: StateRef { tx: self.tx, index },
            state: decode(&state.data).unwrap_or_else(|error| fail(&format!("output {index}: {error}"))),
        })
        .collect()
    }

    /// The only output of a type.
    ///
    /// # Panics
    /// If there are none or several.
    #[must_use]
    #[track_caller]
    pub fn only<S: State>(&self) -> Committed<S> {
        let mut all = self.all::<S>();
        match (all.pop(), all.len()) {
            (Some(one), 0) => one,
            (_, others) => fail(&format!("there is not exactly one {}/{}, but {}", S::CONTRACT, S::NAME, others)),
        }
    }
}
