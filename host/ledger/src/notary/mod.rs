//! The rules of notaries: what a request is checked for, when its states count as spent, and what is answered
//! (behaviour.md 11).

mod check;
mod error;
mod request;
mod sign;
mod uniqueness;
mod wait;

pub use check::{MAX_STATES, NotaryService, Parameters, check_request};
pub use error::{ConflictKind, ConflictingState, NotaryError};
pub use request::{NotaryPayload, NotaryRequest, RequestSignature};
pub use sign::{check_final, check_notarised, check_notarised_by, sign_committed};
pub use uniqueness::{BatchStamp, Committed, Outcome, Plan, Rows, UniquenessRequest, Verdict, plan_batch};
pub use wait::{WAIT_THRESHOLD, WaitEstimate};

#[cfg(test)]
mod model_tests;
