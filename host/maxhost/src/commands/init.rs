//! `maxhost init`: a development network, from nothing to ready to run.
//!
//! Everything is checked before the first key is issued. Checking components compiles them, and what was compiled stays where
//! a host looks for it; if one is refused, the folder is as it was. A marker stands in the folder until all is done: with it,
//! the same command goes on where it stopped; without it, a folder that holds anything is refused.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use maxhost_flows::options::NotaryKind;
use maxhost_model::{Code, Problem, X500Name};
use maxhost_pki::devnet::{DevNetwork, Options};
use maxhost_pki::{Issued, Layout, Passphrase, PrivateKey, signing_key_file};
use serde_json::json;

use super::cordapp::{self, Inspected};
use super::cordapp_contract;
use crate::cli::InitArgs;
use crate::config::{CODE_FOLDER, DATA_FOLDER, FILE_NAME, PASSPHRASE_VARIABLE, template};
use crate::context::{Context, Outcome};
use crate::files::{self, io_problem};
use crate::manifest;

const PARTIES: [&str; 3] = ["O=Alice, L=London, C=GB", "O=Bob, L=New York, C=US", "O=Carol, L=Paris, C=FR"];
const NOTARY: &str = "O=Notary, L=Zurich, C=CH";
/// Stands while the folder is not complete.
const MARKER: &str = ".maxhost-init";

/// Makes the network.
pub fn execute(context: &Context, args: &InitArgs) -> Outcome {
    make(context, args).map_err(|problem| match problem.code {
        Code::DiskFull => problem.remedy("free space there and type the same again: it goes on where it stopped"),
        _ => problem,
    })
}

fn make(context: &Context, args: &InitArgs) -> Outcome {
    let notaries = notaries(args)?;
    let names = names(args, &notaries)?;
    let paths = components(args.cordapps.as_deref())?;
    let dir = &args.dir;
    let claimed = claim(dir)?;
    let components = match look_at(&paths, dir) {
        Err(problem) => {
            claimed.give_back(dir);
            return Err(problem);
        }
        Ok(components) => components,
    };

    let issued = issue(context, dir, &names, &notaries, args.validating)?;
    let developer = signing_key_file::create(&Layout::new(dir).developer_key())?;
    let cordapps = install(&components, &dir.join("cordapps"), &developer)?;
    files::create_dir(&dir.join("identities"))?;
    files::create_private_dir(&dir.join(DATA_FOLDER))?;
    for identity in &issued {
        let file = dir.join("identities").join(format!("{}.toml", identity.slug));
        let kind = notaries.contains(&identity.name).then_some(match args.validating {
            true => NotaryKind::Validating,
            false => NotaryKind::NonValidating,
        });
        let text = manifest::template(identity.name.as_str(), &cordapps, &format!("../keys/{}", identity.slug), kind);
        // Not made durable one by one: the marker goes only behind all of them.
        std::fs::write(&file, text).map_err(|error| io_problem(Code::DirectoryUnwritable, "write", &file, &error))?;
    }
    files::write_atomically(&dir.join(FILE_NAME), template().as_bytes())?;
    files::sync_file_system(dir)?;
    let marker = dir.join(MARKER);
    std::fs::remove_file(&marker).map_err(|error| io_problem(Code::DirectoryUnwritable, "remove", &marker, &error))?;

    let listed: Vec<&str> = issued.iter().map(|identity| identity.name.as_str()).collect();
    let shown = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
    let object = json!({
        "dir": shown.display().to_string(),
        "identities": listed,
        "notary": notaries.first().map(X500Name::as_str),
        "notaries": notaries.iter().map(X500Name::as_str).collect::<Vec<_>>(),
        "cordapps": cordapps,
    });
    context.out.object(&object, || {
        let some = listed.iter().take(10).map(|name| format!("  {name}")).collect::<Vec<_>>().join("\n");
        let more = if listed.len() > 10 { format!("\n  and {} more", listed.len() - 10) } else { String::new() };
        format!("{}\n{some}{more}", shown.display())
    });
    context.out.note(&format!("next: maxhost run --config {}", dir.join(FILE_NAME).display()));
    Ok(0)
}

fn parse(name: &str) -> Result<X500Name, Problem> {
    X500Name::parse(name).map_err(|error| Problem::new(Code::NameInvalid, error.to_string()).detail("name", name))
}

/// The notaries in order, each once: the first is the one that flows take if nobody names another.
fn notaries(args: &InitArgs) -> Result<Vec<X500Name>, Problem> {
    if args.notary.is_empty() {
        return Ok(vec![parse(NOTARY)?]);
    }
    let mut notaries = Vec::new();
    for name in &args.notary {
        let name = parse(name)?;
        if !notaries.contains(&name) {
            notaries.push(name);
        }
    }
    Ok(notaries)
}

/// The identities in order, each once: those that were named or the usual three, the notaries, the numbered ones.
fn names(args: &InitArgs, notaries: &[X500Name]) -> Result<Vec<X500Name>, Problem> {
    let mut names = Vec::new();
    if args.identity.is_empty() {
        for name in PARTIES {
            names.push(parse(name)?);
        }
    }
    for name in &args.identity {
        names.push(parse(name)?);
    }
    names.extend(notaries.iter().cloned());
    for number in 1..=args.count.unwrap_or(0) {
        names.push(parse(&format!("O=Party {number:05}, L=London, C=GB"))?);
    }
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(names)
}

/// The files of the components in a folder.
fn components(folder: Option<&Path>) -> Result<Vec<PathBuf>, Problem> {
    let Some(folder) = folder else { return Ok(Vec::new()) };
    let unreadable = |error| io_problem(Code::FileUnreadable, "read the folder", folder, &error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") && path.is_file() {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(Problem::new(Code::CordappNotFound, format!("{} holds no components (*.wasm)", folder.display()))
            .remedy("build some with `maxhost cordapp build`, or leave out --cordapps"));
    }
    Ok(found)
}

/// Looks at each component, and keeps what is compiled for that where the host of the network will look for it.
fn look_at(paths: &[PathBuf], dir: &Path) -> Result<Vec<(Vec<u8>, Inspected)>, Problem> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let data = dir.join(DATA_FOLDER);
    files::create_private_dir(&data)?;
    let code = data.join(CODE_FOLDER);
    let look = |path: &PathBuf| cordapp::inspect_any(path, Some(&code));
    let mut found: Vec<_> = paths.iter().map(look).collect::<Result<_, _>>()?;
    found.sort_by(|(_, a), (_, b)| a.name().cmp(b.name()));
    Ok(found)
}

/// Installs components; gives what manifests call those with flows. A contract that nobody has signed is signed by the
/// developer of the network: unsigned, its states could never move to newer code.
fn install(components: &[(Vec<u8>, Inspected)], folder: &Path, developer: &PrivateKey) -> Result<Vec<String>, Problem> {
    files::create_dir(folder)?;
    let flows = |inspected: &Inspected| match inspected {
        Inspected::Flows(found) => Some((found.descriptor.name.clone(), found.descriptor.version.clone())),
        Inspected::Contract(_) => None,
    };
    let all: Vec<(String, String)> = components.iter().filter_map(|(_, inspected)| flows(inspected)).collect();
    let mut references = Vec::new();
    for (wasm, inspected) in components {
        match inspected {
            Inspected::Contract(contract) if contract.signers.is_empty() => {
                inspected.install(&cordapp_contract::sign(wasm, developer)?, folder, true)?;
            }
            _ => drop(inspected.install(wasm, folder, true)?),
        }
        let Some((name, version)) = flows(inspected) else { continue };
        let alone = all.iter().filter(|(other, _)| *other == name).count() == 1;
        references.push(if alone { name } else { format!("{name}@{version}") });
    }
    references.dedup();
    Ok(references)
}

/// How a folder was taken.
enum Claimed {
    /// An earlier call was interrupted in it.
    GoesOn,
    /// It is new.
    Made,
    /// It was there, and empty.
    Empty,
}

impl Claimed {
    /// Leaves a folder in which nothing but code was made as it was found.
    fn give_back(self, dir: &Path) {
        if matches!(self, Claimed::GoesOn) {
            return;
        }
        // What cannot be removed is no more in the way than after an interrupted call.
        let _left = std::fs::remove_dir_all(dir.join(DATA_FOLDER));
        let _left = std::fs::remove_file(dir.join(MARKER));
        if matches!(self, Claimed::Made) {
            let _left = std::fs::remove_dir(dir);
        }
    }
}

/// Takes the folder: it is empty, or an earlier call was interrupted in it.
fn claim(dir: &Path) -> Result<Claimed, Problem> {
    if dir.exists() && !dir.is_dir() {
        return Err(Problem::new(Code::DirectoryInUse, format!("{} is there and is no folder", dir.display()))
            .detail("dir", dir.display().to_string()));
    }
    let claimed = if dir.exists() { Claimed::Empty } else { Claimed::Made };
    files::create_dir(dir)?;
    let marker = dir.join(MARKER);
    if marker.exists() {
        return Ok(Claimed::GoesOn);
    }
    let mut entries = std::fs::read_dir(dir).map_err(|error| io_problem(Code::FileUnreadable, "read", dir, &error))?;
    if entries.next().is_some() {
        return Err(Problem::new(Code::DirectoryInUse, format!("{} is not empty", dir.display()))
            .detail("dir", dir.display().to_string()));
    }
    files::write_atomically(&marker, b"maxhost init has not finished here; repeat the command to go on\n")?;
    Ok(claimed)
}

/// Issues what is missing.
fn issue(
    context: &Context,
    dir: &Path,
    names: &[X500Name],
    notaries: &[X500Name],
    validating: bool,
) -> Result<Vec<Issued>, Problem> {
    let passphrase = match std::env::var(PASSPHRASE_VARIABLE) {
        Ok(text) if !text.is_empty() => Some(Passphrase::new(text)?),
        _ => None,
    };
    let mut network = DevNetwork::create(dir, &Options { passphrase, ..Options::default() })?;
    let bar = context.out.progress(names.len() as u64, "issuing identities");
    let issued = network.issue_all(names, &mut |_| bar.inc(1))?;
    bar.finish_and_clear();
    let listed: Vec<(X500Name, bool)> = notaries.iter().map(|name| (name.clone(), validating)).collect();
    network.set_notaries(&listed)?;
    Ok(issued)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn args(identity: &[&str], count: Option<u32>) -> InitArgs {
        InitArgs {
            dir: std::path::PathBuf::new(),
            count,
            identity: identity.iter().map(|&name| name.to_owned()).collect(),
            notary: Vec::new(),
            validating: false,
            cordapps: None,
        }
    }

    #[test]
    fn names_are_the_usual_ones_unless_some_are_given() {
        let default = notaries(&args(&[], None)).unwrap();
        let shown = |args: &InitArgs| -> Vec<String> {
            names(args, &default).unwrap().iter().map(|name| name.as_str().to_owned()).collect()
        };
        assert_eq!(shown(&args(&[], None)), [PARTIES[0], PARTIES[1], PARTIES[2], NOTARY]);
        let own = args(&["L=Oslo, O=Dave, C=NO", "O=Dave, L=Oslo, C=NO"], Some(2));
        let expected =
            ["O=Dave, L=Oslo, C=NO", NOTARY, "O=Party 00001, L=London, C=GB", "O=Party 00002, L=London, C=GB"];
        assert_eq!(shown(&own), expected);
        let named = ["O=One, L=Oslo, C=NO", "L=Oslo, O=One, C=NO", "O=Two, L=Oslo, C=NO"];
        let several = InitArgs { notary: named.map(str::to_owned).to_vec(), ..args(&["O=Two, L=Oslo, C=NO"], None) };
        let several = notaries(&several).unwrap();
        assert_eq!(several.iter().map(X500Name::as_str).collect::<Vec<_>>(), [named[0], named[2]]);
        assert_eq!(names(&args(&[named[2]], None), &several).unwrap().len(), 2, "a notary may be any identity");
        assert_eq!(names(&args(&["Dave"], None), &default).unwrap_err().code, Code::NameInvalid);
    }
}
