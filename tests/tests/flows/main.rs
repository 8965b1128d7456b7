//! What a flow may rely on: a replay sees what the first run saw, nobody else sees its memory, it ends the same however it is put
//! away and whatever language it is written in, and every message and every initiation is delivered, rejected, or answered with
//! an error at its sender.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod damaged;
mod determinism;
mod isolation;
mod modes;
mod python_cordapp;
mod sizes;
