//! Which host runs which identity, and which identities somebody wants to have running.
//!
//! [`Ownership`] is what ZooKeeper and the embedded default have in common. [`Realm`] is the embedded one: in memory,
//! for a single host (whose data folder is locked), and for tests with several hosts whose connections are cut and
//! whose sessions are ended by hand. Every implementation must pass the tests of the module `contract` (feature
//! `contract-tests`).
//!
//! Ownership says who *should* run an identity. Who *may* write for it is decided by the database, which compares the
//! claim of every commit with the last one; so an owner that does not know yet that it lost an identity can do no harm.
//!
//! Layer 3: knows nothing of flows.

#[cfg(feature = "contract-tests")]
pub mod contract;
mod error;
mod memory;
mod owner;
mod ownership;
pub mod protocol;
pub mod rendezvous;
mod roles;
mod tellings;

pub use error::{Lost, OwnershipError, Permanent, Transient};
pub use memory::{MemoryOwnership, Realm};
pub use owner::Owner;
pub use ownership::{
    Change, Changes, DEMAND_MESSAGE_BYTES, Demand, DemandVersion, Demands, HostInfo, Ownedness, Ownership, Reach,
    Session, SessionState, Slept,
};
pub use roles::Roles;
pub use tellings::Tellings;
