//! What a batch changes in ledgers, in memory until it is written: each row at most once, as it is in the end.

use std::sync::Arc;

use bytes::Bytes;
use maxhost_ledger::notary::Outcome;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::recording::TransactionStatus;
use maxhost_model::{IdentityRow, SecureHash};
use maxhost_store::ledger::{
    AssignedKey, FlowLease, InFlight, KnownKey, LoggedRequest, NewAttachment, NewParameters, Settlement,
};

use crate::undo_map::UndoMap;

/// A state of an identity's vault, or one that it has committed as a notary.
pub(crate) type StateKey = (IdentityRow, StateRef);
/// A transaction of an identity's ledger.
pub(crate) type TransactionKey = (IdentityRow, SecureHash);

/// A transaction's row, as far as it changes.
#[derive(Debug, Clone)]
pub(crate) struct Transaction {
    pub number: i64,
    pub status: TransactionStatus,
    pub recorded: i64,
    pub signatures: Vec<u8>,
    pub settlement: Option<Settlement>,
}

/// What is written of a transaction once.
#[derive(Debug)]
pub(crate) struct NewTransaction {
    pub kind: i16,
    pub body: Bytes,
    /// Their ids, one behind the other.
    pub parents: Vec<u8>,
}

/// A transaction that a batch is about.
#[derive(Debug, Clone)]
pub(crate) struct TouchedTransaction {
    pub row: Transaction,
    /// The database has a row of it.
    pub stored: bool,
    /// It is no more.
    pub gone: bool,
    /// It came in this batch.
    pub new: Option<Arc<NewTransaction>>,
}

/// What has consumed a state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Consumed {
    pub by: SecureHash,
    pub at: i64,
    pub change: i64,
}

/// What selection looks at.
#[derive(Debug, Clone)]
pub(crate) struct Amount {
    pub token: Arc<str>,
    pub issuer: Option<Arc<str>>,
    pub quantity: u64,
}

/// A state's row, as far as it changes or decides something.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub number: i64,
    pub type_name: Arc<str>,
    pub notary: Arc<str>,
    pub amount: Option<Amount>,
    pub relevant: bool,
    pub consumed: Option<Consumed>,
    pub in_flight: InFlight,
    pub lease: Option<FlowLease>,
    /// It came in this batch.
    pub new: Option<Arc<NewState>>,
}

impl State {
    /// Whether its owner can spend it, if nobody else holds it.
    pub(crate) fn can_be_spent(&self) -> bool {
        self.is_unspent() && self.in_flight.is_empty()
    }

    /// Whether it is one's own and not consumed. It may be an input of a transaction in flight.
    pub(crate) fn is_unspent(&self) -> bool {
        self.relevant && self.consumed.is_none()
    }
}

/// What is written of a state once.
#[derive(Debug)]
pub(crate) struct NewState {
    pub constraint: String,
    pub recorded: i64,
    pub change: i64,
    pub state: Bytes,
    pub participants: Vec<u8>,
    pub fields: Vec<u8>,
    /// Names and sort keys of the fields that have rows of their own.
    pub indexed: Vec<(String, Vec<u8>)>,
    pub linear_id: Option<String>,
}

/// A change of a vault.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub transaction: SecureHash,
    pub at: i64,
}

/// The newest batch of a notary, and what it has decided in all.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Notary {
    pub batch: i64,
    pub at: i64,
    pub committed: i64,
    pub conflicts: i64,
    pub states: i64,
}

/// What a batch changes in ledgers.
#[derive(Debug, Default)]
pub(crate) struct LedgerPending {
    pub transactions: UndoMap<TransactionKey, TouchedTransaction>,
    pub states: UndoMap<StateKey, State>,
    pub spent: UndoMap<StateKey, SecureHash>,
    pub changes: UndoMap<(IdentityRow, i64), Change>,
    pub notaries: UndoMap<IdentityRow, Notary>,
    pub consumers: UndoMap<StateKey, SecureHash>,
    pub outcomes: UndoMap<TransactionKey, Outcome>,
    /// By their order.
    pub requests: UndoMap<(IdentityRow, u64), LoggedRequest>,
    requests_next: u64,
    pub attachments: UndoMap<TransactionKey, NewAttachment>,
    /// By their hash.
    pub parameters: UndoMap<TransactionKey, NewParameters>,
    /// By the fingerprint of the key.
    pub keys: UndoMap<TransactionKey, KnownKey>,
    /// By the fingerprint of the key.
    pub assigned: UndoMap<TransactionKey, AssignedKey>,
}

macro_rules! each {
    ($pending:ident.$method:ident) => {{
        $pending.transactions.$method();
        $pending.states.$method();
        $pending.spent.$method();
        $pending.changes.$method();
        $pending.notaries.$method();
        $pending.consumers.$method();
        $pending.outcomes.$method();
        $pending.requests.$method();
        $pending.attachments.$method();
        $pending.parameters.$method();
        $pending.keys.$method();
        $pending.assigned.$method();
    }};
}

impl LedgerPending {
    /// A unit begins.
    pub(crate) fn mark(&mut self) {
        each!(self.mark);
    }

    /// What was changed since the mark never was.
    pub(crate) fn undo(&mut self) {
        each!(self.undo);
    }

    pub(crate) fn clear(&mut self) {
        each!(self.clear);
    }

    /// Whether nothing changes in any ledger.
    pub(crate) fn is_empty(&self) -> bool {
        self.transactions.is_empty()
            && self.states.is_empty()
            && self.spent.is_empty()
            && self.changes.is_empty()
            && self.notaries.is_empty()
            && self.consumers.is_empty()
            && self.outcomes.is_empty()
            && self.requests.is_empty()
            && self.attachments.is_empty()
            && self.parameters.is_empty()
            && self.keys.is_empty()
            && self.assigned.is_empty()
    }

    /// The states of an identity that are changed.
    pub(crate) fn states_of(&self, identity: IdentityRow) -> impl Iterator<Item = (StateRef, &State)> {
        let first = StateRef::new(SecureHash::from_bytes([0; 32]), 0);
        let last = StateRef::new(SecureHash::from_bytes([u8::MAX; 32]), u32::MAX);
        self.states.range((identity, first)..=(identity, last)).map(|((_, reference), state)| (*reference, state))
    }

    pub(crate) fn push_request(&mut self, identity: IdentityRow, request: LoggedRequest) {
        self.requests.put((identity, self.requests_next), request);
        self.requests_next += 1;
    }
}
