//! What the platform's flows need of contracts: the seam to whatever runs them.

mod engine;

use maxhost_ledger::Refused;
use maxhost_ledger::tx::builder::Pointer;
use maxhost_ledger::tx::{
    ContractAttachment, ContractId, Data, LedgerRules, SchemaId, StateAndRef, TransactionState, WireTransaction,
};
use maxhost_model::{Problem, SecureHash};
use maxhost_sandbox::contract::Attached;
use maxhost_store::ledger::OutputState;

pub(crate) use self::engine::EngineContracts;

/// A transaction to judge, with the states that it names, in the order in which it does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToJudge<'a> {
    /// The transaction.
    pub wire: &'a WireTransaction,
    /// The states of its inputs.
    pub inputs: &'a [StateAndRef],
    /// The states of its references.
    pub references: &'a [StateAndRef],
    /// Its attachments.
    pub attachments: &'a [Attached],
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

/// By what network parameters code is trusted that came from somebody.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trusting<'a> {
    /// Those that its transaction names; those in force, if it has none that are known.
    pub named: &'a LedgerRules,
    /// Those in force: they know successors of keys that signed code of a transaction of before.
    pub in_force: &'a LedgerRules,
}

/// Whether a file is WebAssembly, and so could be run. Anything else is data.
pub(crate) fn is_code(file: &[u8]) -> bool {
    file.starts_with(b"\0asm")
}

/// Contract code of a host. All calls block: a few hundred microseconds, longer while code is compiled.
///
/// A [`Problem`] is trouble of this host and decides nothing.
pub(crate) trait Contracts: Send + Sync {
    /// The installed attachments.
    fn installed(&self) -> Vec<ContractAttachment>;

    /// An installed attachment. Does not block.
    fn find(&self, id: &SecureHash) -> Option<Attached>;

    /// An attachment that is installed on another host of this database. It is trusted as if it were installed here.
    ///
    /// # Errors
    /// Trouble of this host.
    fn find_elsewhere(&self, id: &SecureHash) -> Result<Option<Attached>, Problem>;

    /// The file of an attachment that is installed on this host, or on another of this database.
    ///
    /// # Errors
    /// Trouble of this host.
    fn file(&self, id: &SecureHash) -> Result<Option<Vec<u8>>, Problem>;

    /// Contract code that came from a peer, loaded if something vouches for it (`docs/behaviour.md` 10.22): it is the code of
    /// an installed file under other signatures, or it is signed by a key that has signed an installed file, or by one that was
    /// replaced by such a key or has replaced it, or the network parameters list it.
    ///
    /// # Errors
    /// Trouble of this host.
    fn admit(&self, file: &[u8], trusting: Trusting<'_>) -> Result<Result<Attached, Refused>, Problem>;

    /// Whether a file may be kept that a client of an identity brings. Data may. Code must be a sound contract, and something
    /// must vouch for it, as for that of a peer.
    ///
    /// # Errors
    /// `component-invalid` and its like, as whoever installs the file is told; `ledger-refused` if nothing vouches for it;
    /// trouble of this host.
    fn check_import(&self, file: &[u8], trusting: Trusting<'_>) -> Result<(), Problem>;

    /// What an output of this contract and type names as its schema, by the newest installed code. Successors of its publisher's
    /// key are those of these parameters.
    fn schema(&self, contract: &ContractId, type_name: &str, rules: &LedgerRules) -> Option<SchemaId>;

    /// Whether states of this contract and type may point to others, by the newest installed code. Does not block.
    fn has_pointers(&self, contract: &ContractId, type_name: &str, rules: &LedgerRules) -> bool;

    /// What the resolved pointers of a state lead to, by the newest installed code.
    ///
    /// # Errors
    /// Trouble of this host.
    fn pointers(
        &self,
        contract: &ContractId,
        type_name: &str,
        data: &Data,
        rules: &LedgerRules,
    ) -> Result<Result<Vec<Pointer>, Refused>, Problem>;

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

    /// What the code among these attachments says of a state, by the parameters of the transaction that they come with.
    ///
    /// # Errors
    /// Trouble of this host.
    fn describe(
        &self,
        state: &TransactionState,
        attachments: &[Attached],
        rules: &LedgerRules,
    ) -> Result<Result<OutputState, Refused>, Problem>;

    /// Looks again at what is installed. Blocking.
    fn rescan(&self);
}
