//! A connection that is made again when it is lost, and the sessions on it.
//!
//! One task owns the connection: it begins sessions for whoever asks, and waits for the connection's end. A session tells
//! whoever uses it when it has ended ([`Session::ended`]); a sender must be dropped then, because what it has sent waits for
//! an answer for ever otherwise.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use fe2o3_amqp::connection::ConnectionHandle;
use fe2o3_amqp::session::SessionHandle;
use maxhost_broker::{BrokerError, Permanent};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::dial;
use crate::error::{of_first_session, passing, unavailable};
use crate::heard::Heard;
use crate::options::AmqpOptions;

/// How long the broker may take to answer to what takes it no work: to begin and end sessions, to attach and detach links.
pub(crate) const ANSWER: Duration = Duration::from_secs(20);
/// Sessions that are asked for at once; further ones wait for a place.
const ASKED: usize = 256;

/// A connection of a host, through all the times it is made again. Cloning gives another handle to it.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    asked: mpsc::Sender<oneshot::Sender<Result<Session, BrokerError>>>,
    state: watch::Receiver<State>,
}

#[derive(Debug, Clone)]
enum State {
    /// The how-manieth connection there is.
    Up(u64),
    Down(BrokerError),
    Closed,
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    /// For attaching links.
    pub handle: SessionHandle<()>,
}

impl Session {
    /// Waits until the session has ended, by itself or with its connection. Giving up waiting changes nothing.
    pub async fn ended(&mut self) -> BrokerError {
        match self.handle.on_end().await {
            Ok(()) => unavailable("the broker has ended the session"),
            Err(error) => unavailable(error),
        }
    }

    /// Ends the session, in order.
    pub async fn end(mut self) {
        if let Err(error) = timeout(ANSWER, self.handle.end()).await {
            tracing::debug!(%error, "the broker did not answer to the end of a session");
        }
    }
}

impl Line {
    /// Opens a connection and keeps it open until it is told to close, or nobody has a handle to it any more.
    ///
    /// # Errors
    /// Why the first attempt failed. Later ones are repeated for ever.
    pub async fn open(
        options: Arc<AmqpOptions>,
        name: &str,
        heard: Heard,
        closed: watch::Receiver<bool>,
    ) -> Result<Line, BrokerError> {
        let name = format!("{name}-{:08x}", random() as u32);
        let mut connection = dial::connect(&options, &name, &heard).await?;
        let session = timeout(ANSWER, fe2o3_amqp::Session::begin(&mut connection)).await;
        let first = Session { handle: session.map_err(unavailable)?.map_err(of_first_session)? };
        let (asked, asking) = mpsc::channel(ASKED);
        let (state, seen) = watch::channel(State::Up(0));
        let owner = Owner { options, name, heard, asking, state, closed };
        tokio::spawn(owner.run(connection, first));
        Ok(Line { asked, state: seen })
    }

    /// A new session, on the connection that there is or the next one; waits no longer than this.
    pub async fn session(&self, within: Duration) -> Result<Session, BrokerError> {
        let asking = async {
            let (reply, answer) = oneshot::channel();
            let mut state = self.state.clone();
            let is_decided = |state: &State| !matches!(state, State::Down(_));
            if !matches!(state.wait_for(is_decided).await.as_deref(), Ok(State::Up(_))) {
                return Err(Permanent::Closed.into());
            }
            self.asked.send(reply).await.map_err(|_| Permanent::Closed)?;
            answer.await.unwrap_or_else(|_| Err(unavailable("the connection to the broker was lost")))
        };
        timeout(within, asking).await.unwrap_or_else(|_| Err(self.trouble()))
    }

    /// What keeps the connection from being used.
    pub fn trouble(&self) -> BrokerError {
        match &*self.state.borrow() {
            State::Up(_) => unavailable("the broker does not answer"),
            State::Down(error) => passing(error.clone()),
            State::Closed => Permanent::Closed.into(),
        }
    }

    /// Why there is no connection at present; `None` if there is one.
    pub fn lost(&self) -> Option<BrokerError> {
        let is_up = matches!(&*self.state.borrow(), State::Up(_));
        if is_up { None } else { Some(self.trouble()) }
    }

    /// Waits until the connection is closed for good.
    pub async fn is_closed(&self) {
        let mut state = self.state.clone();
        // Its owner is gone, or says so.
        let _ = state.wait_for(|state| matches!(state, State::Closed)).await;
    }

    /// The how-manieth connection there is; `None` if there is none at present.
    pub fn number(&self) -> Option<u64> {
        match *self.state.borrow() {
            State::Up(number) => Some(number),
            _ => None,
        }
    }

    /// Whether the connection is lost and not made again yet.
    pub fn is_down(&self) -> bool {
        matches!(&*self.state.borrow(), State::Down(_))
    }
}

struct Owner {
    options: Arc<AmqpOptions>,
    name: String,
    heard: Heard,
    asking: mpsc::Receiver<oneshot::Sender<Result<Session, BrokerError>>>,
    state: watch::Sender<State>,
    closed: watch::Receiver<bool>,
}

/// Why a connection is used no longer.
enum Over {
    Lost(BrokerError),
    Closed,
}

impl Owner {
    /// `_first` is the session with which the broker has shown that it lets the host in. It ends with its connection, and not
    /// before: RabbitMQ 3.10 often gives no answer to the end of a session that has just begun.
    async fn run(mut self, mut connection: ConnectionHandle<()>, _first: Session) {
        for number in 1.. {
            let begun = tokio::time::Instant::now();
            let Over::Lost(error) = self.serve(connection).await else { break };
            tracing::warn!(connection = self.name, %error, "the connection to the broker was lost; it is made again");
            self.state.send_replace(State::Down(error));
            let Some(next) = self.reconnect(begun.elapsed()).await else { break };
            tracing::info!(connection = self.name, "the connection to the broker was made again");
            connection = next;
            self.state.send_replace(State::Up(number));
        }
        self.state.send_replace(State::Closed);
    }

    async fn serve(&mut self, mut connection: ConnectionHandle<()>) -> Over {
        loop {
            tokio::select! {
                ended = connection.on_close() => return Over::Lost(match ended {
                    Ok(()) => unavailable("the broker closed the connection"),
                    Err(error) => unavailable(error),
                }),
                asked = self.asking.recv() => match asked {
                    Some(reply) if reply.is_closed() => {}
                    Some(reply) => {
                        let begun = timeout(ANSWER, fe2o3_amqp::Session::begin(&mut connection)).await;
                        let is_hung = begun.is_err();
                        let session = match begun {
                            Ok(Ok(handle)) => Ok(Session { handle }),
                            Ok(Err(error)) => Err(unavailable(error)),
                            Err(_) => Err(unavailable("the broker does not answer")),
                        };
                        // Whoever asked may have given up; the session ends with its handle.
                        let _ = reply.send(session);
                        if is_hung {
                            return Over::Lost(unavailable("the broker does not answer"));
                        }
                    }
                    None => break,
                },
                () = becomes_true(&mut self.closed) => break,
            }
        }
        if let Err(error) = timeout(ANSWER, connection.close()).await {
            tracing::debug!(%error, "the broker did not answer to the end of a connection");
        }
        Over::Closed
    }

    /// Tries until there is a connection, with longer and longer pauses; `None` if it is not wanted any more.
    async fn reconnect(&mut self, lasted: Duration) -> Option<ConnectionHandle<()>> {
        // A connection that is lost as soon as it is made is no better than none.
        let mut pause = if lasted < Duration::from_secs(5) { Pause::after_a_failure() } else { Pause::none() };
        loop {
            tokio::select! {
                () = pause.wait() => {}
                () = becomes_true(&mut self.closed) => return None,
            }
            if self.asking.is_closed() {
                return None;
            }
            match dial::connect(&self.options, &self.name, &self.heard).await {
                Ok(connection) => return Some(connection),
                Err(error) => {
                    tracing::debug!(connection = self.name, %error, "the broker cannot be reached");
                    self.state.send_replace(State::Down(error));
                }
            }
        }
    }
}

/// Waits until this is true, or nobody can say any more.
pub(crate) async fn becomes_true(state: &mut watch::Receiver<bool>) {
    let _ = state.wait_for(|is_true| *is_true).await;
}

/// Pauses between attempts: from 50 ms, doubling to 5 s, and up to half as long again, so that hosts do not come all at once.
#[derive(Debug)]
pub(crate) struct Pause {
    next: Duration,
}

impl Pause {
    const SHORTEST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(5);

    /// The first attempt is made at once.
    pub fn none() -> Pause {
        Pause { next: Duration::ZERO }
    }

    /// The first attempt is made after the shortest pause.
    pub fn after_a_failure() -> Pause {
        Pause { next: Pause::SHORTEST }
    }

    /// Waits as long as it is time for.
    pub async fn wait(&mut self) {
        let pause = self.next;
        self.next = (pause * 2).clamp(Pause::SHORTEST, Pause::LONGEST);
        if !pause.is_zero() {
            let more = pause.as_millis() as u64 / 2;
            tokio::time::sleep(pause + Duration::from_millis(random() % (more + 1))).await;
        }
    }
}

/// A number that another process does not have: every hasher of the standard library has random keys.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
