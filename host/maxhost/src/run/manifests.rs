//! The folder of manifests: what changed in it since it was last looked at. It is one that people and commands write, or a
//! host's own copy of the manifests that hosts share: both are read alike.
//!
//! A file is read again only if its time, size or inode changed, so that looking at 10,000 of them is 10,000 calls of
//! `stat`. What is remembered of a file is its stamp and the name in it.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maxhost_flows::options::IdentitySpec;
use maxhost_model::{Code, Problem};
use maxhost_ownership_zookeeper::LARGEST_FILE;

use crate::config::Config;
use crate::config::cluster::IdentitySource;
use crate::files::io_problem;
use crate::mirror;
use crate::{files, manifest};

/// No manifest is larger; one that is is refused unread.
pub const LARGEST_MANIFEST: u64 = 1 << 20;

/// What the host has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Host this identity, or take its new settings.
    Put(IdentitySpec),
    /// This manifest cannot be used.
    Quarantine {
        /// The file.
        file: PathBuf,
        /// The name in it, if that much is right.
        name: Option<String>,
        /// What is wrong.
        problem: Problem,
    },
    /// Let go of what is known under this name (or, for a quarantined manifest without one, this file name).
    Remove(String),
}

/// Whether a file may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified_ns: i128,
    size: u64,
    inode: u64,
}

#[derive(Debug, Clone)]
struct Known {
    stamp: Stamp,
    /// What the host knows it as.
    label: Arc<str>,
    /// Hosted under that name; otherwise quarantined.
    good: bool,
}

/// The folder as it was when last looked at.
#[derive(Debug)]
pub struct Manifests {
    folder: PathBuf,
    files: BTreeMap<Box<str>, Known>,
    /// Which file a hosted name is in.
    owners: HashMap<Arc<str>, Box<str>>,
    /// What was told and could not be done: told again at the next look.
    undone: Vec<Change>,
    /// It is a copy of manifests that hosts share.
    is_mirror: bool,
}

impl Manifests {
    /// A folder that was never looked at.
    pub fn new(folder: PathBuf) -> Manifests {
        let (files, owners) = (BTreeMap::new(), HashMap::new());
        Manifests { folder, files, owners, undone: Vec::new(), is_mirror: false }
    }

    /// The folder that a host reads.
    pub fn of(config: &Config) -> Manifests {
        let is_mirror = config.identity_source() == IdentitySource::Ownership;
        Manifests { is_mirror, ..Manifests::new(config.identities()) }
    }

    /// Looks at the folder and says what changed: removals first, then files by name.
    ///
    /// # Errors
    /// The folder cannot be read; nothing has changed then.
    pub fn scan(&mut self) -> Result<Vec<Change>, Problem> {
        let present = list(&self.folder)?;
        let mut changes = Vec::new();
        let gone: Vec<Box<str>> = self.files.keys().filter(|file| !present.contains_key(*file)).cloned().collect();
        for file in &gone {
            self.forget(file, &mut changes);
        }
        for (file, stamp) in &present {
            if self.files.get(file).is_none_or(|known| known.stamp != *stamp) {
                self.read(file, *stamp, &mut changes);
            }
        }
        if changes.iter().any(|change| matches!(change, Change::Remove(_))) {
            self.retry_quarantined(&mut changes);
        }
        let mut undone = std::mem::take(&mut self.undone);
        undone.retain(|change| self.is_still_due(change, &changes));
        undone.append(&mut changes);
        Ok(undone)
    }

    /// Whether a change that could not be acted on is what its file still asks for.
    fn is_still_due(&self, change: &Change, newer: &[Change]) -> bool {
        match change {
            Change::Put(spec) => {
                let file = spec.manifest.file_name().and_then(|file| file.to_str());
                let owner = self.owners.get(spec.name.as_str()).map(|owner| &**owner);
                owner.is_some()
                    && owner == file
                    && !newer.iter().any(|change| matches!(change, Change::Put(newer) if newer.name == spec.name))
            }
            Change::Remove(label) => !self.files.values().any(|known| *known.label == **label),
            // Acted on in memory only, which does not fail.
            Change::Quarantine { .. } => false,
        }
    }

    /// These changes could not be acted on.
    pub fn undo(&mut self, changes: Vec<Change>) {
        self.undone = changes;
    }

    /// Whether a file holds a hosted identity.
    pub fn is_good(&self, file: &Path) -> bool {
        let name = file.file_name().and_then(|name| name.to_str());
        name.and_then(|name| self.files.get(name)).is_some_and(|known| known.good)
    }

    /// Reads quarantined manifests again: the name may have been another file's.
    fn retry_quarantined(&mut self, changes: &mut Vec<Change>) {
        let bad: Vec<(Box<str>, Stamp)> = self
            .files
            .iter()
            .filter(|(_, known)| !known.good)
            .map(|(file, known)| (file.clone(), known.stamp))
            .collect();
        for (file, stamp) in bad {
            self.read(&file, stamp, changes);
        }
    }

    fn forget(&mut self, file: &str, changes: &mut Vec<Change>) {
        if let Some(known) = self.files.remove(file) {
            if known.good {
                self.owners.remove(&known.label);
            }
            changes.push(Change::Remove(known.label.to_string()));
        }
    }

    fn read(&mut self, file: &str, stamp: Stamp, changes: &mut Vec<Change>) {
        let path = self.folder.join(file);
        let most = if self.is_mirror { LARGEST_FILE as u64 } else { LARGEST_MANIFEST };
        let parse = if self.is_mirror { mirror::parse } else { manifest::parse };
        let outcome = match files::read_text(&path, most) {
            Ok(text) => parse(&path, &text).map_err(|bad| (bad.name, bad.problem)),
            Err(error) => {
                let problem = Problem::new(Code::FileUnreadable, format!("cannot read {}: {error}", path.display()));
                Err((None, problem))
            }
        };
        let outcome = outcome.and_then(|spec| match self.owners.get(spec.name.as_str()) {
            Some(owner) if **owner != *file => {
                let message = format!("{}: {} is in {owner} already", path.display(), spec.name);
                let problem = Problem::new(Code::ManifestInvalid, message)
                    .remedy("remove one of the two manifests")
                    .detail("file", path.display().to_string());
                // Not by its name: that is the other's.
                Err((None, problem))
            }
            _ => Ok(spec),
        });
        let label = match &outcome {
            Ok(spec) => spec.name.clone(),
            Err((name, _)) => {
                let free =
                    name.as_ref().filter(|name| self.owners.get(name.as_str()).is_none_or(|owner| **owner == *file));
                free.cloned().unwrap_or_else(|| file.to_owned())
            }
        };
        // Whoever was known by another name goes first.
        if self.files.get(file).is_some_and(|known| *known.label != *label) {
            self.forget(file, changes);
        }
        let label: Arc<str> = label.into();
        let good = outcome.is_ok();
        if good {
            self.owners.insert(label.clone(), file.into());
        } else if self.owners.get(&label).is_some_and(|owner| **owner == *file) {
            self.owners.remove(&label);
        }
        self.files.insert(file.into(), Known { stamp, label: label.clone(), good });
        changes.push(match outcome {
            Ok(spec) => Change::Put(spec),
            Err((_, problem)) => {
                let name = (*label != *file).then(|| label.to_string());
                Change::Quarantine { file: path, name, problem }
            }
        });
    }
}

/// The manifests of a folder with their stamps.
fn list(folder: &Path) -> Result<BTreeMap<Box<str>, Stamp>, Problem> {
    let unreadable = |error: std::io::Error| io_problem(Code::FileUnreadable, "read the folder", folder, &error);
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.ends_with(".toml") && !name.starts_with('.')) else {
            continue;
        };
        // A symbolic link counts as its target, and for itself where that is not there: then it is quarantined. Removed between
        // listing and looking: as if it had not been there.
        let looked = std::fs::metadata(entry.path()).or_else(|_| std::fs::symlink_metadata(entry.path()));
        let Ok(metadata) = looked else { continue };
        let modified_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        found.insert(name.into(), Stamp { modified_ns, size: metadata.len(), inode: metadata.ino() });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use tempfile::TempDir;

    fn folder(files: &[(&str, &str)]) -> (TempDir, Manifests) {
        let dir = tempfile::tempdir().unwrap();
        for (file, name) in files {
            put(&dir, file, name);
        }
        let manifests = Manifests::new(dir.path().to_owned());
        (dir, manifests)
    }

    /// Moved into place, so that the stamp changes even within one tick of the clock.
    fn put(dir: &TempDir, file: &str, organisation: &str) {
        let text = manifest::template(&name(organisation), &[], "../keys/x", None);
        write(dir, file, &text);
    }

    fn write(dir: &TempDir, file: &str, text: &str) {
        crate::files::write_atomically(&dir.path().join(file), text.as_bytes()).unwrap();
    }

    fn name(organisation: &str) -> String {
        format!("O={organisation}, L=London, C=GB")
    }

    fn shown(changes: &[Change]) -> Vec<String> {
        changes
            .iter()
            .map(|change| match change {
                Change::Put(spec) => format!("put {}", spec.name),
                Change::Quarantine { name, problem, .. } => format!("quarantine {name:?} {}", problem.code),
                Change::Remove(label) => format!("remove {label}"),
            })
            .collect()
    }

    #[test]
    fn only_what_changed_is_told() {
        let (dir, mut manifests) =
            folder(&[("a.toml", "Alice"), ("b.toml", "Bob"), (".c.toml", "Carol"), ("d.txt", "Dave")]);
        assert_eq!(
            shown(&manifests.scan().unwrap()),
            [format!("put {}", name("Alice")), format!("put {}", name("Bob"))]
        );
        assert!(manifests.scan().unwrap().is_empty());
        put(&dir, "b.toml", "Bob");
        put(&dir, "e.toml", "Eve");
        std::fs::remove_file(dir.path().join("a.toml")).unwrap();
        let expected =
            [format!("remove {}", name("Alice")), format!("put {}", name("Bob")), format!("put {}", name("Eve"))];
        assert_eq!(shown(&manifests.scan().unwrap()), expected);
    }

    #[test]
    fn what_could_not_be_done_is_told_again_unless_the_files_say_otherwise() {
        let (dir, mut manifests) = folder(&[("a.toml", "Alice"), ("b.toml", "Bob")]);
        let first = manifests.scan().unwrap();
        manifests.undo(first.clone());
        assert_eq!(manifests.scan().unwrap(), first);
        manifests.undo(first);
        std::fs::remove_file(dir.path().join("a.toml")).unwrap();
        let second = manifests.scan().unwrap();
        assert_eq!(shown(&second), [format!("put {}", name("Bob")), format!("remove {}", name("Alice"))]);
        manifests.undo(vec![Change::Remove(name("Alice"))]);
        assert_eq!(shown(&manifests.scan().unwrap()), [format!("remove {}", name("Alice"))]);
        manifests.undo(vec![Change::Remove(name("Alice"))]);
        put(&dir, "a.toml", "Alice");
        assert_eq!(shown(&manifests.scan().unwrap()), [format!("put {}", name("Alice"))]);
    }

    #[test]
    fn what_is_no_file_is_quarantined_and_holds_nobody_up() {
        let (dir, mut manifests) = folder(&[("a.toml", "Alice")]);
        let path = std::ffi::CString::new(dir.path().join("fifo.toml").to_str().unwrap()).unwrap();
        // SAFETY: mkfifo reads a C string, which lives through the call.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
        std::fs::create_dir(dir.path().join("folder.toml")).unwrap();
        let told = shown(&manifests.scan().unwrap());
        assert_eq!(
            told,
            [
                format!("put {}", name("Alice")),
                "quarantine None file-unreadable".to_owned(),
                "quarantine None file-unreadable".to_owned()
            ]
        );
    }

    #[test]
    fn a_link_to_nothing_is_quarantined_until_there_is_something() {
        let (dir, mut manifests) = folder(&[]);
        std::os::unix::fs::symlink("elsewhere", dir.path().join("a.toml")).unwrap();
        assert_eq!(shown(&manifests.scan().unwrap()), ["quarantine None file-unreadable"]);
        assert!(manifests.scan().unwrap().is_empty());
        put(&dir, "elsewhere", "Alice");
        assert_eq!(shown(&manifests.scan().unwrap()), ["remove a.toml".to_owned(), format!("put {}", name("Alice"))]);
        std::fs::remove_file(dir.path().join("elsewhere")).unwrap();
        let mut told = shown(&manifests.scan().unwrap());
        // It is looked at once more after a removal.
        told.dedup();
        assert_eq!(told, [format!("remove {}", name("Alice")), "quarantine None file-unreadable".to_owned()]);
    }

    #[test]
    fn shared_manifests_are_smaller_and_name_their_own_keys() {
        let (dir, manifests) = folder(&[]);
        let mut manifests = Manifests { is_mirror: true, ..manifests };
        write(&dir, "alice.toml", &manifest::template(&name("Alice"), &[], "../keys/alice", None));
        write(&dir, "bob.toml", &manifest::template(&name("Bob"), &[], "../keys/alice", None));
        let carol = manifest::template(&name("Carol"), &[], "../keys/carol", None);
        let room = LARGEST_FILE - carol.len() - 2;
        write(&dir, "carol.toml", &format!("{carol}#{}\n", "x".repeat(room)));
        write(&dir, "dave.toml", &"#".repeat(LARGEST_FILE + 1));
        let expected = [
            format!("put {}", name("Alice")),
            format!("quarantine Some(\"{}\") manifest-invalid", name("Bob")),
            format!("put {}", name("Carol")),
            "quarantine None file-unreadable".to_owned(),
        ];
        assert_eq!(shown(&manifests.scan().unwrap()), expected);
    }

    #[test]
    fn another_name_in_a_file_replaces_the_first() {
        let (dir, mut manifests) = folder(&[("a.toml", "Alice")]);
        manifests.scan().unwrap();
        put(&dir, "a.toml", "Anna");
        let expected = [format!("remove {}", name("Alice")), format!("put {}", name("Anna"))];
        assert_eq!(shown(&manifests.scan().unwrap()), expected);
    }

    #[test]
    fn a_broken_manifest_is_quarantined_by_name_if_it_has_one_and_comes_back_mended() {
        let (dir, mut manifests) = folder(&[("a.toml", "Alice")]);
        manifests.scan().unwrap();
        write(&dir, "a.toml", &format!("name = \"{}\"\nkeys = \"k\"\nbroken = 1\n", name("Alice")));
        write(&dir, "b.toml", "name = \"nobody\"\n");
        let expected = [
            format!("quarantine Some(\"{}\") manifest-invalid", name("Alice")),
            "quarantine None manifest-invalid".to_owned(),
        ];
        assert_eq!(shown(&manifests.scan().unwrap()), expected);
        put(&dir, "a.toml", "Alice");
        put(&dir, "b.toml", "Bob");
        let expected = [format!("put {}", name("Alice")), "remove b.toml".to_owned(), format!("put {}", name("Bob"))];
        assert_eq!(shown(&manifests.scan().unwrap()), expected);
    }

    #[test]
    fn a_name_belongs_to_one_file_until_that_is_gone() {
        let (dir, mut manifests) = folder(&[("a.toml", "Alice"), ("b.toml", "Alice")]);
        let expected = [format!("put {}", name("Alice")), "quarantine None manifest-invalid".to_owned()];
        assert_eq!(shown(&manifests.scan().unwrap()), expected);
        std::fs::remove_file(dir.path().join("a.toml")).unwrap();
        let expected =
            [format!("remove {}", name("Alice")), "remove b.toml".to_owned(), format!("put {}", name("Alice"))];
        assert_eq!(shown(&manifests.scan().unwrap()), expected);
    }
}
