//! Durable queues, one for each identity: what carries a message to an identity on another host.
//!
//! [`Broker`] is what AMQP 1.0 and the embedded broker have in common. [`EmbeddedBroker`] keeps its queues in an
//! SQLite file of its own, so that a host needs nothing installed. Every implementation must pass the tests of the
//! module `contract` (feature `contract-tests`).
//!
//! Layer 2: knows nothing of flows, and nothing of what the messages say.

mod broker;
#[cfg(feature = "contract-tests")]
pub mod contract;
mod embedded;
mod error;

pub use broker::{Acks, Bells, Broker, Consumer, Delivery, Message, MessageId, Tag};
pub use embedded::{EmbeddedBroker, EmbeddedOptions};
pub use error::BrokerError;
