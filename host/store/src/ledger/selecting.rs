//! Selecting and locking states for an amount in one step (`docs/behaviour.md` 12.3).

use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::selection::{Candidate, MAX_SELECTED, Need, SelectionFailure, bucket, select};
use maxhost_model::IdentityRow;

use super::op::ClaimOp;
use super::rows::{CandidateScope, FlowLease, LedgerRows, Wanted};
use crate::rules::Failed;

/// So many states are looked at to find one that is enough: at first a few, of which most often one is.
const LOOKED_AT: [u32; 2] = [16, 64];
/// So many of the largest are looked at first where no state is enough by itself.
const LARGEST: u32 = 512;
/// So many of the smallest are looked at, to be taken along.
const DUST: u32 = 2;
/// The most states that are looked at to tell why there are too few: as many as one selection takes. The committer reads them, and
/// everybody waits for it.
const COUNTED: u32 = MAX_SELECTED as u32;

/// Selects, locks and answers, in the order of the references. What the claim holds already is the answer, which is equal each time:
/// whoever did not live to note it makes the same transaction of it.
pub(super) fn claim<R: LedgerRows>(
    rows: &mut R,
    identity: IdentityRow,
    claim: &ClaimOp,
) -> Result<Result<Vec<StateRef>, SelectionFailure>, Failed> {
    let mut held = rows.claimed(identity, &claim.holding.claim, claim.now)?;
    if !held.is_empty() {
        held.sort_unstable();
        return Ok(Ok(held));
    }
    let mut selected = match find(rows, identity, claim)? {
        Ok(selected) => selected,
        Err(failure) => return Ok(Err(failure)),
    };
    let lease = FlowLease::from(&claim.holding);
    for state in &selected {
        rows.set_lease(identity, state, &lease)?;
    }
    selected.sort_unstable();
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
    let is_enough = |candidate: &Candidate| candidate.quantity >= claim.quantity;
    let mut found = Vec::new();
    for limit in LOOKED_AT {
        found = read(CandidateScope::From(bucket(claim.quantity)), limit)?;
        if found.iter().any(is_enough) || found.len() < limit as usize {
            break;
        }
    }
    if !found.iter().any(is_enough) {
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
        let most = sum(&found);
        if found.len() == COUNTED as usize && most < u128::from(claim.quantity) {
            // As many of the largest as one transaction takes, held or not: whether the rest would do nobody need count.
            return Ok(Err(SelectionFailure::Fragmented { needed: claim.quantity, most }));
        }
    }
    Ok(select(&found, need))
}

fn sum(candidates: &[Candidate]) -> u128 {
    candidates.iter().map(|candidate| u128::from(candidate.quantity)).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use maxhost_group_commit::Fault;
    use maxhost_ledger::time::Timestamp;
    use maxhost_ledger::vault::locks::{ClaimId, Lease};
    use maxhost_model::SecureHash;

    use super::*;
    use crate::ledger::Holding;

    fn now() -> Timestamp {
        Timestamp::from_nanos(1_000)
    }

    /// A vault of states of one unit each; others hold the first of them. It notes how many rows were read at most at once.
    struct Vault {
        states: u32,
        held: u32,
        read: u32,
    }

    impl LedgerRows for Vault {
        fn claimed(&mut self, _: IdentityRow, _: &ClaimId, _: Timestamp) -> Result<Vec<StateRef>, Fault> {
            Ok(Vec::new())
        }

        fn candidates(
            &mut self,
            _: IdentityRow,
            wanted: &Wanted<'_>,
            scope: CandidateScope,
            limit: u32,
        ) -> Result<Vec<Candidate>, Fault> {
            self.read = self.read.max(limit);
            if let CandidateScope::From(least) = scope
                && least > bucket(1)
            {
                return Ok(Vec::new());
            }
            assert_eq!(wanted.now, now());
            let first = if scope == CandidateScope::Any { 0 } else { self.held };
            let candidate = |index| Candidate {
                reference: StateRef::new(SecureHash::of(b"issued"), index),
                quantity: 1,
                lease: (index < self.held).then(|| Lease {
                    holder: "another".into(),
                    claim: [1; 16],
                    until: Timestamp::from_nanos(9_000),
                }),
                in_flight: None,
            };
            Ok((first..self.states).map(candidate).take(limit as usize).collect())
        }

        fn set_lease(&mut self, _: IdentityRow, _: &StateRef, _: &FlowLease) -> Result<(), Fault> {
            Ok(())
        }
    }

    fn claim_of(vault: &mut Vault, quantity: u64) -> Result<usize, SelectionFailure> {
        let op = ClaimOp {
            holding: Holding {
                holder: "me".into(),
                claim: [2; 16],
                until: Timestamp::from_nanos(9_000),
                flow: maxhost_model::FlowRow(1),
            },
            type_name: "cash/Cash".to_owned(),
            token: "GBP".to_owned(),
            issuer: None,
            notary: None,
            quantity,
            seed: 1,
            now: now(),
        };
        let Ok(claimed) = claim(vault, IdentityRow(1), &op) else { panic!("the vault can be read") };
        claimed.map(|selected| selected.len())
    }

    /// However many states there are, the committer reads no more than one transaction takes to say that they do not do.
    #[test]
    fn what_cannot_be_served_costs_no_more_than_what_can() {
        let most = MAX_SELECTED as u128;
        let mut vault = Vault { states: 1_000_000, held: 0, read: 0 };
        assert_eq!(claim_of(&mut vault, 5_000), Ok(5_000));
        assert_eq!(claim_of(&mut vault, 5_001), Err(SelectionFailure::Fragmented { needed: 5_001, most }));
        assert_eq!(claim_of(&mut vault, 2_000_000), Err(SelectionFailure::Fragmented { needed: 2_000_000, most }));
        vault.held = 999_000;
        let Err(SelectionFailure::Locked { amount: 5_000, soonest: Some(_), .. }) = claim_of(&mut vault, 2_000) else {
            panic!("others hold what would be enough");
        };
        assert!(vault.read <= MAX_SELECTED as u32, "{} rows were read", vault.read);
        // What is no more than that is counted to the last.
        let mut small = Vault { states: 4_999, held: 2_000, read: 0 };
        assert_eq!(claim_of(&mut small, 5_000), Err(SelectionFailure::Insufficient { needed: 5_000, have: 4_999 }));
        assert!(matches!(claim_of(&mut small, 4_999), Err(SelectionFailure::Locked { amount: 2_000, .. })));
        assert_eq!(claim_of(&mut small, 2_999), Ok(2_999));
    }
}
