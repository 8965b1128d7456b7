//! Files: written so that nobody ever sees half of one, read so that none can hold the reader up, and private where they
//! hold keys or what flows say.

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

/// Whether a folder that is needed is there and may be read.
///
/// # Errors
/// `file-not-found`; `file-unreadable` if it is no folder, or not the user's to read.
pub fn look_into(folder: &Path) -> Result<(), Problem> {
    let read = std::fs::read_dir(folder).map(drop);
    read.map_err(|error| io_problem(Code::FileUnreadable, "read the folder", folder, &error))
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

/// Reads the text of a regular file, of so many bytes at the most. A FIFO or a device is refused and not waited for.
///
/// # Errors
/// It cannot be opened or read, is no regular file, is longer, or is no UTF-8.
pub fn read_text(path: &Path, most: u64) -> std::io::Result<String> {
    use std::os::unix::fs::OpenOptionsExt;
    let refused = |why: String| std::io::Error::new(ErrorKind::InvalidData, why);
    // A FIFO without a writer is opened at once with this flag, and not read at all.
    let file = std::fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(refused("it is no regular file".to_owned()));
    }
    let bytes = read_all(file, most)?.ok_or_else(|| refused(format!("it is longer than {most} bytes")))?;
    String::from_utf8(bytes).map_err(|_| refused("it is no UTF-8".to_owned()))
}

/// Makes a folder and those above it.
///
/// # Errors
/// `directory-unwritable`, `disk-full`.
pub fn create_dir(path: &Path) -> Result<(), Problem> {
    std::fs::create_dir_all(path)
        .map_err(|error| io_problem(Code::DirectoryUnwritable, "make the folder", path, &error))
}

/// Makes a folder that only its owner may enter, and those above it as usual; narrows the permissions of one that is there
/// already and is ours.
///
/// # Errors
/// `directory-unwritable`, `disk-full`.
pub fn create_private_dir(path: &Path) -> Result<(), Problem> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_dir(parent)?;
    }
    let made = match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    };
    made.map_err(|error| io_problem(Code::DirectoryUnwritable, "make the folder", path, &error))?;
    let mode = std::fs::metadata(path).map_or(0o700, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        // A folder of another owner, such as a mounted volume, stays as it is; `maxhost doctor` tells.
        let _not_ours = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700));
    }
    Ok(())
}

/// Takes from others what they may do with all that is below a folder, where it is ours: an earlier version, or a copy, may
/// have left it open. Links are not followed.
pub fn narrow(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            let mode = metadata.permissions().mode();
            if !metadata.is_symlink() && mode & 0o077 != 0 {
                // As for the folder itself.
                let _not_ours = std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(mode & 0o700));
            }
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
}

/// Whatever this process makes from now on is its user's alone, whatever the umask was.
pub fn keep_private() {
    // SAFETY: umask takes a number, touches no memory and cannot fail.
    unsafe { libc::umask(0o077) };
}

/// Writes a file beside its place, moves it there, and makes both the file and its name durable.
///
/// # Errors
/// `directory-unwritable`, `disk-full`.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    write(path, bytes, 0o644)
}

/// As [`write_atomically`], for a file that is its owner's alone.
///
/// # Errors
/// `directory-unwritable`, `disk-full`.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    write(path, bytes, 0o600)
}

/// As [`write_private`], of what can be had again: it is not made durable.
///
/// # Errors
/// `directory-unwritable`, `disk-full`.
pub fn write_copy(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    place(path, bytes, 0o600, false)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Problem> {
    place(path, bytes, mode, true)
}

fn place(path: &Path, bytes: &[u8], mode: u32, is_durable: bool) -> Result<(), Problem> {
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::Permissions::from_mode(mode);
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        // Hidden, so that whoever watches the folder passes it over.
        let mut file = tempfile::Builder::new().prefix(".new-").permissions(permissions.clone()).tempfile_in(folder)?;
        file.write_all(bytes)?;
        if !is_durable {
            return file.persist(path).map(drop).map_err(|error| error.error);
        }
        file.as_file().sync_data()?;
        file.persist(path).map_err(|error| error.error)?;
        std::fs::File::open(folder)?.sync_all()
    };
    write().map_err(|error| io_problem(Code::DirectoryUnwritable, "write", path, &error))
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
