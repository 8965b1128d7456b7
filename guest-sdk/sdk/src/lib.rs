//! Writes CorDapp flows for maxhost.
//!
//! A flow is a plain function marked [`#[flow]`](flow); a CorDapp is a crate that lists its flows in [`cordapp!`] and is
//! compiled to a WebAssembly component. A flow may stop at any call into this crate, be put away, and come back years
//! later on another host: it cannot tell, because it is run again and every call is answered as it was before. So a flow
//! has no clock, no randomness and no outside world but what this crate offers, and needs none of its own precautions.
//!
//! ```
//! use maxhost_sdk::prelude::*;
//!
//! #[derive(Serialize, Deserialize, JsonSchema)]
//! pub struct Ping {
//!     pub peer: Party,
//!     pub count: u32,
//! }
//!
//! /// Bounces a message off a peer `count` times.
//! #[flow(startable)]
//! fn ping(input: Ping) -> Result<u32> {
//!     let session = initiate(&input.peer)?;
//!     for round in 1..=input.count {
//!         let echoed: u32 = session.send_and_receive(&round)?;
//!         ensure!(echoed == round, "peer sent {echoed} instead of {round}");
//!     }
//!     Ok(input.count)
//! }
//!
//! #[flow(responds_to = "ping")]
//! fn pong(session: Session) -> Result<()> {
//!     while let Some(round) = session.receive_or_close::<u32>()? {
//!         session.send(&round)?;
//!     }
//!     Ok(())
//! }
//!
//! cordapp! { flows: [ping, pong] }
//! ```

#[doc(hidden)]
pub mod bindings;
pub mod cbor;
mod entry;
mod error;
mod flow;
mod flow_info;
mod host;
pub mod ledger;
mod macros;
mod names;
mod party;
pub mod prelude;
mod session;
mod time;

pub use error::{Error, FlowException, Result, UnexpectedEnd};
pub use flow::{
    flow_id, initiate, our_identity, parties, party, random, receive_all, send_all, send_each, sleep, wait_any,
};
pub use flow_info::FlowInfo;
pub use host::LogLevel;
pub use maxhost_sdk_macros::{cordapp, flow};
pub use party::Party;
pub use session::Session;
pub use time::{ParseTimestampError, Timestamp, now};

/// What the macros of this crate write into an author's crate. No promise to anybody else.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::maxhost::cordapp::types::{Descriptor, Failure, Invocation};
    pub use crate::bindings::{Guest, export_flows};
    pub use crate::entry::{
        FlowEntry, ProtocolScope, Start, call, call_without_arguments, describe, respond, run, schemas,
        schemas_without_arguments,
    };
    pub use crate::host::{log, progress};
    pub use crate::names::check as check_names;
}
