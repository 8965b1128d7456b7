//! What the host is made of: every package may be distributed with it, comes from the registry, and is there for a reason.
//!
//! A database of advisories cannot be reached from everywhere, so none is asked here; `deny.toml` has the same rules for
//! `cargo deny check`, where it is installed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Licences under which what we link may be passed on with a program of ours.
const LICENCES: [&str; 13] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "ISC",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "0BSD",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
];

/// Packages that are used though no line of a crate names them, with the reason.
const UNNAMED: [(&str, &str, &str); 7] = [
    ("maxhost-flows", "thiserror", "the errors of supervised tasks are written with it"),
    ("maxhost-ledger", "thiserror", "the errors of the vault are written with it"),
    ("maxhost-ledger", "serde_json", "queries of the vault take and give JSON"),
    ("maxhost-rpc", "tonic-prost", "the code that is generated from the .proto files names it"),
    ("maxhost-pki", "rustls-webpki", "its library is called webpki"),
    ("maxhost-tests", "byteorder", "the benchmarks want a feature of it"),
    ("maxhost-tests", "zerocopy", "the tests of another crate want a feature of it"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn metadata() -> Value {
    metadata_of("Cargo.toml")
}

fn metadata_of(workspace: &str) -> Value {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        // Not offline: packages of other systems are among them, which no build here has fetched.
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(root().join(workspace))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Whether one choice of an expression such as `(MIT OR Apache-2.0) AND ISC` is among ours (SPDX 2.3, annex D; all words of
/// such expressions that registries take are handled).
fn allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let text = expression.trim();
    let split = |word: &str| -> Vec<String> {
        let (mut depth, mut parts, mut part) = (0, Vec::new(), String::new());
        for token in text.replace('(', " ( ").replace(')', " ) ").split_whitespace() {
            depth += i32::from(token == "(") - i32::from(token == ")");
            if depth == 0 && token == word {
                parts.push(std::mem::take(&mut part));
            } else {
                part.push_str(token);
                part.push(' ');
            }
        }
        parts.push(part);
        parts
    };
    let any = split("OR");
    if any.len() > 1 {
        return any.iter().any(|choice| allowed(choice));
    }
    let all = split("AND");
    if all.len() > 1 {
        return all.iter().all(|part| allowed(part));
    }
    match text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) {
        Some(inner) => allowed(inner),
        None => LICENCES.contains(&text),
    }
}

#[test]
fn expressions_are_read_as_they_are_meant() {
    for (expression, fine) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("GPL-3.0-only OR MIT", true),
        ("MIT AND GPL-3.0-only", false),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(GPL-3.0-only OR AGPL-3.0-only) AND MIT", false),
        ("MIT/Apache-2.0", true),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0 WITH LLVM-exception OR GPL-2.0", true),
    ] {
        assert_eq!(allowed(expression), fine, "{expression}");
    }
}

#[test]
fn every_package_may_be_passed_on_and_comes_from_the_registry() {
    let metadata = metadata();
    for package in metadata["packages"].as_array().unwrap() {
        let name = format!("{} {}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
        let Some(source) = package["source"].as_str() else { continue };
        assert!(source.starts_with("registry+https://github.com/rust-lang/crates.io-index"), "{name} is from {source}");
        let licence = package["license"].as_str();
        assert!(licence.is_some_and(allowed), "{name} has the licence {licence:?}");
    }
}

/// All text of a crate that is compiled. None, if there is no such folder: packages of tests have no `src/`.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" {
            text.push_str(&sources(&path));
        } else if name.ends_with(".rs") {
            text.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
    text
}

#[test]
fn every_dependency_of_ours_is_used() {
    let metadata = metadata();
    let mut unused: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap().iter().filter(|package| package["source"].is_null()) {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let text = sources(manifest.parent().unwrap());
        let owner = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["rename"].as_str().or(dependency["name"].as_str()).unwrap();
            let word = name.replace('-', "_");
            let is_named = text.match_indices(&word).any(|(at, _)| {
                let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
                !text[..at].ends_with(part_of_word) && !text[at + word.len()..].starts_with(part_of_word)
            });
            // Named to ask for features only; the manifest says why.
            let shares_features = owner == "maxhost-sandbox"
                && std::fs::read_to_string(manifest)
                    .unwrap()
                    .split_once("# Not used by our code.")
                    .is_some_and(|(_, shared)| shared.lines().any(|line| line.starts_with(&format!("{name} ="))));
            let is_excused = shares_features || UNNAMED.iter().any(|(of, what, _)| *of == owner && *what == name);
            if !is_named && !is_excused {
                unused.entry(owner.to_owned()).or_default().push(name.to_owned());
            }
        }
    }
    assert!(unused.is_empty(), "dependencies that nothing names: {unused:#?}");
}

/// Each package with the features that are wanted of it where edges of these kinds count. One that is wanted for programs
/// that run at build time too is among them twice.
fn features(edges: &str, without: &[&str]) -> BTreeSet<String> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["tree", "--workspace", "--locked", "--offline", "--prefix", "none", "--format", "{p} {f}"])
        .args(["--edges", edges, "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .args(without.iter().flat_map(|package| ["--exclude", *package]))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
}

/// Otherwise `make test` compiles all that stands on such a package a second time, and tests another program than the one
/// that `make build` makes.
#[test]
fn tests_want_the_same_features_as_the_program() {
    let (built, tested) = (features("normal,build", &["maxhost-bench"]), features("normal,build,dev", &[]));
    assert!(built.len() > 100, "{built:?}");
    let other: Vec<_> = built.difference(&tested).collect();
    assert!(other.is_empty(), "tests/Cargo.toml says what to do about these: {other:#?}");
}

/// Looking for examples where there are none takes as long as compiling the crate, so it is turned off there.
#[test]
fn examples_in_comments_are_run() {
    let workspaces = ["Cargo.toml", "guest-sdk/Cargo.toml", "cordapps/Cargo.toml"].map(metadata_of);
    let packages = workspaces.iter().flat_map(|metadata| metadata["packages"].as_array().unwrap());
    for package in packages.filter(|package| package["source"].is_null()) {
        let targets = package["targets"].as_array().unwrap().iter();
        let is_run = targets.into_iter().any(|target| target["doctest"] == true);
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let text = sources(&manifest.with_file_name("src"));
        let is_library = manifest.with_file_name("src").join("lib.rs").exists();
        let comments =
            text.lines().map(str::trim_start).filter(|line| line.starts_with("///") || line.starts_with("//!"));
        let fences = comments.filter_map(|line| line[3..].trim().strip_prefix("```")).step_by(2);
        let examples = fences.filter(|language| *language != "text").count();
        let name = &package["name"];
        assert!(is_run || !is_library || examples == 0, "{name} has {examples} examples, and `doctest = false`");
        assert!(!is_run || examples > 0, "{name} has no examples: say `doctest = false` in its manifest");
    }
}

/// Otherwise a crate without tests of its own is compiled once more, and linked to a program that runs none.
#[test]
fn crates_are_compiled_for_tests_of_their_own_if_they_have_some() {
    const OTHERS: [&str; 4] = ["test", "example", "bench", "custom-build"];
    let workspaces = ["Cargo.toml", "guest-sdk/Cargo.toml", "cordapps/Cargo.toml"].map(metadata_of);
    let packages = workspaces.iter().flat_map(|metadata| metadata["packages"].as_array().unwrap());
    for package in packages.filter(|package| package["source"].is_null()) {
        let targets = package["targets"].as_array().unwrap().iter();
        let is_other = |target: &Value| OTHERS.contains(&target["kind"][0].as_str().unwrap());
        let is_run = targets.filter(|target| !is_other(target)).any(|target| target["test"] == true);
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let text = sources(&manifest.with_file_name("src"));
        let has_tests = ["#[test]", "#[tokio::test"].iter().any(|attribute| text.contains(attribute));
        let name = &package["name"];
        assert!(is_run || !has_tests, "{name} has tests in src/, and `test = false`");
        assert!(!is_run || has_tests, "{name} has no tests in src/: say `test = false` of its targets in its manifest");
    }
}
