//! Files that are no code and can be attached to transactions: a folder, in which each is named by the SHA-256 of its bytes.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use maxhost_model::SecureHash;

/// What a file is called while it is written.
const PARTIAL: &str = ".partial-";

/// A folder of data files.
#[derive(Debug, Clone)]
pub struct DataFiles {
    folder: PathBuf,
}

impl DataFiles {
    /// Over this folder, which need not be there.
    #[must_use]
    pub fn new(folder: PathBuf) -> DataFiles {
        DataFiles { folder }
    }

    fn path(&self, id: &SecureHash) -> PathBuf {
        self.folder.join(id.to_string())
    }

    /// The size of the file with this id, if it is there, bytes. It is not looked into.
    #[must_use]
    pub fn size(&self, id: &SecureHash) -> Option<u64> {
        fs::metadata(self.path(id)).ok().filter(fs::Metadata::is_file).map(|found| found.len())
    }

    /// The file with this id; `None` if it is not there, or is not what it was.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, id: &SecureHash) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(id)) {
            Ok(bytes) => Ok((SecureHash::of(&bytes) == *id).then_some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All of them, by id, with their sizes in bytes.
    ///
    /// # Errors
    /// The folder is there and cannot be read.
    pub fn list(&self) -> io::Result<Vec<(SecureHash, u64)>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<SecureHash>().ok());
        let mut found: Vec<_> = ids.filter_map(|id| self.size(&id).map(|size| (id, size))).collect();
        found.sort();
        Ok(found)
    }

    /// Adds a file, durably; one that is there stays. Folder and file are their owner's only, whatever the umask is. Returns its
    /// id and where it lies.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add(&self, bytes: &[u8]) -> io::Result<(SecureHash, PathBuf)> {
        let id = SecureHash::of(bytes);
        let target = self.path(&id);
        if self.read(&id)?.is_some() {
            return Ok((id, target));
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        // A temporary file is its owner's only.
        let mut file = tempfile::Builder::new().prefix(PARTIAL).tempfile_in(&self.folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(&target).map_err(|error| error.error)?;
        sync(&self.folder)?;
        Ok((id, target))
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_is_found_by_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let files = DataFiles::new(folder.path().join("attachments"));
        assert!(files.list().unwrap().is_empty());
        let (id, path) = files.add(b"terms").unwrap();
        assert_eq!((id, files.add(b"terms").unwrap().0), (SecureHash::of(b"terms"), id));
        assert_eq!((files.size(&id), files.read(&id).unwrap()), (Some(5), Some(b"terms".to_vec())));
        assert_eq!(files.list().unwrap(), [(id, 5)]);
        std::fs::write(path, b"other terms").unwrap();
        assert_eq!(files.read(&id).unwrap(), None, "it is not what it was");
        assert_eq!(files.read(&SecureHash::of(b"none")).unwrap(), None);
    }
}
