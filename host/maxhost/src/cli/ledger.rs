//! What can be typed about ledgers: vaults, transactions, attachments, notaries.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::at_least_one;

/// `maxhost vault`.
#[derive(Debug, Subcommand)]
pub enum VaultCommand {
    /// Find states; an identity that sleeps goes on sleeping
    Query(VaultQueryArgs),
    /// Show what is there, then each change
    Track {
        /// Which states
        #[command(flatten)]
        which: VaultWhich,
        /// Go on behind this change
        #[arg(long, value_name = "C")]
        cursor: Option<String>,
    },
    /// Show who holds which states
    Locks {
        /// The identity
        #[arg(long, value_name = "NAME")]
        identity: String,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 200)]
        #[arg(value_parser = at_least_one())]
        limit: u32,
        /// Go on behind a page
        #[arg(long, value_name = "C")]
        cursor: Option<String>,
    },
}

/// Which states.
#[derive(Debug, Args)]
pub struct VaultWhich {
    /// The identity: its name, or a part that fits exactly one
    #[arg(long, value_name = "NAME")]
    pub identity: String,
    /// Only of this type; may be given several times
    #[arg(long = "type", value_name = "CONTRACT/STATE")]
    pub types: Vec<String>,
    /// Whether they can be spent
    #[arg(long, value_name = "STATUS", value_enum)]
    pub status: Option<StateStatus>,
    /// A condition, such as "quantity >= 100 and currency = 'GBP'"
    #[arg(long = "where", value_name = "EXPR", allow_hyphen_values = true)]
    pub filter: Option<String>,
    /// Whose they are: the identity's own, or those that it only looks at [default: all; sums: relevant]
    #[arg(long, value_name = "WHOSE", value_enum)]
    pub relevancy: Option<StateRelevancy>,
    /// Only those with this external id; may be given several times
    #[arg(long = "external-id", value_name = "ID")]
    pub external_ids: Vec<String>,
    /// Only those with a key that the identity has made for this external id, such as an account; may be given several times
    #[arg(long = "key-external-id", value_name = "ID")]
    pub key_external_ids: Vec<String>,
}

/// `maxhost vault query`.
#[derive(Debug, Args)]
pub struct VaultQueryArgs {
    /// Which states
    #[command(flatten)]
    pub which: VaultWhich,
    /// Sort by these fields
    #[arg(long, value_name = "FIELD[:desc],…")]
    pub sort: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N")]
    #[arg(value_parser = at_least_one())]
    pub limit: Option<u32>,
    /// Go on behind a page; the cursor repeats the other options
    #[arg(long, value_name = "C")]
    pub cursor: Option<String>,
    /// Only the sum of a field
    #[arg(long, value_name = "FIELD", conflicts_with_all = ["sort", "limit", "cursor"])]
    pub sum: Option<String>,
    /// In groups of equal values of these fields
    #[arg(long, value_name = "FIELD,…", requires = "sum")]
    pub by: Option<String>,
    /// Only how many there are
    #[arg(long, conflicts_with_all = ["sort", "limit", "cursor", "sum"])]
    pub count: bool,
}

/// Whether a state can be spent, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateStatus {
    /// It can.
    Unconsumed,
    /// It cannot.
    Consumed,
    /// Whether it can or cannot.
    All,
}

/// Whose a state is, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateRelevancy {
    /// Anybody's.
    All,
    /// The identity's own.
    Relevant,
    /// One that it only looks at.
    NotRelevant,
}

/// `maxhost ledger`.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Show one transaction
    Show {
        /// Its id
        id: String,
        /// The identity
        #[arg(long, value_name = "NAME")]
        identity: String,
    },
    /// List transactions, newest first
    List {
        /// The identity
        #[arg(long, value_name = "NAME")]
        identity: String,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 200)]
        #[arg(value_parser = at_least_one())]
        limit: u32,
        /// Go on behind a page
        #[arg(long, value_name = "C")]
        cursor: Option<String>,
    },
    /// Verify a transaction again, from what the identity has, and say what is wrong with it
    WhyInvalid {
        /// Its id
        id: String,
        /// The identity
        #[arg(long, value_name = "NAME")]
        identity: String,
    },
    /// Show what a transaction comes from
    Graph {
        /// Its id
        id: String,
        /// The identity
        #[arg(long, value_name = "NAME")]
        identity: String,
        /// At most so many transactions
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        #[arg(value_parser = at_least_one())]
        limit: u32,
    },
}

/// `maxhost attachment`.
#[derive(Debug, Subcommand)]
pub enum AttachmentCommand {
    /// List what this host has: contract code that is installed, and files of data; with --identity what the ledger of an
    /// identity has, asked of the host that runs
    List {
        /// Of this identity
        #[arg(long, value_name = "NAME")]
        identity: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 200, requires = "identity")]
        #[arg(value_parser = at_least_one())]
        limit: u32,
        /// Go on behind a page
        #[arg(long, value_name = "C", requires = "identity")]
        cursor: Option<String>,
    },
    /// Show one: of code its contracts, types and commands
    Show {
        /// Its id, as transactions name it
        id: String,
        /// As this identity has it, asked of the host that runs
        #[arg(long, value_name = "NAME")]
        identity: Option<String>,
    },
    /// Add a file: contract code is installed, as `cordapp install` does, and trusted; anything else is data. With --identity
    /// the file is sent to the host that runs, and kept in the ledger of the identity
    Import {
        /// The file
        file: PathBuf,
        /// For this identity
        #[arg(long, value_name = "NAME")]
        identity: Option<String>,
    },
    /// Write one to a file, or to standard output
    Export {
        /// Its id, as transactions name it
        id: String,
        /// The file
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// As this identity has it, asked of the host that runs
        #[arg(long, value_name = "NAME")]
        identity: Option<String>,
    },
}

/// `maxhost notary`.
#[derive(Debug, Subcommand)]
pub enum NotaryCommand {
    /// Show what a notary has done since it was made
    Status {
        /// The notary
        #[arg(long, value_name = "NAME")]
        identity: String,
    },
    /// List the requests that a notary has decided, newest first
    Requests(NotaryRequestsArgs),
    /// Show what a notary has decided about a transaction, and the requests about it
    Show {
        /// The id of the transaction
        id: String,
        /// The notary
        #[arg(long, value_name = "NAME")]
        identity: String,
    },
    /// Show which transactions have consumed states, and when
    Consumed {
        /// The states
        #[arg(required = true, value_name = "TXID:INDEX")]
        states: Vec<String>,
        /// The notary
        #[arg(long, value_name = "NAME")]
        identity: String,
    },
}

/// `maxhost notary requests`.
#[derive(Debug, Args)]
pub struct NotaryRequestsArgs {
    /// The notary
    #[arg(long, value_name = "NAME")]
    pub identity: String,
    /// Only those of this caller: its full name
    #[arg(long, value_name = "NAME")]
    pub caller: Option<String>,
    /// Only those that were answered so
    #[arg(long, value_name = "OUTCOME", value_enum)]
    pub outcome: Option<NotaryOutcome>,
    /// Only those that were decided then or later: a time, or how long ago
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only those that were decided before: a time, or how long ago
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 200)]
    #[arg(value_parser = at_least_one())]
    pub limit: u32,
    /// Go on behind a page
    #[arg(long, value_name = "C")]
    pub cursor: Option<String>,
}

/// What a notary has answered, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NotaryOutcome {
    /// The transaction was committed.
    Committed,
    /// It had been committed before.
    Repeated,
    /// A state was consumed by another transaction.
    Conflict,
    /// Its time-window was over.
    TooLate,
    /// Its time-window had not begun.
    TooEarly,
}
