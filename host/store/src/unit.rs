//! What is committed together: a unit and its operations.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use maxhost_model::{FlowId, FlowRow, IdentityRow, SessionId};
use smallvec::SmallVec;

use crate::error::StoreError;
use crate::record::FlowState;

/// Is told how a unit went.
///
/// Runs on the committer's thread right after the commit, while every other identity waits for the next one: it must
/// be short and must not block. When the unit is not even taken ([`StoreError::Overloaded`], [`StoreError::Closed`]),
/// it runs inside [`crate::Store::submit`]: do not call that with a lock held that this takes.
pub type Done = Box<dyn FnOnce(Result<Receipt, StoreError>) + Send>;

/// What is written in one transaction, whole or not at all, for one identity.
pub struct CommitUnit {
    /// Who writes.
    pub identity: IdentityRow,
    /// The epoch he believes to be in; the database compares.
    pub epoch: i64,
    /// Shared by all units of one attempt of one flow.
    pub attempt: Option<AttemptToken>,
    /// Attempts of other flows whose messages this unit builds on, though their units may be waiting to be written still.
    /// If one of those was not written, neither is this one.
    pub depends_on: SmallVec<[AttemptToken; 1]>,
    /// What to write, in this order.
    pub ops: Vec<Op>,
    /// Is told how it went, once.
    pub done: Done,
}

impl CommitUnit {
    /// Bytes it holds in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        const UNIT: usize = 256;
        UNIT + self.ops.iter().map(Op::bytes).sum::<usize>()
    }
}

impl fmt::Debug for CommitUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitUnit")
            .field("identity", &self.identity)
            .field("epoch", &self.epoch)
            .field("attempt", &self.attempt)
            .field("ops", &self.ops.len())
            .finish_non_exhaustive()
    }
}

/// Shared by all units of one attempt of one flow, so that none is written after one that failed: its log would have a
/// gap.
#[derive(Debug, Clone, Default)]
pub struct AttemptToken(Arc<AtomicBool>);

impl AttemptToken {
    /// For a new attempt.
    #[must_use]
    pub fn new() -> AttemptToken {
        AttemptToken::default()
    }

    /// Refuses every unit of this attempt that is not being written already.
    pub fn revoke(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the attempt was given up.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A flow to be started.
#[derive(Debug, Clone)]
pub struct NewFlow {
    /// From [`crate::Store::next_flow_row`].
    pub row: FlowRow,
    /// Carries the same row.
    pub id: FlowId,
    /// Which flow of which CorDapp.
    pub name: Arc<str>,
    /// Who starts it.
    pub user: Option<String>,
    /// The client id, if the starter gave one.
    pub client_id: Option<String>,
    /// Now, ms since 1970.
    pub started: i64,
    /// The start record.
    pub start: Bytes,
}

/// What stays of a flow that ended.
#[derive(Debug, Clone)]
pub struct Keep {
    /// Until when, ms since 1970.
    pub expires: i64,
    /// The end record: result or error.
    pub end: Bytes,
}

/// One operation of a unit. A flow named in it must belong to the unit's identity, except where a message is delivered.
#[derive(Debug, Clone)]
pub enum Op {
    /// Starts a flow, state [`FlowState::Live`]. Fails with [`StoreError::ClientIdTaken`] if the identity has a flow of
    /// that client id.
    StartFlow(Box<NewFlow>),
    /// Appends a segment to the log of a live flow. A number that is there already fails the unit.
    AppendLog {
        /// Whose log.
        flow: FlowRow,
        /// The segment's number.
        seq: u32,
        /// The segment.
        body: Bytes,
    },
    /// Puts a message into a session's inbox, in whoever's flow it is. One that is there already is ignored; if the
    /// flow has ended the message is dropped and the receipt says so.
    Deliver {
        /// The recipient's side of the session.
        session: SessionId,
        /// The message's number in that session.
        seq: u32,
        /// The message.
        body: Bytes,
    },
    /// Asks an identity of this database to open a session.
    Initiate {
        /// Whom.
        to: IdentityRow,
        /// From [`crate::Store::next_initiation`].
        id: i64,
        /// The initiation.
        body: Bytes,
    },
    /// Takes an initiation that was sent to the unit's identity. Fails if it is not there any more.
    TakeInitiation {
        /// Its number.
        id: i64,
    },
    /// Leaves a message for the broker.
    Outbox {
        /// The queue it goes to.
        destination: Arc<str>,
        /// By which the receiver knows it again.
        message_id: [u8; 16],
        /// The message.
        body: Bytes,
    },
    /// The broker has the message; doing it twice is no error.
    OutboxSent {
        /// Its number.
        id: i64,
    },
    /// Notes that a message of the broker is taken with this unit. If it was taken before, the unit fails with
    /// [`StoreError::Duplicate`]. [`crate::Store::purge`] forgets old notes.
    Arrived {
        /// The message's id.
        message_id: [u8; 16],
    },
    /// Moves a live flow between the live states.
    SetState {
        /// Which.
        flow: FlowRow,
        /// Live, paused or hospital.
        state: FlowState,
        /// Why.
        reason: Option<String>,
        /// How often it was tried.
        attempts: u32,
    },
    /// Ends a live flow: its log and inbox go; without `keep` everything goes, its client id too.
    EndFlow {
        /// Which.
        flow: FlowRow,
        /// Completed, failed or killed.
        state: FlowState,
        /// Now, ms since 1970.
        finished: i64,
        /// What stays.
        keep: Option<Keep>,
    },
    /// Forgets a client id and its flow, which must have ended.
    RemoveClient {
        /// Of the unit's identity.
        client_id: String,
    },
}

impl Op {
    fn bytes(&self) -> usize {
        std::mem::size_of::<Op>()
            + match self {
                Op::StartFlow(new) => {
                    let text = |s: &Option<String>| s.as_ref().map_or(0, String::len);
                    std::mem::size_of::<NewFlow>() + new.start.len() + text(&new.user) + text(&new.client_id)
                }
                Op::AppendLog { body, .. }
                | Op::Deliver { body, .. }
                | Op::Initiate { body, .. }
                | Op::Outbox { body, .. } => body.len(),
                Op::SetState { reason, .. } => reason.as_ref().map_or(0, String::len),
                Op::EndFlow { keep, .. } => keep.as_ref().map_or(0, |keep| keep.end.len()),
                Op::RemoveClient { client_id } => client_id.len(),
                Op::TakeInitiation { .. } | Op::OutboxSent { .. } | Op::Arrived { .. } => 0,
            }
    }
}

/// What a committed unit learns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Which operations (index in the unit) delivered to a flow that is not live any more.
    pub undelivered: SmallVec<[usize; 1]>,
}
