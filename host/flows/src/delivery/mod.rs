//! The way of a message or a command to an identity. The way through a broker is in `relay`.
//!
//! [`waking`] tells an identity something, and has it opened if it sleeps. [`router`] brings a message from a unit to a
//! recipient on this host. What leaves the host is a row of the outbox, of which the relay is told
//! ([`outbox_notices`]), and travels in a signed [`envelope`].

pub(crate) mod envelope;
pub(crate) mod outbox_notices;
pub(crate) mod router;
pub(crate) mod waking;
