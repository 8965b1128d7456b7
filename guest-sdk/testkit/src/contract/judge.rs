//! The component, asked through `maxhost cordapp verify`.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use maxhost_contract::ContractId;
use serde::Deserialize;
use serde_json::json;

use crate::command::Call;
use crate::error::{Error, Result};

/// A process that judges, until it is dropped.
pub struct Judge {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Answer {
    verdict: String,
    fault: Option<Fault>,
    fuel: u64,
    fuel_limit: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Fault {
    code: String,
    message: String,
}

impl Answer {
    /// The code of what is wrong; none if nothing is.
    pub fn code(&self) -> Option<&str> {
        match &self.fault {
            Some(fault) => Some(&fault.code),
            None if self.verdict == "accepted" => None,
            None => Some(&self.verdict),
        }
    }

    /// How much of the network's fuel was used, between 0 and 1.
    #[allow(clippy::cast_precision_loss)]
    pub fn fuel_share(&self) -> f64 {
        self.fuel as f64 / self.fuel_limit as f64
    }
}

impl Judge {
    /// Starts the process over a component.
    pub fn start(component: &Path) -> Result<Judge> {
        let call = Call::new(&["cordapp", "verify"]).arg(component);
        let mut child = call.spawn_with_input(Stdio::piped(), Stdio::piped(), Stdio::inherit())?;
        let requests = child.stdin.take();
        let answers = child.stdout.take().ok_or_else(|| ended("it has no standard output"))?;
        Ok(Judge { child, requests, answers: BufReader::new(answers) })
    }

    /// Asks one contract about a transaction.
    pub fn ask(&mut self, contract: &ContractId, transaction: &[u8]) -> Result<Answer> {
        let publisher = contract.publisher.as_ref().map(|key| hex(key.spki()));
        let request =
            json!({"verify": {"contract": contract.name, "publisher": publisher}, "transaction": hex(transaction)});
        let requests = self.requests.as_mut().ok_or_else(|| ended("it has no standard input"))?;
        writeln!(requests, "{request}").and_then(|()| requests.flush()).map_err(Error::io("ask the component"))?;
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(Error::io("hear the component"))?;
        serde_json::from_str(&line).map_err(|_| ended(&line))
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        // It ends by itself when its input does; killing makes sure of it, and a test has nobody to tell.
        drop(self.requests.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ended(answer: &str) -> Error {
    Error::Answer { command: "cordapp verify".to_owned(), answer: answer.to_owned() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
