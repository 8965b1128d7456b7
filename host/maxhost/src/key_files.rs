//! The sealed keys and the certificates of one identity as one file, for hosts that share them.
//!
//! Only files that are known here are taken, so nothing else that lies in the folder of the keys leaves the machine. The
//! private keys among them are sealed with the key vault of the network (`maxhost_pki::identity`), and stay so.

use std::collections::BTreeMap;
use std::path::Path;

use maxhost_model::{Code, Problem, from_cbor, octets, to_cbor};
use serde::{Deserialize, Serialize};

use crate::files::{self, io_problem};

/// The files, and whether an identity can do without.
const FILES: [(&str, bool); 5] = [
    (NAME, false),
    ("certificates.pem", false),
    ("identity.key", false),
    ("tls.key", false),
    // Whoever issues an identity may keep it to himself.
    ("node-ca.key", true),
];
/// The file with the X.500 name.
const NAME: &str = "name";
/// The largest of the files, bytes.
const LARGEST: u64 = 64 << 10;
const VERSION: u32 = 1;

/// The files by their names.
pub type KeyFiles = BTreeMap<String, Vec<u8>>;

#[derive(Serialize, Deserialize)]
struct Packed {
    version: u32,
    files: BTreeMap<String, Octets>,
}

#[derive(Serialize, Deserialize)]
struct Octets(#[serde(with = "octets")] Vec<u8>);

/// Reads the files of a folder into one.
///
/// # Errors
/// `file-not-found`, `file-unreadable`: a file that an identity needs is not there, cannot be read, or has more than 64 KiB.
pub fn pack(folder: &Path) -> Result<Vec<u8>, Problem> {
    let mut packed = Packed { version: VERSION, files: BTreeMap::new() };
    for (name, is_optional) in FILES {
        let path = folder.join(name);
        let bytes = match files::read_at_most(&path, LARGEST) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                let text = format!("{} is longer than {LARGEST} bytes", path.display());
                return Err(Problem::new(Code::FileUnreadable, text));
            }
            Err(error) if is_optional && error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io_problem(Code::FileUnreadable, "read", &path, &error)),
        };
        packed.files.insert(name.to_owned(), Octets(bytes));
    }
    to_cbor(&packed).map_err(|error| Problem::new(Code::Internal, error.to_string()))
}

/// The files that were packed.
///
/// # Errors
/// In words: these are no packed files of this version.
pub fn unpack(bytes: &[u8]) -> Result<KeyFiles, String> {
    let packed: Packed = from_cbor(bytes).map_err(|error| format!("they cannot be read: {error}"))?;
    if packed.version != VERSION {
        return Err(format!("they are of version {}, and this program knows version {VERSION}", packed.version));
    }
    if let Some(name) = packed.files.keys().find(|name| FILES.iter().all(|(known, _)| known != name)) {
        return Err(format!("there is a file '{}' among them, which is none of an identity's", name.escape_debug()));
    }
    if let Some((name, _)) = FILES.iter().find(|(name, optional)| !optional && !packed.files.contains_key(*name)) {
        return Err(format!("the file {name} is not among them"));
    }
    Ok(packed.files.into_iter().map(|(name, Octets(bytes))| (name, bytes)).collect())
}

/// The X.500 name that is noted beside the keys.
pub fn name_of(files: &KeyFiles) -> Option<&str> {
    files.get(NAME).and_then(|bytes| std::str::from_utf8(bytes).ok()).map(str::trim)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, _) in FILES {
            std::fs::write(dir.path().join(name), format!("{name}\n")).unwrap();
        }
        dir
    }

    #[test]
    fn files_of_an_identity_are_packed_and_nothing_else() {
        let dir = folder();
        std::fs::write(dir.path().join("notes"), "mine").unwrap();
        let files = unpack(&pack(dir.path()).unwrap()).unwrap();
        assert_eq!(
            files.keys().collect::<Vec<_>>(),
            ["certificates.pem", "identity.key", "name", "node-ca.key", "tls.key"]
        );
        assert_eq!((files["tls.key"].as_slice(), name_of(&files)), (b"tls.key\n".as_slice(), Some("name")));
        std::fs::remove_file(dir.path().join("node-ca.key")).unwrap();
        assert_eq!(unpack(&pack(dir.path()).unwrap()).unwrap().len(), 4);
        std::fs::remove_file(dir.path().join("tls.key")).unwrap();
        assert_eq!(pack(dir.path()).unwrap_err().code, Code::FileNotFound);
        std::fs::write(dir.path().join("tls.key"), vec![0; LARGEST as usize + 1]).unwrap();
        assert_eq!(pack(dir.path()).unwrap_err().code, Code::FileUnreadable);
    }

    #[test]
    fn what_others_wrote_is_refused() {
        let packed = |version, names: &[&str]| {
            let files = names.iter().map(|name| ((*name).to_owned(), Octets(vec![1]))).collect();
            to_cbor(&Packed { version, files }).unwrap()
        };
        let all = FILES.map(|(name, _)| name);
        assert!(unpack(&packed(VERSION, &all)).is_ok());
        for (bytes, word) in [
            (packed(2, &all), "version 2"),
            (packed(VERSION, &all[1..]), "the file name is not"),
            (packed(VERSION, &[&all[..], &["../../x"]].concat()), "'../../x'"),
            (b"text".to_vec(), "cannot be read"),
            (Vec::new(), "cannot be read"),
        ] {
            let error = unpack(&bytes).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
