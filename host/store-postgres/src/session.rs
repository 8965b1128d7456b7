//! The committer's own connection: what it asks it asks until the server answers.
//!
//! Commits wait while the server is away, and nobody is told that they failed: whoever waits goes on by himself when it
//! is back. The queue before the committer is bounded, so that waiting costs a bounded amount of memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use maxhost_group_commit::{Fault, FaultKind};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Error};
use tokio::runtime::{Builder, Runtime};

use crate::answers::Answers;
use crate::error::{fault_of, is_in_the_way, is_lost};

/// How long a connection may take.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);
/// How long a statement may take before the connection counts as dead.
const ANSWER: Duration = Duration::from_secs(20);
/// The first and the longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// How often one who waits looks whether the host stops.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often it is said that the server is still away.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// How long a host that stops waits for a server that is away.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// Why there is no answer.
enum Trouble {
    /// The connection is gone, or none can be had: whether the statement was carried out is not known.
    Away(Error),
    /// The server said this, and has carried nothing out.
    Said(Error),
}

/// One connection with a runtime of its own, on the thread that commits.
pub(crate) struct Session {
    runtime: Runtime,
    options: PgConnectOptions,
    place: String,
    conn: Option<PgConnection>,
    stopping: Arc<AtomicBool>,
    answers: Arc<Answers>,
}

impl Session {
    pub(crate) fn new(
        options: PgConnectOptions,
        place: String,
        stopping: Arc<AtomicBool>,
        answers: Arc<Answers>,
    ) -> Result<Session, Fault> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Fault::new(FaultKind::Other, error))?;
        Ok(Session { runtime, options, place, conn: None, stopping, answers })
    }

    /// Asks until the server answers. `statement` must lead to the same however often it is carried out.
    pub(crate) fn ask<T>(
        &mut self,
        statement: impl AsyncFn(&mut PgConnection) -> Result<T, Error>,
    ) -> Result<T, Fault> {
        let began = Instant::now();
        let (mut pause, mut said) = (PAUSES.0, None::<Instant>);
        loop {
            let error = match self.attempt(&statement) {
                Ok(answer) => {
                    if said.is_some() {
                        tracing::info!(database = %self.place, away_ms = began.elapsed().as_millis(), "the database answers again");
                    }
                    return Ok(answer);
                }
                Err(Trouble::Said(error)) if !is_in_the_way(&error) => return Err(fault_of(error)),
                Err(Trouble::Said(error) | Trouble::Away(error)) => error,
            };
            if self.stopping.load(Ordering::Acquire) && began.elapsed() > LAST_PATIENCE {
                return Err(fault_of(error));
            }
            if said.is_none_or(|said| said.elapsed() > SAY_EVERY) {
                tracing::warn!(database = %self.place, %error, "the database does not answer; commits wait for it");
                said = Some(Instant::now());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Asks once, on the connection that there is: a transaction ends with its connection.
    pub(crate) fn ask_once<T>(
        &mut self,
        statement: impl AsyncFn(&mut PgConnection) -> Result<T, Error>,
    ) -> Result<T, Fault> {
        let answer = match &mut self.conn {
            Some(conn) => bounded(&self.runtime, &self.stopping, ANSWER, statement(conn)),
            None => Err(closed()),
        };
        if answer.is_ok() {
            self.answers.note();
        }
        answer.map_err(|error| {
            if is_lost(&error) {
                self.conn = None;
                return Fault::new(FaultKind::Io, error);
            }
            fault_of(error)
        })
    }

    /// Gives the connection up, and with it whatever transaction is under way.
    pub(crate) fn abandon(&mut self) {
        self.conn = None;
    }

    pub(crate) fn close(&mut self) {
        if let Some(conn) = self.conn.take() {
            // The server notices a connection that is only dropped, too.
            let _ = bounded(&self.runtime, &self.stopping, CONNECT, conn.close());
        }
    }

    fn attempt<T>(&mut self, statement: &impl AsyncFn(&mut PgConnection) -> Result<T, Error>) -> Result<T, Trouble> {
        let conn = match &mut self.conn {
            Some(conn) => conn,
            None => {
                let conn =
                    bounded(&self.runtime, &self.stopping, CONNECT, self.options.connect()).map_err(Trouble::Away)?;
                self.conn.insert(conn)
            }
        };
        let answer = bounded(&self.runtime, &self.stopping, ANSWER, statement(conn));
        if answer.is_ok() {
            self.answers.note();
        }
        answer.map_err(|error| {
            if is_lost(&error) {
                self.conn = None;
                return Trouble::Away(error);
            }
            Trouble::Said(error)
        })
    }
}

/// Drives this to its end, but no longer than so, and not for long when the host stops.
fn bounded<T>(
    runtime: &Runtime,
    stopping: &AtomicBool,
    longest: Duration,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let began = Instant::now();
    runtime.block_on(async {
        tokio::pin!(future);
        loop {
            if let Ok(answer) = tokio::time::timeout(LOOK_EVERY, &mut future).await {
                return answer;
            }
            let waited = began.elapsed();
            if waited >= longest || (waited >= LAST_PATIENCE && stopping.load(Ordering::Acquire)) {
                let text = format!("there was no answer for {} s", waited.as_secs());
                return Err(Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text)));
            }
        }
    })
}

fn closed() -> Error {
    Error::Io(std::io::Error::new(std::io::ErrorKind::NotConnected, "the connection was lost within a transaction"))
}
