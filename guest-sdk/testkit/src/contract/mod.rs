//! Tests of contracts: transactions are drafted, judged, changed and judged again.
//!
//! Each verdict is asked for twice: natively, so that a debugger and a panic's text are at hand, and in the component as the
//! host runs it, under the limits of the network. The two must agree.
//!
//! ```no_run
//! # use maxhost_contract::prelude::*;
//! use maxhost_testkit::contract::TestLedger;
//! # #[state(contract = "iou")] pub struct Iou { #[linear_id] id: LinearId, #[participant] lender: Party, owed: u64 }
//! # #[commands] pub enum Command { Issue, Pay { by: u64 } }
//! # pub struct C;
//! # #[contract(name = "iou", states = [Iou], commands = Command)]
//! # impl C { #[on(Command::Issue)] fn issue(tx: &Tx<'_>) -> Verdict { Ok(()) } }
//! # contracts! { contracts: [C], code_version: 1, name: "iou" }
//!
//! let mut ledger = TestLedger::of::<Code>();
//! let [ann, bob] = ledger.parties(["Ann", "Bob"]);
//! let iou = Iou { id: ledger.linear_id(), lender: ann.clone(), owed: 100 };
//! let issued = ledger.draft().output(&iou).command(&Command::Issue, [&ann, &bob]).commit();
//! let pay = ledger
//!     .draft()
//!     .evolve(&issued.only::<Iou>(), |iou| iou.owed = 60)
//!     .command(&Command::Pay { by: 40 }, [&bob]);
//! pay.verifies().fuel_share_below(0.02);
//! pay.fork().signers([&ann]).fails_with("tx/missing-signer");
//! pay.mutations().all_rejected();
//! ```

mod draft;
mod judge;
mod ledger;
mod mutation;
mod tree;

pub use draft::{Committed, Draft, Outputs, Verified};
pub use ledger::TestLedger;
pub use mutation::{Mutation, Mutations};
