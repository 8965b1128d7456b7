//! What recording a transaction does to a vault (behaviour.md 12.1).

use std::collections::{BTreeMap, BTreeSet};

use maxhost_model::{PublicKey, SecureHash};

use crate::keys::leaves;
use crate::refused::{Refused, Result};
use crate::rules::Rule;
use crate::tx::{MAX_SIGNATURES, StateRef, TransactionSignature};

/// What is to be recorded of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StatesToRecord {
    /// The transaction alone.
    None,
    /// The outputs that are one's own, and what becomes of known states.
    #[default]
    OnlyRelevant,
    /// All outputs; those that are not one's own are marked.
    AllVisible,
}

impl StatesToRecord {
    /// As it is stored.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            StatesToRecord::None => 0,
            StatesToRecord::OnlyRelevant => 1,
            StatesToRecord::AllVisible => 2,
        }
    }

    /// The choice of a number, as it is stored.
    #[must_use]
    pub fn of(number: i64) -> Option<StatesToRecord> {
        match number {
            0 => Some(StatesToRecord::None),
            1 => Some(StatesToRecord::OnlyRelevant),
            2 => Some(StatesToRecord::AllVisible),
            _ => None,
        }
    }
}

/// What a contract says of a state, as far as recording looks at it.
#[derive(Debug, Clone, Default)]
pub struct Described {
    /// The keys that care.
    pub participants: Vec<PublicKey>,
    /// The key that may spend it, for a state with an owner.
    pub owner: Option<PublicKey>,
    /// Whether it is an amount of a token.
    pub fungible: bool,
}

/// Whether a state is one's own: its owner's key is, or, without an owner, that of a participant. A composite key is if one
/// of its parts is.
pub fn is_relevant(described: &Described, own: impl Fn(&PublicKey) -> bool) -> bool {
    let any_own = |key: &PublicKey| own(key) || leaves(key).iter().any(&own);
    match &described.owner {
        Some(owner) => any_own(owner),
        None => described.participants.iter().any(any_own),
    }
}

/// What a vault knows of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// Whether it is in the vault, and if so whether it is consumed.
    pub in_vault: Option<Kept>,
    /// The recorded transaction that consumes it, whether or not the vault has the state.
    pub spent_by: Option<SecureHash>,
}

/// A state in the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It can be spent.
    Unconsumed,
    /// It cannot.
    Consumed,
}

/// A transaction to record, verified and signed by all who must.
#[derive(Debug, Clone)]
pub struct ToRecord {
    /// The transaction.
    pub id: SecureHash,
    /// The states that it consumes.
    pub inputs: Vec<StateRef>,
    /// The states that it looks at.
    pub references: Vec<StateRef>,
    /// What its contracts say of its outputs, in order.
    pub outputs: Vec<Described>,
}

/// A state that comes into the vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Produced {
    /// The state.
    pub reference: StateRef,
    /// Whether it is one's own.
    pub relevant: bool,
    /// The transaction that has consumed it already, because a later one was recorded first.
    pub consumed_by: Option<SecureHash>,
    /// Whether the flow that records it holds it from the start.
    pub locked: bool,
}

/// What recording a transaction changes in a vault.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VaultChange {
    /// States that come in.
    pub produced: Vec<Produced>,
    /// States of the vault that are consumed now; their locks go.
    pub consumed: Vec<StateRef>,
    /// States that it looks at and the vault lacks, with what has consumed them already.
    pub referenced: Vec<(StateRef, Option<SecureHash>)>,
    /// Inputs to remember as spent, whether or not the vault has them.
    pub spent: Vec<StateRef>,
}

impl VaultChange {
    /// Whether anybody needs to be told.
    #[must_use]
    pub fn is_news(&self) -> bool {
        !self.produced.is_empty() || !self.consumed.is_empty() || !self.referenced.is_empty()
    }
}

/// Decides what recording changes. Recording again adds what was left out before, changes nothing else, and never makes a
/// consumed state spendable again. `in_flow` says that a flow records it.
///
/// # Errors
/// [`Rule::RecordingInvalid`] if an input was consumed by another recorded transaction: what both notaries say cannot be
/// true, so nothing is changed.
pub fn plan_recording(
    transaction: &ToRecord,
    what: StatesToRecord,
    known: impl Fn(&StateRef) -> Known,
    own: impl Fn(&PublicKey) -> bool,
    in_flow: bool,
) -> Result<VaultChange> {
    let mut change = VaultChange::default();
    let mut touches_own = what == StatesToRecord::AllVisible;
    for input in &transaction.inputs {
        let state = known(input);
        match state.spent_by {
            Some(other) if other != transaction.id => {
                let message = format!("the state {input} was consumed by the recorded transaction {other} already");
                return Err(Refused::new(Rule::RecordingInvalid, message).of(transaction.id).detail("state", input));
            }
            Some(_) => {}
            None => change.spent.push(*input),
        }
        touches_own |= state.in_vault.is_some();
        if state.in_vault == Some(Kept::Unconsumed) {
            change.consumed.push(*input);
        }
    }
    if what == StatesToRecord::None {
        // A state that is in the vault is consumed whatever was asked for; nothing comes in.
        return Ok(change);
    }
    for (index, described) in (0_u32..).zip(&transaction.outputs) {
        let reference = StateRef::new(transaction.id, index);
        let relevant = is_relevant(described, &own);
        touches_own |= relevant;
        let state = known(&reference);
        if state.in_vault.is_some() || !(relevant || what == StatesToRecord::AllVisible) {
            continue;
        }
        let locked = in_flow && described.fungible && relevant && state.spent_by.is_none();
        change.produced.push(Produced { reference, relevant, consumed_by: state.spent_by, locked });
    }
    if touches_own {
        let unseen = transaction.references.iter().map(|reference| (*reference, known(reference)));
        let unseen = unseen.filter(|(_, state)| state.in_vault.is_none());
        change.referenced = unseen.map(|(reference, state)| (reference, state.spent_by)).collect();
    }
    Ok(change)
}

/// Sorts a batch so that each transaction comes behind those of the batch that it depends on, and else as it was given.
///
/// # Errors
/// [`Rule::RecordingInvalid`] if they depend on each other in a circle, or one is given twice.
pub fn topological(batch: &[ToRecord]) -> Result<Vec<usize>> {
    let mut places = BTreeMap::new();
    for (at, transaction) in batch.iter().enumerate() {
        if places.insert(transaction.id, at).is_some() {
            let message = "a transaction is given twice in one batch";
            return Err(Refused::new(Rule::RecordingInvalid, message).of(transaction.id));
        }
    }
    let mut waiting_for: Vec<BTreeSet<usize>> = Vec::with_capacity(batch.len());
    let mut waited_for_by: Vec<Vec<usize>> = vec![Vec::new(); batch.len()];
    for (at, transaction) in batch.iter().enumerate() {
        let named = transaction.inputs.iter().chain(&transaction.references);
        let before: BTreeSet<usize> = named.filter_map(|state| places.get(&state.tx).copied()).collect();
        for earlier in &before {
            waited_for_by[*earlier].push(at);
        }
        waiting_for.push(before);
    }
    let mut ready: BTreeSet<usize> = (0..batch.len()).filter(|at| waiting_for[*at].is_empty()).collect();
    let mut order = Vec::with_capacity(batch.len());
    while let Some(at) = ready.pop_first() {
        order.push(at);
        for later in &waited_for_by[at] {
            waiting_for[*later].remove(&at);
            if waiting_for[*later].is_empty() {
                ready.insert(*later);
            }
        }
    }
    if order.len() < batch.len() {
        return Err(Refused::new(Rule::RecordingInvalid, "transactions depend on each other in a circle"));
    }
    Ok(order)
}

/// How far a transaction has come in a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransactionStatus {
    /// Its bytes are here; nothing is verified.
    Unverified,
    /// It was sent to the notary, and no answer is recorded.
    InFlight,
    /// It is part of the ledger, for ever.
    Verified,
}

/// What happens to a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionEvent {
    /// Its bytes came in, on the way to something else.
    Downloaded,
    /// It is about to be sent to the notary, or a peer is about to.
    SentToNotary,
    /// It is complete: verified, with all signatures.
    Finalised,
    /// The notary has refused it for ever.
    Refused,
}

/// A transaction's row: its status, and all signatures that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionRow {
    /// How far it has come.
    pub status: TransactionStatus,
    /// The signatures that were seen, each once: at most [`MAX_SIGNATURES`], all that are needed among them.
    pub signatures: Vec<TransactionSignature>,
}

/// What becomes of a row: `None` if there is none any more. The flag says that the transaction has just become part of the
/// ledger: of all that finalise it exactly one sees that.
#[must_use]
pub fn after(
    row: Option<TransactionRow>,
    event: TransactionEvent,
    signatures: &[TransactionSignature],
) -> (Option<TransactionRow>, bool) {
    use TransactionStatus::{InFlight, Unverified, Verified};
    let before = row.as_ref().map(|row| row.status);
    let status = match (before, event) {
        // What is verified stays so.
        (Some(Verified), _) | (_, TransactionEvent::Finalised) => Verified,
        (_, TransactionEvent::SentToNotary) => InFlight,
        (Some(InFlight), TransactionEvent::Downloaded) => InFlight,
        (_, TransactionEvent::Downloaded) => Unverified,
        (Some(InFlight), TransactionEvent::Refused) => return (None, false),
        (None, TransactionEvent::Refused) => return (None, false),
        (Some(Unverified), TransactionEvent::Refused) => Unverified,
    };
    let known = row.map_or_else(Vec::new, |row| row.signatures);
    // What finalises it has every signature that it needs, and so has what is verified: these go first, and what is needless
    // is left out when there is no room.
    let (first, then) = match event {
        TransactionEvent::Finalised if before != Some(Verified) => (signatures, known.as_slice()),
        _ => (known.as_slice(), signatures),
    };
    let mut all: Vec<TransactionSignature> = Vec::with_capacity(first.len());
    for signature in first.iter().chain(then) {
        if all.len() < MAX_SIGNATURES && !all.contains(signature) {
            all.push(signature.clone());
        }
    }
    let announced = status == Verified && before != Some(Verified);
    (Some(TransactionRow { status, signatures: all }), announced)
}
