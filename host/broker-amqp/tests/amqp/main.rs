//! Queues in real brokers. One program, so that it is compiled once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod broker;
mod clients;
mod contract;
mod faults;
mod rabbitmq;
mod security;
mod support;
