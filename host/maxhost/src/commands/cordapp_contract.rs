//! Contracts, as `maxhost cordapp` looks at them and signs them.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use maxhost_flows::COMPILED_CONTRACTS;
use maxhost_ledger::attachment;
use maxhost_ledger::attachment::SignedCode;
use maxhost_model::text::one_line;
use maxhost_model::{Code, Problem};
use maxhost_pki::PrivateKey;
use maxhost_sandbox::contract::{ContractComponent, ContractEngine};
use serde_json::{Value, json};

use crate::units::show_size;

/// The engine of this process: it keeps nothing on disk.
///
/// # Errors
/// The engine cannot be set up.
pub fn engine() -> Result<&'static ContractEngine, Problem> {
    static ENGINE: OnceLock<ContractEngine> = OnceLock::new();
    if let Some(engine) = ENGINE.get() {
        return Ok(engine);
    }
    let engine = ContractEngine::new(None)?;
    Ok(ENGINE.get_or_init(|| engine))
}

/// An engine that takes compiled code from where a host has it, below this folder, and keeps it there. The first folder of a process
/// is the only one. `None` where the folder cannot be used: it makes no difference but time.
fn engine_keeping_code(code: &Path) -> Option<&'static ContractEngine> {
    static ENGINE: OnceLock<Option<ContractEngine>> = OnceLock::new();
    ENGINE.get_or_init(|| ContractEngine::new(Some(&code.join(COMPILED_CONTRACTS))).ok()).as_ref()
}

/// Loads contract code with all its checks. What is compiled for that is taken from the folder `code` of a host and kept there.
///
/// # Errors
/// It is none that a host would run.
pub fn load(wasm: &[u8], code: Option<&Path>) -> Result<Arc<ContractComponent>, Problem> {
    let engine = match code.and_then(engine_keeping_code) {
        Some(engine) => engine,
        None => engine()?,
    };
    Ok(engine.load(wasm)?)
}

/// Signs contract code, besides those who have signed it.
///
/// # Errors
/// The file is malformed, or has too many signatures.
pub fn sign(wasm: &[u8], key: &PrivateKey) -> Result<Vec<u8>, Problem> {
    let refused = |refused: maxhost_ledger::Refused| Problem::new(Code::ComponentSignatures, refused.to_string());
    let code_hash = SignedCode::read(wasm).map_err(refused)?.code_hash;
    let signature = key.sign(&attachment::statement(&code_hash).map_err(refused)?)?;
    attachment::add_signature(wasm, key.public().clone(), signature).map_err(refused)
}

/// What contract code is, for programs.
pub fn describe(component: &ContractComponent) -> Value {
    let descriptor = &component.descriptor;
    let contracts: Vec<Value> = descriptor
        .contracts
        .iter()
        .map(|contract| {
            let states: Vec<Value> = contract
                .states
                .iter()
                .map(|state| {
                    json!({
                        "name": state.name.as_str(),
                        "version": state.version,
                        "schema": state.schema,
                        "schema_hash": state.schema_hash.to_string(),
                        "attributes": state.attributes,
                        "times": state.times,
                    })
                })
                .collect();
            json!({
                "name": contract.name.as_str(),
                "states": states,
                "commands": contract.commands.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
                "faults": contract.faults,
            })
        })
        .collect();
    json!({
        "name": descriptor.name,
        "version": descriptor.version,
        "vendor": descriptor.vendor,
        "world": "contract",
        "hash": component.code_hash.to_string(),
        "code_hash": component.code_hash.to_string(),
        "id": component.id.to_string(),
        "signers": component.signers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "bytes": component.size,
        "code_version": descriptor.code_version,
        "no_propagation": descriptor.no_propagation,
        "contracts": contracts,
        "flows": [],
        "imports": [],
    })
}

/// What contract code is, for people.
pub fn text(component: &ContractComponent) -> String {
    let descriptor = &component.descriptor;
    let vendor = if descriptor.vendor.is_empty() { String::new() } else { format!(" by {}", descriptor.vendor) };
    let mut lines = vec![
        format!(
            "{} {}{vendor}, contract code version {}",
            descriptor.name, descriptor.version, descriptor.code_version
        ),
        format!("id {}, {}", component.id, show_size(component.size)),
        format!("code sha256:{}", component.code_hash),
    ];
    match component.signers.is_empty() {
        true => lines.push("not signed: for development networks only".to_owned()),
        false => lines.extend(component.signers.iter().map(|key| format!("signed by {key}"))),
    }
    for contract in &descriptor.contracts {
        let commands: Vec<&str> = contract.commands.iter().map(|name| name.as_str()).collect();
        lines.push(format!("  {}  (commands {})", contract.name, commands.join(", ")));
        for state in &contract.states {
            let fields: Vec<&str> = state.schema.lines().collect();
            lines.push(format!("    {} version {}: {}", state.name, state.version, fields.join(", ")));
        }
    }
    let lines: Vec<_> = lines.iter().map(|line| one_line(line)).collect();
    lines.join("\n")
}
