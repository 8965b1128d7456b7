//! Programs whose clock is not this machine's. It is bent by libfaketime, for the program alone, and may be bent while it runs.

use std::path::{Path, PathBuf};
use std::process::Command;

fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("libraries").flatten().map(|entry| entry.path());
    let library = folders.map(|folder| folder.join("faketime/libfaketime.so.1")).find(|file| file.exists());
    library.expect("libfaketime, which deploy/prerequisites.sh installs")
}

/// Has the program's clock differ from this machine's by what the file says, which may change: `+60s`, say.
pub fn bend(command: &mut Command, shift: &Path) {
    command
        .env("LD_PRELOAD", library())
        .env("FAKETIME_TIMESTAMP_FILE", shift)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("NO_FAKE_STAT", "1");
}
