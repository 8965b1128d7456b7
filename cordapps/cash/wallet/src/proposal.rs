//! What a peer proposes to sign. A signature covers all that a transaction does with the states of its key, so whoever signs looks
//! at all of it.

use cash_contract::{Cash, Command as CashCommand};
use maxhost_contract::{
    CommandSet, ContractId, PublicKey, RawCommand, RawCommandValue, RawState, RawTransaction, State, StateRef,
};
use maxhost_sdk::ledger::Transaction;
use maxhost_sdk::prelude::*;

use crate::thrown;

/// A transaction that changes states of one type by one command, and beside it moves cash: nothing else is in it.
#[derive(Debug)]
pub struct Proposal<S> {
    /// What is done with the states.
    pub command: RawCommandValue,
    /// Those that are consumed.
    pub before: Vec<(StateRef, S)>,
    /// Those that are made.
    pub after: Vec<S>,
    /// The cash that is consumed.
    pub spent: Vec<Cash>,
    /// The cash that is made.
    pub paid: Vec<Cash>,
    /// Who must sign for the cash.
    cash_signers: Vec<PublicKey>,
}

/// What is refused before anything is signed.
fn unexpected(text: &str) -> Error {
    thrown("cash/unexpected-proposal", text)
}

/// States of one type with where they were made, and cash.
type Sorted<S> = (Vec<(StateRef, S)>, Vec<Cash>);

/// States of one type and cash, in their order.
fn sorted<'a, S: State>(
    publisher: Option<&PublicKey>,
    states: impl Iterator<Item = (StateRef, &'a RawState)>,
) -> Result<Sorted<S>> {
    let (mut own, mut cash) = (Vec::new(), Vec::new());
    let unreadable = |error: maxhost_contract::CborError| unexpected(&format!("the data of a state: {error}"));
    for (reference, state) in states {
        let ContractId { publisher: whose, name } = &state.contract;
        if whose.as_ref() != publisher {
            return Err(unexpected(&format!("'{name}' is another publisher's contract")));
        }
        match (name.as_str(), state.type_name.as_str()) {
            (contract, of_type) if contract == S::CONTRACT && of_type == S::NAME => {
                own.push((reference, maxhost_contract::decode(&state.data).map_err(unreadable)?));
            }
            (contract, of_type) if contract == Cash::CONTRACT && of_type == Cash::NAME => {
                cash.push(maxhost_contract::decode(&state.data).map_err(unreadable)?);
            }
            (contract, of_type) => return Err(unexpected(&format!("there is a state {contract}/{of_type} in it"))),
        }
    }
    Ok((own, cash))
}

/// Who must sign for cash, after it is clear that it is only moved.
fn signers_of_moves(commands: &[&RawCommand], publisher: Option<&PublicKey>) -> Result<Vec<PublicKey>> {
    let mut signers = Vec::new();
    for RawCommand { command, signers: keys } in commands {
        let is_move = command.name == CashCommand::Move.name();
        if command.contract.name != Cash::CONTRACT || command.contract.publisher.as_ref() != publisher || !is_move {
            let text = format!("a signature is asked for '{} {}'", command.contract.name, command.name);
            return Err(unexpected(&text));
        }
        signers.extend(keys.iter().cloned());
    }
    Ok(signers)
}

impl<S: State> Proposal<S> {
    /// What a peer proposes to sign.
    ///
    /// # Errors
    /// `cash/unexpected-proposal` if there is anything else in it: another command or type of state, a state that is looked at, or
    /// one that can only be spent together with another.
    pub fn of(proposed: &Transaction) -> Result<Proposal<S>> {
        let raw = maxhost_contract::decode(proposed.view()).map_err(|error| Error::unexpected(error.to_string()))?;
        Proposal::read(&raw)
    }

    /// As [`Proposal::of`].
    ///
    /// # Errors
    /// As there.
    pub fn read(raw: &RawTransaction) -> Result<Proposal<S>> {
        let (own, others): (Vec<&RawCommand>, Vec<&RawCommand>) =
            raw.commands.iter().partition(|command| command.command.contract.name == S::CONTRACT);
        let [RawCommand { command, .. }] = own.as_slice() else {
            return Err(unexpected(&format!("one command of '{}' was expected, not {}", S::CONTRACT, own.len())));
        };
        let publisher = command.contract.publisher.as_ref();
        let states = raw.inputs.iter().map(|input| &input.state).chain(&raw.outputs);
        if !raw.references.is_empty() || states.into_iter().any(|state| state.encumbrance.is_some()) {
            return Err(unexpected("a state is looked at, or can only be spent together with another"));
        }
        let (before, spent) = sorted(publisher, raw.inputs.iter().map(|input| (input.reference, &input.state)))?;
        let made = |(index, state)| (StateRef { tx: raw.id, index }, state);
        let (after, paid) = sorted(publisher, (0..).zip(&raw.outputs).map(made))?;
        Ok(Proposal {
            command: command.clone(),
            before,
            after: after.into_iter().map(|(_, state)| state).collect(),
            spent,
            paid,
            cash_signers: signers_of_moves(&others, publisher)?,
        })
    }

    /// That no cash of these keys is consumed, and none of them must sign for any.
    ///
    /// # Errors
    /// `cash/unexpected-proposal`.
    pub fn spends_nothing_of(&self, keys: &[&PublicKey]) -> Result<()> {
        let owners = self.spent.iter().map(|cash| &cash.owner.owning_key);
        if owners.chain(&self.cash_signers).any(|key| keys.contains(&key)) {
            return Err(unexpected("own cash would be spent"));
        }
        Ok(())
    }

    /// The cash of a currency that a key gets.
    pub fn paid_to<'a>(&'a self, payee: &'a PublicKey, currency: &'a str) -> impl Iterator<Item = &'a Cash> {
        self.paid.iter().filter(move |cash| cash.owner.owning_key == *payee && cash.currency == currency)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use iou_contract::{Code, Command, Iou};
    use maxhost_contract::{Hash, Party as LedgerParty};
    use maxhost_testkit::contract::{Committed, Draft, TestLedger};

    use super::*;

    struct World {
        ledger: TestLedger,
        lender: LedgerParty,
        borrower: LedgerParty,
        iou: Committed<Iou>,
    }

    fn world() -> World {
        let mut ledger = TestLedger::native::<Code>();
        let [lender, borrower] = ledger.parties(["Lender", "Borrower"]);
        let state = Iou {
            id: ledger.linear_id(),
            lender: lender.clone(),
            borrower: borrower.clone(),
            quantity: 50,
            currency: "GBP".to_owned(),
            paid: 0,
            due: None,
        };
        let iou = Committed { reference: StateRef { tx: Hash([5; 32]), index: 0 }, state };
        World { ledger, lender, borrower, iou }
    }

    impl World {
        fn note(&self, owner: &LedgerParty) -> Committed<Cash> {
            let (currency, issuer) = ("GBP".to_owned(), self.lender.clone());
            let state = Cash { owner: owner.into(), quantity: 50, currency, issuer };
            Committed { reference: StateRef { tx: Hash([6; 32]), index: 0 }, state }
        }

        fn settlement(&self) -> Draft {
            let note = self.note(&self.borrower);
            let draft = self.ledger.draft().input(&self.iou).input(&note).output(&self.note(&self.lender).state);
            draft.command(&Command::Settle { quantity: 50 }, [&self.borrower, &self.lender]).command_to(
                "cash",
                &CashCommand::Move,
                [&self.borrower],
            )
        }
    }

    fn raw(draft: &Draft) -> RawTransaction {
        let mut seen = None;
        let _same = draft.fork().edit(|raw| seen = Some(raw.clone()));
        seen.unwrap()
    }

    fn read(draft: &Draft) -> Result<Proposal<Iou>> {
        Proposal::read(&raw(draft))
    }

    fn is_refused<T>(result: Result<T>) -> bool {
        result.is_err_and(|error| crate::is(&error, "cash/unexpected-proposal"))
    }

    #[test]
    fn a_proposal_has_all_that_a_signature_covers() -> Result<()> {
        let world = world();
        let proposal = read(&world.settlement())?;
        assert_eq!((proposal.before.len(), proposal.after.len()), (1, 0));
        assert_eq!((proposal.spent.len(), proposal.paid.len()), (1, 1));
        assert_eq!(proposal.command.name, "Settle");
        let (lender, borrower) = (&world.lender.owning_key, &world.borrower.owning_key);
        proposal.spends_nothing_of(&[lender])?;
        assert!(is_refused(proposal.spends_nothing_of(&[lender, borrower])));
        assert_eq!(proposal.paid_to(lender, "GBP").count(), 1);
        assert_eq!(proposal.paid_to(lender, "EUR").count() + proposal.paid_to(borrower, "GBP").count(), 0);
        Ok(())
    }

    #[test]
    fn nothing_else_may_be_in_a_proposal() {
        let world = world();
        let (settlement, lenders) = (world.settlement(), world.note(&world.lender));
        let edited = |change: &dyn Fn(&mut RawTransaction)| read(&settlement.fork().edit(change));
        assert!(edited(&|_| {}).is_ok());
        assert!(is_refused(edited(&|raw| raw.commands.push(raw.commands[0].clone()))));
        assert!(is_refused(edited(&|raw| drop(raw.commands.remove(0)))));
        assert!(is_refused(edited(&|raw| raw.commands[1].command.name = "Exit".to_owned())));
        assert!(is_refused(edited(&|raw| raw.commands[1].command.contract.name = "other".to_owned())));
        assert!(is_refused(edited(&|raw| raw.commands[1].command.contract.publisher = None)));
        assert!(is_refused(edited(&|raw| raw.inputs[1].state.contract.name = "other".to_owned())));
        assert!(is_refused(edited(&|raw| raw.inputs[1].state.type_name = "Other".to_owned())));
        assert!(is_refused(edited(&|raw| raw.outputs[0].contract.publisher = None)));
        assert!(is_refused(edited(&|raw| raw.outputs[0].data = vec![0])));
        assert!(is_refused(edited(&|raw| raw.outputs[0].encumbrance = Some(1))));
        assert!(is_refused(read(&settlement.fork().reference(&lenders))));
        // Cash of whoever is asked to sign, and a signature of his for cash.
        let key = &world.lender.owning_key;
        let with_his = read(&settlement.fork().input(&lenders)).and_then(|all| all.spends_nothing_of(&[key]));
        assert!(is_refused(with_his));
        let signed = settlement.fork().signers([&world.borrower, &world.lender]);
        assert!(is_refused(read(&signed).and_then(|all| all.spends_nothing_of(&[key]))));
    }
}
