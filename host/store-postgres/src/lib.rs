//! The host's database on a PostgreSQL server, version 15 or later.
//!
//! One thread writes: it decides a batch of units in memory and writes it with one statement ([`committer`]). A small
//! pool reads, claims and purges. Several hosts may use one database: which of them may write for an identity is
//! compared in the very statement that writes. What is written for an operation is decided by the rules of
//! `maxhost-store`, which know nothing of PostgreSQL; what a row says is read by `maxhost-store-sql`.
//!
//! Layer 5.

mod answers;
mod audit;
mod batch;
mod beside;
mod claiming;
mod clock;
mod committer;
mod components;
mod durability;
mod error;
mod examine;
mod imports;
mod kept;
mod known;
mod ledger;
mod lived;
mod moving;
mod numbers;
mod open;
mod options;
mod pending;
mod persist;
mod reader;
mod rows;
mod schema;
mod session;
mod several;
mod undo_map;
mod untaken;
mod write;

pub use examine::{Examination, begin_incarnation, examine, migrate};
pub use moving::{Moved, Step, move_identity};
pub use open::PostgresStore;
pub use options::{AddressError, Layout, PASSWORD_VARIABLE, PostgresOptions};
pub use schema::SCHEMA_VERSION;
