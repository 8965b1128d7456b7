//! The edges of a host: gRPC services over [`maxhost_flows::api::HostApi`] with a client, and requests that come as messages.
//!
//! Layer 6: turns protobuf and messages into calls of the engine and its answers back. It knows no wasm, no database, no files.

mod admission;
mod audit;
mod budget;
mod connections;
mod conversion;
mod convert;
mod error;
mod explain;
mod inflate;
mod login;
mod looks;
mod messages;
mod metered;
mod peer;
mod server;
mod server_tls;
mod services;
mod tokens;
mod user_logins;
mod users;
mod wrong_logins;

pub mod client;
pub mod json;
pub mod proto;
pub mod status;

pub use client::{Client, ClientTls, EndpointSource, FollowFrom, FollowOptions, Login, Observation};
pub use error::RpcError;
pub use login::{Credentials, Logins, Refused};
pub use looks::UsersSource;
pub use messages::{MessageCounts, MessageOptions, MessageServer};
pub use server::{Bound, RpcOptions, RpcServer, can_listen, may_listen};
pub use server_tls::{ServerTls, Tls};
pub use tokens::{TokenText, check_note};
pub use user_logins::{CertificateLogins, UserLogins};
pub use users::{Users, UsersFault, check_name, check_name_for_key, hash_password, key_text};
