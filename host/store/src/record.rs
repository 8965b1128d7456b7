//! What is read from the database.

use bytes::Bytes;
use maxhost_model::{FlowId, FlowRow, IdentityRow, SessionId};

/// The state of a flow as the database knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i64)]
pub enum FlowState {
    /// It runs, or waits.
    Live = 0,
    /// Stopped by an operator until he lets it go on.
    Paused = 1,
    /// Stopped by an error that a person must look at.
    Hospital = 2,
    /// Ended with a result.
    Completed = 3,
    /// Ended with an error.
    Failed = 4,
    /// Ended by an operator.
    Killed = 5,
}

impl FlowState {
    /// All of them.
    pub const ALL: [FlowState; 6] = [
        FlowState::Live,
        FlowState::Paused,
        FlowState::Hospital,
        FlowState::Completed,
        FlowState::Failed,
        FlowState::Killed,
    ];

    /// Whether it has not ended.
    #[must_use]
    pub fn is_live(self) -> bool {
        self as i64 <= FlowState::Hospital as i64
    }

    pub(crate) fn of(number: i64) -> Option<FlowState> {
        usize::try_from(number).ok().and_then(|index| FlowState::ALL.get(index).copied())
    }
}

/// An identity as the database knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRecord {
    /// Its row.
    pub row: IdentityRow,
    /// Its name, as registered.
    pub name: String,
    /// The epoch that commits for it must carry.
    pub epoch: i64,
}

/// A flow that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveFlow {
    /// Its row.
    pub row: FlowRow,
    /// Whose.
    pub identity: IdentityRow,
    /// One of the live states.
    pub state: FlowState,
}

/// Everything about a flow but its log and inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowRecord {
    /// Its row.
    pub row: FlowRow,
    /// Its public name.
    pub id: FlowId,
    /// Whose.
    pub identity: IdentityRow,
    /// Its state.
    pub state: FlowState,
    /// Which flow of which CorDapp.
    pub name: String,
    /// Who started it, if somebody did.
    pub user: Option<String>,
    /// The client id it was started with.
    pub client_id: Option<String>,
    /// When it was started, ms since 1970.
    pub started: i64,
    /// When it ended, ms since 1970.
    pub finished: Option<i64>,
    /// When it will be forgotten, ms since 1970.
    pub expires: Option<i64>,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it is paused or in hospital.
    pub reason: Option<String>,
    /// The start record.
    pub start: Bytes,
    /// The end record.
    pub end: Option<Bytes>,
}

/// All that is needed to bring a flow back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredJournal {
    /// The flow.
    pub record: FlowRecord,
    /// The segments of its log, by number.
    pub log: Vec<(u32, Bytes)>,
    /// The messages of its sessions, by session and number.
    pub inbox: Vec<(SessionId, u32, Bytes)>,
}

/// The newest of a flow's journal: enough to tell whether something waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Which flow.
    pub flow: FlowRow,
    /// The last segment of its log.
    pub last: Option<(u32, Bytes)>,
    /// The number of the newest message of each session that has one.
    pub inbox: Vec<(SessionId, u32)>,
}

/// A client id and the flow it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The client id.
    pub client_id: String,
    /// Whose it is.
    pub user: Option<String>,
    /// The flow.
    pub flow: FlowRow,
    /// The flow's state.
    pub state: FlowState,
}

/// A message that waits to be handed to a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its number: order of sending.
    pub id: i64,
    /// The sender.
    pub identity: IdentityRow,
    /// The queue it goes to.
    pub destination: String,
    /// By which the receiver knows it again.
    pub message_id: [u8; 16],
    /// The message.
    pub body: Bytes,
}

/// Which flows to list.
#[derive(Debug, Clone)]
pub struct FlowFilter {
    /// Only of this identity.
    pub identity: Option<IdentityRow>,
    /// Only in these states; empty: in any.
    pub states: Vec<FlowState>,
    /// Only with exactly this name.
    pub name: Option<String>,
    /// Only started before this one: the last of the page before.
    pub before: Option<FlowRow>,
    /// At most so many.
    pub limit: u32,
}

impl Default for FlowFilter {
    fn default() -> FlowFilter {
        FlowFilter { identity: None, states: Vec::new(), name: None, before: None, limit: 100 }
    }
}
