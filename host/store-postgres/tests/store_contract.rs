//! The suite that every database must pass, on a PostgreSQL server.
#![allow(clippy::unwrap_used)]

mod common;

use common::Database;

maxhost_store::contract_tests!(Database);
