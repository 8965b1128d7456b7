//! Selecting and locking states for an amount in one step (`docs/behaviour.md` 12.3).

use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::selection::{Candidate, MAX_SELECTED, Need, SelectionFailure, bucket, select};
use maxhost_model::IdentityRow;

use super::op::ClaimOp;
use super::rows::{CandidateScope, FlowLease, LedgerRows, Wanted};
use crate::rules::Failed;

/// So many states are looked at to find one that is enough.
const LOOKED_AT: u32 = 64;
/// So many of the largest are looked at first where no state is enough by itself.
const LARGEST: u32 = 512;
/// So many of the smallest are looked at, to be taken along.
const DUST: u32 = 2;
/// The most states that are looked at to tell why there are too few.
const COUNTED: u32 = 1_000_000;

/// Selects, locks and answers. What the claim holds already is the answer.
pub(super) fn claim<R: LedgerRows>(
    rows: &mut R,
    identity: IdentityRow,
    claim: &ClaimOp,
) -> Result<Result<Vec<StateRef>, SelectionFailure>, Failed> {
    let held = rows.claimed(identity, &claim.holding.claim, claim.now)?;
    if !held.is_empty() {
        return Ok(Ok(held));
    }
    let selected = match find(rows, identity, claim)? {
        Ok(selected) => selected,
        Err(failure) => return Ok(Err(failure)),
    };
    let lease = FlowLease::from(&claim.holding);
    for state in &selected {
        rows.set_lease(identity, state, &lease)?;
    }
    Ok(Ok(selected))
}

/// Reads few states where few are enough: the vault may have a million.
fn find<R: LedgerRows>(
    rows: &mut R,
    identity: IdentityRow,
    claim: &ClaimOp,
) -> Result<Result<Vec<StateRef>, SelectionFailure>, Failed> {
    let need = Need { quantity: claim.quantity, holder: &claim.holding.holder, now: claim.now, seed: claim.seed };
    let wanted = Wanted {
        type_name: &claim.type_name,
        token: &claim.token,
        issuer: claim.issuer.as_deref(),
        notary: claim.notary.as_deref(),
        holder: &claim.holding.holder,
        now: claim.now,
    };
    let mut read = |scope, limit| rows.candidates(identity, &wanted, scope, limit);
    let mut found = read(CandidateScope::From(bucket(claim.quantity)), LOOKED_AT)?;
    if !found.iter().any(|candidate| candidate.quantity >= claim.quantity) {
        for limit in [LARGEST, u32::try_from(MAX_SELECTED).unwrap_or(u32::MAX)] {
            found = read(CandidateScope::Largest, limit)?;
            if sum(&found) >= u128::from(claim.quantity) || found.len() < limit as usize {
                break;
            }
        }
    }
    for small in read(CandidateScope::Smallest, DUST)? {
        if !found.iter().any(|candidate| candidate.reference == small.reference) {
            found.push(small);
        }
    }
    if sum(&found) < u128::from(claim.quantity) {
        found = read(CandidateScope::Any, COUNTED)?;
    }
    Ok(select(&found, need))
}

fn sum(candidates: &[Candidate]) -> u128 {
    candidates.iter().map(|candidate| u128::from(candidate.quantity)).sum()
}
