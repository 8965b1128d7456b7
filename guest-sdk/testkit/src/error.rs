//! What can go wrong in a test's network.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a network could not do what the test asked. Its `Debug` is its text too, for that is what a test that returns it
/// shows.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no host program.
    #[error("cannot run the host program {0}: {1}; install maxhost so that it is on PATH, or name it in MAXHOST_BIN")]
    NoBinary(PathBuf, #[source] std::io::Error),
    /// The CorDapp does not compile.
    #[error("the CorDapp in {folder} was not built:\n{output}")]
    Build {
        /// Its crate.
        folder: PathBuf,
        /// What the build said.
        output: String,
    },
    /// The host did not come up, or is gone.
    #[error("the host is not running: {reason}\nits log:\n{log}")]
    Host {
        /// The host's reason.
        reason: String,
        /// The last lines it logged.
        log: String,
    },
    /// A command was refused or failed.
    #[error("`maxhost {command}` ended with exit code {exit}: {code}: {message} ({remedy})")]
    Command {
        /// The command's arguments.
        command: String,
        /// 2 wrong usage, 3 no such thing, 4 refused, 5 try again.
        exit: i32,
        /// The stable word for it, for example `party-not-found`.
        code: String,
        /// What was wrong.
        message: String,
        /// What to do.
        remedy: String,
    },
    /// A command did not end in time.
    #[error("`maxhost {command}` did not end within {seconds} seconds")]
    Timeout {
        /// The command's arguments.
        command: String,
        /// How long it had.
        seconds: u64,
    },
    /// A command answered something that is not what it promises.
    #[error("`maxhost {command}` answered something unexpected: {answer}")]
    Answer {
        /// The command's arguments.
        command: String,
        /// What it printed.
        answer: String,
    },
    /// The flow ended in an error.
    #[error("the flow {flow_id} failed: {failure}")]
    Flow {
        /// The flow.
        flow_id: String,
        /// How it failed.
        failure: Box<FlowFailure>,
    },
    /// No identity of the network has this name.
    #[error("no identity of this network is called {0}")]
    NoSuchIdentity(String),
    /// A file or a process.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// How it failed.
        source: std::io::Error,
    },
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// How the flow failed, when that is what happened.
    #[must_use]
    pub fn flow_failure(&self) -> Option<&FlowFailure> {
        match self {
            Error::Flow { failure, .. } => Some(failure),
            _ => None,
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}

/// The error a flow ended in, as its client sees it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FlowFailure {
    /// `flow-exception`, `unexpected-end`, `unexpected`, `illegal-argument`, `illegal-state`, `premature-close`, `killed`
    /// or `limit`.
    pub kind: String,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// The author's type of a flow exception.
    #[serde(default)]
    pub exception: Option<String>,
    /// Who sent it, when it was received.
    #[serde(default)]
    pub peer: Option<String>,
    /// Which limit was reached.
    #[serde(default)]
    pub limit: Option<String>,
}

impl fmt::Display for FlowFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(limit) = &self.limit {
            write!(f, " ({limit})")?;
        }
        if let Some(peer) = &self.peer {
            write!(f, " from {peer}")?;
        }
        write!(f, ": {}", self.message)
    }
}
