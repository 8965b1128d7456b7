//! What is read from the database.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use maxhost_model::{Claim, FlowId, FlowRow, IdentityRow, RunId, SessionId};

use crate::audit::cut_text;
use crate::claim::NOBODY;

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

    /// The state of a number, as it is stored.
    #[must_use]
    pub fn of(number: i64) -> Option<FlowState> {
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
    /// The newest claim. Its run is that of the owner, or [`NOBODY`] if nobody owns the identity.
    pub claim: Claim,
    /// When the identity wants to be woken though nobody writes to it, ms since 1970.
    pub wake_at: Option<i64>,
    /// Claims since the identity was last let go in order.
    pub unclean: u32,
    /// The database that the identity was moved to; it cannot be claimed here any more.
    pub moved_to: Option<String>,
    /// The fingerprint of its key, once a claim has recorded it.
    pub key_fp: Option<[u8; 32]>,
}

impl IdentityRecord {
    /// The run that owns the identity.
    #[must_use]
    pub fn owner(&self) -> Option<RunId> {
        (self.claim.run != NOBODY).then_some(self.claim.run)
    }
}

/// What is left to do for an identity, told from rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftWork {
    /// For whom.
    pub identity: IdentityRow,
    /// Whether somebody wants a session with it.
    pub initiations: bool,
    /// Whether confirmations came for flows of it that had ended.
    pub late_confirms: bool,
    /// Whether the broker does not have all of its messages yet.
    pub outbox: bool,
    /// Whether its wake-up time has come.
    pub due: bool,
}

/// What the database may have of an identity that whoever opens it looks after. Where it says no there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftRows {
    /// Flows that have not ended.
    pub flows: bool,
    /// Initiations that nobody has taken.
    pub initiations: bool,
    /// Late confirmations that nobody has answered.
    pub late_confirms: bool,
    /// Messages that the broker does not have yet.
    pub outbox: bool,
    /// Transactions in flight whose flow has ended.
    pub unsettled: bool,
}

impl LeftRows {
    /// There may be anything.
    pub const UNKNOWN: LeftRows =
        LeftRows { flows: true, initiations: true, late_confirms: true, outbox: true, unsettled: true };
}

/// The version of a flow: another one after each unit that writes its log or moves it to another state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowVersion {
    /// The number of the newest segment of its log.
    pub segment: Option<u32>,
    /// How often its state was set.
    pub revision: u32,
}

/// A flow that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveFlow {
    /// Its row.
    pub row: FlowRow,
    /// The identity that runs the flow.
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
    /// The identity that runs the flow.
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
    /// How often its state was set: a part of its version.
    pub revision: u32,
    /// When a client first read the result, ms since 1970.
    pub result_read: Option<i64>,
    /// The start record; empty in a list.
    pub start: Bytes,
    /// The end record. A list leaves out one that is larger than [`FlowFilter::end_bytes`].
    pub end: Option<Bytes>,
    /// The progress labels that were kept with the end; a list leaves them out.
    pub labels: Option<Bytes>,
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

impl StoredJournal {
    /// The flow's version.
    #[must_use]
    pub fn version(&self) -> FlowVersion {
        FlowVersion { segment: self.log.last().map(|(seq, _)| *seq), revision: self.record.revision }
    }
}

/// A journal that is not to be larger than it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SizedJournal {
    /// It is not.
    Whole(Box<StoredJournal>),
    /// It is: log and inbox have so many bytes.
    Larger(u64),
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
    pub user: String,
    /// The flow.
    pub flow: FlowRow,
    /// The flow's public name.
    pub id: FlowId,
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
    /// The queue it goes to, or the name of the recipient where the message was to be written directly.
    pub destination: Arc<str>,
    /// The message.
    pub content: OutboxContent,
}

/// What is in an outbox row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboxContent {
    /// A message as it goes to the broker.
    Message {
        /// By which the receiver knows it again.
        message_id: [u8; 16],
        /// The message.
        body: Bytes,
    },
    /// An initiation that could not be written directly, because this run did not hold the recipient.
    Initiation {
        /// The initiation, as it would have been written.
        body: Bytes,
    },
    /// A message for a session that could not be written directly.
    Delivery {
        /// The recipient's side of the session.
        session: SessionId,
        /// The message's number in that session.
        seq: u32,
        /// The message, as it would have been written.
        body: Bytes,
    },
}

impl OutboxContent {
    /// Bytes of the body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        match self {
            OutboxContent::Message { body, .. }
            | OutboxContent::Initiation { body }
            | OutboxContent::Delivery { body, .. } => body,
        }
    }
}

/// A place to which messages wait to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxDestination {
    /// The place.
    pub destination: Arc<str>,
    /// The number of the oldest message.
    pub first: i64,
}

/// A confirmation that came for a flow that had ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateConfirm {
    /// The session of the flow that has ended.
    pub session: SessionId,
    /// The message, as it was delivered.
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
    /// End records of more bytes than this are left out.
    pub end_bytes: u32,
}

impl Default for FlowFilter {
    fn default() -> FlowFilter {
        FlowFilter { identity: None, states: Vec::new(), name: None, before: None, limit: 100, end_bytes: 4096 }
    }
}

/// A client has the result of a flow that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultRead {
    /// The flow.
    pub flow: FlowRow,
    /// When it was sent to the client, ms since 1970.
    pub at: i64,
}

/// How long it is remembered that a broker's message was taken, in the time that hosts run, unless a database is told otherwise.
pub const PROCESSED_RETENTION: Duration = Duration::from_secs(7 * 24 * 3_600);

/// How often a message that cannot be taken for a reason that stays is tried before it is put aside.
pub const UNTAKEN_TRIES: u64 = 5;
/// Messages that were put aside, or are counted, of one identity; the oldest go.
pub const UNTAKEN_ROWS: u32 = 1_000;
/// Bytes that are kept of the messages that were put aside of one identity.
pub const UNTAKEN_BYTES: u64 = 16 << 20;

/// A message of the broker that cannot be taken for a reason that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untaken {
    /// In whose queue it is.
    pub identity: IdentityRow,
    /// Its id.
    pub message_id: [u8; 16],
    /// When it was tried, ms since 1970.
    pub at: i64,
    /// In whose name it came.
    pub sender: String,
    /// Why it cannot be taken, for people.
    pub reason: String,
    /// The message as it is in the queue.
    pub body: Bytes,
}

impl Untaken {
    /// Cuts sender and reason to [`crate::AUDIT_TEXT_BYTES`].
    #[must_use]
    pub fn cut(mut self) -> Untaken {
        cut_text(&mut self.sender);
        cut_text(&mut self.reason);
        self
    }
}

/// What is known of a message that cannot be taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UntakenCount {
    /// How often it was tried.
    pub tries: u64,
    /// Whether its bytes are kept: from [`UNTAKEN_TRIES`] on, if there is room.
    pub is_kept: bool,
}
