//! How a host is set up: plain data, filled by the binary from `maxhost.toml` and the manifests.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use maxhost_broker::Broker;
pub use maxhost_cordapps::CordappRef;
use maxhost_ownership::Ownership;
pub use maxhost_store::ledger::ImportBounds;
use zeroize::Zeroizing;

/// When a suspended flow's instance is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// After it has waited for so long. The default, one second.
    AfterLinger(Duration),
    /// Only when another flow needs the room.
    Never,
    /// At every wait: for tests of replay.
    EveryWait,
    /// At every second wait or so, drawn from this seed: for tests of replay.
    Random(u64),
}

/// Where in the folder of what a host keeps the files lie that are no code and can be attached to transactions.
pub const ATTACHMENTS: &str = "attachments";
/// The folder of the compiled code of contracts in that of all compiled code.
pub const COMPILED_CONTRACTS: &str = "contracts";

/// How much is kept of messages that the broker has confirmed, to be sent again if it loses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptBounds {
    /// For how long, in the time that hosts run; nothing is kept for no time. Default one hour. At most
    /// [`KeptBounds::LONGEST`].
    pub time: Duration,
    /// How many in each database, at about; beyond that the oldest go. Default 1,000,000.
    pub messages: u64,
}

impl KeptBounds {
    /// Receivers know messages again for seven days, and one may be on its way for a while when it is sent again.
    pub const LONGEST: Duration = Duration::from_secs(24 * 3600);
}

impl Default for KeptBounds {
    fn default() -> KeptBounds {
        KeptBounds { time: Duration::from_secs(3600), messages: 1_000_000 }
    }
}

/// What a host is started with.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// The name of this host, as it stands in the audit trail.
    pub name: String,
    /// The folder of what the host keeps, beside its database. It exists.
    pub data: PathBuf,
    /// The embedded broker's file.
    pub broker: PathBuf,
    /// Installed components, `*.wasm`.
    pub cordapps: PathBuf,
    /// Compiled code; only this host writes there.
    pub code_cache: PathBuf,
    /// Certificates, parameters, node infos.
    pub network: PathBuf,
    /// Sealed keys.
    pub keys: PathBuf,
    /// What they are sealed with. Never shown; a host that is up has wiped its copy.
    pub passphrase: Passphrase,
    /// When instances are dropped.
    pub eviction: Eviction,
    /// An identity without work closes after so long. Default one minute.
    pub idle_close: Duration,
    /// Which share of finished flows is run again from the journal and compared, 0.0 to 1.0. Default 0.01.
    pub shadow_replay: f64,
    /// How long the end of a flow is kept that was started by RPC or failed. Default 24 hours.
    pub retention: Duration,
    /// Flow instances in memory at the most. Default 4,096; the host lowers it to what the kernel allows.
    pub instances: u32,
    /// Linear memory of all guests together, bytes. Default: half of what the machine or the container has.
    pub memory: u64,
    /// Journal entries of one flow. Default 50,000.
    pub journal_entries: u64,
    /// Bytes of one flow's journal. Default 64 MiB.
    pub journal_bytes: u64,
    /// Log lines of one flow run; a flow that logs more ends. Default 10,000.
    pub log_lines: u32,
    /// Log bytes of one flow run. Default 4 MiB.
    pub log_bytes: u64,
    /// How much of what the broker has confirmed is kept, where hosts share a broker on the network.
    pub kept: KeptBounds,
    /// How much of what clients import is kept for each identity. Default 10,000 attachments and 1 GiB.
    pub imports: ImportBounds,
    /// Threads for guests that compute. Default: one a core.
    pub guest_threads: usize,
    /// Messages between identities of this host go through the broker too, instead of the sender's own transaction.
    /// For tests of that path.
    pub always_broker: bool,
    /// A start that goes along with the demand for an identity is given to the broker so much later, unless it was carried out by then.
    /// Default 50 ms.
    pub start_held: Duration,
    /// The network is one for development: contracts may be unsigned.
    pub development: bool,
}

impl HostOptions {
    /// The defaults over a data folder `data/`, an installation folder `.` and a passphrase.
    #[must_use]
    pub fn new(root: &std::path::Path, passphrase: Passphrase) -> HostOptions {
        HostOptions {
            name: "this host".to_owned(),
            data: root.join("data"),
            broker: root.join("data/broker.db"),
            cordapps: root.join("cordapps"),
            code_cache: root.join("data/code"),
            network: root.join("network"),
            keys: root.join("keys"),
            passphrase,
            eviction: Eviction::AfterLinger(Duration::from_secs(1)),
            idle_close: Duration::from_secs(60),
            shadow_replay: 0.01,
            retention: Duration::from_secs(24 * 3600),
            instances: 4096,
            memory: half_of_the_machine(),
            journal_entries: 50_000,
            journal_bytes: 64 << 20,
            log_lines: 10_000,
            log_bytes: 4 << 20,
            kept: KeptBounds::default(),
            imports: ImportBounds { attachments: 10_000, bytes: 1 << 30 },
            guest_threads: std::thread::available_parallelism().map_or(2, usize::from),
            always_broker: false,
            start_held: Duration::from_millis(50),
            development: false,
        }
    }
}

/// Half of the memory of the machine, or of the container if that is less.
fn half_of_the_machine() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let container =
        std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse::<u64>().ok());
    machine.into_iter().chain(container).min().map_or(1 << 30, |bytes| bytes / 2)
}

/// A secret that is not shown, and is wiped from memory when it is dropped.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Takes a text; line breaks at its end are no part of it.
    #[must_use]
    pub fn new(text: String) -> Passphrase {
        let mut text = Zeroizing::new(text);
        // In place: a copy would stay in memory.
        let end = text.trim_end_matches(['\r', '\n']).len();
        text.truncate(end);
        Passphrase(text)
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// The other hosts that run the identities of the same database, and what connects them.
#[derive(Clone)]
pub struct Cluster {
    /// Says which host runs which identity. Its run is that of the store.
    pub ownership: Arc<dyn Ownership>,
    /// Carries messages between identities of different hosts. It takes messages of the network's largest size and
    /// [`ENVELOPE_BYTES`] more.
    pub broker: Arc<dyn Broker>,
    /// How many identities this host runs at once; 0: it runs none, and answers for all of them.
    pub slots: u32,
    /// Whether this host may become the scheduler, which raises demand for identities that are due: one that answers clients.
    pub schedules: bool,
    /// After so long without a sign of life others take over what a host owned.
    pub session_timeout: Duration,
    /// When this host gives identities to others that suit them better, or that run fewer.
    pub balancing: Balancing,
}

/// When a host of several gives identities that it runs to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balancing {
    /// Whether it does so for the sake of an even share. What manifests say of hosts holds all the same. Default: yes.
    pub even: bool,
    /// How often it looks. Default ten seconds.
    pub interval: Duration,
}

impl Default for Balancing {
    fn default() -> Balancing {
        Balancing { even: true, interval: Duration::from_secs(10) }
    }
}

/// What a message of the broker may have beside the largest message of a flow: names, numbers, a signature, frames that
/// travel together.
pub const ENVELOPE_BYTES: usize = 512 * 1024;

/// What one identity may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentityLimits {
    /// Flows that run, or are suspended with an instance in memory. Default 500.
    pub flows: u32,
    /// Linear memory of all its flows together, bytes. Default 1 GiB.
    pub memory: u64,
    /// Linear memory of one flow, bytes. Default 64 MiB.
    pub memory_per_flow: u64,
    /// Computing time between two waits. Default two seconds.
    pub cpu_per_run: Duration,
}

impl Default for IdentityLimits {
    fn default() -> IdentityLimits {
        IdentityLimits { flows: 500, memory: 1 << 30, memory_per_flow: 64 << 20, cpu_per_run: Duration::from_secs(2) }
    }
}

/// What a notary does before it signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotaryKind {
    /// It verifies the transaction and all that it comes from.
    Validating,
    /// It sees no more than which states are consumed.
    NonValidating,
}

/// What a manifest says of the hosts that run the identity, where several share it. A host is named by its name or by one of its
/// labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostRules {
    /// No other hosts run it, even if none of these is there; empty: any host may.
    pub only: Arc<[Arc<str>]>,
    /// These run it as long as one of them is there and has room.
    pub prefer: Arc<[Arc<str>]>,
    /// Identities of one group run on different hosts as long as there are enough that have room.
    pub apart: Option<Arc<str>>,
}

impl HostRules {
    /// Hosts or labels that one key of a manifest may name at the most.
    pub const MOST_NAMES: usize = 64;

    /// Whether the manifest says nothing of hosts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.only.is_empty() && self.prefer.is_empty() && self.apart.is_none()
    }
}

/// One identity, as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySpec {
    /// Canonical X.500 name.
    pub name: String,
    /// What it runs.
    pub cordapps: Arc<[CordappRef]>,
    /// Folder of its keys.
    pub keys: PathBuf,
    /// What it may use.
    pub limits: IdentityLimits,
    /// What it does as a notary, if it is one.
    pub notary: Option<NotaryKind>,
    /// Which hosts run it, where several share it.
    pub hosts: HostRules,
    /// The manifest file.
    pub manifest: PathBuf,
}

/// Something an operator cares about.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OperatorEvent {
    /// An identity is hosted now.
    IdentityAdded {
        /// Its name.
        identity: String,
    },
    /// An identity woke up.
    IdentityOpened {
        /// Its name.
        identity: String,
    },
    /// An identity went to sleep.
    IdentityClosed {
        /// Its name.
        identity: String,
    },
    /// An identity is not hosted any more.
    IdentityRemoved {
        /// Its name.
        identity: String,
    },
    /// An identity cannot be hosted.
    IdentityQuarantined {
        /// Its name, or the manifest's.
        identity: String,
        /// The code of the error that says why.
        code: String,
        /// The reason, in words.
        reason: String,
    },
    /// A flow was started by RPC.
    FlowStarted {
        /// The name of the identity that runs the flow.
        identity: String,
        /// Public id.
        flow_id: String,
        /// The flow's full name, `cordapp/flow`.
        flow: String,
    },
    /// A flow ended.
    FlowEnded {
        /// The name of the identity that runs the flow.
        identity: String,
        /// Public id.
        flow_id: String,
        /// The flow's full name, `cordapp/flow`.
        flow: String,
        /// completed, failed or killed.
        state: &'static str,
        /// The error, in one line.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A flow needs a person.
    FlowHospitalised {
        /// The name of the identity that runs the flow.
        identity: String,
        /// Public id.
        flow_id: String,
        /// The flow's full name, `cordapp/flow`.
        flow: String,
        /// The reason, in words.
        reason: String,
    },
}
