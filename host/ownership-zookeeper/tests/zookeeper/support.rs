//! A cluster on real servers, every host of which has a line of its own that can be cut.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use maxhost_model::RunId;
use maxhost_ownership::contract::Subject;
use maxhost_ownership::{Ownership, OwnershipError, SessionState};
use maxhost_ownership_zookeeper::test_servers::{Ensemble, end_noted_session};
use maxhost_ownership_zookeeper::{Address, ZooKeeperOptions, ZooKeeperOwnership, set_up};
use maxhost_proxy::{Line, Proxy};
use parking_lot::Mutex;

/// Long enough that a busy machine does not lose a session by itself, short enough to wait for.
pub const SESSION: Duration = Duration::from_secs(8);

pub struct Cluster {
    pub ensemble: Ensemble,
    pub folder: String,
    lines: Mutex<HashMap<String, Vec<Proxy>>>,
    notes: tempfile::TempDir,
    session: Duration,
}

pub fn run_id() -> RunId {
    static RUN: AtomicU64 = AtomicU64::new(1);
    RunId::from_random(RUN.fetch_add(1, Ordering::Relaxed) * 2)
}

impl Cluster {
    pub async fn of(ensemble: Ensemble) -> Cluster {
        Cluster::with_session(ensemble, SESSION).await
    }

    pub async fn with_session(ensemble: Ensemble, session: Duration) -> Cluster {
        let (folder, notes) = ("/maxhost/test".to_owned(), tempfile::tempdir().unwrap());
        let cluster = Cluster { ensemble, folder, lines: Mutex::default(), notes, session };
        set_up(&cluster.direct("setup"), "test").await.unwrap();
        cluster
    }

    /// The options of a host that reaches every server directly.
    pub fn direct(&self, host: &str) -> ZooKeeperOptions {
        let servers: Vec<String> =
            (0..self.ensemble.count()).map(|index| self.ensemble.client_address(index).to_string()).collect();
        self.options(host, servers.join(","))
    }

    fn options(&self, host: &str, servers: String) -> ZooKeeperOptions {
        let address = Address { servers, folder: self.folder.clone() };
        ZooKeeperOptions { session_timeout: self.session, ..ZooKeeperOptions::new(address, host, run_id()) }
    }

    /// The options of a host whose connections can be cut.
    pub async fn behind_a_line(&self, host: &str) -> ZooKeeperOptions {
        let mut proxies = Vec::new();
        for index in 0..self.ensemble.count() {
            proxies.push(Proxy::to(self.ensemble.client_address(index)).await.unwrap());
        }
        let servers: Vec<String> = proxies.iter().map(|proxy| proxy.address().to_string()).collect();
        self.lines.lock().insert(host.to_owned(), proxies);
        let session_file = Some(self.note(host));
        ZooKeeperOptions { session_file, ..self.options(host, servers.join(",")) }
    }

    fn note(&self, host: &str) -> PathBuf {
        self.notes.path().join(host)
    }

    pub fn set_line(&self, host: &str, line: Line) {
        self.lines.lock()[host].iter().for_each(|proxy| proxy.set(line));
    }

    pub async fn host(&self, host: &str) -> Arc<ZooKeeperOwnership> {
        Arc::new(ZooKeeperOwnership::join(self.behind_a_line(host).await).await.unwrap())
    }
}

/// Waits until this holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// The outcome of a call, which is made again while the service does not answer for the moment: after a fault, and on a
/// machine that stalls, that is what hosts are told.
pub async fn soon<T>(mut call: impl AsyncFnMut() -> Result<T, OwnershipError>) -> Result<T, OwnershipError> {
    let mut outcome = None;
    until("the service answers", async || {
        outcome = Some(call().await);
        !matches!(&outcome, Some(Err(error)) if error.is_transient())
    })
    .await;
    outcome.unwrap()
}

/// Waits until this session of the host is lost, even if the next one has begun by the time we look.
pub async fn is_lost(host: &dyn Ownership, number: u64) {
    let mut session = host.session();
    let lost = session.wait_for(|session| session.number != number || session.state == SessionState::Lost);
    drop(tokio::time::timeout(Duration::from_secs(90), lost).await.expect("the session is not lost").unwrap());
}

pub async fn state_is(host: &dyn Ownership, state: SessionState) {
    let waiting = async { drop(host.session().wait_for(|session| session.state == state).await.unwrap()) };
    tokio::time::timeout(Duration::from_secs(90), waiting).await.unwrap_or_else(|_| panic!("never {state:?}"));
}

#[async_trait]
impl Subject for Cluster {
    async fn join(&self, host: &str) -> Arc<dyn Ownership> {
        self.host(host).await
    }

    async fn disconnect(&self, host: &str) {
        self.set_line(host, Line::Cut);
    }

    async fn expire(&self, host: &str) {
        self.set_line(host, Line::Cut);
        end_noted_session(self.ensemble.client_address(0), &self.note(host)).await;
    }

    async fn reconnect(&self, host: &str) {
        self.set_line(host, Line::Open);
    }
}
