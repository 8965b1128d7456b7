//! Machine code of components, kept beside them from one network to the next: copying it takes no time, compiling it does.
//!
//! A host checks what it finds against a digest, so a copy that is not whole costs time and nothing else.

use std::ffi::OsString;
use std::fs;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// Where the code of a component that was built here is kept.
pub fn folder_of(component: &Path) -> PathBuf {
    component.with_extension("compiled")
}

/// Gives a network that has not run yet what a host before it has compiled.
///
/// # Errors
/// When it cannot be copied; the host compiles then.
pub fn lend(kept: &Path, code: &Path) -> Result<()> {
    fs::create_dir_all(code)?;
    for name in names(kept)? {
        fs::copy(kept.join(&name), code.join(&name))?;
    }
    Ok(())
}

/// Keeps what a host that is ready has, and nothing else: what it does not want is of an older build.
///
/// # Errors
/// When it cannot be copied; the next host compiles then.
pub fn keep(code: &Path, kept: &Path) -> Result<()> {
    fs::create_dir_all(kept)?;
    let wanted = names(code)?;
    for name in wanted.iter().filter(|name| !kept.join(name).exists()) {
        // By renaming, because other tests read meanwhile.
        let half = tempfile::NamedTempFile::new_in(kept.parent().unwrap_or(kept))?;
        fs::copy(code.join(name), half.path())?;
        half.persist(kept.join(name)).map_err(|error| error.error)?;
    }
    for name in names(kept)?.iter().filter(|name| !wanted.contains(name)) {
        match fs::remove_file(kept.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The files of a folder; none, if it is not there.
fn names(folder: &Path) -> Result<Vec<OsString>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name())).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::new(error.kind(), format!("{}: {error}", folder.display()))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_network_gets_what_the_last_one_had() {
        let files = tempfile::tempdir().unwrap();
        let [first, kept, second] = ["first", "kept", "second"].map(|name| files.path().join(name));
        lend(&kept, &first).unwrap();
        assert!(names(&first).unwrap().is_empty());
        fs::write(first.join("old"), "1").unwrap();
        keep(&first, &kept).unwrap();
        lend(&kept, &second).unwrap();
        assert_eq!(fs::read_to_string(second.join("old")).unwrap(), "1");

        fs::rename(second.join("old"), second.join("new")).unwrap();
        keep(&second, &kept).unwrap();
        assert_eq!(names(&kept).unwrap(), ["new"]);
        assert_eq!(names(&second).unwrap(), ["new"]);
    }
}
