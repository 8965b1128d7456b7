//! What the suites share: development networks in folders of their own, hosts as processes, and both ways to talk to
//! them, the command line and gRPC.
//!
//! A suite drives the binary that ships: `target/release/maxhost`, or the one that `MAXHOST_BIN` names, over the sample
//! CorDapps in `target/cordapps`, or in the folder that `MAXHOST_CORDAPPS` names. `make build` makes both.

// A harness that cannot do what a test asks fails the test there and then.
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub mod bent_clock;
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub mod cli;
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub mod contracts;
pub mod crash;
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub mod flows;
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub mod host;
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub mod ledger;
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub mod network;
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod template;

pub use cli::Answer;
pub use flows::{End, Failure, eventually};
pub use host::{Host, peak};
pub use network::{Network, is_on_server};

/// The parties of a network that was made without options.
pub const ALICE: &str = "O=Alice, L=London, C=GB";
/// See [`ALICE`].
pub const BOB: &str = "O=Bob, L=New York, C=US";
/// See [`ALICE`].
pub const CAROL: &str = "O=Carol, L=Paris, C=FR";
/// The notary of a network that was made without options.
pub const NOTARY: &str = "O=Notary, L=Zurich, C=CH";
/// The second notary of a network that has two.
pub const SECOND_NOTARY: &str = "O=Second Notary, L=Basel, C=CH";

/// The ways in which a host puts flows away that wait: never, at each wait, and at random. Flows do not notice.
pub const MODES: [&str; 3] = ["flows.evict=never", "flows.evict=every-wait", "flows.evict=random:7"];
