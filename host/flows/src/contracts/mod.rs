//! What the platform's flows need of contracts: the seam to whatever runs them.

mod engine;
#[cfg(test)]
mod none;

use maxhost_ledger::Refused;
use maxhost_ledger::tx::{
    ContractAttachment, ContractId, LedgerRules, SchemaId, StateAndRef, TransactionState, WireTransaction,
};
use maxhost_model::{Problem, SecureHash};
use maxhost_store::ledger::OutputState;

pub(crate) use self::engine::EngineContracts;
#[cfg(test)]
pub(crate) use self::none::NoContracts;

/// A transaction to judge, with the states that it names, in the order in which it does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToJudge<'a> {
    /// The transaction.
    pub wire: &'a WireTransaction,
    /// The states of its inputs.
    pub inputs: &'a [StateAndRef],
    /// The states of its references.
    pub references: &'a [StateAndRef],
    /// SHA-256 of the root certificate of the network.
    pub network: &'a SecureHash,
    /// What the parameters say that it names.
    pub rules: &'a LedgerRules,
}

/// What a contract, or the rules of the ledger in front of them all, say of a transaction.
#[derive(Debug, Clone)]
pub(crate) struct Examined {
    /// The contract; `None` for the rules.
    pub contract: Option<ContractId>,
    /// What is wrong.
    pub refused: Option<Refused>,
}

/// Contract code of a host. All calls block: a few hundred microseconds, longer while code is compiled.
///
/// A [`Problem`] is trouble of this host and decides nothing.
pub(crate) trait Contracts: Send + Sync {
    /// The installed attachments.
    fn installed(&self) -> Vec<ContractAttachment>;

    /// Whether the code of all these attachments is installed.
    fn has(&self, attachments: &[SecureHash]) -> bool;

    /// What an output of this contract and type names as its schema, by the newest installed code.
    fn schema(&self, contract: &ContractId, type_name: &str) -> Option<SchemaId>;

    /// Whether a transaction is good by the rules of the ledger and by its contracts.
    ///
    /// # Errors
    /// Trouble of this host.
    fn judge(&self, given: ToJudge<'_>) -> Result<Result<(), Refused>, Problem>;

    /// As [`Contracts::judge`], for people: all that is wrong, by contract; what is named by none is a rule of the ledger.
    ///
    /// # Errors
    /// Trouble of this host.
    fn examine(&self, given: ToJudge<'_>) -> Result<Vec<Examined>, Problem>;

    /// What the code among these attachments says of a state.
    ///
    /// # Errors
    /// Trouble of this host.
    fn describe(
        &self,
        state: &TransactionState,
        attachments: &[SecureHash],
    ) -> Result<Result<OutputState, Refused>, Problem>;

    /// Looks again at what is installed. Blocking.
    fn rescan(&self);
}
