//! How an identity's manifest names a CorDapp.

use std::fmt;

/// A CorDapp as a manifest names it: `name`, `name@version` or `name#sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CordappRef {
    /// The name in the component's descriptor.
    pub name: String,
    /// The version, or the beginning of one: `1.2` stands for any `1.2.x`.
    pub version: Option<String>,
    /// SHA-256 of the component's bytes, or the beginning of it, in hexadecimal.
    pub hash: Option<String>,
}

impl fmt::Display for CordappRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(version) = &self.version {
            write!(f, "@{version}")?;
        }
        if let Some(hash) = &self.hash {
            write!(f, "#sha256:{hash}")?;
        }
        Ok(())
    }
}
