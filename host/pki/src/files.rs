//! Writing files so that each is there as a whole or not at all, and so that a power loss takes nothing back that was
//! reported as done.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{PkiError, Result};

/// Readable by everybody: certificates, signed data.
pub(crate) const PUBLIC: u32 = 0o644;
/// Readable by the owner only: keys, passphrases, and whatever lies beside them.
pub(crate) const PRIVATE: u32 = 0o600;

pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| PkiError::read(path, error))
}

pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PkiError::read(path, error)),
    }
}

/// Creates a folder and those above it; keys lie in folders that only the owner may enter.
pub(crate) fn create_folder(path: &Path, private: bool) -> Result<()> {
    let mode = if private { 0o700 } else { 0o755 };
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|error| PkiError::write(path, error))
}

/// Writes a file that must not be there yet. Not durable until [`sync_file_system`].
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let write = || OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(bytes);
    write().map_err(|error| PkiError::write(path, error))
}

/// Replaces a file as a whole. Not durable until [`sync_file_system`].
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let staged = staged_path(path);
    remove_file_if_there(&staged)?;
    write_new(&staged, bytes, mode)?;
    rename(&staged, path)
}

/// Replaces a file as a whole, durably.
pub(crate) fn replace_durably(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let staged = staged_path(path);
    remove_file_if_there(&staged)?;
    write_new(&staged, bytes, mode)?;
    sync(&staged)?;
    rename(&staged, path)?;
    path.parent().map_or(Ok(()), sync)
}

/// A name beside the file that no reader takes for it. It carries the process, so that two writers never share one.
fn staged_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| PkiError::write(to, error))
}

fn remove_file_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(PkiError::write(path, error)),
        _ => Ok(()),
    }
}

/// Makes one file, or the entries of one folder, durable.
pub(crate) fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| PkiError::write(path, error))
}

/// Makes everything durable that was written to the file system of this folder: one call for hundreds of small files,
/// where a call for each would take minutes on a slow disk.
pub(crate) fn sync_file_system(folder: &Path) -> Result<()> {
    let file = File::open(folder).map_err(|error| PkiError::read(folder, error))?;
    #[cfg(target_os = "linux")]
    {
        // SAFETY: syncfs takes an open descriptor and touches no memory of ours; `file` outlives the call.
        if unsafe { libc::syncfs(file.as_raw_fd()) } != 0 {
            return Err(PkiError::write(folder, std::io::Error::last_os_error()));
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        // SAFETY: sync takes no arguments and touches no memory of ours.
        unsafe { libc::sync() };
        let _ = file.as_raw_fd();
    }
    Ok(())
}

/// The names in a folder; none if it is not there.
pub(crate) fn list(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(PkiError::read(folder, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| PkiError::read(folder, error))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}
