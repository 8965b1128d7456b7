//! The messages of the platform's protocols, CBOR on sessions of flows.

use maxhost_ledger::notary::NotaryError;
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::{StateRef, TransactionSignature};
use maxhost_model::{SecureHash, octets};
use serde::{Deserialize, Serialize};

/// Bytes that are the encoding of something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Encoded(#[serde(with = "octets")] pub Vec<u8>);

/// From one who has a transaction to give.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum FromVendor {
    /// A transaction, with the signatures that it has.
    Transaction(Encoded),
    /// What was asked for, as far as it fits a message, in the order asked for; the rest may be asked for again.
    Fetched(Vec<Encoded>),
    /// A part of a transaction, for one who signs and is not to see the rest.
    TearOff(Encoded),
    /// A piece of an attachment, or of network parameters with what proves them.
    Piece(Piece),
}

/// A piece of a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Piece {
    /// How many bytes the whole file has; none, if it is not there.
    pub size: u64,
    /// Those of the piece.
    #[serde(with = "octets")]
    pub bytes: Vec<u8>,
}

/// States that one side gives to the other, by their references; the transactions that made them follow, each once, in the
/// order in which they are named.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct GivenStates(pub Vec<String>);

/// From one who gets a transaction.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum ToVendor {
    /// Gives transactions of the back-chain.
    FetchChain(Wanted),
    /// Gives a piece of an attachment.
    FetchAttachment(WantedPiece),
    /// Gives a piece of network parameters, with what proves them.
    FetchParameters(WantedPiece),
    /// Nothing more is needed: all is verified and recorded as far as it goes.
    Done,
    /// As [`ToVendor::Done`], with signatures that were asked for.
    Signed(Vec<TransactionSignature>),
}

/// From one who asks about keys of the other side, with what it has drawn for this question. The answer is a list of
/// statements, each encoded ([`maxhost_ledger::keys::SignedKeyStatement`]).
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum ToKeyOwner {
    /// Makes a key that nobody has seen, and gives it.
    NewKey(Encoded),
    /// As a new key, for what the asked party knows by an external id.
    NewKeyFor {
        /// As that of a new key.
        challenge: Encoded,
        /// The external id.
        external_id: String,
    },
    /// Tells of keys that are in use.
    SharedKeys(Encoded),
}

/// Transactions of the back-chain of one that was given on this session.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// These are not needed, but those that they name may be: each comes behind one that names it.
    pub here: Vec<SecureHash>,
    /// These are needed. Each is named by one that was given on this session, or is `here`.
    pub ids: Vec<SecureHash>,
    /// So many more may come behind them, of those that they come from, breadth first.
    pub ahead: u32,
}

/// A piece of an attachment of a transaction, or of the network parameters that it names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WantedPiece {
    /// The transaction: one of those that were given, or said to be here, in the last message about transactions.
    pub of: SecureHash,
    /// The attachment, or the hash of the parameters.
    pub id: SecureHash,
    /// The first byte.
    pub from: u64,
}

/// What became of a transaction that waited for its notary.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum NotaryOutcome {
    /// The notary's signatures.
    Notarised(Vec<TransactionSignature>),
    /// It was refused.
    Refused(NotaryError),
}

/// Asks a notary what it has decided about a transaction. A release that could not name states sent the id alone.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WhatIsDecided {
    /// The transaction.
    pub id: SecureHash,
    /// The states that it consumes or looks at: if another has consumed one of them, it will never be committed.
    pub states: Vec<StateRef>,
}

/// What a notary says that it has decided about a transaction.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Decided {
    /// It is committed: the notary's signatures.
    Signed(Vec<TransactionSignature>),
    /// It was asked for too late.
    TooLate,
    /// One of the states that were named is consumed by another transaction.
    Conflict,
    /// Nothing, until this time of its clock.
    Nothing(Timestamp),
}

/// A notary's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum NotaryAnswer {
    /// Many wait: it will take about so long, milliseconds.
    Wait(u64),
    /// It does not know the network parameters that the transaction names: the caller gives a piece of them, as [`FromVendor::Piece`].
    FetchParameters(WantedPiece),
    /// Its signatures.
    Signed(Vec<TransactionSignature>),
    /// Why it does not sign.
    Refused(NotaryError),
}
