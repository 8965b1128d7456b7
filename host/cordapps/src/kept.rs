//! Copies of components, so that a flow can end on the code it was started with when the folder of installed ones has
//! something newer. A file is named by the SHA-256 of its bytes and is believed only if it has it.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::ComponentHash;

/// So many kept components that nobody names stay when the folder is cleaned, the newest ones: whoever goes back to the
/// version before finds it, and a folder that is installed into every minute does not grow.
pub const KEEP_UNNAMED: usize = 16;

/// The largest component that is read, bytes.
const LARGEST: u64 = 256 << 20;
/// What a file is called while it is written.
const PARTIAL: &str = ".partial-";

/// The folder of kept components.
#[derive(Debug)]
pub(crate) struct Kept {
    folder: PathBuf,
}

/// Reads a component, which must be a plain file of at most 256 MiB.
pub(crate) fn read_component(path: &Path) -> io::Result<Vec<u8>> {
    let found = fs::metadata(path)?;
    if !found.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file"));
    }
    if found.len() > LARGEST {
        let text = format!("it has {} bytes; {LARGEST} are allowed", found.len());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    fs::read(path)
}

pub(crate) fn hash_of(bytes: &[u8]) -> ComponentHash {
    Sha256::digest(bytes).into()
}

impl Kept {
    pub fn new(folder: PathBuf) -> Kept {
        Kept { folder }
    }

    fn path(&self, hash: &ComponentHash) -> PathBuf {
        self.folder.join(format!("{}.wasm", hex::encode(hash)))
    }

    /// Whether there is a copy. It is not looked into: it is compared with its hash when it is read.
    pub fn has(&self, hash: &ComponentHash) -> bool {
        self.path(hash).is_file()
    }

    /// Keeps a component: the copy and its name are durable when this returns. A copy that is there is replaced, so that
    /// a damaged one is mended.
    pub fn keep(&self, hash: &ComponentHash, bytes: &[u8]) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let mut file = tempfile::Builder::new().prefix(PARTIAL).tempfile_in(&self.folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(self.path(hash)).map_err(|error| error.error)?;
        fs::File::open(&self.folder)?.sync_all()
    }

    /// The copy of a component. One that does not have its hash is an error of kind `InvalidData`.
    pub fn read(&self, hash: &ComponentHash) -> io::Result<Vec<u8>> {
        let bytes = read_component(&self.path(hash))?;
        match hash_of(&bytes) == *hash {
            true => Ok(bytes),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "its bytes do not have the hash in its name")),
        }
    }

    /// The hashes of copies that `named` does not have and that are more than [`KEEP_UNNAMED`], oldest first.
    pub fn unnamed(&self, named: &HashSet<ComponentHash>) -> io::Result<Vec<ComponentHash>> {
        let mut found: Vec<(SystemTime, ComponentHash)> = Vec::new();
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let hash = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| {
                let mut hash = [0; 32];
                hex::decode_to_slice(stem, &mut hash).ok().map(|()| hash)
            });
            if let Some(hash) = hash
                && path.extension().is_some_and(|extension| extension == "wasm")
                && !named.contains(&hash)
            {
                found.push((entry.metadata()?.modified()?, hash));
            }
        }
        found.sort();
        found.truncate(found.len().saturating_sub(KEEP_UNNAMED));
        Ok(found.into_iter().map(|(_, hash)| hash).collect())
    }

    /// Removes a copy; one that is not there is no error.
    pub fn remove(&self, hash: &ComponentHash) -> io::Result<()> {
        match fs::remove_file(self.path(hash)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes what a host left that was killed while it wrote. Called before anything is written.
    pub fn clear_partial(&self) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PARTIAL)) {
            if let Err(error) = fs::remove_file(entry.path()) {
                tracing::warn!(file = %entry.path().display(), %error, "a half-written component cannot be removed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn folder() -> (tempfile::TempDir, Kept) {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path().join("components"));
        (folder, kept)
    }

    #[test]
    fn a_copy_that_was_damaged_is_not_believed_and_is_mended_by_keeping_it_again() {
        let (_folder, kept) = folder();
        let (bytes, hash) = (b"a component", hash_of(b"a component"));
        kept.keep(&hash, bytes).unwrap();
        assert_eq!(kept.read(&hash).unwrap(), bytes);
        fs::write(kept.path(&hash), b"a cOmponent").unwrap();
        assert_eq!(kept.read(&hash).unwrap_err().kind(), io::ErrorKind::InvalidData);
        kept.keep(&hash, bytes).unwrap();
        assert_eq!(kept.read(&hash).unwrap(), bytes);
        fs::write(kept.path(&hash), b"").unwrap();
        assert!(kept.read(&hash).is_err());
    }

    #[test]
    fn only_the_newest_of_what_nobody_names_stay() {
        let (_folder, kept) = folder();
        assert_eq!(kept.unnamed(&HashSet::new()).unwrap(), Vec::<ComponentHash>::new());
        let mut hashes = Vec::new();
        for number in 0..KEEP_UNNAMED as u32 + 5 {
            let bytes = number.to_be_bytes();
            let hash = hash_of(&bytes);
            kept.keep(&hash, &bytes).unwrap();
            let file = fs::File::options().write(true).open(kept.path(&hash)).unwrap();
            let modified = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(u64::from(number));
            file.set_modified(modified).unwrap();
            hashes.push(hash);
        }
        // The two oldest are named, so three are too many.
        let named: HashSet<ComponentHash> = hashes[..2].iter().copied().collect();
        let unnamed = kept.unnamed(&named).unwrap();
        assert_eq!(unnamed, hashes[2..5]);
        for hash in &unnamed {
            kept.remove(hash).unwrap();
            kept.remove(hash).unwrap();
        }
        assert_eq!(kept.unnamed(&named).unwrap(), Vec::<ComponentHash>::new());
        assert!(kept.has(&hashes[0]) && kept.has(&hashes[5]) && !kept.has(&hashes[2]));
    }

    #[test]
    fn a_copy_is_for_the_user_of_the_host_only_and_half_a_copy_is_cleared() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, kept) = folder();
        let hash = hash_of(b"x");
        kept.keep(&hash, b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&kept.folder), mode(&kept.path(&hash))), (0o700, 0o600));
        fs::write(kept.folder.join(".partial-abc"), b"half").unwrap();
        kept.clear_partial();
        assert_eq!(fs::read_dir(&kept.folder).unwrap().count(), 1);
    }

    #[test]
    fn a_pipe_is_not_read() {
        let (folder, _) = folder();
        let path = folder.path().join("pipe.wasm");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(read_component(&path).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
