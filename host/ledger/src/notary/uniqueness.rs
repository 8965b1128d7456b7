//! When states count as spent: the rules of uniqueness, for whole batches with serial semantics (behaviour.md 11.3, 11.4).
//!
//! A batch is decided in memory from rows that are read beforehand, and yields the rows to insert, so that a database
//! reads once, writes once and commits once for many requests.

use std::collections::{BTreeMap, BTreeSet};

use maxhost_model::SecureHash;

use super::error::{ConflictKind, ConflictingState, NotaryError};
use crate::time::{TimeWindow, Timestamp};
use crate::tx::StateRef;

/// What uniqueness looks at in a request that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniquenessRequest {
    /// The transaction.
    pub id: SecureHash,
    /// The states that it consumes.
    pub inputs: Vec<StateRef>,
    /// The states that it looks at.
    pub references: Vec<StateRef>,
    /// When it may be committed.
    pub window: Option<TimeWindow>,
}

/// In which batch, and when, a transaction was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchStamp {
    /// The number of the batch, rising from 1.
    pub batch: u64,
    /// The notary's clock.
    pub at: Timestamp,
}

/// What has been decided about a transaction for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was committed.
    Committed(BatchStamp),
    /// Its time-window was over when it was first asked for.
    TooLate(Timestamp),
}

/// A transaction that is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// When that was: in this batch, or in an earlier one.
    pub stamp: BatchStamp,
}

/// The answer to one request.
pub type Verdict = std::result::Result<Committed, NotaryError>;

/// The committed rows, as far as a batch needs them. Both functions are called once for a batch, inside of the database
/// transaction that will insert what the plan says.
pub trait Rows {
    /// What keeps the rows from being read.
    type Error;

    /// Of these states, those that are consumed, and by which transaction.
    ///
    /// # Errors
    /// The database cannot be read.
    fn consumers(&mut self, states: &BTreeSet<StateRef>) -> Result<BTreeMap<StateRef, SecureHash>, Self::Error>;

    /// Of these transactions, those about which something has been decided for ever.
    ///
    /// # Errors
    /// The database cannot be read.
    fn outcomes(&mut self, ids: &BTreeSet<SecureHash>) -> Result<BTreeMap<SecureHash, Outcome>, Self::Error>;
}

/// What a batch answers, and what must be committed before it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One answer for each request, in order.
    pub verdicts: Vec<Verdict>,
    /// States to insert, with the transaction that consumes them.
    pub consumed: Vec<(StateRef, SecureHash)>,
    /// What was decided for ever, to insert.
    pub decided: Vec<(SecureHash, Outcome)>,
}

/// Decides a batch as if its requests had come one after the other. The stamp is that of the batch: a number that no batch
/// has had, and a clock that has not gone back since the batch before.
///
/// # Errors
/// Those of the rows; nothing is decided then.
pub fn plan_batch<R: Rows>(requests: &[UniquenessRequest], stamp: BatchStamp, rows: &mut R) -> Result<Plan, R::Error> {
    let states = requests.iter().flat_map(|request| request.inputs.iter().chain(&request.references)).copied();
    let consumers = rows.consumers(&states.collect())?;
    let outcomes = rows.outcomes(&requests.iter().map(|request| request.id).collect())?;
    let plan = Plan { verdicts: Vec::with_capacity(requests.len()), consumed: Vec::new(), decided: Vec::new() };
    let mut batch = Batch { consumers, outcomes, stamp, plan };
    for request in requests {
        let verdict = batch.decide(request);
        batch.plan.verdicts.push(verdict);
    }
    Ok(batch.plan)
}

/// The rows as they will be after the requests decided so far.
struct Batch {
    consumers: BTreeMap<StateRef, SecureHash>,
    outcomes: BTreeMap<SecureHash, Outcome>,
    stamp: BatchStamp,
    plan: Plan,
}

impl Batch {
    fn decide(&mut self, request: &UniquenessRequest) -> Verdict {
        match self.outcomes.get(&request.id) {
            // Its references may have been consumed since: that does not undo what was committed.
            Some(Outcome::Committed(stamp)) if self.consumed_by_itself(request) => {
                return Ok(Committed { stamp: *stamp });
            }
            Some(Outcome::TooLate(at)) => {
                if let Some(window) = request.window {
                    return Err(NotaryError::TimeWindowInvalid { at: *at, window });
                }
            }
            _ => {}
        }
        let conflicts = self.conflicts(request);
        if !conflicts.is_empty() {
            return Err(NotaryError::Conflict { id: request.id, states: conflicts });
        }
        let at = self.stamp.at;
        if let Some(window) = request.window.filter(|window| !window.contains(at)) {
            // Too early passes, so it is not kept.
            if window.is_over(at) {
                self.keep(request.id, Outcome::TooLate(at));
            }
            return Err(NotaryError::TimeWindowInvalid { at, window });
        }
        for input in &request.inputs {
            // One that is named twice has one row.
            if self.consumers.insert(*input, request.id).is_none() {
                self.plan.consumed.push((*input, request.id));
            }
        }
        self.keep(request.id, Outcome::Committed(self.stamp));
        Ok(Committed { stamp: self.stamp })
    }

    fn keep(&mut self, id: SecureHash, outcome: Outcome) {
        self.outcomes.insert(id, outcome);
        self.plan.decided.push((id, outcome));
    }

    fn consumed_by_itself(&self, request: &UniquenessRequest) -> bool {
        request.inputs.iter().all(|input| self.consumers.get(input) == Some(&request.id))
    }

    fn conflicts(&self, request: &UniquenessRequest) -> BTreeMap<StateRef, ConflictingState> {
        let inputs = request.inputs.iter().map(|state| (state, ConflictKind::Input));
        let references = request.references.iter().map(|state| (state, ConflictKind::Reference));
        let conflict = |(state, kind): (&StateRef, ConflictKind)| {
            let consumer = self.consumers.get(state)?;
            let consumed_by = SecureHash::of(consumer.as_bytes());
            Some((*state, ConflictingState { consumed_by, kind }))
        };
        inputs.chain(references).filter_map(conflict).collect()
    }
}
