//! The rules of operations on flows: only its identity writes to a flow, and only while it is live.

use maxhost_group_commit::Failure;
use maxhost_model::{FlowRow, IdentityRow, SessionId};

use crate::backlog::Waiting;
use crate::conflict::Conflict;
use crate::error::StoreError;
use crate::op::{FlowOp, NewFlow};
use crate::rows::{End, Rows, StateChange};
use crate::rules::{Failed, done, or_conflict, refuse};
use crate::unit::Receipt;

pub(super) fn apply<R: Rows>(
    rows: &mut R,
    identity: IdentityRow,
    op: &FlowOp,
    receipt: &mut Receipt,
) -> Result<(), Failed> {
    match op {
        FlowOp::Start(new) => start(rows, identity, new),
        FlowOp::AppendLog { flow, seq, body } => {
            own_live(rows, identity, *flow)?;
            let conflict = Conflict::SegmentExists { flow: *flow, seq: *seq };
            let added = rows.add_segment(*flow, *seq, body).map_err(|fault| or_conflict(fault, conflict))?;
            done(added, conflict)?;
            looked(rows, *flow)
        }
        FlowOp::SetState { flow, state, reason, attempts, expect } => {
            if !state.is_live() {
                return Err(refuse(Conflict::StateNotAllowed));
            }
            own_live(rows, identity, *flow)?;
            if let Some(expected) = expect
                && rows.version(*flow)? != *expected
            {
                return Err(refuse(Conflict::FlowMovedOn(*flow)));
            }
            rows.set_state(*flow, &StateChange { state: *state, reason: reason.as_deref(), attempts: *attempts })?;
            Ok(())
        }
        FlowOp::End { flow, state, finished, keep, unconfirmed } => {
            if state.is_live() {
                return Err(refuse(Conflict::StateNotAllowed));
            }
            if !unconfirmed.is_empty() {
                own_live(rows, identity, *flow)?;
                note_unread(rows, identity, unconfirmed.iter().filter(|session| session.flow() == *flow), receipt)?;
            }
            let end = End { state: *state, finished: *finished, keep: keep.as_ref() };
            done(rows.end_flow(identity, *flow, &end)?, Conflict::FlowNotLive(*flow))?;
            if rows.backlog().released(*flow) {
                rows.release_flow(*flow)?;
            }
            // Its row is gone, and with it what was noted there.
            rows.backlog().looked(*flow);
            Ok(())
        }
    }
}

/// What lies in the inbox of a flow that ends is seen by nobody. A responder whose confirmation is there waits for an answer,
/// so the confirmation outlives the flow; a responder confirms or rejects with its first message.
fn note_unread<'a, R: Rows>(
    rows: &mut R,
    identity: IdentityRow,
    sessions: impl Iterator<Item = &'a SessionId>,
    receipt: &mut Receipt,
) -> Result<(), Failed> {
    for session in sessions {
        let Some(body) = rows.first_message(*session)? else { continue };
        if rows.add_late_confirm(identity, *session, &body)? {
            rows.backlog().initiated(identity, body.len() as u64);
        }
        receipt.unread.push((*session, body));
    }
    Ok(())
}

fn own_live<R: Rows>(rows: &mut R, identity: IdentityRow, flow: FlowRow) -> Result<(), Failed> {
    done(rows.live_flow(flow)? == Some(identity), Conflict::FlowNotLive(flow))
}

/// The flow writes its log, so it has looked at what had arrived.
fn looked<R: Rows>(rows: &mut R, flow: FlowRow) -> Result<(), Failed> {
    if rows.backlog().looked(flow) {
        rows.note_waiting(flow, Waiting::default())?;
    }
    Ok(())
}

fn start<R: Rows>(rows: &mut R, identity: IdentityRow, new: &NewFlow) -> Result<(), Failed> {
    let row = new.row;
    if row.0 < 1 || row > FlowRow::MAX || new.id.row() != row {
        return Err(refuse(Conflict::RowOutOfRange(row)));
    }
    let unused = rows.observe_flow(row);
    if let Some(client_id) = &new.client_id {
        let user = new.user.as_deref().unwrap_or_default();
        if !rows.add_client(identity, user, client_id, row)? {
            let flow = rows.client(identity, user, client_id)?.unwrap_or(row);
            return Err(Failure::Unit(StoreError::ClientIdTaken { flow }));
        }
    }
    if !unused && (rows.live_flow(row)?.is_some() || rows.has_ended(row)?) {
        return Err(refuse(Conflict::FlowExists(row)));
    }
    rows.add_flow(identity, new).map_err(|fault| or_conflict(fault, Conflict::FlowExists(row)))
}
