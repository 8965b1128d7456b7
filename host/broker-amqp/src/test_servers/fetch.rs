//! Getting Artemis, once for all tests.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const VERSION: &str = "2.44.0";
/// How often it is asked for.
const TRIES: usize = 3;

/// The folder of the repository.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where Artemis is; `None` if it cannot be had, which is said whatever becomes of the output of tests. It is fetched and
/// unpacked by whoever needs it first; others wait.
pub(super) fn home() -> Option<PathBuf> {
    let folder = root().join("target/artemis");
    let home = folder.join(format!("apache-artemis-{VERSION}"));
    if home.is_dir() {
        return Some(home);
    }
    std::fs::create_dir_all(&folder).unwrap();
    let folder = folder.canonicalize().unwrap();
    let lock = std::fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    if home.is_dir() {
        return Some(home);
    }
    let archive = folder.join(format!("apache-artemis-{VERSION}-bin.tar.gz"));
    for _ in 0..TRIES {
        if !archive.is_file() {
            fetch(&folder);
        }
    }
    if !archive.is_file() {
        let _ = writeln!(
            std::io::stderr(),
            "Artemis {VERSION} was not fetched, and what needs it is SKIPPED: let Maven reach its repository, or put \
             apache-artemis-{VERSION}-bin.tar.gz into {}",
            folder.display()
        );
        return None;
    }
    // Under another name first, so that a folder with the right name is whole.
    let partial = folder.join("unpacking");
    let _ = std::fs::remove_dir_all(&partial);
    std::fs::create_dir_all(&partial).unwrap();
    let unpacked = Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(&partial).status().unwrap();
    assert!(unpacked.success(), "{} cannot be unpacked: remove it, and it is fetched again", archive.display());
    std::fs::rename(partial.join(format!("apache-artemis-{VERSION}")), &home).unwrap();
    Some(home)
}

fn fetch(folder: &Path) {
    let artifact = format!("-Dartifact=org.apache.activemq:apache-artemis:{VERSION}:tar.gz:bin");
    let output = Command::new("mvn")
        .args(["-q", "-B", "dependency:copy", &artifact])
        .arg(format!("-DoutputDirectory={}", folder.display()))
        .current_dir(folder)
        .output()
        .expect("Maven cannot be started: run deploy/prerequisites.sh");
    if !output.status.success() {
        eprintln!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
}
