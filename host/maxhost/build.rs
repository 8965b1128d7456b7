//! Embeds the guest SDK and the contract with the host, so that `maxhost cordapp new` works in any folder though the SDK
//! is on no registry.

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Folders of the repository that the SDK is made of; where they are unpacked they lie as they lie here.
const TREES: [&str; 3] = ["guest-sdk", "host/cbor", "wit"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    let mut files = Vec::new();
    for tree in TREES {
        // Named one by one: a folder is watched with all that is in it, and what building leaves behind is no source.
        for entry in std::fs::read_dir(root.join(tree))? {
            let entry = entry?;
            if !is_left_behind(&entry.file_name().to_string_lossy()) {
                println!("cargo:rerun-if-changed={}", entry.path().display());
            }
        }
        collect(&root.join(tree), &mut files)?;
    }
    files.sort();
    let mut code = String::from("pub const FILES: &[(&str, &[u8])] = &[\n");
    for file in &files {
        let name = file.strip_prefix(&root)?.to_str().ok_or("a file name is not UTF-8")?;
        writeln!(code, "    ({name:?}, include_bytes!({:?})),", file.display().to_string())?;
    }
    code.push_str("];\n");
    std::fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("sdk_files.rs"), code)?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if is_left_behind(&entry.file_name().to_string_lossy()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn is_left_behind(name: &str) -> bool {
    name.starts_with("target") || name == "Cargo.lock" || name == ".git"
}
