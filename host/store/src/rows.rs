//! What the rules need of a database: rows of the tables, one at a time, within the transaction under way.
//!
//! Whoever implements this knows tables and statements, and no rule. An implementation may answer from memory and keep
//! changes back until its transaction is sealed; it may not be told apart by that.

use bytes::Bytes;
use maxhost_group_commit::Fault;
use maxhost_model::{Claim, FlowRow, IdentityRow, RunId, SecureHash, SessionId};

use crate::audit::AuditRow;
use crate::backlog::{Backlog, Waiting};
use crate::ledger::{Imports, LedgerRows};
use crate::op::{Keep, NewFlow};
use crate::record::{FlowState, FlowVersion, IdentityRecord, OutboxContent, ResultRead, Untaken, UntakenCount};

/// How a flow ends.
#[derive(Debug, Clone, Copy)]
pub struct End<'k> {
    /// Completed, failed or killed.
    pub state: FlowState,
    /// When, ms since 1970.
    pub finished: i64,
    /// What stays of it.
    pub keep: Option<&'k Keep>,
}

/// A live flow's new state.
#[derive(Debug, Clone, Copy)]
pub struct StateChange<'r> {
    /// One of the live states.
    pub state: FlowState,
    /// The reason why the flow is in this state, if there is one.
    pub reason: Option<&'r str>,
    /// How often the flow was tried.
    pub attempts: u32,
}

/// Which kinds of work are left for an identity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftBehind {
    /// Initiations or late confirmations.
    pub inbound: bool,
    /// Outbox rows.
    pub outbox: bool,
}

/// An outbox row that went although the broker did not get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orphan {
    /// The sender.
    pub identity: IdentityRow,
    /// Bytes of the body.
    pub bytes: u64,
}

/// Rows within a transaction. All methods run on the committer's thread.
///
/// A [`Fault`] of a kind that concerns the whole database fails the batch, any other fails the unit. A violated
/// constraint is a fault of kind [`maxhost_group_commit::FaultKind::Constraint`].
#[allow(clippy::missing_errors_doc)]
pub trait Rows: LedgerRows {
    /// The number of this run.
    fn run(&self) -> RunId;

    /// The count of what waits.
    fn backlog(&mut self) -> &mut Backlog;

    /// The claim that an identity's row shows; its run is [`crate::NOBODY`] if nobody owns it. `None`: there is no such identity.
    fn claim(&mut self, identity: IdentityRow) -> Result<Option<Claim>, Fault>;

    /// Everything about an identity.
    fn identity(&mut self, identity: IdentityRow) -> Result<Option<IdentityRecord>, Fault>;

    /// Makes an identity's row show no owner.
    fn release(&mut self, identity: IdentityRow, wake_at: Option<i64>) -> Result<(), Fault>;

    /// What is left for an identity.
    fn left_behind(&mut self, identity: IdentityRow) -> Result<LeftBehind, Fault>;

    /// Notes that a flow row is used. True if it lies above all that were used, so that nothing can have it already.
    fn observe_flow(&mut self, row: FlowRow) -> bool;

    /// Notes that a number of an initiation is used. True if it lies above all that were used.
    fn observe_initiation(&mut self, id: i64) -> bool;

    /// Whose live flow this is.
    fn live_flow(&mut self, flow: FlowRow) -> Result<Option<IdentityRow>, Fault>;

    /// Whether a flow of this row has ended and was kept.
    fn has_ended(&mut self, flow: FlowRow) -> Result<bool, Fault>;

    /// Adds a live flow; there is none of its row.
    fn add_flow(&mut self, identity: IdentityRow, new: &NewFlow) -> Result<(), Fault>;

    /// Adds a segment to a live flow's log. False if there is one of this number.
    fn add_segment(&mut self, flow: FlowRow, seq: u32, body: &Bytes) -> Result<bool, Fault>;

    /// The version of a live flow.
    fn version(&mut self, flow: FlowRow) -> Result<FlowVersion, Fault>;

    /// Gives a live flow another state and raises its revision.
    fn set_state(&mut self, flow: FlowRow, change: &StateChange<'_>) -> Result<(), Fault>;

    /// Notes in a live flow's row what waits for it.
    fn note_waiting(&mut self, flow: FlowRow, waiting: Waiting) -> Result<(), Fault>;

    /// Ends a live flow of this identity: its log and inbox go, its row is kept as an ended one or goes too, and then
    /// its client id is free. What is kept goes by [`HostRows::expire`] when the host has run for as long as the end was to
    /// be kept. False if there is no such flow.
    fn end_flow(&mut self, identity: IdentityRow, flow: FlowRow, end: &End<'_>) -> Result<bool, Fault>;

    /// Forgets a flow of this identity that has ended. False if there is none.
    fn drop_ended(&mut self, identity: IdentityRow, flow: FlowRow) -> Result<bool, Fault>;

    /// Adds a message to a session's inbox, whose flow is live. False if there is one of this number.
    fn add_message(&mut self, session: SessionId, seq: u32, body: &Bytes) -> Result<bool, Fault>;

    /// The message of number 0 in a session's inbox, whose flow is live.
    fn first_message(&mut self, session: SessionId) -> Result<Option<Bytes>, Fault>;

    /// Adds an initiation. False if there is one of this number. `new`: nothing can have the number.
    fn add_initiation(&mut self, to: IdentityRow, id: i64, body: &Bytes, new: bool) -> Result<bool, Fault>;

    /// Takes an initiation away. Returns the bytes of its body, or `None` if it is not there.
    fn take_initiation(&mut self, identity: IdentityRow, id: i64) -> Result<Option<u64>, Fault>;

    /// Adds a late confirmation. False if there is one for this session.
    fn add_late_confirm(&mut self, identity: IdentityRow, session: SessionId, body: &Bytes) -> Result<bool, Fault>;

    /// Takes a late confirmation away. Returns the bytes of its body, or `None` if it is not there.
    fn take_late_confirm(&mut self, identity: IdentityRow, session: SessionId) -> Result<Option<u64>, Fault>;

    /// Adds an outbox row behind all others.
    fn add_outbox(&mut self, sender: IdentityRow, destination: &str, content: &OutboxContent) -> Result<(), Fault>;

    /// Takes an outbox row away. With the number of a marker, a database that keeps messages ([`crate::KeptMessages`]) keeps
    /// it under that. Returns the bytes of its body, or `None` if it is not there.
    fn take_outbox(&mut self, sender: IdentityRow, id: i64, marker: Option<i64>) -> Result<Option<u64>, Fault>;

    /// Notes a message of the broker as taken. False if it was taken before.
    fn add_processed(&mut self, identity: IdentityRow, message_id: &[u8; 16]) -> Result<bool, Fault>;

    /// The flow that a client id names.
    fn client(&mut self, identity: IdentityRow, user: &str, client_id: &str) -> Result<Option<FlowRow>, Fault>;

    /// Adds a client id. False if it is there.
    fn add_client(&mut self, identity: IdentityRow, user: &str, client_id: &str, flow: FlowRow) -> Result<bool, Fault>;

    /// Removes a client id.
    fn remove_client(&mut self, identity: IdentityRow, user: &str, client_id: &str) -> Result<(), Fault>;
}

/// What a database needs beside [`Rows`] whose committer also registers, claims and purges.
#[allow(clippy::missing_errors_doc)]
pub trait HostRows: Rows {
    /// The row of the identity of this name, which is made if there is none.
    fn add_identity(&mut self, name: &str) -> Result<IdentityRow, Fault>;

    /// Makes an identity's row show this claim, clears its wake-up time, and counts it as not let go in order. The
    /// fingerprint is written if the row has none.
    fn set_claim(&mut self, identity: IdentityRow, claim: Claim, key_fp: Option<&[u8; 32]>) -> Result<(), Fault>;

    /// Has an identity's row show that so many claims in a row did not end in order.
    fn set_unclean(&mut self, identity: IdentityRow, unclean: u32) -> Result<(), Fault>;

    /// Forgets up to `limit` ended flows that were kept for long enough, with the client ids that name them. Returns how
    /// many went.
    fn expire(&mut self, limit: u32) -> Result<u64, Fault>;

    /// Forgets up to `limit` old notes of taken messages. Returns how many went.
    fn forget_processed(&mut self, limit: u32) -> Result<u64, Fault>;

    /// Removes up to `limit` outbox rows whose sender is unknown or was moved to another database, or is not owned and
    /// has not been for as long as taken messages are remembered.
    fn drop_orphans(&mut self, limit: u32) -> Result<Vec<Orphan>, Fault>;

    /// Notes when a client first had the result of an ended flow; it is no error if it is not there any more.
    fn note_result_read(&mut self, read: &ResultRead) -> Result<(), Fault>;

    /// Counts a message that cannot be taken, and keeps it if that was often enough.
    fn note_untaken(&mut self, untaken: &Untaken) -> Result<UntakenCount, Fault>;

    /// What of the attachments is there that clients have imported, and whether this one is.
    fn imports(&mut self, identity: IdentityRow, id: &SecureHash) -> Result<Imports, Fault>;

    /// Adds rows to the audit trail.
    fn add_audit(&mut self, rows: &[AuditRow]) -> Result<(), Fault>;

    /// Forgets up to `limit` rows of each class of the audit trail that are too old, or above the number that is kept.
    /// Returns how many went.
    fn forget_audit(&mut self, limit: u32) -> Result<u64, Fault>;
}
