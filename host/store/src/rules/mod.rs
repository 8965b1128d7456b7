//! The rules of each operation, over rows of any database. One file for each family of operations.

mod clients;
mod flows;
mod identities;
mod imports;
mod messages;

use maxhost_group_commit::{Failure, Fault, FaultKind};

use crate::claim::NOBODY;
use crate::committer::{Job, Outcome};
use crate::conflict::Conflict;
use crate::error::StoreError;
use crate::op::Op;
use crate::rows::{HostRows, Rows};
use crate::unit::{AttemptToken, CommitUnit, Receipt};

pub use identities::decide_claim;

/// Why a unit is not written.
pub type Failed = Failure<StoreError>;

/// Applies a job within the transaction under way. `again`: it was applied before, and the transaction was rolled back
/// because of a later job.
///
/// # Errors
/// As [`Failure`] says. A unit that is refused for its claim or for want of room has changed nothing.
pub fn apply<R: HostRows>(rows: &mut R, job: &Job, again: bool) -> Result<Outcome, Failed> {
    match job {
        Job::Unit(unit) => apply_unit(rows, unit, again).map(Outcome::Receipt),
        Job::Register { names, .. } => {
            let rows: Result<_, Fault> = names.iter().map(|name| rows.add_identity(name)).collect();
            Ok(Outcome::Rows(rows?))
        }
        Job::Claim { requests, .. } => {
            let mut outcomes = Vec::with_capacity(requests.len());
            for request in requests {
                outcomes.push(match identities::claim(rows, request) {
                    Ok(claim) => Ok(claim),
                    Err(Failure::Unit(error)) => Err(error),
                    Err(Failure::Transaction(fault)) => return Err(Failure::Transaction(fault)),
                });
            }
            Ok(Outcome::Claimed(outcomes))
        }
        Job::Purge { limit, .. } => {
            let orphans = rows.drop_orphans(*limit)?;
            for orphan in &orphans {
                rows.backlog().sent(orphan.identity, orphan.bytes);
            }
            let gone = rows.expire(*limit)? + rows.forget_processed(*limit)? + rows.forget_audit(*limit)?;
            Ok(Outcome::Count(gone + orphans.len() as u64))
        }
        Job::Forgive { identity, forgive, .. } => {
            identities::forgive(rows, *identity, *forgive)?;
            Ok(Outcome::Count(1))
        }
        Job::ResultsRead { reads, .. } => {
            for read in reads {
                rows.note_result_read(read)?;
            }
            Ok(Outcome::Count(reads.len() as u64))
        }
        Job::Untaken { untaken, .. } => Ok(Outcome::Untaken(rows.note_untaken(untaken)?)),
        Job::Import { identity, attachment, bounds, .. } => {
            imports::import(rows, *identity, attachment, *bounds).map(Outcome::Imported)
        }
        Job::Audit { rows: noted, .. } => {
            rows.add_audit(noted)?;
            Ok(Outcome::Count(noted.len() as u64))
        }
    }
}

/// Applies a unit. See [`apply`].
///
/// # Errors
/// As [`Failure`] says.
pub fn apply_unit<R: Rows>(rows: &mut R, unit: &CommitUnit, again: bool) -> Result<Receipt, Failed> {
    let attempt = unit.attempt.as_ref();
    // Applied again, a unit may find its attempt revoked by the later unit that caused the repetition.
    if !again && attempt.into_iter().chain(&unit.depends_on).any(AttemptToken::is_revoked) {
        if let Some(attempt) = attempt {
            attempt.revoke();
        }
        return Err(Failure::Unit(StoreError::Superseded));
    }
    let mark = rows.backlog().mark();
    let written = write_unit(rows, unit);
    if written.is_err() {
        rows.backlog().undo_to(mark);
    }
    // At once, not when the unit is told: the next unit of the attempt may be in this very batch.
    if let (Err(_), Some(attempt)) = (&written, attempt) {
        attempt.revoke();
    }
    written
}

fn write_unit<R: Rows>(rows: &mut R, unit: &CommitUnit) -> Result<Receipt, Failed> {
    let author = unit.author;
    match rows.claim(author.identity)? {
        // A claim that the row shows as nobody's was let go: it gives no right to write.
        Some(current) if current == author.claim && current.run != NOBODY => {}
        Some(current) => {
            let (identity, claim) = (author.identity, author.claim);
            return Err(Failure::Unit(StoreError::Fenced { identity, claim, current }));
        }
        None => return Err(refuse(Conflict::IdentityUnknown(author.identity))),
    }
    // A unit that fails after it has let its identity go would leave the next one to guess.
    let release = unit.ops.iter().position(|op| matches!(op, Op::Identity(_)));
    if release.is_some_and(|place| place + 1 != unit.ops.len()) {
        return Err(refuse(Conflict::ReleaseNotLast(author.identity)));
    }
    // Before the first write, so that a unit without room costs the others of its batch nothing.
    messages::admit(rows, author.identity, &unit.ops)?;
    let mut receipt = Receipt::default();
    for (index, op) in unit.ops.iter().enumerate() {
        match op {
            Op::Flow(op) => flows::apply(rows, author.identity, op, &mut receipt)?,
            Op::Message(op) => messages::apply(rows, author.identity, index, op, &mut receipt)?,
            Op::Client(op) => clients::apply(rows, author.identity, op)?,
            Op::Identity(op) => identities::apply(rows, author.identity, op)?,
            Op::Ledger(_) if !rows.keeps_ledgers() => return Err(Failure::Unit(StoreError::NoLedgers)),
            Op::Ledger(op) => {
                let answer = crate::ledger::rules::apply(rows, author.identity, op)?;
                receipt.ledger.extend(answer.map(|answer| (index, answer)));
            }
        }
    }
    Ok(receipt)
}

pub(crate) fn refuse(conflict: Conflict) -> Failed {
    Failure::Unit(conflict.into())
}

/// It was done, or the conflict that it means if not.
pub(crate) fn done(done: bool, otherwise: Conflict) -> Result<(), Failed> {
    if done { Ok(()) } else { Err(refuse(otherwise)) }
}

/// Turns a violated constraint into the conflict that it means here.
pub(crate) fn or_conflict(fault: Fault, conflict: Conflict) -> Failed {
    if fault.kind == FaultKind::Constraint { refuse(conflict) } else { fault.into() }
}
