//! Durable per-identity message queues in a broker that speaks AMQP 1.0 (OASIS AMQP 1.0): Apache Artemis 2.44, or
//! RabbitMQ 3.10.
//!
//! A host has two connections, whatever the number of identities: one sends (and asks Artemis's management
//! address), the other consumes. RabbitMQ's management is asked over HTTP. Every consumer has a session of its own, because a broker that refuses a link may end its session
//! with it. How the broker must be configured is in `docs/cluster.md`.
//!
//! Layer 4: implements the trait of layer 3.

mod attaching;
mod broker;
mod budget;
mod connection;
mod consumer;
mod dial;
mod error;
mod heard;
mod management;
mod notice_sender;
mod notices;
mod oldest;
mod open_frame;
mod options;
mod queues;
mod sender;
mod shared;
#[cfg(feature = "test-servers")]
pub mod test_servers;

pub use broker::AmqpBroker;
pub use options::{Address, AmqpOptions, Credentials, ManagementAddress, Tls};
