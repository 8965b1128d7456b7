//! The rules of debts, natively and in the component.
#![allow(clippy::unwrap_used, missing_docs)]

use cash_contract::{Cash, Command as CashCommand};
use iou_contract::{Code, Command, Fault, Iou};
use maxhost_contract::Party;
use maxhost_testkit::contract::{Committed, Mutation, TestLedger};

struct World {
    ledger: TestLedger,
    lender: Party,
    borrower: Party,
    other: Party,
    bank: Party,
}

fn world() -> World {
    let mut ledger = TestLedger::of::<Code>();
    let [lender, borrower, other, bank] = ledger.parties(["Lender", "Borrower", "Other", "Bank"]);
    World { ledger, lender, borrower, other, bank }
}

impl World {
    fn issued(&mut self) -> Committed<Iou> {
        let iou = Iou {
            id: self.ledger.linear_id(),
            lender: self.lender.clone(),
            borrower: self.borrower.clone(),
            quantity: 100,
            currency: "GBP".to_owned(),
            paid: 0,
            due: Some("2030-01-01T00:00:00Z".parse().unwrap()),
        };
        let issue = self.ledger.draft().output(&iou).command(&Command::Issue, [&self.lender, &self.borrower]);
        issue.commit().only::<Iou>()
    }

    /// Cash is another contract's to judge: here it is simply there.
    fn cash(&self, owner: &Party, quantity: u64) -> Cash {
        Cash { owner: owner.into(), quantity, currency: "GBP".to_owned(), issuer: self.bank.clone() }
    }

    fn note(&self, owner: &Party, quantity: u64) -> Committed<Cash> {
        let reference = maxhost_contract::StateRef { tx: maxhost_contract::Hash([5; 32]), index: 0 };
        Committed { reference, state: self.cash(owner, quantity) }
    }
}

#[test]
fn both_sign_an_issue() {
    let mut world = world();
    let iou = world.issued().state;
    let World { ledger, lender, borrower, .. } = &world;
    let issue = ledger.draft().output(&iou).command(&Command::Issue, [lender, borrower]);
    issue.verifies().fuel_share_below(0.005);
    issue.fork().signers([lender]).fails_with("tx/missing-signer");
    issue.fork().signers([borrower]).fails_with("tx/missing-signer");
    issue.fork().edit_output::<Iou>(0, |iou| iou.quantity = 0).fails_with(Fault::QuantityInvalid);
    issue.fork().edit_output::<Iou>(0, |iou| iou.paid = 1).fails_with(Fault::PaidAlready);
    issue.fork().edit_output::<Iou>(0, |iou| iou.borrower = lender.clone()).fails_with(Fault::OwedToOneself);
}

#[test]
fn a_claim_is_passed_on_by_the_lender_to_one_who_takes_it() {
    let mut world = world();
    let iou = world.issued();
    let World { ledger, lender, borrower, other, .. } = &world;
    let transfer =
        ledger.draft().evolve(&iou, |iou| iou.lender = other.clone()).command(&Command::Transfer, [lender, other]);
    transfer.verifies();
    transfer.fork().edit_output::<Iou>(0, |iou| iou.lender = lender.clone()).fails_with(Fault::NotTransferred);
    transfer.fork().edit_output::<Iou>(0, |iou| iou.lender = borrower.clone()).fails_with(Fault::OwedToOneself);
    transfer.fork().edit_output::<Iou>(0, |iou| iou.due = None).fails_with("tx/field-changed");
    transfer
        .mutations()
        .allow(|one| matches!(one, Mutation::ChangeOutput { field, .. } if field.ends_with(".name")))
        .all_rejected();
}

#[test]
fn a_debt_is_settled_in_cash_in_the_same_transaction() {
    let mut world = world();
    let iou = world.issued();
    let World { ledger, lender, borrower, other, .. } = &world;
    let part = ledger
        .draft()
        .evolve(&iou, |iou| iou.paid = 40)
        .input(&world.note(borrower, 50))
        .output(&world.cash(lender, 40))
        .output(&world.cash(borrower, 10))
        .command(&Command::Settle { quantity: 40 }, [borrower, lender])
        .command_to("cash", &CashCommand::Move, [borrower]);
    part.verifies().fuel_share_below(0.01);
    part.fork().edit_output::<Iou>(0, |iou| iou.paid = 41).fails_with(Fault::WrongRest);
    part.fork().edit_output::<Cash>(1, |cash| cash.owner = other.into()).fails_with(Fault::CashMissing);
    part.fork().edit_output::<Cash>(1, |cash| cash.currency = "USD".to_owned()).fails_with(Fault::CashMissing);
    // What can only be spent together with something else is not paid.
    part.fork().edit(|raw| raw.outputs[1].encumbrance = Some(2)).fails_with(Fault::CashMissing);
    let whole = ledger
        .draft()
        .input(&iou)
        .input(&world.note(borrower, 100))
        .output(&world.cash(lender, 100))
        .command(&Command::Settle { quantity: 100 }, [borrower, lender]);
    whole.verifies();
    let more = ledger
        .draft()
        .input(&iou)
        .output(&world.cash(lender, 101))
        .command(&Command::Settle { quantity: 101 }, [borrower, lender]);
    more.fails_with(Fault::OverPaid);
    whole.fork().output(&iou.state).fails_with(Fault::WrongRest);
}

#[test]
fn a_settled_debt_is_described_by_nobody_and_a_debt_by_its_parties() {
    use maxhost_contract::{AttributeValue, State};
    let mut world = world();
    let iou = world.issued().state;
    let described = iou.describe();
    assert_eq!(described.linear_id, Some(iou.id));
    assert_eq!(described.participants, [(&world.lender).into(), (&world.borrower).into()]);
    assert_eq!(described.attributes, [("quantity", AttributeValue::Unsigned(100))]);
    assert_eq!(Iou::times(), ["due"]);
    assert!(Iou::schema().contains("due: optional time\n"), "{}", Iou::schema());
}
