//! What the rules of the ledger need of a database.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use maxhost_group_commit::{Fault, FaultKind};
use maxhost_ledger::notary::{BatchStamp, Outcome};
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::locks::{ClaimId, Lease};
use maxhost_ledger::vault::recording::{Known, TransactionStatus};
use maxhost_ledger::vault::selection::Candidate;
use maxhost_model::{FlowRow, IdentityRow, SecureHash};

use super::op::{
    AssignedKey, Holding, KnownKey, NewAttachment, NewParameters, Settlement, StateContent, TransactionKind,
};
use super::requests::LoggedRequest;

/// How far a transaction has come, and its signatures.
#[derive(Debug, Clone)]
pub struct TransactionState {
    /// How far.
    pub status: TransactionStatus,
    /// Its signatures, encoded.
    pub signatures: Vec<u8>,
}

/// A transaction's row as it is to be.
#[derive(Debug)]
pub struct TransactionPut<'a> {
    /// The transaction.
    pub id: &'a SecureHash,
    /// How far it has come.
    pub status: TransactionStatus,
    /// Its signatures, encoded.
    pub signatures: &'a [u8],
    /// Who settles it from now on, if it is in flight; `None`: whoever does so far.
    pub settlement: Option<Settlement>,
    /// When it came, or became part of the ledger.
    pub recorded: Timestamp,
    /// Which kind it is.
    pub kind: TransactionKind,
    /// Its bytes.
    pub body: &'a Bytes,
    /// The transactions whose states it names.
    pub parents: &'a BTreeSet<SecureHash>,
}

/// A state that comes into the vault.
#[derive(Debug)]
pub struct NewState<'a> {
    /// The state's reference.
    pub reference: StateRef,
    /// What is kept of it.
    pub content: &'a StateContent,
    /// Whether it is one's own.
    pub relevant: bool,
    /// What has consumed it already.
    pub consumed_by: Option<SecureHash>,
    /// Who holds it from the start.
    pub lease: Option<FlowLease>,
    /// When it comes.
    pub recorded: Timestamp,
    /// The number of the change that brings it.
    pub change: i64,
}

/// A lease, and the flow that it ends with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowLease {
    /// The lease.
    pub lease: Lease,
    /// The flow.
    pub flow: FlowRow,
}

impl From<&Holding> for FlowLease {
    fn from(holding: &Holding) -> FlowLease {
        let lease = Lease { holder: holding.holder.clone(), claim: holding.claim, until: holding.until };
        FlowLease { lease, flow: holding.flow }
    }
}

/// Which states could be selected.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Of which type.
    pub type_name: &'a str,
    /// Of which token.
    pub token: &'a str,
    /// Owed by whom; `None`: by anybody.
    pub issuer: Option<&'a str>,
    /// Kept by whom; `None`: by anybody.
    pub notary: Option<&'a str>,
    /// Free for this holder.
    pub holder: &'a str,
    /// At this time.
    pub now: Timestamp,
}

/// Which candidates are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CandidateScope {
    /// Free ones of this bucket and above, the smallest bucket first.
    From(u8),
    /// Free ones, the largest bucket first.
    Largest,
    /// Free ones, the smallest bucket first.
    Smallest,
    /// All, held by others or inputs of a transaction in flight or neither, the largest bucket first.
    Any,
}

/// What a stand-in for a database says that keeps no ledgers.
fn no_ledgers() -> Fault {
    Fault::new(FaultKind::Other, "this database keeps no ledgers")
}

/// Rows of the ledger within a transaction. What a stand-in for a database does not implement it refuses. A candidate, or
/// a state with a lease, is one's own, not consumed and not an input of a transaction in flight; candidates of
/// [`CandidateScope::Any`] may be in flight, and say so.
#[allow(clippy::missing_errors_doc, unused_variables)]
pub trait LedgerRows {
    /// Whether it keeps ledgers at all. Units with operations on ledgers are refused if not.
    fn keeps_ledgers(&self) -> bool {
        false
    }

    /// A transaction's row.
    fn ledger_transaction(
        &mut self,
        identity: IdentityRow,
        id: &SecureHash,
    ) -> Result<Option<TransactionState>, Fault> {
        Err(no_ledgers())
    }

    /// Writes a transaction's row; `new`: there is none. Body and parents of one that is there stay as they are.
    fn put_transaction(&mut self, identity: IdentityRow, put: &TransactionPut<'_>, new: bool) -> Result<(), Fault> {
        Err(no_ledgers())
    }

    /// A transaction in flight is settled so; nothing happens to one that is not.
    fn set_settlement(&mut self, identity: IdentityRow, id: &SecureHash, by: Settlement) -> Result<(), Fault> {
        Err(no_ledgers())
    }

    /// Removes a transaction that never became part of the ledger.
    fn remove_transaction(&mut self, identity: IdentityRow, id: &SecureHash) -> Result<(), Fault> {
        Err(no_ledgers())
    }

    /// What the vault knows of a state.
    fn known_state(&mut self, identity: IdentityRow, state: &StateRef) -> Result<Known, Fault> {
        Err(no_ledgers())
    }

    /// Numbers a change of the vault, above all before.
    fn add_change(&mut self, identity: IdentityRow, transaction: &SecureHash, at: Timestamp) -> Result<i64, Fault> {
        Err(no_ledgers())
    }

    /// Adds a state; it is not there.
    fn add_state(&mut self, identity: IdentityRow, state: &NewState<'_>) -> Result<(), Fault> {
        Err(no_ledgers())
    }

    /// A state of the vault is consumed; its lock goes.
    fn consume_state(
        &mut self,
        identity: IdentityRow,
        state: &StateRef,
        by: &SecureHash,
        at: Timestamp,
        change: i64,
    ) -> Result<(), Fault> {
        Err(no_ledgers())
    }

    /// Remembers what has consumed a state, whether or not the vault has it. Once is enough.
    fn add_spent(&mut self, identity: IdentityRow, state: &StateRef, by: &SecureHash) -> Result<(), Fault> {
        Err(no_ledgers())
    }

    /// States of the vault are inputs of a transaction in flight: nobody selects them until it is settled, and any other that has
    /// noted the same before ([`crate::ledger::InFlight`]).
    fn set_in_flight(&mut self, identity: IdentityRow, states: &[StateRef], by: &SecureHash) -> Result<(), Fault> {
        Err(no_ledgers())
    }

    /// States are no inputs of this transaction in flight any more.
    fn clear_in_flight(&mut self, identity: IdentityRow, states: &[StateRef], by: &SecureHash) -> Result<(), Fault> {
        Err(no_ledgers())
    }

    /// States that could be selected.
    fn candidates(
        &mut self,
        identity: IdentityRow,
        wanted: &Wanted<'_>,
        scope: CandidateScope,
        limit: u32,
    ) -> Result<Vec<Candidate>, Fault> {
        Err(no_ledgers())
    }

    /// Who holds a state. `None`: it cannot be spent; `Some(None)`: nobody holds it.
    fn lease(&mut self, identity: IdentityRow, state: &StateRef) -> Result<Option<Option<Lease>>, Fault> {
        Err(no_ledgers())
    }

    /// Gives a state a lease. As with every lease that is written, the flow is noted in [`crate::Backlog::holds`].
    fn set_lease(&mut self, identity: IdentityRow, state: &StateRef, lease: &FlowLease) -> Result<(), Fault> {
        Err(no_ledgers())
    }

    /// The states that are held under a claim.
    fn claimed(&mut self, identity: IdentityRow, claim: &ClaimId, now: Timestamp) -> Result<Vec<StateRef>, Fault> {
        Err(no_ledgers())
    }

    /// Lengthens the leases of a holder that are not over.
    fn renew_leases(
        &mut self,
        identity: IdentityRow,
        holder: &str,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), Fault> {
        Err(no_ledgers())
    }

    /// Releases what a holder has; `states`: only these.
    fn release_leases(
        &mut self,
        identity: IdentityRow,
        holder: &str,
        states: Option<&BTreeSet<StateRef>>,
    ) -> Result<(), Fault> {
        Err(no_ledgers())
    }

    /// Releases what a flow has. Asked only for flows that [`crate::Backlog::holds`] knows.
    fn release_flow(&mut self, flow: FlowRow) -> Result<(), Fault> {
        Ok(())
    }

    /// The number and the time of a notary's next batch: both above, or for the time not below, those before.
    fn next_batch(&mut self, identity: IdentityRow, at: Timestamp) -> Result<BatchStamp, Fault> {
        Err(no_ledgers())
    }

    /// Of these states, those that a notary has committed as consumed, and by which transaction.
    fn consumers(
        &mut self,
        identity: IdentityRow,
        states: &BTreeSet<StateRef>,
    ) -> Result<BTreeMap<StateRef, SecureHash>, Fault> {
        Err(no_ledgers())
    }

    /// Of these transactions, those about which a notary has decided for ever.
    fn outcomes(
        &mut self,
        identity: IdentityRow,
        ids: &BTreeSet<SecureHash>,
    ) -> Result<BTreeMap<SecureHash, Outcome>, Fault> {
        Err(no_ledgers())
    }

    /// Commits a state as consumed.
    fn add_consumed(&mut self, identity: IdentityRow, state: &StateRef, by: &SecureHash) -> Result<(), Fault> {
        Err(no_ledgers())
    }

    /// Keeps what was decided for ever.
    fn add_outcome(&mut self, identity: IdentityRow, id: &SecureHash, outcome: Outcome) -> Result<(), Fault> {
        Err(no_ledgers())
    }

    /// Logs a request with what was decided about it.
    fn log_request(&mut self, identity: IdentityRow, request: &LoggedRequest) -> Result<(), Fault> {
        Err(no_ledgers())
    }

    /// Counts what a batch has decided: transactions that were committed for the first time, conflicts, states.
    fn count_batch(&mut self, identity: IdentityRow, committed: u64, conflicts: u64, states: u64) -> Result<(), Fault> {
        Err(no_ledgers())
    }

    /// Keeps an attachment, unless it is there.
    fn add_attachment(&mut self, identity: IdentityRow, attachment: &NewAttachment) -> Result<(), Fault> {
        Err(no_ledgers())
    }

    /// Keeps network parameters, unless they are there.
    fn add_parameters(&mut self, identity: IdentityRow, parameters: &NewParameters) -> Result<(), Fault> {
        Err(no_ledgers())
    }

    /// Keeps which external id a key has, unless it has one.
    fn assign_key(&mut self, identity: IdentityRow, assigned: &AssignedKey) -> Result<(), Fault> {
        Err(no_ledgers())
    }

    /// Keeps whose a key is, unless that is known.
    fn add_key(&mut self, identity: IdentityRow, known: &KnownKey) -> Result<(), Fault> {
        Err(no_ledgers())
    }
}
