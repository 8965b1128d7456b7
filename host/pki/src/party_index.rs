//! The index of a network's node infos: name and key of each, so that listing ten thousand does not read ten thousand
//! files. It is a cache and proves nothing: a line counts only while the file's size and time are those in it, and what
//! is looked up by name is verified from the file.

use std::collections::HashMap;
use std::fs::{Metadata, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use maxhost_model::{PublicKey, SecureHash, X500Name};

use crate::error::{PkiError, Result};
use crate::files;
use crate::layout::name_hash;

const INDEX_FILE: &str = "parties";
/// The first line; an index that begins otherwise is ignored and written anew.
const HEADER: &str = "# index of node-infos/ v1: name hash, size, modified (ns), key, name. Can be deleted.\n";

/// Tells whether a file has changed since it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    pub(crate) modified_ns: u64,
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Stamp {
        let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        Stamp { size: metadata.len(), modified_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX) }
    }
}

/// What the index says of one node info.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) stamp: Stamp,
    pub(crate) key: PublicKey,
    pub(crate) name: X500Name,
}

impl Line {
    fn write(&self, text: &mut String) {
        // A locality may hold a line break, which this form cannot carry; such a file is simply read again.
        if self.name.as_str().contains(['\n', '\r']) {
            return;
        }
        let Stamp { size, modified_ns } = self.stamp;
        let (hash, key) = (name_hash(&self.name), hex::encode(self.key.spki()));
        text.push_str(&format!("{hash} {size} {modified_ns} {key} {}\n", self.name));
    }

    fn parse(text: &str) -> Option<(SecureHash, Line)> {
        let mut parts = text.splitn(5, ' ');
        let hash: SecureHash = parts.next()?.parse().ok()?;
        let size = parts.next()?.parse().ok()?;
        let modified_ns = parts.next()?.parse().ok()?;
        let key = PublicKey::from_spki(&hex::decode(parts.next()?).ok()?).ok()?;
        let name = X500Name::parse(parts.next()?).ok()?;
        (name_hash(&name) == hash).then_some((hash, Line { stamp: Stamp { size, modified_ns }, key, name }))
    }
}

/// Reads the index; an unreadable one is an empty one, a torn or bad line is left out.
pub(crate) fn read(network: &Path) -> HashMap<SecureHash, Line> {
    let Ok(bytes) = std::fs::read(network.join(INDEX_FILE)) else { return HashMap::new() };
    let text = String::from_utf8_lossy(&bytes);
    let Some(lines) = text.strip_prefix(HEADER) else { return HashMap::new() };
    lines.split_inclusive('\n').filter_map(|line| Line::parse(line.strip_suffix('\n')?)).collect()
}

/// Writes the index anew.
pub(crate) fn write<'a>(network: &Path, lines: impl Iterator<Item = &'a Line>) -> Result<()> {
    let mut text = HEADER.to_owned();
    lines.for_each(|line| line.write(&mut text));
    files::replace(&network.join(INDEX_FILE), text.as_bytes(), files::PUBLIC)
}

/// Adds lines to the index.
pub(crate) fn append(network: &Path, lines: &[Line]) -> Result<()> {
    let path = network.join(INDEX_FILE);
    let add = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).mode(files::PUBLIC).open(&path)?;
        let mut text = if file.metadata()?.len() == 0 { HEADER.to_owned() } else { String::new() };
        lines.iter().for_each(|line| line.write(&mut text));
        file.write_all(text.as_bytes())
    };
    add().map_err(|error| PkiError::write(&path, error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use maxhost_model::KeyAlgorithm;

    use super::*;

    fn line(name: &str, size: u64) -> Line {
        Line {
            stamp: Stamp { size, modified_ns: 7 },
            key: PublicKey::from_raw(KeyAlgorithm::Ed25519, &[3; 32]).unwrap(),
            name: name.parse().unwrap(),
        }
    }

    #[test]
    fn lines_are_kept_and_the_last_one_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).is_empty());
        let alice = line("O=Alice, L=London, C=GB", 1);
        append(dir.path(), &[alice.clone(), line("O=Line Break, L=a\nb, C=GB", 1)]).unwrap();
        append(dir.path(), &[line("O=Alice, L=London, C=GB", 2)]).unwrap();
        let lines = read(dir.path());
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[&name_hash(&alice.name)].stamp.size, 2);
        write(dir.path(), lines.values()).unwrap();
        assert_eq!(read(dir.path()).len(), 1);
    }

    #[test]
    fn what_is_damaged_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        append(dir.path(), &[line("O=Alice, L=London, C=GB", 1), line("O=Bob, L=London, C=GB", 1)]).unwrap();
        let path = dir.path().join(INDEX_FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 3]).unwrap();
        assert_eq!(read(dir.path()).len(), 1);
        std::fs::write(&path, text.replace("O=Alice", "O=Mallory")).unwrap();
        assert_eq!(read(dir.path()).len(), 1);
        std::fs::write(&path, format!("# another version\n{text}")).unwrap();
        assert!(read(dir.path()).is_empty());
    }
}
