//! What `maxhost doctor` looks at of the host itself: whether it runs, and its ports with what guards them.

use maxhost_model::{Code, Problem};
use maxhost_rpc::proto::v1 as pb;
use maxhost_rpc::{ServerTls, can_listen};
use maxhost_store::{DataLock, Holder};

use crate::config::Config;
use crate::context::Context;
use crate::run;

/// The name of a check, and what it has found.
type Looked = (&'static str, Result<String, Problem>);

/// Looks at all of it, with the host running or not.
pub fn look(context: &Context, config: &Config) -> Vec<Looked> {
    let holder = holder(config);
    // A port that cannot be told from that of a host which runs is not tried.
    let may_run = !matches!(holder, Ok(None));
    let mut looked = vec![("host", holder.and_then(|holder| host(context, config, holder)))];
    if config.roles().rpc {
        looked.extend([("users", users(config)), ("tls", tls(config)), ("port", port(context, config, may_run))]);
        if let Some(messages) = messages(config) {
            looked.push(("messages", messages));
        }
    } else {
        looked.push(("port", Ok("none: the only role is flows".to_owned())));
    }
    if config.metrics().is_some() {
        looked.push(("metrics", metrics(context, config, may_run)));
    }
    looked
}

fn holder(config: &Config) -> Result<Option<Holder>, Problem> {
    let data = config.data();
    if !data.is_dir() {
        return Ok(None);
    }
    DataLock::holder(&data).map_err(|error| {
        let text =
            format!("whether a host runs cannot be told: host.lock in {} cannot be read: {error}", data.display());
        Problem::new(Code::FileUnreadable, text).remedy("ask as the user whose host it is")
    })
}

fn host(context: &Context, config: &Config, holder: Option<Holder>) -> Result<String, Problem> {
    let Some(holder) = holder else { return Ok("none is running".to_owned()) };
    if !config.roles().rpc {
        return Ok(format!("runs as {holder}; its only role is flows, so it answers no clients"));
    }
    let status =
        context.client().and_then(|client| context.block_on(async move { client.status(pb::StatusRequest {}).await }));
    match status {
        Ok(status) => Ok(format!("{} runs as {holder}", status.version)),
        // It does answer: it wants to know who asks, or that is not this user's to know.
        Err(problem) if wants_to_know_who_asks(problem.code) => {
            Ok(format!("runs as {holder}; it answers, and does not tell more: {}", problem.message))
        }
        Err(problem) => {
            let message = format!("{holder} holds the data folder, but does not answer: {}", problem.message);
            Err(Problem { message, ..problem })
        }
    }
}

fn wants_to_know_who_asks(code: Code) -> bool {
    use Code::{LoginDelayed, PermissionDenied, TokenExpired, TokenRevoked, TokenUnknown, Unauthenticated};
    matches!(code, Unauthenticated | PermissionDenied | LoginDelayed | TokenUnknown | TokenExpired | TokenRevoked)
}

/// Who may log in: a host does not start with a file that it cannot use.
fn users(config: &Config) -> Result<String, Problem> {
    let Some(file) = config.users_file() else {
        return Ok(match config.asks_for_certificates() {
            true => "none: whoever has a certificate may do everything".to_owned(),
            false => "none: whoever reaches the port may do everything".to_owned(),
        });
    };
    let users = run::read_users(&file)?;
    Ok(format!("{} users in {}", users.len(), file.display()))
}

fn tls(config: &Config) -> Result<String, Problem> {
    let Some(tls) = config.tls()? else { return Ok("none".to_owned()) };
    ServerTls::new(&tls)?;
    Ok(match config.asks_for_certificates() {
        true => "certificate and key go together; clients must have certificates".to_owned(),
        false => "certificate and key go together".to_owned(),
    })
}

/// The port is free, or ours.
fn port(context: &Context, config: &Config, may_run: bool) -> Result<String, Problem> {
    let listen = config.listen();
    if !may_run {
        let has_logins = config.users_file().is_some() || config.asks_for_certificates();
        let guarded = config.certificate_file().is_some() && has_logins;
        context.block_on(async { can_listen(listen, guarded).await.map_err(Problem::from) })?;
    }
    Ok(listen.to_owned())
}

/// Requests that come as messages, if this host is to take such or cannot.
fn messages(config: &Config) -> Option<Result<String, Problem>> {
    let taken = config.messages().transpose()?;
    Some(taken.map(|_| "are answered".to_owned()))
}

fn metrics(context: &Context, config: &Config, may_run: bool) -> Result<String, Problem> {
    let listen = config.metrics().unwrap_or_default().to_owned();
    if !may_run {
        context.block_on(run::bind_metrics(config))?;
    }
    Ok(listen)
}
