//! The header component: what a transaction is made for (behaviour.md 10.5).

use maxhost_model::SecureHash;
use serde::{Deserialize, Serialize};

use crate::digest::DigestAlgorithm;
use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// The version of the ledger's rules that this crate implements.
pub const LEDGER_VERSION: u32 = 1;

/// The layout of components that this crate reads and writes.
pub const LAYOUT_VERSION: u32 = 1;

/// Version, network, digest and layout of a transaction. Shown in every tear-off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The version of the ledger's rules.
    pub ledger: u32,
    /// The network: SHA-256 of its root certificate.
    pub network: SecureHash,
    /// The name of the digest algorithm of ids and leaves.
    pub digest: String,
    /// The version of the layout of components.
    pub layout: u32,
}

impl Header {
    /// The header of a new transaction in this network.
    #[must_use]
    pub fn current(network: SecureHash) -> Header {
        Header {
            ledger: LEDGER_VERSION,
            network,
            digest: DigestAlgorithm::Sha256.name().to_owned(),
            layout: LAYOUT_VERSION,
        }
    }

    /// Checks that these rules can judge the transaction at all.
    ///
    /// # Errors
    /// [`Rule::HeaderUnsupported`] for another version, [`Rule::HashUnsupported`] for another digest.
    pub fn check_supported(&self) -> Result<()> {
        DigestAlgorithm::parse(&self.digest)?;
        if (self.ledger, self.layout) != (LEDGER_VERSION, LAYOUT_VERSION) {
            let message = format!("ledger version {} and layout {} are not in use here", self.ledger, self.layout);
            return Err(Refused::new(Rule::HeaderUnsupported, message));
        }
        Ok(())
    }

    /// Checks that the transaction is of this network.
    ///
    /// # Errors
    /// [`Rule::NetworkWrong`].
    pub fn check_network(&self, network: &SecureHash) -> Result<()> {
        if self.network == *network {
            return Ok(());
        }
        let message = format!("it is of the network {}, and this is {network}", self.network);
        Err(Refused::new(Rule::NetworkWrong, message).detail("network", self.network))
    }
}
