//! Databases in files. One program, so that it is compiled once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod crash;
mod examine;
mod full;
mod open;
mod plans;
mod store_contract;
mod write_buffer;
