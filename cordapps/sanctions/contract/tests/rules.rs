//! The rules of sanctions, natively and in the component.
#![allow(clippy::unwrap_used, missing_docs)]

use cash_contract::{Cash, Command as CashCommand};
use maxhost_contract::{Hash, Party, StateRef};
use maxhost_testkit::contract::{Committed, Draft, TestLedger};
use sanctions_contract::{Code, Command, Fault, MOST_NAMES, Receipt, SanctionsList};

struct World {
    ledger: TestLedger,
    authority: Party,
    payer: Party,
    payee: Party,
    bank: Party,
}

fn world() -> World {
    let mut ledger = TestLedger::of::<Code>();
    let [authority, payer, payee, bank] = ledger.parties(["Authority", "Payer", "Payee", "Bank"]);
    World { ledger, authority, payer, payee, bank }
}

impl World {
    fn list(&mut self, names: &[&Party]) -> Committed<SanctionsList> {
        let list = SanctionsList {
            id: self.ledger.linear_id(),
            authority: self.authority.clone(),
            names: names.iter().map(|party| party.name.clone()).collect(),
        };
        self.ledger.draft().output(&list).command(&Command::Publish, [&self.authority]).commit().only::<SanctionsList>()
    }

    /// Cash is another contract's to judge: here it is simply there.
    fn cash(&self, owner: &Party, quantity: u64) -> Cash {
        Cash { owner: owner.into(), quantity, currency: "GBP".to_owned(), issuer: self.bank.clone() }
    }

    fn payment(&self, list: &Committed<SanctionsList>) -> Draft {
        let note =
            Committed { reference: StateRef { tx: Hash([5; 32]), index: 0 }, state: self.cash(&self.payer, 100) };
        let receipt = Receipt {
            payer: self.payer.clone(),
            payee: self.payee.clone(),
            quantity: 100,
            currency: "GBP".to_owned(),
            authority: self.authority.clone(),
        };
        let draft =
            self.ledger.draft().reference(list).output(&receipt).input(&note).output(&self.cash(&self.payee, 100));
        draft.command_to("cash", &CashCommand::Move, [&self.payer]).command(&Command::Pay, [&self.payer])
    }
}

#[test]
fn only_the_authority_keeps_its_list() {
    let mut world = world();
    let list = world.list(&[]);
    let World { ledger, authority, payer, .. } = &world;
    let publish = ledger.draft().output(&list.state).command(&Command::Publish, [authority]);
    publish.verifies();
    publish.fork().signers([payer]).fails_with("tx/missing-signer");
    let many = vec!["O=A, L=London, C=GB".to_owned(); MOST_NAMES + 1];
    publish.edit_output::<SanctionsList>(0, |list| list.names = many).fails_with(Fault::TooManyNames);
    let update = ledger
        .draft()
        .evolve(&list, |list| list.names = vec![payer.name.clone()])
        .command(&Command::Update, [authority]);
    update.verifies();
    update.fork().signers([payer]).fails_with("tx/missing-signer");
    update.edit_output::<SanctionsList>(0, |list| list.authority = payer.clone()).fails_with("tx/field-changed");
}

#[test]
fn a_payment_follows_the_list() {
    let mut world = world();
    let list = world.list(&[]);
    let payment = world.payment(&list);
    payment.verifies().fuel_share_below(0.01);
    let World { payer, payee, bank, .. } = &world;
    payment.fork().signers([payee]).fails_with("tx/missing-signer");
    let edit = |change: &dyn Fn(&mut Receipt)| payment.fork().edit_output::<Receipt>(0, change);
    edit(&|receipt| receipt.quantity = 99).fails_with(Fault::CashMissing);
    edit(&|receipt| receipt.payee = payer.clone()).fails_with(Fault::PaidToOneself);
    edit(&|receipt| receipt.payee = bank.clone()).fails_with(Fault::CashMissing);
    edit(&|receipt| receipt.authority = bank.clone()).fails_with(Fault::OtherAuthority);
    payment.fork().edit(|raw| raw.references.clear()).fails_with("tx/not-one");
    // What can only be spent together with something else is not paid.
    payment.fork().edit(|raw| raw.outputs[1].encumbrance = Some(0)).fails_with(Fault::CashMissing);
}

#[test]
fn nobody_on_the_list_pays_or_is_paid() {
    let mut world = world();
    let (payer, payee, bank) = (world.payer.clone(), world.payee.clone(), world.bank.clone());
    for names in [[&payer], [&payee]] {
        let list = world.list(&names);
        world.payment(&list).fails_with(Fault::Sanctioned);
    }
    let list = world.list(&[&bank]);
    world.payment(&list).verifies();
}
