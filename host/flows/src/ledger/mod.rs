//! What the protocols of the ledger know beside the flow that runs them. The protocols themselves are in
//! `calls/ledger`.
//!
//! A flow asks here whether contracts accept a transaction ([`contracts`]), for the parties of the network
//! ([`parties`]) and for its parameters ([`parameters`]). Flows share in memory which back-chains are being got
//! ([`resolving`]), who waits for a state or a transaction ([`waits`]), and the requests that wait for a notary
//! ([`notary_queue`]).

pub(crate) mod contracts;
pub(crate) mod notary_queue;
pub(crate) mod parameters;
pub(crate) mod parties;
pub(crate) mod resolving;
pub(crate) mod waits;
