//! A development network in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tempfile::TempDir;

use crate::cli::{self, Answer};
use crate::host::Host;
use crate::template;

/// Alice, Bob, Carol, a notary, perhaps more; all with all sample CorDapps. Goes with the test.
pub struct Network {
    _dir: TempDir,
    folder: PathBuf,
    settings: Vec<String>,
}

impl Default for Network {
    fn default() -> Network {
        Network::new()
    }
}

impl Network {
    /// The usual parties. Every flow is run again when it ends, and compared.
    #[must_use]
    pub fn new() -> Network {
        Network::with_parties(0)
    }

    /// The usual parties and so many others, `O=Party 00001, L=London, C=GB` and so on.
    #[must_use]
    pub fn with_parties(count: u32) -> Network {
        let dir = tempfile::Builder::new().prefix("maxhost-tests-").tempdir().expect("a temporary folder");
        let folder = dir.path().join("network");
        template::copy(count, &folder);
        Network { _dir: dir, folder, settings: vec!["flows.shadow_replay=1.0".to_owned()] }
    }

    /// Overrides a setting: `section.key=value`.
    #[must_use]
    pub fn setting(mut self, assignment: &str) -> Network {
        self.settings.push(assignment.to_owned());
        self
    }

    /// As [`Network::setting`], several.
    #[must_use]
    pub fn settings(self, assignments: &[&str]) -> Network {
        assignments.iter().fold(self, |network, assignment| network.setting(assignment))
    }

    /// Gives an identity limits: lines of its manifest. `identity` is the name of the file, `alice`.
    #[must_use]
    pub fn limits(self, identity: &str, lines: &str) -> Network {
        let file = self.path(&format!("identities/{identity}.toml"));
        let text = fs::read_to_string(&file).expect("the manifest is there");
        fs::write(&file, format!("{text}\n[limits]\n{lines}\n")).expect("the manifest can be written");
        self
    }

    /// The same for every identity.
    #[must_use]
    pub fn limits_of_all(self, lines: &str) -> Network {
        let files = fs::read_dir(self.path("identities")).expect("the folder is there");
        let names: Vec<PathBuf> = files.map(|file| file.expect("the folder can be read").path()).collect();
        names.iter().filter_map(|file| file.file_stem()).fold(self, |network, name| {
            let name = name.to_string_lossy().into_owned();
            network.limits(&name, lines)
        })
    }

    /// A file of it.
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts its host and waits until it is ready.
    #[must_use]
    pub fn run(&self) -> Host {
        Host::up(self.run_command(), &self.folder)
    }

    /// As [`Network::run`], with more words on the command line.
    #[must_use]
    pub fn run_with(&self, words: &[&str]) -> Host {
        let mut command = self.run_command();
        command.args(words);
        Host::up(command, &self.folder)
    }

    /// Starts a host that is expected not to come up.
    #[must_use]
    pub fn refused(&self) -> Answer {
        cli::answer(self.run_command(), None)
    }

    /// `maxhost run` with this network's settings.
    #[must_use]
    pub fn run_command(&self) -> std::process::Command {
        let mut command = cli::command(&["run", "--json", "--config"]);
        command.arg(self.path("maxhost.toml"));
        for setting in &self.settings {
            command.arg("--set").arg(setting);
        }
        command
    }

    /// Any command with `--json` and this network's configuration.
    #[must_use]
    pub fn cli(&self, words: &[&str]) -> Answer {
        cli::answer(self.command(words), None)
    }

    /// As [`Network::cli`], to be changed before it runs.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = cli::command(words);
        command.arg("--json").arg("--config").arg(self.path("maxhost.toml")).current_dir(&self.folder);
        command
    }

    /// The lines of its hosts' log that have all these words.
    #[must_use]
    pub fn log_lines(&self, words: &[&str]) -> Vec<String> {
        let log = fs::read_to_string(self.path("host.log")).expect("a host has run");
        let fits = |line: &&str| words.iter().all(|word| line.contains(word));
        log.lines().filter(fits).map(str::to_owned).collect()
    }

    /// Its database, for tests that damage it while no host runs.
    #[must_use]
    pub fn database(&self) -> Connection {
        Connection::open(self.path("data/maxhost.db")).expect("the database opens")
    }
}
