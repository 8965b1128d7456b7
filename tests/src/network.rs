//! A development network in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use maxhost_postgres_server::Server;
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
    on_server: Option<OnServer>,
}

/// Where the database of a network is that is on no file.
struct OnServer {
    server: Arc<Server>,
    database: String,
}

/// Whether the networks of this test program have their databases on a PostgreSQL server: programs whose name begins
/// with `postgres`, and all of them if `MAXHOST_TESTS_DATABASE` says `postgres`.
#[must_use]
pub fn is_on_server() -> bool {
    let program = std::env::current_exe().ok();
    let name = program.as_ref().and_then(|path| path.file_name()).unwrap_or_default().to_string_lossy();
    name.starts_with("postgres") || std::env::var("MAXHOST_TESTS_DATABASE").is_ok_and(|database| database == "postgres")
}

/// The server that the networks of a test program share. It ends with the program.
fn shared_server() -> Arc<Server> {
    static SERVER: OnceLock<Arc<Server>> = OnceLock::new();
    SERVER.get_or_init(|| Arc::new(Server::start("").expect("a PostgreSQL server starts"))).clone()
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
        Network::made(count, &[])
    }

    /// The usual parties and two notaries, [`NOTARY`](crate::NOTARY) and [`SECOND_NOTARY`](crate::SECOND_NOTARY), which verify
    /// what they notarise or do not.
    #[must_use]
    pub fn with_two_notaries(validating: bool) -> Network {
        let notaries = ["--notary", crate::NOTARY, "--notary", crate::SECOND_NOTARY, "--validating"];
        Network::made(0, if validating { &notaries } else { &notaries[..4] })
    }

    fn made(count: u32, words: &[&str]) -> Network {
        let dir = tempfile::Builder::new().prefix("maxhost-tests-").tempdir().expect("a temporary folder");
        let folder = dir.path().join("network");
        template::copy(count, words, &folder);
        let settings = vec!["flows.shadow_replay=1.0".to_owned()];
        let network = Network { _dir: dir, folder, settings, on_server: None };
        if is_on_server() { network.on(shared_server()) } else { network }
    }

    /// Gives the network a server that it shares with nobody, if its database is on one at all: one that may be killed.
    #[must_use]
    pub fn on_own_server(self) -> Network {
        if !is_on_server() {
            return self;
        }
        self.on(Arc::new(Server::start("").expect("a PostgreSQL server starts")))
    }

    /// Gives the network an empty database on this server.
    #[must_use]
    pub fn on(mut self, server: Arc<Server>) -> Network {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let database = format!("network_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        server.create_database(&database).expect("a database can be made");
        let file = self.path("maxhost.toml");
        let text = fs::read_to_string(&file).expect("the configuration is there");
        let url = |line: &str| match line.starts_with("url = ") {
            true => format!("url = \"{}\"", server.url(&database)),
            false => line.to_owned(),
        };
        fs::write(&file, text.lines().map(url).collect::<Vec<_>>().join("\n")).expect("it can be written");
        self.on_server = Some(OnServer { server, database });
        self
    }

    /// The server of its database.
    #[must_use]
    pub fn server(&self) -> Option<Arc<Server>> {
        self.on_server.as_ref().map(|on| on.server.clone())
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

    /// A file of it.
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// Gives a host with a folder of its own what is compiled already, CorDapps and contracts, unless it has code: compiling
    /// all of it takes twenty seconds of a processor.
    pub fn lend_code(&self, folder: &Path) {
        template::lend_code(&self.folder, folder);
    }

    /// Makes a folder in which `maxhost init --cordapps` with all samples goes on behind compiling them, which is done.
    pub fn begin(&self, folder: &Path) {
        template::begin(&self.folder, folder);
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

    /// Adds a user of the gRPC port, with the options that say what he may.
    pub fn add_user(&self, name: &str, password: &str, words: &[&str]) {
        let mut command = self.command(&["user", "add", name]);
        command.args(words);
        let user = cli::answer(command, Some(&format!("{password}\n"))).ok().object();
        assert_eq!(user["name"], name);
        assert!(!user.to_string().contains("argon2"), "no hash is shown: {user}");
    }

    /// What a command answers to a user.
    pub fn as_user(&self, user: &str, password: &str, words: &[&str]) -> Answer {
        let mut command = self.command(words);
        command.env("MAXHOST_USER", user).env("MAXHOST_PASSWORD", password);
        cli::answer(command, None)
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

    /// Runs a statement on its database, wherever that is, and gives the first column of the first row, if there is one.
    #[must_use]
    pub fn sql(&self, sql: &str) -> String {
        match &self.on_server {
            Some(OnServer { server, database }) => {
                let sql = format!("SET search_path = maxhost; {sql}");
                server.sql(database, &sql).expect("the server carries it out")
            }
            None => {
                let connection = self.database();
                let mut statement = connection.prepare(sql).expect("a statement");
                let mut rows = statement.query([]).expect("it can be carried out");
                let row = rows.next().expect("it can be carried out");
                let value = row.map(|row| row.get::<_, rusqlite::types::Value>(0).expect("a column"));
                match value {
                    None | Some(rusqlite::types::Value::Null) => String::new(),
                    Some(rusqlite::types::Value::Integer(number)) => number.to_string(),
                    Some(rusqlite::types::Value::Text(text)) => text,
                    Some(other) => format!("{other:?}"),
                }
            }
        }
    }

    /// Its database file, for tests that damage it while no host runs.
    #[must_use]
    pub fn database(&self) -> Connection {
        Connection::open(self.path("data/maxhost.db")).expect("the database opens")
    }
}
