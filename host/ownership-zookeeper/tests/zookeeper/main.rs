//! Ownership by real ZooKeeper servers. One program, so that it is compiled once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod contract;
mod faults;
mod files;
mod scale;
mod security;
mod support;
