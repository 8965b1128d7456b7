//! A copy, in folders, of the manifests and keys that hosts share by way of the ownership service.
//!
//! ```text
//! DIR/identities/NAME.toml     the manifest: a copy of the node /identities/NAME
//!     keys/NAME/               the sealed keys and certificates: the files of the node /keys/NAME
//! ```
//!
//! The folders look like those that `maxhost init` makes, so whoever reads manifests and keys need not know where they
//! came from. Nothing is made durable: a host compares its copy with the nodes when it starts.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use maxhost_flows::options::IdentitySpec;
use maxhost_model::{Code, Problem};
use maxhost_ownership_zookeeper::{FileChange, FileName, Folder};

use crate::config::cluster::{KEYS, MANIFESTS};
use crate::files::{self, io_problem};
use crate::key_files;
use crate::manifest::{self, BadManifest};

/// What begins the name of something that is not in its place yet.
const UNFINISHED: &str = ".new-";

/// The copy.
#[derive(Debug, Clone)]
pub struct Mirror {
    manifests: PathBuf,
    keys: PathBuf,
}

/// How the manifest of a file names its keys.
pub fn keys_of(name: &str) -> String {
    format!("../{KEYS}/{name}")
}

/// As [`manifest::parse`], of a manifest that hosts share: its keys are those of the same name, so that no manifest names
/// files elsewhere on a host.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse(file: &Path, text: &str) -> Result<IdentitySpec, BadManifest> {
    let spec = manifest::parse(file, text)?;
    let own = file.file_stem().and_then(|stem| stem.to_str()).map(keys_of).unwrap_or_default();
    if spec.keys == file.parent().unwrap_or(Path::new(".")).join(&own) {
        return Ok(spec);
    }
    let text = format!("{}: keys: a manifest that hosts share has keys = \"{own}\"", file.display());
    let problem = Problem::new(Code::ManifestInvalid, text)
        .remedy("put it there with `maxhost identity publish`, which sees to that")
        .detail("file", file.display().to_string());
    Err(BadManifest { name: Some(spec.name), problem })
}

impl Mirror {
    /// The copy in a folder, which is made if it is not there.
    ///
    /// # Errors
    /// `directory-unwritable`, `disk-full`.
    pub fn open(root: &Path) -> Result<Mirror, Problem> {
        let mirror = Mirror { manifests: root.join(MANIFESTS), keys: root.join(KEYS) };
        files::create_private_dir(root)?;
        for folder in [&mirror.manifests, &mirror.keys] {
            files::create_private_dir(folder)?;
        }
        // Left by a run that was killed.
        for name in entries(&mirror.keys)?.iter().filter(|name| name.starts_with(UNFINISHED)) {
            remove(&mirror.keys.join(name))?;
        }
        Ok(mirror)
    }

    /// What it has.
    ///
    /// # Errors
    /// `file-unreadable`.
    pub fn files(&self) -> Result<Vec<FileName>, Problem> {
        let manifests = entries(&self.manifests)?;
        let manifests =
            manifests.iter().filter_map(|name| FileName::new(Folder::Identities, name.strip_suffix(".toml")?));
        let keys = entries(&self.keys)?;
        let keys = keys.iter().filter_map(|name| FileName::new(Folder::Keys, name));
        Ok(manifests.chain(keys).collect())
    }

    /// Takes a change over. What is the same already is not written again.
    ///
    /// # Errors
    /// `directory-unwritable`, `disk-full`.
    pub fn apply(&self, change: &FileChange) -> Result<(), Problem> {
        match change {
            FileChange::Present(file, bytes) => match file.folder() {
                Folder::Identities => write(&self.manifest(file), bytes),
                Folder::Keys => self.write_keys(file, bytes),
            },
            FileChange::Absent(file) => match file.folder() {
                Folder::Identities => remove(&self.manifest(file)),
                Folder::Keys => remove(&self.keys.join(file.name())),
            },
        }
    }

    fn manifest(&self, file: &FileName) -> PathBuf {
        self.manifests.join(format!("{}.toml", file.name()))
    }

    /// A folder of keys appears as a whole. Keys that cannot be read are as good as none: the host says which identity has
    /// no keys, and the log why.
    fn write_keys(&self, file: &FileName, bytes: &[u8]) -> Result<(), Problem> {
        let folder = self.keys.join(file.name());
        let keys = match key_files::unpack(bytes) {
            Ok(keys) => keys,
            Err(reason) => {
                tracing::warn!(file = file.path(), reason, "shared keys cannot be used");
                return remove(&folder);
            }
        };
        if folder.is_dir() {
            let known: HashSet<&str> = keys.keys().map(String::as_str).collect();
            for name in entries(&folder)?.iter().filter(|name| !known.contains(name.as_str())) {
                remove(&folder.join(name))?;
            }
            return keys.iter().try_for_each(|(name, bytes)| write(&folder.join(name), bytes));
        }
        let fresh = self.keys.join(format!("{UNFINISHED}{}", file.name()));
        files::create_private_dir(&fresh)?;
        keys.iter().try_for_each(|(name, bytes)| write(&fresh.join(name), bytes))?;
        std::fs::rename(&fresh, &folder)
            .map_err(|error| io_problem(Code::DirectoryUnwritable, "make the folder", &folder, &error))
    }
}

fn entries(folder: &Path) -> Result<Vec<String>, Problem> {
    let unreadable = |error| io_problem(Code::FileUnreadable, "read the folder", folder, &error);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        names.extend(entry.map_err(unreadable)?.file_name().into_string());
    }
    Ok(names)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    let is_same = files::read_at_most(path, bytes.len() as u64).is_ok_and(|present| present.as_deref() == Some(bytes));
    if is_same { Ok(()) } else { files::write_copy(path, bytes) }
}

/// Removes a file, or a folder with what is in it.
fn remove(path: &Path) -> Result<(), Problem> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_problem(Code::DirectoryUnwritable, "remove", path, &error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn keys(dir: &Path, mark: &str) -> Vec<u8> {
        for name in ["name", "certificates.pem", "identity.key", "tls.key"] {
            std::fs::write(dir.join(name), mark).unwrap();
        }
        key_files::pack(dir).unwrap()
    }

    #[test]
    fn changes_are_taken_over_and_what_cannot_be_read_is_as_good_as_none() {
        let (dir, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = dir.path().join("shared");
        let mirror = Mirror::open(&root).unwrap();
        let [key, manifest] = Folder::ALL.map(|folder| FileName::new(folder, "alice").unwrap());
        let present = |file: &FileName, bytes: &[u8]| FileChange::Present(file.clone(), bytes.to_vec());
        let first = present(&key, &keys(source.path(), "1"));
        for change in [&first, &first, &present(&manifest, b"text")] {
            mirror.apply(change).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(root.join(name)).ok();
        assert_eq!(
            (read("keys/alice/tls.key").as_deref(), read("identities/alice.toml").as_deref()),
            (Some("1"), Some("text"))
        );
        let mut files = mirror.files().unwrap();
        files.sort();
        assert_eq!(files, [key.clone(), manifest.clone()]);

        std::fs::write(root.join("keys/alice/stray"), "x").unwrap();
        std::fs::create_dir(root.join("keys/.new-bob")).unwrap();
        let mirror = Mirror::open(&root).unwrap();
        mirror.apply(&present(&key, &keys(source.path(), "2"))).unwrap();
        assert_eq!((read("keys/alice/tls.key").as_deref(), read("keys/alice/stray")), (Some("2"), None));
        assert!(!root.join("keys/.new-bob").exists());

        mirror.apply(&present(&key, b"no keys")).unwrap();
        assert!(!root.join("keys/alice").exists());
        for change in [FileChange::Absent(manifest.clone()), FileChange::Absent(manifest), FileChange::Absent(key)] {
            mirror.apply(&change).unwrap();
        }
        assert!(mirror.files().unwrap().is_empty());
    }

    #[test]
    fn a_shared_manifest_names_its_own_keys() {
        let parse = |keys: &str| {
            let text = manifest::template("O=Alice, L=London, C=GB", &[], keys, None);
            parse(Path::new("/n/identities/alice.toml"), &text)
        };
        assert!(parse(&keys_of("alice")).is_ok());
        for other in ["../keys/bob", "/etc", "../keys/alice/..", "keys/alice"] {
            let bad = parse(other).unwrap_err();
            assert_eq!(bad.name.as_deref(), Some("O=Alice, L=London, C=GB"));
            assert!(bad.problem.message.contains("keys = \"../keys/alice\""), "{}", bad.problem);
        }
    }
}
