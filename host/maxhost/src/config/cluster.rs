//! What the file says of other hosts: how this one is called, what it may own, and where the ownership service and the
//! broker are that it shares with them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use maxhost_broker_amqp::ManagementAddress;
use maxhost_flows::options::{Balancing, KeptBounds};
use maxhost_model::{Code, Problem};
use maxhost_ownership::Roles;
use maxhost_ownership_zookeeper::{Address, Digest, SESSION_TIMEOUT, Tls};
use maxhost_rpc::MessageOptions;
use zeroize::Zeroizing;

use super::{Config, Database, LARGEST_PEM};
use crate::files;

/// Environment variable with the password of the ownership service; stronger than a file.
pub const OWNERSHIP_PASSWORD: &str = "MAXHOST_OWNERSHIP_PASSWORD";
/// Environment variable with the password of the broker; stronger than a file.
pub const BROKER_PASSWORD: &str = "MAXHOST_BROKER_PASSWORD";
/// The folder in the data folder with a host's copy of the files that hosts share.
const SHARED_FILES: &str = "shared";
/// The folder of manifests in that copy, and in others of its kind.
pub const MANIFESTS: &str = "identities";
/// The folder of keys beside it.
pub const KEYS: &str = "keys";
/// The largest file of a password, bytes.
const LARGEST_PASSWORD: u64 = 4096;
/// The longest name of a host, and label, characters.
const LONGEST_NAME: usize = 128;
/// Labels of a host at the most: each host tells all others its own.
const MOST_LABELS: usize = 16;
/// How often it is looked whether identities are to be given to other hosts.
const BALANCE_INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);
/// ZooKeeper bounds sessions by its tick; what is shorter gives identities away at every hiccup.
const SESSION_TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(120);

/// The longest time that an answer may be kept.
const LONGEST_KEPT: Duration = Duration::from_secs(49 * 24 * 3_600);
/// What the clock of a client may be ahead, twice.
const CLOCKS: Duration = Duration::from_secs(600);

/// A server that hosts share: its address, and what is shown to it. Paths are as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Server {
    pub url: Option<String>,
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// Where manifests of identities come from, and the keys that they name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IdentitySource {
    /// The folders `identities.dir` and `keys.dir`.
    #[default]
    Folder,
    /// Files that the hosts of a cluster share by way of the ownership service.
    Ownership,
}

/// The settings as values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClusterSettings {
    pub name: Option<String>,
    pub labels: Vec<String>,
    pub balancing: Balancing,
    pub slots: u32,
    pub ownership: Server,
    pub session_timeout: Duration,
    pub broker: Server,
    pub broker_management: Option<String>,
    pub source: IdentitySource,
}

impl Default for ClusterSettings {
    fn default() -> ClusterSettings {
        ClusterSettings {
            name: None,
            labels: Vec::new(),
            balancing: Balancing::default(),
            slots: 500,
            ownership: Server::default(),
            session_timeout: SESSION_TIMEOUT,
            broker: Server::default(),
            broker_management: None,
            source: IdentitySource::Folder,
        }
    }
}

/// The certificates of a connection, in PEM: authorities that the servers are trusted by, and this host's chain with its
/// private key, if it shows some.
struct Certificates {
    authorities: String,
    identity: Option<(String, Zeroizing<String>)>,
}

/// Where the broker is, and what is shown to it.
pub struct BrokerAccess {
    /// The address, without a password.
    pub address: maxhost_broker_amqp::Address,
    /// The password of the user in the address.
    pub password: Option<Zeroizing<String>>,
    /// How connections are encrypted.
    pub tls: Option<maxhost_broker_amqp::Tls>,
    /// Where the management of a RabbitMQ is; `None` for Apache Artemis.
    pub management: Option<ManagementAddress>,
}

/// What a host needs to share identities with others.
pub struct Sharing {
    /// The ensemble, and the folder in it.
    pub address: Address,
    /// The user as which all hosts come to it.
    pub digest: Option<Digest>,
    /// How connections to it are encrypted.
    pub tls: Option<Tls>,
    /// After how long without a sign of life others take over.
    pub session_timeout: Duration,
    /// How many identities this host owns at once; 0 if it runs no flows.
    pub slots: u32,
    /// The broker.
    pub broker: BrokerAccess,
}

/// An empty text is none.
pub(super) fn name(text: String) -> Result<Option<String>, String> {
    if text.is_empty() { Ok(None) } else { word(text).map(Some) }
}

/// The name of a host, a label, or a group of identities.
///
/// # Errors
/// In words, for whoever wrote it.
pub fn word(text: String) -> Result<String, String> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    match text.len() {
        1..=LONGEST_NAME if text.chars().all(is_good) => Ok(text),
        _ => Err(format!("a name has up to {LONGEST_NAME} letters, digits, '-', '_', '.' and ':'")),
    }
}

/// Labels of a host; from the environment separated by commas.
pub(super) fn labels(texts: Vec<String>) -> Result<Vec<String>, String> {
    let texts = texts.into_iter().filter(|text| !text.is_empty());
    let labels = texts.map(word).collect::<Result<Vec<_>, _>>()?;
    match labels.len() <= MOST_LABELS {
        true => Ok(labels),
        false => Err(format!("a host has up to {MOST_LABELS} labels")),
    }
}

pub(super) fn balance(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(format!("'{other}' is none of on, off")),
    }
}

pub(super) fn balance_interval(time: Duration) -> Result<Duration, String> {
    match BALANCE_INTERVALS.contains(&time) {
        true => Ok(time),
        false => Err("it is looked every 100 ms to every hour".to_owned()),
    }
}

pub(super) fn source(text: &str) -> Result<IdentitySource, String> {
    match text {
        "folder" => Ok(IdentitySource::Folder),
        "ownership" => Ok(IdentitySource::Ownership),
        other => Err(format!("'{other}' is none of folder, ownership")),
    }
}

pub(super) fn session_timeout(time: Duration) -> Result<Duration, String> {
    match SESSION_TIMEOUTS.contains(&time) {
        true => Ok(time),
        false => Err("a session lasts from 1 s to 120 s without a sign of life".to_owned()),
    }
}

/// AMQP counts the time that a message may live in milliseconds of 32 bits.
pub(super) fn kept_answers(time: Duration) -> Result<Duration, String> {
    match time <= LONGEST_KEPT {
        true => Ok(time),
        false => Err("a broker keeps a message for 49 days at most".to_owned()),
    }
}

/// What is sent again must still be known to its receiver.
pub(super) fn kept_messages(time: Duration) -> Result<Duration, String> {
    match time <= KeptBounds::LONGEST {
        true => Ok(time),
        false => Err("sent messages are kept for 24 h at most".to_owned()),
    }
}

impl Config {
    /// How requests that come as messages are answered; `None` if they are not.
    ///
    /// # Errors
    /// `config-invalid` if there is no broker that clients reach, nobody could sign a request, or a start that comes twice could
    /// find its flow forgotten.
    pub fn messages(&self) -> Result<Option<MessageOptions>, Problem> {
        let settings = &self.settings;
        if !settings.takes_messages {
            return Ok(None);
        }
        const KEY: &str = "rpc.messages.enabled";
        if settings.cluster.broker.url.is_none() {
            return Err(self.wrong(KEY, "the broker in this process cannot be reached by clients").remedy(
                "set broker.url to a broker that clients reach too, as docs/operating.md says for several hosts, or leave \
                 rpc.messages out",
            ));
        }
        if settings.cluster.broker_management.is_some() {
            let text = "RabbitMQ gives no message out later, which a request that has to be looked at again needs";
            return Err(self.wrong(KEY, text).remedy(
                "leave rpc.messages out, or take Apache Artemis for the broker and leave broker.management out",
            ));
        }
        if settings.users.is_none() {
            return Err(self
                .wrong(KEY, "requests are signed by users, and rpc.users.file is not set")
                .remedy("set rpc.users.file, and give users keys with `maxhost user key`"));
        }
        if settings.messages.max_age.saturating_add(CLOCKS) > settings.retention {
            let text = "it must be at least 10 min shorter than flows.retention: a request that comes twice must find its flow";
            return Err(self
                .wrong("rpc.messages.max_age", text)
                .remedy("set rpc.messages.max_age lower, or flows.retention higher"));
        }
        Ok(Some(settings.messages.clone()))
    }

    /// How many identities a host that runs flows may own at once.
    pub fn slots_per_host(&self) -> u32 {
        self.settings.cluster.slots
    }

    /// The labels of this host, by which manifests may name it.
    pub fn host_labels(&self) -> Vec<String> {
        self.settings.cluster.labels.clone()
    }

    /// When this host gives identities to others.
    pub fn balancing(&self) -> Balancing {
        self.settings.cluster.balancing
    }

    /// Where manifests come from, and the keys that they name.
    pub fn identity_source(&self) -> IdentitySource {
        self.settings.cluster.source
    }

    /// The folder of manifests that people and commands write.
    pub fn identities_dir(&self) -> PathBuf {
        self.root.join(&self.settings.identities)
    }

    /// The folder that a host reads manifests from: the one of `identities.dir`, or its copy of those that hosts share.
    pub fn identities(&self) -> PathBuf {
        match self.identity_source() {
            IdentitySource::Folder => self.identities_dir(),
            IdentitySource::Ownership => self.shared_files().join(MANIFESTS),
        }
    }

    /// Where a host has its copy of the files that hosts share.
    pub fn shared_files(&self) -> PathBuf {
        self.data().join(SHARED_FILES)
    }

    /// The name of this host in its cluster: the one that is set, or the machine's with the number of the process.
    pub fn host_name(&self) -> String {
        self.settings.cluster.name.clone().unwrap_or_else(|| {
            let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let machine = name(machine.trim().to_owned()).ok().flatten().unwrap_or_else(|| "host".to_owned());
            format!("{machine}-{}", std::process::id())
        })
    }

    /// How identities are shared with other hosts; `None` for a host that is alone.
    ///
    /// # Errors
    /// `config-invalid` if the settings do not go together, or would have secrets cross a network in clear;
    /// `file-unreadable`, `file-not-found`.
    pub fn sharing(&self) -> Result<Option<Sharing>, Problem> {
        let ClusterSettings { ownership, broker, session_timeout, slots, .. } = &self.settings.cluster;
        let Some(url) = &ownership.url else {
            if self.identity_source() == IdentitySource::Ownership {
                let text = "manifests come from the ownership service, and ownership.url is not set";
                let remedy = "set ownership.url, or leave identities.source out";
                return Err(self.wrong("identities.source", text).remedy(remedy));
            }
            let roles = self.roles();
            return match broker.url {
                None if roles != Roles::BOTH => {
                    let text = format!(
                        "a process with the role {} alone is one of several that share identities, and ownership.url is not \
                         set",
                        roles.names().join(",")
                    );
                    Err(self.wrong("roles", text).remedy(
                        "set ownership.url, broker.url and a store.url on a server, as docs/operating.md says for several \
                         hosts, or give the process both roles",
                    ))
                }
                None => Ok(None),
                Some(_) => Err(self
                    .wrong("broker.url", "only hosts that share identities use a broker on a server")
                    .remedy("set ownership.url too, or leave broker.url out")),
            };
        };
        let Database::Server(_) = self.database() else {
            let text = "hosts that share identities need a database that all of them reach, and store.url is a file";
            return Err(self
                .wrong("ownership.url", text)
                .remedy("set store.url = \"postgres://ROLE@SERVER/DATABASE\""));
        };
        let Some(broker_url) = &broker.url else {
            let text = "hosts that share identities need a broker that all of them reach, and the embedded one is in this \
                        process";
            return Err(self.wrong("ownership.url", text).remedy("set broker.url = \"amqp://USER@SERVER:5672\""));
        };
        let address = Address::parse(url).map_err(|error| self.wrong("ownership.url", error))?;
        let tls = self.certificates("ownership", ownership)?;
        let away = address.servers.split(',').find(|server| !is_loopback(server));
        if let (Some(server), None) = (away, &tls) {
            let text = format!("{server} is not on this machine, and the connection would not be encrypted");
            return Err(self
                .wrong("ownership.url", text)
                .remedy("name the authorities of its servers in ownership.ca"));
        }
        let password = self.password("ownership", ownership, OWNERSHIP_PASSWORD)?;
        let digest = match (&ownership.user, password) {
            (Some(user), Some(password)) => Some(Digest { user: user.clone(), password }),
            (None, None) => None,
            (Some(_), None) => {
                let text = format!("it needs a password: ownership.password_file or {OWNERSHIP_PASSWORD}");
                return Err(self.wrong("ownership.user", text));
            }
            (None, Some(_)) => return Err(self.wrong("ownership.password_file", "it needs ownership.user")),
        };
        Ok(Some(Sharing {
            address,
            digest,
            tls: tls.map(|Certificates { authorities, identity }| Tls { authorities, identity }),
            session_timeout: *session_timeout,
            slots: if self.roles().flows { *slots } else { 0 },
            broker: self.broker(broker_url, broker)?,
        }))
    }

    fn broker(&self, url: &str, broker: &Server) -> Result<BrokerAccess, Problem> {
        let address = maxhost_broker_amqp::Address::parse(url).map_err(|error| self.wrong("broker.url", error))?;
        let away = address.servers.iter().find(|(server, _)| !is_local(server));
        if let (Some((server, _)), false) = (away, address.encrypted) {
            let text = format!("{server} is not on this machine, and the connection would not be encrypted");
            return Err(self
                .wrong("broker.url", text)
                .remedy("write it as amqps://, and name its authorities in broker.ca"));
        }
        let tls = self.certificates("broker", broker)?;
        if address.encrypted != tls.is_some() {
            let text = "amqps:// and broker.ca go together: the authorities of the broker's certificates";
            return Err(self.wrong("broker.url", text));
        }
        let password = self.password("broker", broker, BROKER_PASSWORD)?;
        if let (Some(user), None) = (&address.user, &password) {
            let text = format!("user {user} needs a password: broker.password_file or {BROKER_PASSWORD}");
            return Err(self.wrong("broker.url", text));
        }
        let tls = tls.map(|Certificates { authorities, identity }| maxhost_broker_amqp::Tls { authorities, identity });
        let management = match &self.settings.cluster.broker_management {
            Some(url) => Some(self.broker_management(url, &address, tls.is_some())?),
            None => None,
        };
        Ok(BrokerAccess { address, password, tls, management })
    }

    fn broker_management(
        &self,
        url: &str,
        broker: &maxhost_broker_amqp::Address,
        has_authorities: bool,
    ) -> Result<ManagementAddress, Problem> {
        const KEY: &str = "broker.management";
        let address = ManagementAddress::parse(url).map_err(|error| self.wrong(KEY, error))?;
        let away = address.servers.iter().find(|(server, _)| !is_local(server));
        if let (Some((server, _)), false) = (away, address.encrypted) {
            let text = format!("{server} is not on this machine, and the connection would not be encrypted");
            return Err(self.wrong(KEY, text).remedy("write it as https://"));
        }
        if address.encrypted && !has_authorities {
            let text = "https:// needs broker.ca, the authorities of the broker's certificates, and a broker.url with amqps://";
            return Err(self.wrong(KEY, text));
        }
        if broker.user.is_none() {
            let text = "it is asked by a user with a password, and broker.url names no user";
            return Err(self.wrong(KEY, text).remedy("write broker.url as amqps://USER@SERVER:5671"));
        }
        Ok(address)
    }

    fn wrong(&self, key: &str, what: impl std::fmt::Display) -> Problem {
        Problem::new(Code::ConfigInvalid, format!("{}: {key}: {what}", self.file.display())).detail("key", key)
    }

    fn password(&self, section: &str, server: &Server, variable: &str) -> Result<Option<Zeroizing<String>>, Problem> {
        if let Ok(password) = std::env::var(variable)
            && !password.is_empty()
        {
            return Ok(Some(Zeroizing::new(password)));
        }
        let Some(file) = &server.password_file else { return Ok(None) };
        let file = self.root.join(file);
        let text = Zeroizing::new(self.read(&file, LARGEST_PASSWORD)?);
        match text.lines().next().filter(|line| !line.is_empty()) {
            Some(password) => Ok(Some(Zeroizing::new(password.to_owned()))),
            None => Err(self.wrong(&format!("{section}.password_file"), format!("{} is empty", file.display()))),
        }
    }

    fn certificates(&self, section: &str, server: &Server) -> Result<Option<Certificates>, Problem> {
        let read = |file: &PathBuf| self.read(&self.root.join(file), LARGEST_PEM);
        let identity = match (&server.cert, &server.key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, Zeroizing::new(read(key)?))),
            (None, None) => None,
            _ => return Err(self.wrong(&format!("{section}.cert"), "cert and key go together")),
        };
        match (&server.ca, identity) {
            (Some(authorities), identity) => Ok(Some(Certificates { authorities: read(authorities)?, identity })),
            (None, Some(_)) => Err(self.wrong(&format!("{section}.cert"), format!("it needs {section}.ca"))),
            (None, None) => Ok(None),
        }
    }

    fn read(&self, file: &Path, most: u64) -> Result<String, Problem> {
        files::read_text(file, most).map_err(|error| files::io_problem(Code::FileUnreadable, "read", file, &error))
    }
}

/// Whether what is sent to `host:port` stays on the machine.
fn is_loopback(server: &str) -> bool {
    is_local(server.rsplit_once(':').map_or(server, |(host, _)| host))
}

/// As [`is_loopback`], of a name or an address without a port.
fn is_local(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
