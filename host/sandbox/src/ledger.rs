//! What a flow asks of its identity's ledger, as plain data between WIT and the host.

use crate::party::GuestParty;
use crate::recording::RecordingCall;

/// A call of the interface `maxhost:cordapp/ledger`.
#[derive(Debug, Clone)]
pub enum LedgerCall {
    /// The notaries of the network.
    Notaries,
    /// Builds, verifies and signs a transaction.
    Build(TransactionDraft),
    /// Collects the signatures that are missing.
    Collect {
        /// The transaction.
        transaction: Vec<u8>,
        /// With those who sign.
        sessions: Vec<u32>,
    },
    /// Gets a transaction to sign.
    ReceiveToSign {
        /// From here.
        session: u32,
    },
    /// Signs, and gives the signature.
    ReturnSignature {
        /// To whom.
        session: u32,
        /// The transaction.
        transaction: Vec<u8>,
    },
    /// Asks for a signature over a transaction of which a part is shown.
    CollectOnTearOff {
        /// The transaction.
        transaction: Vec<u8>,
        /// With whoever signs.
        session: u32,
        /// What is shown.
        shown: ShownParts,
    },
    /// Gets a part of a transaction to sign the whole.
    ReceiveTearOff {
        /// From here.
        session: u32,
    },
    /// Signs a transaction of which a part is known, and gives the signature.
    SignTearOff {
        /// To whom.
        session: u32,
        /// The part.
        tear_off: Vec<u8>,
    },
    /// Makes a transaction part of the ledger of everybody whom it concerns.
    Finalise {
        /// The transaction.
        transaction: Vec<u8>,
        /// With them.
        sessions: Vec<u32>,
    },
    /// Gets a transaction that becomes part of the ledger.
    ReceiveFinality {
        /// From here.
        session: u32,
        /// Its id, if it is known before.
        expected: Option<String>,
    },
    /// Gives states.
    SendStates {
        /// To whom.
        session: u32,
        /// References of the states, `ID:INDEX`.
        references: Vec<String>,
    },
    /// Gets states.
    ReceiveStates {
        /// From here.
        session: u32,
    },
    /// Selects and locks states.
    Select(AmountWanted),
    /// Locks states.
    Lock {
        /// References of the states, `ID:INDEX`.
        references: Vec<String>,
    },
    /// Locks a state with those that encumber each other in one circle with it.
    LockTogether {
        /// The state's reference, `ID:INDEX`.
        reference: String,
    },
    /// Finds states.
    Query(VaultQuery),
    /// Finds what a pointer leads to.
    Resolve(GuestPointer),
    /// Has another notary keep a state, with all that it can only be spent together with.
    ChangeNotary {
        /// The state's reference, `ID:INDEX`.
        reference: String,
        /// The name of the notary that is to keep it.
        notary: String,
    },
    /// Gets a change of notary to sign.
    ReceiveNotaryChange {
        /// The session with whoever proposes it.
        session: u32,
    },
    /// Signs a change of notary, and takes part in it until it is recorded.
    AcceptNotaryChange {
        /// The session with whoever proposes it.
        session: u32,
        /// The change.
        change: Vec<u8>,
    },
    /// Makes a key of the identity's own.
    FreshKey,
    /// Makes a key of the identity's own for what is known by an external id.
    FreshKeyFor {
        /// The external id.
        external_id: String,
    },
    /// The external id for which a key was made.
    ExternalIdOfKey {
        /// SubjectPublicKeyInfo, DER.
        key: Vec<u8>,
    },
    /// The keys that were made for an external id.
    KeysOfExternalId {
        /// The external id.
        external_id: String,
        /// Only those behind this fingerprint, hexadecimal.
        after: Option<String>,
    },
    /// Asks for a new key for what the other side knows by an external id.
    RequestKeyFor {
        /// The session with whoever is asked.
        session: u32,
        /// The external id.
        external_id: String,
    },
    /// Makes a key for an external id and gives it.
    ProvideKeyFor {
        /// The session with whoever gets it.
        session: u32,
        /// The external id; `None`: that which is asked for.
        external_id: Option<String>,
    },
    /// Whose key this is.
    PartyOfKey {
        /// SubjectPublicKeyInfo, DER.
        key: Vec<u8>,
    },
    /// Asks for a new key.
    RequestKey {
        /// The session with whoever is asked or told.
        session: u32,
    },
    /// Makes a key and gives it.
    ProvideKey {
        /// The session with whoever gets it.
        session: u32,
    },
    /// Tells that keys are the identity's own.
    ShareKeys {
        /// The session with whoever is asked or told.
        session: u32,
        /// Each as SubjectPublicKeyInfo, DER.
        keys: Vec<Vec<u8>>,
    },
    /// Learns whose keys are.
    ReceiveKeys {
        /// The session with whoever tells.
        session: u32,
    },
    /// Signs with several keys, and gives the signatures.
    ReturnSignatures {
        /// The session with whoever gets it.
        session: u32,
        /// The transaction.
        transaction: Vec<u8>,
        /// Each as SubjectPublicKeyInfo, DER.
        keys: Vec<Vec<u8>>,
    },
    /// Gives, gets or finalises a transaction with a choice of what is recorded of it.
    Recording(RecordingCall),
    /// Keeps a file to be attached.
    Attach {
        /// The file.
        file: Vec<u8>,
    },
    /// The bytes of an attachment.
    OpenAttachment {
        /// Its id, hexadecimal.
        id: String,
    },
    /// Waits until a transaction is part of the ledger.
    AwaitCommit {
        /// Its id, hexadecimal.
        id: String,
        /// Until when, milliseconds since 1970.
        deadline: Option<u64>,
    },
    /// Waits until states are consumed, all of them.
    AwaitConsumption {
        /// References of the states, `ID:INDEX`.
        references: Vec<String>,
        /// Until when, milliseconds since 1970.
        deadline: Option<u64>,
    },
}

/// The answer to a [`LedgerCall`].
#[derive(Debug, Clone)]
pub enum LedgerAnswer {
    /// The call is done, and there is nothing to tell.
    Done,
    /// The external id of a key, if it has one.
    ExternalId(Option<String>),
    /// A key that was given, and the external id that it has.
    ProvidedKey {
        /// The key.
        key: GuestKey,
        /// The external id.
        external_id: Option<String>,
    },
    /// Parties that were asked for.
    Parties(Vec<GuestParty>),
    /// A transaction.
    Transaction(GuestTransaction),
    /// States that were asked for.
    States(Vec<GuestState>),
    /// A change of notary that is proposed.
    NotaryChange(GuestNotaryChange),
    /// A page of states, and where to go on.
    Page(Vec<GuestState>, Option<String>),
    /// The id of an attachment.
    Attached(String),
    /// The bytes of an attachment, if there is one.
    File(Option<Vec<u8>>),
    /// Keys that were made or told.
    Keys(Vec<GuestKey>),
    /// A party that was asked for, if it is known.
    Party(Option<GuestParty>),
    /// A transaction that was waited for, unless the deadline came first.
    MaybeTransaction(Option<GuestTransaction>),
    /// Whether what was waited for came before the deadline.
    Reached(bool),
}

/// A change of notary as its participants and observers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestNotaryChange {
    /// Its id.
    pub id: String,
    /// The bytes in which it travels, with the signatures that it has.
    pub bytes: Vec<u8>,
    /// The states that move, as they are before.
    pub states: Vec<GuestState>,
    /// The name of the notary that keeps them.
    pub notary: String,
    /// The name of the notary that is to keep them.
    pub new_notary: String,
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestKey {
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// SHA-256 of that, as the vault names a party without a name.
    pub fingerprint: String,
}

/// A transaction that an author has drafted.
#[derive(Debug, Clone, Default)]
pub struct TransactionDraft {
    /// The name of its notary.
    pub notary: Option<String>,
    /// References of the states that it consumes.
    pub inputs: Vec<String>,
    /// References of the states that it looks at.
    pub references: Vec<String>,
    /// What it makes.
    pub outputs: Vec<DraftOutput>,
    /// What it does.
    pub commands: Vec<DraftCommand>,
    /// From when it may be notarised, nanoseconds since 1970.
    pub from: Option<u64>,
    /// Until when.
    pub until: Option<u64>,
    /// The ids of attachments besides the code of its contracts, hexadecimal.
    pub attachments: Vec<String>,
}

/// An output that an author has drafted.
#[derive(Debug, Clone)]
pub struct DraftOutput {
    /// The name of its contract.
    pub contract: String,
    /// Its type.
    pub type_name: String,
    /// Its data, deterministic CBOR.
    pub data: Vec<u8>,
    /// The name of its notary.
    pub notary: Option<String>,
    /// The output that must be spent together with it.
    pub encumbrance: Option<u32>,
}

/// A command that an author has drafted.
#[derive(Debug, Clone)]
pub struct DraftCommand {
    /// The name of its contract.
    pub contract: String,
    /// Its name.
    pub name: String,
    /// Its value, deterministic CBOR.
    pub value: Vec<u8>,
    /// Who must sign: SubjectPublicKeyInfo, DER.
    pub signers: Vec<Vec<u8>>,
}

/// What is shown of a transaction besides its header.
#[derive(Debug, Clone, Default)]
pub struct ShownParts {
    /// The commands that one of these keys must sign: SubjectPublicKeyInfo, DER.
    pub commands_of: Vec<Vec<u8>>,
    /// All commands.
    pub commands: bool,
    /// References of the states that it consumes.
    pub inputs: bool,
    /// References of the states that it looks at.
    pub references: bool,
    /// What it makes.
    pub outputs: bool,
    /// The ids of its attachments.
    pub attachments: bool,
    /// Its notary.
    pub notary: bool,
    /// When it may be notarised.
    pub time_window: bool,
    /// The hash of the network parameters.
    pub parameters: bool,
}

/// An amount that is to be spent.
#[derive(Debug, Clone)]
pub struct AmountWanted {
    /// Contract and type.
    pub type_name: String,
    /// The token.
    pub token: String,
    /// Who owes it.
    pub issuer: Option<String>,
    /// Who keeps it.
    pub notary: Option<String>,
    /// How much.
    pub quantity: u64,
    /// How long to wait for others, milliseconds.
    pub wait_ms: u64,
}

/// A query of the vault.
#[derive(Debug, Clone, Default)]
pub struct VaultQuery {
    /// Contracts and types; any if there is none.
    pub types: Vec<String>,
    /// Those that can be spent.
    pub unconsumed: bool,
    /// Those that cannot.
    pub consumed: bool,
    /// A condition.
    pub filter: Option<String>,
    /// What to sort by.
    pub sort: Option<String>,
    /// How many at most.
    pub limit: Option<u32>,
    /// Where to go on.
    pub cursor: Option<String>,
}

/// What a pointer of a state leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestPointer {
    /// One state, by its reference, `ID:INDEX`.
    OneState(String),
    /// The newest state of a linear id that is not consumed.
    Newest {
        /// The linear id.
        id: Vec<u8>,
        /// Contract and type.
        type_name: String,
    },
}

/// A state of the vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestState {
    /// The state's reference, `ID:INDEX`.
    pub reference: String,
    /// Contract and type.
    pub type_name: String,
    /// Its data.
    pub data: Vec<u8>,
    /// The name of its notary.
    pub notary: String,
}

/// A transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestTransaction {
    /// Its id.
    pub id: String,
    /// Its bytes, with signatures.
    pub bytes: Vec<u8>,
    /// What it says, CBOR.
    pub view: Vec<u8>,
}
