//! Every message and every initiation is delivered, rejected, or answered with an error at its sender: whatever its size,
//! its place in a conversation, the way it takes, and what becomes of the instances of those who talk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod damaged;
mod sizes;
