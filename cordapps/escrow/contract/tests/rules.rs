//! The rules of escrows, natively and in the component.
#![allow(clippy::unwrap_used, missing_docs)]

use cash_contract::{Cash, Command as CashCommand};
use escrow_contract::{Code, Command, Escrow, Fault};
use maxhost_contract::{Hash, Party, StateRef, Timestamp};
use maxhost_testkit::contract::{Committed, Draft, Mutation, TestLedger};

struct World {
    ledger: TestLedger,
    buyer: Party,
    seller: Party,
    bank: Party,
    other_bank: Party,
}

fn world() -> World {
    let mut ledger = TestLedger::of::<Code>();
    let [buyer, seller, bank, other_bank] = ledger.parties(["Buyer", "Seller", "Bank", "Other Bank"]);
    World { ledger, buyer, seller, bank, other_bank }
}

fn until() -> Timestamp {
    "2030-01-01T00:00:00Z".parse().unwrap()
}

/// Cash is another contract's to judge: here it is simply there.
fn cash(owner: &Party, quantity: u64, issuer: &Party) -> Cash {
    Cash { owner: owner.into(), quantity, currency: "GBP".to_owned(), issuer: issuer.clone() }
}

/// Outputs 0 to `count` encumber each other in a circle.
fn in_a_circle(draft: Draft, count: u32) -> Draft {
    draft.edit(|raw| {
        for (index, output) in (0..count).zip(&mut raw.outputs) {
            output.encumbrance = Some((index + 1) % count);
        }
    })
}

impl World {
    fn escrow(&mut self) -> Escrow {
        let (buyer, seller, id) = (self.buyer.clone(), self.seller.clone(), self.ledger.linear_id());
        Escrow { id, buyer, seller, quantity: 100, currency: "GBP".to_owned(), until: until() }
    }

    /// 60 of one bank and 40 of another are locked, and 5 are change.
    fn lock(&mut self) -> Draft {
        let escrow = self.escrow();
        let input = |index, quantity, issuer: &Party| Committed {
            reference: StateRef { tx: Hash([5; 32]), index },
            state: cash(&self.buyer, quantity, issuer),
        };
        let draft = self
            .ledger
            .draft()
            .input(&input(0, 65, &self.bank))
            .input(&input(1, 40, &self.other_bank))
            .output(&escrow)
            .output(&cash(&self.buyer, 60, &self.bank))
            .output(&cash(&self.buyer, 40, &self.other_bank))
            .output(&cash(&self.buyer, 5, &self.bank))
            .command_to("cash", &CashCommand::Move, [&self.buyer])
            .command(&Command::Lock, [&self.buyer]);
        in_a_circle(draft, 3)
    }

    /// Consumes what is locked.
    fn opened(&mut self) -> Draft {
        let locked = self.lock().commit();
        let (escrow, cash) = (locked.only::<Escrow>(), locked.all::<Cash>());
        let draft = self.ledger.draft().input(&escrow).input(&cash[0]).input(&cash[1]);
        draft.edit(|raw| {
            for (index, input) in (0_u32..).zip(&mut raw.inputs) {
                input.state.encumbrance = Some((index + 1) % 3);
            }
        })
    }

    fn release(&mut self) -> Draft {
        let draft =
            self.opened().output(&cash(&self.seller, 60, &self.bank)).output(&cash(&self.seller, 40, &self.other_bank));
        draft.command_to("cash", &CashCommand::Move, [&self.buyer]).command(&Command::Release, [&self.buyer])
    }
}

/// What the contract of cash judges.
fn of_cash(one: &Mutation) -> bool {
    matches!(
        one,
        Mutation::DropCommand(0)
            | Mutation::RenameCommand(0)
            | Mutation::DropSigner { command: 0, .. }
            | Mutation::ChangeCommand { command: 0, .. }
    )
}

#[test]
fn the_cash_is_locked_together_with_the_escrow_and_nothing_else_is() {
    let mut world = world();
    let lock = world.lock();
    lock.verifies().fuel_share_below(0.01);
    let World { buyer, seller, bank, other_bank, .. } = &world;
    lock.fork().signers([seller]).fails_with("tx/missing-signer");
    let edit = |change: &dyn Fn(&mut Escrow)| lock.fork().edit_output::<Escrow>(0, change);
    edit(&|escrow| escrow.quantity = 0).fails_with(Fault::Empty);
    edit(&|escrow| escrow.quantity = 101).fails_with(Fault::NotHeld);
    edit(&|escrow| escrow.currency = "EUR".to_owned()).fails_with(Fault::NotHeld);
    edit(&|escrow| escrow.seller = buyer.clone()).fails_with(Fault::ToOneself);
    let freed = |index: usize| lock.fork().edit(|raw| raw.outputs[index].encumbrance = None);
    (0..3).for_each(|index| freed(index).fails_with(Fault::NotHeld));
    // Two circles: with the escrow, and without.
    let apart = lock.fork().edit_output::<Escrow>(0, |escrow| escrow.quantity = 60).edit(|raw| {
        for (index, other) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
            raw.outputs[index].encumbrance = Some(other);
        }
    });
    apart.fails_with(Fault::NotHeld);
    // A circle that never comes back to the escrow.
    lock.fork().edit(|raw| raw.outputs[2].encumbrance = Some(1)).fails_with(Fault::NotHeld);
    lock.fork().edit_output::<Cash>(1, |cash| cash.owner = seller.into()).fails_with(Fault::NotHeld);
    // The change is the buyer's business.
    lock.fork().edit_output::<Cash>(3, |cash| cash.owner = seller.into()).verifies();
    assert_ne!(bank, other_bank);
    lock.mutations()
        .allow(of_cash)
        .allow(|one| matches!(one, Mutation::DropInput(_) | Mutation::DropOutput(3)))
        .allow(|one| matches!(one, Mutation::DuplicateOutput(3) | Mutation::ChangeOutput { output: 3, .. }))
        // The seller and the time are the buyer's to choose, names stand beside keys, and who owes it is judged on release.
        .allow(|one| matches!(one, Mutation::ChangeOutput { output: 0, field } if field != "quantity" && field != "currency" && field != "buyer.owning_key"))
        .allow(|one| matches!(one, Mutation::ChangeOutput { output: 1 | 2, field } if field == "owner.name" || field.starts_with("issuer.")))
        .all_rejected();
}

#[test]
fn the_buyer_pays_the_seller_with_the_cash_that_was_locked() {
    let mut world = world();
    let release = world.release();
    release.verifies().fuel_share_below(0.01);
    let World { buyer, seller, bank, .. } = &world;
    release.fork().signers([seller]).fails_with("tx/missing-signer");
    let edit = |index, change: &dyn Fn(&mut Cash)| release.fork().edit_output::<Cash>(index, change);
    edit(0, &|cash| cash.quantity = 59).fails_with(Fault::NotPaid);
    edit(0, &|cash| cash.owner = buyer.into()).fails_with(Fault::NotPaid);
    // As much, of another issuer: perhaps of the buyer's own making.
    edit(1, &|cash| cash.issuer = bank.clone()).fails_with(Fault::NotPaid);
    edit(1, &|cash| cash.issuer = buyer.clone()).fails_with(Fault::NotPaid);
    // Paid, and held again.
    in_a_circle(release.fork(), 2).fails_with(Fault::NotPaid);
    // What the seller pays himself does not count.
    let own = Committed { reference: StateRef { tx: Hash([6; 32]), index: 0 }, state: cash(seller, 60, bank) };
    release.fork().input(&own).fails_with(Fault::NotPaid);
    release
        .mutations()
        .allow(of_cash)
        // That all of the circle goes in, the ledger has checked.
        .allow(|one| matches!(one, Mutation::DropInput(1 | 2)))
        .allow(|one| matches!(one, Mutation::ChangeOutput { field, .. } if field.ends_with(".name")))
        .all_rejected();
}

#[test]
fn the_buyer_takes_it_back_when_the_time_is_up_and_not_before() {
    let mut world = world();
    let opened = world.opened();
    let World { buyer, seller, bank, other_bank, .. } = &world;
    let reclaim = opened
        .output(&cash(buyer, 60, bank))
        .output(&cash(buyer, 40, other_bank))
        .command_to("cash", &CashCommand::Move, [buyer])
        .command(&Command::Reclaim, [buyer]);
    reclaim.fails_with("tx/no-time-window");
    let early = Timestamp::from_unix_nanos(until().as_unix_nanos() - 1);
    reclaim.fork().from(early).fails_with(Fault::TooEarly);
    reclaim.fork().until(until()).fails_with(Fault::TooEarly);
    let good = reclaim.fork().from(until());
    good.verifies().fuel_share_below(0.01);
    good.fork().signers([seller]).fails_with("tx/missing-signer");
    // The same is no release, and an escrow is not made anew.
    good.fork().command(&Command::Release, [buyer]).fails_with(Fault::NotPaid);
    let another = world.escrow();
    good.fork().output(&another).fails_with("tx/has-outputs");
}
