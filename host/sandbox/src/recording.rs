//! What a flow asks with a choice of what is recorded, as plain data between WIT and the host.

use maxhost_ledger::vault::recording::StatesToRecord;

/// A call of the interface `maxhost:cordapp/recording`.
#[derive(Debug, Clone)]
pub enum RecordingCall {
    /// Makes a transaction part of the ledger of everybody whom it concerns, and of those who only look on.
    Finalise {
        /// The transaction.
        transaction: Vec<u8>,
        /// With those whom it concerns.
        participants: Vec<u32>,
        /// With those who look on.
        observers: Vec<u32>,
        /// Which of its states come into the own vault.
        states: StatesToRecord,
    },
    /// Gets a transaction that becomes part of the ledger.
    ReceiveFinality {
        /// From here.
        session: u32,
        /// Its id, if it is known before.
        expected: Option<String>,
        /// Which of its states come into the vault.
        states: StatesToRecord,
    },
    /// Gives a transaction.
    SendTransaction {
        /// To whom.
        session: u32,
        /// The transaction.
        transaction: Vec<u8>,
    },
    /// Gives a transaction of the ledger.
    SendRecorded {
        /// To whom.
        session: u32,
        /// Its id, hexadecimal.
        id: String,
    },
    /// Gets a transaction that is complete, and records it.
    ReceiveTransaction {
        /// From here.
        session: u32,
        /// Which of its states come into the vault.
        states: StatesToRecord,
    },
    /// Gets a transaction that may lack signatures, and does not record it.
    ReceiveUnrecorded {
        /// From here.
        session: u32,
    },
    /// Has another notary keep a state, with all that it can only be spent together with, while others look on.
    ChangeNotary {
        /// The state's reference, `ID:INDEX`.
        reference: String,
        /// The name of the notary that is to keep it.
        notary: String,
        /// With those who look on.
        observers: Vec<u32>,
        /// Which of the states that it makes come into the own vault.
        states: StatesToRecord,
    },
    /// Gets a change of notary that becomes part of the ledger, and is not to be signed.
    ObserveNotaryChange {
        /// From here.
        session: u32,
        /// Which of the states that it makes come into the vault.
        states: StatesToRecord,
    },
}
