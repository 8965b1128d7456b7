//! `maxhost cordapp`: look at components and install them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maxhost_cordapps::CONTRACT_SUFFIX;
use maxhost_model::text::one_line;
use maxhost_model::{Code, Problem};
use maxhost_sandbox::Inspection;
use maxhost_sandbox::contract::ContractComponent;
use serde_json::{Value, json};

use super::{cordapp_build, cordapp_check, cordapp_contract, cordapp_new, cordapp_verify};
use crate::cli::CordappCommand;
use crate::context::{Context, Outcome};
use crate::embedded_sdk;
use crate::files::{self, io_problem};
use crate::units::show_size;

/// The largest component that is looked at: far beyond any sensible one.
const LARGEST_COMPONENT: u64 = 256 << 20;

/// A component that was looked at.
pub enum Inspected {
    /// One with flows.
    Flows(Box<Inspection>),
    /// One with contracts.
    Contract(Arc<ContractComponent>),
}

impl Inspected {
    /// Name and version.
    pub fn title(&self) -> String {
        match self {
            Inspected::Flows(found) => format!("{} {}", found.descriptor.name, found.descriptor.version),
            Inspected::Contract(found) => {
                format!("{} {} (contract)", found.descriptor.name, found.descriptor.version)
            }
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        match self {
            Inspected::Flows(found) => &found.descriptor.name,
            Inspected::Contract(found) => &found.descriptor.name,
        }
    }

    /// What it is, for programs.
    pub fn object(&self) -> Value {
        match self {
            Inspected::Flows(found) => describe(found),
            Inspected::Contract(found) => cordapp_contract::describe(found),
        }
    }

    /// What it is, for people.
    pub fn text(&self) -> String {
        match self {
            Inspected::Flows(found) => text(found),
            Inspected::Contract(found) => cordapp_contract::text(found),
        }
    }

    /// Puts it into the folder of installed ones.
    ///
    /// # Errors
    /// As [`install`].
    pub fn install(&self, wasm: &[u8], folder: &Path, replace: bool) -> Result<PathBuf, Problem> {
        match self {
            Inspected::Flows(found) => install(wasm, found, folder, replace),
            Inspected::Contract(found) => {
                let (name, version) = (&found.descriptor.name, &found.descriptor.version);
                install_as(wasm, (name, version), CONTRACT_SUFFIX, folder, replace)
            }
        }
    }
}

/// Does what was typed.
pub fn execute(context: &Context, command: CordappCommand) -> Outcome {
    match command {
        CordappCommand::New { name } => cordapp_new::execute(context, &name),
        CordappCommand::Wit => {
            let contract = embedded_sdk::contract()?;
            context.out.object(&json!({ "wit": contract }), || contract.trim_end().to_owned());
            Ok(0)
        }
        CordappCommand::Build { path, sign } => cordapp_build::execute(context, &path, &sign),
        CordappCommand::Inspect { file } => {
            let (_, inspected) = inspect_any(&file, None)?;
            context.out.object(&inspected.object(), || inspected.text());
            Ok(0)
        }
        CordappCommand::Check { file, against } => cordapp_check::execute(context, &file, &against),
        CordappCommand::Verify { file } => cordapp_verify::execute(&file),
        CordappCommand::Install { file, replace } => {
            let config = context.config()?;
            let (wasm, inspected) = inspect_any(&file, Some(&config.code()))?;
            let installed = inspected.install(&wasm, &config.cordapps(), replace)?;
            let mut object = inspected.object();
            object["file"] = installed.display().to_string().into();
            context.out.object(&object, || installed.display().to_string());
            Ok(0)
        }
    }
}

/// Reads and checks a component of either world. Gives its bytes too. What is compiled for that is kept in the folder `code`,
/// for a host.
///
/// # Errors
/// It cannot be read, or is no component a host would run.
pub fn inspect_any(file: &Path, code: Option<&Path>) -> Result<(Vec<u8>, Inspected), Problem> {
    let wasm = read(file)?;
    let inspected = look(&wasm, code).map_err(|problem| with_file(problem, file))?;
    Ok((wasm, inspected))
}

/// Looks at a component of either world.
///
/// # Errors
/// It is no component that a host would run.
pub fn look(wasm: &[u8], code: Option<&Path>) -> Result<Inspected, Problem> {
    if maxhost_sandbox::is_contract(wasm) {
        return cordapp_contract::load(wasm, code.filter(|folder| is_our_users(folder))).map(Inspected::Contract);
    }
    Ok(Inspected::Flows(Box::new(inspect_flows(wasm, code)?)))
}

/// Reads and checks a component of flows, as [`inspect_any`] does.
///
/// # Errors
/// It cannot be read, or is no component of flows that a host would run.
pub fn inspect(file: &Path, code: Option<&Path>) -> Result<(Vec<u8>, Inspection), Problem> {
    let wasm = read(file)?;
    let inspection = inspect_flows(&wasm, code).map_err(|problem| with_file(problem, file))?;
    Ok((wasm, inspection))
}

fn inspect_flows(wasm: &[u8], code: Option<&Path>) -> Result<Inspection, Problem> {
    match code.filter(|folder| is_our_users(folder)) {
        Some(folder) => Ok(maxhost_sandbox::inspect_keeping_code(wasm, folder)?),
        None => Ok(maxhost_sandbox::inspect(wasm)?),
    }
}

/// The bytes of a component.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, Problem> {
    let read = files::read_at_most(file, LARGEST_COMPONENT)
        .map_err(|error| io_problem(Code::FileUnreadable, "read", file, &error))?;
    read.ok_or_else(|| {
        let message = format!("{} is larger than {}: no component is", file.display(), show_size(LARGEST_COMPONENT));
        Problem::new(Code::ComponentTooLarge, message).detail("file", file.display().to_string())
    })
}

fn with_file(problem: Problem, file: &Path) -> Problem {
    Problem { message: format!("{}: {}", file.display(), problem.message), ..problem }
        .detail("file", file.display().to_string())
}

/// Whether a folder in the host's data would belong to whom the data belong to. Compiled code is executed, so a host takes
/// none from a folder of somebody else.
fn is_our_users(folder: &Path) -> bool {
    // SAFETY: the call takes nothing and cannot fail.
    let us = unsafe { libc::geteuid() };
    folder.parent().and_then(|data| data.metadata().ok()).is_some_and(|data| data.uid() == us)
}

/// What a component is, for programs.
pub fn describe(inspection: &Inspection) -> Value {
    let descriptor = &inspection.descriptor;
    let flows: Vec<Value> = descriptor
        .flows
        .iter()
        .map(|flow| {
            json!({
                "name": flow.name,
                "doc": flow.doc,
                "startable": flow.startable,
                "initiating": flow.initiating,
                "responds_to": flow.responds_to,
                "version": flow.version,
                "arguments": flow.arguments,
                "result": flow.result,
            })
        })
        .collect();
    json!({
        "name": descriptor.name,
        "version": descriptor.version,
        "vendor": descriptor.vendor,
        "world": inspection.world,
        "hash": hex::encode(inspection.hash),
        "bytes": inspection.bytes,
        "flows": flows,
        "imports": inspection.imports,
    })
}

/// What a component is, for people.
pub fn text(inspection: &Inspection) -> String {
    let descriptor = &inspection.descriptor;
    let vendor = if descriptor.vendor.is_empty() { String::new() } else { format!(" by {}", descriptor.vendor) };
    let mut lines = vec![
        format!("{} {}{vendor}", descriptor.name, descriptor.version),
        format!("sha256:{}, {}", hex::encode(inspection.hash), show_size(inspection.bytes as u64)),
    ];
    for flow in &descriptor.flows {
        let role = match (&flow.responds_to, flow.startable) {
            (Some(protocol), _) => format!("answers {protocol}"),
            (None, true) => "startable".to_owned(),
            (None, false) => "internal".to_owned(),
        };
        lines.push(format!("  {}  ({role}, version {})  {}", flow.name, flow.version, flow.doc));
    }
    lines.push(format!("imports {}", inspection.imports.join(", ")));
    let lines: Vec<_> = lines.iter().map(|line| one_line(line)).collect();
    lines.join("\n")
}

/// Puts a component into the folder of installed ones, as a whole, under its name and version.
///
/// # Errors
/// Another one of its name and version is there; the folder cannot be written.
pub fn install(wasm: &[u8], inspection: &Inspection, folder: &Path, replace: bool) -> Result<PathBuf, Problem> {
    let (name, version) = (&inspection.descriptor.name, &inspection.descriptor.version);
    install_as(wasm, (name, version), ".wasm", folder, replace)
}

fn install_as(
    wasm: &[u8],
    (name, version): (&str, &str),
    suffix: &str,
    folder: &Path,
    replace: bool,
) -> Result<PathBuf, Problem> {
    let target = folder.join(format!("{name}-{version}{suffix}"));
    match std::fs::read(&target) {
        Ok(there) if there == wasm => return Ok(target),
        Ok(_) if !replace => {
            let message = format!("{name} {version} is installed already, with other bytes");
            return Err(Problem::new(Code::CordappExists, message).detail("file", target.display().to_string()));
        }
        _ => {}
    }
    files::create_dir(folder)?;
    files::write_atomically(&target, wasm)?;
    Ok(target)
}
