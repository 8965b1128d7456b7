//! Durable queues, one for each identity: what carries a message to an identity on another host.
//!
//! [`Broker`] is what AMQP 1.0 and the embedded broker have in common. [`EmbeddedBroker`] keeps its queues in an
//! SQLite file of its own, so that a host needs nothing installed. Every implementation must pass the tests of the
//! module `contract` (feature `contract-tests`).
//!
//! [`ClientQueues`] is for programs outside of the cluster that send requests as messages; only a broker on the network has it.
//!
//! Layer 3: knows nothing of flows, and nothing of what the messages say.

mod broker;
mod client_queues;
#[cfg(feature = "contract-tests")]
pub mod contract;
mod delivery;
mod embedded;
mod error;
mod markers;
mod queue_name;

pub use broker::{BacklogNotices, Broker, Consumer, Holding};
pub use client_queues::{ClientAnswer, ClientQueues, ClientRequest, Requests};
pub use delivery::{Acks, Credit, Delivery, Message, MessageId, Tag};
pub use embedded::{EmbeddedBroker, EmbeddedOptions};
pub use error::{BrokerError, Cause, Permanent, Transient};
pub use markers::Markers;
pub use queue_name::{BadQueueName, QueueName};
