//! The edge, with a host behind it that has no engine. One program, so that it is compiled once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attachments;
mod audit;
mod edge;
mod flood;
mod standard_services;
mod support;
