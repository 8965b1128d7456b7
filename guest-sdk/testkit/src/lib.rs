//! Runs the flows of a CorDapp in `cargo test`: on the real host, over a development network that is made for the test
//! and goes with it.
//!
//! ```no_run
//! use maxhost_testkit::TestNetwork;
//! use serde_json::json;
//!
//! # fn main() -> maxhost_testkit::Result<()> {
//! let network = TestNetwork::new(["Alice", "Bob"])?;
//! let result = network.start("Alice", "ping", json!({"peer": network.party("Bob"), "count": 3}))?;
//! assert_eq!(result, json!({"rounds": 3}));
//! # Ok(())
//! # }
//! ```
//!
//! The host program is the one that the environment variable `MAXHOST_BIN` names, else `maxhost` on PATH. The component of
//! the crate under test is built once in a test process, with `maxhost cordapp build`.

mod command;
mod compiled;
mod component;
mod config;
pub mod contract;
mod error;
mod network;
mod process;

pub use error::{Error, FlowFailure, Result};
pub use network::{Builder, TestNetwork};
