//! The commands, one module a noun.

mod attachment;
mod audit;
mod cluster;
mod cordapp;
mod cordapp_build;
mod cordapp_check;
mod cordapp_contract;
mod cordapp_new;
mod cordapp_verify;
mod db;
mod db_move;
mod doctor;
mod doctor_host;
mod doctor_manifests;
mod flow;
mod identity;
mod identity_publish;
mod init;
mod ledger;
mod ledger_attachment;
mod manifests;
mod network;
mod network_update;
mod notary;
mod publisher_succession;
mod shared_identity;
mod status;
pub mod token;
pub mod user;
mod users_file;
mod vault;

use clap::CommandFactory;

use crate::cli::{Cli, Command};
use crate::context::{Context, Outcome};

/// Does what was typed.
///
/// # Errors
/// What the user has to know.
pub fn execute(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Init(args) => init::execute(context, &args),
        Command::Run(args) => crate::run::execute(context, &args),
        Command::Status => status::execute(context),
        Command::Identity(command) => identity::execute(context, command),
        Command::Cluster(command) => cluster::execute(context, command),
        Command::Host(command) => cluster::execute_host(context, command),
        Command::Cordapp(command) => cordapp::execute(context, command),
        Command::Flow(command) => flow::execute(context, command),
        Command::Vault(command) => vault::execute(context, command),
        Command::Ledger(command) => ledger::execute(context, command),
        Command::Notary(command) => notary::execute(context, command),
        Command::Attachment(command) => attachment::execute(context, command),
        Command::Network(command) => network::execute(context, command),
        Command::User(command) => user::execute(context, command),
        Command::Token(command) => token::execute(context, command),
        Command::Audit(command) => audit::execute(context, command),
        Command::Db(command) => db::execute(context, command),
        Command::Doctor => doctor::execute(context),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "maxhost", &mut script);
            context.out.data(String::from_utf8_lossy(&script).trim_end());
            Ok(0)
        }
    }
}
