//! Connections to a server that can be cut, made silent, or lose an answer at the moment that hurts, for tests.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How long a server has for a question whose answer gets lost, before its connection ends.
const ANSWERS: Duration = Duration::from_millis(30);
/// What happens to the next bytes that go to the server: they pass, ...
const PASS: u8 = 0;
/// ... they arrive and the answer does not, ...
const LOSE_ANSWER: u8 = 1;
/// ... or they do not arrive.
const LOSE_QUESTION: u8 = 2;

/// Passes connections on to a server, until it is told to cut them. It ends with its connections when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    line: watch::Sender<Line>,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

/// How connections through a [`Proxy`] fare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Bytes pass.
    Open,
    /// Connections are closed, and new ones are closed at once.
    Cut,
    /// Connections stay, and nothing passes in either direction.
    Silent,
}

#[derive(Debug, Default)]
struct Shared {
    accepted: AtomicUsize,
    open: AtomicUsize,
    to_clients: AtomicU64,
    next: AtomicU8,
    lost: AtomicU32,
}

impl Proxy {
    /// A proxy for this server, on a free port of loopback.
    ///
    /// # Errors
    /// If no port can be listened on.
    pub async fn to(server: SocketAddr) -> io::Result<Proxy> {
        Proxy::patient(server, Duration::ZERO).await
    }

    /// The same; a connection waits so long for a server that does not listen yet, because some clients try again only if
    /// they cannot connect.
    ///
    /// # Errors
    /// As [`Proxy::to`].
    pub async fn patient(server: SocketAddr, patience: Duration) -> io::Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (line, shared) = (watch::Sender::new(Line::Open), Arc::<Shared>::default());
        let task = tokio::spawn(accept(listener, (server, patience), line.clone(), shared.clone()));
        Ok(Proxy { address, line, shared, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes how connections fare, those that there are and new ones.
    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// Closes the connections that there are, and lets new ones pass.
    pub async fn cut(&self) {
        self.set(Line::Cut);
        while self.shared.open.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.set(Line::Open);
    }

    /// The answer to whatever is asked next gets lost, and the connection with it.
    pub fn lose_next_answer(&self) {
        self.shared.next.store(LOSE_ANSWER, Ordering::SeqCst);
    }

    /// Whatever is asked next gets lost, and the connection with it.
    pub fn lose_next_question(&self) {
        self.shared.next.store(LOSE_QUESTION, Ordering::SeqCst);
    }

    /// How many questions or answers were lost by request.
    #[must_use]
    pub fn lost(&self) -> u32 {
        self.shared.lost.load(Ordering::SeqCst)
    }

    /// How many bytes clients were given.
    #[must_use]
    pub fn bytes_to_clients(&self) -> u64 {
        self.shared.to_clients.load(Ordering::Relaxed)
    }

    /// How many connections there have been.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// How many connections there are.
    #[must_use]
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.line.send_replace(Line::Cut);
    }
}

async fn accept(
    listener: TcpListener,
    (server, patience): (SocketAddr, Duration),
    line: watch::Sender<Line>,
    shared: Arc<Shared>,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let mut line = line.subscribe();
        if *line.borrow_and_update() == Line::Cut {
            continue;
        }
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        shared.open.fetch_add(1, Ordering::Relaxed);
        let shared = shared.clone();
        tokio::spawn(async move {
            if let Some(server) = reach(server, patience).await {
                connect(client, server, line, &shared).await;
            }
            shared.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn reach(server: SocketAddr, patience: Duration) -> Option<TcpStream> {
    let deadline = Instant::now() + patience;
    loop {
        match TcpStream::connect(server).await {
            Ok(stream) => return Some(stream),
            Err(_) if Instant::now() >= deadline => return None,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Passes bytes between the two until one side ends, the line is cut, or something is to be lost.
async fn connect(client: TcpStream, server: TcpStream, mut line: watch::Receiver<Line>, shared: &Shared) {
    // Without it small messages would wait for others; a connection on which it cannot be set has ended.
    let _ended = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let is_mute = AtomicBool::new(false);
    tokio::select! {
        () = forth(from_client, to_server, line.clone(), shared, &is_mute) => {}
        () = back(from_server, to_client, line.clone(), shared, &is_mute) => {}
        _ = line.wait_for(|line| *line == Line::Cut) => {}
    }
}

async fn forth(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut line: watch::Receiver<Line>,
    shared: &Shared,
    is_mute: &AtomicBool,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if line.wait_for(|line| *line != Line::Silent).await.is_err() {
            return;
        }
        let next = shared.next.swap(PASS, Ordering::SeqCst);
        if next == LOSE_QUESTION {
            shared.lost.fetch_add(1, Ordering::SeqCst);
            return;
        }
        is_mute.store(next == LOSE_ANSWER, Ordering::SeqCst);
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        if next == LOSE_ANSWER {
            tokio::time::sleep(ANSWERS).await;
            shared.lost.fetch_add(1, Ordering::SeqCst);
            return;
        }
    }
}

async fn back(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut line: watch::Receiver<Line>,
    shared: &Shared,
    is_mute: &AtomicBool,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if line.wait_for(|line| *line != Line::Silent).await.is_err() {
            return;
        }
        if is_mute.load(Ordering::SeqCst) {
            continue;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        shared.to_clients.fetch_add(length as u64, Ordering::Relaxed);
    }
}
