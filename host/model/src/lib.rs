//! The words that every other crate speaks: names, parties, identifiers, error kinds.
//!
//! Layer 0: no I/O, no async, no clock. Everything here is data and rules about data.

pub mod codes;
pub mod error;
pub mod ids;

pub use codes::{Class, Code};
pub use error::{ErrorKind, FlowError, Problem};
pub use ids::{ErrorId, FlowId, FlowRow, IdentityRow, SessionId};
