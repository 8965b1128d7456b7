//! The rules of claiming an identity and of letting it go.

use maxhost_group_commit::Failure;
use maxhost_model::{Claim, IdentityRow, RunId};

use crate::claim::{Caution, ClaimRequest, DEATHS_LAST, DEATHS_SLOW, Forgive};
use crate::conflict::Conflict;
use crate::error::StoreError;
use crate::op::IdentityOp;
use crate::record::IdentityRecord;
use crate::rows::{HostRows, Rows};
use crate::rules::{Failed, refuse};

/// What becomes of a claim, for an identity whose row says this.
///
/// # Errors
/// [`Conflict::IdentityUnknown`], [`Conflict::IdentityMoved`], [`Conflict::KeyMismatch`], [`StoreError::Fenced`] if
/// the row shows an equal or a later claim, and [`Conflict::OwnersDied`] as [`ClaimRequest::caution`] says.
pub fn decide_claim(record: Option<&IdentityRecord>, request: &ClaimRequest, run: RunId) -> Result<Claim, StoreError> {
    let identity = request.identity;
    let record = record.ok_or(Conflict::IdentityUnknown(identity))?;
    if record.moved_to.is_some() {
        return Err(Conflict::IdentityMoved(identity).into());
    }
    if let (Some(recorded), Some(shown)) = (&record.key_fp, &request.key_fp)
        && recorded != shown
    {
        return Err(Conflict::KeyMismatch(identity).into());
    }
    let claim = Claim { token: request.token, run };
    if !claim.may_replace(record.claim.token, record.owner()) {
        return Err(StoreError::Fenced { identity, claim, current: record.claim });
    }
    // A claim that is there already is no further one.
    if record.claim != claim && !is_patient(request.caution, record.unclean) {
        return Err(Conflict::OwnersDied { identity, deaths: record.unclean }.into());
    }
    Ok(claim)
}

/// Whether a claimer may try after so many claims in a row that did not end in order. Who has waited has done so since this very
/// number: if somebody else has tried meanwhile, it is his turn to be waited for.
fn is_patient(caution: Caution, deaths: u32) -> bool {
    match caution {
        Caution::None => true,
        Caution::WaitedSince(_) if deaths < DEATHS_SLOW => true,
        Caution::WaitedSince(seen) => deaths < DEATHS_LAST && seen == deaths,
    }
}

pub(super) fn forgive<R: HostRows>(rows: &mut R, identity: IdentityRow, forgive: Forgive) -> Result<(), Failed> {
    let Some(record) = rows.identity(identity)? else { return Ok(()) };
    let deaths = match forgive {
        Forgive::Healthy(claim) if record.claim != claim => return Ok(()),
        Forgive::Healthy(_) | Forgive::Asked => 0,
        Forgive::Survived => record.unclean.saturating_sub(1),
    };
    Ok(rows.set_unclean(identity, deaths)?)
}

pub(super) fn claim<R: HostRows>(rows: &mut R, request: &ClaimRequest) -> Result<Claim, Failed> {
    let record = rows.identity(request.identity)?;
    let claim = decide_claim(record.as_ref(), request, rows.run()).map_err(Failure::Unit)?;
    if record.is_some_and(|record| record.claim != claim) {
        rows.set_claim(request.identity, claim, request.key_fp.as_ref())?;
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
