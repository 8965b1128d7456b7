//! What runs: the servers, and hosts as processes each of which reaches every server by a line of its own that can be cut.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use maxhost_broker_amqp::test_servers::Artemis;
use maxhost_ownership_zookeeper::test_servers::Ensemble;
use maxhost_postgres_server::Server;
use maxhost_proxy::{Line, Proxy};
use maxhost_rpc::Client;
use maxhost_tests::{Host, Network, cli};
use tokio::sync::Mutex;

/// How long a host may be silent until others take over what it owns.
const SESSION: &str = "6 s";
/// The database that all hosts share.
pub const DATABASE: &str = "chaos";
/// How long a process may take until it is up, while the servers come and go.
const UP: Duration = Duration::from_secs(300);
/// How long a call may take: a worker answers a start after 25 seconds at the latest.
const CALL: Duration = Duration::from_secs(30);

/// Servers and hosts.
pub struct Deployment {
    pub postgres: Arc<Server>,
    pub zookeeper: Mutex<Ensemble>,
    pub artemis: Mutex<Artemis>,
    /// Its folder goes with it.
    _network: Network,
    pub nodes: Vec<Arc<Process>>,
    pub workers: Vec<Arc<Process>>,
}

/// The ways of a process to the servers.
pub struct Lines {
    pub database: Proxy,
    pub broker: Proxy,
    pub zookeeper: Vec<Proxy>,
}

impl Lines {
    async fn to(servers: &Servers) -> Lines {
        let to = async |address: SocketAddr| Proxy::to(address).await.unwrap();
        let mut zookeeper = Vec::new();
        for index in 0..servers.zookeeper.count() {
            zookeeper.push(to(servers.zookeeper.client_address(index)).await);
        }
        let database = to((Ipv4Addr::LOCALHOST, servers.postgres.port()).into()).await;
        Lines { database, broker: to(servers.artemis.address()).await, zookeeper }
    }

    /// Changes the lines to all servers.
    pub fn set_all(&self, line: Line) {
        self.zookeeper.iter().chain([&self.database, &self.broker]).for_each(|proxy| proxy.set(line));
    }
}

struct Servers {
    postgres: Server,
    zookeeper: Ensemble,
    artemis: Artemis,
}

/// What is to run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub nodes: usize,
    /// Whether Max Nodes answer clients, too.
    pub nodes_answer: bool,
    pub workers: usize,
    /// Identities beside the usual ones.
    pub parties: u32,
    /// Whether each process reaches the servers by lines of its own, and the servers of ZooKeeper each other.
    pub has_lines: bool,
}

impl Deployment {
    /// Starts three ZooKeeper servers, a database server and a broker, and then the Max Nodes and RPC workers.
    pub async fn start(plan: Plan) -> Deployment {
        let postgres = tokio::task::spawn_blocking(|| Server::start("").unwrap());
        let network = tokio::task::spawn_blocking(move || Network::with_parties(plan.parties));
        let any_disk = |xml: String| xml.replace("<max-disk-usage>95<", "<max-disk-usage>100<");
        // Where nothing is cut, what its servers say to each other takes no way round by this process.
        let zookeeper = async {
            match plan.has_lines {
                true => Ensemble::start_linked(3).await,
                false => Ensemble::start(3).await,
            }
        };
        let (postgres, network, zookeeper, artemis) =
            tokio::join!(postgres, network, zookeeper, Artemis::start_with(&any_disk));
        let servers = Servers { postgres: postgres.unwrap(), zookeeper, artemis };
        let network = network.unwrap();
        servers.postgres.create_database(DATABASE).unwrap();
        let roles = if plan.nodes_answer { "flows, rpc" } else { "flows" };
        let (mut nodes, mut workers) = (Vec::new(), Vec::new());
        for number in 1..=plan.nodes {
            let lines = Lines::to(&servers).await;
            nodes.push(Arc::new(Process::new(&servers, &network, (format!("max-{number}"), roles), lines, plan)));
        }
        for number in 1..=plan.workers {
            let lines = Lines::to(&servers).await;
            workers.push(Arc::new(Process::new(&servers, &network, (format!("rpc-{number}"), "rpc"), lines, plan)));
        }
        let Servers { postgres, zookeeper, artemis } = servers;
        let (zookeeper, artemis) = (Mutex::new(zookeeper), Mutex::new(artemis));
        let deployment =
            Deployment { postgres: Arc::new(postgres), zookeeper, artemis, _network: network, nodes, workers };
        futures::future::join_all(deployment.processes().map(Process::start))
            .await
            .into_iter()
            .for_each(Result::unwrap);
        deployment
    }

    /// Max Nodes and workers.
    pub fn processes(&self) -> impl Iterator<Item = &Arc<Process>> {
        self.nodes.iter().chain(&self.workers)
    }

    /// The client of a worker that has one; `number` chooses.
    pub fn client(&self, number: usize) -> Option<Client> {
        (0..self.workers.len()).find_map(|next| self.workers[(number + next) % self.workers.len()].client())
    }

    /// Runs a statement on the database past all lines.
    pub async fn sql(&self, sql: &str) -> Result<String, String> {
        let (postgres, sql) = (self.postgres.clone(), sql.to_owned());
        let asked =
            tokio::task::spawn_blocking(move || postgres.sql(DATABASE, &sql).map_err(|error| error.to_string()));
        asked.await.map_err(|error| error.to_string())?
    }

    /// Copies what all processes have said into a folder.
    pub async fn keep_logs(&self, folder: &Path) {
        let copy = |from: PathBuf, name: String| {
            // A log that is not there tells nothing.
            let _absent = fs::copy(from, folder.join(name));
        };
        let _exists = fs::create_dir_all(folder);
        for process in self.processes() {
            copy(process.folder.join("host.log"), format!("{}.log", process.name));
        }
        copy(self.postgres.dir().join("log"), "postgres.log".to_owned());
        copy(self.artemis.lock().await.folder().join("log/output"), "artemis.log".to_owned());
        let zookeeper = self.zookeeper.lock().await;
        for index in 0..zookeeper.count() {
            copy(zookeeper.folder().join(format!("server-{index}/log")), format!("zookeeper-{index}.log"));
        }
    }
}

/// A host as a process that is started again whenever it was ended.
pub struct Process {
    pub name: String,
    pub lines: Lines,
    roles: &'static str,
    folder: PathBuf,
    running: std::sync::Mutex<Option<Host>>,
    starts: AtomicU32,
}

impl Process {
    fn new(
        servers: &Servers,
        network: &Network,
        (name, roles): (String, &'static str),
        lines: Lines,
        plan: Plan,
    ) -> Process {
        let folder = network.path(&format!("hosts/{name}"));
        network.lend_code(&folder);
        let dir = |name: &str| network.path(name).display().to_string();
        let by = |line: &Proxy, server: SocketAddr| if plan.has_lines { line.address() } else { server };
        let zookeeper: Vec<String> = (0..servers.zookeeper.count())
            .map(|index| by(&lines.zookeeper[index], servers.zookeeper.client_address(index)).to_string())
            .collect();
        let text = format!(
            "roles = [\"flows\", \"rpc\"]\n[host]\nname = \"{name}\"\nslots = 2000\n\
             [store]\nurl = \"postgres://{}@{}/{DATABASE}\"\npassword_file = \"{}\"\n\
             [ownership]\nurl = \"zk://{}/maxhost/chaos\"\nsession_timeout = \"{SESSION}\"\n\
             [broker]\nurl = \"amqp://{}@{}\"\n\
             [cordapps]\ndir = \"{}\"\n[identities]\ndir = \"{}\"\n[network]\ndir = \"{}\"\n\
             [keys]\ndir = \"{}\"\npassphrase_file = \"{}\"\n\
             [flows]\nidle_close = \"5 s\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n",
            maxhost_postgres_server::ROLE,
            by(&lines.database, (Ipv4Addr::LOCALHOST, servers.postgres.port()).into()),
            servers.postgres.password_file().display(),
            zookeeper.join(","),
            Artemis::USER,
            by(&lines.broker, servers.artemis.address()),
            dir("cordapps"),
            dir("identities"),
            dir("network"),
            dir("keys"),
            dir("keys/passphrase"),
        );
        fs::write(folder.join("maxhost.toml"), text).unwrap();
        Process { name, lines, roles, folder, running: std::sync::Mutex::default(), starts: AtomicU32::new(0) }
    }

    fn command(&self) -> std::process::Command {
        let mut command = cli::command(&["run", "--json", "--config"]);
        command.arg(self.folder.join("maxhost.toml"));
        command.env("MAXHOST_BROKER_PASSWORD", Artemis::PASSWORD).env("MAXHOST_ROLES", self.roles);
        // What the hosts are to log, if whoever looks for a defect says so.
        if let Some(levels) = std::env::var_os("MAXHOST_LOG") {
            command.env("MAXHOST_LOG", levels);
        }
        command
    }

    /// Starts it, over and over until it is up, as whoever supervises processes does.
    pub async fn start(self: &Arc<Process>) -> Result<(), String> {
        let process = self.clone();
        let started = tokio::task::spawn_blocking(move || {
            let deadline = Instant::now() + UP;
            while Instant::now() < deadline {
                process.starts.fetch_add(1, Ordering::Relaxed);
                if let Some(host) = Host::try_up(&mut process.command(), &process.folder) {
                    *process.running() = Some(host);
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(300));
            }
            Err(format!("{} does not come up within {} s", process.name, UP.as_secs()))
        });
        started.await.map_err(|error| error.to_string())?
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Host>> {
        self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Ends it as a power cut would.
    pub fn kill(&self) {
        let host = self.running().take();
        if let Some(host) = host {
            host.kill_9();
        }
    }

    /// Asks it to end in order, and waits until it has; says how long that took.
    pub async fn stop(&self) -> Result<Duration, String> {
        let Some(host) = self.running().take() else { return Err(format!("{} is not running", self.name)) };
        tokio::task::spawn_blocking(move || host.stop()).await.map_err(|error| format!("{}: {error}", self.name))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: libc::c_int) {
        let running = self.running();
        if let Some(host) = running.as_ref() {
            let pid = libc::pid_t::try_from(host.pid()).unwrap();
            // SAFETY: sends a signal; touches no memory. The process is a child that was not waited for.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// The number of its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running().as_ref().map(Host::pid)
    }

    /// A client of it, while it runs.
    pub fn client(&self) -> Option<Client> {
        let endpoint = self.running().as_ref().and_then(|host| host.ready()["grpc"].as_str().map(str::to_owned))?;
        Some(Client::at(endpoint, CALL))
    }

    /// Whether it has ended though nobody has ended it.
    pub fn has_ended(&self) -> bool {
        self.running().as_mut().is_some_and(|host| !host.is_running())
    }

    /// How often it was started, in vain too.
    pub fn starts(&self) -> u32 {
        self.starts.load(Ordering::Relaxed)
    }

    /// What a process answers over HTTP where its metrics are: the code and the text.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let address = self.running().as_ref()?.ready()["metrics"].as_str()?.to_owned();
        let asking = async {
            let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            Some((answer.split(' ').nth(1)?.parse().ok()?, answer))
        };
        tokio::time::timeout(Duration::from_secs(10), asking).await.ok()?
    }

    /// A counter or gauge of it.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await?;
        let line = text.lines().find(|line| line.split(' ').next() == Some(name))?;
        line.split(' ').nth(1)?.parse().ok()
    }
}
