//! What can be typed about flows.

use clap::{Args, Subcommand, ValueEnum};

use super::at_least_one;

/// `maxhost flow`.
#[derive(Debug, Subcommand)]
pub enum FlowCommand {
    /// Start a flow
    Start(StartArgs),
    /// Show everything about one flow
    Show {
        /// The flow's id
        id: String,
    },
    /// List flows, newest first
    List {
        /// Only of this identity
        #[arg(long, value_name = "NAME")]
        identity: Option<String>,
        /// Only in this state; may be given several times
        #[arg(long, value_name = "STATE", value_enum)]
        state: Vec<FlowState>,
        /// Only those whose name contains this
        #[arg(long, value_name = "TEXT")]
        flow: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100, allow_negative_numbers = true)]
        #[arg(value_parser = at_least_one())]
        limit: u32,
    },
    /// Follow a flow to its end
    Watch {
        /// The flow's id
        id: String,
        /// Go on behind this event
        #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
        cursor: u64,
    },
    /// End a flow
    Kill {
        /// The flow's id
        id: String,
    },
    /// Forget a finished flow that was started with a client id
    Forget {
        /// The client id
        client_id: String,
        /// The identity, where the client id was used for several
        #[arg(long, value_name = "NAME")]
        identity: Option<String>,
    },
    /// List what an identity can run
    Types {
        /// The identity
        #[arg(long, value_name = "NAME")]
        identity: String,
    },
}

/// `maxhost flow start`.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// The identity that runs it: its name, or a part that fits exactly one
    #[arg(long, value_name = "NAME")]
    pub identity: String,
    /// The flow: cordapp/flow, or flow where that is unique
    pub flow: String,
    /// Arguments as JSON, @FILE, or - for standard input
    #[arg(value_name = "JSON|@FILE|-", allow_negative_numbers = true)]
    pub arguments: Option<String>,
    /// Makes the start repeatable: the same id never starts a second flow
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// Wait until it ends
    #[arg(long, conflicts_with = "watch")]
    pub wait: bool,
    /// Show its progress until it ends
    #[arg(long)]
    pub watch: bool,
}

/// States of a flow, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FlowState {
    /// Flows that compute, or are about to.
    Running,
    /// Flows that wait for something.
    Suspended,
    /// Held by an operator.
    Paused,
    /// Held because of a failure.
    Hospital,
    /// Ended with a result.
    Completed,
    /// Ended with an error.
    Failed,
    /// Ended by an operator.
    Killed,
}
