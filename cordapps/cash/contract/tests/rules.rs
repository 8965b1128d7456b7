//! The rules of cash, natively and in the component.
#![allow(clippy::unwrap_used, missing_docs)]

use cash_contract::{Cash, Code, Command, Fault};
use maxhost_contract::{AnyParty, Party};
use maxhost_testkit::contract::{Committed, Mutation, Outputs, TestLedger};

fn cash(owner: impl Into<AnyParty>, quantity: u64, issuer: &Party) -> Cash {
    Cash { owner: owner.into(), quantity, currency: "GBP".to_owned(), issuer: issuer.clone() }
}

struct World {
    ledger: TestLedger,
    bank: Party,
    ann: Party,
    bob: Party,
}

fn world() -> World {
    let mut ledger = TestLedger::of::<Code>();
    let [bank, ann, bob] = ledger.parties(["Bank", "Ann", "Bob"]);
    World { ledger, bank, ann, bob }
}

impl World {
    fn issued(&self, owner: &Party, quantity: u64) -> Outputs {
        self.ledger.draft().output(&cash(owner, quantity, &self.bank)).command(&Command::Issue, [&self.bank]).commit()
    }
}

/// Whom the payee is, a payer may choose; and the issuer to whom, in what currency and how much it issues.
fn of_choice(mutation: &Mutation) -> bool {
    matches!(mutation, Mutation::ChangeOutput { field, .. } if field.starts_with("owner."))
}

#[test]
fn an_issue_is_the_issuers() {
    let World { ledger, bank, ann, bob } = &world();
    let issue = ledger.draft().output(&cash(ann, 100, bank)).command(&Command::Issue, [bank]);
    issue.verifies().fuel_share_below(0.005);
    issue.fork().signers([ann]).fails_with("tx/missing-signer");
    issue.fork().edit_output::<Cash>(0, |cash| cash.quantity = 0).fails_with(Fault::QuantityInvalid);
    issue.fork().edit_output::<Cash>(0, |cash| cash.quantity = 1 << 63).fails_with(Fault::QuantityInvalid);
    for currency in ["", "GB", "gbp", "GBPX", "G1P", "ÄÖÜ"] {
        issue
            .fork()
            .edit_output::<Cash>(0, |cash| cash.currency = currency.to_owned())
            .fails_with(Fault::CurrencyInvalid);
    }
    issue.fork().edit_output::<Cash>(0, |cash| cash.issuer = bob.clone()).fails_with("tx/missing-signer");
    let chosen = ["owner.name", "owner.owning_key", "quantity", "currency", "issuer.name"];
    issue
        .mutations()
        .allow(|one| matches!(one, Mutation::ChangeOutput { field, .. } if chosen.contains(&field.as_str())))
        .allow(|one| matches!(one, Mutation::DuplicateOutput(_)))
        .all_rejected();
}

#[test]
fn a_payment_gives_change_and_makes_nothing() {
    let world = world();
    let World { ledger, bank, ann, bob } = &world;
    let notes = [world.issued(ann, 60), world.issued(ann, 40)].map(|issued| issued.only::<Cash>());
    let pay = ledger
        .draft()
        .input(&notes[0])
        .input(&notes[1])
        .output(&cash(bob, 70, bank))
        .output(&cash(ann, 30, bank))
        .command(&Command::Move, [ann]);
    pay.verifies().fuel_share_below(0.01);
    pay.fork().signers([bob]).fails_with("tx/missing-signer");
    pay.fork().edit_output::<Cash>(0, |cash| cash.quantity = 71).fails_with(Fault::NotBalanced);
    pay.fork().edit_output::<Cash>(0, |cash| cash.quantity = 69).fails_with(Fault::NotBalanced);
    pay.fork().edit_output::<Cash>(0, |cash| cash.currency = "USD".to_owned()).fails_with(Fault::NotBalanced);
    pay.mutations().allow(of_choice).all_rejected();
    let anonymous = AnyParty::anonymous(bob.owning_key.clone());
    pay.fork().edit_output::<Cash>(0, |cash| cash.owner = anonymous).verifies();
}

#[test]
fn money_from_nothing_is_refused() {
    let World { ledger, bank, ann, .. } = &world();
    ledger.draft().output(&cash(ann, 5, bank)).command(&Command::Move, [bank]).fails_with("tx/none");
    ledger.draft().output(&cash(ann, 5, bank)).fails_with("ledger/command-missing");
    ledger.draft().fails_with("ledger/no-inputs-or-outputs");
}

#[test]
fn two_issuers_and_two_currencies_are_kept_apart() {
    let mut world = world();
    let other = world.ledger.party("Other Bank");
    let (ann, bob) = (&world.ann, &world.bob);
    let issue = world.ledger.draft().output(&cash(ann, 50, &other)).command(&Command::Issue, [&other]).commit();
    let (one, two) = (world.issued(ann, 50).only::<Cash>(), issue.only::<Cash>());
    let both = world.ledger.draft().input(&one).input(&two).command(&Command::Move, [ann]);
    both.fork().output(&cash(bob, 50, &world.bank)).output(&cash(bob, 50, &other)).verifies();
    both.fork().output(&cash(bob, 100, &world.bank)).fails_with(Fault::NotBalanced);
    both.fork().output(&cash(bob, 60, &world.bank)).output(&cash(bob, 40, &other)).fails_with(Fault::NotBalanced);
}

#[test]
fn an_issuer_stays_with_name_and_key() {
    let mut world = world();
    let (ann, bob, mallory) = (world.ann.clone(), world.bob.clone(), world.ledger.party("Mallory"));
    // Whoever issues signs with the key of the issuer. That the name beside it is another's, a contract cannot know.
    let false_bank = Party { name: world.bank.name.clone(), owning_key: mallory.owning_key.clone() };
    let issue = world.ledger.draft().output(&cash(&ann, 50, &false_bank)).command(&Command::Issue, [&mallory]);
    issue.fork().signers([&world.bank]).fails_with("tx/missing-signer");
    let (good, bad) = (world.issued(&ann, 50).only::<Cash>(), issue.commit().only::<Cash>());
    let paid = |note: &Committed<Cash>, issuer: &Party| {
        world.ledger.draft().input(note).output(&cash(&bob, 50, issuer)).command(&Command::Move, [&ann]).rejection()
    };
    let renamed = Party { name: mallory.name.clone(), owning_key: world.bank.owning_key.clone() };
    for (note, issuer) in [(&good, &renamed), (&good, &false_bank), (&bad, &world.bank), (&bad, &mallory)] {
        assert!(paid(note, issuer).is_some(), "{note:?} becomes cash of {issuer}");
    }
    assert!(paid(&good, &world.bank).is_none() && paid(&bad, &false_bank).is_none());
    // What is taken back is the cash of one issuer, and of one of that name.
    let exit = world.ledger.draft().input(&good).input(&bad);
    exit.command(&Command::Exit { quantity: 100 }, [&world.bank, &mallory, &ann]).fails_with(Fault::ExitMixed);
}

#[test]
fn an_exit_is_the_issuers_and_the_owners() {
    let world = world();
    let World { ledger, bank, ann, .. } = &world;
    let note = world.issued(ann, 100).only::<Cash>();
    let exit =
        ledger.draft().input(&note).output(&cash(ann, 70, bank)).command(&Command::Exit { quantity: 30 }, [bank, ann]);
    exit.verifies();
    exit.fork().signers([ann]).fails_with("tx/missing-signer");
    exit.fork().signers([bank]).fails_with("tx/missing-signer");
    exit.fork().edit_output::<Cash>(0, |cash| cash.quantity = 60).fails_with(Fault::ExitWrong);
    exit.mutations().allow(of_choice).all_rejected();
    ledger.draft().input(&note).command(&Command::Exit { quantity: 100 }, [bank, ann]).verifies();
}

#[test]
fn hundreds_of_notes_are_one_payment() {
    let world = world();
    let World { ledger, bank, ann, bob } = &world;
    let note = world.issued(ann, 1).only::<Cash>();
    let mut pay = ledger.draft();
    for _ in 0..400 {
        pay = pay.input(&note);
    }
    pay = pay.output(&cash(bob, 400, bank)).command(&Command::Move, [ann]);
    pay.verifies().fuel_share_below(0.5);
}
