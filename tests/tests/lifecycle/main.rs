//! What a host lives through: starts that are repeated, clients that come and go, kills, limits, manifests that change,
//! crashes, damage and wrong input. Each test has a network and a host of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attach;
mod attempts;
mod client_ids;
mod components;
mod damage;
mod disk;
mod identities;
mod input;
mod kill;
mod limits;
mod logs;
mod process;
mod quarantine;
mod surface;
mod values;
