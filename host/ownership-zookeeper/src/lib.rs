//! Ownership of identities by a ZooKeeper ensemble (3.8 or later): the [`maxhost_ownership::Ownership`] of a cluster.
//!
//! One session a host, whatever the number of identities. Who owns an identity is an ephemeral node; that somebody
//! wants it is a persistent one, which outlives the owner. Every host keeps a copy of both by one recursive watch. The
//! protocol, and what can go wrong in it, is in `docs/cluster.md`.
//!
//! Layer 4: implements the trait of layer 3.

mod board;
mod client;
mod error;
mod file_feed;
mod file_marks;
mod files;
mod follow;
mod former;
mod listeners;
mod nodes;
mod options;
mod owner_nodes;
mod ownership;
mod session;
mod setup;
#[cfg(feature = "test-servers")]
pub mod test_servers;

pub use file_feed::{FileChange, FileFeed, FileNews};
pub use files::{FileName, Folder, LARGEST_FILE, Listing, Put, SharedFiles};
pub use nodes::Cluster;
pub use options::{Address, Digest, SESSION_TIMEOUT, Tls, ZooKeeperOptions};
pub use ownership::ZooKeeperOwnership;
pub use setup::{
    adopt, enter_database, enter_further_database, hosts_without_database, look, replace_database,
    replace_further_database, set_up,
};
