//! `maxhost identity publish`: manifests and sealed keys from folders, to the files that hosts share.
//!
//! It may be interrupted and repeated: what is there as it is, is left alone. Manifests that nobody named stay.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use futures::stream::{self, StreamExt};
use maxhost_model::{Code, Problem, X500Name};
use maxhost_ownership_zookeeper::{FileName, Put, SharedFiles};
use serde_json::{Value, json};

use super::manifests::{self, Place};
use super::shared_identity::{Checks, SharedIdentity};
use crate::config::Config;
use crate::config::cluster::MANIFESTS;
use crate::context::{Context, Outcome};
use crate::run::LARGEST_MANIFEST;
use crate::{files, foundation, manifest, render};

/// Identities that are put at once.
const AT_ONCE: usize = 32;

/// What became of one manifest.
struct Done {
    file: PathBuf,
    name: Option<X500Name>,
    result: Result<(Put, FileName), Problem>,
}

/// Does it; fails if a manifest was refused, when all others are done.
pub fn execute(context: &Context, wanted: &[String], from: Option<&Path>) -> Outcome {
    let config = context.config()?;
    let folder = from.map_or_else(|| config.identities_dir(), |from| from.join(MANIFESTS));
    let chosen = choose(&folder, wanted)?;
    let checks = Checks::of(&config)?;
    let (done, address) = context.block_on(publish(context, &config, &checks, chosen))?;
    let shown: Vec<Value> = done.iter().map(|done| show(done, &address)).collect();
    context.out.list(&shown, &["NAME", "RESULT", "REASON"], |one| {
        ["name", "result", "reason"].map(|field| render::cell(one, field)).into()
    });
    let mut refused = done.iter().filter_map(|done| done.result.as_ref().err());
    match refused.next() {
        None => Ok(0),
        Some(first) => {
            let count = refused.count() + 1;
            let message = format!("{count} of {} manifests were refused; the first: {}", done.len(), first.message);
            Err(Problem { message, ..first.clone() })
        }
    }
}

/// The files that were asked for, by the names in them or their own; all, if none was named.
fn choose(folder: &Path, wanted: &[String]) -> Result<Vec<PathBuf>, Problem> {
    if wanted.is_empty() {
        return manifests::files_of(folder);
    }
    let mut chosen = Vec::new();
    for query in wanted {
        let by_file = folder.join(query);
        let file = if query.ends_with(".toml") && !query.contains('/') && by_file.is_file() {
            by_file
        } else {
            match manifests::pick(manifests::in_folder(folder)?, query)?.place {
                Place::File(file) => file,
                Place::Shared(..) => continue,
            }
        };
        if !chosen.contains(&file) {
            chosen.push(file);
        }
    }
    Ok(chosen)
}

async fn publish(
    context: &Context,
    config: &Config,
    checks: &Checks,
    chosen: Vec<PathBuf>,
) -> Result<(Vec<Done>, String), Problem> {
    let (files, sharing) = foundation::open_shared_files(config).await?;
    let address = sharing.address.to_string();
    files.make_folders().await.map_err(|error| foundation::of_ownership(&sharing, error))?;
    let mut owners: HashMap<X500Name, FileName> = HashMap::new();
    let mut names: HashMap<FileName, X500Name> = HashMap::new();
    for present in manifests::shared(&files, &address).await? {
        if let Place::Shared(_, file) = present.place {
            owners.insert(present.name.clone(), file.clone());
            names.insert(file, present.name);
        }
    }
    let bar = context.out.progress(chosen.len() as u64, "publishing");
    let mut done = Vec::with_capacity(chosen.len());
    for some in chosen.chunks(AT_ONCE) {
        let mut ready = Vec::new();
        for file in some {
            let (name, prepared) = prepare(checks, file);
            match prepared.and_then(|identity| free(identity, &mut owners, &mut names)) {
                Ok(identity) => ready.push((file.clone(), identity)),
                Err(problem) => done.push(Done { file: file.clone(), name, result: Err(problem) }),
            }
        }
        done.extend(put(&files, ready).await?);
        bar.inc(some.len() as u64);
    }
    bar.finish_and_clear();
    done.sort_by(|one, other| one.file.cmp(&other.file));
    Ok((done, address))
}

/// Puts some at once. What is wrong with one is its own; a service that does not answer ends it all.
async fn put(files: &SharedFiles, ready: Vec<(PathBuf, SharedIdentity)>) -> Result<Vec<Done>, Problem> {
    let puts = ready.into_iter().map(|(file, identity)| async move {
        let result = match identity.put(files).await {
            Ok(put) => Ok((put, identity.file().clone())),
            Err(problem) if problem.code == Code::ManifestInvalid => Err(problem),
            Err(problem) => return Err(problem),
        };
        Ok(Done { file, name: Some(identity.name().clone()), result })
    });
    let done: Vec<Result<Done, Problem>> = stream::iter(puts).buffer_unordered(AT_ONCE).collect().await;
    done.into_iter().collect()
}

/// Reads a manifest with its keys. Gives the name in it too, if that much is right.
fn prepare(checks: &Checks, file: &Path) -> (Option<X500Name>, Result<SharedIdentity, Problem>) {
    let text = match files::read_text(file, LARGEST_MANIFEST) {
        Ok(text) => text,
        Err(error) => return (None, Err(files::io_problem(Code::FileUnreadable, "read", file, &error))),
    };
    let parsed = manifest::parse(file, &text).map_err(|bad| (bad.name, bad.problem));
    let parsed = parsed.and_then(|spec| match X500Name::parse(&spec.name) {
        Ok(name) => Ok((spec, name)),
        Err(error) => Err((None, Problem::new(Code::ManifestInvalid, error.to_string()))),
    });
    match parsed {
        Ok((spec, name)) => {
            let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let identity = SharedIdentity::new(checks, stem, &name, &text, &spec.keys);
            (Some(name), identity)
        }
        Err((name, problem)) => (name.and_then(|name| X500Name::parse(&name).ok()), Err(problem)),
    }
}

/// Refuses an identity that has another manifest there, and a manifest that would take the place of another identity's.
fn free(
    identity: SharedIdentity,
    owners: &mut HashMap<X500Name, FileName>,
    names: &mut HashMap<FileName, X500Name>,
) -> Result<SharedIdentity, Problem> {
    let (file, name) = (identity.file().clone(), identity.name().clone());
    if let Some(other) = owners.get(&name).filter(|other| **other != file) {
        let text = format!("{name} is in {} already", other.path());
        return Err(Problem::new(Code::ManifestInvalid, text).remedy("remove one of the two manifests"));
    }
    if let Some(other) = names.get(&file).filter(|other| **other != name) {
        let text = format!("{} is the manifest of {other}, not of {name}", file.path());
        return Err(Problem::new(Code::ManifestInvalid, text).remedy("give the file of the manifest another name"));
    }
    owners.insert(name.clone(), file.clone());
    names.insert(file, name);
    Ok(identity)
}

fn show(done: &Done, address: &str) -> Value {
    let name = done.name.as_ref().map(X500Name::as_str);
    let file = done.file.display().to_string();
    match &done.result {
        Ok((put, shared)) => {
            let result = match put {
                Put::Created => "created",
                Put::Changed => "changed",
                Put::Unchanged => "unchanged",
            };
            let manifest = format!("{address}{}", shared.path());
            json!({"name": name, "file": file, "result": result, "manifest": manifest, "code": null, "reason": null})
        }
        Err(problem) => json!({
            "name": name, "file": file, "result": "refused", "manifest": null, "code": problem.code.as_str(),
            "reason": problem.message,
        }),
    }
}
