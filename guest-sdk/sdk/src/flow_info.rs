//! What a peer tells of itself.

/// What a peer told of its side of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowInfo {
    /// Version of its flow.
    pub version: u32,
    /// Name of its CorDapp.
    pub app: String,
}
