//! Who takes part.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{Result, host};

/// A party of the network, by its X.500 name: `O=Alice, L=London, C=GB`.
///
/// In arguments, messages and results it is that text. A party that the host answers with carries its name in canonical
/// form; one read from arguments carries it as the client wrote it, which [`party`](crate::party) makes canonical.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Party {
    name: Box<str>,
}

impl Party {
    pub(crate) fn named(name: String) -> Party {
        Party { name: name.into_boxed_str() }
    }

    /// The party of this X.500 name. Whether the name is well formed and the network has the party shows when it is used.
    #[must_use]
    pub fn from_name(name: impl Into<String>) -> Party {
        Party::named(name.into())
    }

    /// The X.500 name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The party's public key: SubjectPublicKeyInfo, DER. `None` when the network has no such party.
    ///
    /// # Errors
    /// `IllegalArgument` when the name is no X.500 name.
    pub fn owning_key(&self) -> Result<Option<Vec<u8>>> {
        Ok(host::find_party(&self.name)?.map(|party| party.owning_key))
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Party({})", self.name)
    }
}

impl AsRef<Party> for Party {
    fn as_ref(&self) -> &Party {
        self
    }
}

impl JsonSchema for Party {
    fn schema_name() -> Cow<'static, str> {
        "Party".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "x500-name",
            "description": "X.500 name of a party, for example `O=Alice, L=London, C=GB`",
        })
    }
}
