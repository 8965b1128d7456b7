//! The operations on an identity's ledger.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use maxhost_ledger::notary::{Outcome, UniquenessRequest, Verdict};
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::{StateRef, TransactionSignature};
use maxhost_ledger::vault::locks::{ClaimId, Holder, NotAvailable};
use maxhost_ledger::vault::query::Value;
use maxhost_ledger::vault::recording::{Described, StatesToRecord, TransactionEvent};
use maxhost_ledger::vault::selection::SelectionFailure;
use maxhost_model::{FlowRow, PublicKey, SecureHash};

/// One operation on the ledger of the unit's identity.
#[derive(Debug, Clone)]
pub enum LedgerOp {
    /// Something happened to a transaction (`docs/behaviour.md` 12.1). Recording one that contradicts the ledger fails the
    /// unit with [`crate::StoreError::Ledger`].
    Record(Box<Recording>),
    /// A transaction in flight is settled so from now on. Nothing happens to one that is not in flight.
    Settle {
        /// The transaction.
        id: SecureHash,
        /// By whom, and how.
        settlement: Settlement,
    },
    /// What the unit's identity has decided for ever as a notary about a transaction. If that is nothing, all that it decides
    /// from now on it decides at this time or later: whoever is told so can rely on it, however the clock is set.
    Outcome {
        /// The transaction.
        id: SecureHash,
        /// The states that it consumes or looks at, as far as they are known to whoever asks.
        states: BTreeSet<StateRef>,
        /// The notary's clock.
        at: Timestamp,
    },
    /// Selects and locks states for an amount, in one step (`docs/behaviour.md` 12.3). That there are too few is an answer
    /// and no failure of the unit.
    Claim(Box<ClaimOp>),
    /// Locks exactly these states, or none.
    Reserve(Box<Reservation>),
    /// Lengthens the leases of a holder.
    Renew {
        /// The flow whose leases these are.
        holder: Holder,
        /// Until when.
        until: Timestamp,
        /// The time.
        now: Timestamp,
    },
    /// Releases these states of a holder, or all.
    Release {
        /// The flow whose locks these are.
        holder: Holder,
        /// Which; `None`: all.
        states: Option<BTreeSet<StateRef>>,
    },
    /// Decides requests to the unit's identity as a notary, in order (`docs/behaviour.md` 11.3, 11.4).
    Notarise(Box<NotaryOp>),
    /// Keeps an attachment. One that is there stays as it is.
    Attach(Box<NewAttachment>),
    /// Keeps whose a key is. What is kept of a key stays as it is.
    AddKey(Box<KnownKey>),
    /// Keeps which external id a key of the identity's own has. What is kept of a key stays as it is.
    AssignKey(Box<AssignedKey>),
    /// Keeps network parameters, so that transactions that name them can be judged when others are in force. Those that are
    /// there stay as they are.
    KeepParameters(Box<NewParameters>),
    /// Removes those of these transactions of which no more than the bytes are here.
    Forget(Vec<SecureHash>),
}

/// Whether a transaction is an ordinary one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionKind {
    /// It is.
    Ordinary,
    /// It changes the notary of its states.
    NotaryChange,
}

impl TransactionKind {
    /// As it is stored.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            TransactionKind::Ordinary => 0,
            TransactionKind::NotaryChange => 1,
        }
    }

    /// The kind of a number, as it is stored.
    #[must_use]
    pub fn of(number: i64) -> Option<TransactionKind> {
        match number {
            0 => Some(TransactionKind::Ordinary),
            1 => Some(TransactionKind::NotaryChange),
            _ => None,
        }
    }
}

/// An event of a transaction, with all that recording needs to know of it.
#[derive(Debug, Clone)]
pub struct Recording {
    /// What happened.
    pub event: TransactionEvent,
    /// The transaction.
    pub id: SecureHash,
    /// Which kind of transaction it is.
    pub kind: TransactionKind,
    /// Its bytes as they travel, without signatures.
    pub body: Bytes,
    /// Signatures that came with it.
    pub signatures: Vec<TransactionSignature>,
    /// The states that it consumes.
    pub inputs: Vec<StateRef>,
    /// The states that it looks at, with what they say where that is known.
    pub references: Vec<(StateRef, Option<StateContent>)>,
    /// Its outputs, in order; none are needed unless it is finalised.
    pub outputs: Vec<OutputState>,
    /// What of its states is recorded.
    pub what: StatesToRecord,
    /// The identity's own keys.
    pub own_keys: BTreeSet<PublicKey>,
    /// The network parameters that it names, unless they are known to be kept.
    pub parameters: Option<NewParameters>,
    /// The flow that records it, and holds the fungible states that it makes.
    pub flow: Option<Holding>,
    /// Who settles it, if it is in flight from now on.
    pub settlement: Option<Settlement>,
    /// The time.
    pub at: Timestamp,
}

/// How a transaction in flight is settled, should its flow end before it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It is being given to those whom it concerns, and the notary was never asked: it is taken back.
    Giving,
    /// The notary was asked, or may have been: it is asked again.
    Asking,
    /// It came from whoever asks the notary: the notary is asked what it decided, and not to decide.
    Awaiting,
}

impl Part {
    /// As it is stored.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            Part::Giving => 0,
            Part::Asking => 1,
            Part::Awaiting => 2,
        }
    }

    /// The part of a number, as it is stored.
    #[must_use]
    pub fn of(number: i64) -> Option<Part> {
        match number {
            0 => Some(Part::Giving),
            1 => Some(Part::Asking),
            2 => Some(Part::Awaiting),
            _ => None,
        }
    }
}

/// Who settles a transaction in flight, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// The flow that does while it lives.
    pub flow: FlowRow,
    /// What it does.
    pub part: Part,
    /// Which of its states come into the vault.
    pub states: StatesToRecord,
}

/// A flow as the holder of locks. They end with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Its row.
    pub flow: FlowRow,
    /// The holder: a text with its id.
    pub holder: Holder,
    /// The claim.
    pub claim: ClaimId,
    /// The end of the lease.
    pub until: Timestamp,
}

/// An output, as its contract describes it.
#[derive(Debug, Clone)]
pub struct OutputState {
    /// What decides whether it is recorded.
    pub described: Described,
    /// What is kept of it.
    pub content: StateContent,
}

/// What a vault keeps of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateContent {
    /// Contract and type, as `cash/Cash`.
    pub type_name: String,
    /// The encoded output component.
    pub state: Bytes,
    /// The name of its notary.
    pub notary: String,
    /// The kind of its constraint.
    pub constraint: String,
    /// The names of its participants, and the fingerprints of their keys.
    pub participants: BTreeSet<String>,
    /// The fields of its data, for queries.
    pub fields: BTreeMap<String, Value>,
    /// Its amount, if it is fungible and can be spent by itself: what has one can be selected.
    pub amount: Option<TokenAmount>,
    /// Its linear id, if it has one.
    pub linear_id: Option<String>,
}

/// An amount of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenAmount {
    /// The token, such as `GBP`.
    pub token: String,
    /// The name of who owes it, if anybody does.
    pub issuer: Option<String>,
    /// How much, in the smallest unit.
    pub quantity: u64,
}

/// A claim for an amount. Repeating it gives the states that it got the first time, as long as they are held.
#[derive(Debug, Clone)]
pub struct ClaimOp {
    /// Of which type, as `cash/Cash`.
    pub type_name: String,
    /// Of which token.
    pub token: String,
    /// Owed by whom; `None`: by anybody.
    pub issuer: Option<String>,
    /// Kept by this notary; `None`: by any.
    pub notary: Option<String>,
    /// How much.
    pub quantity: u64,
    /// Who will hold the states, under which claim, until when.
    pub holding: Holding,
    /// The time.
    pub now: Timestamp,
    /// Decides among states that serve equally well.
    pub seed: u64,
}

/// States to be locked, all of them or none.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// The states that are locked, all or none.
    pub states: BTreeSet<StateRef>,
    /// For whom.
    pub holding: Holding,
    /// The time.
    pub now: Timestamp,
}

/// Requests to a notary.
#[derive(Debug, Clone)]
pub struct NotaryOp {
    /// In the order of their arrival, each with its caller.
    pub requests: Vec<(String, UniquenessRequest)>,
    /// The notary's clock.
    pub at: Timestamp,
}

/// An attachment to keep.
#[derive(Debug, Clone)]
pub struct NewAttachment {
    /// SHA-256 of the file.
    pub id: SecureHash,
    /// The file.
    pub body: Bytes,
    /// Where it came from: `local`, `p2p:` and the name of a peer, or `rpc:` and the name of a user.
    pub uploader: String,
    /// The time.
    pub at: Timestamp,
}

/// Network parameters to keep, with what proves that the network's operator made them.
#[derive(Debug, Clone)]
pub struct NewParameters {
    /// By which transactions name them: SHA-256 of the parameters alone.
    pub hash: SecureHash,
    /// The parameters with the signature and its certificates, as they are given to others. Opaque here.
    pub body: Bytes,
    /// The time.
    pub at: Timestamp,
}

/// A key that states may name without a party, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// The key.
    pub key: PublicKey,
    /// The name of the party.
    pub party: String,
    /// What the key is derived from, if it is the identity's own. It is no secret.
    pub nonce: Option<[u8; 32]>,
    /// Since when it is known.
    pub at: Timestamp,
}

/// Which external id a key has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedKey {
    /// The fingerprint of the key.
    pub id: SecureHash,
    /// The external id.
    pub external_id: String,
    /// Since when.
    pub at: Timestamp,
}

/// What a notary says that it has decided about a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecidedSoFar {
    /// This, for ever.
    Outcome(Outcome),
    /// Another transaction has consumed one of its states, so it will never be committed.
    Conflict,
    /// Nothing. What it decides later has this time, or a later one.
    Nothing(Timestamp),
}

/// What an operation on the ledger answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerReceipt {
    /// A transaction was recorded. True: it has just become part of the ledger.
    Recorded(bool),
    /// States were claimed, or why not.
    Claimed(Result<Vec<StateRef>, SelectionFailure>),
    /// States were reserved, or which could not be.
    Reserved(Result<(), NotAvailable>),
    /// Requests were decided, in their order.
    Notarised(Vec<Verdict>),
    /// What was decided for ever.
    Outcome(DecidedSoFar),
}

impl LedgerOp {
    /// Bytes that it holds in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        const STATE: usize = 256;
        match self {
            LedgerOp::Record(recording) => {
                let outputs = recording.outputs.iter().map(|output| STATE + 3 * output.content.state.len());
                let parameters = recording.parameters.as_ref().map_or(0, |parameters| parameters.body.len());
                recording.body.len()
                    + parameters
                    + outputs.sum::<usize>()
                    + STATE * (recording.inputs.len() + recording.signatures.len())
            }
            LedgerOp::Claim(_) | LedgerOp::Renew { .. } | LedgerOp::Settle { .. } => STATE,
            LedgerOp::Outcome { states, .. } => STATE + 64 * states.len(),
            LedgerOp::Reserve(reservation) => STATE + 64 * reservation.states.len(),
            LedgerOp::Release { states, .. } => STATE + 64 * states.as_ref().map_or(0, BTreeSet::len),
            LedgerOp::Notarise(batch) => batch
                .requests
                .iter()
                .map(|(_, request)| STATE + 64 * (request.inputs.len() + request.references.len()))
                .sum(),
            LedgerOp::Attach(attachment) => STATE + attachment.body.len(),
            LedgerOp::KeepParameters(parameters) => STATE + parameters.body.len(),
            LedgerOp::AddKey(known) => STATE + known.key.spki().len() + known.party.len(),
            LedgerOp::AssignKey(assigned) => STATE + assigned.external_id.len(),
            LedgerOp::Forget(ids) => STATE + 64 * ids.len(),
        }
    }
}
