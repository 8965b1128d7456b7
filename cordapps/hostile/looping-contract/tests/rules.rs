//! The contract, natively and in the component: it computes for as long as it is told.
#![allow(clippy::unwrap_used, missing_docs)]

use hostile_contract::{Code, Command, Fault, Post, Signpost, Work};
use maxhost_contract::{LinearPointer, StaticPointer};
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

#[test]
fn what_a_post_leads_to_is_there_to_be_looked_at() {
    let mut ledger = TestLedger::of::<Code>();
    let [ann] = ledger.parties(["Ann"]);
    let mut post = |to: Vec<Signpost>| Post { id: ledger.linear_id(), whose: ann.clone(), to };
    let (first, other) = (post(vec![]), post(vec![]));
    let leading = post(vec![Signpost::Newest(LinearPointer::new(first.id))]);
    let put = |post: &Post| ledger.draft().output(post).command(&Command::Put, [&ann]);
    let first = put(&first).commit().only::<Post>();
    let other = put(&other).commit().only::<Post>();
    put(&leading).fails_with("tx/pointer-unresolved");
    put(&leading).reference(&other).fails_with("tx/pointer-unresolved");
    put(&leading).reference(&first).reference(&other).verifies();
    let fixed = Post { to: vec![Signpost::Version(StaticPointer::resolved(first.reference))], ..leading.clone() };
    put(&fixed).reference(&other).fails_with("tx/pointer-unresolved");
    put(&fixed).reference(&first).verifies();
    put(&Post { id: first.state.id, ..leading }).reference(&first).fails_with(Fault::LeadsToItself);
}
