//! `maxhost run`: the host in the foreground.

mod certificates;
mod checks;
mod folders;
mod line_queue;
mod logging;
mod logins;
mod manifests;
mod memory;
mod metrics;
mod shared_manifests;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maxhost_flows::Host;
use maxhost_flows::api::{Caller, HostApi};
use maxhost_flows::options::OperatorEvent;
use maxhost_model::{Code, Problem};
use maxhost_rpc::{Bound, Logins, MessageServer, RpcError, RpcOptions, RpcServer, ServerTls};
use maxhost_store::{DataLock, StoreError};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::cli::RunArgs;
use crate::config::Config;
use crate::context::{Context, Outcome};
use crate::files;
use crate::foundation::{self, Foundation};
use folders::Looked;
use logging::Events;
pub use logins::{LARGEST_USERS, parse as parse_users, read as read_users};
pub use manifests::LARGEST_MANIFEST;
use manifests::Manifests;
pub use metrics::bind as bind_metrics;
use shared_manifests::Follower;

/// How long the engine may take to stop. The whole host stops within two seconds.
const ENGINE_STOP: Duration = Duration::from_millis(1_500);
/// How long a host of several may take to hand over what it runs.
const LEAVE: Duration = Duration::from_secs(10);
/// How often the lock of the data folder is looked at.
const LOCK_LOOK: Duration = Duration::from_millis(500);
/// What is left for threads that are in the middle of something.
const LAST_MOMENT: Duration = Duration::from_millis(200);
/// Files that the host opens for itself: databases with their readers, logs, watches, components.
const OWN_FILES: usize = 96;
/// Connections that there may be however few files may be open.
const LEAST_CONNECTIONS: usize = 8;
/// What a shell gives a program that was interrupted: 128 and the number of SIGINT.
const INTERRUPTED: i32 = 130;

/// Runs the host until it is asked to stop.
pub fn execute(context: &Context, args: &RunArgs) -> Outcome {
    let started = Instant::now();
    memory::use_small_pages();
    files::keep_private();
    let roles = args.role.iter().map(|roles| format!("roles={roles}"));
    let overrides: Vec<String> = args.set.iter().cloned().chain(roles).collect();
    let config = Config::load(&context.global.config, &overrides)?;
    logging::start(args.log_format, context.out.is_colored());
    let files = raise_file_limit();
    let events = Events::start(context.out.is_json());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("io")
        .enable_all()
        .build()
        .map_err(|error| Problem::new(Code::Internal, format!("cannot start threads: {error}")))?;
    let outcome = runtime.block_on(serve(config, files, started, &events));
    runtime.shutdown_timeout(LAST_MOMENT);
    events.flush(LAST_MOMENT);
    logging::flush(LAST_MOMENT);
    outcome.map(|()| 0)
}

/// The soft limit of open files is for interactive programs; the hard one is ours to use. Gives what holds now.
fn raise_file_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls work on the struct they are given, which lives through them. Failing changes nothing.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return usize::MAX;
        }
        let given = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max;
        if given < limit.rlim_max && libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) != 0 {
            limit.rlim_cur = given;
        }
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

/// How many connections there may be with so many open files.
fn connections(wanted: usize, files: usize) -> usize {
    let allowed = files.saturating_sub(OWN_FILES).max(LEAST_CONNECTIONS);
    if allowed < wanted {
        tracing::warn!(allowed, files, "limits.rpc_connections is {wanted}; the limit of open files allows fewer");
    }
    wanted.min(allowed)
}

async fn serve(config: Config, files: usize, started: Instant, events: &Events) -> Result<(), Problem> {
    let stop = CancellationToken::new();
    watch_signals(stop.clone())?;
    checks::look(&config).await?;
    let data = config.data();
    files::create_private_dir(&data)?;
    let mut lock = DataLock::acquire(&data)?;
    files::narrow(&data);

    let guard = match config.roles().rpc {
        true => (logins::start(&config, stop.clone())?, certificates::start(&config, stop.clone())?),
        false => (None, None),
    };
    let answers_messages = config.messages()?.filter(|_| config.roles().rpc);
    let metrics = metrics::bind(&config).await?;
    let passphrase = config.passphrase()?;
    let Foundation { store, cluster, files: feed } = foundation::open(&config).await?;
    let queues = cluster.as_ref().and_then(|cluster| cluster.broker.client_queues());
    let logins = guard.0.clone();
    let stop_within = if cluster.is_some() { LEAVE } else { ENGINE_STOP };
    let options = config.host_options(passphrase);
    if config.compiles_first() {
        tracing::info!("the installed CorDapps are compiled for this machine first, which may take a while");
    }
    let host = match cluster {
        Some(cluster) => Host::join(options, store, cluster).await?,
        None => Host::start(options, store).await?,
    };
    let ready = async {
        let follower = match feed {
            Some(feed) => Some(Follower::begin(config.shared_files(), feed).await?),
            None => None,
        };
        let (bound, looked) = prepare(&config, files, &host, guard).await?;
        Ok((bound, looked, follower))
    };
    let (bound, looked, follower) = match ready.await {
        Ok(ready) => ready,
        Err(problem) => {
            host.shutdown(stop_within).await;
            return Err(problem);
        }
    };
    let endpoint = config.endpoint_file();
    write_endpoint(&config, bound.as_ref(), &mut lock, &endpoint)?;
    let metrics_at = metrics.as_ref().map(metrics::Bound::address);
    let messages = match (answers_messages, logins, queues) {
        (Some(options), Some(logins), Some(queues)) => {
            Some(MessageServer::new(options, logins, queues, Arc::clone(&host) as Arc<dyn HostApi>))
        }
        _ => None,
    };
    if let Some(metrics) = metrics {
        metrics.serve(Arc::clone(&host), messages.as_ref().map(MessageServer::counts), stop.clone());
    }
    if let Some(messages) = messages {
        tokio::spawn(messages.serve(stop.clone()));
    }
    // `ready` is the first event: what happened before is told after it.
    let (before, news) = host.events();
    announce(&config, &host, bound.as_ref().map(Bound::local_addr), metrics_at, started, events).await?;
    report_events(before, news, events.clone());
    memory::give_back(stop.clone());

    let guard = tokio::spawn(guard_folder(lock, config.data().to_owned(), stop.clone()));
    let folders = folders::watch(&config, Arc::clone(&host), looked, follower, stop.clone());
    let served = {
        let serving = serve_clients(bound, stop.clone());
        tokio::pin!(serving);
        tokio::select! {
            // An asked-for stop ends the serving too: it must not be taken for a server that ended by itself.
            biased;
            () = stop.cancelled() => {
                tracing::info!("stopping");
                // The engine stops while clients are told; both have the same deadline.
                let ((), ended) = tokio::join!(host.leave(stop_within), serving);
                host.close().await;
                ended.map_err(Problem::from)
            }
            ended = &mut serving => {
                // The stop may have been asked for between the looks at the two.
                if stop.is_cancelled() {
                    tracing::info!("stopping");
                }
                stop.cancel();
                host.shutdown(stop_within).await;
                ended.map_err(Problem::from)
            }
        }
    };
    folders.abort();
    stop.cancel();
    let kept = guard.await.map_err(|error| Problem::new(Code::Internal, error.to_string())).flatten();
    if kept.is_ok() {
        // Whoever looks for a running host must not find a trace of this one.
        let _gone_already = std::fs::remove_file(&endpoint);
    }
    events.emit(&json!({"event": "stopped"}));
    tracing::info!("stopped");
    kept.and_then(|lock| served.map(|()| drop(lock)))
}

/// Notes where this host can be reached, for the commands that are typed beside its configuration. One that has no port
/// leaves no trace of a former run that had one.
fn write_endpoint(
    config: &Config,
    bound: Option<&Bound>,
    lock: &mut DataLock,
    endpoint: &std::path::Path,
) -> Result<(), Problem> {
    let Some(bound) = bound else {
        let _there_was_none = std::fs::remove_file(endpoint);
        return Ok(());
    };
    let scheme = if config.certificate_file().is_some() { "https" } else { "http" };
    let address = format!("{scheme}://{}", bound.local_addr());
    lock.set_endpoint(&address)?;
    files::write_atomically(endpoint, format!("{address}\n").as_bytes())?;
    Ok(())
}

/// Serves clients, if this host does that, until it is asked to stop.
async fn serve_clients(bound: Option<Bound>, stop: CancellationToken) -> Result<(), RpcError> {
    match bound {
        Some(bound) => bound.serve(stop).await,
        None => {
            stop.cancelled().await;
            Ok(())
        }
    }
}

/// Holds the lock of the data folder until the host stops. Another host that has the folder in spite of it, because
/// somebody removed the lock's file, is the one that goes on: it has claimed the identities anew, and nothing that this
/// host writes counts any more. So this one says so and stops.
///
/// # Errors
/// `data-locked`: another host has the folder.
async fn guard_folder(mut lock: DataLock, folder: PathBuf, stop: CancellationToken) -> Result<DataLock, Problem> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(lock),
            () = tokio::time::sleep(LOCK_LOOK) => {}
        }
        let looked = tokio::task::spawn_blocking(move || {
            let kept = lock.keep();
            (lock, kept)
        });
        let looked = looked.await.inspect_err(|_| stop.cancel());
        let (held, kept) = looked.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        lock = held;
        match kept {
            Ok(false) => {}
            Ok(true) => {
                tracing::warn!("the file host.lock was removed or replaced while the host runs; it is made again")
            }
            Err(StoreError::Locked { holder, .. }) => {
                let text = format!(
                    "another host has taken the data folder {}: {holder}. Somebody removed the file host.lock while this \
                     host was running; this host stops, and what it had not committed is lost to it",
                    folder.display()
                );
                let problem = Problem::new(Code::DataLocked, text)
                    .remedy("never remove host.lock: the operating system lets go of it when a host ends");
                tracing::error!(code = %problem.code, "{}", problem.message);
                stop.cancel();
                return Err(problem);
            }
            Err(error) => tracing::warn!(%error, "the lock of the data folder cannot be looked at; tried again"),
        }
    }
}

/// The first signal asks for an orderly stop, the second ends the process at once.
fn watch_signals(stop: CancellationToken) -> Result<(), Problem> {
    let failed = |error| Problem::new(Code::Internal, format!("cannot watch for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if stop.is_cancelled() {
                std::process::exit(INTERRUPTED);
            }
            stop.cancel();
        }
    });
    Ok(())
}

/// Takes the identities and listens, if this host answers clients.
async fn prepare(
    config: &Config,
    files: usize,
    host: &Arc<Host>,
    (logins, tls): (Option<Arc<dyn Logins>>, Option<Arc<ServerTls>>),
) -> Result<(Option<Bound>, Looked), Problem> {
    let mut manifests = Manifests::of(config);
    let (manifests, changes) = tokio::task::spawn_blocking(move || {
        let changes = manifests.scan();
        (manifests, changes)
    })
    .await
    .map_err(|error| Problem::new(Code::Internal, format!("reading the manifests failed: {error}")))?;
    let refused = folders::apply(host, changes?).await.map_err(|(problem, _)| problem)?;
    if !config.roles().rpc {
        return Ok((None, (manifests, refused)));
    }
    let api: Arc<dyn HostApi> = Arc::clone(host) as Arc<dyn HostApi>;
    // What a flow may be sent, it may be started with.
    let parameters = host.network_parameters(&Caller::local()).await?;
    let max_message_size = usize::try_from(parameters.max_message_size).unwrap_or(usize::MAX);
    let options = config.rpc_options();
    let max_connections = connections(options.max_connections, files);
    let options = RpcOptions { max_message_size, max_connections, tls, ..options };
    let bound = RpcServer::bind(options, logins, api).await?;
    Ok((Some(bound), (manifests, refused)))
}

/// Says where it listens, what it hosts and what it cannot host.
async fn announce(
    config: &Config,
    host: &Arc<Host>,
    address: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    started: Instant,
    events: &Events,
) -> Result<(), Problem> {
    let status = host.status(&Caller::local()).await?;
    let quarantined = status.identities.get("quarantined").copied().unwrap_or(0);
    let identities: u64 = status.identities.values().sum();
    let address = address.map(|address| address.to_string());
    let start_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    events.emit(&json!({
        "event": "ready",
        "grpc": address,
        "metrics": metrics.map(|metrics| metrics.to_string()),
        "identities": identities,
        "quarantined": quarantined,
        "start_ms": start_ms,
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "dir": config.root().display().to_string(),
        "host": config.host_name(),
        "roles": config.roles().names(),
    }));
    tracing::info!(
        grpc = address.as_deref().unwrap_or("none"),
        roles = config.roles().names().join(","),
        identities,
        quarantined,
        start_ms,
        tls = config.certificate_file().is_some(),
        users = config.users_file().is_some() || config.asks_for_certificates(),
        "ready"
    );
    if quarantined > 0 {
        for identity in host.identities(&Caller::local(), None).await? {
            if let Some(problem) = identity.problem {
                events.emit(&json!({
                    "event": "identity-quarantined",
                    "identity": identity.name,
                    "code": problem.code.to_string(),
                    "reason": problem.message,
                }));
            }
        }
    }
    Ok(())
}

/// Tells what has happened in the engine, and what happens.
fn report_events(before: Vec<OperatorEvent>, mut source: Receiver<OperatorEvent>, events: Events) {
    let tell = move |events: &Events, event: &OperatorEvent| {
        if logging::log(event) {
            match serde_json::to_value(event) {
                Ok(event) => events.emit(&event),
                Err(error) => tracing::warn!(%error, "an event cannot be told"),
            }
        }
    };
    tokio::spawn(async move {
        before.iter().for_each(|event| tell(&events, event));
        loop {
            match source.recv().await {
                Ok(event) => tell(&events, &event),
                Err(RecvError::Lagged(missed)) => {
                    tracing::debug!(missed, "events came faster than they were told");
                    events.lost(missed);
                }
                Err(RecvError::Closed) => return,
            }
        }
    });
}
