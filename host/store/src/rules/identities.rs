//! The rules of claiming an identity and of letting it go.

use maxhost_group_commit::Failure;
use maxhost_model::{Claim, IdentityRow};

use crate::claim::ClaimRequest;
use crate::conflict::Conflict;
use crate::error::StoreError;
use crate::op::IdentityOp;
use crate::rows::Rows;
use crate::rules::{Failed, refuse};

pub(super) fn claim<R: Rows>(rows: &mut R, request: &ClaimRequest) -> Result<Claim, Failed> {
    let identity = request.identity;
    let record = rows.identity(identity)?.ok_or_else(|| refuse(Conflict::IdentityUnknown(identity)))?;
    if record.moved_to.is_some() {
        return Err(refuse(Conflict::IdentityMoved(identity)));
    }
    if let (Some(recorded), Some(shown)) = (&record.key_fp, &request.key_fp)
        && recorded != shown
    {
        return Err(refuse(Conflict::KeyMismatch(identity)));
    }
    let claim = Claim { token: request.token, run: rows.run() };
    if !claim.may_replace(record.claim.token, record.owner()) {
        return Err(Failure::Unit(StoreError::Fenced { identity, claim, current: record.claim }));
    }
    if claim != record.claim {
        rows.set_claim(identity, claim, request.key_fp.as_ref())?;
    }
    Ok(claim)
}

pub(super) fn apply<R: Rows>(rows: &mut R, identity: IdentityRow, op: &IdentityOp) -> Result<(), Failed> {
    let IdentityOp::Release { wake_at, hand_over } = op;
    let left = rows.left_behind(identity)?;
    // Whoever takes over at once looks after all of it; nobody looks after a sleeper's rows.
    if !hand_over && (left.inbound || left.outbox) {
        return Err(refuse(Conflict::WorkLeft(identity)));
    }
    Ok(rows.release(identity, *wake_at)?)
}
