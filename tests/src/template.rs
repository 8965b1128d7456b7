//! Networks that are made and warmed up once: issuing keys and compiling CorDapps takes seconds, copying the folder does
//! not.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::cli;

/// Where a host keeps what it has compiled, in its folder.
const CODE: &str = "data/code";
/// What `maxhost init` leaves in a folder while it is at work there. With it, the next call goes on.
const AT_WORK: &str = ".maxhost-init";
/// Files of one run of a host, which a copy must not begin with.
const OF_ONE_RUN: [&str; 5] = ["maxhost.db", "maxhost.db-wal", "maxhost.db-shm", "host.lock", "endpoint"];

/// Copies a network with so many parties more than the usual ones into a new folder, made by `maxhost init` with these words.
pub fn copy(parties: u32, words: &[&str], to: &Path) {
    let folder = cli::target().join("tmp/networks");
    fs::create_dir_all(&folder).expect("the target folder can be written");
    let lock = File::create(folder.join(".lock")).expect("a lock file can be made");
    lock.lock().expect("the lock can be taken");
    let mut hasher = DefaultHasher::new();
    words.hash(&mut hasher);
    let kind = format!("{parties}.{:016x}", hasher.finish());
    let template = folder.join(format!("{kind}-{:016x}", stamp()));
    if !template.join("ready").exists() {
        forget_older(&folder, &kind);
        make(parties, words, &template, other(&folder));
    }
    copy_all(&template.join("network"), to);
    // The lock goes with the file.
}

/// A network of another kind that is ready, made of the same program and CorDapps.
fn other(folder: &Path) -> Option<PathBuf> {
    let stamp = format!("-{:016x}", stamp());
    let made = fs::read_dir(folder).expect("the folder can be read").flatten().map(|entry| entry.path());
    let mut fitting = made.filter(|path| path.to_string_lossy().ends_with(&stamp) && path.join("ready").exists());
    fitting.next().map(|template| template.join("network"))
}

/// Changes with the program and the CorDapps.
fn stamp() -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut files: Vec<PathBuf> = fs::read_dir(cli::cordapps())
        .unwrap_or_else(|error| panic!("{}: {error}: run `make build`", cli::cordapps().display()))
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    files.sort();
    files.push(cli::binary());
    for file in files {
        let metadata = fs::metadata(&file).expect("the file is there");
        (file, metadata.len(), metadata.modified().expect("files have times")).hash(&mut hasher);
    }
    hasher.finish()
}

fn forget_older(folder: &Path, kind: &str) {
    for entry in fs::read_dir(folder).expect("the folder can be read").flatten() {
        if entry.file_name().to_string_lossy().starts_with(&format!("{kind}-")) {
            fs::remove_dir_all(entry.path()).expect("an old network can be removed");
        }
    }
}

fn make(parties: u32, more: &[&str], template: &Path, other: Option<PathBuf>) {
    let network = template.join("network");
    fs::create_dir_all(template).expect("the target folder can be written");
    let (dir, cordapps) = (network.display().to_string(), cli::cordapps().display().to_string());
    let parties = parties.to_string();
    let mut words = vec!["init", &dir, "--cordapps", &cordapps, "--json"];
    for name in [crate::ALICE, crate::BOB, crate::CAROL] {
        words.extend(["--identity", name]);
    }
    words.extend(["--count", &parties]);
    words.extend(more);
    if let Some(other) = other {
        begin(&other, &network);
    }
    let _made = cli::run(&words).ok();
    compile(&network);
    File::create(template.join("ready")).expect("the target folder can be written");
}

/// Runs a host once, so that the compiled code is there.
fn compile(network: &Path) {
    let config = network.join("maxhost.toml");
    let mut command = cli::command(&[] as &[&str]);
    command.args(["run", "--json", "--config"]).arg(&config).stderr(Stdio::inherit());
    let mut child = command.spawn().expect("the host program runs");
    let mut events = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("a pipe")));
    let ready = events.any(|line| line.is_ok_and(|line| line.contains("\"ready\"")));
    child.kill().expect("a child can be killed");
    child.wait().expect("a child can be waited for");
    assert!(ready, "the host did not come up");
    for file in OF_ONE_RUN {
        let _absent = fs::remove_file(network.join("data").join(file));
    }
}

/// Leaves a folder for a network of all samples as `maxhost init` does that is interrupted when all of them are compiled: the next
/// one goes on, and does not compile them.
pub fn begin(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    fs::write(to.join(AT_WORK), "").expect("a file can be written");
    lend_code(from, to);
}

/// Gives the folder of a host that has no code yet what another has compiled, CorDapps and contracts: compiling them takes twenty
/// seconds of a processor.
pub fn lend_code(from: &Path, to: &Path) {
    let (kept, code) = (from.join(CODE), to.join(CODE));
    fs::create_dir_all(to.join("data")).expect("a folder can be made");
    if kept.exists() && !code.exists() {
        copy_all(&kept, &code);
    }
}

/// Copies a folder and all that is in it to where nothing is yet.
fn copy_all(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder can be made");
    fs::set_permissions(to, fs::metadata(from).expect("it is there").permissions()).expect("the folder is ours");
    for entry in fs::read_dir(from).expect("the folder can be read") {
        let entry = entry.expect("the folder can be read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it is there").is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}
