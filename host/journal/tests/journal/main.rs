//! The flow state machine from outside, between parties whose network is in memory (`common.rs`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod awaiting;
mod common;
mod errors;
mod golden;
mod peers;
mod replay;
mod sessions;
mod transcripts;
mod waits;
