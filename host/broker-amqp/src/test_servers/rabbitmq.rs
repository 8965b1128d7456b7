//! Real RabbitMQ brokers on loopback, for tests: the one that the distribution has, with the files of `deploy/rabbitmq`, in a
//! temporary folder and on free ports.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::{END, Process, START, fetch, free_port, signal};
use crate::heard::Heard;
use crate::management::rabbitmq::http::Http;
use crate::{Address, AmqpOptions, Credentials, ManagementAddress, dial};

/// Where packages of distributions put it.
const HOMES: &str = "/usr/lib/rabbitmq/lib";
/// A user who may do everything, and his password.
const ADMIN: (&str, &str) = ("admin", "hidden");

/// A running RabbitMQ.
#[derive(Debug)]
pub struct RabbitMq {
    home: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    management: u16,
    distribution: u16,
    names: u16,
    process: Option<Process>,
    /// The server of names, which RabbitMQ would start for itself and leave behind.
    _epmd: Process,
}

impl Drop for RabbitMq {
    /// A test that failed shows what its broker said.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("RabbitMQ at {}; what it said: {}", self.address(), self.log());
        }
    }
}

fn home() -> Option<PathBuf> {
    let homes = std::fs::read_dir(HOMES).ok()?.flatten().map(|entry| entry.path());
    homes.filter(|home| home.join("sbin/rabbitmq-server").is_file()).max()
}

impl RabbitMq {
    /// The user that hosts log in as, and his password.
    pub const USER: (&str, &str) = ("maxhost", "secret");

    /// Whether RabbitMQ is not installed: a test that needs it ends then, and standard error says so.
    #[must_use]
    pub fn is_missing() -> bool {
        let is_missing = home().is_none();
        if is_missing {
            let _ = writeln!(
                std::io::stderr(),
                "RabbitMQ is not installed, and what needs it is SKIPPED: run deploy/prerequisites.sh"
            );
        }
        is_missing
    }

    /// Starts a broker and waits until it serves.
    pub async fn start() -> RabbitMq {
        // Somebody else may take a port before the broker does.
        for _ in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let names = free_port();
            let mut epmd = Command::new("epmd");
            epmd.args(["-address", "127.0.0.1", "-port", &names.to_string()]);
            epmd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let (port, management, distribution) = (free_port(), free_port(), free_port());
            let _epmd = Process::start(epmd, dir.path());
            let home = home().expect("it is there");
            let mut rabbit = RabbitMq { home, dir, port, management, distribution, names, process: None, _epmd };
            rabbit.write_configuration();
            rabbit.spawn();
            if rabbit.serves().await {
                return rabbit;
            }
            eprintln!("RabbitMQ ended; what it said: {}", rabbit.log());
        }
        panic!("RabbitMQ does not start");
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Where its management is, as a host is told.
    #[must_use]
    pub fn management(&self) -> String {
        format!("http://127.0.0.1:{}", self.management)
    }

    /// The options of a host.
    #[must_use]
    pub fn options(&self) -> AmqpOptions {
        self.options_of(RabbitMq::USER)
    }

    fn options_of(&self, (user, password): (&str, &str)) -> AmqpOptions {
        let mut options = AmqpOptions::new(Address::parse(&format!("amqp://{}", self.address())).unwrap());
        options.credentials = Some(Credentials::new(user, password));
        options.management = Some(ManagementAddress::parse(&self.management()).unwrap());
        options
    }

    /// Puts, posts or deletes something by way of the management, as a user who may do everything; what was answered.
    pub async fn manage(&self, method: &str, path: &str, value: &Value) -> Value {
        let options = self.options_of(ADMIN);
        let http = Http::new(&options, options.management.as_ref().unwrap()).unwrap();
        let answer = http.ask(method.parse().unwrap(), path, value.to_string().into()).await.unwrap();
        assert!(answer.status.is_success(), "{}", answer.reason());
        answer.value
    }

    /// Kills the broker as `kill -9` does.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks the broker to end, and waits until it has.
    pub async fn stop(&mut self) {
        let process = self.process.as_mut().unwrap();
        signal(process.broker.id(), libc::SIGTERM);
        let deadline = tokio::time::Instant::now() + END;
        while process.broker.try_wait().unwrap().is_none() {
            assert!(tokio::time::Instant::now() < deadline, "RabbitMQ does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.process = None;
    }

    /// Starts a broker that was ended, on what it had stored, and waits until it serves.
    pub async fn restart(&mut self) {
        assert!(self.process.is_none());
        self.spawn();
        assert!(self.serves().await, "RabbitMQ ended; what it said: {}", self.log());
    }

    /// How much of the disk must be free, from the next start on.
    pub fn set_disk_free_limit(&self, limit: &str) {
        let path = self.dir.path().join("rabbitmq.conf");
        let set = |line: &str| match line.starts_with("disk_free_limit") {
            true => format!("disk_free_limit.absolute = {limit}\n"),
            false => format!("{line}\n"),
        };
        let text: String = std::fs::read_to_string(&path).unwrap().lines().map(set).collect();
        std::fs::write(path, text).unwrap();
    }

    fn write_configuration(&self) {
        let dir = self.dir.path();
        let given = fetch::root().join("deploy/rabbitmq");
        let read = |name: &str| std::fs::read_to_string(given.join(name)).unwrap();
        let configuration = read("rabbitmq.conf")
            .replace("127.0.0.1:5672", &self.address().to_string())
            .replace("management.tcp.port = 15672", &format!("management.tcp.port = {}", self.management));
        let definitions = format!("load_definitions = {}\n", dir.join("definitions.json").display());
        std::fs::write(dir.join("rabbitmq.conf"), configuration + &definitions).unwrap();
        std::fs::write(dir.join("enabled_plugins"), read("enabled_plugins")).unwrap();
        let mut definitions: Value = serde_json::from_str(&read("definitions.json")).unwrap();
        let (name, password) = ADMIN;
        definitions["users"].as_array_mut().unwrap().push(json!({
            "name": name, "password": password, "tags": ["administrator"],
        }));
        definitions["permissions"].as_array_mut().unwrap().push(json!({
            "user": name, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*",
        }));
        std::fs::write(dir.join("definitions.json"), definitions.to_string()).unwrap();
        // No test depends on the machine's disk.
        self.set_disk_free_limit("1MB");
    }

    fn spawn(&mut self) {
        let dir = self.dir.path();
        let output = std::fs::File::options().create(true).append(true).open(dir.join("output")).unwrap();
        let mut server = Command::new(self.home.join("sbin/rabbitmq-server"));
        server
            .env("HOME", dir)
            // The script becomes the broker then, instead of waiting for it.
            .env("RUNNING_UNDER_SYSTEMD", "yes")
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", dir.join("data"))
            .env("RABBITMQ_LOG_BASE", dir.join("log"))
            .env("RABBITMQ_PID_FILE", dir.join("pid"))
            .env("RABBITMQ_NODENAME", format!("test{}@localhost", self.port))
            .env("RABBITMQ_DIST_PORT", self.distribution.to_string())
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none")
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.names.to_string())
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        self.process = Some(Process::start(server, dir));
    }

    /// Waits until hosts can log in and ask its management; false if the broker has ended.
    async fn serves(&mut self) -> bool {
        let deadline = tokio::time::Instant::now() + START;
        let options = self.options();
        loop {
            if self.process.as_mut().unwrap().broker.try_wait().unwrap().is_some() {
                return false;
            }
            let http = Http::new(&options, options.management.as_ref().unwrap()).unwrap();
            if dial::connect(&options, "ready", &Heard::new()).await.is_ok() && http.get("overview").await.is_ok() {
                return true;
            }
            assert!(tokio::time::Instant::now() < deadline, "RabbitMQ does not serve; what it said: {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn log(&self) -> String {
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        let log = self.dir.path().join(format!("log/test{}@localhost.log", self.port));
        read(&self.dir.path().join("output")) + &read(&log)
    }
}
