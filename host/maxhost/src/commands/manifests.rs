//! The manifests of an installation, as commands read and change them: files of a folder, or files that hosts share.

use std::path::{Path, PathBuf};

use maxhost_flows::options::IdentitySpec;
use maxhost_model::{Code, Found, NameQuery, Problem, X500Name};
use maxhost_ownership_zookeeper::{FileName, Folder, SharedFiles};

use super::shared_identity::{Checks, SharedIdentity};
use crate::config::Config;
use crate::config::cluster::IdentitySource;
use crate::context::Context;
use crate::files::{self, io_problem};
use crate::run::LARGEST_MANIFEST;
use crate::{foundation, manifest, mirror};

/// How many of the identities that a name fits are told.
const SHOWN: usize = 10;
/// How many names are tried for a new file that hosts share.
const NAMES: u32 = 1_000;

/// A manifest that could be read.
pub struct Present {
    /// Where it is.
    pub place: Place,
    /// The name in it.
    pub name: X500Name,
    /// What it says.
    pub spec: IdentitySpec,
}

/// Where a manifest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In this file.
    File(PathBuf),
    /// Among the files that hosts share, which are at this address.
    Shared(String, FileName),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::File(file) => write!(f, "{}", file.display()),
            Place::Shared(address, file) => write!(f, "{address}{}", file.path()),
        }
    }
}

/// The manifests of an installation; broken ones are passed over.
///
/// # Errors
/// The folder cannot be read, or the service not be asked.
pub fn present(context: &Context, config: &Config) -> Result<Vec<Present>, Problem> {
    match config.identity_source() {
        IdentitySource::Folder => in_folder(&config.identities_dir()),
        IdentitySource::Ownership => context.block_on(async {
            let (files, sharing) = foundation::open_shared_files(config).await?;
            shared(&files, &sharing.address.to_string()).await
        }),
    }
}

/// The names of all manifests of an installation.
///
/// # Errors
/// As [`present`].
pub fn names(context: &Context, config: &Config) -> Result<Vec<X500Name>, Problem> {
    Ok(present(context, config)?.into_iter().map(|present| present.name).collect())
}

/// The manifests of a folder; broken ones are passed over.
///
/// # Errors
/// The folder cannot be read.
pub fn in_folder(folder: &Path) -> Result<Vec<Present>, Problem> {
    let mut found = Vec::new();
    for file in files_of(folder)? {
        let Ok(text) = files::read_text(&file, LARGEST_MANIFEST) else { continue };
        if let Ok(spec) = manifest::parse(&file, &text)
            && let Ok(name) = X500Name::parse(&spec.name)
        {
            found.push(Present { place: Place::File(file), name, spec });
        }
    }
    Ok(found)
}

/// The files of a folder that are manifests, by name.
///
/// # Errors
/// The folder cannot be read.
pub fn files_of(folder: &Path) -> Result<Vec<PathBuf>, Problem> {
    let unreadable = |error| io_problem(Code::FileUnreadable, "read the folder", folder, &error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let is_hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && file.extension().is_some_and(|extension| extension == "toml") {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

/// The manifests that hosts share; broken ones are passed over.
///
/// # Errors
/// The service cannot be asked.
pub async fn shared(files: &SharedFiles, address: &str) -> Result<Vec<Present>, Problem> {
    let mut found = Vec::new();
    let Some(listing) = files.list(Folder::Identities).await? else { return Ok(found) };
    let take = |file: FileName, bytes: Vec<u8>| {
        let Ok(text) = String::from_utf8(bytes) else { return };
        if let Ok(spec) = mirror::parse(&file_of(&file), &text)
            && let Ok(name) = X500Name::parse(&spec.name)
        {
            found.push(Present { place: Place::Shared(address.to_owned(), file), name, spec });
        }
    };
    files.read_each(listing.files, take).await?;
    found.sort_by(|one, other| one.spec.manifest.cmp(&other.spec.manifest));
    Ok(found)
}

/// The file of a manifest that hosts share, as each host has it in its copy.
pub fn file_of(file: &FileName) -> PathBuf {
    Path::new(crate::config::cluster::MANIFESTS).join(format!("{}.toml", file.name()))
}

/// Writes the manifest of an identity whose keys lie in `keys/SLUG`. Says where it is.
///
/// # Errors
/// It cannot be written.
pub fn add(
    context: &Context,
    config: &Config,
    name: &X500Name,
    slug: &str,
    cordapps: &[String],
) -> Result<Place, Problem> {
    let text = manifest::template(name.as_str(), cordapps, &mirror::keys_of(slug), None);
    if config.identity_source() == IdentitySource::Folder {
        let file = free_file(&config.identities_dir(), slug);
        files::write_atomically(&file, text.as_bytes())?;
        return Ok(Place::File(file));
    }
    let (checks, keys) = (Checks::of(config)?, config.keys().join(slug));
    context.block_on(async {
        let (files, sharing) = foundation::open_shared_files(config).await?;
        files.make_folders().await?;
        for number in 1..NAMES {
            let file = if number == 1 { slug.to_owned() } else { format!("{slug}-{number}") };
            let identity = SharedIdentity::new(&checks, &file, name, &text, &keys)?;
            if identity.check_owner(&files).await.is_ok() && identity.add(&files).await? {
                return Ok(Place::Shared(sharing.address.to_string(), identity.file().clone()));
            }
        }
        let text = format!("{NAMES} files that hosts share are named like {slug}");
        Err(Problem::new(Code::ManifestInvalid, text).remedy("remove those of identities that are not hosted any more"))
    })
}

/// A file name that is free: the short name, with a number if somebody took it.
fn free_file(folder: &Path, slug: &str) -> PathBuf {
    let plain = folder.join(format!("{slug}.toml"));
    if !plain.exists() {
        return plain;
    }
    (2_u32..).map(|number| folder.join(format!("{slug}-{number}.toml"))).find(|file| !file.exists()).unwrap_or(plain)
}

/// Removes a manifest. Its keys stay.
///
/// # Errors
/// It cannot be removed.
pub fn remove(context: &Context, config: &Config, place: &Place) -> Result<(), Problem> {
    match place {
        Place::File(file) => {
            std::fs::remove_file(file).map_err(|error| io_problem(Code::DirectoryUnwritable, "remove", file, &error))
        }
        Place::Shared(_, file) => context.block_on(async {
            let (files, _) = foundation::open_shared_files(config).await?;
            // Somebody else may have been faster.
            let _removed = files.remove(file).await?;
            Ok(())
        }),
    }
}

/// The manifest that a query means: by the name in it, or by the name of the file, for one that is broken.
///
/// # Errors
/// `identity-not-found`, `identity-ambiguous`; as [`present`].
pub fn find(context: &Context, config: &Config, query: &str) -> Result<(Place, String), Problem> {
    if query.trim().is_empty() {
        // It would fit all of them, and if there is one, that one.
        return Err(Problem::new(Code::IdentityNotFound, "no name is given").remedy("name the identity"));
    }
    if let Some(stem) = query.strip_suffix(".toml").filter(|_| !query.contains('/'))
        && let Some(place) = named(context, config, stem)?
    {
        return Ok((place, query.to_owned()));
    }
    let found = pick(present(context, config)?, query)?;
    Ok((found.place, found.name.as_str().to_owned()))
}

/// The manifest in the file of this name, whatever it says.
fn named(context: &Context, config: &Config, stem: &str) -> Result<Option<Place>, Problem> {
    if config.identity_source() == IdentitySource::Folder {
        let file = config.identities_dir().join(format!("{stem}.toml"));
        return Ok(file.symlink_metadata().is_ok_and(|found| !found.is_dir()).then_some(Place::File(file)));
    }
    let Some(file) = FileName::new(Folder::Identities, stem) else { return Ok(None) };
    context.block_on(async {
        let (files, sharing) = foundation::open_shared_files(config).await?;
        let found = files.read(&file).await?;
        Ok(found.map(|_| Place::Shared(sharing.address.to_string(), file)))
    })
}

/// What whoever gave a part of a name is told that fits more than one: which.
pub fn several(query: &str, names: &[X500Name]) -> Problem {
    let shown: Vec<&str> = names.iter().take(SHOWN).map(|name| name.as_str()).collect();
    let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
    let message = format!("'{query}' fits several identities: {}{more}", shown.join("; "));
    Problem::new(Code::IdentityAmbiguous, message).detail("identity", query)
}

/// The one of these manifests that a part of a name fits.
///
/// # Errors
/// `identity-not-found`, `identity-ambiguous`.
pub fn pick(present: Vec<Present>, query: &str) -> Result<Present, Problem> {
    let nobody =
        || Problem::new(Code::IdentityNotFound, format!("no manifest names '{query}'")).detail("identity", query);
    let name = match NameQuery::new(query).pick(present.iter().map(|present| &present.name)) {
        Found::One(name) => name.clone(),
        Found::Nobody => return Err(nobody()),
        Found::Several(names) => return Err(several(query, &names)),
    };
    present.into_iter().find(|present| present.name == name).ok_or_else(nobody)
}
