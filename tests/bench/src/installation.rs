//! A development network in a folder, and the host that runs over it as a process of its own.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a host may take to be ready.
const START: Duration = Duration::from_secs(60);
/// How long it may take to stop in order.
const STOP: Duration = Duration::from_secs(15);

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The host program: `MAXHOST_BIN`, else the one that was built for release.
#[must_use]
pub fn binary() -> PathBuf {
    std::env::var_os("MAXHOST_BIN").map_or_else(|| repository().join("target/release/maxhost"), PathBuf::from)
}

/// Where `make build` leaves the components of the sample CorDapps.
#[must_use]
pub fn cordapps() -> PathBuf {
    std::env::var_os("MAXHOST_CORDAPPS").map_or_else(|| repository().join("target/cordapps"), PathBuf::from)
}

/// A folder made by `maxhost init`.
#[derive(Debug, Clone)]
pub struct Installation {
    root: PathBuf,
}

impl Installation {
    /// Makes one with the four identities of every development network and so many more, all of which run all sample
    /// CorDapps. Repeated over an unfinished folder it goes on.
    ///
    /// # Errors
    /// The program is missing, or says no: with its words.
    pub fn init(root: &Path, more: u32) -> io::Result<Installation> {
        let mut command = Command::new(binary());
        command.arg("init").arg(root).arg("--cordapps").arg(cordapps()).env_remove("MAXHOST_CONFIG");
        if more > 0 {
            command.args(["--count", &more.to_string()]);
        }
        let output = command.output()?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        Ok(Installation { root: root.to_owned() })
    }

    /// One that was made before.
    #[must_use]
    pub fn existing(root: &Path) -> Option<Installation> {
        root.join("maxhost.toml").is_file().then(|| Installation { root: root.to_owned() })
    }

    /// Its folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Forgets everything that its hosts have written, so that the next one begins anew.
    ///
    /// # Errors
    /// The folder cannot be removed.
    pub fn forget(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(self.root.join("data")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => std::fs::create_dir_all(self.root.join("data")),
        }
    }

    /// Forgets the flows and keeps the compiled code.
    ///
    /// # Errors
    /// The database cannot be removed.
    pub fn forget_flows(&self) -> io::Result<()> {
        for file in ["maxhost.db", "maxhost.db-wal", "maxhost.db-shm"] {
            match std::fs::remove_file(self.root.join("data").join(file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Starts the host with these overrides (`section.key=value`) without waiting for it.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn launch<S: AsRef<OsStr>>(&self, settings: &[S]) -> io::Result<Launched> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.root.join("host.log"))?;
        let mut command = Command::new(binary());
        command.args(["run", "--json", "--config"]).arg(self.root.join("maxhost.toml"));
        for setting in settings {
            command.arg("--set").arg(setting);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        command.env_remove("MAXHOST_CONFIG").env_remove("MAXHOST_ENDPOINT");
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no standard output"))?;
        let (sender, ready) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { return };
                let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
                if event.get("event").and_then(Value::as_str) == Some("ready") {
                    // Only the first is waited for; the rest is read so that the host is never held up.
                    let _ = sender.try_send(event);
                }
            }
        });
        Ok(Launched { child: Some(child), ready, since: Instant::now() })
    }

    /// Starts the host and waits until it is ready.
    ///
    /// # Errors
    /// It cannot be started, or is not ready in time: with the end of its log.
    pub fn start<S: AsRef<OsStr>>(&self, settings: &[S]) -> io::Result<HostProcess> {
        let mut launched = self.launch(settings)?;
        launched.wait(START)?.ok_or_else(|| {
            let log = std::fs::read_to_string(self.root.join("host.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(20)..].join("\n");
            io::Error::other(format!("the host was not ready within {} s:\n{tail}", START.as_secs()))
        })
    }
}

/// A host that may not be ready yet. Dropping it kills it.
#[derive(Debug)]
pub struct Launched {
    child: Option<Child>,
    ready: mpsc::Receiver<Value>,
    since: Instant,
}

impl Launched {
    /// Waits for it to be ready; `None` if it is not by then, or has ended.
    ///
    /// # Errors
    /// It says that it is ready and not where.
    pub fn wait(&mut self, patience: Duration) -> io::Result<Option<HostProcess>> {
        let Ok(event) = self.ready.recv_timeout(patience) else { return Ok(None) };
        let start = self.since.elapsed();
        let address = event.get("grpc").and_then(Value::as_str);
        let address = address.ok_or_else(|| io::Error::other("ready without an address"))?.to_owned();
        Ok(self.child.take().map(|child| HostProcess { child, address, start }))
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A running host. Dropping it kills it.
#[derive(Debug)]
pub struct HostProcess {
    child: Child,
    address: String,
    start: Duration,
}

impl HostProcess {
    /// Where the host listens, `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From the start of the process until it was ready.
    #[must_use]
    pub fn start_time(&self) -> Duration {
        self.start
    }

    /// Ends it as a power cut would.
    ///
    /// # Errors
    /// The system refuses.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Ends it in order, and says how long that took.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn stop(mut self) -> io::Result<Duration> {
        let began = Instant::now();
        let id = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        // SAFETY: sends a signal, touches no memory. The process is ours and was not waited for, so the id is its.
        unsafe { libc::kill(id, libc::SIGTERM) };
        while began.elapsed() < STOP {
            if self.child.try_wait()?.is_some() {
                return Ok(began.elapsed());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(io::Error::other(format!("the host did not stop within {} s", STOP.as_secs())))
    }

    /// Computing time it has used so far, user and system (proc(5), stat).
    #[must_use]
    pub fn cpu(&self) -> Duration {
        cpu_of(&self.child.id().to_string())
    }

    /// Resident memory, bytes (proc(5), status).
    #[must_use]
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// Resident memory that is no file's, bytes.
    #[must_use]
    pub fn anonymous(&self) -> u64 {
        self.memory("RssAnon:")
    }

    fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Computing time of a process (`self` or its id), user and system, of all its threads. Granularity 10 ms.
#[must_use]
pub fn cpu_of(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The program's name, in brackets, may have blanks in it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    // SAFETY: asks for a constant.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100).max(1);
    Duration::from_micros((ticks(11) + ticks(12)) * 1_000_000 / per_second)
}
