//! The words that every other crate speaks: names, parties, hashes, identifiers, the network's data, error kinds.
//!
//! No I/O, no async, no clock. Everything here is data and rules about data.

pub mod claim;
pub mod codec;
pub mod codes;
pub mod countries;
pub mod error;
pub mod hash;
pub mod ids;
pub mod invalid;
pub mod json;
mod json_path;
pub mod json_stream;
pub mod json_text;
pub mod name_query;
pub mod network;
pub mod octets;
pub mod party;
pub mod signed;
pub mod text;
pub mod x500;

pub use claim::{Claim, FencingToken, Lineage, RunId};
pub use codec::{check_cbor, from_cbor, to_cbor};
pub use codes::{Class, Code};
pub use error::{ErrorKind, FlowError, MAX_FAILURE_DATA, MAX_FAILURE_TEXT, MAX_FAILURE_WORD, Problem, cut_text};
pub use hash::SecureHash;
pub use ids::{ErrorId, FlowId, FlowRow, IdentityRow, SessionId};
pub use invalid::Invalid;
pub use json::{cbor_for_exact_integers, cbor_for_schema, cbor_to_json, json_to_cbor};
pub use json_stream::{JsonText, cbor_to_json_text};
pub use json_text::{is_exact_integer, parse_arguments, parse_json};
pub use name_query::{Found, NameQuery};
pub use network::{NetworkParameters, NodeIdentity, NodeInfo, NotaryInfo};
pub use party::{KeyAlgorithm, Party, PublicKey};
pub use signed::{Encoded, KeySignature, Signed};
pub use x500::{Attribute, X500Name};
