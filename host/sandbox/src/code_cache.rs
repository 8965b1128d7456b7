//! Machine code on disk, so that a component is compiled once and not at every start.
//!
//! `HASH-ENGINE.cwasm` is the code, where HASH names the component's bytes and ENGINE all that the code depends on
//! (processor, wasmtime, settings); `HASH-ENGINE.blake3` is the digest of the code. What does not fit its digest is
//! compiled again, never executed.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::error::{SandboxError, chain};

/// A half-written file of this age has lost its writer.
const ABANDONED: Duration = Duration::from_secs(3600);
const PARTIAL: &str = ".partial-";

/// The folder of compiled code.
pub(crate) struct CodeCache {
    folder: PathBuf,
    /// Digest of all that compiled code depends on besides the component.
    engine: String,
}

impl CodeCache {
    /// Makes the folder when it is not there, takes it from all but the host's user, and clears what an older host
    /// left.
    pub(crate) fn open(folder: &Path, engine: &Engine) -> Result<CodeCache, SandboxError> {
        prepare(folder)
            .map_err(|source| SandboxError::CacheFolder { path: folder.to_owned(), source: Arc::new(source) })?;
        let cache = CodeCache { folder: folder.to_owned(), engine: compatibility(engine) };
        if let Err(error) = cache.clear_outdated() {
            tracing::warn!(folder = %folder.display(), %error, "cannot clear outdated code");
        }
        Ok(cache)
    }

    /// The code of this component, when it is there and whole.
    pub(crate) fn load(&self, engine: &Engine, hash: &[u8; 32]) -> Option<Component> {
        let path = self.path(hash, "cwasm");
        let code = fs::read(&path).ok()?;
        let digest = fs::read_to_string(self.path(hash, "blake3")).ok()?;
        if digest.trim() != blake3::hash(&code).to_hex().as_str() {
            tracing::warn!(file = %path.display(), "compiled code does not fit its digest: compiling again");
            return None;
        }
        // SAFETY: the file is machine code that this program wrote: the folder belongs to the host's user alone, the
        // name says which bytes, engine and settings it was made from, and its digest has just been found right. The
        // file is mapped, not copied, so it must not change from here on: writers replace files by renaming only.
        let loaded = unsafe { Component::deserialize_file(engine, &path) };
        match loaded {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(file = %path.display(), error = chain(&error), "compiled code is not usable");
                None
            }
        }
    }

    /// Keeps compiled code. A failure costs time at the next start and nothing else.
    pub(crate) fn store(&self, hash: &[u8; 32], code: &[u8]) {
        let digest = blake3::hash(code).to_hex();
        let stored = self
            .replace(&self.path(hash, "cwasm"), code)
            .and_then(|()| self.replace(&self.path(hash, "blake3"), digest.as_bytes()));
        if let Err(error) = stored {
            tracing::warn!(folder = %self.folder.display(), %error, "cannot keep compiled code: it is compiled again at the next start");
        }
    }

    fn path(&self, hash: &[u8; 32], extension: &str) -> PathBuf {
        self.folder.join(format!("{}-{}.{extension}", hex::encode(hash), self.engine))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file: NamedTempFile = tempfile::Builder::new().prefix(PARTIAL).tempfile_in(&self.folder)?;
        file.write_all(bytes)?;
        file.persist(path)?;
        Ok(())
    }

    /// Removes the code of components that are not wanted. Gives how many files went.
    pub(crate) fn retain(&self, is_wanted: impl Fn(&[u8; 32]) -> bool) -> io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let mut hash = [0; 32];
            let named = engine_of(&name).and_then(|_| name.split_once('-'));
            let is_code = named.is_some_and(|(stem, _)| hex::decode_to_slice(stem, &mut hash).is_ok());
            if is_code && !is_wanted(&hash) {
                fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn clear_outdated(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let abandoned = || -> io::Result<bool> {
                let age = SystemTime::now().duration_since(entry.metadata()?.modified()?);
                Ok(age.is_ok_and(|age| age > ABANDONED))
            };
            let outdated = match engine_of(&name) {
                Some(engine) => engine != self.engine,
                None => name.starts_with(PARTIAL) && abandoned()?,
            };
            if outdated {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Code from this folder is executed: nobody else may put any there.
fn prepare(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let us = tempfile::Builder::new().prefix(PARTIAL).tempfile_in(folder)?.as_file().metadata()?.uid();
    let found = fs::metadata(folder)?;
    if found.uid() != us {
        let reason = format!("it belongs to user {}, and the host runs as user {us}", found.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    if found.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// The part of a cache file's name that stands for the engine.
fn engine_of(name: &str) -> Option<&str> {
    let stem = name.strip_suffix(".cwasm").or_else(|| name.strip_suffix(".blake3"))?;
    stem.split_once('-').map(|(_, engine)| engine)
}

/// wasmtime's own check at loading lets code through that was compiled with other settings of the code generator; this
/// digest tells it apart.
fn compatibility(engine: &Engine) -> String {
    let mut digest = Digest(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut digest);
    digest.0.finalize().to_hex()[..16].to_owned()
}

struct Digest(blake3::Hasher);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.finalize();
        let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn code_of_another_engine_is_cleared_and_foreign_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = CodeCache::open(folder.path(), &engine).unwrap();
        cache.store(&[7; 32], b"code");
        let kept = cache.path(&[7; 32], "cwasm");
        let old = folder.path().join(format!("{}-0123456789abcdef.cwasm", hex::encode([7; 32])));
        let foreign = folder.path().join("README");
        fs::write(&old, b"old").unwrap();
        fs::write(&foreign, b"hello").unwrap();
        CodeCache::open(folder.path(), &engine).unwrap();
        assert!(kept.exists() && foreign.exists());
        assert!(!old.exists());
    }

    #[test]
    fn what_is_no_code_is_not_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = CodeCache::open(folder.path(), &engine).unwrap();
        assert!(cache.load(&engine, &[1; 32]).is_none());
        cache.store(&[1; 32], b"its digest is right, but it is no machine code");
        assert!(cache.load(&engine, &[1; 32]).is_none());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        let file = NamedTempFile::new().unwrap();
        let Err(error) = CodeCache::open(&file.path().join("cache"), &Engine::default()) else {
            panic!("made a folder in a file")
        };
        assert!(error.is_retriable());
        assert_eq!(maxhost_model::Problem::from(error).code, maxhost_model::Code::DirectoryUnwritable);
    }
}
