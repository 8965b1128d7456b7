//! Where things lie in a folder made by `maxhost init`.

use std::path::{Path, PathBuf};

use maxhost_model::{SecureHash, X500Name};

/// What the file of a node info begins with.
pub(crate) const NODE_INFO_PREFIX: &str = "nodeInfo-";

/// The paths beneath one folder.
#[derive(Debug, Clone)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// Beneath this folder.
    #[must_use]
    pub fn new(dir: &Path) -> Layout {
        Layout { dir: dir.to_owned() }
    }

    /// The folder itself.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of the network's public files.
    #[must_use]
    pub fn network(&self) -> PathBuf {
        self.dir.join("network")
    }

    /// The folder of private keys.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.dir.join("keys")
    }

    /// The generated passphrase of a development network.
    #[must_use]
    pub fn passphrase(&self) -> PathBuf {
        self.keys().join("passphrase")
    }

    /// The key that signs contract code in a development network.
    #[must_use]
    pub fn developer_key(&self) -> PathBuf {
        self.keys().join("developer.pem")
    }

    /// The keys of the development network's authorities.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.keys().join("authority")
    }

    /// The folder of one identity's keys.
    #[must_use]
    pub fn identity(&self, slug: &str) -> PathBuf {
        self.keys().join(slug)
    }
}

/// Files beneath the network folder.
pub(crate) fn node_infos(network: &Path) -> PathBuf {
    network.join("node-infos")
}

pub(crate) fn node_info(network: &Path, name: &X500Name) -> PathBuf {
    node_infos(network).join(node_info_file(&name_hash(name)))
}

pub(crate) fn node_info_file(hash: &SecureHash) -> String {
    format!("{NODE_INFO_PREFIX}{hash}")
}

/// The key under which a party's node info is found: SHA-256 of the canonical name.
pub(crate) fn name_hash(name: &X500Name) -> SecureHash {
    SecureHash::of(name.as_str().as_bytes())
}
