//! Transactions: their components, hashes and structure; building them, signing them, showing parts of them.

pub mod builder;
pub mod component;
pub mod constraint;
pub mod encumbrance;
pub mod filtered;
pub mod header;
pub mod ledger_transaction;
pub mod limits;
pub mod notary_change;
pub mod signature;
pub mod signed;
pub mod state;
pub mod structure;
pub mod succession;
mod taking_part;
pub mod verify;
pub mod wire;

pub use component::{Component, ComponentGroup, Group, Salt};
pub use constraint::{ContractAttachment, LedgerRules};
pub use filtered::{FilteredTransaction, Shown, ShownContents};
pub use header::Header;
pub use ledger_transaction::{LedgerCommand, LedgerState, LedgerTransaction};
pub use limits::{ContractLimits, MAX_CONTRACTS};
pub use notary_change::{NotaryChange, NotaryChangeContents};
pub use signature::{NotaryRole, NotaryStatement, SignatureMetadata, Signer, TransactionSignature};
pub use signed::{Core, Kind, MAX_SIGNATURES, SignedTransaction};
pub use state::{
    Command, CommandValue, Constraint, ContractId, Data, MAX_NAME, Name, SchemaId, StateAndRef, StateRef,
    TransactionState,
};
pub use wire::{Contents, WireTransaction};

#[cfg(test)]
mod tests;
