//! Databases on real servers. One program, so that it is compiled once and most tests share a server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod crowd;
mod durability;
mod faults;
mod ledgers;
mod moves;
mod open;
mod store_contract;
