//! The gRPC edge of a host: services over [`maxhost_flows::api::HostApi`], and a client.
//!
//! Layer 5: turns protobuf into calls of the engine and its answers back. It knows no wasm, no database, no files.

mod admission;
mod budget;
mod connections;
mod convert;
mod error;
mod explain;
mod peer;
mod server;
mod services;

pub mod client;
pub mod proto;
pub mod status;

pub use client::{Client, EndpointSource, FollowFrom, FollowOptions, Observation};
pub use error::RpcError;
pub use server::{Bound, RpcOptions, RpcServer};
