//! What can be typed about who calls: users, their tokens, and the audit trail of what they did.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::at_least_one;
use crate::units;

/// `maxhost user`.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user; the password comes from standard input
    Add {
        /// His name
        name: String,
        /// What he may do: ACTION, ACTION.cordapp/flow with *, or ALL; may be given several times
        #[arg(long, value_name = "P", required = true)]
        permission: Vec<String>,
        /// With which identity: its name, a part that fits exactly one, or a pattern with *; all if none is given
        #[arg(long, value_name = "N")]
        identity: Vec<String>,
        /// Only a certificate with his name lets him in
        #[arg(long)]
        no_password: bool,
    },
    /// List the users
    List,
    /// Remove a user
    Remove {
        /// His name
        name: String,
    },
    /// Give a user another password, from standard input
    Passwd {
        /// His name
        name: String,
    },
    /// Give a user a key that signs his requests when they come as messages
    Key {
        /// His name
        name: String,
        /// Where the private key is written, in PEM; one that is there is taken as it is [default: NAME.key]
        #[arg(long, value_name = "FILE", conflicts_with = "remove")]
        file: Option<PathBuf>,
        /// Take the key away: nobody can send messages as him any more
        #[arg(long)]
        remove: bool,
    },
}

/// `maxhost token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token of a user, which is shown this once
    New(TokenNewArgs),
    /// List the tokens, without what makes them secret
    List(TokenListArgs),
    /// Let a token let nobody in any more
    Revoke {
        /// Its id: what stands between the first two underscores of it
        id: String,
    },
}

/// `maxhost token new`.
#[derive(Debug, Args)]
pub struct TokenNewArgs {
    /// Whose token it is
    #[arg(id = "of_user", long = "user", value_name = "NAME")]
    pub of_user: String,
    /// For how long it counts: 3660d at most
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "90d", allow_hyphen_values = true)]
    pub expires: Duration,
    /// What it lets its holder do, of what the user may: ACTION, ACTION.cordapp/flow with *, or ALL; may be given several times;
    /// all of it if none is given
    #[arg(long, value_name = "P")]
    pub permission: Vec<String>,
    /// With which of the user's identities: its name, a part that fits exactly one, or a pattern with *; all if none is given
    #[arg(long, value_name = "N")]
    pub identity: Vec<String>,
    /// What it is for, for the list
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Write it into this file, which is made for it, and do not show it
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Stands for the option of every command of this name, so that --user can be something else here
    #[arg(id = "user", long = "as-user", value_name = "NAME", hide = true)]
    pub caller: Option<String>,
}

/// `maxhost token list`.
#[derive(Debug, Args)]
pub struct TokenListArgs {
    /// Only of this user
    #[arg(id = "of_user", long = "user", value_name = "NAME")]
    pub of_user: Option<String>,
    /// Stands for the option of every command of this name, so that --user can be something else here
    #[arg(id = "user", long = "as-user", value_name = "NAME", hide = true)]
    pub caller: Option<String>,
}

/// `maxhost audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List what was done and refused, newest first
    List(AuditListArgs),
}

/// `maxhost audit list`.
#[derive(Debug, Args)]
pub struct AuditListArgs {
    /// Only of this user. Who calls is said by MAXHOST_USER, or by --user before the word audit
    #[arg(id = "of_user", long = "user", value_name = "NAME")]
    pub of_user: Option<String>,
    /// Only about this identity
    #[arg(long, value_name = "NAME")]
    pub identity: Option<String>,
    /// Only what happened since then: a time such as 2026-01-31T12:00:00Z, or how long ago, such as 1h
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub since: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100, allow_negative_numbers = true)]
    #[arg(value_parser = at_least_one())]
    pub limit: u32,
    /// Stands for the option of every command of this name, so that --user can be something else here
    #[arg(id = "user", long = "as-user", value_name = "NAME", hide = true)]
    pub caller: Option<String>,
}
