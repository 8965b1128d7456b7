//! What is given to be judged: a transaction with what it names.

use std::sync::Arc;

use maxhost_ledger::tx::{ContractAttachment, LedgerRules, StateAndRef, WireTransaction};
use maxhost_model::SecureHash;

use super::component::ContractComponent;

/// An attachment of a transaction.
#[derive(Debug, Clone)]
pub enum Attached {
    /// Contract code.
    Code {
        /// The code.
        component: Arc<ContractComponent>,
        /// Whether it was installed here, and not merely sent by a peer.
        trusted: bool,
    },
    /// Anything else, which no contract looks into.
    Data {
        /// SHA-256 of the file.
        id: SecureHash,
        /// Its size, bytes.
        size: u64,
    },
}

impl Attached {
    /// Code that is installed.
    #[must_use]
    pub fn installed(component: Arc<ContractComponent>) -> Attached {
        Attached::Code { component, trusted: true }
    }

    /// The code, if it is code.
    #[must_use]
    pub fn component(&self) -> Option<&Arc<ContractComponent>> {
        match self {
            Attached::Code { component, .. } => Some(component),
            Attached::Data { .. } => None,
        }
    }

    /// What the rules of the ledger need to know of it.
    #[must_use]
    pub fn attachment(&self) -> ContractAttachment {
        match self {
            Attached::Code { component, trusted } => component.attachment(*trusted),
            Attached::Data { id, size } => ContractAttachment::data(*id, *size),
        }
    }
}

/// A transaction to judge, with what it names, in the order in which it does.
#[derive(Debug, Clone, Copy)]
pub struct ToVerify<'a> {
    /// The transaction.
    pub wire: &'a WireTransaction,
    /// The states of its inputs.
    pub inputs: &'a [StateAndRef],
    /// The states of its references.
    pub references: &'a [StateAndRef],
    /// Its attachments.
    pub attachments: &'a [Attached],
    /// The network that it must belong to.
    pub network: &'a SecureHash,
    /// What the parameters say that it names.
    pub rules: &'a LedgerRules,
}
