//! Parties.

/// A party as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestParty {
    /// Canonical X.500 name.
    pub name: String,
    /// SubjectPublicKeyInfo, DER.
    pub owning_key: Vec<u8>,
}
