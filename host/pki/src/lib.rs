//! Certificates and their roles, sealed keys, the development network, and the map of a network's parties.
//!
//! Layer 2: knows files and keys, and is synchronous. What it does takes from microseconds to a few milliseconds; only
//! [`KeyVault::create`], [`KeyVault::unlock`] and [`DevNetwork`] take longer.
//!
//! ```text
//! DIR/network/root.pem doorman.pem parameters.pem     the trust root; who issues; who signs the parameters
//!             parameters                              the signed network parameters (CBOR)
//!             node-infos/nodeInfo-<sha-256 of name>   a signed node info each (CBOR)
//!             parties                                 an index of the node infos; made again when it is lost
//! DIR/keys/   passphrase                              of a development network only, mode 0600
//!             developer.pem                           of a development network only: signs contract code
//!             vault.toml                              the master key, sealed with the passphrase
//!             authority/                              keys and certificates of the network's authorities
//!             <slug>/                                 one folder an identity, see `identity`
//! ```

pub mod authority;
pub mod certificates;
pub mod chain;
pub mod devnet;
pub mod error;
mod files;
mod fresh;
pub mod identity;
pub mod keys;
pub mod layout;
pub mod names;
pub mod network_map;
pub mod node_info;
pub mod parameters;
mod party_index;
pub mod pem;
pub mod roles;
pub mod seal;
pub mod signing_key_file;
pub mod slug;

pub use authority::CertificateAuthority;
pub use chain::{TrustRoot, VerifiedIdentity, verify_chain};
pub use devnet::{DevNetwork, Issued};
pub use error::{PkiError, Result};
pub use identity::OpenIdentity;
pub use keys::{PrivateKey, verify};
pub use layout::Layout;
pub use names::tls_host_name;
pub use network_map::{Changes, NetworkMap, VerifiedParty};
pub use parameters::ProvenParameters;
pub use roles::CertRole;
pub use seal::{KeyVault, Passphrase, Purpose};
