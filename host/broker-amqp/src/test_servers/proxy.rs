//! Connections to a server that can be cut or made silent.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes connections on to a server, until it is told to cut them.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    line: watch::Sender<Line>,
    accepted: Arc<AtomicUsize>,
    to_clients: Arc<AtomicU64>,
    open: Arc<AtomicUsize>,
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

impl Proxy {
    /// A proxy for this server.
    pub async fn to(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (line, accepted, to_clients, open) =
            (watch::Sender::new(Line::Open), Arc::default(), Arc::default(), Arc::default());
        let counters = (Arc::clone(&accepted), Arc::clone(&to_clients), Arc::clone(&open));
        let task = tokio::spawn(accept(listener, server, line.clone(), counters));
        Proxy { address, line, accepted, to_clients, open, task }
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
        while self.open.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.set(Line::Open);
    }

    /// How many bytes clients were given.
    #[must_use]
    pub fn bytes_to_clients(&self) -> u64 {
        self.to_clients.load(Ordering::Relaxed)
    }

    /// How many connections there have been.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
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
    server: SocketAddr,
    line: watch::Sender<Line>,
    (accepted, to_clients, open): (Arc<AtomicUsize>, Arc<AtomicU64>, Arc<AtomicUsize>),
) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let mut line = line.subscribe();
        if *line.borrow_and_update() == Line::Cut {
            continue;
        }
        accepted.fetch_add(1, Ordering::Relaxed);
        open.fetch_add(1, Ordering::Relaxed);
        let (to_clients, open) = (Arc::clone(&to_clients), Arc::clone(&open));
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(server).await else {
                open.fetch_sub(1, Ordering::Relaxed);
                return;
            };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let to_server_bytes = AtomicU64::default();
            tokio::select! {
                () = pass(from_client, to_server, line.clone(), &to_server_bytes) => {}
                () = pass(from_server, to_client, line.clone(), &to_clients) => {}
                _ = line.wait_for(|line| *line == Line::Cut) => {}
            }
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut line: watch::Receiver<Line>, passed: &AtomicU64) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if line.wait_for(|line| *line != Line::Silent).await.is_err() || to.write_all(&buffer[..length]).await.is_err()
        {
            return;
        }
        passed.fetch_add(length as u64, Ordering::Relaxed);
    }
}
