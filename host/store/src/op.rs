//! The operations that a unit is made of, in families. Each family has its rules in [`crate::rules`].

use std::sync::Arc;

use bytes::Bytes;
use maxhost_model::{FlowId, FlowRow, SessionId};

use crate::claim::Recipient;
use crate::ledger::LedgerOp;
use crate::record::{FlowState, FlowVersion};

/// One operation of a unit.
#[derive(Debug, Clone)]
pub enum Op {
    /// About a flow of the unit's identity.
    Flow(FlowOp),
    /// About a message.
    Message(MessageOp),
    /// About a client id of the unit's identity.
    Client(ClientOp),
    /// About the unit's identity itself.
    Identity(IdentityOp),
    /// About the ledger of the unit's identity.
    Ledger(LedgerOp),
}

/// A flow to be started.
#[derive(Debug, Clone)]
pub struct NewFlow {
    /// From [`crate::Committer::next_flow_row`].
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
    /// Until when, ms since 1970. The row goes when the host has run for as long as lies between the end and this
    /// time, so that a clock that jumps forward takes nothing away that is young.
    pub expires: i64,
    /// The end record: result or error.
    pub end: Bytes,
    /// The progress labels of the flow, encoded and bounded by whoever hands them in; a gap is marked there.
    pub labels: Option<Bytes>,
}

/// Operations on flows. A flow named in one must belong to the unit's identity.
#[derive(Debug, Clone)]
pub enum FlowOp {
    /// Starts a flow, state [`FlowState::Live`]. Fails with [`crate::StoreError::ClientIdTaken`] if the user has a flow
    /// of that client id at this identity.
    Start(Box<NewFlow>),
    /// Appends a segment to the log of a live flow. A number that is there already fails the unit.
    AppendLog {
        /// Whose log.
        flow: FlowRow,
        /// The segment's number.
        seq: u32,
        /// The segment.
        body: Bytes,
    },
    /// Moves a live flow between the live states.
    SetState {
        /// The flow that this is about.
        flow: FlowRow,
        /// Live, paused or hospital.
        state: FlowState,
        /// The reason for the new state, if there is one.
        reason: Option<String>,
        /// How often it was tried.
        attempts: u32,
        /// The version that whoever asks for this has seen; the unit fails with [`crate::Conflict::FlowMovedOn`] if the
        /// flow has another one by now. `None`: whatever the version.
        expect: Option<FlowVersion>,
    },
    /// Ends a live flow: its log and inbox go; without `keep` everything goes, its client id too.
    End {
        /// The flow that this is about.
        flow: FlowRow,
        /// Completed, failed or killed.
        state: FlowState,
        /// Now, ms since 1970.
        finished: i64,
        /// What stays.
        keep: Option<Keep>,
        /// Sessions of the flow whose confirmation it has not read. One that lies in the inbox is noted as a late
        /// confirmation, which the receipt says: nobody else looks into the inbox again.
        unconfirmed: Vec<SessionId>,
    },
}

/// Operations on messages.
#[derive(Debug, Clone)]
pub enum MessageOp {
    /// Puts a message into a session's inbox. One that is there already is ignored. If no live flow *of the recipient*
    /// has the session, the message is dropped and the receipt says so. If the recipient is not held under the claim
    /// that is given, the message becomes an outbox row, and the receipt says so too.
    Deliver {
        /// Whose flow it is.
        to: Recipient,
        /// The recipient's side of the session.
        session: SessionId,
        /// The message's number in that session.
        seq: u32,
        /// The message.
        body: Bytes,
        /// The message confirms a session. If the flow is not live any more, a late confirmation is noted for its
        /// identity in the same unit, which answers it.
        confirms: bool,
    },
    /// Asks an identity of this database to open a session. Becomes an outbox row like a message.
    Initiate {
        /// The identity that is asked.
        to: Recipient,
        /// From [`crate::Committer::next_initiation`].
        id: i64,
        /// The initiation.
        body: Bytes,
    },
    /// Takes an initiation that was sent to the unit's identity. Fails if it is not there any more.
    TakeInitiation {
        /// Its number.
        id: i64,
    },
    /// A late confirmation of the unit's identity is answered with this unit. Fails if it is not there any more, so that
    /// it is answered once.
    AnswerLateConfirm {
        /// The session of the flow that has ended.
        session: SessionId,
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
        /// The number of the marker that was seen in the broker before the message was sent: a database that keeps messages
        /// ([`crate::KeptMessages`]) keeps it under that. `None`: it is not kept.
        marker: Option<i64>,
    },
    /// Notes that a message of the broker is taken with this unit. If it was taken before, the unit fails with
    /// [`crate::StoreError::Duplicate`]. [`crate::Store::purge`] forgets old notes.
    Arrived {
        /// The message's id.
        message_id: [u8; 16],
    },
}

/// Operations on client ids. They are names that a user gives to flows of an identity: two users may use the same.
#[derive(Debug, Clone)]
pub enum ClientOp {
    /// Forgets a client id and its flow, which must have ended.
    Remove {
        /// Whose it is.
        user: String,
        /// The client id.
        client_id: String,
    },
}

/// Operations on the unit's identity.
#[derive(Debug, Clone)]
pub enum IdentityOp {
    /// Lets the identity go: nobody holds it after this unit. Fails with [`crate::Conflict::WorkLeft`] if there are
    /// initiations, late confirmations or outbox rows that nobody would look after.
    Release {
        /// When the earliest of its flows wants to be woken, ms since 1970.
        wake_at: Option<i64>,
        /// Another host takes over at once and looks after what is left.
        hand_over: bool,
    },
}

impl From<FlowOp> for Op {
    fn from(op: FlowOp) -> Op {
        Op::Flow(op)
    }
}

impl From<MessageOp> for Op {
    fn from(op: MessageOp) -> Op {
        Op::Message(op)
    }
}

impl From<ClientOp> for Op {
    fn from(op: ClientOp) -> Op {
        Op::Client(op)
    }
}

impl From<LedgerOp> for Op {
    fn from(op: LedgerOp) -> Op {
        Op::Ledger(op)
    }
}

impl From<IdentityOp> for Op {
    fn from(op: IdentityOp) -> Op {
        Op::Identity(op)
    }
}

impl Op {
    /// Bytes that it holds in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        let text = |s: &Option<String>| s.as_ref().map_or(0, String::len);
        std::mem::size_of::<Op>()
            + match self {
                Op::Flow(FlowOp::Start(new)) => {
                    std::mem::size_of::<NewFlow>() + new.start.len() + text(&new.user) + text(&new.client_id)
                }
                Op::Flow(FlowOp::AppendLog { body, .. })
                | Op::Message(
                    MessageOp::Deliver { body, .. } | MessageOp::Initiate { body, .. } | MessageOp::Outbox { body, .. },
                ) => body.len(),
                Op::Flow(FlowOp::SetState { reason, .. }) => text(reason),
                Op::Flow(FlowOp::End { keep, unconfirmed, .. }) => {
                    std::mem::size_of_val(&unconfirmed[..])
                        + keep.as_ref().map_or(0, |keep| keep.end.len() + keep.labels.as_ref().map_or(0, Bytes::len))
                }
                Op::Client(ClientOp::Remove { user, client_id }) => user.len() + client_id.len(),
                Op::Ledger(op) => op.bytes(),
                Op::Message(
                    MessageOp::TakeInitiation { .. }
                    | MessageOp::AnswerLateConfirm { .. }
                    | MessageOp::OutboxSent { .. }
                    | MessageOp::Arrived { .. },
                )
                | Op::Identity(IdentityOp::Release { .. }) => 0,
            }
    }
}
