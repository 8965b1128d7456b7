//! A host as a process of its own.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use maxhost_rpc::Client;
use serde_json::Value;

use crate::cli;

/// A host compiles its CorDapps before it is ready, on a busy machine.
const START: Duration = Duration::from_secs(90);
/// How long a single call may take, on a busy machine.
const CALL: Duration = Duration::from_secs(30);

/// A running host. It is killed, as by a power cut, when dropped.
pub struct Host {
    child: Child,
    events: Arc<Events>,
    log: PathBuf,
    client: Client,
    ready: Value,
}

#[derive(Default)]
struct Events {
    told: Mutex<(Vec<Value>, bool)>,
    news: Condvar,
}

impl Events {
    fn follow(self: Arc<Events>, lines: impl BufRead) {
        for line in lines.lines().map_while(Result::ok) {
            let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
            self.told.lock().expect("no reader panics").0.push(event);
            self.news.notify_all();
        }
        self.told.lock().expect("no reader panics").1 = true;
        self.news.notify_all();
    }

    fn wait(&self, time: Duration, fits: impl Fn(&Value) -> bool) -> Option<Value> {
        let deadline = Instant::now() + time;
        let mut told = self.told.lock().expect("no reader panics");
        loop {
            if let Some(event) = told.0.iter().find(|event| fits(event)) {
                return Some(event.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if told.1 || left.is_zero() {
                return None;
            }
            told = self.news.wait_timeout(told, left).expect("no reader panics").0;
        }
    }
}

impl Host {
    /// Starts it; its log goes to `host.log` in the folder, behind what is there.
    #[must_use]
    pub fn up(mut command: Command, folder: &Path) -> Host {
        Host::begin(&mut command, folder).unwrap_or_else(|log| panic!("the host did not come up; its log:\n{log}"))
    }

    /// As [`Host::up`]; `None` if it ends instead.
    #[must_use]
    pub fn try_up(command: &mut Command, folder: &Path) -> Option<Host> {
        Host::begin(command, folder).ok()
    }

    fn begin(command: &mut Command, folder: &Path) -> Result<Host, String> {
        let log = folder.join("host.log");
        let file = File::options().create(true).append(true).open(&log).expect("a log can be written");
        let mut child = command.stderr(Stdio::from(file)).spawn().expect("the host program runs");
        let events = Arc::new(Events::default());
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let follower = events.clone();
        std::thread::spawn(move || follower.follow(lines));
        let Some(ready) = events.wait(START, |event| event["event"] == "ready") else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(std::fs::read_to_string(&log).unwrap_or_default());
        };
        // A host whose only role is flows listens nowhere; whoever calls it all the same is told that nobody answers.
        let endpoint = ready["grpc"].as_str().unwrap_or("127.0.0.1:1").to_owned();
        Ok(Host { child, events, log, client: Client::at(endpoint, CALL), ready })
    }

    /// Its client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its event `ready`.
    #[must_use]
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// Process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for an event; fails the test if it does not come.
    pub fn event(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.events
            .wait(CALL, |event| event["event"] == what && fits(event))
            .unwrap_or_else(|| panic!("no such event {what}; the log:\n{}", self.log()))
    }

    /// The last of what it has logged, long lines cut short.
    #[must_use]
    pub fn log(&self) -> String {
        let text =
            std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(|line| line.chars().take(300).collect()).collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Ends it as a power cut would.
    pub fn kill_9(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Asks it to stop, and says how long that took. Fails the test if it does not end well.
    pub fn stop(mut self) -> Duration {
        let begun = Instant::now();
        let pid = libc::pid_t::try_from(self.child.id()).expect("process numbers are small");
        // SAFETY: sends a signal; touches no memory. The process is ours and was not waited for, so the number is its.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let status = cli::wait(&mut self.child, Duration::from_secs(20)).expect("the host stops");
        let took = begun.elapsed();
        assert!(status.success(), "the host ended with {status}; its log:\n{}", self.log());
        took
    }

    /// Waits until the process ends by itself; its exit code. Fails the test if it does not end.
    pub fn ends(mut self) -> i32 {
        let status =
            cli::wait(&mut self.child, CALL).unwrap_or_else(|| panic!("the host goes on; its log:\n{}", self.log()));
        status.code().unwrap_or(-1)
    }

    /// Whether the process is there.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be looked at").is_none()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the end of the host's log:\n{}", self.log());
        }
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The most memory that a process has had since this was last asked (proc(5), clear_refs and status), bytes.
#[must_use]
pub fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    kib << 10
}
