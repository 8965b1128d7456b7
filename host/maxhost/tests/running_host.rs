//! `maxhost run` as an operator meets it: starting, changing folders under it, stopping. No flow runs here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

fn maxhost(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maxhost"));
    for variable in ["MAXHOST_CONFIG", "MAXHOST_ENDPOINT", "MAXHOST_PASSPHRASE"] {
        command.env_remove(variable);
    }
    command.current_dir(dir).stdin(Stdio::null());
    command
}

struct Network {
    _files: TempDir,
    dir: PathBuf,
}

impl Network {
    fn new() -> Network {
        let files = tempfile::tempdir().unwrap();
        let dir = files.path().join("net");
        let made = maxhost(files.path()).args(["init", "net"]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Network { _files: files, dir }
    }

    fn call(&self, words: &[&str]) -> Output {
        maxhost(&self.dir).args(words).arg("--json").output().unwrap()
    }

    fn object(&self, words: &[&str]) -> Value {
        let output = self.call(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The exit code and the error's code.
    fn refusal(&self, words: &[&str]) -> (i32, String) {
        let output = self.call(words);
        let text = String::from_utf8_lossy(&output.stderr);
        let last: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_default();
        (output.status.code().unwrap(), last["error"]["code"].as_str().unwrap_or_default().to_owned())
    }

    fn state(&self, name: &str) -> Value {
        let output = self.call(&["identity", "show", name]);
        serde_json::from_slice::<Value>(&output.stdout).map_or(Value::Null, |identity| identity["state"].clone())
    }

    fn eventually(&self, what: &str, condition: impl Fn(&Network) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "not in time: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

struct Host {
    child: Child,
    events: Receiver<Value>,
    ready: Value,
}

impl Host {
    fn start(network: &Network, words: &[&str]) -> Host {
        let mut child = maxhost(&network.dir)
            .args(["run", "--json"])
            .args(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (sender, events) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        let ready: Value = events.recv_timeout(PATIENCE).unwrap();
        assert_eq!(ready["event"], "ready");
        Host { child, events, ready }
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: sends a signal to our own child, which has not been waited for, so that its number is still its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as libc::pid_t, signal) }, 0);
    }

    /// Waits for the end; gives the exit code and all that was told.
    fn end(mut self) -> (Option<i32>, Vec<Value>) {
        let code = self.child.wait().unwrap().code();
        (code, self.events.iter().collect())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let network = Network::new();
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for format in ["text", "json"] {
        let mut host =
            maxhost(&network.dir).args(["run", "--log-format", format]).stdout(full()).stderr(full()).spawn().unwrap();
        network.eventually("an answer", |network| network.call(&["status"]).status.success());
        // A manifest that is broken is logged.
        std::fs::write(network.dir.join("identities/odd.toml"), "odd = 1\n").unwrap();
        network.eventually("its quarantine", |network| network.state("odd.toml") == "quarantined");
        std::fs::remove_file(network.dir.join("identities/odd.toml")).unwrap();
        network.eventually("its end", |network| network.state("odd.toml").is_null());
        // SAFETY: sends a signal to our own child, which has not been waited for, so that its number is still its own.
        assert_eq!(unsafe { libc::kill(host.id() as libc::pid_t, libc::SIGTERM) }, 0);
        assert_eq!(host.wait().unwrap().code(), Some(0), "{format}");
    }
    let usage = maxhost(&network.dir).args(["nonsense", "--json"]).stderr(full()).status().unwrap();
    assert_eq!(usage.code(), Some(2));
}

#[test]
fn it_says_first_that_it_is_ready_and_stops_in_order_on_either_signal() {
    let network = Network::new();
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let host = Host::start(&network, &[]);
        assert_eq!(host.ready["identities"], 4);
        assert!(host.ready["start_ms"].is_u64());
        let grpc = host.ready["grpc"].as_str().unwrap().to_owned();
        let endpoint = network.dir.join("data/endpoint");
        assert_eq!(std::fs::read_to_string(&endpoint).unwrap(), format!("http://{grpc}\n"));
        let status = network.object(&["status"]);
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
        assert!(status["rss_bytes"].as_u64().unwrap() > 1_000_000);
        let asked = Instant::now();
        host.signal(signal);
        let (code, events) = host.end();
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        assert_eq!(code, Some(0));
        assert_eq!(events.last().unwrap()["event"], "stopped");
        assert!(!endpoint.exists());
    }
}

#[test]
fn identities_come_and_go_while_it_runs() {
    let network = Network::new();
    let host = Host::start(&network, &[]);
    let new = network.object(&["identity", "new", "O=Dave, L=Oslo, C=NO"]);
    assert_eq!((&new["name"], &new["state"]), (&"O=Dave, L=Oslo, C=NO".into(), &"cold".into()));
    // A broken manifest takes its identity away, or is shown by its file; the others stay.
    let manifests = network.dir.join("identities");
    std::fs::write(manifests.join("broken.toml"), "name = \"x\"\n").unwrap();
    network.eventually("the broken manifest is quarantined", |network| network.state("broken.toml") == "quarantined");
    let shown = network.object(&["identity", "show", "broken.toml"]);
    assert!(shown["reason"].as_str().unwrap().contains("broken.toml:1"), "{shown}");
    assert_ne!(network.state("Alice"), "quarantined");
    // Mended, it is an identity.
    let text = std::fs::read_to_string(manifests.join("dave.toml")).unwrap();
    std::fs::remove_file(manifests.join("dave.toml")).unwrap();
    std::fs::write(manifests.join("broken.toml"), text).unwrap();
    network.eventually("the mended manifest is taken", |network| {
        network.state("Dave") == "cold" && network.state("broken.toml") == Value::Null
    });
    let removed = network.object(&["identity", "remove", "Dave", "--yes"]);
    assert_eq!(removed["removed"], true);
    assert_eq!(network.refusal(&["identity", "show", "Dave"]), (3, "identity-not-found".to_owned()));
    let gone = host.events.try_iter().any(|event| event["event"] == "identity-removed");
    assert!(gone, "nothing was told of the removal");
}

#[test]
fn a_second_host_is_refused_and_the_first_unharmed() {
    let network = Network::new();
    let _host = Host::start(&network, &[]);
    assert_eq!(network.refusal(&["run"]), (4, "data-locked".to_owned()));
    assert_eq!(network.object(&["status"])["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn what_keeps_it_from_starting_is_told() {
    let network = Network::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("rpc.listen={}", taken.local_addr().unwrap());
    assert_eq!(network.refusal(&["run", "--set", &listen]), (4, "port-in-use".to_owned()));
    assert_eq!(network.refusal(&["run", "--set", "rpc.listen=0.0.0.0:0"]), (4, "listen-refused".to_owned()));
    assert_eq!(network.refusal(&["run", "--set", "rpc.listn=x"]), (4, "config-invalid".to_owned()));
    let passphrase = network.dir.join("keys/passphrase");
    let right = std::fs::read(&passphrase).unwrap();
    std::fs::write(&passphrase, "wrong\n").unwrap();
    assert_eq!(network.refusal(&["run"]), (4, "passphrase-wrong".to_owned()));
    std::fs::remove_file(&passphrase).unwrap();
    assert_eq!(network.refusal(&["run"]), (4, "passphrase-missing".to_owned()));
    std::fs::write(&passphrase, right).unwrap();
    // Nothing of that has done harm.
    Host::start(&network, &[]).signal(libc::SIGTERM);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let network = Network::new();
    let host = Host::start(&network, &[]);
    host.signal(libc::SIGTERM);
    host.signal(libc::SIGTERM);
    let asked = Instant::now();
    let (code, _) = host.end();
    // Either it was quick enough to stop in order, or the second signal cut it short.
    assert!(matches!(code, Some(0 | 130)), "{code:?}");
    assert!(asked.elapsed() < Duration::from_secs(2));
}

#[test]
fn settings_come_from_the_environment_too() {
    let network = Network::new();
    let refused =
        maxhost(&network.dir).args(["run", "--json"]).env("MAXHOST_RPC_LISTEN", "192.0.2.1:1").output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("listen-refused"));
}
