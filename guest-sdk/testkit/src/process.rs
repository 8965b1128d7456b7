//! The host's process.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::command::{Call, wait_within};
use crate::error::{Error, Result};

/// A host compiles its CorDapps before it is ready, on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// How long an orderly stop may take before it is cut short.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of the log an error shows.
const LOG_LINES: usize = 40;

/// A running host.
pub struct Host {
    child: Child,
    log: PathBuf,
}

impl Host {
    /// Starts the host of a folder, and waits until it is ready. It logs to `host.log` beside its configuration, behind
    /// what is there.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(folder: &Path) -> Result<Host> {
        let log = folder.join("host.log");
        let file = File::options().create(true).append(true).open(&log).map_err(Error::io("open the host's log"))?;
        let mut child = Call::new(&["run"]).of_host(folder).spawn(Stdio::piped(), Stdio::from(file))?;
        let stdout = child.stdout.take();
        let mut host = Host { child, log };
        let (ready, events) = mpsc::sync_channel(1);
        if let Some(stdout) = stdout {
            std::thread::spawn(move || follow(BufReader::new(stdout), &ready));
        }
        match events.recv_timeout(START_TIMEOUT) {
            Ok(()) => Ok(host),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(host.failed(format!("it was not ready within {} seconds", START_TIMEOUT.as_secs())))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(host.failed("it ended before it was ready".to_owned())),
        }
    }

    /// Ends it as a power cut would.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().and_then(|()| self.child.wait()).map_err(Error::io("kill the host"))?;
        Ok(())
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        tail(&self.log)
    }

    fn failed(&mut self, reason: String) -> Error {
        // It is of no use any more; the log has the reason.
        let _ = self.child.kill();
        let _ = self.child.wait();
        Error::Host { reason, log: tail(&self.log) }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        terminate(&self.child);
        if !matches!(wait_within(&mut self.child, STOP_TIMEOUT), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Tells when the host is ready, and reads everything else away so that the host never waits for its reader.
fn follow(lines: impl BufRead, ready: &mpsc::SyncSender<()>) {
    for line in lines.lines().map_while(std::io::Result::ok) {
        let event: Option<Value> = serde_json::from_str(&line).ok();
        if event.is_some_and(|event| event["event"] == "ready") {
            // Nobody listens any more when the wait for it has timed out.
            let _ = ready.try_send(());
        }
    }
}

#[cfg(unix)]
fn terminate(child: &Child) {
    if let Ok(pid) = libc::pid_t::try_from(child.id()) {
        // SAFETY: sends a signal; touches no memory. The process is ours and was not waited for, so the number is its.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

#[cfg(not(unix))]
fn terminate(_child: &Child) {}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}
