//! Real ZooKeeper servers on loopback, for tests.
//!
//! The servers are Debian's package `libzookeeper-java` (`deploy/prerequisites.sh` installs it), run as plain processes in a
//! temporary folder, on free ports. They end with the [`Ensemble`], and with the test's process, however that ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use maxhost_proxy::{Line, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a server may take to start, on a machine that is busy.
const START: Duration = Duration::from_secs(90);
/// How long a server that was elected may take until it listens for those that follow it.
const LEADS: Duration = Duration::from_secs(5);
const CLASS_PATH: [&str; 3] = ["zookeeper.jar", "slf4j-log4j12.jar", "log4j-1.2.jar"];
const TLS_CLASS_PATH: [&str; 4] =
    ["netty-codec.jar", "netty-resolver.jar", "netty-transport-native-unix-common.jar", "netty-all.jar"];
const JARS: &str = "/usr/share/java";

/// What servers listen with, in PEM files.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// The private key and certificate of the server.
    pub key_and_certificate: PathBuf,
    /// The authority that clients' certificates are of.
    pub authority: PathBuf,
}

/// Some ZooKeeper servers that form one service.
#[derive(Debug)]
pub struct Ensemble {
    servers: Vec<Server>,
    /// The way from each server, by its index, to each other one that may lead it; empty if they reach each other directly.
    links: Vec<Vec<Proxy>>,
    dir: tempfile::TempDir,
    tls: Option<ServerTls>,
}

#[derive(Debug)]
struct Server {
    ports: Ports,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    server: Child,
    /// Kills the server when its input ends, which it does at the latest when this process is gone.
    guard: Child,
}

impl Process {
    fn start(mut command: Command) -> Process {
        let server = command.spawn().expect("java cannot be started: run deploy/prerequisites.sh");
        let guard = Command::new("sh")
            .args(["-c", "read -r end; kill -9 \"$1\"", "guard", &server.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Process { server, guard }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The guard first, so that it never meets a number that is another process's by then.
        for process in [&mut self.guard, &mut self.server] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    client: u16,
    secure: u16,
    peers: u16,
    election: u16,
}

/// A port that nobody listens on at present, below those that Linux gives out by itself (from 32768), so that no
/// connection takes it while a server is not running.
fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Processes begin far from each other.
        let number = std::process::id().wrapping_mul(101).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + number % COUNT).unwrap();
        if std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

impl Ensemble {
    /// Starts so many servers and waits until they serve.
    pub async fn start(count: usize) -> Ensemble {
        Ensemble::start_as(count, None, false).await
    }

    /// The same, with servers that can be cut off from the one that leads ([`Ensemble::set_link`]).
    pub async fn start_linked(count: usize) -> Ensemble {
        Ensemble::start_as(count, None, true).await
    }

    /// The same, with a second port for TLS.
    pub async fn start_with(count: usize, tls: Option<ServerTls>) -> Ensemble {
        Ensemble::start_as(count, tls, false).await
    }

    async fn start_as(count: usize, tls: Option<ServerTls>, can_be_cut: bool) -> Ensemble {
        assert!(
            Path::new(JARS).join(CLASS_PATH[0]).exists(),
            "there is no ZooKeeper in {JARS}: run deploy/prerequisites.sh"
        );
        // Somebody else may take a port before the server does.
        for _ in 0..5 {
            let server = |_| {
                let ports =
                    Ports { client: free_port(), secure: free_port(), peers: free_port(), election: free_port() };
                Server { ports, process: None }
            };
            let servers = (0..count).map(server).collect();
            let dir = tempfile::tempdir().unwrap();
            let mut ensemble = Ensemble { dir, servers, links: Vec::new(), tls: tls.clone() };
            if can_be_cut {
                ensemble.link().await;
            }
            (0..count).for_each(|index| ensemble.spawn(index));
            if ensemble.serves().await {
                return ensemble;
            }
        }
        panic!("ZooKeeper does not start");
    }

    async fn link(&mut self) {
        for _ in 0..self.servers.len() {
            let mut links = Vec::new();
            for to in &self.servers {
                links.push(Proxy::patient((Ipv4Addr::LOCALHOST, to.ports.peers).into(), LEADS).await.unwrap());
            }
            self.links.push(links);
        }
    }

    /// Changes the connection on which one server follows another, or would. They still hear of each other's votes.
    pub fn set_link(&self, follower: usize, leader: usize, line: Line) {
        self.links[follower][leader].set(line);
    }

    /// The folder of the servers: in `server-0/log` what the first says, and so on.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// How many servers there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.servers.len()
    }

    /// Where a server listens for clients.
    #[must_use]
    pub fn client_address(&self, index: usize) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.servers[index].ports.client))
    }

    /// Where a server listens for clients with TLS.
    #[must_use]
    pub fn secure_address(&self, index: usize) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.servers[index].ports.secure))
    }

    /// Kills a server as `kill -9` does.
    pub fn kill(&mut self, index: usize) {
        self.servers[index].process = None;
    }

    /// Starts a server that was killed, on what it had stored, and does not wait for it.
    pub fn restart(&mut self, index: usize) {
        assert!(self.servers[index].process.is_none());
        self.spawn(index);
    }

    /// Removes everything that a server that was killed had stored.
    pub fn wipe(&self, index: usize) {
        assert!(self.servers[index].process.is_none());
        std::fs::remove_dir_all(self.dir.path().join(format!("server-{index}/data"))).unwrap();
    }

    /// Stops a server where it is; its connections stay open and nobody answers.
    pub fn pause(&self, index: usize) {
        self.signal(index, libc::SIGSTOP);
    }

    /// Lets a paused server go on.
    pub fn resume(&self, index: usize) {
        self.signal(index, libc::SIGCONT);
    }

    fn signal(&self, index: usize, signal: i32) {
        let id = self.servers[index].process.as_ref().unwrap().server.id();
        // SAFETY: kill takes two numbers and touches no memory. The process is our child and not waited for yet, so the
        // number is still its own.
        let result = unsafe { libc::kill(i32::try_from(id).unwrap(), signal) };
        assert_eq!(result, 0);
    }

    /// Waits until every server that was started serves; false if one has ended.
    pub async fn serves(&mut self) -> bool {
        let deadline = tokio::time::Instant::now() + START;
        loop {
            let mut serving = 0;
            let mut started = 0;
            for index in 0..self.servers.len() {
                let Some(process) = self.servers[index].process.as_mut() else { continue };
                if process.server.try_wait().unwrap().is_some() {
                    return false;
                }
                started += 1;
                serving += usize::from(self.is_ours(index).await && self.mode(index).await.is_some());
            }
            if serving == started {
                return true;
            }
            if tokio::time::Instant::now() > deadline {
                panic!("ZooKeeper does not serve; see the logs in {}", self.dir.path().display());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The server that leads, once there is one.
    pub async fn leader(&self) -> usize {
        let deadline = tokio::time::Instant::now() + START;
        while tokio::time::Instant::now() < deadline {
            for index in 0..self.servers.len() {
                if self.mode(index).await.as_deref() == Some("leader") {
                    return index;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("there is no leader");
    }

    /// Whether who listens on a server's port is that server, and not one of another test.
    async fn is_ours(&self, index: usize) -> bool {
        let data = self.dir.path().join(format!("server-{index}/data")).display().to_string();
        self.ask(index, "conf").await.is_some_and(|said| said.contains(&data))
    }

    /// What a server says it is: `standalone`, `leader` or `follower`; `None` if it does not serve.
    async fn mode(&self, index: usize) -> Option<String> {
        let said = self.ask(index, "srvr").await?;
        said.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned)
    }

    /// What a server answers to a command of four letters.
    pub async fn ask(&self, index: usize, command: &str) -> Option<String> {
        let asking = async {
            let mut stream = TcpStream::connect(self.client_address(index)).await.ok()?;
            stream.write_all(command.as_bytes()).await.ok()?;
            let mut said = String::new();
            stream.read_to_string(&mut said).await.ok()?;
            Some(said)
        };
        tokio::time::timeout(Duration::from_secs(2), asking).await.ok()?
    }

    fn spawn(&mut self, index: usize) {
        let dir = self.dir.path().join(format!("server-{index}"));
        std::fs::create_dir_all(dir.join("data")).unwrap();
        std::fs::write(dir.join("data/myid"), (index + 1).to_string()).unwrap();
        std::fs::write(dir.join("zoo.cfg"), self.config(index, &dir)).unwrap();
        let log = "log4j.rootLogger=WARN, A\nlog4j.appender.A=org.apache.log4j.ConsoleAppender\n\
            log4j.appender.A.layout=org.apache.log4j.PatternLayout\n\
            log4j.appender.A.layout.ConversionPattern=%d{ISO8601} %p %c{1}: %m%n\n";
        std::fs::write(dir.join("log4j.properties"), log).unwrap();
        let output = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let mut class_path = dir.display().to_string();
        for jar in CLASS_PATH.iter().chain(self.tls.iter().flat_map(|_| &TLS_CLASS_PATH)) {
            write!(class_path, ":{JARS}/{jar}").unwrap();
        }
        let mut java = Command::new("java");
        java.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djute.maxbuffer=16777216"])
            .args(["-Dzookeeper.jmx.log4j.disable=true", "-Dzookeeper.admin.enableServer=false"])
            .args(["-cp", &class_path, "org.apache.zookeeper.server.quorum.QuorumPeerMain"])
            .arg(dir.join("zoo.cfg"))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        self.servers[index].process = Some(Process::start(java));
    }

    fn config(&self, index: usize, dir: &Path) -> String {
        let ports = self.servers[index].ports;
        let mut config = format!(
            "tickTime=500\ninitLimit=60\nsyncLimit=20\nminSessionTimeout=1000\nmaxSessionTimeout=60000\n\
             dataDir={}\nclientPortAddress=127.0.0.1\nclientPort={}\nadmin.enableServer=false\n\
             4lw.commands.whitelist=*\nmaxClientCnxns=0\n",
            dir.join("data").display(),
            ports.client
        );
        if let Some(tls) = &self.tls {
            write!(
                config,
                "secureClientPortAddress=127.0.0.1\nsecureClientPort={}\n\
                 serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
                 ssl.keyStore.location={}\nssl.keyStore.type=PEM\nssl.trustStore.location={}\n\
                 ssl.trustStore.type=PEM\nssl.clientAuth=need\n\
                 authProvider.1=org.apache.zookeeper.server.auth.X509AuthenticationProvider\n",
                ports.secure,
                tls.key_and_certificate.display(),
                tls.authority.display()
            )
            .unwrap();
        }
        if self.servers.len() > 1 {
            for (other, server) in self.servers.iter().enumerate() {
                let number = other + 1;
                let link = self.links.get(index).map(|links| links[other].address().port());
                let peers = link.filter(|_| other != index).unwrap_or(server.ports.peers);
                writeln!(config, "server.{number}=127.0.0.1:{peers}:{}", server.ports.election).unwrap();
            }
        }
        config
    }
}

/// Ends the session that a host has noted in its `session_file`, as if the servers had not heard of it for its timeout.
pub async fn end_noted_session(server: SocketAddr, session_file: &Path) {
    let session = crate::former::noted(session_file).expect("no session is noted");
    crate::former::close(&server.to_string(), session).await.unwrap();
}
