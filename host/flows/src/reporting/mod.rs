//! What is told of flows and of the host to those outside, and what they have read of it. No flow waits for any of it.
//!
//! Operators are told events as they happen ([`events`]), and the audit trail keeps who asked for what ([`audit`]).
//! Clients watch flows ([`watchers`]), and which results they have got is noted ([`results_read`]).

pub(crate) mod audit;
pub(crate) mod events;
pub(crate) mod results_read;
pub(crate) mod watchers;
