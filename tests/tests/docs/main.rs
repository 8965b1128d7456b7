//! The documentation is true: its commands are run, its code is compiled and run, its tables are held against the code.
//!
//! A page may have these fenced blocks:
//!
//! - `console`: lines that begin with `$ ` are typed, in order, in one shell for the page; what follows must come out.
//!   `…` stands for any text, on a line of its own for any lines.
//! - any language with `file=PATH`: saved there, relative to where the shell is.
//! - `sh`: for the root of this repository; every `make` target must exist.
//! - others without `file=`: pictures and excerpts. Rust and Python must always be files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod markdown;
mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use maxhost_ledger::Rule;
use maxhost_model::Code;
use maxhost_rpc::status::grpc_code;

use crate::markdown::{blocks, rows, sections};
use crate::script::{Reader, fits};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(page: &str) -> String {
    std::fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// Every page that this test answers for.
const PAGES: [&str; 13] = [
    "README.md",
    "docs/architecture.md",
    "docs/behaviour.md",
    "docs/cluster.md",
    "docs/cordapps.md",
    "docs/python.md",
    "docs/rpc.md",
    "docs/errors.md",
    "docs/from-corda.md",
    "docs/kubernetes.md",
    "docs/ledger.md",
    "docs/messages.md",
    "docs/operating.md",
];

/// The program under test: what `make build` leaves, or what `MAXHOST_BIN` names.
fn maxhost() -> PathBuf {
    let binary = std::env::var_os("MAXHOST_BIN").map_or_else(|| root().join("target/release/maxhost"), PathBuf::from);
    assert!(binary.is_file(), "{} is missing: run `make build` first", binary.display());
    binary
}

/// Types what a page shows.
fn follow(page: &str) -> (Reader, usize) {
    follow_with(page, &[])
}

/// As [`follow`], in a shell with these variables.
fn follow_with(page: &str, variables: &[(&str, &str)]) -> (Reader, usize) {
    let samples = root().join("target/cordapps");
    assert!(samples.join("ping-pong.wasm").is_file(), "{} is empty: run `make build` first", samples.display());
    // Shared between runs, so that crates are compiled once.
    let scratch = root().join("target/docs");
    let mut reader = Reader::new(&maxhost(), &samples, &scratch);
    variables.iter().for_each(|(name, value)| reader.export(name, value));
    let commands = reader.read(page, &read(page), &scratch);
    (reader, commands)
}

#[test]
fn expected_output_may_leave_gaps() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(fits(&[], &lines("anything")));
    assert!(fits(&lines("a … c"), &lines("a   b c")));
    assert!(!fits(&lines("a … c"), &lines("a b")));
    assert!(fits(&lines("a\n…\nd"), &lines("a\nb\nc\nd")));
    assert!(fits(&lines("…\nd"), &lines("d")));
    assert!(!fits(&lines("a"), &lines("a\nb")));
    assert!(fits(&lines("a\n…"), &lines("a\nb")));
}

#[test]
fn the_readme_begins_with_the_two_commands() {
    let text = read("README.md");
    let head: Vec<&str> = text.lines().take(8).collect();
    let at = |command: &str| head.iter().position(|line| line.split('#').next().unwrap_or("").trim() == command);
    let (demo, test) = (at("make demo"), at("make test"));
    assert!(demo.is_some() && test == demo.map(|line| line + 1), "{head:?}");
}

#[test]
fn make_targets_that_are_named_exist() {
    let makefile = read("Makefile");
    let exists = |target: &str| makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
    for page in PAGES {
        for block in blocks(&read(page)).iter().filter(|block| block.language == "sh") {
            for line in block.text.lines() {
                let mut words = line.split_whitespace();
                assert!(!line.starts_with("maxhost "), "{page}: '{line}' belongs into a console block, which is run");
                if words.next() == Some("make") {
                    let target = words.next().unwrap_or_default();
                    assert!(exists(target), "{page}: there is no target '{target}' in the Makefile");
                }
            }
        }
    }
}

#[test]
fn code_is_shown_as_files_so_that_it_is_compiled() {
    for page in PAGES {
        for block in blocks(&read(page)) {
            let is_code = ["rust", "python"].contains(&block.language.as_str());
            assert!(!is_code || block.word("file").is_some(), "{page}:{}: this code is not tried", block.line);
        }
    }
}

#[test]
fn links_lead_somewhere() {
    for page in PAGES {
        let text = read(page);
        let folder = root().join(page).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { root().join(page) } else { folder.join(file) };
            assert!(target.exists(), "{page}: the link to {link} leads nowhere");
            if !anchor.is_empty() {
                let text = std::fs::read_to_string(&target).unwrap();
                let titles = text.lines().filter(|line| line.starts_with('#'));
                let found = titles.map(|line| slug(line.trim_start_matches('#'))).any(|slug| slug == anchor);
                assert!(found, "{page}: {} has no heading for #{anchor}", target.display());
            }
        }
    }
}

/// The anchor that a heading gets.
fn slug(title: &str) -> String {
    let title = title.trim().to_lowercase();
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_error_code_is_explained_with_its_remedy_exit_code_and_grpc_status() {
    let text = read("docs/errors.md");
    let told = sections(&text, 3);
    let names: BTreeSet<&str> = told.iter().map(|(title, _)| title.as_str()).collect();
    let codes: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(names.difference(&codes).collect::<Vec<_>>(), Vec::<&&str>::new(), "codes that do not exist");
    assert_eq!(codes.difference(&names).collect::<Vec<_>>(), Vec::<&&str>::new(), "codes that are missing");
    assert_eq!(told.len(), codes.len(), "a code is explained twice");
    for (name, body) in &told {
        let code = Code::parse(name).unwrap();
        let facts =
            format!("Exit code {} · gRPC {}", code.class().exit_code(), screaming(&format!("{:?}", grpc_code(code))));
        assert!(body.lines().any(|line| line == facts), "{name}: expected the line '{facts}'");
        let remedy = format!("To do: {}.", code.remedy());
        assert!(body.lines().any(|line| line == remedy), "{name}: expected the line '{remedy}'");
        let meaning = body.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        assert!(meaning.len() > 20 && !meaning.starts_with("To do"), "{name} is not explained");
    }
}

#[test]
fn every_rule_of_the_ledger_has_its_code_listed() {
    let told = sections(&read("docs/errors.md"), 2);
    let (_, body) = told.iter().find(|(title, _)| title.starts_with("Errors of flows")).unwrap();
    let listed: Vec<Vec<String>> = rows(body);
    let missing: Vec<&str> = Rule::ALL
        .iter()
        .filter(|rule| {
            let says =
                |row: &&Vec<String>| row[0] == rule.as_str() && row.last().is_some_and(|it| it == rule.section());
            listed.iter().filter(says).count() != 1
        })
        .map(|rule| rule.as_str())
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}

/// `NotFound` as gRPC writes it: `NOT_FOUND`.
fn screaming(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(letter.to_uppercase());
    }
    out
}

#[test]
fn every_kind_of_flow_error_is_explained() {
    let contract = read("wit/cordapp.wit");
    let kinds = contract.split("enum failure-kind {").nth(1).unwrap().split('}').next().unwrap();
    let kinds =
        kinds.lines().map(str::trim).filter(|line| !line.starts_with("//")).filter_map(|line| line.strip_suffix(','));
    let told = sections(&read("docs/errors.md"), 2);
    let (_, body) = told.iter().find(|(title, _)| title.starts_with("Errors of flows")).unwrap();
    let named: Vec<String> = rows(body).into_iter().filter_map(|row| row.into_iter().next()).collect();
    let missing: Vec<&str> = kinds.filter(|kind| !named.iter().any(|name| name == kind)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

/// The names in code marks that stand in the second column of the tables of section 1 of `docs/behaviour.md`.
fn answers_that_are_listed() -> Vec<String> {
    let told = sections(&read("docs/behaviour.md"), 2);
    let (_, body) = told.iter().find(|(title, _)| title.starts_with("1. ")).unwrap();
    let mut names = Vec::new();
    for line in body.lines().filter(|line| line.starts_with("| 1.")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        assert_eq!(cells.len(), 4, "{line}");
        let how = cells[3].trim();
        let says = ["recorded", "derived", "no answer", "none", "all that"].iter().any(|word| how.starts_with(word));
        assert!(says, "where does this come from on replay? {line}");
        names.extend(cells[1].split('`').skip(1).step_by(2).map(str::to_owned));
    }
    names
}

#[test]
fn every_answer_that_a_guest_can_get_is_listed_with_where_it_comes_from() {
    let contract = read("wit/cordapp.wit");
    let interface = |name: &str| {
        contract.split(&format!("interface {name} {{")).nth(1).unwrap().split("\n}").next().unwrap().to_owned()
    };
    let world = contract.split("world flows {").nth(1).unwrap().split("\n}").next().unwrap();
    let functions = |text: &str| -> BTreeSet<String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("//") && line.contains(": func("));
        lines.map(|line| line.trim_start_matches("export ").split(':').next().unwrap().to_owned()).collect()
    };
    let mut calls = functions(&interface("flow"));
    assert!(calls.len() > 15, "{calls:?}");
    calls.extend(functions(&interface("ledger")));
    calls.extend(functions(&interface("keys")));
    calls.extend(functions(&interface("recording")));
    calls.extend(functions(&interface("ledger-waits")));
    calls.extend(functions(world));

    // As the host defines them: `cli::terminal_stdin::add_to_linker` is `cli/terminal-stdin`.
    let source = read("host/sandbox/src/wasi.rs");
    let defined = source.lines().filter_map(|line| line.trim().split_once("::add_to_linker"));
    for (path, _) in defined {
        let (package, interface) = path.rsplit_once("::").unwrap();
        let package = match package {
            "clock" => "clocks",
            "randomness" => "random",
            package => package,
        };
        calls.insert(format!("{package}/{}", interface.replace('_', "-")));
    }
    let listed = answers_that_are_listed();
    let names: BTreeSet<String> = listed.iter().cloned().collect();
    // Not calls of the contract, but answers all the same.
    calls.extend(["insecure-seed", "memory.grow"].map(str::to_owned));
    assert_eq!(names.difference(&calls).collect::<Vec<_>>(), Vec::<&String>::new(), "no guest can call these");
    assert_eq!(calls.difference(&names).collect::<Vec<_>>(), Vec::<&String>::new(), "these are not listed");
}

#[test]
fn every_setting_is_listed_with_its_default() {
    let folder = tempfile::tempdir().unwrap();
    let network = folder.path().join("network");
    let made = std::process::Command::new(maxhost()).arg("init").arg(&network).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = std::fs::read_to_string(network.join("maxhost.toml")).unwrap();
    let (mut section, mut settings) = (String::new(), Vec::new());
    for line in file.lines().map(|line| line.trim_start_matches("# ")) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, value)) = line.split_once(" = ") {
            settings.push((format!("{section}.{key}"), value.to_owned()));
        }
    }
    assert!(settings.len() > 15, "{settings:?}");
    let told = sections(&read("docs/operating.md"), 2);
    let (_, body) = told.iter().find(|(title, _)| title == "maxhost.toml").unwrap();
    let told: Vec<(String, String)> =
        rows(body).into_iter().map(|row| (row[0].clone(), row.get(1).cloned().unwrap_or_default())).collect();
    assert_eq!(told, settings, "the table of docs/operating.md (left) against a new maxhost.toml (right)");
}

#[test]
fn crates_know_lower_layers_only_as_the_page_says() {
    let told = sections(&read("docs/architecture.md"), 2);
    let (_, body) = told.iter().find(|(title, _)| title == "Layers").unwrap();
    let layers: BTreeMap<String, u32> =
        rows(body).into_iter().map(|row| (row[1].clone(), row[0].parse().unwrap())).collect();
    let folders = std::fs::read_dir(root().join("host")).unwrap().map(|entry| entry.unwrap().path());
    let crates: Vec<PathBuf> = folders.filter(|path| path.join("Cargo.toml").is_file()).collect();
    assert_eq!(layers.len(), crates.len(), "{layers:?}");
    for path in crates {
        let name = path.file_name().unwrap().to_str().unwrap();
        let layer = layers.get(name).unwrap_or_else(|| panic!("crate {name} is not in the table"));
        let manifest = std::fs::read_to_string(path.join("Cargo.toml")).unwrap();
        let needed = manifest.split("[dev-dependencies]").next().unwrap();
        for other in needed.lines().filter_map(|line| line.strip_prefix("maxhost-")) {
            let (line, other) = (other, other.split(['.', ' ', '=']).next().unwrap());
            // What is under `tests/` is for tests alone, and so is the feature that asks for it.
            if root().join("tests").join(other).is_dir() {
                assert!(line.ends_with("optional = true }"), "{name} needs {other}");
                continue;
            }
            assert!(layers[other] < *layer, "{name} (layer {layer}) needs {other} (layer {})", layers[other]);
        }
    }
}

#[test]
fn tables_are_those_of_the_database() {
    let folder = root().join("host/store-sqlite/migrations");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let database = rusqlite::Connection::open_in_memory().unwrap();
    for file in files {
        database.execute_batch(&std::fs::read_to_string(file).unwrap()).unwrap();
    }
    let sql = "SELECT m.name, group_concat(c.name, ', ') FROM sqlite_schema m, pragma_table_info(m.name) c \
               WHERE m.type = 'table' GROUP BY m.name ORDER BY m.rowid";
    let mut statement = database.prepare(sql).unwrap();
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let found: BTreeMap<String, String> = found.map(Result::unwrap).collect();
    let told = sections(&read("docs/architecture.md"), 2);
    let (_, body) = told.iter().find(|(title, _)| title == "Tables").unwrap();
    let told: BTreeMap<String, String> = rows(body).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    assert_eq!(told, found);
}

#[test]
fn files_that_the_architecture_names_exist() {
    let text = read("docs/architecture.md");
    let words = text.split('`').skip(1).step_by(2).filter(|word| word.ends_with(".rs"));
    let missing: Vec<&str> = words.filter(|word| !root().join("host").join(word).is_file()).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

/// All Rust files below a folder, by their paths.
fn sources(folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.insert(path.display().to_string(), std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_hazard_of_the_cluster_names_tests_that_there_are() {
    let text = read("docs/cluster.md");
    let (_, hazards) = sections(&text, 2).into_iter().find(|(title, _)| title == "Hazards").unwrap();
    let mut files = BTreeMap::new();
    ["host", "tests"].iter().for_each(|folder| sources(&root().join(folder), &mut files));
    let is_there = |name: &str| {
        let is_variant = name.starts_with(char::is_uppercase);
        let (function, variant) = (format!("fn {name}"), format!("    {name},\n"));
        let is_named = |text: &String| if is_variant { text.contains(&variant) } else { text.contains(&function) };
        if name.ends_with(".rs") {
            files.keys().any(|path| path.ends_with(&format!("/{name}")))
        } else {
            files.values().any(is_named)
        }
    };
    let mut numbers = BTreeSet::new();
    for row in hazards.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let &[number, hazard, rule, tests] = &*cells else { panic!("{row}") };
        assert!(numbers.insert(number.parse::<u32>().unwrap()), "{number} is there twice");
        assert!(!hazard.is_empty() && !rule.is_empty(), "{row}");
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test would find hazard {number}: {hazard}");
        for name in names {
            assert!(is_there(name), "hazard {number}: there is no {name}");
        }
    }
    let last = u32::try_from(numbers.len()).unwrap();
    assert_eq!(numbers, (1..=last).collect());
}

#[test]
fn every_event_of_a_running_host_is_listed() {
    let source = read("host/flows/src/options.rs");
    let body = source.split("pub enum OperatorEvent {").nth(1).unwrap();
    let variants = body.lines().filter_map(|line| line.strip_prefix("    ")?.strip_suffix(" {"));
    let variants = variants.filter(|name| name.chars().all(char::is_alphanumeric));
    let names: Vec<String> = variants.map(|name| screaming(name).to_lowercase().replace('_', "-")).collect();
    assert!(names.len() > 5, "{names:?}");
    let text = read("docs/operating.md");
    // Flows that begin are no news; see `logging::log` of the program.
    let missing: Vec<&String> =
        names.iter().filter(|name| *name != "flow-started" && !text.contains(&format!("`{name}`"))).collect();
    assert_eq!(missing, Vec::<&String>::new());
}

#[test]
fn the_readme_can_be_followed() {
    assert!(follow("README.md").1 > 3);
}

/// It builds CorDapps and takes longest, so it has a name that comes first: tests begin in the order of their names.
#[test]
fn a_tutorial_for_cordapp_authors_can_be_followed() {
    // What an earlier run has built may be compiled code, but no component: its reader has none yet.
    let _ = std::fs::remove_dir_all(root().join("target/docs/target/cordapps"));
    assert!(follow("docs/cordapps.md").1 > 10);
}

/// The packages that the page names are installed from where they were downloaded before.
#[test]
fn the_page_about_python_can_be_followed() {
    let made = std::process::Command::new(root().join("tests/python-cordapp/build.sh")).output().unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
    let wheels = root().join("target/python-cordapp/wheels");
    if said.contains("SKIPPED") {
        eprint!("{said}");
        return;
    }
    for package in read("tests/python-cordapp/requirements.txt").lines() {
        assert!(read("docs/python.md").contains(package), "docs/python.md does not install {package}");
    }
    let wheels = wheels.canonicalize().unwrap();
    let offline = [("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", wheels.to_str().unwrap())];
    assert!(follow_with("docs/python.md", &offline).1 > 15);
}

#[test]
fn the_operators_guide_can_be_followed_and_knows_every_file() {
    let (reader, commands) = follow("docs/operating.md");
    assert!(commands > 10);
    let text = read("docs/operating.md");
    for folder in ["net", "net/data"] {
        for entry in std::fs::read_dir(reader.folder().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let name = name.trim_end_matches("-wal").trim_end_matches("-shm");
            let path = format!("{}/{name}", folder.replace("net", "DIR"));
            assert!(text.contains(&path), "docs/operating.md does not say what {path} is");
        }
    }
}

#[test]
fn the_page_of_ledgers_can_be_followed() {
    assert!(follow("docs/ledger.md").1 > 10);
}

#[test]
fn the_page_of_users_can_be_followed() {
    let (reader, commands) = follow("docs/access.md");
    assert!(commands > 6);
    run_python(&reader, "docs/access.md", "status.py");
}

#[test]
fn the_page_of_errors_can_be_followed() {
    assert!(follow("docs/errors.md").1 > 1);
}

#[test]
fn the_rpc_guide_can_be_followed_and_its_python_client_works() {
    let (reader, commands) = follow("docs/rpc.md");
    assert!(commands > 3);
    run_python(&reader, "docs/rpc.md", "client.py");
}

/// Runs the client that a page shows, and compares what it prints.
fn run_python(reader: &Reader, page: &str, client: &str) {
    let Some(python) = python() else {
        eprintln!("SKIPPED: the Python client of {page}, for want of a Python with grpcio");
        return;
    };
    let output = std::process::Command::new(python)
        .arg(client)
        .current_dir(reader.folder())
        .env("MAXHOST_PROTO", root().join("host/rpc/proto"))
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}\n{}", String::from_utf8_lossy(&output.stderr));
    let text = read(page);
    let expected =
        blocks(&text).into_iter().find(|block| block.words.iter().any(|word| word == "python-output")).unwrap();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(fits(&lines(&expected.text), &lines(&shown)), "expected:\n{}\ngot:\n{shown}", expected.text);
}

/// A Python that has grpcio: the one that the Python client's own test makes. `None` where it cannot be made.
fn python() -> Option<PathBuf> {
    let made = std::process::Command::new(root().join("tests/python/run.sh")).arg("environment").output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(root().join("target/python/venv/bin/python")).filter(|python| python.is_file())
}
