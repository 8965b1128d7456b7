//! `maxhost attachment`: the contract code that is installed, which transactions name by its id.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maxhost_cordapps::CONTRACT_SUFFIX;
use maxhost_model::text::one_line;
use maxhost_model::{Code, Problem};
use maxhost_sandbox::contract::ContractComponent;
use serde_json::{Value, json};

use super::cordapp::{Inspected, inspect_any};
use super::cordapp_contract;
use crate::cli::AttachmentCommand;
use crate::context::{Context, Outcome};
use crate::files::io_problem;
use crate::render;

/// An installed file.
struct Installed {
    file: PathBuf,
    bytes: Vec<u8>,
    component: Arc<ContractComponent>,
}

/// Does what was typed.
pub fn execute(context: &Context, command: AttachmentCommand) -> Outcome {
    let config = context.config()?;
    let (folder, code) = (config.cordapps(), config.code());
    match command {
        AttachmentCommand::List => {
            let listed: Vec<Value> = installed(&folder, &code)?.iter().map(|one| summary(&one.component)).collect();
            context.out.list(&listed, &["ID", "NAME", "VERSION", "SIGNERS", "BYTES"], |one| {
                let signers = one["signers"].as_array().map_or(0, Vec::len);
                vec![
                    render::cell(one, "id"),
                    one_line(&render::cell(one, "name")).into_owned(),
                    one_line(&render::cell(one, "version")).into_owned(),
                    signers.to_string(),
                    render::plain(&one["bytes"]),
                ]
            });
        }
        AttachmentCommand::Show { id } => {
            let found = find(&folder, &code, &id)?;
            let mut object = cordapp_contract::describe(&found.component);
            object["file"] = found.file.display().to_string().into();
            context.out.object(&object, || cordapp_contract::text(&found.component));
        }
        AttachmentCommand::Import { file } => {
            let (wasm, inspected) = inspect_any(&file, Some(&code))?;
            let Inspected::Contract(component) = &inspected else {
                let message = format!("{} holds flows, and only contracts are attachments", file.display());
                return Err(Problem::new(Code::ComponentInvalid, message).detail("file", file.display().to_string()));
            };
            let target = inspected.install(&wasm, &folder, false)?;
            let mut object = summary(component);
            object["file"] = target.display().to_string().into();
            context.out.object(&object, || component.id.to_string());
        }
        AttachmentCommand::Export { id, file } => {
            let found = find(&folder, &code, &id)?;
            match file {
                Some(file) => {
                    std::fs::write(&file, &found.bytes)
                        .map_err(|error| io_problem(Code::DirectoryUnwritable, "write", &file, &error))?;
                    let mut object = summary(&found.component);
                    object["file"] = file.display().to_string().into();
                    context.out.object(&object, || file.display().to_string());
                }
                // A reader that has gone wants no more.
                None => drop(std::io::stdout().lock().write_all(&found.bytes)),
            }
        }
    }
    Ok(0)
}

fn summary(component: &ContractComponent) -> Value {
    json!({
        "id": component.id.to_string(),
        "code_hash": component.code_hash.to_string(),
        "name": component.descriptor.name,
        "version": component.descriptor.version,
        "signers": component.signers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "bytes": component.size,
    })
}

/// The files that a host would use, by name. One that it would not is left out, as a host does.
fn installed(folder: &Path, code: &Path) -> Result<Vec<Installed>, Problem> {
    let entries =
        std::fs::read_dir(folder).map_err(|error| io_problem(Code::FileUnreadable, "read", folder, &error))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.file_name().is_some_and(|name| name.to_string_lossy().ends_with(CONTRACT_SUFFIX)));
    files.sort();
    let read = |file: PathBuf| match inspect_any(&file, Some(code)) {
        Ok((bytes, Inspected::Contract(component))) => Some(Installed { file, bytes, component }),
        _ => None,
    };
    Ok(files.into_iter().filter_map(read).collect())
}

fn find(folder: &Path, code: &Path, id: &str) -> Result<Installed, Problem> {
    let found = installed(folder, code)?.into_iter().find(|one| one.component.id.to_string() == id);
    found.ok_or_else(|| {
        let shown: String = id.chars().take(80).collect();
        Problem::new(Code::AttachmentNotFound, format!("no installed contract has the id '{shown}'"))
            .detail("attachment", shown)
    })
}
