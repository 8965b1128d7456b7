//! How a database is named and reached.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use maxhost_group_commit::Bounds;
use maxhost_store::{AuditBounds, PROCESSED_RETENTION, Quotas};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// Environment variable with the password; stronger than a file.
pub const PASSWORD_VARIABLE: &str = "MAXHOST_STORE_PASSWORD";
/// The longest file of a password that is read, bytes.
const PASSWORD_BYTES: usize = 4096;

/// Where the tables of identities lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// Each identity has a schema of its own for what is its alone.
    #[default]
    Schemas,
    /// Everything is in one schema.
    Shared,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::Schemas => "schemas",
            Layout::Shared => "shared",
        })
    }
}

/// Why an address cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is no address of a PostgreSQL database.
    #[error("{0}")]
    Invalid(String),
    /// A password in the address would be in every copy of the file.
    #[error(
        "the address has a password in it: put it into a file and name it in store.password_file, or into MAXHOST_STORE_PASSWORD"
    )]
    Password,
    /// Text would cross a network in the clear.
    #[error(
        "{0} is not on this machine: add sslmode=verify-full to the address (and sslrootcert, if the authority is your own)"
    )]
    NotEncrypted(String),
    /// The file of the password cannot be used.
    #[error("the password of the database cannot be read from {0}: {1}")]
    PasswordFile(String, String),
    /// The file of the password is not there.
    #[error("the password of the database cannot be read from {0}: {1}")]
    NoPasswordFile(String, String),
}

/// How a database is opened.
#[derive(Clone)]
pub struct PostgresOptions {
    pub(crate) connect: PgConnectOptions,
    /// Connections that read, claim and purge; the committer has one more.
    pub readers: u32,
    /// Where the tables of identities lie. It is recorded by the first start and must stay the same.
    pub layout: Layout,
    /// Bounds of the committer's queue.
    pub bounds: Bounds,
    /// How much may wait for each identity, and for the broker from each.
    pub quotas: Quotas,
    /// How long it is remembered that a broker's message was taken, in the time that hosts run.
    pub processed_retention: Duration,
    /// Whether a server is used that could lose what it has confirmed.
    pub allow_loss: bool,
    /// Whether the server is asked each second whether it answers, so that it can be told when it did
    /// ([`maxhost_store::Committer::last_answers`]). Only a host that shares identities with others has a use for that.
    pub asks_each_second: bool,
    /// How far the clock of this machine may be from the server's, to either side.
    pub max_clock_offset: Duration,
    /// How often it is looked whether one of both has become so.
    pub look_every: Duration,
    /// For how long the audit trail is kept, and how much of it.
    pub audit: AuditBounds,
    /// How long a start waits for a server that does not answer.
    pub patience: Duration,
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions").field("place", &self.place()).finish_non_exhaustive()
    }
}

impl PostgresOptions {
    /// The defaults for an address such as `postgres://role@host:5432/database?sslmode=verify-full`.
    ///
    /// The password comes from [`PASSWORD_VARIABLE`], or from `password_file`, or else from the file that `PGPASSFILE`
    /// names. An address without encryption is good for this machine only.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn new(url: &str, password_file: Option<&Path>) -> Result<PostgresOptions, AddressError> {
        PostgresOptions::with_password(url, PASSWORD_VARIABLE, password_file)
    }

    /// As [`PostgresOptions::new`], with another environment variable in place of [`PASSWORD_VARIABLE`].
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn with_password(
        url: &str,
        variable: &str,
        password_file: Option<&Path>,
    ) -> Result<PostgresOptions, AddressError> {
        if has_password(url) {
            return Err(AddressError::Password);
        }
        check_parameters(url)?;
        let invalid = |error: sqlx::Error| AddressError::Invalid(error.to_string());
        let mut connect = PgConnectOptions::from_str(url).map_err(invalid)?;
        if let Some(address) = connect.get_host().strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            let address = address.to_owned();
            connect = connect.host(&address);
        }
        if connect.get_database().is_none() {
            return Err(AddressError::Invalid("the address names no database".to_owned()));
        }
        let local = connect.get_socket().is_some() || is_local(connect.get_host());
        let encrypted = matches!(connect.get_ssl_mode(), PgSslMode::VerifyCa | PgSslMode::VerifyFull);
        if !local && !encrypted {
            return Err(AddressError::NotEncrypted(connect.get_host().to_owned()));
        }
        if let Some(password) = password(variable, password_file)? {
            connect = connect.password(&password);
        }
        let connect = connect
            .application_name("maxhost")
            .statement_cache_capacity(500)
            // Values of statements are for nobody's log.
            .disable_statement_logging();
        Ok(PostgresOptions {
            connect,
            readers: 6,
            layout: Layout::default(),
            bounds: Bounds::default(),
            quotas: Quotas::default(),
            processed_retention: PROCESSED_RETENTION,
            allow_loss: false,
            asks_each_second: true,
            max_clock_offset: Duration::from_secs(5),
            look_every: Duration::from_secs(10),
            audit: AuditBounds::default(),
            patience: Duration::from_secs(10),
        })
    }

    /// The server and the database, for people.
    #[must_use]
    pub fn place(&self) -> String {
        let connect = &self.connect;
        let database = connect.get_database().unwrap_or_default();
        match connect.get_socket() {
            Some(socket) => format!("{database} at {}", socket.display()),
            None => format!("{database} at {}:{}", connect.get_host(), connect.get_port()),
        }
    }

    /// Options of connections that read, claim and purge.
    pub(crate) fn reading(&self) -> PgConnectOptions {
        self.connect.clone().options([("lock_timeout", "1s"), ("idle_in_transaction_session_timeout", "10s")])
    }

    /// Options of the connection that commits.
    pub(crate) fn committing(&self) -> PgConnectOptions {
        // A statement has no time limit: one that is cancelled while it waits for a standby has been written, and the
        // server says that it was cancelled.
        self.connect.clone().options([
            ("lock_timeout", "2s"),
            ("idle_in_transaction_session_timeout", "2s"),
            ("synchronous_commit", "on"),
            ("plan_cache_mode", "force_generic_plan"),
            ("jit", "off"),
        ])
    }
}

/// What may stand behind the question mark.
const PARAMETERS: [&str; 9] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "host", "port", "dbname", "user", "application_name"];

fn check_parameters(url: &str) -> Result<(), AddressError> {
    let Some((_, query)) = url.split_once('?') else { return Ok(()) };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = pair.split('=').next().unwrap_or_default();
        if !PARAMETERS.contains(&name) {
            let known = PARAMETERS.join(", ");
            return Err(AddressError::Invalid(format!("the address has a parameter '{name}'; known are {known}")));
        }
    }
    Ok(())
}

fn has_password(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let in_query = rest
        .split_once('?')
        .is_some_and(|(_, query)| query.split('&').any(|pair| pair.split('=').next() == Some("password")));
    in_query || authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

fn is_local(host: &str) -> bool {
    // A host that begins with a slash is the folder of a socket.
    host.starts_with('/')
        || host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn password(variable: &str, file: Option<&Path>) -> Result<Option<String>, AddressError> {
    if let Some(password) = std::env::var_os(variable) {
        let unusable = || AddressError::PasswordFile(variable.to_owned(), "it is not UTF-8".to_owned());
        return password.into_string().map(Some).map_err(|_| unusable());
    }
    let Some(path) = file else { return Ok(None) };
    let unusable = |why: String| AddressError::PasswordFile(path.display().to_string(), why);
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => AddressError::NoPasswordFile(path.display().to_string(), error.to_string()),
        _ => unusable(error.to_string()),
    })?;
    match text.lines().next() {
        Some(line) if !line.is_empty() && text.len() <= PASSWORD_BYTES => Ok(Some(line.to_owned())),
        _ => Err(unusable("a line with the password was expected".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_checked() {
        let ok = |url: &str| PostgresOptions::new(url, None).map(|options| options.place());
        assert_eq!(ok("postgres://max@127.0.0.1:5433/ledger").unwrap(), "ledger at 127.0.0.1:5433");
        assert_eq!(ok("postgres://max@[::1]/ledger").unwrap(), "ledger at ::1:5432");
        assert_eq!(ok("postgres:///ledger?host=/run/postgresql").unwrap(), "ledger at /run/postgresql");
        assert!(ok("postgres://max@db.example/ledger?sslmode=verify-full").is_ok());
        assert!(matches!(ok("postgres://max@db.example/ledger"), Err(AddressError::NotEncrypted(_))));
        assert!(matches!(ok("postgres://max@db.example/ledger?sslmode=require"), Err(AddressError::NotEncrypted(_))));
        for secret in ["postgres://max:s3cret@127.0.0.1/ledger", "postgres://max@127.0.0.1/ledger?password=s3cret"] {
            let refused = ok(secret).unwrap_err();
            assert_eq!(refused, AddressError::Password);
            assert!(!refused.to_string().contains("s3cret"));
        }
        assert!(matches!(ok("postgres://max@127.0.0.1"), Err(AddressError::Invalid(_))));
        assert!(matches!(ok("postgres://max@127.0.0.1:x/ledger"), Err(AddressError::Invalid(_))));
        assert!(matches!(ok("postgres://max@127.0.0.1/ledger?sslmod=disable"), Err(AddressError::Invalid(_))));
    }

    /// A host that hangs in the middle of a transaction would otherwise keep the server from cleaning up behind all others.
    #[test]
    fn the_server_ends_every_transaction_that_is_left_open() {
        let options = PostgresOptions::new("postgres://max@127.0.0.1/ledger", None).unwrap();
        for (options, limit) in [(options.reading(), "10s"), (options.committing(), "2s")] {
            let set = options.get_options().unwrap();
            assert!(set.contains(&format!("-c idle_in_transaction_session_timeout={limit}")), "{set}");
        }
    }

    #[test]
    fn a_password_is_read_from_its_file_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        let open = || PostgresOptions::new("postgres://max@127.0.0.1/ledger", Some(&file));
        assert!(matches!(open(), Err(AddressError::NoPasswordFile(..))));
        std::fs::write(&file, "\n").unwrap();
        assert!(matches!(open(), Err(AddressError::PasswordFile(..))));
        std::fs::write(&file, "s3cret\n").unwrap();
        assert!(!format!("{:?}", open().unwrap()).contains("s3cret"));
    }
}
