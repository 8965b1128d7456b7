//! The nodes of a cluster, below its folder:
//!
//! | node | kind | says |
//! |---|---|---|
//! | `/cluster` | persistent | which cluster it is, and its generation |
//! | `/hosts/SESSION` | ephemeral | a host that has a session: name, run, free slots, roles, labels, what it reaches |
//! | `/owners/KEY` | ephemeral | who owns the identity; the node's creation is the epoch of the claim |
//! | `/demand/KEY` | persistent | somebody wants the identity to run |
//! | `/databases/0` | persistent | the first database of the cluster, and its latest incarnation and timeline |
//! | `/databases/ID` | persistent | one beside it, by its id in hexadecimal digits, and the same of it |
//! | `/scheduler` | ephemeral | the host that looks for identities that are due |
//! | `/draining/NAME` | persistent | the host of this name, in hexadecimal digits, is to give up what it owns |
//! | `/identities/NAME`, `/keys/NAME` | persistent | files that hosts share, see [`crate::files`] |
//!
//! `KEY` is the first half of the fingerprint of the identity's key. It is short because the server writes the names of
//! all nodes of a session into one record when the session ends, and cannot start again if that is over 1 MiB
//! (`jute.maxbuffer`): with 32 digits a host may own 20,000 identities. The whole fingerprint is in the data.

use std::sync::Arc;

use maxhost_model::{FencingToken, RunId, SecureHash};
use maxhost_ownership::{DEMAND_MESSAGE_BYTES, DemandVersion, HostInfo, Owner, Reach, Roles};
use serde::{Deserialize, Serialize};
use zookeeper_client::{SessionId, Stat};

pub(crate) const CLUSTER: &str = "/cluster";
pub(crate) const HOSTS: &str = "/hosts";
pub(crate) const OWNERS: &str = "/owners";
pub(crate) const DEMAND: &str = "/demand";
pub(crate) const DATABASES: &str = "/databases";
/// The first database, that all hosts of the cluster share.
pub(crate) const DATABASE: &str = "/databases/0";
pub(crate) const DRAINING: &str = "/draining";
pub(crate) const IDENTITIES: &str = "/identities";
pub(crate) const KEYS: &str = "/keys";
pub(crate) const SCHEDULER: &str = "/scheduler";

/// The first half of an identity's fingerprint, which names its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key([u8; 16]);

impl Key {
    pub fn of(identity: &SecureHash) -> Key {
        let mut key = [0; 16];
        key.copy_from_slice(&identity.as_bytes()[..16]);
        Key(key)
    }

    fn parse(name: &str) -> Option<Key> {
        let mut key = [0; 16];
        hex::decode_to_slice(name, &mut key).ok()?;
        Some(Key(key))
    }

    pub fn owner_path(self) -> String {
        format!("{OWNERS}/{}", hex::encode(self.0))
    }

    pub fn demand_path(self) -> String {
        format!("{DEMAND}/{}", hex::encode(self.0))
    }
}

/// A node that a host watches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    Owner(Key),
    Demand(Key),
    Host(String),
    Draining(String),
    Scheduler,
}

impl Node {
    /// The node of this path; `None` for those that nobody watches.
    pub fn parse(path: &str) -> Option<Node> {
        if path == SCHEDULER {
            return Some(Node::Scheduler);
        }
        let (folder, name) = path.rsplit_once('/')?;
        match folder {
            OWNERS => Key::parse(name).map(Node::Owner),
            DEMAND => Key::parse(name).map(Node::Demand),
            HOSTS => Some(Node::Host(name.to_owned())),
            DRAINING => hex::decode(name).ok().and_then(|name| String::from_utf8(name).ok()).map(Node::Draining),
            _ => None,
        }
    }

    pub fn path(&self) -> String {
        match self {
            Node::Owner(key) => key.owner_path(),
            Node::Demand(key) => key.demand_path(),
            Node::Host(name) => format!("{HOSTS}/{name}"),
            Node::Draining(name) => format!("{DRAINING}/{}", hex::encode(name)),
            Node::Scheduler => SCHEDULER.to_owned(),
        }
    }
}

/// The node of a database that stands beside the first one.
pub(crate) fn further_database(id: i64) -> String {
    format!("{DATABASES}/{id:016x}")
}

/// Where a session is listed among the hosts.
pub(crate) fn host_path(session: SessionId) -> String {
    format!("{HOSTS}/{:016x}", session.0)
}

/// What `/cluster` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Names the cluster; drawn when it is set up.
    pub id: String,
    /// The generation of all claims, from 1.
    pub generation: i64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OwnerData {
    pub identity: SecureHash,
    pub host: String,
    pub run: RunId,
}

impl OwnerData {
    /// The owner as others are told. The epoch is the number of the transaction that made the node: it rises with every
    /// creation, also over changes of the leader, which a node's version does not.
    pub fn owner(self, generation: i64, stat: &Stat) -> Owner {
        let token = FencingToken { generation, epoch: stat.czxid };
        Owner { identity: self.identity, host: self.host.into(), token }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SchedulerData {
    pub host: String,
    pub run: RunId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DemandData {
    pub identity: SecureHash,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// The transaction that made the node for which the target was named. A demand that was deleted and made anew counts its
    /// versions from 0 again, so whoever raises it by an old copy may write what the former one said, and the server cannot
    /// tell the two apart. A host of an earlier version does not say this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_of: Option<i64>,
    /// What whoever raised it last has said with it, in hexadecimal digits. A host of an earlier version does not read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl DemandData {
    pub fn new(identity: SecureHash) -> DemandData {
        DemandData { identity, target: None, target_of: None, message: None }
    }

    /// The same with this message, or without one. One that is too long is left out.
    pub fn with_message(self, message: Option<&[u8]>) -> DemandData {
        let message = message.filter(|message| message.len() <= DEMAND_MESSAGE_BYTES).map(hex::encode);
        DemandData { message, ..self }
    }

    /// What came with it; `None` also if that cannot be read.
    pub fn message(&self) -> Option<Arc<[u8]>> {
        let text = self.message.as_deref().filter(|text| text.len() <= 2 * DEMAND_MESSAGE_BYTES)?;
        hex::decode(text).ok().map(Arc::from)
    }

    /// The host of this name is to serve it, or nobody in particular. `demand` is the present one.
    pub fn with_target(self, target: Option<&str>, demand: DemandVersion) -> DemandData {
        let target_of = target.map(|_| demand.created);
        DemandData { target: target.map(str::to_owned), target_of, ..self }
    }

    /// What a node says. A target that was named for another demand, which is gone, is none.
    pub fn of_node(data: &[u8], stat: &Stat) -> Option<DemandData> {
        let data: DemandData = decode(data)?;
        let is_of_this = data.target_of.is_none_or(|made| made == stat.czxid);
        let target = data.target.as_deref().filter(|_| is_of_this).map(str::to_owned);
        let data = DemandData { target: None, target_of: None, ..data };
        Some(data.with_target(target.as_deref(), demand_version(stat)))
    }

    pub fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }
}

pub(crate) fn demand_version(stat: &Stat) -> DemandVersion {
    DemandVersion { created: stat.czxid, bumps: i64::from(stat.version) }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HostData {
    pub name: String,
    pub run: RunId,
    pub free_slots: u32,
    /// A host that does not say has both.
    #[serde(default = "both")]
    pub roles: Vec<String>,
    /// Words that stand for it beside its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The databases that it has beside the first one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<i64>,
    /// The parts that it does not reach; a host of an earlier version, or one that has just come, does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<Vec<String>>,
    /// Whether it takes no identities because of that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stands_back: bool,
}

fn both() -> Vec<String> {
    Roles::NAMES.map(str::to_owned).into()
}

impl HostData {
    /// Whether it is to drain is said elsewhere.
    pub fn info(self, stat: &Stat) -> HostInfo {
        // A later version may know of roles that this one does not.
        let known = self.roles.iter().map(String::as_str).filter(|role| Roles::NAMES.contains(role));
        let roles = Roles::parse(known).unwrap_or(Roles::BOTH);
        HostInfo {
            name: self.name.into(),
            run: self.run,
            free_slots: self.free_slots,
            since_ms: stat.ctime,
            draining: false,
            roles,
            labels: self.labels.into_iter().map(Arc::from).collect(),
            reach: self.missed.map(|missed| Reach { missed, stands_back: self.stands_back }),
        }
    }
}

/// The bytes of a node. All of our data can be written as JSON.
pub(crate) fn encode(data: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(data).unwrap_or_default()
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(data: &'a [u8]) -> Option<T> {
    serde_json::from_slice(data).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_host_reaches_is_read_and_one_that_does_not_say_is_not_taken_for_well() {
        let before = br#"{"name":"a","run":1,"free_slots":3}"#;
        let host: HostData = decode(before).unwrap();
        assert_eq!((&host.missed, host.stands_back), (&None, false));
        assert!(host.labels.is_empty());
        let labels = vec!["hsm".to_owned()];
        let told = HostData { labels, missed: Some(vec!["broker".to_owned()]), stands_back: true, ..host };
        let read: HostData = decode(&encode(&told)).unwrap();
        assert_eq!((read.missed, read.stands_back, read.labels), (told.missed, true, told.labels));
    }

    #[test]
    fn a_target_is_that_of_the_demand_for_which_it_was_named() {
        let stat = |czxid| Stat { czxid, ..stat() };
        let alice = DemandData::new(SecureHash::of(b"Alice"));
        let named = encode(&alice.clone().with_target(Some("b"), demand_version(&stat(7))));
        let read = DemandData::of_node(&named, &stat(7)).unwrap();
        assert_eq!((read.target(), encode(&read)), (Some("b"), named.clone()));
        // The same bytes in a node that was made later.
        let read = DemandData::of_node(&named, &stat(9)).unwrap();
        assert_eq!((read.target(), encode(&read)), (None, encode(&alice)));
        // An earlier version names no demand. Whoever raises that one by what it read does.
        let before = encode(&DemandData { target_of: None, ..read_as(&named) });
        let read = DemandData::of_node(&before, &stat(9)).unwrap();
        assert_eq!((read.target(), read.target_of), (Some("b"), Some(9)));
    }

    #[test]
    fn a_message_is_read_as_it_was_written_and_nonsense_is_none() {
        let alice = DemandData::new(SecureHash::of(b"Alice"));
        let read = |data: &DemandData| DemandData::of_node(&encode(data), &stat()).unwrap();
        let with = alice.clone().with_message(Some(b"\x00\xff"));
        assert_eq!(read(&with).message().as_deref(), Some(&b"\x00\xff"[..]));
        assert_eq!(read(&with.clone().with_message(None)), alice);
        assert_eq!(alice.clone().with_message(Some(&[0; DEMAND_MESSAGE_BYTES + 1])), alice);
        for nonsense in ["x".to_owned(), "00".repeat(DEMAND_MESSAGE_BYTES + 1)] {
            let data = DemandData { message: Some(nonsense), ..alice.clone() };
            assert_eq!(read(&data).message(), None);
        }
    }

    fn read_as(data: &[u8]) -> DemandData {
        decode(data).unwrap()
    }

    fn stat() -> Stat {
        Stat {
            czxid: 0,
            mzxid: 0,
            ctime: 0,
            mtime: 0,
            version: 0,
            cversion: 0,
            aversion: 0,
            ephemeral_owner: 0,
            data_length: 0,
            num_children: 0,
            pzxid: 0,
        }
    }

    #[test]
    fn paths_name_nodes_and_are_short() {
        let key = Key::of(&SecureHash::of(b"Alice"));
        let named = [Node::Host("00ab".to_owned()), Node::Draining("max/1".to_owned())];
        for node in [Node::Owner(key), Node::Demand(key), Node::Scheduler].into_iter().chain(named) {
            assert_eq!(Node::parse(&node.path()), Some(node));
        }
        assert_eq!(key.owner_path().len(), "/owners/".len() + 32);
        for other in
            ["", "/", "/owners", "/owners/x", "/cluster", "/owners/zz/1", "/databases/1", "/draining", "/draining/x"]
        {
            assert_eq!(Node::parse(other), None, "{other}");
        }
    }
}
