//! `maxhost cordapp build`: compile both sides of a CorDapp to components, check them, and sign the contract.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use maxhost_cordapps::CONTRACT_SUFFIX;
use maxhost_model::{Code, Problem};
use maxhost_pki::{PrivateKey, signing_key_file};
use serde_json::Value;

use super::cordapp::{self, Inspected};
use super::cordapp_contract;
use crate::context::{Context, Outcome};
use crate::files::{self, io_problem};

const TARGET: &str = "wasm32-wasip2";

/// What makes components small and quick, whatever the crate's own profile says.
const PROFILE: [(&str, &str); 7] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_STRIP", "true"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
    // An overflow is an error of the flow, not a wrong result.
    ("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true"),
];

/// The two sides of a CorDapp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Contract,
    Flows,
}

/// Builds the crates in a folder: `contract/` and `flows/`, or one crate of either side.
pub fn execute(context: &Context, path: &Path, sign: &[PathBuf]) -> Outcome {
    if !path.exists() {
        return Err(Problem::new(Code::FileNotFound, format!("there is no folder {}", path.display())));
    }
    let sides = sides(path)?;
    let keys = sign.iter().map(|file| signing_key_file::read(file)).collect::<Result<Vec<_>, _>>()?;
    if !keys.is_empty() && !sides.iter().any(|(side, _)| *side == Side::Contract) {
        let message = format!("{} has no contract, and only contracts are signed", path.display());
        return Err(Problem::new(Code::Usage, message).remedy("leave out --sign"));
    }
    require_target()?;
    for (side, folder) in sides {
        let built = compile(&folder, side)?;
        if built.is_empty() {
            return Err(Problem::new(
                Code::CordappBuildFailed,
                format!("{} is no CorDapp: it builds no component", folder.display()),
            )
            .remedy("add to its Cargo.toml: [lib] crate-type = [\"cdylib\", \"lib\"]"));
        }
        for wasm in built {
            finish(context, &folder, side, &wasm, &keys)?;
        }
    }
    Ok(0)
}

/// Checks a component, signs it if it is a contract, and puts it where the others are.
fn finish(context: &Context, folder: &Path, side: Side, wasm: &Path, keys: &[PrivateKey]) -> Result<(), Problem> {
    let (mut bytes, mut inspected) = cordapp::inspect_any(wasm, None)?;
    let suffix = match (&inspected, side) {
        (Inspected::Contract(_), Side::Contract) => CONTRACT_SUFFIX,
        (Inspected::Flows(_), Side::Flows) => ".wasm",
        (Inspected::Flows(_), Side::Contract) => {
            return Err(failed(format!("{} exports flows and no contract", folder.display())));
        }
        (Inspected::Contract(_), Side::Flows) => {
            return Err(failed(format!("{} exports a contract and no flows", folder.display())));
        }
    };
    if side == Side::Contract && !keys.is_empty() {
        for key in keys {
            bytes = cordapp_contract::sign(&bytes, key)?;
        }
        inspected = cordapp::look(&bytes, None)?;
    }
    let target = cordapps_folder(folder)?.join(format!("{}{suffix}", inspected.name()));
    files::create_dir(target.parent().unwrap_or(folder))?;
    files::write_atomically(&target, &bytes)?;
    let mut object = inspected.object();
    object["file"] = target.display().to_string().into();
    context.out.object(&object, || format!("{}\n{}", inspected.text(), target.display()));
    Ok(())
}

/// The crates to build, the contract first: flows use its types.
fn sides(path: &Path) -> Result<Vec<(Side, PathBuf)>, Problem> {
    let both = [(Side::Contract, path.join("contract")), (Side::Flows, path.join("flows"))];
    let found: Vec<_> = both.into_iter().filter(|(_, folder)| folder.join("Cargo.toml").is_file()).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    if path.join("Cargo.toml").is_file() {
        let side = if is_contract_crate(path)? { Side::Contract } else { Side::Flows };
        return Ok(vec![(side, path.to_owned())]);
    }
    let message = format!("{} holds no crate: there is no Cargo.toml", path.display());
    Err(Problem::new(Code::FileNotFound, message)
        .remedy("name the folder of the CorDapp, or make one with `maxhost cordapp new NAME`"))
}

/// Whether the crate of a folder is a contract: it has the feature that turns its exports on.
fn is_contract_crate(path: &Path) -> Result<bool, Problem> {
    let manifest = std::fs::canonicalize(path.join("Cargo.toml"))
        .map_err(|error| io_problem(Code::FileUnreadable, "read", path, &error))?;
    let metadata = metadata(path)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let own = packages.filter(|package| package["manifest_path"].as_str().is_some_and(|it| Path::new(it) == manifest));
    Ok(own.into_iter().any(|package| !package["features"]["component"].is_null()))
}

fn cargo(path: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(path);
    command
}

fn failed(message: impl Into<String>) -> Problem {
    Problem::new(Code::CordappBuildFailed, message)
}

fn no_cargo(error: &std::io::Error) -> Problem {
    failed(format!("cannot run cargo: {error}")).remedy("install Rust from https://rustup.rs, so that cargo is on PATH")
}

/// The compiler must know the target; without the check the message would be about `core`.
fn require_target() -> Result<(), Problem> {
    if target_installed() != Some(false) {
        return Ok(());
    }
    Err(failed(format!("the compiler has no target {TARGET}")).remedy(format!("run: rustup target add {TARGET}")))
}

/// Whether the target is there; `None` if the compiler cannot be asked.
pub fn target_installed() -> Option<bool> {
    let mut ask = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let answer = ask.args(["--print", "target-libdir", "--target", TARGET]).output().ok()?;
    let folder = String::from_utf8(answer.stdout).ok()?;
    Some(answer.status.success() && Path::new(folder.trim()).is_dir())
}

/// Runs cargo; its own words go to standard error as they come. Gives the components.
fn compile(path: &Path, side: Side) -> Result<Vec<PathBuf>, Problem> {
    let mut command = cargo(path);
    match side {
        Side::Flows => command.arg("build"),
        // A contract is a plain library for all but this build, which adds the exports.
        Side::Contract => command.args(["rustc", "--crate-type", "cdylib", "--features", "component"]),
    };
    let output = command
        .args(["--release", "--lib", "--target", TARGET, "--message-format", "json-render-diagnostics"])
        .envs(PROFILE)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| no_cargo(&error))?;
    if !output.status.success() {
        return Err(failed(format!("{} does not compile", path.display())));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    Ok(messages
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter_map(|message| component(&message))
        .collect())
}

/// The component that a message of cargo tells of.
fn component(message: &Value) -> Option<PathBuf> {
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    let kinds = message["target"]["crate_types"].as_array()?;
    if !kinds.iter().any(|kind| kind == "cdylib") {
        return None;
    }
    let files = message["filenames"].as_array()?;
    files.iter().filter_map(Value::as_str).find(|file| file.ends_with(".wasm")).map(PathBuf::from)
}

/// `target/cordapps` of the crate's workspace.
fn cordapps_folder(path: &Path) -> Result<PathBuf, Problem> {
    let metadata = metadata(path)?;
    let folder = metadata["target_directory"].as_str().ok_or_else(|| failed("cargo names no target folder"))?;
    Ok(Path::new(folder).join("cordapps"))
}

/// What cargo knows of the crate's workspace.
fn metadata(path: &Path) -> Result<Value, Problem> {
    let output = cargo(path)
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()
        .map_err(|error| no_cargo(&error))?;
    serde_json::from_slice(&output.stdout)
        .map_err(|_| failed(format!("cargo does not know the crate: {}", String::from_utf8_lossy(&output.stderr))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn components_are_found_among_cargos_messages() {
        let library = |crate_type: &str, file: &str| json!({"reason": "compiler-artifact", "target": {"crate_types": [crate_type]}, "filenames": [file]});
        assert_eq!(component(&library("cdylib", "/t/a.wasm")), Some(PathBuf::from("/t/a.wasm")));
        assert_eq!(component(&library("lib", "/t/liba.rlib")), None);
        assert_eq!(component(&json!({"reason": "build-finished"})), None);
    }
}
