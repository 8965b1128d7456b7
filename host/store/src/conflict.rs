//! Why a unit contradicts what is in the database.

use maxhost_model::{FlowRow, IdentityRow, SessionId};

/// A unit that does not fit what is there. Whoever made it works with an outdated view; trying again is useless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// The flow has ended, was never started, or belongs to another identity.
    #[error("flow {} is not live", .0.0)]
    FlowNotLive(FlowRow),
    /// There is a flow with this row already.
    #[error("flow {} exists already", .0.0)]
    FlowExists(FlowRow),
    /// A row number outside what a session can carry.
    #[error("flow row {} is out of range", .0.0)]
    RowOutOfRange(FlowRow),
    /// The log has a segment with this number already.
    #[error("the log of flow {} has a segment {seq} already", .flow.0)]
    SegmentExists {
        /// Whose log.
        flow: FlowRow,
        /// The number.
        seq: u32,
    },
    /// There is an initiation with this number already.
    #[error("initiation {0} exists already")]
    InitiationExists(i64),
    /// The initiation was taken already, or is another identity's.
    #[error("initiation {0} is not there any more")]
    InitiationGone(i64),
    /// The identity has no such client id.
    #[error("no such client id")]
    ClientUnknown,
    /// The flow of this client id has not ended.
    #[error("flow {} has not ended", .0.0)]
    ClientRunning(FlowRow),
    /// The state asked for is not one that this operation can give.
    #[error("a flow cannot be put into this state in this way")]
    StateNotAllowed,
    /// There is no identity with this row.
    #[error("there is no identity {}", .0.0)]
    IdentityUnknown(IdentityRow),
    /// The identity belongs to another database, or is on its way there.
    #[error("identity {} was moved to another database, or is on its way to one", .0.0)]
    IdentityMoved(IdentityRow),
    /// The key is not the one that the identity was first claimed with.
    #[error("identity {} was claimed with another key before", .0.0)]
    KeyMismatch(IdentityRow),
    /// So many owners in a row died while they had the identity that the claimer has to wait, or that nobody may have it.
    #[error("identity {} had {deaths} owners in a row that died while they had it", .identity.0)]
    OwnersDied {
        /// Whom they had.
        identity: IdentityRow,
        /// How many there were.
        deaths: u32,
    },
    /// There is work left that nobody would look after if the identity were let go.
    #[error("identity {} has work left", .0.0)]
    WorkLeft(IdentityRow),
    /// Letting an identity go must be the last operation of its unit.
    #[error("identity {} is let go before the end of the unit", .0.0)]
    ReleaseNotLast(IdentityRow),
    /// The flow is not what it was when its change was decided.
    #[error("flow {} has moved on", .0.0)]
    FlowMovedOn(FlowRow),
    /// The late confirmation was answered already.
    #[error("the late confirmation of session {} is not there any more", .0.0)]
    LateConfirmGone(SessionId),
    /// Any other constraint of the schema.
    #[error("a constraint of the database refuses it")]
    Constraint,
}
