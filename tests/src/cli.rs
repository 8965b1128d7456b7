//! The command line, as a program uses it.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// No command of these suites takes longer, on a busy machine.
const LONGEST: Duration = Duration::from_secs(120);

/// The folder that holds what was built.
#[must_use]
pub fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")
}

/// The host program.
#[must_use]
pub fn binary() -> PathBuf {
    let file = std::env::var_os("MAXHOST_BIN").map_or_else(|| target().join("release/maxhost"), PathBuf::from);
    assert!(file.is_file(), "there is no {}: run `make build`, or name the program in MAXHOST_BIN", file.display());
    file
}

/// The folder of the sample CorDapps.
#[must_use]
pub fn cordapps() -> PathBuf {
    std::env::var_os("MAXHOST_CORDAPPS").map_or_else(|| target().join("cordapps"), PathBuf::from)
}

/// A command of the host program that nothing around the test configures.
#[must_use]
pub fn command(words: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(binary());
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MAXHOST_")) {
        command.env_remove(variable);
    }
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end.
#[must_use]
pub fn run(words: &[impl AsRef<OsStr>]) -> Answer {
    answer(command(words), None)
}

/// Runs a prepared command to its end; `input` is its standard input.
#[must_use]
pub fn answer(mut command: Command, input: Option<&str>) -> Answer {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().expect("the host program runs");
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(input.as_bytes()).expect("the command reads its input");
    }
    let (out, err) = (child.stdout.take().map(read_all), child.stderr.take().map(read_all));
    let status = wait(&mut child, LONGEST).unwrap_or_else(|| {
        let _ = child.kill();
        panic!("{command:?} did not end within {LONGEST:?}")
    });
    let text = |reader: Option<JoinHandle<String>>| reader.map(|reader| reader.join().unwrap()).unwrap_or_default();
    Answer { words: format!("{command:?}"), exit: status.code().unwrap_or(-1), out: text(out), err: text(err) }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("output can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for the end of a process; `None` if it goes on beyond the time.
pub fn wait(child: &mut Child, time: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + time;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    words: String,
    /// Its exit code; -1 if a signal ended it.
    pub exit: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Answer {
    /// Insists on success.
    #[must_use]
    pub fn ok(self) -> Answer {
        assert_eq!(self.exit, 0, "{self}");
        self
    }

    /// Insists on this exit code and error code; gives the error object.
    pub fn fails(&self, exit: i32, code: &str) -> Value {
        let error = self.error();
        assert_eq!((self.exit, error["code"].as_str()), (exit, Some(code)), "{self}");
        for field in ["message", "remedy"] {
            assert!(error[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {self}");
        }
        assert!(error["details"].is_object(), "{self}");
        error
    }

    /// The objects on standard output, one a line.
    #[must_use]
    pub fn objects(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{self}"))).collect()
    }

    /// The only object on standard output.
    #[must_use]
    pub fn object(&self) -> Value {
        let mut objects = self.objects();
        assert_eq!(objects.len(), 1, "{self}");
        objects.remove(0)
    }

    /// The error in the last line on standard error.
    #[must_use]
    pub fn error(&self) -> Value {
        let last = self.err.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
        last.unwrap_or_else(|| panic!("no error object: {self}"))["error"].clone()
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> exit {}\n--- out\n{}\n--- err\n{}", self.words, self.exit, self.out, self.err)
    }
}
