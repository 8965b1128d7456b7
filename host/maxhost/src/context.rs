//! What every command works with: options, output, configuration, a client.

use std::future::Future;
use std::io::{ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maxhost_model::{Code, Problem};
use maxhost_rpc::{Client, ClientTls, Login};
use maxhost_store::{DataLock, Holder};
use zeroize::Zeroizing;

use crate::cli::Global;
use crate::commands::{token, user};
use crate::config::{Config, LARGEST_PEM};
use crate::files;
use crate::output::Output;

/// Environment variable with the password of the user who calls.
const PASSWORD_VARIABLE: &str = "MAXHOST_PASSWORD";

/// Most of what a host has written down of where it listens that is read, bytes.
const LARGEST_ENDPOINT: u64 = 4096;

/// What a shell gives a program that was interrupted: 128 and the number of SIGINT.
pub const INTERRUPTED: u8 = 130;

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
            return self.equipped(Client::at(endpoint.clone(), self.global.patience()), None);
        }
        let config = self.config().map_err(|problem| match problem.code {
            Code::ConfigNotFound => problem.remedy(
                "go to the folder that `maxhost init` made, name its maxhost.toml with --config, or name the host with --endpoint",
            ),
            _ => problem,
        })?;
        let listens = config.roles().rpc;
        let client = Client::new(source(config.endpoint_file(), listens), self.global.patience());
        self.equipped(client, config.certificate_file())
    }

    /// The client with what the options and the environment say of user and certificates.
    fn equipped(&self, client: Client, own_certificate: Option<PathBuf>) -> Result<Client, Problem> {
        let read = |file: &PathBuf| {
            files::read_text(file, LARGEST_PEM)
                .map_err(|error| files::io_problem(Code::FileUnreadable, "read", file, &error))
        };
        // A variable that is set and empty is as good as not set.
        let given = |file: &Option<PathBuf>| file.clone().filter(|file| !file.as_os_str().is_empty());
        // Only whoever may read the host's files knows its certificate without being told.
        let authorities = match given(&self.global.ca) {
            Some(file) => Some(read(&file)?),
            None => own_certificate.and_then(|file| read(&file).ok()),
        };
        let identity = match (given(&self.global.cert), given(&self.global.key)) {
            (Some(certificate), Some(key)) => Some((read(&certificate)?, Zeroizing::new(read(&key)?))),
            _ => None,
        };
        let client = client.with_tls(ClientTls { authorities, identity });
        let user = self.global.user.clone().filter(|user| !user.is_empty());
        match (given(&self.global.token_file), user) {
            (Some(file), None) => client.with_token(&token::read(&file)?),
            (Some(_), Some(user)) => {
                let text = format!("both a token and user {user} are named, and only one of them can call");
                Err(Problem::new(Code::Usage, text)
                    .remedy("leave out --token-file and MAXHOST_TOKEN_FILE, or --user and MAXHOST_USER"))
            }
            (None, Some(user)) => {
                let password = match std::env::var(PASSWORD_VARIABLE) {
                    Ok(password) => Zeroizing::new(password),
                    Err(_) if std::io::stdin().is_terminal() => user::ask(&format!("password of {user}: "))?,
                    Err(_) => {
                        let text = format!(
                            "{PASSWORD_VARIABLE} is not set, and there is no terminal to ask for the password of {user}"
                        );
                        return Err(Problem::new(Code::Unauthenticated, text));
                    }
                };
                client.with_login(&Login { user, password })
            }
            (None, None) => Ok(client),
        }
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

    /// Runs a command that goes on by itself, until it is interrupted or the time that `--timeout` gives is over.
    ///
    /// # Errors
    /// The command's own; `timeout`.
    pub fn block_on_endless(&self, work: impl Future<Output = Outcome>) -> Outcome {
        self.block_on(async {
            tokio::select! {
                outcome = work => outcome,
                problem = self.out_of_time() => Err(problem),
                _ = tokio::signal::ctrl_c() => Ok(INTERRUPTED),
            }
        })
    }

    /// Ends when the time that `--timeout` gives is over: never, if it gives none.
    async fn out_of_time(&self) -> Problem {
        let Some(time) = self.global.timeout else { return std::future::pending().await };
        tokio::time::sleep(time).await;
        Problem::new(Code::Timeout, "the time that --timeout gives is over")
            .remedy("give more time, or leave --timeout out to go on until it is interrupted")
    }
}

/// Reads the endpoint that a host wrote down, each time it is asked: a restarted host may have another.
fn source(file: PathBuf, listens: bool) -> maxhost_rpc::EndpointSource {
    Arc::new(move || {
        let text = match files::read_text(&file, LARGEST_ENDPOINT) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => {
                let what = "tell where the host listens: read";
                return Err(files::io_problem(Code::HostUnreachable, what, &file, &error)
                    .remedy("call as the user whose host it is, or name the host with --endpoint"));
            }
        };
        match text.trim() {
            "" => unwritten(&file, listens).map_err(|problem| problem.detail("file", file.display().to_string())),
            endpoint => Ok(endpoint.to_owned()),
        }
    })
}

/// The endpoint of a host that has not written it where it is looked for, or why there is none.
fn unwritten(file: &Path, listens: bool) -> Result<String, Problem> {
    if !listens {
        let text = "the host of this configuration answers no clients: its only role is flows";
        return Err(Problem::new(Code::HostUnreachable, text)
            .remedy("name a host with the role rpc: --endpoint, or the --config of that host"));
    }
    match file.parent().and_then(|data| DataLock::holder(data).ok().flatten()) {
        // It runs, and somebody has removed the file.
        Some(Holder { endpoint: Some(endpoint), .. }) => Ok(endpoint),
        // The first start on a machine compiles the CorDapps, which may take a while.
        Some(holder) => Err(Problem::new(Code::HostUnreachable, format!("the host, {holder}, is not ready yet"))
            .remedy("try again in a moment: `maxhost run` says when it is ready")),
        None => {
            let text = format!("no host is running: there is no {}", file.display());
            Err(Problem::new(Code::HostUnreachable, text))
        }
    }
}
