//! Parties and their keys.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::octets;

/// A public key: the DER of its `SubjectPublicKeyInfo`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(Vec<u8>);

impl PublicKey {
    /// The key of this DER. Whether it is one, the host has checked.
    #[must_use]
    pub fn from_spki(der: impl Into<Vec<u8>>) -> PublicKey {
        PublicKey(der.into())
    }

    /// The DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for PublicKey {
    fn from(der: Vec<u8>) -> PublicKey {
        PublicKey(der)
    }
}

impl fmt::Display for PublicKey {
    /// The last bytes: the first ones are the same for all keys of a scheme.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("key …")?;
        self.0.iter().skip(self.0.len().saturating_sub(8)).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        octets::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PublicKey, D::Error> {
        octets::deserialize(deserializer)
    }
}

/// A legal entity: a name and the key that signs for it. Parties are equal when their keys are.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// Its X.500 name in canonical form.
    pub name: String,
    /// The key it signs with.
    pub owning_key: PublicKey,
}

impl PartialEq for Party {
    fn eq(&self, other: &Party) -> bool {
        self.owning_key == other.owning_key
    }
}

impl Eq for Party {}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A party that may hide its name: then it is a key that only those know to be its own whom it has told. Equal when the
/// keys are.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnyParty {
    /// Its X.500 name in canonical form; none if it is hidden.
    pub name: Option<String>,
    /// The key it signs with.
    pub owning_key: PublicKey,
}

impl AnyParty {
    /// A key without a name.
    #[must_use]
    pub fn anonymous(owning_key: PublicKey) -> AnyParty {
        AnyParty { name: None, owning_key }
    }
}

impl From<Party> for AnyParty {
    fn from(party: Party) -> AnyParty {
        AnyParty { name: Some(party.name), owning_key: party.owning_key }
    }
}

impl From<&Party> for AnyParty {
    fn from(party: &Party) -> AnyParty {
        party.clone().into()
    }
}

impl PartialEq for AnyParty {
    fn eq(&self, other: &AnyParty) -> bool {
        self.owning_key == other.owning_key
    }
}

impl Eq for AnyParty {}

impl fmt::Display for AnyParty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => fmt::Display::fmt(&self.owning_key, f),
        }
    }
}

impl fmt::Debug for AnyParty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whatever signs with a key.
pub trait HasKey {
    /// The key.
    fn key(&self) -> &PublicKey;

    /// The name, if it has one.
    fn name(&self) -> Option<&str> {
        None
    }

    /// As a party that may be anonymous.
    fn any_party(&self) -> AnyParty {
        AnyParty { name: self.name().map(Into::into), owning_key: self.key().clone() }
    }
}

impl HasKey for PublicKey {
    fn key(&self) -> &PublicKey {
        self
    }
}

impl HasKey for Party {
    fn key(&self) -> &PublicKey {
        &self.owning_key
    }

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
}

impl HasKey for AnyParty {
    fn key(&self) -> &PublicKey {
        &self.owning_key
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl<T: HasKey + ?Sized> HasKey for &T {
    fn key(&self) -> &PublicKey {
        (**self).key()
    }

    fn name(&self) -> Option<&str> {
        (**self).name()
    }
}
