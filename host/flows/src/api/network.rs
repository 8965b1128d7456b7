//! What the outside is told of the network: its parties, its parameters, and their changes.

use std::pin::Pin;

use futures::Stream;

use super::ApiResult;

/// A party of the network.
#[derive(Debug, Clone)]
pub struct PartyView {
    /// X.500 name.
    pub name: String,
    /// SubjectPublicKeyInfo, DER.
    pub owning_key: Vec<u8>,
    /// Listed as a notary in the network parameters.
    pub notary: bool,
    /// Hosted here.
    pub local: bool,
}

/// The network parameters.
#[derive(Debug, Clone)]
pub struct ParametersView {
    /// Least platform version of a node.
    pub minimum_platform_version: u32,
    /// Names of the notaries, with whether they validate.
    pub notaries: Vec<(String, bool)>,
    /// The largest message between nodes, bytes.
    pub max_message_size: u64,
    /// The largest transaction with its attachments, bytes.
    pub max_transaction_size: u64,
    /// Milliseconds since 1970.
    pub modified_ms: i64,
    /// Number of this set.
    pub epoch: u32,
    /// SHA-256 of the signed bytes, hex.
    pub hash: String,
    /// For each publisher whose key was replaced the fingerprints of its keys, oldest first.
    pub publisher_successions: Vec<Vec<String>>,
}

/// A node as the network knows it.
#[derive(Debug, Clone)]
pub struct NodeInfoView {
    /// Where it listens.
    pub addresses: Vec<String>,
    /// Its identities, the first is the default.
    pub identities: Vec<PartyView>,
    /// Platform version.
    pub platform_version: u32,
    /// Newer replaces older.
    pub serial: i64,
}

/// A change of the network map.
#[derive(Debug, Clone)]
pub enum NetworkChange {
    /// A party has come to the network, or has changed.
    Added(PartyView),
    /// Was replaced.
    Modified(PartyView),
    /// The party of this name has left the network.
    Removed(String),
}

/// Changes of the network map, after a snapshot.
pub type NetworkChanges = Pin<Box<dyn Stream<Item = ApiResult<NetworkChange>> + Send>>;
