//! The rules of values and of payments that depend on them, natively and in the component.
#![allow(clippy::unwrap_used, missing_docs)]

use cash_contract::{Cash, Command as CashCommand};
use maxhost_contract::{Hash, Party, StateRef};
use maxhost_testkit::contract::{Committed, Draft, Mutation, TestLedger};
use oracle_contract::{Code, Command, Fact, Fault, LONGEST, Payment};

struct World {
    ledger: TestLedger,
    oracle: Party,
    payer: Party,
    payee: Party,
    bank: Party,
}

fn world() -> World {
    let mut ledger = TestLedger::of::<Code>();
    let [oracle, payer, payee, bank] = ledger.parties(["Oracle", "Payer", "Payee", "Bank"]);
    World { ledger, oracle, payer, payee, bank }
}

fn fix(value: u64) -> Command {
    Command::Fix { name: "rate".to_owned(), date: "2030-01-01".to_owned(), value }
}

impl World {
    /// Cash is another contract's to judge: here it is simply there.
    fn cash(&self, owner: &Party, quantity: u64) -> Cash {
        Cash { owner: owner.into(), quantity, currency: "GBP".to_owned(), issuer: self.bank.clone() }
    }

    /// 5.25 % of 2,010 are 105, without fractions.
    fn payment(&self) -> Draft {
        let note =
            Committed { reference: StateRef { tx: Hash([5; 32]), index: 0 }, state: self.cash(&self.payer, 105) };
        let payment = Payment {
            payer: self.payer.clone(),
            payee: self.payee.clone(),
            notional: 2_010,
            currency: "GBP".to_owned(),
            oracle: self.oracle.clone(),
            name: "rate".to_owned(),
            date: "2030-01-01".to_owned(),
            value: 52_500,
        };
        let draft = self.ledger.draft().input(&note).output(&self.cash(&self.payee, 105)).output(&payment);
        draft
            .command_to("cash", &CashCommand::Move, [&self.payer])
            .command(&Command::Pay, [&self.payer])
            .command(&fix(52_500), [&self.oracle])
    }
}

#[test]
fn an_oracle_publishes_in_its_own_name() {
    let World { ledger, oracle, payer, .. } = &world();
    let fact = Fact { oracle: oracle.clone(), name: "rate".to_owned(), date: "2030-01-01".to_owned(), value: 52_500 };
    let publish = ledger.draft().output(&fact).command(&Command::Publish, [oracle]);
    publish.verifies().fuel_share_below(0.005);
    publish.fork().signers([payer]).fails_with("tx/missing-signer");
    let edit = |change: &dyn Fn(&mut Fact)| publish.fork().edit_output::<Fact>(0, change);
    edit(&|fact| fact.oracle = payer.clone()).fails_with("tx/missing-signer");
    edit(&|fact| fact.name.clear()).fails_with(Fault::TextInvalid);
    edit(&|fact| fact.date = "ä".repeat(LONGEST + 1)).fails_with(Fault::TextInvalid);
    edit(&|fact| fact.name = "ä".repeat(LONGEST)).verifies();
    // It is for ever.
    let published = publish.commit().only::<Fact>();
    let gone = ledger.draft().input(&published).command(&Command::Publish, [oracle]);
    gone.fails_with("tx/has-inputs");
}

#[test]
fn a_payment_is_as_much_as_the_oracle_says() {
    let world = world();
    let payment = world.payment();
    payment.verifies().fuel_share_below(0.01);
    let World { payer, payee, .. } = &world;
    // The last command is the oracle's.
    payment.fork().signers([payer]).fails_with("tx/missing-signer");
    let with_fix = |value| {
        let without = payment.fork().edit(|raw| drop(raw.commands.pop()));
        without.command(&fix(value), [&world.oracle])
    };
    with_fix(52_500).verifies();
    with_fix(52_501).fails_with(Fault::OtherValue);
    let edit = |change: &dyn Fn(&mut Payment)| payment.fork().edit_output::<Payment>(1, change);
    // The same is due by this value, and yet it is another.
    edit(&|payment| payment.value = 52_501).fails_with(Fault::OtherValue);
    edit(&|payment| payment.value = 60_000).fails_with(Fault::CashMissing);
    edit(&|payment| payment.date.push('0')).fails_with(Fault::OtherValue);
    edit(&|payment| payment.oracle = payee.clone()).fails_with("tx/missing-signer");
    edit(&|payment| payment.notional = 2_020).fails_with(Fault::CashMissing);
    edit(&|payment| payment.payee = payer.clone()).fails_with(Fault::PaidToOneself);
    // Fractions are not paid.
    edit(&|payment| payment.notional = 2_000).verifies();
    edit(&|payment| payment.notional = 1_999).fails_with(Fault::CashMissing);
    // What can only be spent together with something else is not paid.
    payment.fork().edit(|raw| raw.outputs[0].encumbrance = Some(1)).fails_with(Fault::CashMissing);
    let without = |index: usize| payment.fork().edit(|raw| drop(raw.commands.remove(index)));
    without(1).fails_with(Fault::CommandMissing);
    without(2).fails_with(Fault::CommandMissing);
    // What the contract of cash judges, names beside keys, and notionals of which the same is paid.
    let of_cash = |one: &Mutation| {
        matches!(
            one,
            Mutation::DropInput(0)
                | Mutation::DropCommand(0)
                | Mutation::RenameCommand(0)
                | Mutation::DropSigner { command: 0, .. }
                | Mutation::ChangeCommand { command: 0, .. }
        )
    };
    payment
        .mutations()
        .allow(of_cash)
        .allow(|one| matches!(one, Mutation::ChangeOutput { field, .. } if field.ends_with(".name") || field.starts_with("issuer.")))
        .allow(|one| matches!(one, Mutation::ChangeOutput { output: 1, field } if field == "notional"))
        .all_rejected();
}
