//! The rules of assets, natively and in the component; and an asset sold against cash.
#![allow(clippy::unwrap_used, missing_docs)]

use cash_contract::{Cash, Command as CashCommand};
use maxhost_contract::{Hash, Party, StateRef};
use maxhost_testkit::contract::{Committed, Mutation, TestLedger};
use trade_contract::{Asset, Code, Command, Fault};

fn asset(ledger: &mut TestLedger, owner: &Party) -> Committed<Asset> {
    let asset = Asset { id: ledger.linear_id(), name: "bond-1".to_owned(), owner: owner.into(), issuer: owner.clone() };
    ledger.draft().output(&asset).command(&Command::Issue, [owner]).commit().only::<Asset>()
}

#[test]
fn an_asset_is_made_by_its_issuer() {
    let mut ledger = TestLedger::of::<Code>();
    let [ann, bob] = ledger.parties(["Ann", "Bob"]);
    let made = asset(&mut ledger, &ann).state;
    let issue = ledger.draft().output(&made).command(&Command::Issue, [&ann]);
    issue.fork().signers([&bob]).fails_with("tx/missing-signer");
    issue.fork().edit_output::<Asset>(0, |asset| asset.owner = (&bob).into()).fails_with(Fault::NotIssuers);
    issue.fork().edit_output::<Asset>(0, |asset| asset.name.clear()).fails_with(Fault::NameInvalid);
    issue.fork().edit_output::<Asset>(0, |asset| asset.name = "ä".repeat(65)).fails_with(Fault::NameInvalid);
    issue.fork().edit_output::<Asset>(0, |asset| asset.name = "ä".repeat(64)).verifies();
}

#[test]
fn an_asset_is_sold_against_cash_in_one_transaction() {
    let mut ledger = TestLedger::of::<Code>();
    let [ann, bob, bank] = ledger.parties(["Ann", "Bob", "Bank"]);
    let bond = asset(&mut ledger, &ann);
    let cash =
        |owner: &Party| Cash { owner: owner.into(), quantity: 500, currency: "GBP".to_owned(), issuer: bank.clone() };
    let note = Committed { reference: StateRef { tx: Hash([5; 32]), index: 0 }, state: cash(&bob) };
    let sale = ledger
        .draft()
        .evolve(&bond, |asset| asset.owner = (&bob).into())
        .command(&Command::Move, [&ann])
        .input(&note)
        .output(&cash(&ann))
        .command_to("cash", &CashCommand::Move, [&bob]);
    sale.verifies().fuel_share_below(0.01);
    sale.fork().edit_output::<Asset>(0, |asset| asset.owner = (&ann).into()).fails_with(Fault::NotMoved);
    sale.fork().edit_output::<Asset>(0, |asset| asset.name.push('2')).fails_with("tx/field-changed");
    // The other side is for the contract of cash to judge.
    let of_cash = |one: &Mutation| {
        matches!(
            one,
            Mutation::DropInput(1)
                | Mutation::DropOutput(1)
                | Mutation::DuplicateOutput(1)
                | Mutation::DropCommand(1)
                | Mutation::RenameCommand(1)
                | Mutation::DropSigner { command: 1, .. }
                | Mutation::ChangeOutput { output: 1, .. }
                | Mutation::ChangeCommand { command: 1, .. }
        )
    };
    sale.mutations()
        .allow(of_cash)
        .allow(|one| matches!(one, Mutation::ChangeOutput { field, .. } if field.starts_with("owner.") || field == "issuer.name"))
        .all_rejected();
}
