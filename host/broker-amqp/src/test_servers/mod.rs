//! Real brokers on loopback, for tests: RabbitMQ, and Artemis.
//!
//! The latter is Apache Artemis 2.44.0, which Maven fetches once into `target/artemis` and which runs as a plain process
//! in a temporary folder, on a free port, with `deploy/artemis/broker.xml` for its configuration. It ends with the
//! [`Artemis`], and with the test's process, however that ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

mod client;
mod fetch;
mod rabbitmq;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub use client::{Answer, Client};
pub use rabbitmq::RabbitMq;

use crate::heard::Heard;
use crate::{Address, AmqpOptions, Credentials, dial};

/// How long a broker may take to start, on a machine that is busy.
const START: Duration = Duration::from_secs(120);
/// How long a broker may take to end by itself.
const END: Duration = Duration::from_secs(30);

/// Changes the configuration of a broker before it starts.
pub type Edit = dyn Fn(String) -> String + Send + Sync;

/// A running broker.
#[derive(Debug)]
pub struct Artemis {
    home: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    /// In percent. Beyond it the broker takes no messages; 100 by default, so that no test depends on the machine's disk.
    max_disk_usage: u8,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    broker: Child,
    /// Kills the broker and removes its folder when its input ends, which it does when this process is gone.
    guard: Child,
}

impl Process {
    fn start(mut command: Command, dir: &Path) -> Process {
        let broker = command.spawn().expect("a broker cannot be started: run deploy/prerequisites.sh");
        let guard = Command::new("sh")
            .args(["-c", "read -r end; kill -9 \"$1\"; rm -rf \"$2\"", "guard", &broker.id().to_string()])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Process { broker, guard }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The guard first, so that it never meets a number that is another process's by then.
        for process in [&mut self.guard, &mut self.broker] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Artemis {
    /// A test that failed shows what its broker said, and whether it still ran.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let status = self.process.as_mut().map(|process| process.broker.try_wait());
            eprintln!("Artemis at {}, {status:?}; what it said: {}", self.address(), self.log());
        }
    }
}

/// Sends a signal to a child that was not waited for yet.
fn signal(process_id: u32, signal: i32) {
    let id = i32::try_from(process_id).unwrap();
    // SAFETY: kill takes two numbers and touches no memory. The process is our child and not waited for yet, so the number is
    // still its own.
    let result = unsafe { libc::kill(id, signal) };
    assert_eq!(result, 0);
}

/// A port that nobody listens on at present, below those that Linux gives out by itself (from 32768), so that no
/// connection takes it while the broker is not running.
pub fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Processes begin far from each other.
        let number = std::process::id().wrapping_mul(103).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + number % COUNT).unwrap();
        if std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

impl Artemis {
    /// The user that hosts log in as.
    pub const USER: &str = "maxhost";
    /// That user's password.
    pub const PASSWORD: &str = "secret";
    /// A user with the rights of programs that send requests as messages, and his password.
    pub const CLIENT: (&str, &str) = ("client", "told");

    /// Whether Artemis is not there and cannot be fetched: a test that needs it ends then, and standard error says so.
    #[must_use]
    pub fn is_missing() -> bool {
        fetch::home().is_none()
    }

    /// Starts a broker and waits until it serves.
    pub async fn start() -> Artemis {
        Artemis::start_with(&|xml| xml).await
    }

    /// The same, with changes to its configuration.
    pub async fn start_with(edit: &Edit) -> Artemis {
        let home = tokio::task::spawn_blocking(fetch::home).await.unwrap().expect("it is there");
        // Somebody else may take the port before the broker does.
        for _ in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let mut artemis =
                Artemis { home: home.clone(), dir, port: free_port(), max_disk_usage: 100, process: None };
            artemis.write_configuration(edit);
            artemis.spawn();
            if artemis.serves().await {
                return artemis;
            }
            eprintln!("Artemis ended; what it said: {}", artemis.log());
        }
        panic!("Artemis does not start");
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The options of a host.
    #[must_use]
    pub fn options(&self) -> AmqpOptions {
        Artemis::options_at(self.address())
    }

    /// The options of a host that reaches the broker by way of another address.
    #[must_use]
    pub fn options_at(address: SocketAddr) -> AmqpOptions {
        let mut options = AmqpOptions::new(Address::parse(&format!("amqp://{address}")).unwrap());
        options.credentials = Some(Credentials::new(Artemis::USER, Artemis::PASSWORD));
        options
    }

    /// The broker's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// The number of the broker's process.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.as_ref().unwrap().broker.id()
    }

    /// Kills the broker as `kill -9` does.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks the broker to end, and waits until it has.
    pub async fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        let deadline = tokio::time::Instant::now() + END;
        while self.process.as_mut().unwrap().broker.try_wait().unwrap().is_none() {
            assert!(tokio::time::Instant::now() < deadline, "Artemis does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.process = None;
    }

    /// Starts a broker that was ended, on what it had stored, and waits until it serves.
    pub async fn restart(&mut self) {
        assert!(self.process.is_none());
        self.spawn();
        assert!(self.serves().await, "Artemis ended; what it said: {}", self.log());
    }

    /// How full the disk may be, in percent, from the next start on. With 1, every disk is too full.
    pub fn set_max_disk_usage(&mut self, percent: u8) {
        self.max_disk_usage = percent;
    }

    /// Removes everything that a broker that was ended had stored.
    pub fn wipe(&self) {
        assert!(self.process.is_none());
        std::fs::remove_dir_all(self.dir.path().join("data")).unwrap();
    }

    /// Stops the broker where it is; its connections stay open and it answers nobody.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// Lets a paused broker go on.
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: i32) {
        self::signal(self.process_id(), signal);
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log/output")).unwrap_or_default()
    }

    /// Waits until hosts can log in; false if the broker has ended.
    async fn serves(&mut self) -> bool {
        let deadline = tokio::time::Instant::now() + START;
        let options = self.options();
        loop {
            if self.process.as_mut().unwrap().broker.try_wait().unwrap().is_some() {
                return false;
            }
            if dial::connect(&options, "ready", &Heard::new()).await.is_ok() {
                return true;
            }
            assert!(tokio::time::Instant::now() < deadline, "Artemis does not serve; what it said: {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn write_configuration(&self, edit: &Edit) {
        let dir = self.dir.path();
        for name in ["etc", "log", "tmp"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        let etc = dir.join("etc");
        let given = fetch::root().join("deploy/artemis/broker.xml");
        let xml = std::fs::read_to_string(&given).unwrap_or_else(|error| panic!("{}: {error}", given.display()));
        std::fs::write(etc.join("broker.xml"), edit(xml)).unwrap();
        let bootstrap = format!(
            "<broker xmlns=\"http://activemq.apache.org/schema\"><jaas-security domain=\"activemq\"/>\
             <server configuration=\"file:{}/broker.xml\"/></broker>",
            etc.display()
        );
        std::fs::write(etc.join("bootstrap.xml"), bootstrap).unwrap();
        let login = "activemq {\n  org.apache.activemq.artemis.spi.core.security.jaas.PropertiesLoginModule required\n    \
            org.apache.activemq.jaas.properties.user=\"artemis-users.properties\"\n    \
            org.apache.activemq.jaas.properties.role=\"artemis-roles.properties\";\n};\n";
        std::fs::write(etc.join("login.config"), login).unwrap();
        let (client, told) = Artemis::CLIENT;
        let users = format!("{} = {}\n{client} = {told}\nother = other\n", Artemis::USER, Artemis::PASSWORD);
        std::fs::write(etc.join("artemis-users.properties"), users).unwrap();
        let roles = format!("maxhost = maxhost\nclients = {client}\nothers = other\n");
        std::fs::write(etc.join("artemis-roles.properties"), roles).unwrap();
        std::fs::write(
            etc.join("management.xml"),
            "<management-context xmlns=\"http://activemq.apache.org/schema\"/>\n",
        )
        .unwrap();
        let log = "rootLogger.level = WARN\nrootLogger.appenderRef.console.ref = console\n\
            logger.audit.name = org.apache.activemq.audit\nlogger.audit.level = OFF\n\
            appender.console.type = Console\nappender.console.name = console\n\
            appender.console.layout.type = PatternLayout\nappender.console.layout.pattern = %d %p %c{1}: %m%n\n";
        std::fs::write(etc.join("log4j2.properties"), log).unwrap();
    }

    fn spawn(&mut self) {
        let dir = self.dir.path();
        let output = std::fs::File::options().create(true).append(true).open(dir.join("log/output")).unwrap();
        let at = |name: &str, path: PathBuf| format!("-D{name}={}", path.display());
        let mut java = Command::new("java");
        java.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError"])
            .arg(format!("-Dlog4j2.configurationFile=file:{}", dir.join("etc/log4j2.properties").display()))
            .arg(at("java.security.auth.login.config", dir.join("etc/login.config")))
            .arg(at("artemis.home", self.home.clone()))
            .arg(at("artemis.instance", dir.to_owned()))
            .arg(at("artemis.instance.etc", dir.join("etc")))
            .arg(at("data.dir", dir.join("data")))
            .arg(at("java.io.tmpdir", dir.join("tmp")))
            .arg(format!("-Dmaxhost.port={}", self.port))
            .arg(format!("-Dmaxhost.max-disk-usage={}", self.max_disk_usage))
            .arg("-cp")
            .arg(self.home.join("lib/artemis-boot.jar"))
            .args(["org.apache.activemq.artemis.boot.Artemis", "run"])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        self.process = Some(Process::start(java, dir));
    }
}
