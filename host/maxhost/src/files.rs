//! Writing files so that nobody ever sees half of one.

use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use maxhost_model::{Code, Problem};

/// A failed operation on a file as a problem; a full disk and a file to read that is not there have codes of their own.
pub fn io_problem(code: Code, what: &str, path: &Path, error: &std::io::Error) -> Problem {
    let code = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Code::DiskFull,
        _ if code == Code::FileUnreadable => unreadable(error),
        _ => code,
    };
    Problem::new(code, format!("cannot {what} {}: {error}", path.display())).detail("path", path.display().to_string())
}

/// The code for a file or folder that was named and could not be read.
pub fn unreadable(error: &std::io::Error) -> Code {
    if error.kind() == ErrorKind::NotFound { Code::FileNotFound } else { Code::FileUnreadable }
}

/// Reads a file, or what it is a name of, and no more of it than so much: `None` if there is more. A device tells no size
/// and may have no end.
///
/// # Errors
/// It cannot be opened or read.
pub fn read_at_most(path: &Path, most: u64) -> std::io::Result<Option<Vec<u8>>> {
    read_all(std::fs::File::open(path)?, most)
}

/// As [`read_at_most`], from anything that can be read.
///
/// # Errors
/// It cannot be read.
pub fn read_all(from: impl Read, most: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    from.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

/// Makes a folder and those above it.
///
/// # Errors
/// `directory-unwritable`, `disk-full`.
pub fn create_dir(path: &Path) -> Result<(), Problem> {
    std::fs::create_dir_all(path)
        .map_err(|error| io_problem(Code::DirectoryUnwritable, "make the folder", path, &error))
}

/// Writes a file beside its place, makes it durable, and moves it there.
///
/// # Errors
/// `directory-unwritable`, `disk-full`.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        // Hidden, so that whoever watches the folder passes it over.
        let mut file = tempfile::Builder::new().prefix(".new-").permissions(public()).tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_data()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|error| io_problem(Code::DirectoryUnwritable, "write", path, &error))
}

fn public() -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    std::fs::Permissions::from_mode(0o644)
}

/// Makes everything durable that was written to the file system of a folder.
///
/// # Errors
/// `directory-unwritable`, `disk-full`.
pub fn sync_file_system(folder: &Path) -> Result<(), Problem> {
    use std::os::fd::AsRawFd;
    let failed = |error| io_problem(Code::DirectoryUnwritable, "write", folder, &error);
    let handle = std::fs::File::open(folder).map_err(failed)?;
    // SAFETY: syncfs reads nothing but the descriptor, which `handle` keeps open for the length of the call.
    if unsafe { libc::syncfs(handle.as_raw_fd()) } == 0 { Ok(()) } else { Err(failed(std::io::Error::last_os_error())) }
}
