//! Runs the host program's commands and reads what they answer.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::{Error, Result};

/// How often a waiting loop looks.
const POLL: Duration = Duration::from_millis(5);

/// The host program: `MAXHOST_BIN`, else `maxhost` on PATH.
pub fn binary() -> PathBuf {
    std::env::var_os("MAXHOST_BIN").map_or_else(|| PathBuf::from("maxhost"), PathBuf::from)
}

/// One call of the host program.
pub struct Call {
    command: Command,
    words: String,
}

impl Call {
    /// `maxhost WORDS`, with JSON on standard output.
    pub fn new(words: &[&str]) -> Call {
        let mut command = Command::new(binary());
        command.args(words).arg("--json").stdin(Stdio::null());
        // What a test's surroundings configure is for other hosts.
        command.env_remove("MAXHOST_CONFIG").env_remove("MAXHOST_ENDPOINT");
        Call { command, words: words.join(" ") }
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Call {
        self.command.arg(argument);
        self
    }

    /// The host of this folder.
    pub fn of_host(self, folder: &Path) -> Call {
        self.arg("--config").arg(folder.join("maxhost.toml"))
    }

    /// Runs to the end; success or not.
    pub fn output(mut self, timeout: Duration) -> Result<Answer> {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.command.spawn().map_err(|error| Error::NoBinary(binary(), error))?;
        match output_within(child, timeout).map_err(Error::io(format!("run maxhost {}", self.words)))? {
            Some(output) => Ok(Answer { words: self.words, output }),
            None => Err(Error::Timeout { command: self.words, seconds: timeout.as_secs() }),
        }
    }

    pub fn spawn_with_input(mut self, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Result<Child> {
        self.command.stdin(stdin);
        self.spawn(stdout, stderr)
    }

    pub fn spawn(mut self, stdout: Stdio, stderr: Stdio) -> Result<Child> {
        self.command.stdout(stdout).stderr(stderr);
        self.command.spawn().map_err(|error| Error::NoBinary(binary(), error))
    }
}

/// What a command answered.
pub struct Answer {
    words: String,
    output: Output,
}

impl Answer {
    pub fn exit(&self) -> i32 {
        // A process that a signal ended has no code of its own.
        self.output.status.code().unwrap_or(-1)
    }

    /// Both outputs, for people.
    pub fn text(&self) -> String {
        let (out, err) = (&self.output.stdout, &self.output.stderr);
        format!("{}{}", String::from_utf8_lossy(err), String::from_utf8_lossy(out))
    }

    /// The JSON objects on standard output, one a line.
    pub fn objects(&self) -> Result<Vec<Value>> {
        let text = String::from_utf8_lossy(&self.output.stdout);
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        lines.map(|line| serde_json::from_str(line).map_err(|_| self.unexpected())).collect()
    }

    /// The last object on standard output.
    pub fn object(&self) -> Result<Value> {
        self.objects()?.pop().ok_or_else(|| self.unexpected())
    }

    /// Refuses any exit code but the ones given.
    pub fn exits_with(self, codes: &[i32]) -> Result<Answer> {
        if codes.contains(&self.exit()) { Ok(self) } else { Err(self.failure()) }
    }

    pub fn unexpected(&self) -> Error {
        Error::Answer { command: self.words.clone(), answer: self.text() }
    }

    /// The error in the last line on standard error.
    pub fn failure(&self) -> Error {
        let text = String::from_utf8_lossy(&self.output.stderr);
        let last = text.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
        let field = |name: &str| last.as_ref()?.get("error")?.get(name)?.as_str().map(str::to_owned);
        Error::Command {
            command: self.words.clone(),
            exit: self.exit(),
            code: field("code").unwrap_or_else(|| "no code".to_owned()),
            message: field("message").unwrap_or_else(|| self.text()),
            remedy: field("remedy").unwrap_or_default(),
        }
    }
}

/// The child's output when it ends in time; otherwise it is killed.
fn output_within(mut child: Child, timeout: Duration) -> std::io::Result<Option<Output>> {
    let stdout = child.stdout.take().map(read_all);
    let stderr = child.stderr.take().map(read_all);
    let Some(status) = wait_within(&mut child, timeout)? else {
        child.kill()?;
        child.wait()?;
        return Ok(None);
    };
    Ok(Some(Output { status, stdout: collect(stdout), stderr: collect(stderr) }))
}

/// Waits for the end of a process; `None` when it goes on beyond the time.
pub fn wait_within(child: &mut Child, timeout: Duration) -> std::io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is worth showing; the exit code tells the rest.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

fn collect(reader: Option<JoinHandle<Vec<u8>>>) -> Vec<u8> {
    reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
}
