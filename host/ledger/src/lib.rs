//! The ledger without I/O: transactions and their hashes, signatures, and the rules of structure, notaries and vaults.
//!
//! Layer 2: no I/O, no async, no clock. What a rule needs of the world (states, parameters, the time of a notary) is
//! given to it. It builds for guests too, so a CorDapp and its host speak of one and the same rules. The rules are stated
//! in `docs/behaviour.md`, sections 10 to 12.

pub mod amount;
pub mod attachment;
pub mod codec;
pub mod digest;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod keys;
pub mod merkle;
pub mod notary;
pub mod refused;
pub mod rules;
pub mod time;
pub mod tx;
pub mod vault;

pub use refused::{Refused, Result};
pub use rules::Rule;
