//! The host's database in one SQLite file.
//!
//! One thread writes, with prepared statements ([`rows`]); a small pool reads, but for what takes a few pages ([`point_reads`]). What is
//! written for an operation is decided by the rules of `maxhost-store`, which know nothing of SQLite; what a row says is read by
//! `maxhost-store-sql`.
//!
//! Layer 5.

mod audit;
mod examine;
mod ledger_points;
mod ledger_reader;
mod ledger_rows;
mod ledger_statements;
mod notary_reader;
mod open;
mod point_reads;
mod reader;
mod rows;
mod schema;
mod statements;
mod write_buffer;

pub use examine::{Examination, examine};
pub use open::{SqliteOptions, SqliteStore};
pub use schema::SCHEMA_VERSION;
