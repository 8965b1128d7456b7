//! Machine code of components, kept beside them from one network to the next: copying it takes no time, compiling it does.
//!
//! A host checks what it finds against a digest, so a copy that is not whole costs time and nothing else.

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
    for file in files(kept)? {
        fs::create_dir_all(folder_in(code, &file))?;
        fs::copy(kept.join(&file), code.join(&file))?;
    }
    Ok(())
}

/// Keeps what a host that is ready has, and nothing else: what it does not want is of an older build.
///
/// # Errors
/// When it cannot be copied; the next host compiles then.
pub fn keep(code: &Path, kept: &Path) -> Result<()> {
    let wanted = files(code)?;
    for file in wanted.iter().filter(|file| !kept.join(file).exists()) {
        fs::create_dir_all(folder_in(kept, file))?;
        // By renaming, because other tests read meanwhile.
        let half = tempfile::NamedTempFile::new_in(kept.parent().unwrap_or(kept))?;
        fs::copy(code.join(file), half.path())?;
        half.persist(kept.join(file)).map_err(|error| error.error)?;
    }
    for file in files(kept)?.iter().filter(|file| !wanted.contains(file)) {
        match fs::remove_file(kept.join(file)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The folder in which a file lies whose path is relative to another.
fn folder_in(folder: &Path, file: &Path) -> PathBuf {
    file.parent().map_or_else(|| folder.to_owned(), |inner| folder.join(inner))
}

/// The files of a folder and of those in it, by their paths from there: contracts are in a folder of their own. None, if it is
/// not there.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(inner) = folders.pop() {
        let place = folder.join(&inner);
        let failed = |error: Error| Error::new(error.kind(), format!("{}: {error}", place.display()));
        let entries = match fs::read_dir(&place) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let entry = entry?;
            let path = inner.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_network_gets_what_the_last_one_had() {
        let root = tempfile::tempdir().unwrap();
        let [first, kept, second] = ["first", "kept", "second"].map(|name| root.path().join(name));
        lend(&kept, &first).unwrap();
        assert!(files(&first).unwrap().is_empty());
        fs::create_dir_all(first.join("contracts")).unwrap();
        fs::write(first.join("contracts/cash"), "2").unwrap();
        fs::write(first.join("old"), "1").unwrap();
        keep(&first, &kept).unwrap();
        lend(&kept, &second).unwrap();
        assert_eq!(fs::read_to_string(second.join("old")).unwrap(), "1");
        assert_eq!(fs::read_to_string(second.join("contracts/cash")).unwrap(), "2");

        fs::rename(second.join("old"), second.join("new")).unwrap();
        keep(&second, &kept).unwrap();
        for folder in [&kept, &second] {
            let mut found = files(folder).unwrap();
            found.sort();
            assert_eq!(found, ["contracts/cash", "new"].map(PathBuf::from));
        }
    }
}
