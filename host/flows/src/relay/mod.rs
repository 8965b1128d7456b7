//! The way through the broker: from the outbox to the recipient's queue ([`outbound`]), and from an identity's queue into
//! the database ([`inbound`]). Each step is at least once; the receiver's database recognises what comes twice.
//!
//! Identities of one database that this host holds need none of this: their messages are written by the sender's own
//! transaction.

mod ahead;
mod backoff;
pub(crate) mod commands;
mod counterparties;
mod destinations;
pub(crate) mod inbound;
pub(crate) mod kept;
pub(crate) mod outbound;
mod services;
mod taking;

pub(crate) use self::counterparties::Counterparties;
pub(crate) use self::kept::Kept;
pub(crate) use self::services::RelayServices;
