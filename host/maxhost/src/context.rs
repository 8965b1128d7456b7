//! What every command works with: options, output, configuration, a client.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use maxhost_model::{Code, Problem};
use maxhost_rpc::Client;

use crate::cli::Global;
use crate::config::Config;
use crate::output::Output;

/// What every command gets.
pub struct Context {
    /// The options of every command.
    pub global: Global,
    /// Where to write.
    pub out: Output,
}

/// How a command ended that did not fail: its exit code.
pub type Outcome = Result<u8, Problem>;

impl Context {
    /// The configuration.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn config(&self) -> Result<Config, Problem> {
        Config::load(&self.global.config, &[])
    }

    /// A client of the host that `--endpoint` names, or of the one that runs with the configuration.
    ///
    /// # Errors
    /// Neither is given.
    pub fn client(&self) -> Result<Client, Problem> {
        // A variable that is set and empty is as good as not set.
        if let Some(endpoint) = self.global.endpoint.as_ref().filter(|endpoint| !endpoint.is_empty()) {
            return Ok(Client::at(endpoint.clone(), self.global.patience()));
        }
        let config = self.config().map_err(|problem| match problem.code {
            Code::ConfigNotFound => problem.remedy(
                "go to the folder that `maxhost init` made, name its maxhost.toml with --config, or name the host with --endpoint",
            ),
            _ => problem,
        })?;
        Ok(Client::new(source(config.endpoint_file()), self.global.patience()))
    }

    /// Runs a command that talks to a host.
    ///
    /// # Errors
    /// The command's own.
    pub fn block_on<T>(&self, work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Problem::new(Code::Internal, format!("cannot start: {error}")))?;
        runtime.block_on(work)
    }
}

/// Reads the endpoint that a host wrote down, each time it is asked: a restarted host may have another.
fn source(file: PathBuf) -> maxhost_rpc::EndpointSource {
    Arc::new(move || {
        let missing = || {
            Problem::new(Code::HostUnreachable, format!("no host is running: there is no {}", file.display()))
                .detail("file", file.display().to_string())
        };
        let text = std::fs::read_to_string(&file).map_err(|_| missing())?;
        let endpoint = text.trim();
        if endpoint.is_empty() { Err(missing()) } else { Ok(endpoint.to_owned()) }
    })
}
