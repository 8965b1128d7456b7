//! What a flow can ask for, and what it is told.

use bytes::Bytes;
use maxhost_model::FlowError;

use crate::Millis;

/// A call of the guest that concerns the journal. Sessions are indexes into the flow's session table.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// A new session with this party, under this protocol. The caller has checked both.
    OpenSession {
        /// The protocol: the full name of the initiating flow, `cordapp/flow`.
        protocol: String,
        /// Version of that flow.
        version: u32,
        /// Canonical X.500 name.
        party: String,
    },
    /// The opening was refused, for example because there is no such party: recorded, so that it is refused again.
    RefuseSession {
        /// As asked for.
        party: String,
        /// The reason, which the guest is told.
        error: Box<FlowError>,
    },
    /// Sends one message to each of these sessions.
    Send(Vec<(u32, Bytes)>),
    /// Receives the next message.
    Receive {
        /// From here.
        session: u32,
        /// An orderly end is an answer and no failure.
        or_end: bool,
    },
    /// Sends and receives in one suspension.
    SendAndReceive {
        /// With this session.
        session: u32,
        /// The message, as CBOR.
        payload: Bytes,
    },
    /// One message of each.
    ReceiveAll(Vec<u32>),
    /// Until one has something to receive, or the deadline.
    WaitAny {
        /// The sessions that are waited for.
        sessions: Vec<u32>,
        /// Until when.
        deadline: Option<Millis>,
    },
    /// Ends sessions.
    Close(Vec<u32>),
    /// What the peer told of its side.
    FlowInfo(u32),
    /// Waits for so long, milliseconds.
    Sleep(u64),
    /// Waits for something that is found outside of the journal, in the ledger: whoever asks looks for it whenever the call
    /// blocks, and tells [`crate::Machine::found`].
    Await {
        /// [`WaitKind::LedgerCommit`] or [`WaitKind::StateConsumption`].
        kind: WaitKind,
        /// What is waited for, in words that tell it from anything else.
        what: String,
        /// Until when.
        deadline: Option<Millis>,
    },
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The call has no value to give.
    Done,
    /// A session.
    Session(u32),
    /// A message.
    Message(Bytes),
    /// The peer ended in order.
    Ended,
    /// One message of each session.
    Messages(Vec<Bytes>),
    /// The session that is ready, or none: the deadline passed.
    Ready(Option<u32>),
    /// What was waited for, or nothing: the deadline passed.
    Found(Option<Bytes>),
    /// What the peer told.
    FlowInfo {
        /// Version of its flow.
        version: u32,
        /// Its CorDapp.
        app: String,
    },
}

/// Where a call stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Answered. An error goes to the guest, which may catch it.
    Done(Result<Answer, FlowError>),
    /// Not yet: flush, wait for an arrival or the time, then ask [`crate::Machine::resume`].
    Blocked,
    /// The flow must end with this error; the guest is not asked. Unless [`crate::Machine::finish`] or the resumption of
    /// a finish said so, [`crate::Machine::abort`] tells the peers; afterwards it does no harm.
    Over(FlowError),
}

/// What a flow waits for. Stored with each segment, so that a sleeping flow can be shown and woken without being run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Which call.
    pub kind: WaitKind,
    /// On which sessions.
    pub sessions: Vec<u32>,
    /// Until when at the latest.
    pub until: Option<Millis>,
    /// What of the ledger it waits for, if that is what it does.
    pub awaited: Option<Awaited>,
}

/// What of the ledger a flow waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    /// The transaction, or the first of the states. Opaque here.
    pub first: String,
    /// So many states besides.
    pub more: u32,
}

/// Which call waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitKind {
    /// The flow waits for messages.
    Receive,
    /// Receive from all.
    ReceiveAll,
    /// Whichever is first.
    WaitAny,
    /// Flow info.
    FlowInfo,
    /// The flow sleeps until a moment.
    Sleep,
    /// The flow has ended but for the confirmation of sessions it opened (docs/behaviour.md 4.7).
    Confirmation,
    /// The flow waits until a transaction is part of the ledger.
    LedgerCommit,
    /// The flow waits until states are consumed.
    StateConsumption,
}

impl WaitKind {
    /// Whether what is waited for is found in the ledger.
    #[must_use]
    pub fn is_of_ledger(self) -> bool {
        matches!(self, WaitKind::LedgerCommit | WaitKind::StateConsumption)
    }

    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            WaitKind::Receive => "receive",
            WaitKind::ReceiveAll => "receive-all",
            WaitKind::WaitAny => "wait-any",
            WaitKind::FlowInfo => "flow-info",
            WaitKind::Sleep => "sleep",
            WaitKind::Confirmation => "confirmation",
            WaitKind::LedgerCommit => "ledger-commit",
            WaitKind::StateConsumption => "state-consumption",
        }
    }
}

/// A replayed flow asked for something else than it did the first time. The flow is parked; nothing is retried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("replay differs at entry {position}: expected {expected}, got {actual}")]
pub struct Divergence {
    /// Number of the entry, from 0.
    pub position: u64,
    /// What the journal holds.
    pub expected: String,
    /// What the guest asked for now.
    pub actual: String,
}
