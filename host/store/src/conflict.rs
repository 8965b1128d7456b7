//! Why a unit contradicts what is in the database.

use maxhost_model::{FlowRow, IdentityRow};

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
    /// Any other constraint of the schema.
    #[error("a constraint of the database refuses it")]
    Constraint,
}
