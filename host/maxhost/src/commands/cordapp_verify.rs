//! `maxhost cordapp verify FILE`: asks contract code about transactions. The test kit asks it: one engine, the network's
//! limits, and the component that will be signed.
//!
//! A request is a line of JSON: `{"verify": {"contract": NAME, "publisher": HEX or null}, "transaction": HEX}`. An answer is
//! a line too: `verdict` (`accepted` `rejected` `out-of-fuel` `over-memory`), `fault`, `fuel`, `fuel_limit` and `memory`.

use std::io::{BufRead, Write};
use std::path::Path;

use maxhost_ledger::tx::{ContractId, ContractLimits, Name};
use maxhost_model::{Code, Problem, PublicKey};
use maxhost_sandbox::contract::{ContractComponent, ContractEngine, ContractFault, Verdict};
use serde::Deserialize;
use serde_json::{Value, json};

use super::cordapp::{Inspected, inspect_any};
use super::cordapp_contract;
use crate::context::Outcome;
use crate::output::written;

/// The longest request, bytes: a transaction in hexadecimal.
const LONGEST: u64 = 64 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    verify: Contract,
    transaction: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Contract {
    contract: String,
    publisher: Option<String>,
}

/// Answers until standard input ends.
pub fn execute(file: &Path) -> Outcome {
    let (_, Inspected::Contract(component)) = inspect_any(file, None)? else {
        let message = format!("{} holds flows, and only contracts judge transactions", file.display());
        return Err(Problem::new(Code::ComponentWrongWorld, message));
    };
    let engine = cordapp_contract::engine()?;
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let unreadable =
        |error: std::io::Error| Problem::new(Code::FileUnreadable, format!("cannot read standard input: {error}"));
    let mut line = String::new();
    loop {
        line.clear();
        if std::io::Read::take(&mut input, LONGEST).read_line(&mut line).map_err(unreadable)? == 0 {
            return Ok(0);
        }
        let answer = answer(engine, &component, &line)?;
        written(writeln!(output, "{answer}").and_then(|()| output.flush()))?;
    }
}

fn wrong(message: impl Into<String>) -> Problem {
    Problem::new(Code::ArgumentsInvalid, message)
}

fn answer(engine: &ContractEngine, component: &ContractComponent, line: &str) -> Result<Value, Problem> {
    let request: Request = serde_json::from_str(line).map_err(|error| wrong(format!("a request: {error}")))?;
    let bytes = |hex: &str| hex::decode(hex).map_err(|_| wrong("a request: bytes are written in hexadecimal"));
    let publisher = match &request.verify.publisher {
        Some(key) => Some(PublicKey::from_spki(&bytes(key)?).map_err(|error| wrong(error.to_string()))?),
        None => None,
    };
    let name = Name::new(request.verify.contract).map_err(|error| wrong(error.to_string()))?;
    let contract = ContractId { publisher, name };
    let limits = ContractLimits::V1;
    let (verdict, usage) = engine
        .verify_by_contract(component, &contract, &bytes(&request.transaction)?, limits)
        .map_err(|error| Problem::new(Code::SandboxUnavailable, error.to_string()))?;
    let (word, fault) = match verdict {
        Verdict::Accepted => ("accepted", None),
        Verdict::Rejected { fault, .. } => ("rejected", Some(fault)),
        Verdict::OutOfFuel { .. } => ("out-of-fuel", None),
        Verdict::OverMemory { .. } => ("over-memory", None),
        Verdict::Refused(refused) => return Err(wrong(refused.to_string())),
    };
    let fault = fault.map(|ContractFault { code, message }| json!({"code": code, "message": message}));
    Ok(json!({
        "verdict": word,
        "fault": fault,
        "fuel": usage.fuel,
        "fuel_limit": limits.fuel,
        "memory": usage.memory,
    }))
}
