//! What can be typed.

mod flow;
mod ledger;
mod users;

pub use self::flow::*;
pub use self::ledger::*;
pub use self::users::*;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::units;

/// Hosts Corda identities and runs their CorDapps, each flow in a WebAssembly instance of its own.
#[derive(Debug, Parser)]
#[command(name = "maxhost", version, max_term_width = 110, disable_help_subcommand = true)]
pub struct Cli {
    /// For every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// One JSON object on standard output; a list is one object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// The configuration
    #[arg(long, global = true, value_name = "FILE", env = "MAXHOST_CONFIG", default_value = crate::config::FILE_NAME)]
    #[arg(value_parser = OsStringValueParser::new().map(config_file))]
    pub config: PathBuf,
    /// The host to talk to, http://HOST:PORT; without it, the one that runs with the configuration
    #[arg(long, global = true, value_name = "URL", env = "MAXHOST_ENDPOINT")]
    pub endpoint: Option<String>,
    /// How long to wait, such as 30s; while a flow runs, there is no limit unless one is given
    #[arg(long, global = true, value_name = "TIME", value_parser = units::duration, allow_hyphen_values = true)]
    pub timeout: Option<Duration>,
    /// Who calls, where the host has users; the password comes from MAXHOST_PASSWORD, or is asked for
    #[arg(long, global = true, value_name = "NAME", env = "MAXHOST_USER")]
    pub user: Option<String>,
    /// Who calls, in place of a user and a password: a file with a token that `maxhost token new` has made
    #[arg(long, global = true, value_name = "FILE", env = "MAXHOST_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// The authorities that the host's certificate must come from, PEM; without it, the file rpc.tls.cert
    #[arg(long, global = true, value_name = "FILE", env = "MAXHOST_CA")]
    pub ca: Option<PathBuf>,
    /// The certificate of whoever calls, PEM, where the host asks for one
    #[arg(long, global = true, value_name = "FILE", env = "MAXHOST_CERT", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, global = true, value_name = "FILE", env = "MAXHOST_KEY", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Colours on standard error and in tables
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = Color::Auto)]
    pub color: Color,
}

/// How many are shown at most: none is no answer.
fn at_least_one() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

/// A variable that is set and empty is as good as not set.
fn config_file(given: OsString) -> PathBuf {
    if given.is_empty() { crate::config::FILE_NAME.into() } else { given.into() }
}

impl Global {
    /// How long a call may take, and how long the host may be away.
    pub fn patience(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(30))
    }
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Colours, wherever the output goes.
    Always,
    /// No colours.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a development network: authorities, keys, identities, configuration
    Init(InitArgs),
    /// Run the host in the foreground
    Run(RunArgs),
    /// Show the host at a glance
    Status,
    /// Identities of the host
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// The hosts that share identities, and what they share
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Hosts of the cluster
    #[command(subcommand)]
    Host(HostCommand),
    /// CorDapps: make, build, look at and install them
    #[command(subcommand)]
    Cordapp(CordappCommand),
    /// Flows: start, watch and end them
    #[command(subcommand)]
    Flow(FlowCommand),
    /// The states of an identity: query, follow, see who holds them
    #[command(subcommand)]
    Vault(VaultCommand),
    /// The transactions of an identity
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Notaries of the host
    #[command(subcommand)]
    Notary(NotaryCommand),
    /// Installed contract code
    #[command(subcommand)]
    Attachment(AttachmentCommand),
    /// The network as the host knows it
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Users of the gRPC port
    #[command(subcommand)]
    User(UserCommand),
    /// Tokens, with which programs log in as users
    #[command(subcommand)]
    Token(TokenCommand),
    /// Who did what, or was refused it
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The database without a host
    #[command(subcommand)]
    Db(DbCommand),
    /// Find out what is wrong with this installation
    Doctor,
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// `maxhost init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The folder; repeating the command after an interruption goes on where it stopped
    pub dir: PathBuf,
    /// Add so many identities: O=Party 00001, L=London, C=GB and so on
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub count: Option<u32>,
    /// Add this identity; may be given several times
    #[arg(long, value_name = "NAME")]
    pub identity: Vec<String>,
    /// The notary's name; may be given several times, and the first is the one that flows take if nobody names another
    #[arg(long, value_name = "NAME")]
    pub notary: Vec<String>,
    /// The notaries verify what they notarise
    #[arg(long)]
    pub validating: bool,
    /// Install the components of this folder, and name those with flows in every manifest; unsigned contracts are signed
    /// with the developer's key that is made
    #[arg(long, value_name = "DIR")]
    pub cordapps: Option<PathBuf>,
}

/// `maxhost run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// How the log on standard error is written
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Override a setting of the configuration; may be given several times
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// What this process does: flows, rpc, or flows,rpc
    #[arg(long, value_name = "ROLES")]
    pub role: Option<String>,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// `maxhost db`.
#[derive(Debug, Subcommand)]
pub enum DbCommand {
    /// Bring the tables up to date, as a host does when it starts
    Migrate,
    /// Look whether the database can be used and is sound; changes nothing
    Check,
    /// Move an identity to another of the databases that hosts have; a move that was broken off is begun again the same way
    Move {
        /// The identity: its name, or a part of it
        identity: String,
        /// The database: its address, or its name in the configuration
        #[arg(long, value_name = "URL")]
        to: String,
    },
    /// Say that a database on a server was put back to an earlier moment: no number is given out twice
    Restored,
}

/// `maxhost cluster`.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Show the cluster at a glance
    Status {
        /// Show it again whenever it changes
        #[arg(long)]
        watch: bool,
    },
    /// After ZooKeeper was emptied or restored: have its claims rise above all that the database has
    Adopt,
}

/// `maxhost host`.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// List the hosts of the cluster
    List,
    /// Have a host give up what it runs and take nothing more
    Drain {
        /// Its name
        name: String,
    },
    /// Have a host take identities again
    Undrain {
        /// Its name
        name: String,
    },
}

/// `maxhost identity`.
#[derive(Debug, Subcommand)]
pub enum IdentityCommand {
    /// List the identities of the host
    List {
        /// Only those whose name contains this
        filter: Option<String>,
        /// With the host that runs each
        #[arg(long)]
        hosts: bool,
    },
    /// Show which host of the cluster runs an identity
    Where {
        /// Its name, or a part that fits exactly one
        name: String,
        /// Show it again whenever it changes
        #[arg(long)]
        watch: bool,
    },
    /// Have a host of the cluster take an identity over
    Move {
        /// Its name, or a part that fits exactly one
        name: String,
        /// The name of the host
        #[arg(long, value_name = "HOST")]
        to: String,
    },
    /// Have hosts try an identity again that they run no more because too many of them died while they had it
    Retry {
        /// Its name, or a part that fits exactly one
        name: String,
    },
    /// Show one identity
    Show {
        /// Its name, or a part that fits exactly one
        name: String,
    },
    /// Issue an identity of the development network; a running host takes it at once
    New {
        /// Its X.500 name
        name: String,
        /// A CorDapp it runs: name, name@version or name#sha256:HASH; may be given several times
        #[arg(long, value_name = "CORDAPP")]
        cordapp: Vec<String>,
    },
    /// Put manifests and their sealed keys where hosts share them (identities.source = "ownership")
    Publish {
        /// Which: names or parts that fit exactly one, or files such as alice.toml; all, if none is given
        names: Vec<String>,
        /// The folder with identities/ and keys/, instead of those of the configuration
        #[arg(long, value_name = "DIR")]
        from: Option<PathBuf>,
    },
    /// Stop hosting an identity; its keys and its data stay
    Remove {
        /// Its name, or a part that fits exactly one
        name: String,
        /// Do not ask; without a terminal nobody is asked
        #[arg(long)]
        yes: bool,
    },
}

/// `maxhost cordapp`.
#[derive(Debug, Subcommand)]
pub enum CordappCommand {
    /// Write a new CorDapp: a crate of a few lines with a test that passes
    New {
        /// Its name, which is that of the folder
        name: String,
    },
    /// Print the contract between a host and its CorDapps (WIT), for those that are not written in Rust
    Wit,
    /// Compile both sides of a CorDapp, its contract and its flows, and check the components
    Build {
        /// The folder with `contract/` and `flows/`, or with one crate of either
        #[arg(default_value = ".")]
        path: PathBuf,
        /// Sign the contract with this key: PEM of PKCS #8, Ed25519; may be given several times
        #[arg(long, value_name = "KEYFILE")]
        sign: Vec<PathBuf>,
    },
    /// Show what a component is
    Inspect {
        /// The component
        file: PathBuf,
    },
    /// Check that a component can take the place of an older one
    Check {
        /// The component
        file: PathBuf,
        /// The one that it is to replace
        #[arg(long, value_name = "OLD")]
        against: PathBuf,
    },
    /// Ask contract code about transactions: one request a line on standard input, one answer a line
    Verify {
        /// The component of the contract
        file: PathBuf,
    },
    /// Put a component where manifests can name it
    Install {
        /// The component
        file: PathBuf,
        /// Replace an installed one of the same name and version
        #[arg(long)]
        replace: bool,
    },
}

/// `maxhost network`.
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// List the parties of the network
    Parties {
        /// Only those with this in their name
        filter: Option<String>,
        /// A whole component of the name, such as the organisation, equals the filter
        #[arg(long, requires = "filter")]
        exact: bool,
    },
    /// Show the network parameters
    Parameters,
    /// Change the parameters of a development network: they are signed as its next epoch, and a running host takes them
    Update(UpdateArgs),
}

/// `maxhost network update`.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// The largest transaction with all it needs, bytes: 1 MiB or more
    #[arg(long, value_name = "BYTES")]
    pub max_transaction_size: Option<u64>,
    /// The largest message between nodes, bytes: 64 KiB or more; hosts take it when they start
    #[arg(long, value_name = "BYTES")]
    pub max_message_size: Option<u64>,
    /// Put an identity onto the list of notaries: its name, or a part that fits exactly one; its manifest says too that it is one
    #[arg(long, value_name = "NAME")]
    pub add_notary: Vec<String>,
    /// The notaries that are added validate
    #[arg(long, requires = "add_notary")]
    pub validating: bool,
    /// Take a notary off the list, by its name or a part that fits exactly one: what it keeps can only be moved to another one
    #[arg(long, value_name = "NAME")]
    pub remove_notary: Vec<String>,
    /// Let states under the whitelist constraint go with this attachment
    #[arg(long, value_name = "CONTRACT=ATTACHMENT")]
    pub list: Vec<String>,
    /// Take an attachment off the whitelist
    #[arg(long, value_name = "CONTRACT=ATTACHMENT")]
    pub unlist: Vec<String>,
    /// Let a publisher's new key stand for an old one: each is a file with a key in PEM, or a contract that the key alone has signed
    #[arg(long, value_name = "OLD=NEW")]
    pub succeed: Vec<String>,
    /// Take away the succession in which a key is, given as for --succeed
    #[arg(long, value_name = "KEY")]
    pub unsucceed: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
