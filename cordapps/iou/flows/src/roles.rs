//! What each side agrees to. The contract says which changes of debts are right, and not whether this identity wants them: a lender
//! who signs an issue has not agreed to pass on another claim of his.

use cash_contract::Cash;
use cash_wallet::{Proposal, thrown};
use iou_contract::{Command, Iou};
use maxhost_contract::{CommandSet, Party as LedgerParty};
use maxhost_sdk::prelude::*;

/// The two sides of a session, as the network knows them.
pub struct Sides {
    /// This identity.
    pub us: LedgerParty,
    /// The other.
    pub peer: LedgerParty,
}

impl Sides {
    fn is_us(&self, party: &LedgerParty) -> bool {
        is_same(&self.us, party)
    }

    fn is_peer(&self, party: &LedgerParty) -> bool {
        is_same(&self.peer, party)
    }
}

/// Parties are equal when their keys are. Here the name counts too: states are found by it.
fn is_same(one: &LedgerParty, other: &LedgerParty) -> bool {
    one == other && one.name == other.name
}

fn unexpected(text: &str) -> Error {
    thrown("iou/unexpected-proposal", text)
}

fn command(proposal: &Proposal<Iou>) -> Result<Command> {
    let decoded = Command::decode(&proposal.command.name, &proposal.command.value);
    decoded.map_err(|rejection| unexpected(&rejection.to_string()))
}

/// This identity lends to the other side: one new debt, and nothing else changes.
///
/// # Errors
/// `iou/unexpected-proposal`.
pub fn lends<'a>(proposal: &'a Proposal<Iou>, sides: &Sides) -> Result<&'a Iou> {
    let Command::Issue = command(proposal)? else { return Err(unexpected("a new debt was expected")) };
    let [iou] = proposal.after.as_slice() else { return Err(unexpected("one new debt was expected")) };
    let changes_nothing = proposal.before.is_empty() && proposal.spent.is_empty() && proposal.paid.is_empty();
    if !changes_nothing || !sides.is_us(&iou.lender) || !sides.is_peer(&iou.borrower) {
        return Err(unexpected("a debt of the other side to this identity was expected, and nothing beside it"));
    }
    Ok(iou)
}

/// The other side passes a claim of its own on to this identity, and nothing else changes. Gives the debt as it is then.
///
/// # Errors
/// `iou/unexpected-proposal`.
pub fn takes_claim<'a>(proposal: &'a Proposal<Iou>, sides: &Sides) -> Result<&'a Iou> {
    let Command::Transfer = command(proposal)? else { return Err(unexpected("a claim was expected")) };
    let ([(_, old)], [new]) = (proposal.before.as_slice(), proposal.after.as_slice()) else {
        return Err(unexpected("one claim was expected"));
    };
    let moves_no_cash = proposal.spent.is_empty() && proposal.paid.is_empty();
    if !moves_no_cash || !sides.is_peer(&old.lender) || !sides.is_us(&new.lender) {
        return Err(unexpected("a claim of the other side's for this identity was expected, and nothing beside it"));
    }
    Ok(new)
}

/// The other side pays this identity back. Gives the cash that it gets. A debt is not paid with money that the borrower owes
/// himself: that is another debt of his.
///
/// # Errors
/// `iou/unexpected-proposal`, `iou/paid-with-debt`, `cash/unexpected-proposal` if own cash would be spent.
pub fn is_paid<'a>(proposal: &'a Proposal<Iou>, sides: &'a Sides) -> Result<Vec<&'a Cash>> {
    let Command::Settle { quantity } = command(proposal)? else { return Err(unexpected("a payment was expected")) };
    let [(_, old)] = proposal.before.as_slice() else { return Err(unexpected("one debt is paid at a time")) };
    let are_ours = |iou: &Iou| sides.is_us(&iou.lender) && sides.is_peer(&iou.borrower);
    if !are_ours(old) || !proposal.after.iter().all(are_ours) {
        return Err(unexpected("a debt of the other side to this identity was expected"));
    }
    proposal.spends_nothing_of(&[&sides.us.owning_key])?;
    let paid: Vec<&Cash> = proposal.paid_to(&sides.us.owning_key, &old.currency).collect();
    if let Some(own) = paid.iter().find(|cash| !is_accepted(cash, &sides.peer)) {
        let text = format!("{} pays with cash that {} owes: that is a debt too", sides.peer, own.issuer);
        return Err(thrown("iou/paid-with-debt", &text));
    }
    let sum: u128 = paid.iter().map(|cash| u128::from(cash.quantity)).sum();
    if sum != u128::from(quantity) {
        return Err(unexpected(&format!("{sum} are paid, and not {quantity}")));
    }
    Ok(paid)
}

/// Whether a lender takes this cash from a borrower: anybody's but the borrower's own.
pub fn is_accepted(cash: &Cash, borrower: &LedgerParty) -> bool {
    cash.issuer != *borrower && cash.issuer.name != borrower.name
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use cash_contract::Command as CashCommand;
    use iou_contract::Code;
    use maxhost_contract::{Hash, RawTransaction, StateRef};
    use maxhost_testkit::contract::{Committed, Draft, TestLedger};

    use super::*;

    struct World {
        ledger: TestLedger,
        lender: LedgerParty,
        borrower: LedgerParty,
        other: LedgerParty,
        bank: LedgerParty,
        iou: Committed<Iou>,
    }

    fn world() -> World {
        let mut ledger = TestLedger::native::<Code>();
        let [lender, borrower, other, bank] = ledger.parties(["Lender", "Borrower", "Other", "Bank"]);
        let state = Iou {
            id: ledger.linear_id(),
            lender: lender.clone(),
            borrower: borrower.clone(),
            quantity: 100,
            currency: "GBP".to_owned(),
            paid: 0,
            due: None,
        };
        let iou = Committed { reference: StateRef { tx: Hash([5; 32]), index: 0 }, state };
        World { ledger, lender, borrower, other, bank, iou }
    }

    impl World {
        fn issue(&self) -> Draft {
            self.ledger.draft().output(&self.iou.state).command(&Command::Issue, [&self.lender, &self.borrower])
        }

        fn transfer(&self) -> Draft {
            let to_other = |iou: &mut Iou| iou.lender = self.other.clone();
            self.ledger.draft().evolve(&self.iou, to_other).command(&Command::Transfer, [&self.lender, &self.other])
        }

        fn cash(&self, owner: &LedgerParty, quantity: u64, issuer: &LedgerParty) -> Committed<Cash> {
            let (currency, issuer) = ("GBP".to_owned(), issuer.clone());
            let state = Cash { owner: owner.into(), quantity, currency, issuer };
            Committed { reference: StateRef { tx: Hash([6; 32]), index: 0 }, state }
        }

        /// 40 are paid back, in two parts.
        fn settlement(&self) -> Draft {
            let (lender, borrower, bank) = (&self.lender, &self.borrower, &self.bank);
            let pay = self
                .ledger
                .draft()
                .evolve(&self.iou, |iou| iou.paid = 40)
                .input(&self.cash(borrower, 40, bank))
                .output(&self.cash(lender, 30, bank).state)
                .output(&self.cash(lender, 10, bank).state);
            pay.command_to("cash", &CashCommand::Move, [borrower])
                .command(&Command::Settle { quantity: 40 }, [borrower, lender])
        }
    }

    fn between(us: &LedgerParty, peer: &LedgerParty) -> Sides {
        Sides { us: us.clone(), peer: peer.clone() }
    }

    fn read(draft: &Draft) -> Proposal<Iou> {
        let mut seen: Option<RawTransaction> = None;
        let _same = draft.fork().edit(|raw| seen = Some(raw.clone()));
        Proposal::read(&seen.unwrap()).unwrap()
    }

    fn kind<T>(result: Result<T>) -> Option<String> {
        let error = result.err()?;
        error.flow_exception()?.exception_type().map(str::to_owned)
    }

    const UNEXPECTED: Option<&str> = Some("iou/unexpected-proposal");

    #[test]
    fn a_lender_signs_an_issue_to_himself_and_nothing_else() {
        let world = world();
        let World { lender, borrower, other, .. } = &world;
        let sides = between(lender, borrower);
        let refused = |draft: &Draft| kind(lends(&read(draft), &sides));
        assert_eq!(refused(&world.issue()), None);
        assert_eq!(refused(&world.transfer()).as_deref(), UNEXPECTED);
        assert_eq!(refused(&world.settlement()).as_deref(), UNEXPECTED);
        let consumes = world.issue().input(&world.iou);
        assert_eq!(refused(&consumes).as_deref(), UNEXPECTED);
        let with_cash = world.issue().output(&world.cash(other, 1, other).state);
        assert_eq!(refused(&with_cash).as_deref(), UNEXPECTED);
        let renamed = world.issue().edit_output::<Iou>(0, |iou| iou.borrower.name = other.name.clone());
        assert_eq!(refused(&renamed).as_deref(), UNEXPECTED);
        // Somebody else's debt, or one of one's own.
        for sides in [between(lender, other), between(borrower, lender)] {
            assert_eq!(kind(lends(&read(&world.issue()), &sides)).as_deref(), UNEXPECTED);
        }
    }

    #[test]
    fn a_claim_is_taken_from_whom_it_belongs_to() {
        let world = world();
        let World { lender, borrower, other, .. } = &world;
        let refused = |draft: &Draft, us, peer| kind(takes_claim(&read(draft), &between(us, peer)));
        assert_eq!(refused(&world.transfer(), other, lender), None);
        // The lender is not asked by the borrower to give his claim away.
        assert_eq!(refused(&world.transfer(), lender, borrower).as_deref(), UNEXPECTED);
        assert_eq!(refused(&world.transfer(), other, borrower).as_deref(), UNEXPECTED);
        assert_eq!(refused(&world.issue(), lender, borrower).as_deref(), UNEXPECTED);
        assert_eq!(refused(&world.settlement(), lender, borrower).as_deref(), UNEXPECTED);
        let with_cash = world.transfer().input(&world.cash(other, 1, lender));
        assert_eq!(refused(&with_cash, other, lender).as_deref(), UNEXPECTED);
    }

    #[test]
    fn a_lender_is_paid_with_money_that_is_not_the_borrowers_debt() {
        let world = world();
        let World { lender, borrower, other, bank, .. } = &world;
        let sides = between(lender, borrower);
        let refused = |draft: &Draft| kind(is_paid(&read(draft), &sides));
        let settlement = world.settlement();
        assert_eq!(refused(&settlement), None);
        let paid_by = |issuer: &LedgerParty| {
            refused(&settlement.fork().edit_output::<Cash>(2, |cash| cash.issuer = issuer.clone()))
        };
        assert_eq!(paid_by(lender), None);
        assert_eq!(paid_by(borrower).as_deref(), Some("iou/paid-with-debt"));
        let by_another_key = LedgerParty { name: borrower.name.clone(), owning_key: bank.owning_key.clone() };
        assert_eq!(paid_by(&by_another_key).as_deref(), Some("iou/paid-with-debt"));
        let less = settlement.fork().edit_output::<Cash>(2, |cash| cash.quantity = 9);
        assert_eq!(refused(&less).as_deref(), UNEXPECTED);
        let to_other = settlement.fork().edit_output::<Cash>(2, |cash| cash.owner = other.into());
        assert_eq!(refused(&to_other).as_deref(), UNEXPECTED);
        let renamed = settlement.fork().edit_output::<Iou>(0, |iou| iou.lender.name = other.name.clone());
        assert_eq!(refused(&renamed).as_deref(), UNEXPECTED);
        let own = settlement.fork().input(&world.cash(lender, 5, bank));
        assert_eq!(refused(&own).as_deref(), Some("cash/unexpected-proposal"));
        assert_eq!(refused(&world.transfer()).as_deref(), UNEXPECTED);
        assert_eq!(kind(is_paid(&read(&settlement), &between(other, borrower))).as_deref(), UNEXPECTED);
    }
}
