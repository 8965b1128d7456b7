//! The certificates of the gRPC port, read again when their files change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use maxhost_model::Problem;
use maxhost_rpc::ServerTls;
use tokio_util::sync::CancellationToken;

use super::logins::{Stamp, stamp};
use crate::config::Config;

/// How often the files are looked at. What has changed counts when it is the same at two looks, because they are written one
/// after the other.
const LOOK: Duration = Duration::from_secs(1);

/// TLS of the port, as the configuration says; new files count within some seconds, until the host stops.
///
/// # Errors
/// `config-invalid`, `file-not-found`, `file-unreadable`.
pub fn start(config: &Config, stop: CancellationToken) -> Result<Option<Arc<ServerTls>>, Problem> {
    let files = config.tls_files();
    let seen = stamps(&files);
    let Some(tls) = config.tls()? else { return Ok(None) };
    let tls = ServerTls::new(&tls)?;
    tokio::spawn(watch(config.clone(), files, seen, Arc::clone(&tls), stop));
    Ok(Some(tls))
}

async fn watch(
    config: Config,
    files: Vec<PathBuf>,
    mut used: Vec<Stamp>,
    tls: Arc<ServerTls>,
    stop: CancellationToken,
) {
    let (config, files) = (Arc::new(config), Arc::new(files));
    let mut before = used.clone();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let paths = Arc::clone(&files);
        let Ok(now) = tokio::task::spawn_blocking(move || stamps(&paths)).await else { continue };
        if now == used || now != std::mem::replace(&mut before, now.clone()) {
            continue;
        }
        let (config, tls) = (Arc::clone(&config), Arc::clone(&tls));
        let replaced = tokio::task::spawn_blocking(move || match config.tls()? {
            Some(new) => tls.replace(&new).map_err(Problem::from),
            None => Ok(()),
        });
        match replaced.await {
            Ok(Ok(())) => tracing::info!("new connections get the certificates that are in the files now"),
            Ok(Err(problem)) => {
                tracing::warn!(%problem, "the new certificates cannot be used; new connections get those of before");
            }
            Err(error) => tracing::error!(%error, "the certificates could not be read"),
        }
        used = now;
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    files.iter().map(|file| stamp(file)).collect()
}
