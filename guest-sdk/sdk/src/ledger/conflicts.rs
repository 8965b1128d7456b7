//! What a notary says of spent states, and repeating what failed only because states that it looked at are spent.

use std::time::Duration;

use serde::Deserialize;

use super::wait_for_state_consumption;
use crate::error::{Error, Result};
use crate::time::now;

/// The type of the exception.
const CONFLICT: &str = "notary/conflict";
/// What [`with_referenced_states`] allows.
const ATTEMPTS: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(600);

/// As what the refused transaction named a spent state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflictKind {
    /// As an input: it cannot be consumed twice.
    Input,
    /// As a reference: it was only looked at.
    Reference,
}

/// A state for which a notary has refused a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ConflictingState {
    /// Where it was made: `TXID:INDEX`.
    pub state: String,
    /// As what the transaction named it.
    pub kind: ConflictKind,
    /// SHA-256 of the id of the transaction that has consumed it, in hexadecimal: the notary tells no more of it.
    pub consumed_by: String,
}

/// Why a notary has refused a transaction with `notary/conflict`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Conflict {
    /// The spent states, at most 256, those that are inputs first.
    pub states: Vec<ConflictingState>,
    /// So many besides.
    pub more: u32,
}

#[derive(Deserialize)]
struct Facts {
    conflicts: Option<Conflict>,
}

impl Conflict {
    /// The conflict, if that is what the error of a call to the ledger says.
    #[must_use]
    pub fn of(error: &Error) -> Option<Conflict> {
        let exception = error.flow_exception().filter(|exception| exception.is(CONFLICT))?;
        exception.data::<Facts>().ok().flatten()?.conflicts
    }

    /// Whether all of the spent states were only looked at.
    #[must_use]
    pub fn is_of_references(&self) -> bool {
        !self.states.is_empty() && self.states.iter().all(|state| state.kind == ConflictKind::Reference)
    }
}

/// How often something is repeated, and for how long it is waited before each time.
#[derive(Debug, Clone, Copy)]
pub struct Repeat {
    attempts: u32,
    patience: Duration,
}

impl Repeat {
    /// So many attempts in all, at least one. Before each but the first, so long at most is waited until this identity's ledger
    /// knows that the states are consumed.
    #[must_use]
    pub fn new(attempts: u32, patience: Duration) -> Repeat {
        Repeat { attempts, patience }
    }

    /// As [`with_referenced_states`].
    ///
    /// # Errors
    /// Those of the action: the notary's conflict too, when no attempt is left or the wait was in vain.
    pub fn with_referenced_states<T>(self, mut action: impl FnMut() -> Result<T>) -> Result<T> {
        let mut attempt = 1;
        loop {
            let error = match action() {
                Err(error) if attempt < self.attempts => error,
                other => return other,
            };
            // What a peer says was refused is its word, and names whatever states it likes.
            let own = Some(&error).filter(|error| error.peer().is_none());
            let Some(conflict) = own.and_then(Conflict::of).filter(Conflict::is_of_references) else {
                return Err(error);
            };
            let states = conflict.states.iter().map(|state| &state.state);
            if !wait_for_state_consumption(states, now() + self.patience)? {
                return Err(error);
            }
            attempt += 1;
        }
    }
}

/// Does something that ends with a transaction which looks at states. If the notary refuses the transaction because such states
/// are consumed, and for nothing else, waits until this identity's ledger knows their consumption, and does it again, from its
/// beginning: the action must find the newest states itself. At most ten attempts, with ten minutes of waiting before each;
/// [`Repeat`] allows others. Sessions that the action has opened are over when it fails, so it opens them anew.
///
/// The new states have to reach this identity by another flow of its own, which gets them from whoever has made them. An action
/// that asks for the newest states itself, each time, needs no wait: it can be tried again at once.
///
/// ```no_run
/// # use maxhost_sdk::prelude::*;
/// # use maxhost_sdk::ledger::{Draft, Query, Transaction, with_referenced_states};
/// # #[derive(Serialize, Deserialize)] struct Rate { rate: u64 }
/// # fn convert(draft: impl Fn(&Rate) -> Result<Draft>) -> Result<Transaction> {
/// with_referenced_states(|| {
///     let Some(rate) = Query::of("fx/Rate").find::<Rate>()?.pop() else { bail!("there is no rate") };
///     draft(&rate.state)?.reference(&rate).sign()?.finalise(&[] as &[Session])
/// })
/// # }
/// ```
///
/// # Errors
/// Those of the action: the notary's conflict too, when no attempt is left or the wait was in vain.
pub fn with_referenced_states<T>(action: impl FnMut() -> Result<T>) -> Result<T> {
    Repeat::new(ATTEMPTS, PATIENCE).with_referenced_states(action)
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;
    use crate::error::FlowException;

    #[derive(Serialize)]
    struct Told<'a> {
        code: &'a str,
        conflicts: Option<ToldConflicts<'a>>,
    }

    #[derive(Serialize)]
    struct ToldConflicts<'a> {
        states: Vec<ToldState<'a>>,
        more: u32,
    }

    #[derive(Serialize)]
    struct ToldState<'a> {
        state: &'a str,
        kind: &'a str,
        consumed_by: &'a str,
    }

    fn refused(kinds: &[&'static str]) -> Error {
        let states = kinds.iter().map(|kind| ToldState { state: "ab:0", kind, consumed_by: "cd" }).collect();
        let told = Told { code: "conflict", conflicts: Some(ToldConflicts { states, more: 0 }) };
        Error::from(FlowException::new("refused").of_type(CONFLICT).with(&told))
    }

    #[test]
    fn a_conflict_says_what_the_spent_states_were_named_as() -> Result<()> {
        let conflict = Conflict::of(&refused(&["reference"])).ok_or_else(|| Error::unexpected("there is none"))?;
        assert_eq!((conflict.states[0].kind, conflict.is_of_references()), (ConflictKind::Reference, true));
        let mixed = Conflict::of(&refused(&["input", "reference"])).map(|conflict| conflict.is_of_references());
        assert_eq!(mixed, Some(false));
        assert_eq!(Conflict::of(&refused(&[])).map(|conflict| conflict.is_of_references()), Some(false));
        for other in [Error::unexpected("x"), FlowException::new("x").of_type(CONFLICT).into()] {
            assert_eq!(Conflict::of(&other), None);
        }
        Ok(())
    }

    /// How often something is tried that fails so. Outside of a host nothing can be waited for.
    fn tries(repeat: Repeat, error: impl Fn() -> Error) -> u32 {
        let mut tries = 0;
        let result = repeat.with_referenced_states(|| -> Result<()> {
            tries += 1;
            Err(error())
        });
        assert!(result.is_err());
        tries
    }

    #[test]
    fn only_a_conflict_of_references_is_repeated_and_the_last_attempt_is_the_last() {
        let patient = Repeat::new(5, Duration::from_secs(1));
        assert_eq!(tries(patient, || refused(&["input", "reference"])), 1);
        assert_eq!(tries(patient, || FlowException::new("no").of_type("cash/insufficient").into()), 1);
        for attempts in [0, 1] {
            assert_eq!(tries(Repeat::new(attempts, Duration::ZERO), || refused(&["reference"])), 1);
        }
    }
}
