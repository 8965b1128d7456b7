//! What people report of such systems, each kind of it tried on the program that ships: at its port, in its folders, on its
//! outputs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod connections;
mod folders;
mod log;
mod outputs;
mod requests;
mod surroundings;
mod users;
mod vault_feed;
