//! The contract, natively and in the component: it computes for as long as it is told.
#![allow(clippy::unwrap_used, missing_docs)]

use hostile_contract::{Code, Command, Fault, Work};
use maxhost_testkit::contract::TestLedger;

#[test]
fn work_takes_what_it_says() {
    let mut ledger = TestLedger::of::<Code>();
    let [ann] = ledger.parties(["Ann"]);
    let work = |turns| Work { whose: ann.clone(), turns };
    let little = ledger.draft().output(&work(1)).command(&Command::Compute, [&ann]).verifies();
    let much = ledger.draft().output(&work(100_000)).command(&Command::Compute, [&ann]);
    assert!(much.verifies().fuel_share() >= little.fuel_share());
    let done = much.commit().only::<Work>();
    let again = ledger.draft().evolve(&done, |work| work.turns = 0).command(&Command::Compute, [&ann]);
    again.fails_with(Fault::Consumed);
}
