//! CBOR as messages, arguments and results have it: made for data that began as JSON at a client. An integer is accepted
//! where a float is expected and an integral float where an integer is, integer map keys may be text, and types that know
//! a form for people (identifiers, addresses) use it, because that is what their JSON Schema says.
//!
//! What would be rounded on the way, nested deeper than [`MAX_DEPTH`] or is not of the type is an [`Error`] that says where.

pub use maxhost_cbor::readable::{from_slice, to_vec, to_writer};
pub use maxhost_cbor::{Error, MAX_DEPTH};
