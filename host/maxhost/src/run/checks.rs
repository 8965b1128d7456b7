//! What is looked at before a host makes or opens anything: whether it can be started as its configuration says. A host that
//! is refused for a wrong setting leaves no folder, no lock and no database behind.

use maxhost_model::{Code, Problem};
use maxhost_rpc::{ServerTls, may_listen};

use super::logins;
use crate::config::Config;
use crate::config::cluster::IdentitySource;
use crate::files;

/// Looks at all that the configuration names, but not at what is in the databases and behind the servers.
///
/// # Errors
/// `config-invalid`, `listen-refused`, `user-invalid`, `passphrase-missing`; `file-not-found` and `file-unreadable` for a file
/// or folder that it names.
pub async fn look(config: &Config) -> Result<(), Problem> {
    folders(config)?;
    config.passphrase()?;
    // What clients need is told before what servers do.
    config.messages()?;
    config.databases_on_servers()?;
    config.sharing()?;
    if let Some(listen) = config.metrics() {
        metrics(listen).await?;
    }
    if config.roles().rpc {
        clients(config).await?;
    }
    Ok(())
}

/// The folders without which there is no host. That of components may be made later.
fn folders(config: &Config) -> Result<(), Problem> {
    files::look_into(&config.network())?;
    files::look_into(&config.keys())?;
    match config.identity_source() {
        IdentitySource::Folder => files::look_into(&config.identities()),
        IdentitySource::Ownership => Ok(()),
    }
}

/// The port of clients, and what guards it.
async fn clients(config: &Config) -> Result<(), Problem> {
    let has_logins = config.users_file().is_some() || config.asks_for_certificates();
    if let Some(file) = config.users_file() {
        logins::read(&file)?;
    }
    let tls = config.tls()?;
    if let Some(tls) = &tls {
        ServerTls::new(tls)?;
    }
    may_listen(config.listen(), tls.is_some() && has_logins).await.map_err(Problem::from)
}

/// The port of metrics has an address. Whether it is free is seen when it is bound.
async fn metrics(listen: &str) -> Result<(), Problem> {
    let found = tokio::net::lookup_host(listen).await.map(|mut addresses| addresses.next().is_some());
    let why = match found {
        Ok(true) => return Ok(()),
        Ok(false) => "no address has this name".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Problem::new(Code::ConfigInvalid, format!("metrics.listen: cannot listen on '{listen}': {why}"))
        .remedy("set metrics.listen to host:port; port 0 picks a free one")
        .detail("listen", listen))
}
