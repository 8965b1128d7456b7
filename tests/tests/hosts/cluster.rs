//! Servers that hosts share, and hosts as processes with configurations of their own.

use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use maxhost_broker_amqp::test_servers::Artemis;
use maxhost_ownership_zookeeper::test_servers::Ensemble;
use maxhost_postgres_server::Server;
use maxhost_tests::{Host, Network, cli, eventually};
use serde_json::Value;

/// How long a host may be silent until others take over what it owns.
pub const SESSION: &str = "6 s";

/// A database server, a ZooKeeper server and an Artemis broker.
pub struct Servers {
    pub postgres: Arc<Server>,
    pub zookeeper: Ensemble,
    pub artemis: Artemis,
}

impl Servers {
    pub async fn start() -> Servers {
        let postgres = tokio::task::spawn_blocking(|| Server::start("").unwrap());
        // A disk that is nearly full is the machine's affair, not what is tried here.
        let any_disk = |xml: String| xml.replace("<max-disk-usage>95<", "<max-disk-usage>100<");
        let artemis = Artemis::start_with(&any_disk);
        let (postgres, zookeeper, artemis) = tokio::join!(postgres, Ensemble::start(1), artemis);
        Servers { postgres: Arc::new(postgres.unwrap()), zookeeper, artemis }
    }
}

/// Servers that are well and stay so. One test has them at a time, with databases and a folder in ZooKeeper of its own; then the
/// next one has them, because starting them takes long.
pub struct WellServers(Option<Servers>);

/// The servers that tests pass on to each other.
struct Passed {
    /// How many tests have servers now.
    taken: usize,
    waiting: Option<Servers>,
}

fn passed() -> MutexGuard<'static, Passed> {
    static PASSED: Mutex<Passed> = Mutex::new(Passed { taken: 0, waiting: None });
    PASSED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WellServers {
    /// Those that another test has left, or new ones; `None`, and a word about it, where there is no broker.
    pub async fn take() -> Option<WellServers> {
        if Artemis::is_missing() {
            return None;
        }
        let left = {
            let mut passed = passed();
            passed.taken += 1;
            passed.waiting.take()
        };
        // Counted from here on, whatever becomes of the start.
        let mut servers = WellServers(left);
        if servers.0.is_none() {
            servers.0 = Some(Servers::start().await);
        }
        Some(servers)
    }
}

impl Deref for WellServers {
    type Target = Servers;

    fn deref(&self) -> &Servers {
        self.0.as_ref().expect("they are there until they are dropped")
    }
}

impl Drop for WellServers {
    fn drop(&mut self) {
        let mut passed = passed();
        passed.taken -= 1;
        // After the last one nobody may come: they end, and their folders go. After a failure nobody knows how they are.
        let ended = match self.0.take() {
            Some(servers) if passed.taken > 0 && passed.waiting.is_none() && !std::thread::panicking() => {
                passed.waiting = Some(servers);
                (None, None)
            }
            servers if passed.taken == 0 => (servers, passed.waiting.take()),
            servers => (servers, None),
        };
        drop(passed);
        drop(ended);
    }
}

/// A network whose identities several hosts share.
pub struct Cluster<'a> {
    pub servers: &'a Servers,
    pub network: Network,
    /// What the configuration of each host says of the broker.
    pub broker: String,
    /// What the configuration of each host says besides.
    pub more: String,
    database: String,
    folder: &'static str,
}

impl<'a> Cluster<'a> {
    /// With a database of its own, and this folder in ZooKeeper.
    pub fn new(servers: &'a Servers, parties: u32, database: &str, folder: &'static str) -> Cluster<'a> {
        servers.postgres.create_database(database).unwrap();
        let (network, more) = (Network::with_parties(parties), String::new());
        let broker = format!("url = \"amqp://{}@{}\"\n", Artemis::USER, servers.artemis.address());
        Cluster { servers, network, broker, more, database: database.to_owned(), folder }
    }

    /// The folder of a host: its configuration and its data.
    pub fn folder(&self, host: &str) -> PathBuf {
        self.network.path(&format!("hosts/{host}"))
    }

    /// Writes the configuration of a host.
    pub fn configure(&self, host: &str) -> PathBuf {
        let folder = self.folder(host);
        self.network.lend_code(&folder);
        let dir = |name: &str| self.network.path(name).display().to_string();
        let text = format!(
            "roles = [\"flows\", \"rpc\"]\n[host]\nname = \"{host}\"\nslots = 100\n\
             [store]\nurl = \"{}\"\n\
             [ownership]\nurl = \"zk://{}{}\"\nsession_timeout = \"{SESSION}\"\n\
             [broker]\n{}\
             [cordapps]\ndir = \"{}\"\n[identities]\ndir = \"{}\"\n[network]\ndir = \"{}\"\n\
             [keys]\ndir = \"{}\"\npassphrase_file = \"{}\"\n\
             [flows]\nidle_close = \"5 s\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n{}",
            self.servers.postgres.url(&self.database),
            self.servers.zookeeper.client_address(0),
            self.folder,
            self.broker,
            dir("cordapps"),
            dir("identities"),
            dir("network"),
            dir("keys"),
            dir("keys/passphrase"),
            self.more,
        );
        let file = folder.join("maxhost.toml");
        fs::write(&file, text).unwrap();
        file
    }

    /// Gives a host a folder of installed CorDapps of its own, in which this one is of another build.
    pub fn install_another_build(&self, host: &str, cordapp: &str) {
        let configuration = self.configure(host);
        let folder = self.folder(host).join("cordapps");
        fs::create_dir_all(&folder).unwrap();
        for installed in fs::read_dir(self.network.path("cordapps")).unwrap().flatten() {
            let mut component = fs::read(installed.path()).unwrap();
            if installed.file_name().to_string_lossy().starts_with(&format!("{cordapp}-")) {
                // A section that nothing reads: its kind, its length, the length of its name, and the name.
                component.extend_from_slice(b"\x00\x06\x05other");
            }
            fs::write(folder.join(installed.file_name()), component).unwrap();
        }
        let text = fs::read_to_string(&configuration).unwrap();
        let shared = self.network.path("cordapps").display().to_string();
        fs::write(&configuration, text.replace(&shared, &folder.display().to_string())).unwrap();
    }

    pub fn command(&self, host: &str, words: &[&str]) -> std::process::Command {
        let file = self.folder(host).join("maxhost.toml");
        let mut command = cli::command(words);
        command.arg("--json").arg("--config").arg(file).env("MAXHOST_BROKER_PASSWORD", Artemis::PASSWORD);
        command
    }

    /// As [`Cluster::command`], of a process with some roles.
    pub fn command_as(&self, host: &str, roles: &str, words: &[&str]) -> std::process::Command {
        let mut command = self.command(host, words);
        command.env("MAXHOST_ROLES", roles);
        command
    }

    /// Starts a process with some roles and waits until it is ready.
    pub fn run_as(&self, host: &str, roles: &str) -> Host {
        self.configure(host);
        Host::up(self.command_as(host, roles, &["run"]), &self.folder(host))
    }

    /// Starts a host and waits until it is ready.
    pub fn run(&self, host: &str) -> Host {
        self.configure(host);
        self.run_as_configured(host)
    }

    /// The same, with the configuration that it has.
    pub fn run_as_configured(&self, host: &str) -> Host {
        Host::up(self.command(host, &["run"]), &self.folder(host))
    }

    /// What a command prints, a value a line.
    pub fn ask(&self, host: &str, words: &[&str]) -> Vec<Value> {
        let answer = cli::answer(self.command(host, words), None).ok();
        answer.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The host that owns an identity, as another host tells it.
    pub fn owner(&self, asked: &str, identity: &str) -> Option<String> {
        self.ask(asked, &["identity", "where", identity])[0]["host"].as_str().map(str::to_owned)
    }

    /// Waits until somebody whom the test wants owns the identity.
    pub async fn until_owned(
        &self,
        asked: &str,
        identity: &str,
        fits: impl Fn(Option<&str>) -> bool,
    ) -> Option<String> {
        eventually(&format!("the owner of {identity}"), async || {
            let owner = self.owner(asked, identity);
            if fits(owner.as_deref()) { Ok(owner) } else { Err(format!("{owner:?}")) }
        })
        .await
    }
}
