//! What can grow is bounded: each bound of `docs/operating.md` is tried against the program that ships.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod components;
mod cpu;
mod failures;
mod journal;
mod memory;
mod relay;
mod results;
mod room;
