//! Every key of the file: its default, what it does, and which setting it fills; how the file, the environment and the command line
//! set one; and the text of a new file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use maxhost_flows::options::{Eviction, HostOptions, ImportBounds, KeptBounds, Passphrase};
use maxhost_ownership::Roles;
use maxhost_rpc::{MessageOptions, RpcOptions};
use maxhost_store::{AuditBounds, Quotas};
use maxhost_store_postgres::{Layout, PASSWORD_VARIABLE};

use super::cluster::{self, BROKER_PASSWORD, ClusterSettings, OWNERSHIP_PASSWORD};
use super::databases::{self, FurtherDatabase};
use super::service_links::is_service_link;
use super::values::{evict, layout, listen, memory, optional_path, optional_text, roles, text_or_empty};
use crate::strict_toml::{self, Entry, Raw};

/// Environment variable with what the process does.
const ROLES_VARIABLE: &str = "MAXHOST_ROLES";

/// How evicting is chosen; the linger is a key of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evict {
    AfterLinger,
    Never,
    EveryWait,
    Random(u64),
}

/// What the file says, as values. Paths are as written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) roles: Roles,
    pub(super) listen: String,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) tls_client_ca: Option<PathBuf>,
    pub(super) users: Option<PathBuf>,
    pub(super) takes_messages: bool,
    pub(super) messages: MessageOptions,
    pub(super) metrics: Option<String>,
    pub(super) store: String,
    pub(super) password_file: Option<PathBuf>,
    pub(super) layout: Layout,
    pub(super) allow_loss: bool,
    pub(super) max_clock_offset: Duration,
    pub(super) further: Vec<FurtherDatabase>,
    pub(super) cordapps: PathBuf,
    pub(super) identities: PathBuf,
    pub(super) network: PathBuf,
    pub(super) keys: PathBuf,
    pub(super) passphrase_file: Option<PathBuf>,
    pub(super) evict: Evict,
    pub(super) linger: Duration,
    pub(super) idle_close: Duration,
    pub(super) shadow_replay: f64,
    pub(super) retention: Duration,
    pub(super) always_broker: bool,
    pub(super) instances: u32,
    pub(super) memory: Option<u64>,
    pub(super) journal_entries: u64,
    pub(super) journal_bytes: u64,
    pub(super) log_lines: u32,
    pub(super) log_bytes: u64,
    pub(super) quotas: Quotas,
    pub(super) kept: KeptBounds,
    pub(super) imports: ImportBounds,
    pub(super) audit: AuditBounds,
    pub(super) guest_threads: usize,
    pub(super) rpc_calls: usize,
    pub(super) rpc_streams: usize,
    pub(super) rpc_connections: usize,
    pub(super) cluster: ClusterSettings,
}

/// A key of the file.
pub struct Key {
    /// Its section.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its default, as it would stand in the file.
    pub default: &'static str,
    /// What it does, one line.
    pub doc: &'static str,
    /// Written into a new file, instead of standing there as a comment.
    pub shown: bool,
    pub(super) set: fn(&mut Settings, &Raw) -> Result<(), String>,
}

macro_rules! keys {
    ($($section:ident $(/ $inner:ident)? . $name:ident = $default:literal, $shown:literal, $doc:literal, $set:expr;)*) => {
        /// Every key there is.
        pub const KEYS: &[Key] = &[$(Key {
            section: concat!(stringify!($section) $(, ".", stringify!($inner))?),
            name: stringify!($name),
            default: $default,
            doc: $doc,
            shown: $shown,
            set: $set,
        }),*];
    };
}

keys! {
    rpc.listen = "\"127.0.0.1:0\"", true, "where gRPC listens; loopback only, unless there are TLS and users; port 0 picks a free one",
        |s, raw| { s.listen = listen(raw)?; Ok(()) };
    rpc/tls.cert = "\"tls/server.pem\"", false, "the host's certificate with those that issued it, PEM; TLS is used if it is named",
        |s, raw| { s.tls_cert = Some(raw.text()?.into()); Ok(()) };
    rpc/tls.key = "\"tls/server.key\"", false, "its private key, PEM",
        |s, raw| { s.tls_key = Some(raw.text()?.into()); Ok(()) };
    rpc/tls.client_ca = "\"tls/clients.pem\"", false, "authorities, PEM: clients must have a certificate of one of them",
        |s, raw| { s.tls_client_ca = Some(raw.text()?.into()); Ok(()) };
    rpc/users.file = "\"users.toml\"", false, "who may log in, written by `maxhost user`; without it whoever reaches the port may do everything",
        |s, raw| { s.users = Some(raw.text()?.into()); Ok(()) };
    rpc/messages.enabled = "false", false, "answer requests that come as messages through the broker: docs/messages.md",
        |s, raw| { s.takes_messages = raw.flag()?; Ok(()) };
    rpc/messages.max_age = "\"12 h\"", false, "a start in a message that is older begins nothing; at most flows.retention less 10 min",
        |s, raw| { s.messages.max_age = raw.duration()?; Ok(()) };
    rpc/messages.max_wait = "\"30 d\"", false, "how long a message may wait for the end of a flow",
        |s, raw| { s.messages.max_wait = raw.duration()?; Ok(()) };
    rpc/messages.keep_answers = "\"30 d\"", false, "how long the broker keeps an answer that nobody fetches; at most 49 d",
        |s, raw| { s.messages.keep_answers = cluster::kept_answers(raw.duration()?)?; Ok(()) };
    metrics.listen = "\"127.0.0.1:9090\"", false, "where /metrics, /livez and /readyz are served over HTTP; nowhere without it",
        |s, raw| { s.metrics = Some(listen(raw)?); Ok(()) };
    store.url = "\"sqlite:data/maxhost.db\"", true, "the database: a file, whose folder is the data folder, or postgres://ROLE@SERVER/DATABASE",
        |s, raw| { s.store = raw.text()?; Ok(()) };
    store.password_file = "\"\"", false, "a file with the password of a database on a server; MAXHOST_STORE_PASSWORD is stronger",
        |s, raw| { s.password_file = optional_path(raw)?; Ok(()) };
    store.layout = "\"schemas\"", false, "on a server: schemas gives each identity a schema of its own, shared puts all into one",
        |s, raw| { s.layout = layout(&raw.text()?)?; Ok(()) };
    store.allow_loss = "false", false, "on a server: start although a crash of it, or a standby that takes over, may lose what was committed",
        |s, raw| { s.allow_loss = raw.flag()?; Ok(()) };
    store.max_clock_offset = "\"5 s\"", false, "on a server: how far the clocks of this machine and of the server may be apart",
        |s, raw| { s.max_clock_offset = raw.duration()?; Ok(()) };
    host.name = "\"\"", false, "the name of this host among others, unique there; without one, the machine's with the number of the process",
        |s, raw| { s.cluster.name = cluster::name(text_or_empty(raw)?)?; Ok(()) };
    host.slots = "500", false, "identities that this host may own at once, where they are shared",
        |s, raw| { s.cluster.slots = raw.count(1, 1_000_000)? as u32; Ok(()) };
    host.labels = "[]", false, "words by which manifests may name this host and others, up to 16",
        |s, raw| { s.cluster.labels = cluster::labels(raw.texts()?)?; Ok(()) };
    cluster.balance = "\"on\"", false, "on: this host gives identities to others that run fewer than their share; off: it does so for their manifests only",
        |s, raw| { s.cluster.balancing.even = cluster::balance(&raw.text()?)?; Ok(()) };
    cluster.balance_interval = "\"10 s\"", false, "how often it looks whether to; an identity stays for six times as long before it is given away",
        |s, raw| { s.cluster.balancing.interval = cluster::balance_interval(raw.duration()?)?; Ok(()) };
    ownership.url = "\"\"", false, "the ZooKeeper ensemble by which hosts share identities, zk://SERVER:2181,SERVER:2181/FOLDER; without it the host is alone",
        |s, raw| { s.cluster.ownership.url = optional_text(raw)?; Ok(()) };
    ownership.session_timeout = "\"6 s\"", false, "after so long without a sign of life others take over what a host owned",
        |s, raw| { s.cluster.session_timeout = cluster::session_timeout(raw.duration()?)?; Ok(()) };
    ownership.user = "\"\"", false, "the user as which all hosts of the cluster come to ZooKeeper (digest)",
        |s, raw| { s.cluster.ownership.user = optional_text(raw)?; Ok(()) };
    ownership.password_file = "\"\"", false, "a file with his password; MAXHOST_OWNERSHIP_PASSWORD is stronger",
        |s, raw| { s.cluster.ownership.password_file = optional_path(raw)?; Ok(()) };
    ownership.ca = "\"\"", false, "authorities of ZooKeeper's certificates, PEM: connections are encrypted if it is named",
        |s, raw| { s.cluster.ownership.ca = optional_path(raw)?; Ok(()) };
    ownership.cert = "\"\"", false, "the certificate that this host shows to ZooKeeper, PEM",
        |s, raw| { s.cluster.ownership.cert = optional_path(raw)?; Ok(()) };
    ownership.key = "\"\"", false, "its private key, PEM",
        |s, raw| { s.cluster.ownership.key = optional_path(raw)?; Ok(()) };
    broker.url = "\"\"", false, "the broker that hosts share, amqp://USER@SERVER:5672,SERVER:5672 or amqps://; without it, the one in this process",
        |s, raw| { s.cluster.broker.url = optional_text(raw)?; Ok(()) };
    broker.password_file = "\"\"", false, "a file with the user's password; MAXHOST_BROKER_PASSWORD is stronger",
        |s, raw| { s.cluster.broker.password_file = optional_path(raw)?; Ok(()) };
    broker.management = "\"\"", false, "the management of a RabbitMQ, https://SERVER:15671, which is asked by the user of broker.url; without it, the broker is Apache Artemis",
        |s, raw| { s.cluster.broker_management = optional_text(raw)?; Ok(()) };
    broker.ca = "\"\"", false, "authorities of the broker's certificates, PEM, if they are not public ones",
        |s, raw| { s.cluster.broker.ca = optional_path(raw)?; Ok(()) };
    broker.cert = "\"\"", false, "the certificate that this host shows to the broker, PEM",
        |s, raw| { s.cluster.broker.cert = optional_path(raw)?; Ok(()) };
    broker.key = "\"\"", false, "its private key, PEM",
        |s, raw| { s.cluster.broker.key = optional_path(raw)?; Ok(()) };
    cordapps.dir = "\"cordapps\"", true, "installed components, *.wasm",
        |s, raw| { s.cordapps = raw.text()?.into(); Ok(()) };
    identities.source = "\"folder\"", false, "where manifests come from, and the keys that they name: folder, or ownership: the ZooKeeper of ownership.url",
        |s, raw| { s.cluster.source = cluster::source(&raw.text()?)?; Ok(()) };
    identities.dir = "\"identities\"", true, "manifests, one *.toml an identity; watched while the host runs",
        |s, raw| { s.identities = raw.text()?.into(); Ok(()) };
    network.dir = "\"network\"", true, "certificates, parameters and node infos of the network; watched",
        |s, raw| { s.network = raw.text()?.into(); Ok(()) };
    keys.dir = "\"keys\"", true, "sealed private keys",
        |s, raw| { s.keys = raw.text()?.into(); Ok(()) };
    keys.passphrase_file = "\"keys/passphrase\"", true, "what the keys are sealed with; MAXHOST_PASSPHRASE is stronger",
        |s, raw| { s.passphrase_file = Some(raw.text()?.into()); Ok(()) };
    flows.evict = "\"after-linger\"", false, "when a waiting flow leaves memory: after-linger, never, every-wait, random:SEED",
        |s, raw| { s.evict = evict(&raw.text()?)?; Ok(()) };
    flows.linger = "\"1 s\"", false, "how long a waiting flow stays in memory",
        |s, raw| { s.linger = raw.duration()?; Ok(()) };
    flows.idle_close = "\"60 s\"", false, "how long an identity without work stays open",
        |s, raw| { s.idle_close = raw.duration()?; Ok(()) };
    flows.shadow_replay = "0.01", false, "share of finished flows that is run again from the journal and compared",
        |s, raw| { s.shadow_replay = raw.fraction()?; Ok(()) };
    flows.retention = "\"24 h\"", false, "how long the end of a flow is kept",
        |s, raw| { s.retention = raw.duration()?; Ok(()) };
    flows.always_broker = "false", false, "send through the broker even between identities of this host: for tests",
        |s, raw| { s.always_broker = raw.flag()?; Ok(()) };
    outbox.keep = "\"1 h\"", false, "how long messages are kept that the broker of a cluster has confirmed, to be sent again if it loses them; at most 24 h, 0 s: not at all",
        |s, raw| { s.kept.time = cluster::kept_messages(raw.duration()?)?; Ok(()) };
    outbox.keep_messages = "1000000", false, "how many of them each database keeps; the oldest go first",
        |s, raw| { s.kept.messages = raw.count(0, 1_000_000_000)?; Ok(()) };
    audit.keep = "\"90 d\"", false, "how long rows of the audit trail are kept, in the time that hosts run",
        |s, raw| { s.audit.keep = raw.duration()?; Ok(()) };
    audit.max_rows = "500000", false, "rows of the audit trail of what was changed, and as many of what was looked at or refused; the oldest go first",
        |s, raw| { s.audit.rows = raw.count(100, 1_000_000_000)?; Ok(()) };
    limits.instances = "4096", false, "flow instances in memory at the most; the kernel may allow fewer",
        |s, raw| { s.instances = raw.count(1, 1_000_000)? as u32; Ok(()) };
    limits.memory = "\"half\"", false, "linear memory of all flows together; half: half of what the machine or the container has",
        |s, raw| { s.memory = memory(raw)?; Ok(()) };
    limits.journal_entries = "50000", false, "entries in one flow's journal",
        |s, raw| { s.journal_entries = raw.count(10, 100_000_000)?; Ok(()) };
    limits.journal_bytes = "\"64 MiB\"", false, "size of one flow's journal",
        |s, raw| { s.journal_bytes = raw.size()?; Ok(()) };
    limits.log_lines = "10000", false, "log lines of one flow",
        |s, raw| { s.log_lines = raw.count(0, 1_000_000_000)? as u32; Ok(()) };
    limits.log_bytes = "\"4 MiB\"", false, "log text of one flow",
        |s, raw| { s.log_bytes = raw.size()?; Ok(()) };
    limits.inbound_bytes = "\"256 MiB\"", false, "messages that may wait for one identity to look at them; its peers wait with more",
        |s, raw| { s.quotas.inbound.bytes = raw.size()?; Ok(()) };
    limits.inbound_messages = "100000", false, "the same in messages",
        |s, raw| { s.quotas.inbound.messages = raw.count(1, 100_000_000)?; Ok(()) };
    limits.outbound_bytes = "\"256 MiB\"", false, "messages of one identity that may wait for the broker; its flows wait with more",
        |s, raw| { s.quotas.outbound.bytes = raw.size()?; Ok(()) };
    limits.outbound_messages = "100000", false, "the same in messages",
        |s, raw| { s.quotas.outbound.messages = raw.count(1, 100_000_000)?; Ok(()) };
    limits.imported_attachments = "10000", false, "attachments that clients import, kept for each identity",
        |s, raw| { s.imports.attachments = raw.count(0, 100_000)?; Ok(()) };
    limits.imported_bytes = "\"1 GiB\"", false, "the same in bytes",
        |s, raw| { s.imports.bytes = raw.size()?; Ok(()) };
    limits.guest_threads = "0", false, "threads for flows that compute; 0: one a core",
        |s, raw| { s.guest_threads = raw.count(0, 1_024)? as usize; Ok(()) };
    limits.rpc_calls = "4096", false, "gRPC calls at once",
        |s, raw| { s.rpc_calls = raw.count(1, 1_000_000)? as usize; Ok(()) };
    limits.rpc_streams = "10000", false, "attached gRPC streams at once",
        |s, raw| { s.rpc_streams = raw.count(1, 1_000_000)? as usize; Ok(()) };
    limits.rpc_connections = "4096", false, "gRPC connections at once; the limit of open files may allow fewer",
        |s, raw| { s.rpc_connections = raw.count(1, 1_000_000)? as usize; Ok(()) };
}

impl Settings {
    pub(super) fn defaults() -> Settings {
        let defaults = HostOptions::new(Path::new(""), Passphrase::default());
        let rpc = RpcOptions::default();
        Settings {
            roles: Roles::BOTH,
            listen: rpc.listen,
            // Each of these is off until it is named.
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            users: None,
            takes_messages: false,
            messages: MessageOptions::default(),
            metrics: None,
            store: "sqlite:data/maxhost.db".to_owned(),
            password_file: None,
            layout: Layout::default(),
            allow_loss: false,
            max_clock_offset: Duration::from_secs(5),
            further: Vec::new(),
            cordapps: defaults.cordapps,
            identities: "identities".into(),
            network: defaults.network,
            keys: defaults.keys,
            // A file without this key names no passphrase: the environment must.
            passphrase_file: None,
            evict: Evict::AfterLinger,
            linger: match defaults.eviction {
                Eviction::AfterLinger(linger) => linger,
                _ => Duration::from_secs(1),
            },
            idle_close: defaults.idle_close,
            shadow_replay: defaults.shadow_replay,
            retention: defaults.retention,
            always_broker: defaults.always_broker,
            instances: defaults.instances,
            memory: None,
            journal_entries: defaults.journal_entries,
            journal_bytes: defaults.journal_bytes,
            log_lines: defaults.log_lines,
            log_bytes: defaults.log_bytes,
            quotas: Quotas::default(),
            kept: KeptBounds::default(),
            imports: defaults.imports,
            audit: AuditBounds::default(),
            guest_threads: 0,
            rpc_calls: rpc.max_calls,
            rpc_streams: rpc.max_streams,
            rpc_connections: rpc.max_connections,
            cluster: ClusterSettings::default(),
        }
    }
}

fn names() -> impl Iterator<Item = String> {
    KEYS.iter().map(|key| format!("{}.{}", key.section, key.name))
}

pub(super) fn apply_entry(settings: &mut Settings, entry: &Entry) -> Result<(), String> {
    let key = KEYS.iter().find(|key| key.section == entry.section && key.name == entry.key);
    if let Some(key) = key {
        return (key.set)(settings, &entry.value).map_err(|message| format!("{}.{}: {message}", key.section, key.name));
    }
    if entry.section.is_empty() && entry.key == "roles" {
        return set_roles(settings, &entry.value);
    }
    if let Some(set) = databases::apply(&mut settings.further, &entry.section, &entry.key, &entry.value) {
        return set;
    }
    let section_known = KEYS.iter().any(|key| key.section == entry.section);
    if section_known && entry.key.is_empty() {
        return Ok(());
    }
    if !section_known && entry.key.is_empty() {
        return Err(strict_toml::unknown(&entry.section, KEYS.iter().map(|key| key.section.to_owned())));
    }
    let full = if entry.section.is_empty() { entry.key.clone() } else { format!("{}.{}", entry.section, entry.key) };
    Err(strict_toml::unknown(&full, names()))
}

fn set_roles(settings: &mut Settings, value: &Raw) -> Result<(), String> {
    settings.roles = roles(value).map_err(|message| format!("roles: {message}"))?;
    Ok(())
}

fn variable_of(key: &Key) -> String {
    format!("MAXHOST_{}_{}", prefix_of(key), key.name.to_uppercase())
}

/// A section as it stands in names of variables.
fn prefix_of(key: &Key) -> String {
    key.section.to_uppercase().replace('.', "_")
}

pub(super) fn apply_variable(settings: &mut Settings, variable: &str, value: String) -> Result<(), String> {
    if let Some(key) = KEYS.iter().find(|key| variable_of(key) == variable) {
        return (key.set)(settings, &Raw::Word(value));
    }
    if variable == ROLES_VARIABLE {
        return set_roles(settings, &Raw::Word(value));
    }
    if [PASSWORD_VARIABLE, OWNERSHIP_PASSWORD, BROKER_PASSWORD].contains(&variable) || is_service_link(variable, &value)
    {
        return Ok(());
    }
    if let Some(set) = databases::apply_variable(&mut settings.further, variable, &value) {
        return set;
    }
    let looks_ours = KEYS.iter().any(|key| variable.starts_with(&format!("MAXHOST_{}_", prefix_of(key))));
    if !looks_ours {
        return Ok(());
    }
    Err(match strict_toml::nearest(variable, KEYS.iter().map(variable_of)) {
        Some(name) => format!("no setting has this name; did you mean {name}?"),
        None => "no setting has this name".to_owned(),
    })
}

pub(super) fn apply_override(settings: &mut Settings, assignment: &str) -> Result<(), String> {
    let (name, value) = assignment.split_once('=').ok_or("expected section.key=value")?;
    if name.trim() == "roles" {
        return set_roles(settings, &Raw::Word(value.trim().to_owned()));
    }
    if let Some((section, key)) = name.trim().rsplit_once('.')
        && let Some(set) = databases::apply(&mut settings.further, section, key, &Raw::Word(value.trim().to_owned()))
    {
        return set;
    }
    let key = KEYS
        .iter()
        .find(|key| name.trim().rsplit_once('.') == Some((key.section, key.name)))
        .ok_or_else(|| strict_toml::unknown(name.trim(), names()))?;
    (key.set)(settings, &Raw::Word(value.trim().to_owned()))
}

/// The text of a new file: what matters stands there, the rest as comments with the defaults.
pub fn template() -> String {
    let mut text = String::from(
        "# Configuration of this maxhost. Relative paths are relative to this folder.\n\
         # Every key can be overridden: MAXHOST_<SECTION>_<KEY> in the environment, or --set section.key=value.\n\
         # What this process does is said before all sections by the key roles, or by MAXHOST_ROLES: flows, rpc, or both.\n",
    );
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            // A section of comments only is a comment too, so that a section written below it is the only one.
            let shown = KEYS.iter().any(|key| key.section == section && key.shown);
            text.push_str(&format!("\n{}[{section}]\n", if shown { "" } else { "# " }));
        }
        let mark = if key.shown { "" } else { "# " };
        text.push_str(&format!("# {}\n{mark}{} = {}\n", key.doc, key.name, key.default));
    }
    text
}
