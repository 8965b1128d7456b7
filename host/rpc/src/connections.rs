//! Connections: how they are accepted, how many there may be, and which one goes when there are too many.
//!
//! One more connection than there is room for is accepted and held until another one ends. Connections on which nothing is
//! asked are given up for it, the one that has been silent for longest first; clients open another when they need it. What
//! comes behind waits in the kernel's queue.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use http::Extensions;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TlsConnectInfo};

/// How many connections may wait in the kernel to be accepted.
pub(crate) const BACKLOG: u32 = 1_024;
/// A connection on which nothing was asked for less than this is not given up: its first call may be on its way.
const LEAST_SILENCE: Duration = Duration::from_secs(1);
/// How often it is looked for one that can be given up, beside when one ends.
const LOOK: Duration = Duration::from_millis(100);
/// Pauses after accepting failed, from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often the same warning is given.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// All open connections of a server.
pub(crate) struct Connections {
    limit: usize,
    begun: Instant,
    open: Mutex<HashMap<u64, Arc<Line>>>,
    ended: Notify,
}

/// What is known of one connection while it is open. It is among the extensions of each of its requests.
#[derive(Debug)]
pub(crate) struct Line {
    number: u64,
    from: IpAddr,
    /// When the server began.
    begun: Instant,
    /// Calls and streams under way, of callers who are known.
    calls: AtomicUsize,
    /// When the last of them ended, or the connection came: milliseconds since the server began. Bytes that come and ask for
    /// nothing do not count: anybody could hold a place with them.
    heard: AtomicU64,
    given_up: CancellationToken,
}

/// Counts a call as under way for as long as it lives.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Line>);

/// Milliseconds since then.
fn since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The connection of a request with these extensions.
pub(crate) fn line_of(extensions: &Extensions) -> Option<&Arc<Line>> {
    let secured = || extensions.get::<TlsConnectInfo<Arc<Line>>>().map(TlsConnectInfo::get_ref);
    extensions.get::<Arc<Line>>().or_else(secured)
}

impl Line {
    /// The address that the connection comes from.
    pub(crate) fn from(&self) -> IpAddr {
        self.from
    }

    /// A call begins.
    pub(crate) fn begin(self: &Arc<Line>) -> Busy {
        self.calls.fetch_add(1, Ordering::AcqRel);
        Busy(Arc::clone(self))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.heard.store(since(self.0.begun), Ordering::Relaxed);
        self.0.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Connections {
    pub(crate) fn new(limit: usize) -> Arc<Connections> {
        Arc::new(Connections {
            limit: limit.max(1),
            begun: Instant::now(),
            open: Mutex::default(),
            ended: Notify::new(),
        })
    }

    fn now(&self) -> u64 {
        since(self.begun)
    }

    fn is_full(&self) -> bool {
        self.open.lock().len() >= self.limit
    }

    /// Gives up the connection that has been silent for longest, if there is one without a call.
    fn give_one_up(&self) -> bool {
        let now = self.now();
        let open = self.open.lock();
        let idle =
            open.values().filter(|line| line.calls.load(Ordering::Acquire) == 0 && !line.given_up.is_cancelled());
        let silent = idle.map(|line| (line.heard.load(Ordering::Relaxed), line)).min_by_key(|(heard, _)| *heard);
        match silent {
            Some((heard, line)) if Duration::from_millis(now.saturating_sub(heard)) >= LEAST_SILENCE => {
                line.given_up.cancel();
                true
            }
            _ => false,
        }
    }

    /// Waits until there is room for one more. True if it had to wait.
    async fn room(&self) -> bool {
        let mut waited = false;
        loop {
            let ended = self.ended.notified();
            if !self.is_full() {
                return waited;
            }
            waited = true;
            self.give_one_up();
            // Either one has ended, or one of the silent ones has been silent for long enough.
            let _look = tokio::time::timeout(LOOK, ended).await;
        }
    }

    fn enter(self: &Arc<Connections>, number: u64, from: IpAddr, stream: TcpStream) -> Connection {
        let line = Arc::new(Line {
            number,
            from,
            begun: self.begun,
            calls: AtomicUsize::new(0),
            heard: AtomicU64::new(self.now()),
            given_up: CancellationToken::new(),
        });
        self.open.lock().insert(number, Arc::clone(&line));
        let given_up = Box::pin(line.given_up.clone().cancelled_owned());
        Connection { stream, line, given_up, all: Arc::clone(self) }
    }
}

/// One accepted connection. It leaves the count when it is dropped.
pub(crate) struct Connection {
    stream: TcpStream,
    line: Arc<Line>,
    given_up: Pin<Box<WaitForCancellationFutureOwned>>,
    all: Arc<Connections>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.open.lock().remove(&self.line.number);
        self.all.ended.notify_waiters();
    }
}

impl Connected for Connection {
    type ConnectInfo = Arc<Line>;

    fn connect_info(&self) -> Arc<Line> {
        Arc::clone(&self.line)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(read) => Poll::Ready(read),
            // Nothing more is read from a connection that was given up: it looks closed from here, and is.
            Poll::Pending => self.given_up.as_mut().poll(context).map(Ok),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Accepts connections, for ever.
struct Acceptor {
    listener: TcpListener,
    all: Arc<Connections>,
    number: u64,
    pause: Duration,
    warned: Option<Instant>,
}

/// The connections of a listener, one after the other. It never fails and never ends.
pub(crate) fn accept(
    listener: TcpListener,
    all: Arc<Connections>,
) -> impl Stream<Item = io::Result<Connection>> + Send + 'static {
    let acceptor = Acceptor { listener, all, number: 0, pause: FIRST_PAUSE, warned: None };
    futures::stream::unfold(acceptor, |mut acceptor| async move {
        let connection = acceptor.next().await;
        Some((Ok(connection), acceptor))
    })
}

impl Acceptor {
    async fn next(&mut self) -> Connection {
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    self.pause = FIRST_PAUSE;
                    // Small answers must not wait for a delayed acknowledgement; without this they are only slower.
                    let _slower = stream.set_nodelay(true);
                    if self.all.room().await {
                        let limit = self.all.limit;
                        self.warn(|| tracing::warn!(limit, "there are as many connections as may be: silent ones are closed for new ones, and more wait (limits.rpc_connections)"));
                    }
                    self.number += 1;
                    return self.all.enter(self.number, from.ip(), stream);
                }
                // The client has gone again.
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    let given_up = self.all.give_one_up();
                    self.warn(|| tracing::warn!(%error, given_up, "connections cannot be accepted; it is tried again"));
                    tokio::time::sleep(self.pause).await;
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Warns, but not again and again.
    fn warn(&mut self, warning: impl FnOnce()) {
        if self.warned.is_none_or(|warned| warned.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            warning();
        }
    }
}

/// Errors of accept(2) that are about the connection that came, and say nothing about the next.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted | Kind::ConnectionReset | Kind::ConnectionRefused | Kind::Interrupted | Kind::TimedOut
    )
}
