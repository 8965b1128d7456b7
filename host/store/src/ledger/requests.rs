//! The log of a notary: each request that it has decided, with what it answered (`docs/behaviour.md` 11.6).

use maxhost_ledger::notary::{BatchStamp, ConflictKind, NotaryError, UniquenessRequest, Verdict};
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_model::SecureHash;

use super::query::integer;
use crate::error::StoreError;

/// How many of the states that kept a transaction from being committed are logged with its request. All of them are counted.
pub const LOGGED_CONFLICTS: usize = 16;

/// The most requests that one read of the log looks at to find some by their caller or by what was answered.
pub const LOOKED_AT: u32 = 20_000;

/// The version of how conflicts are written.
const VERSION: u8 = 1;
/// Bytes of a conflict: the id of a transaction, an index, a kind.
const CONFLICT: usize = 32 + 4 + 1;

/// What a notary has answered to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answered {
    /// The transaction was committed by this request.
    Committed,
    /// It had been committed before, and was signed again.
    Repeated,
    /// A state that it names was consumed by another transaction.
    Conflict,
    /// Its time-window was over.
    TooLate,
    /// Its time-window had not begun.
    TooEarly,
}

impl Answered {
    /// All of them.
    pub const ALL: [Answered; 5] =
        [Answered::Committed, Answered::Repeated, Answered::Conflict, Answered::TooLate, Answered::TooEarly];

    /// As it is stored.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            Answered::Committed => 0,
            Answered::Repeated => 1,
            Answered::Conflict => 2,
            Answered::TooLate => 3,
            Answered::TooEarly => 4,
        }
    }

    /// The answer of a number, as it is stored.
    #[must_use]
    pub fn of(number: i64) -> Option<Answered> {
        Answered::ALL.into_iter().find(|one| one.number() == number)
    }

    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Answered::Committed => "committed",
            Answered::Repeated => "repeated",
            Answered::Conflict => "conflict",
            Answered::TooLate => "too-late",
            Answered::TooEarly => "too-early",
        }
    }
}

/// A state that kept a transaction from being committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflicting {
    /// The state.
    pub reference: StateRef,
    /// As what the transaction named it.
    pub kind: ConflictKind,
}

/// A request that a notary has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedRequest {
    /// The transaction.
    pub id: SecureHash,
    /// The name of who asked.
    pub caller: String,
    /// How many states the transaction consumes or looks at.
    pub states: u64,
    /// The batch in which it was decided, and when.
    pub stamp: BatchStamp,
    /// What was answered; `None` of a request that an older version has logged.
    pub answered: Option<Answered>,
    /// How many states kept it from being committed.
    pub conflicting: u64,
    /// The first of them, in their order: [`LOGGED_CONFLICTS`] at most.
    pub conflicts: Vec<Conflicting>,
}

impl LoggedRequest {
    /// A request, and what was decided about it in the batch with this stamp.
    #[must_use]
    pub fn new(caller: &str, request: &UniquenessRequest, stamp: BatchStamp, verdict: &Verdict) -> LoggedRequest {
        let (answered, conflicting, conflicts) = match verdict {
            Ok(committed) if committed.stamp == stamp => (Some(Answered::Committed), 0, Vec::new()),
            Ok(_) => (Some(Answered::Repeated), 0, Vec::new()),
            Err(NotaryError::Conflict { states, .. }) => {
                let each = states.iter().take(LOGGED_CONFLICTS);
                let each = each.map(|(reference, one)| Conflicting { reference: *reference, kind: one.kind });
                (Some(Answered::Conflict), states.len() as u64, each.collect())
            }
            Err(NotaryError::TimeWindowInvalid { at, window }) => {
                let answered = if window.is_over(*at) { Answered::TooLate } else { Answered::TooEarly };
                (Some(answered), 0, Vec::new())
            }
            // Uniqueness refuses for no other reason.
            Err(_) => (None, 0, Vec::new()),
        };
        let states = (request.inputs.len() + request.references.len()) as u64;
        LoggedRequest { id: request.id, caller: caller.to_owned(), states, stamp, answered, conflicting, conflicts }
    }

    /// The conflicts as they are stored; `None` if there are none.
    #[must_use]
    pub fn encoded_conflicts(&self) -> Option<Vec<u8>> {
        if self.conflicts.is_empty() {
            return None;
        }
        let mut bytes = Vec::with_capacity(1 + CONFLICT * self.conflicts.len());
        bytes.push(VERSION);
        for Conflicting { reference, kind } in &self.conflicts {
            bytes.extend(reference.tx.as_bytes());
            bytes.extend(reference.index.to_be_bytes());
            bytes.push(match kind {
                ConflictKind::Input => 0,
                ConflictKind::Reference => 1,
            });
        }
        Some(bytes)
    }
}

/// What [`LoggedRequest::encoded_conflicts`] wrote.
///
/// # Errors
/// [`StoreError::Corrupt`].
pub fn decode_conflicts(bytes: Option<&[u8]>) -> Result<Vec<Conflicting>, StoreError> {
    let corrupt = || StoreError::Corrupt { table: "notary_request", key: "its conflicts".to_owned() };
    let Some(bytes) = bytes else { return Ok(Vec::new()) };
    let (version, bytes) = bytes.split_first().ok_or_else(corrupt)?;
    if *version != VERSION || !bytes.len().is_multiple_of(CONFLICT) {
        return Err(corrupt());
    }
    let conflict = |bytes: &[u8]| {
        let (tx, rest) = bytes.split_first_chunk::<32>()?;
        let (index, kind) = rest.split_first_chunk::<4>()?;
        let kind = match kind {
            [0] => ConflictKind::Input,
            [1] => ConflictKind::Reference,
            _ => return None,
        };
        let reference = StateRef::new(SecureHash::from_bytes(*tx), u32::from_be_bytes(*index));
        Some(Conflicting { reference, kind })
    };
    bytes.chunks(CONFLICT).map(|bytes| conflict(bytes).ok_or_else(corrupt)).collect()
}

/// The place of a request in the log: rises with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestPlace {
    /// When it was decided, as databases keep times.
    pub at: i64,
    /// Tells those of one moment apart.
    pub number: i64,
}

impl RequestPlace {
    /// Above all places that there are.
    pub const NEWEST: RequestPlace = RequestPlace { at: i64::MAX, number: i64::MAX };
    /// Below all places that there are.
    pub const OLDEST: RequestPlace = RequestPlace { at: i64::MIN, number: i64::MIN };
}

/// Which requests are listed: newest first.
#[derive(Debug, Clone, Default)]
pub struct ListRequests {
    /// Only below this place.
    pub before: Option<RequestPlace>,
    /// Only those that were decided then or later.
    pub from: Option<Timestamp>,
    /// Only those that were decided before.
    pub until: Option<Timestamp>,
    /// Only those of this caller.
    pub caller: Option<String>,
    /// Only those that were answered so.
    pub answered: Option<Answered>,
    /// At most so many.
    pub limit: u32,
    /// At most so many are looked at to find them; [`LOOKED_AT`] is the most that anybody asks for.
    pub look: u32,
}

impl ListRequests {
    /// Below which place requests are looked at.
    #[must_use]
    pub fn below(&self) -> RequestPlace {
        let until = self.until.map(|until| RequestPlace { at: integer(until), number: i64::MIN });
        let before = self.before.unwrap_or(RequestPlace::NEWEST);
        until.map_or(before, |until| until.min(before))
    }

    /// From which time on, as databases keep times.
    #[must_use]
    pub fn since(&self) -> i64 {
        self.from.map_or(i64::MIN, integer)
    }
}

/// Some requests of a log, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestPage {
    /// The requests.
    pub rows: Vec<(RequestPlace, LoggedRequest)>,
    /// Below which place there may be more: that of the last one that was looked at. `None`: all were.
    pub next: Option<RequestPlace>,
}

impl RequestPage {
    /// The page of rows that were found from an end on: the last place that was looked at; `None` if there was none below
    /// those that were. A page that is full goes on behind its last row.
    #[must_use]
    pub fn of(rows: Vec<(RequestPlace, LoggedRequest)>, limit: u32, end: Option<RequestPlace>) -> RequestPage {
        let next = match rows.last() {
            Some((place, _)) if rows.len() >= limit as usize => Some(*place),
            _ => end,
        };
        RequestPage { rows, next }
    }
}

/// That a notary has committed a state as consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consumption {
    /// The state.
    pub reference: StateRef,
    /// The transaction that has consumed it.
    pub consumed_by: SecureHash,
    /// In which batch, and when; `None` if that is not known any more.
    pub stamp: Option<BatchStamp>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn logged(conflicts: Vec<Conflicting>) -> LoggedRequest {
        let stamp = BatchStamp { batch: 1, at: Timestamp::from_nanos(1) };
        LoggedRequest {
            id: SecureHash::of(b"a"),
            caller: "O=Alice, L=London, C=GB".to_owned(),
            states: 1,
            stamp,
            answered: Some(Answered::Conflict),
            conflicting: conflicts.len() as u64,
            conflicts,
        }
    }

    #[test]
    fn conflicts_are_read_as_they_were_written() {
        let conflicts = vec![
            Conflicting { reference: StateRef::new(SecureHash::of(b"x"), 7), kind: ConflictKind::Input },
            Conflicting { reference: StateRef::new(SecureHash::of(b"y"), u32::MAX), kind: ConflictKind::Reference },
        ];
        let bytes = logged(conflicts.clone()).encoded_conflicts().unwrap();
        assert_eq!(bytes.len(), 1 + 2 * 37);
        assert_eq!(decode_conflicts(Some(&bytes)).unwrap(), conflicts);
        assert_eq!(logged(Vec::new()).encoded_conflicts(), None);
        assert!(decode_conflicts(None).unwrap().is_empty());
        let mut other = bytes.clone();
        other[0] = 2;
        let mut kind = bytes.clone();
        *kind.last_mut().unwrap() = 9;
        for wrong in [&[][..], &other, &kind, &bytes[..bytes.len() - 1]] {
            assert!(matches!(decode_conflicts(Some(wrong)), Err(StoreError::Corrupt { .. })));
        }
    }

    #[test]
    fn an_answer_is_the_number_that_it_is_stored_as() {
        for one in Answered::ALL {
            assert_eq!(Answered::of(one.number()), Some(one));
        }
        assert_eq!(Answered::of(5), None);
    }

    #[test]
    fn a_page_that_is_not_full_goes_on_where_was_looked_last() {
        let place = |at| RequestPlace { at, number: at };
        let row = |at| (place(at), logged(Vec::new()));
        assert_eq!(RequestPage::of(vec![row(9), row(8)], 2, Some(place(3))).next, Some(place(8)));
        assert_eq!(RequestPage::of(vec![row(9)], 2, Some(place(3))).next, Some(place(3)));
        assert_eq!(RequestPage::of(Vec::new(), 2, None).next, None);
    }
}
