//! One SQLite file as a database of group commit: what the host's database and the embedded broker have in common.
//!
//! A [`Writer`] says what a unit writes; [`run`] gives it transactions, savepoints and a write-ahead log that is worked
//! off in time. This crate knows SQLite and nothing of what is stored.

mod error;
mod open;
mod reserve;
mod transactions;
mod wal;

pub use error::{SqliteError, kind_of_code};
pub use open::{Tuning, open_reader, open_writer};
pub use transactions::{Writer, run};
pub use wal::WalLimits;
