//! How a host finds the ensemble and what it may wait for.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use maxhost_model::RunId;
use maxhost_ownership::{Permanent, Roles};
use zeroize::Zeroizing;

/// The session timeout that is asked for unless another is set. The servers bound it (by default between 2 and 20 of
/// their ticks); the one that they grant counts.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// How a host joins a cluster.
#[derive(Debug, Clone)]
pub struct ZooKeeperOptions {
    /// The servers and the folder of the cluster in them.
    pub address: Address,
    /// The name of this host, unique in the cluster.
    pub host: String,
    /// This start of the process.
    pub run: RunId,
    /// What this host does; others see it.
    pub roles: Roles,
    /// Words that stand for this host beside its name; others see them.
    pub labels: Vec<String>,
    /// The databases that this host has beside the first one, by their ids; others see it.
    pub databases: Vec<i64>,
    /// After how long without a sign of life the servers give away what the host owns.
    pub session_timeout: Duration,
    /// The user as which all hosts of the cluster come, if the nodes are for that user only.
    pub digest: Option<Digest>,
    /// How connections are encrypted. `None`: they are not.
    pub tls: Option<Tls>,
    /// Where the host notes its session, so that it can close it when it starts again after a crash. The file must be
    /// in a folder that is locked for one process at a time.
    pub session_file: Option<PathBuf>,
}

impl ZooKeeperOptions {
    /// The defaults, for this host.
    #[must_use]
    pub fn new(address: Address, host: impl Into<String>, run: RunId) -> ZooKeeperOptions {
        ZooKeeperOptions {
            address,
            host: host.into(),
            run,
            roles: Roles::BOTH,
            labels: Vec::new(),
            databases: Vec::new(),
            session_timeout: SESSION_TIMEOUT,
            digest: None,
            tls: None,
            session_file: None,
        }
    }
}

/// A user with a password (ZooKeeper's authentication scheme `digest`). Every node is made for this user alone, so all
/// hosts of a cluster need the same one.
#[derive(Clone)]
pub struct Digest {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Zeroizing<String>,
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digest").field("user", &self.user).finish_non_exhaustive()
    }
}

/// How connections are encrypted, in PEM.
#[derive(Clone)]
pub struct Tls {
    /// Certificates of the authorities that servers are trusted by.
    pub authorities: String,
    /// The host's certificate chain and private key, if the servers ask for them.
    pub identity: Option<(String, Zeroizing<String>)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("has_identity", &self.identity.is_some()).finish_non_exhaustive()
    }
}

/// The servers of an ensemble, and the folder in which a cluster has its nodes: `zk://h1:2181,h2:2181/maxhost`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `host:port`, separated by commas.
    pub servers: String,
    /// The folder, with a leading slash. Two clusters on one ensemble need two.
    pub folder: String,
}

impl Address {
    /// Reads a URL. The port of a server without one is 2181.
    ///
    /// # Errors
    /// [`Permanent::Refused`] says what is wrong with it.
    pub fn parse(url: &str) -> Result<Address, Permanent> {
        let refuse = |what: &str| {
            Permanent::refused(format!("'{url}' is no address such as zk://h1:2181,h2:2181/maxhost: {what}"))
        };
        let rest = url.strip_prefix("zk://").ok_or_else(|| refuse("it does not begin with zk://"))?;
        let (servers, folder) = rest.split_once('/').ok_or_else(|| refuse("it names no folder"))?;
        let is_part = |part: &str| {
            let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !part.is_empty() && !matches!(part, "." | ".." | "zookeeper") && part.chars().all(is_good)
        };
        if !folder.split('/').all(is_part) {
            return Err(refuse("the folder is not made of letters, digits, '-', '_' and '.'"));
        }
        let mut named = Vec::new();
        for server in servers.split(',') {
            let (name, port) = match server.rsplit_once(':') {
                Some((name, port)) => (name, port.parse::<u16>().map_err(|_| refuse("a port is no number"))?),
                None => (server, 2181),
            };
            let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if name.is_empty() || !name.chars().all(is_good) {
                return Err(refuse("the name of a server is missing or has other than letters, digits, '-' and '.'"));
            }
            named.push(format!("{name}:{port}"));
        }
        Ok(Address { servers: named.join(","), folder: format!("/{folder}") })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zk://{}{}", self.servers, self.folder)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        let address = Address::parse("zk://h1:2181,h2,10.0.0.3:9/maxhost/test").unwrap();
        assert_eq!((&*address.servers, &*address.folder), ("h1:2181,h2:2181,10.0.0.3:9", "/maxhost/test"));
        assert_eq!(Address::parse(&address.to_string()).unwrap(), address);
        for bad in [
            "",
            "h1:2181/maxhost",
            "zk://h1:2181",
            "zk://h1:2181/",
            "zk:///maxhost",
            "zk://h1:x/maxhost",
            "zk://h1,/maxhost",
            "zk://h1/a//b",
            "zk://h1/a/../b",
            "zk://h1/zookeeper",
            "zk://h 1/maxhost",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let digest = Digest { user: "max".to_owned(), password: Zeroizing::new("geheim".to_owned()) };
        let tls = Tls { authorities: String::new(), identity: Some((String::new(), Zeroizing::new("key".to_owned()))) };
        assert_eq!(format!("{digest:?} {tls:?}"), "Digest { user: \"max\", .. } Tls { has_identity: true, .. }");
    }
}
