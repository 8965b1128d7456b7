//! Writes contracts for maxhost.
//!
//! A contract says which changes of states are right. It is pure: it sees the transaction and nothing else, and its answer
//! is the same on every host for ever. A type of states is a struct marked [`#[state]`](state); what can be done with them
//! is an enum marked [`#[commands]`](commands); the rules are functions in an `impl` marked [`#[contract]`](contract), one
//! for each command. A command without a rule is refused.
//!
//! ```
//! use maxhost_contract::prelude::*;
//!
//! /// A debt.
//! #[state(contract = "iou", version = 1)]
//! pub struct Iou {
//!     #[linear_id]
//!     pub id: LinearId,
//!     #[participant]
//!     pub lender: Party,
//!     #[participant]
//!     pub borrower: Party,
//!     pub owed: u64,
//! }
//!
//! #[commands]
//! pub enum Command {
//!     Issue,
//!     Pay { by: u64 },
//! }
//!
//! #[faults]
//! pub enum Fault {
//!     /// More is paid than is owed.
//!     OverPaid,
//!     /// What is left is not what was owed less what is paid.
//!     WrongRest,
//! }
//!
//! pub struct IouContract;
//!
//! #[contract(name = "iou", states = [Iou], commands = Command, faults = Fault)]
//! impl IouContract {
//!     #[on(Command::Issue)]
//!     fn issue(tx: &Tx) -> Verdict {
//!         tx.no_inputs::<Iou>()?;
//!         let iou = tx.outputs::<Iou>()?.only()?;
//!         tx.signed_by([&iou.lender, &iou.borrower])
//!     }
//!
//!     #[on(Command::Pay)]
//!     fn pay(tx: &Tx, by: &u64) -> Verdict {
//!         let (old, new) = tx.evolved::<Iou>()?.only()?;
//!         ensure!(*by <= old.owed, Fault::OverPaid);
//!         ensure!(new.owed == old.owed - *by, Fault::WrongRest);
//!         tx.same_except(&old, &new, &[Iou::OWED])?;
//!         tx.signed_by([&old.borrower])
//!     }
//! }
//!
//! contracts! { contracts: [IouContract], code_version: 1 }
//! ```

#![cfg_attr(feature = "component", no_std)]

extern crate alloc;

#[cfg(all(feature = "component", target_arch = "wasm32"))]
mod component;
mod data;
mod dispatch;
mod fault;
#[cfg(all(feature = "component", target_arch = "wasm32"))]
mod heap;
mod ids;
mod ledger;
mod many;
mod octets;
mod party;
mod pointer;
pub mod prelude;
pub mod rfc3339;
mod state;
mod time;
mod tx;

pub use data::{DataType, decode, encode};
pub use fault::{FaultWord, Faults, Rejection, Verdict};
pub use ids::{Hash, LinearId};
pub use ledger::{
    ContractId, ParseStateRefError, RawCommand, RawCommandValue, RawInput, RawState, RawTransaction, SchemaId, StateRef,
};
pub use many::Many;
pub use maxhost_cbor::Error as CborError;
pub use maxhost_sdk_macros::{commands, contract, contracts, data, faults, state};
pub use party::{AnyParty, HasKey, Party, PublicKey};
pub use pointer::{LinearPointer, StatePointer, StaticPointer, Target};
pub use state::{
    Activity, Attribute, AttributeKind, AttributeValue, CommandSet, Description, FungibleAmount, IntoAttribute, State,
};
pub use time::{ParseTimestampError, TimeWindow, Timestamp};
pub use tx::{Evolved, Group, Tx};

pub use dispatch::{CodeDescription, Contract, ContractCode, ContractDescription, StateTypeDescription};

/// Returns a fault unless the condition holds.
///
/// ```
/// # use maxhost_contract::prelude::*;
/// # #[faults] pub enum Fault { /** Too much. */ TooMuch }
/// fn check(quantity: u64) -> Verdict {
///     ensure!(quantity < 10, Fault::TooMuch);
///     Ok(())
/// }
/// assert_eq!(check(10).unwrap_err().code(), "too-much");
/// ```
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $fault:expr $(,)?) => {
        if !$condition {
            return ::core::result::Result::Err($crate::Rejection::from($fault));
        }
    };
}

/// What the macros of this crate write into an author's crate. No promise to anybody else.
#[doc(hidden)]
pub mod __private {
    pub use alloc::borrow::ToOwned;
    pub use alloc::string::String;
    pub use alloc::vec;
    pub use alloc::vec::Vec;
    pub use serde;

    #[cfg(all(feature = "component", target_arch = "wasm32"))]
    pub use crate::component::{Guest, bindings, describe, describe_contract, export_contract, pointers, verify};
    pub use crate::dispatch::{
        check_state, cordapp_name, describe_state, malformed_command, no_rule, not_ours, pointers_of_state, run, same,
        transaction,
    };
    pub use crate::state::no_such_command;
}
