//! `maxhost attachment`: what of a host can be attached to transactions, which name it by its id: contract code that is
//! installed, and files of data. What the ledger of an identity has is in [`super::ledger_attachment`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use maxhost_cordapps::{CONTRACT_SUFFIX, DataFiles};
use maxhost_model::text::one_line;
use maxhost_model::{Code, Problem, SecureHash};
use maxhost_sandbox::contract::ContractComponent;
use serde_json::{Value, json};

use super::cordapp::{Inspected, inspect_any};
use super::cordapp_contract;
use super::ledger_attachment;
use crate::cli::AttachmentCommand;
use crate::context::{Context, Outcome};
use crate::files::io_problem;
use crate::output::write_file;
use crate::render;

/// What WebAssembly begins with. What does not is data.
const MAGIC: &[u8] = b"\0asm";

/// An installed file.
struct Installed {
    file: PathBuf,
    bytes: Vec<u8>,
    component: Arc<ContractComponent>,
}

/// Does what was typed.
pub fn execute(context: &Context, command: AttachmentCommand) -> Outcome {
    let command = match ledger_attachment::of_identity(command) {
        Ok(asked) => return ledger_attachment::execute(context, asked),
        Err(command) => command,
    };
    let config = context.config()?;
    let (folder, code) = (config.cordapps(), config.code());
    let data = DataFiles::new(config.attachments());
    match command {
        AttachmentCommand::List { .. } => {
            let mut listed: Vec<Value> = installed(&folder, &code)?.iter().map(|one| summary(&one.component)).collect();
            let files = data.list().map_err(|error| unreadable(&config.attachments(), &error))?;
            listed.extend(files.iter().map(|(id, size)| of_data(id, *size)));
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
        AttachmentCommand::Show { id, .. } => {
            if let Some((id, size)) = id.parse().ok().and_then(|id| data.size(&id).map(|size| (id, size))) {
                let object = of_data(&id, size);
                context.out.object(&object, || format!("{id}\ndata, {size} bytes"));
                return Ok(0);
            }
            let found = find(&folder, &code, &id)?;
            let mut object = cordapp_contract::describe(&found.component);
            object["file"] = found.file.display().to_string().into();
            context.out.object(&object, || cordapp_contract::text(&found.component));
        }
        AttachmentCommand::Import { file, .. } => {
            let bytes = std::fs::read(&file).map_err(|error| unreadable(&file, &error))?;
            if !bytes.starts_with(MAGIC) {
                let added = data.add(&bytes);
                let (id, target) = added
                    .map_err(|error| io_problem(Code::DirectoryUnwritable, "write", &config.attachments(), &error))?;
                let mut object = of_data(&id, bytes.len() as u64);
                object["file"] = target.display().to_string().into();
                context.out.object(&object, || id.to_string());
                return Ok(0);
            }
            let (wasm, inspected) = inspect_any(&file, Some(&code))?;
            let Inspected::Contract(component) = &inspected else {
                let message = format!("{} holds flows, which are not attached to transactions", file.display());
                return Err(Problem::new(Code::ComponentInvalid, message).detail("file", file.display().to_string()));
            };
            let target = inspected.install(&wasm, &folder, false)?;
            let mut object = summary(component);
            object["file"] = target.display().to_string().into();
            context.out.object(&object, || component.id.to_string());
        }
        AttachmentCommand::Export { file: None, .. } if context.out.is_json() => {
            return Err(ledger_attachment::needs_file());
        }
        AttachmentCommand::Export { id, file, .. } => {
            let parsed: Option<SecureHash> = id.parse().ok();
            let read = parsed.map_or(Ok(None), |id| data.read(&id));
            let read = read.map_err(|error| unreadable(&config.attachments(), &error))?;
            let (bytes, mut object) = match (parsed, read) {
                (Some(id), Some(bytes)) => {
                    let object = of_data(&id, bytes.len() as u64);
                    (bytes, object)
                }
                _ => {
                    let found = find(&folder, &code, &id)?;
                    (found.bytes, summary(&found.component))
                }
            };
            match file {
                Some(file) => {
                    std::fs::write(&file, &bytes)
                        .map_err(|error| io_problem(Code::DirectoryUnwritable, "write", &file, &error))?;
                    object["file"] = file.display().to_string().into();
                    context.out.object(&object, || file.display().to_string());
                }
                None => write_file(&bytes)?,
            }
        }
    }
    Ok(0)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    io_problem(Code::FileUnreadable, "read", path, error)
}

/// A file that is no code has no name, no version and no signers.
fn of_data(id: &SecureHash, size: u64) -> Value {
    let nothing: [&str; 0] = [];
    json!({
        "id": id.to_string(),
        "code_hash": null,
        "name": null,
        "version": null,
        "signers": nothing,
        "bytes": size,
    })
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
