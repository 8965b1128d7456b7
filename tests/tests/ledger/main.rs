//! Ledgers of identities on one host: money and other states, who has a part in them, what they come from, who keeps them, and
//! that neither crashes nor anybody's bad will make or lose any.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod accounts;
mod attachments;
mod cash;
mod chain;
mod hostile;
mod keys;
mod money;
mod notary_change;
mod notary_log;
mod notary_observers;
mod observers;
mod parameters;
mod pointers;
mod samples;
mod successors;
mod turns;
mod waits;
