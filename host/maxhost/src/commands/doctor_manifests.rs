//! What `maxhost doctor` looks at in manifests, wherever they come from.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use maxhost_flows::options::IdentitySpec;
use maxhost_model::{Code, Problem};
use maxhost_ownership_zookeeper::{FileName, Folder, LARGEST_FILE};

use super::manifests;
use crate::config::Config;
use crate::config::cluster::IdentitySource;
use crate::context::Context;
use crate::run::LARGEST_MANIFEST;
use crate::{files, foundation, key_files, manifest, mirror};

/// What there is of manifests.
#[derive(Default)]
struct Looked {
    specs: Vec<IdentitySpec>,
    /// What is wrong, one text for each manifest or other file.
    wrong: Vec<String>,
}

/// Whether all manifests are good, in words, and what those say that can be read.
pub fn look(context: &Context, config: &Config) -> (Result<String, Problem>, Vec<IdentitySpec>) {
    let looked = match config.identity_source() {
        IdentitySource::Folder => in_folder(&config.identities_dir()),
        IdentitySource::Ownership => context.block_on(shared(config)),
    };
    let Looked { specs, mut wrong } = match looked {
        Ok(looked) => looked,
        Err(problem) => return (Err(problem), Vec::new()),
    };
    let total = specs.len() + wrong.len();
    let mut names: HashMap<&str, &Path> = HashMap::new();
    for spec in &specs {
        if let Some(other) = names.insert(&spec.name, &spec.manifest) {
            wrong.push(format!("{} and {} are both {}", other.display(), spec.manifest.display(), spec.name));
        }
    }
    wrong.sort();
    let found = match wrong.first() {
        None => Ok(format!("{total} manifests")),
        Some(first) => {
            Err(Problem::new(Code::ManifestInvalid, format!("{} of {total} are broken; {first}", wrong.len())))
        }
    };
    (found, specs)
}

fn in_folder(folder: &Path) -> Result<Looked, Problem> {
    let mut looked = Looked::default();
    for path in manifests::files_of(folder)? {
        match files::read_text(&path, LARGEST_MANIFEST) {
            Err(error) => looked.wrong.push(format!("{}: {error}", path.display())),
            Ok(text) => match manifest::parse(&path, &text) {
                Err(bad) => looked.wrong.push(bad.problem.message),
                Ok(spec) => match no_keys(&spec.keys) {
                    Some(why) => looked.wrong.push(format!("{}: {why}", path.display())),
                    None => looked.specs.push(spec),
                },
            },
        }
    }
    Ok(looked)
}

/// Why a folder cannot be one of keys, if it cannot. Another user's keys are not missing.
fn no_keys(folder: &Path) -> Option<String> {
    match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() => None,
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Some(format!("the keys in {} cannot be looked at: {error}", folder.display()))
        }
        _ => Some(format!("there are no keys in {}", folder.display())),
    }
}

/// Looks at the files that hosts share, not at a host's copy of them.
async fn shared(config: &Config) -> Result<Looked, Problem> {
    let (shared, sharing) = foundation::open_shared_files(config).await?;
    let failed = |error| foundation::of_ownership(&sharing, error);
    let mut looked = Looked::default();
    let mut names: HashMap<Folder, Vec<FileName>> = HashMap::new();
    for folder in Folder::ALL {
        let Some(listing) = shared.list(folder).await.map_err(failed)? else { continue };
        let strange = listing.strange.into_iter();
        looked.wrong.extend(strange.map(|name| format!("the node '{name}' beside the others has no name of a file")));
        names.insert(folder, listing.files);
    }
    let Some(identities) = names.remove(&Folder::Identities) else {
        let text = format!("{} has no manifests: none were put there, or ZooKeeper was emptied", sharing.address);
        let remedy = "put manifests and keys there with `maxhost identity publish`; hosts have a copy in data/shared";
        return Err(Problem::new(Code::ManifestInvalid, text).remedy(remedy));
    };
    let mut with_keys: HashSet<PathBuf> = HashSet::new();
    let keys = names.remove(&Folder::Keys).unwrap_or_default();
    let take = |file: FileName, bytes: Vec<u8>| match key_files::unpack(&bytes) {
        Ok(_) => drop(with_keys.insert(manifests::file_of(&file))),
        Err(reason) => looked.wrong.push(format!("the keys in {}: {reason}", file.path())),
    };
    shared.read_each(keys, take).await.map_err(failed)?;
    let take = |file: FileName, bytes: Vec<u8>| {
        let path = manifests::file_of(&file);
        let wrong = match (bytes.len() > LARGEST_FILE, String::from_utf8(bytes)) {
            (true, _) => format!("{}: it is longer than {LARGEST_FILE} bytes", file.path()),
            (false, Err(_)) => format!("{}: it is no UTF-8", file.path()),
            (false, Ok(text)) => match mirror::parse(&path, &text) {
                Err(bad) => bad.problem.message,
                Ok(_) if !with_keys.contains(&path) => format!("{}: there are no keys in /keys", file.path()),
                Ok(spec) => return looked.specs.push(spec),
            },
        };
        looked.wrong.push(wrong);
    };
    shared.read_each(identities, take).await.map_err(failed)?;
    looked.specs.sort_by(|one, other| one.manifest.cmp(&other.manifest));
    Ok(looked)
}
