//! `maxhost.toml`: one table of keys (`config/keys.rs`), from which the parser, the environment, the template and the documentation are
//! made; and what a host is started with by it.
//!
//! Defaults, then the file, then the environment (`MAXHOST_<SECTION>_<KEY>`), then `--set section.key=value`.

pub mod cluster;
mod databases;
mod keys;
mod secrets;
mod service_links;
mod values;

pub use self::databases::NamedDatabase;
pub use self::keys::template;

use std::path::{Path, PathBuf};

use maxhost_flows::options::{Eviction, HostOptions, Passphrase};
use maxhost_model::{Code, Problem};
use maxhost_ownership::Roles;
use maxhost_rpc::RpcOptions;
use maxhost_store::{AuditBounds, Quotas};
use maxhost_store_postgres::{AddressError, PASSWORD_VARIABLE, PostgresOptions};

use self::keys::{Evict, Settings, apply_entry, apply_override, apply_variable};
use crate::files;
use crate::strict_toml::{self, Fault};

/// The file's usual name.
pub const FILE_NAME: &str = "maxhost.toml";
/// Largest configuration that is read, bytes.
const LARGEST_CONFIG: u64 = 1 << 20;

/// Largest file of certificates, bytes.
pub const LARGEST_PEM: u64 = 1 << 20;

/// Environment variable with the passphrase itself; stronger than `keys.passphrase_file`.
pub const PASSPHRASE_VARIABLE: &str = "MAXHOST_PASSPHRASE";

/// The configuration of a host. Relative paths are relative to the folder of the file.
#[derive(Debug, Clone)]
pub struct Config {
    file: PathBuf,
    root: PathBuf,
    settings: Settings,
    database: Database,
}

/// Where the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// In a file.
    File(PathBuf),
    /// On a PostgreSQL server, at this address.
    Server(String),
}

/// The data folder of a host whose database is on a server.
pub const DATA_FOLDER: &str = "data";
/// Where in there compiled code is kept.
pub const CODE_FOLDER: &str = "code";

impl Config {
    /// Reads the file, then the environment and the overrides (`section.key=value`).
    ///
    /// # Errors
    /// `config-not-found`; `config-invalid` with the line.
    pub fn load(file: &Path, overrides: &[String]) -> Result<Config, Problem> {
        let text = files::read_text(file, LARGEST_CONFIG).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Problem::new(Code::ConfigNotFound, format!("there is no configuration file {}", file.display()))
                    .detail("file", file.display().to_string())
            }
            _ => Problem::new(Code::FileUnreadable, format!("cannot read {}: {error}", file.display()))
                .detail("file", file.display().to_string()),
        })?;
        // What is no UTF-8 cannot be one of our names; a value that is none is told like any other wrong one.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())));
        Config::parse(file, &text, environment, overrides)
    }

    /// As [`Config::load`], from a text and an environment.
    ///
    /// # Errors
    /// `config-invalid` with the line.
    pub fn parse(
        file: &Path,
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
        overrides: &[String],
    ) -> Result<Config, Problem> {
        let mut settings = Settings::defaults();
        let at_line = |fault: Fault| fault.in_file(Code::ConfigInvalid, file);
        for entry in strict_toml::entries(text).map_err(at_line)? {
            apply_entry(&mut settings, &entry).map_err(|message| at_line(Fault { line: entry.line, message }))?;
        }
        for (variable, value) in environment {
            apply_variable(&mut settings, &variable, value).map_err(|message| {
                Problem::new(Code::ConfigInvalid, format!("{variable}: {message}"))
                    .remedy("correct the variable, or unset it")
                    .detail("variable", variable.clone())
            })?;
        }
        for assignment in overrides {
            apply_override(&mut settings, assignment)
                .map_err(|message| Problem::new(Code::ConfigInvalid, format!("--set {assignment}: {message}")))
                .map_err(|problem| problem.remedy("write --set section.key=value; docs/operating.md lists the keys"))?;
        }
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let root = std::path::absolute(parent).unwrap_or_else(|_| parent.to_owned());
        let database = database_of(&root, &settings.store).map_err(|message| {
            Problem::new(Code::ConfigInvalid, format!("{}: store.url: {message}", file.display()))
        })?;
        databases::check(&settings.further, &database)
            .map_err(|message| Problem::new(Code::ConfigInvalid, format!("{}: {message}", file.display())))?;
        Ok(Config { file: file.to_owned(), database, root, settings })
    }

    /// The file it came from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The folder of the file.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What this process does.
    pub fn roles(&self) -> Roles {
        self.settings.roles
    }

    /// Where components are installed.
    pub fn cordapps(&self) -> PathBuf {
        self.root.join(&self.settings.cordapps)
    }

    /// Where the network's files lie.
    pub fn network(&self) -> PathBuf {
        self.root.join(&self.settings.network)
    }

    /// Where sealed keys lie.
    pub fn keys(&self) -> PathBuf {
        self.root.join(&self.settings.keys)
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// How the database at this address of a server is opened.
    ///
    /// # Errors
    /// `config-invalid`; `file-not-found` and `file-unreadable` if the password cannot be read.
    pub fn postgres(&self, url: &str) -> Result<PostgresOptions, Problem> {
        self.postgres_with(url, "store.url", PASSWORD_VARIABLE, self.settings.password_file.as_deref())
    }

    fn postgres_with(
        &self,
        url: &str,
        key: &str,
        variable: &str,
        password_file: Option<&Path>,
    ) -> Result<PostgresOptions, Problem> {
        let password_file = password_file.map(|file| self.root.join(file));
        let options = PostgresOptions::with_password(url, variable, password_file.as_deref());
        let mut options = options.map_err(|error| match error {
            AddressError::NoPasswordFile(..) => Problem::new(Code::FileNotFound, error.to_string()),
            AddressError::PasswordFile(..) => Problem::new(Code::FileUnreadable, error.to_string()),
            _ => Problem::new(Code::ConfigInvalid, format!("{}: {key}: {error}", self.file.display())),
        })?;
        options.layout = self.settings.layout;
        options.allow_loss = self.settings.allow_loss;
        options.max_clock_offset = self.settings.max_clock_offset;
        options.quotas = self.quotas();
        options.audit = self.audit();
        Ok(options)
    }

    /// What one host at a time may use: the folder of the database file, or `data`.
    pub fn data(&self) -> PathBuf {
        match &self.database {
            Database::File(file) => file.parent().unwrap_or(&self.root).to_owned(),
            Database::Server(_) => self.root.join(DATA_FOLDER),
        }
    }

    /// Where compiled code is kept.
    pub fn code(&self) -> PathBuf {
        self.data().join(CODE_FOLDER)
    }

    /// Whether components are installed and nothing is compiled here yet. What needs their code first takes its time then.
    pub fn compiles_first(&self) -> bool {
        let has = |folder: PathBuf, wanted: fn(&Path) -> bool| {
            std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| wanted(&entry.path()))
        };
        !has(self.code(), |_| true) && has(self.cordapps(), |file| file.extension().is_some_and(|end| end == "wasm"))
    }

    /// Where files lie that are no code and can be attached to transactions.
    pub fn attachments(&self) -> PathBuf {
        self.data().join(maxhost_flows::ATTACHMENTS)
    }

    /// Where a running host writes down its endpoint.
    pub fn endpoint_file(&self) -> PathBuf {
        self.data().join("endpoint")
    }

    /// Where gRPC should listen.
    pub fn listen(&self) -> &str {
        &self.settings.listen
    }

    /// The file of users, if there are users.
    pub fn users_file(&self) -> Option<PathBuf> {
        self.settings.users.as_ref().map(|file| self.root.join(file))
    }

    /// Where metrics are served, if they are.
    pub fn metrics(&self) -> Option<&str> {
        self.settings.metrics.as_deref()
    }

    /// How many messages may wait for each identity, and for the broker from each.
    pub fn quotas(&self) -> Quotas {
        self.settings.quotas
    }

    /// For how long the audit trail is kept, and how much of it.
    pub fn audit(&self) -> AuditBounds {
        self.settings.audit
    }

    /// What the engine is started with.
    pub fn host_options(&self, passphrase: Passphrase) -> HostOptions {
        let settings = &self.settings;
        let data = self.data();
        let defaults = HostOptions::new(&self.root, passphrase);
        HostOptions {
            name: self.host_name(),
            data: data.clone(),
            broker: data.join("broker.db"),
            cordapps: self.cordapps(),
            code_cache: self.code(),
            network: self.network(),
            keys: self.keys(),
            eviction: match settings.evict {
                Evict::AfterLinger => Eviction::AfterLinger(settings.linger),
                Evict::Never => Eviction::Never,
                Evict::EveryWait => Eviction::EveryWait,
                Evict::Random(seed) => Eviction::Random(seed),
            },
            idle_close: settings.idle_close,
            shadow_replay: settings.shadow_replay,
            retention: settings.retention,
            instances: settings.instances,
            memory: settings.memory.unwrap_or(defaults.memory),
            journal_entries: settings.journal_entries,
            journal_bytes: settings.journal_bytes,
            log_lines: settings.log_lines,
            log_bytes: settings.log_bytes,
            kept: settings.kept,
            imports: settings.imports,
            guest_threads: if settings.guest_threads == 0 { defaults.guest_threads } else { settings.guest_threads },
            always_broker: settings.always_broker,
            // Only a development network has the keys of its authorities here.
            development: self.keys().join("authority").is_dir(),
            ..defaults
        }
    }

    /// How the gRPC server is set up.
    pub fn rpc_options(&self) -> RpcOptions {
        RpcOptions {
            listen: self.settings.listen.clone(),
            max_calls: self.settings.rpc_calls,
            max_streams: self.settings.rpc_streams,
            max_connections: self.settings.rpc_connections,
            slots_per_host: self.slots_per_host(),
            ..RpcOptions::default()
        }
    }
}

fn database_of(root: &Path, url: &str) -> Result<Database, String> {
    match url.split_once(':') {
        Some(("sqlite", path)) => {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.ends_with('/') {
                return Err(format!("'{url}' names no file"));
            }
            Ok(Database::File(root.join(path)))
        }
        // Looked at here too, so that a wrong address is told before anything is done; its password is not needed yet.
        Some(("postgres" | "postgresql", _)) => match PostgresOptions::new(url, None) {
            Ok(_) => Ok(Database::Server(url.to_owned())),
            Err(error) => Err(error.to_string()),
        },
        Some((scheme, _)) => Err(format!(
            "'{scheme}' is no database this version knows; write sqlite:PATH or postgres://ROLE@SERVER/DATABASE"
        )),
        None => Err("it is not a database; write sqlite:PATH or postgres://ROLE@SERVER/DATABASE".to_owned()),
    }
}

#[cfg(test)]
mod tests;
