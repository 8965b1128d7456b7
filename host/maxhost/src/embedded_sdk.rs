//! The guest SDK that is part of this program, and where it is unpacked.

use std::path::{Path, PathBuf};

use maxhost_model::{Code, Problem};

use crate::files::io_problem;

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/sdk_files.rs"));
}

/// Files of the template of a new CorDapp, with their paths below it.
pub fn template() -> impl Iterator<Item = (&'static str, &'static str)> {
    embedded::FILES
        .iter()
        .filter_map(|(path, bytes)| Some((path.strip_prefix("guest-sdk/template/")?, std::str::from_utf8(bytes).ok()?)))
}

/// The contract between a host and its CorDapps, as it is written.
///
/// # Errors
/// This program was built without it.
pub fn contract() -> Result<&'static str, Problem> {
    let file = embedded::FILES.iter().find(|(path, _)| *path == "wit/cordapp.wit");
    file.and_then(|(_, bytes)| std::str::from_utf8(bytes).ok())
        .ok_or_else(|| Problem::new(Code::Internal, "this program was built without the contract of CorDapps"))
}

/// Unpacks the SDK for this user, unless it is there. Gives the folder that holds `guest-sdk/` and what it
/// refers to.
///
/// The folder carries a digest of what is in it: another build of maxhost never changes an SDK that crates refer to.
///
/// # Errors
/// The folder cannot be written.
pub fn unpack() -> Result<PathBuf, Problem> {
    let home = data_home()?;
    let folder = home.join("maxhost/sdk").join(format!("{}-{}", env!("CARGO_PKG_VERSION"), &digest()[..12]));
    if folder.join("wit").is_dir() {
        return Ok(folder);
    }
    let parent = folder.parent().unwrap_or(&home);
    let failed = |error| io_problem(Code::DirectoryUnwritable, "write", &folder, &error);
    std::fs::create_dir_all(parent).map_err(failed)?;
    // Built aside and moved into place, so that a second call never sees half of it.
    let staging = tempfile::Builder::new().prefix(".new-").tempdir_in(parent).map_err(failed)?;
    for (path, bytes) in embedded::FILES {
        let file = staging.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap_or(staging.path())).map_err(failed)?;
        std::fs::write(&file, bytes).map_err(failed)?;
    }
    let staging = staging.keep();
    if let Err(error) = std::fs::rename(&staging, &folder) {
        // Another call was first: its files are the same.
        let lost_race = folder.join("wit").is_dir();
        let _left_behind = std::fs::remove_dir_all(&staging);
        if !lost_race {
            return Err(failed(error));
        }
    }
    Ok(folder)
}

fn digest() -> String {
    let mut all = Vec::new();
    for (path, bytes) in embedded::FILES {
        all.extend_from_slice(path.as_bytes());
        all.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        all.extend_from_slice(bytes);
    }
    maxhost_model::SecureHash::of(&all).to_string().to_lowercase()
}

fn data_home() -> Result<PathBuf, Problem> {
    let absolute = |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(Path::new(".local/share")))).ok_or_else(
        || {
            Problem::new(
                Code::DirectoryUnwritable,
                "there is no folder for the SDK: neither XDG_DATA_HOME nor HOME is set",
            )
            .remedy("set XDG_DATA_HOME to a folder you may write")
        },
    )
}
