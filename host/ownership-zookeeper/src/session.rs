//! A host's session: making it, keeping it alive, and knowing by the host's own clock when it is lost.
//!
//! The servers end a session when they have not heard of it for its timeout, and then somebody else may own what it
//! owned. The library says so too late (after 7/5 of the timeout, by its own count), so the host counts itself: each
//! beat is a `sync`, which the leader answers, so a server that is cut off from the leader keeps no session alive. The
//! session was alive when the last beat that was answered was *sent*. It is given up [`MARGIN`] before the timeout has
//! passed since then. That is best effort, because the process may be paused between looking at the clock and writing:
//! the fence in the database is the guarantee.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use maxhost_ownership::{Change, Lost, OwnershipError, Permanent, Reach, Session, SessionState, Transient};
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use zookeeper_client as zk;
use zookeeper_client::{AddWatchMode, Client, CreateMode, PersistentWatcher, SessionInfo};

use crate::board::Board;
use crate::client::{cluster, connect, create_options, read_all, within};
use crate::error::of_call;
use crate::file_marks::FileMarks;
use crate::former;
use crate::nodes::{self, Cluster, HostData, Key};
use crate::options::ZooKeeperOptions;

/// The session is lost by our own clock when this part of its timeout is left.
const MARGIN: f64 = 0.2;
/// There are so many beats in a timeout.
const BEATS: u32 = 6;
/// A beat that is not answered within this part of the timeout means that the service does not answer.
const OVERDUE: f64 = 0.4;
/// Changes that a slow listener may be behind before it misses some.
const CHANGES: usize = 4096;
/// How soon a lost session is followed by an attempt to begin another, and how slow that gets.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(2);

/// What all parts of one host's ownership share.
pub(crate) struct Shared {
    pub options: ZooKeeperOptions,
    pub cluster: Cluster,
    pub session: watch::Sender<Session>,
    pub link: Mutex<Option<Arc<Link>>>,
    pub board: Mutex<Board>,
    pub changes: broadcast::Sender<Change>,
    /// Which of the files that hosts share may have changed.
    pub file_marks: FileMarks,
    /// Counts what may concern a listener for demands.
    pub version: watch::Sender<u64>,
    pub slots: AtomicU32,
    /// What this host reaches, since it has told.
    pub reach: Mutex<Option<Reach>>,
    /// Held while what this host tells of itself is read and sent, so that what is sent later is not older.
    pub telling: Mutex<()>,
    /// Whether this host is to give up what it owns.
    pub draining: watch::Sender<bool>,
    /// The scheduler, as far as this host knows.
    pub scheduler: watch::Sender<Option<Arc<str>>>,
    /// Set to leave the service.
    pub closing: watch::Sender<bool>,
}

/// One session.
pub(crate) struct Link {
    pub client: Client,
    pub number: u64,
    /// As the servers granted it.
    pub timeout: Duration,
    /// Until when the session is surely alive.
    alive_until: Mutex<Instant>,
    /// Asks the follower of events to answer when it has taken in all that came before.
    pub barriers: mpsc::Sender<oneshot::Sender<()>>,
    /// The owners' nodes that this session has made and not asked to delete: as many as it owns identities.
    pub made: Mutex<HashSet<Key>>,
    /// What the host has told of itself in this session.
    pub told: Mutex<Told>,
}

/// What a session has told last, as far as that was confirmed.
#[derive(Debug, Default)]
pub(crate) struct Told {
    begun: u64,
    last: Option<Vec<u8>>,
}

impl Told {
    /// This is about to be sent; `None` if it need not be. The session carries requests out in the order in which they were sent,
    /// so what was sent last is what is told, once it is confirmed.
    pub fn begin(&mut self, data: &[u8]) -> Option<u64> {
        if self.last.as_deref() == Some(data) {
            return None;
        }
        self.begun += 1;
        self.last = None;
        Some(self.begun)
    }

    /// What was sent under this number is told.
    pub fn is_confirmed(&mut self, number: u64, data: Vec<u8>) {
        if self.begun == number {
            self.last = Some(data);
        }
    }
}

/// A session that has begun, with what follows its events.
pub(crate) struct Begun {
    pub link: Arc<Link>,
    pub watcher: PersistentWatcher,
    pub barriers: mpsc::Receiver<oneshot::Sender<()>>,
    states: zk::StateWatcher,
}

impl Link {
    /// Whether the session is alive by our own clock.
    pub fn is_alive(&self) -> bool {
        Instant::now() < *self.alive_until.lock()
    }

    /// How long an answer may take.
    pub fn patience(&self) -> Duration {
        self.timeout
    }

    fn heard(&self, sent: Instant) {
        let until = sent + self.timeout.mul_f64(1.0 - MARGIN);
        let mut alive_until = self.alive_until.lock();
        *alive_until = until.max(*alive_until);
    }
}

impl Shared {
    pub fn new(options: ZooKeeperOptions, cluster: Cluster) -> Shared {
        Shared {
            options,
            cluster,
            session: watch::Sender::new(Session { number: 0, state: SessionState::Lost }),
            link: Mutex::new(None),
            board: Mutex::default(),
            changes: broadcast::Sender::new(CHANGES),
            file_marks: FileMarks::new(),
            version: watch::Sender::new(0),
            slots: AtomicU32::new(0),
            reach: Mutex::new(None),
            telling: Mutex::new(()),
            draining: watch::Sender::new(false),
            scheduler: watch::Sender::new(None),
            closing: watch::Sender::new(false),
        }
    }

    /// The session, if the service answers and it is alive.
    pub fn link(&self) -> Result<Arc<Link>, OwnershipError> {
        match self.session.borrow().state {
            SessionState::Connected => {}
            SessionState::Suspended => return Err(Transient::unavailable("it does not answer").into()),
            SessionState::Lost => return Err(Transient::unavailable("the session was lost").into()),
            SessionState::Closed => return Err(Permanent::Closed.into()),
        }
        let link = self.link.lock().clone();
        link.filter(|link| link.is_alive()).ok_or_else(|| Lost::SessionOver.into())
    }

    /// Whether this is still the host's session, and alive.
    pub fn check(&self, link: &Link) -> Result<(), OwnershipError> {
        let present = self.session.borrow().number;
        if present == link.number && link.is_alive() { Ok(()) } else { Err(Lost::SessionOver.into()) }
    }

    pub fn set_state(&self, state: SessionState) {
        self.session.send_if_modified(|session| {
            let changes = session.state != state && session.state != SessionState::Closed;
            if changes {
                session.state = state;
            }
            changes
        });
        self.changed();
    }

    pub fn changed(&self) {
        let (draining, scheduler) = {
            let board = self.board.lock();
            // A copy that is not complete says nothing.
            (board.complete.then(|| board.is_draining(&self.options.host)), board.scheduler().cloned())
        };
        self.scheduler.send_if_modified(|known| std::mem::replace(known, scheduler.clone()) != scheduler);
        if let Some(draining) = draining {
            self.draining.send_if_modified(|is| std::mem::replace(is, draining) != draining);
        }
        self.version.send_modify(|version| *version += 1);
    }

    pub fn host_data(&self) -> Vec<u8> {
        let reach = self.reach.lock().clone();
        let stands_back = reach.as_ref().is_some_and(|reach| reach.stands_back);
        nodes::encode(&HostData {
            name: self.options.host.clone(),
            run: self.options.run,
            free_slots: self.slots.load(Ordering::Acquire),
            roles: self.options.roles.names().into_iter().map(str::to_owned).collect(),
            labels: self.options.labels.clone(),
            databases: self.options.databases.clone(),
            missed: reach.map(|reach| reach.missed),
            stands_back,
        })
    }

    fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }
}

/// Begins a session: connects, lists the host, watches, and reads everything.
pub(crate) async fn begin(shared: &Shared, former: Option<SessionInfo>) -> Result<Begun, OwnershipError> {
    let options = &shared.options;
    if let Some(former) = former {
        close_former(options, former).await;
    }
    let sent = Instant::now();
    let client = connect(options, &options.address.folder, None).await?;
    let states = client.state_watcher();
    let timeout = client.session_timeout();
    let found = cluster(&client, timeout).await?;
    if found != shared.cluster {
        let reason = format!(
            "it has cluster {} of generation {}, and this host belongs to {} of generation {}",
            found.id, found.generation, shared.cluster.id, shared.cluster.generation
        );
        return Err(Permanent::refused(reason).into());
    }
    former::note(options, client.session_id());
    // Before the host is listed, so that nothing that others do because of it is missed.
    let watcher = within(timeout, client.watch("/", AddWatchMode::PersistentRecursive)).await?;
    let ephemeral = create_options(options, CreateMode::Ephemeral);
    let path = nodes::host_path(client.session_id());
    let data = shared.host_data();
    within(timeout, client.create(&path, &data, &ephemeral)).await?;
    let everything = within(timeout.max(Duration::from_secs(10)), read_all(&client, shared.cluster.generation)).await?;
    let (barrier, barriers) = mpsc::channel(64);
    let number = shared.session.borrow().number + 1;
    let alive_until = Mutex::new(sent + timeout.mul_f64(1.0 - MARGIN));
    let told = Mutex::new(Told { begun: 0, last: Some(data) });
    let link = Arc::new(Link { client, number, timeout, alive_until, barriers: barrier, made: Mutex::default(), told });
    // Reading may have taken long: what counts is that the session is alive now.
    let sent = Instant::now();
    within(timeout, link.client.sync("/")).await?;
    link.heard(sent);
    shared.board.lock().replace(everything);
    *shared.link.lock() = Some(Arc::clone(&link));
    shared.session.send_modify(|session| {
        if session.state != SessionState::Closed {
            *session = Session { number, state: SessionState::Connected };
        }
    });
    shared.changed();
    // Whatever was missed between the sessions.
    shared.file_marks.mark_all();
    Ok(Begun { link, watcher, barriers, states })
}

/// Closes a session of this process that was lost by our own clock and may live on at the servers: its nodes go.
async fn close_former(options: &ZooKeeperOptions, former: SessionInfo) {
    match connect(options, "", Some(former)).await {
        Ok(client) => close(client, options.session_timeout).await,
        Err(error) => tracing::debug!(%error, "the former session is over, or cannot be closed"),
    }
}

/// Ends a session, and waits until the servers have been told.
async fn close(client: Client, limit: Duration) {
    let mut states = client.state_watcher();
    drop(client);
    let closed = async { while !states.changed().await.is_terminated() {} };
    let _ = tokio::time::timeout(limit, closed).await;
}

/// Keeps the host in the cluster until it leaves: one session after the other.
pub(crate) async fn run(shared: Arc<Shared>, first: Begun) {
    let mut begun = first;
    loop {
        let Begun { link, watcher, barriers, states } = begun;
        tokio::select! {
            () = crate::follow::follow(&shared, &link, watcher, barriers) => {}
            () = keep_alive(&shared, &link, states) => {}
        }
        *shared.link.lock() = None;
        shared.board.lock().clear();
        if shared.is_closing() {
            shared.set_state(SessionState::Closed);
            // Calls that are under way hold the session too; they end within their timeout.
            if let Some(link) = Arc::into_inner(link) {
                close(link.client, shared.options.session_timeout).await;
            }
            return;
        }
        tracing::warn!(
            host = shared.options.host,
            "the session with ZooKeeper is lost, and with it all that was owned"
        );
        shared.set_state(SessionState::Lost);
        // The miss is told before anything of the next session.
        let _ = shared.changes.send(Change::Missed);
        let former = link.client.session().clone();
        drop(link);
        begun = match begin_again(&shared, former).await {
            Some(begun) => begun,
            None => return shared.set_state(SessionState::Closed),
        };
    }
}

/// Begins the next session as soon as that can be done; `None` if the host leaves.
async fn begin_again(shared: &Arc<Shared>, former: SessionInfo) -> Option<Begun> {
    let mut closing = shared.closing.subscribe();
    let mut pause = RETRY;
    loop {
        let beginning = begin(shared, Some(former.clone()));
        let error = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return None,
            begun = beginning => match begun {
                Ok(begun) => return Some(begun),
                Err(error) => error,
            }
        };
        if error.is_transient() {
            tracing::debug!(%error, "no session with ZooKeeper yet");
        } else {
            tracing::error!(%error, "ZooKeeper takes this host no more; tried again");
        }
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return None,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(RETRY_MOST);
    }
}

/// Beats until the session is over by the servers' word or our own clock, or the host leaves.
async fn keep_alive(shared: &Shared, link: &Link, mut states: zk::StateWatcher) {
    let mut closing = shared.closing.subscribe();
    let mut next = Instant::now() + link.timeout / BEATS;
    let mut beat: Option<(Instant, BoxFuture<'_, Result<(), zk::Error>>)> = None;
    loop {
        let alive_until = *link.alive_until.lock();
        let overdue = beat.as_ref().map(|(sent, _)| *sent + link.timeout.mul_f64(OVERDUE));
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return,
            () = tokio::time::sleep_until(alive_until.into()) => return,
            state = states.changed() => match state {
                zk::SessionState::SyncConnected => (beat, next) = (None, Instant::now()),
                state if state.is_terminated() => return,
                _ => shared.set_state(SessionState::Suspended),
            },
            answer = answered(&mut beat) => match answer {
                (sent, Ok(())) => {
                    beat = None;
                    link.heard(sent);
                    shared.set_state(SessionState::Connected);
                }
                (_, Err(error)) => {
                    beat = None;
                    next = next.max(Instant::now() + link.timeout / (4 * BEATS));
                    if !of_call(error).is_transient() {
                        return;
                    }
                }
            },
            () = sleep_until(overdue) => {
                shared.set_state(SessionState::Suspended);
                (beat, next) = (None, Instant::now());
            }
            () = tokio::time::sleep_until(next.into()), if beat.is_none() => {
                next = Instant::now() + link.timeout / BEATS;
                beat = Some((Instant::now(), link.client.sync("/").boxed()));
            }
        }
    }
}

/// The answer to the beat that is under way; never, if there is none.
async fn answered(
    beat: &mut Option<(Instant, BoxFuture<'_, Result<(), zk::Error>>)>,
) -> (Instant, Result<(), zk::Error>) {
    match beat {
        Some((sent, answer)) => (*sent, answer.await),
        None => std::future::pending().await,
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_told_last_is_not_told_again() {
        let mut told = Told::default();
        let first = told.begin(b"one").unwrap();
        let second = told.begin(b"one").unwrap();
        told.is_confirmed(first, b"one".to_vec());
        assert!(told.last.is_none(), "another is on its way, and says who knows what");
        told.is_confirmed(second, b"one".to_vec());
        assert_eq!(told.begin(b"one"), None);
        // One that gets no answer may have been carried out.
        assert!(told.begin(b"two").is_some() && told.begin(b"one").is_some());
    }
}
