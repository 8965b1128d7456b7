//! A notary's batch: rows are read once, decided in memory, and inserted (`docs/behaviour.md` 11.3, 11.4).

use std::collections::{BTreeMap, BTreeSet};

use maxhost_group_commit::Fault;
use maxhost_ledger::notary::{self, NotaryError, Outcome, Rows, UniquenessRequest, Verdict, plan_batch};
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_model::{IdentityRow, SecureHash};

use super::op::{DecidedSoFar, NotaryOp};
use super::requests::LoggedRequest;
use super::rows::LedgerRows;
use crate::rules::Failed;

struct Committed<'r, R> {
    rows: &'r mut R,
    identity: IdentityRow,
}

impl<R: LedgerRows> Rows for Committed<'_, R> {
    type Error = Fault;

    fn consumers(&mut self, states: &BTreeSet<StateRef>) -> Result<BTreeMap<StateRef, SecureHash>, Fault> {
        self.rows.consumers(self.identity, states)
    }

    fn outcomes(&mut self, ids: &BTreeSet<SecureHash>) -> Result<BTreeMap<SecureHash, Outcome>, Fault> {
        self.rows.outcomes(self.identity, ids)
    }
}

/// What is decided for ever about a transaction that names these states.
pub(super) fn decided_so_far<R: LedgerRows>(
    rows: &mut R,
    identity: IdentityRow,
    id: &SecureHash,
    states: &BTreeSet<StateRef>,
    at: Timestamp,
) -> Result<DecidedSoFar, Failed> {
    if let Some(outcome) = rows.outcomes(identity, &BTreeSet::from([*id]))?.get(id) {
        return Ok(DecidedSoFar::Outcome(*outcome));
    }
    if rows.consumers(identity, states)?.values().any(|by| by != id) {
        return Ok(DecidedSoFar::Conflict);
    }
    // An empty batch: the next one is not earlier.
    Ok(DecidedSoFar::Nothing(rows.next_batch(identity, at)?.at))
}

pub(super) fn decide<R: LedgerRows>(
    rows: &mut R,
    identity: IdentityRow,
    batch: &NotaryOp,
) -> Result<Vec<Verdict>, Failed> {
    let stamp = rows.next_batch(identity, batch.at)?;
    let requests: Vec<UniquenessRequest> = batch.requests.iter().map(|(_, request)| request.clone()).collect();
    let plan = plan_batch(&requests, stamp, &mut Committed { rows: &mut *rows, identity })?;
    for ((caller, request), verdict) in batch.requests.iter().zip(&plan.verdicts) {
        rows.log_request(identity, &LoggedRequest::new(caller, request, stamp, verdict))?;
    }
    for (state, by) in &plan.consumed {
        rows.add_consumed(identity, state, by)?;
    }
    let mut committed = 0;
    for (id, outcome) in &plan.decided {
        committed += u64::from(matches!(outcome, notary::Outcome::Committed(_)));
        rows.add_outcome(identity, id, *outcome)?;
    }
    let conflicts = plan.verdicts.iter().filter(|verdict| matches!(verdict, Err(NotaryError::Conflict { .. })));
    let conflicts = conflicts.count() as u64;
    rows.count_batch(identity, committed, conflicts, plan.consumed.len() as u64)?;
    Ok(plan.verdicts)
}
