//! When the server answered last. A host that alone does not reach it gives up what it runs, and has to know it also while it
//! has nothing to commit and nothing to read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Error};

/// How often the server is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take, with the connection if there is none.
const ANSWER: Duration = Duration::from_secs(2);

/// The moment of the last answer.
#[derive(Debug)]
pub(crate) struct Answers(Mutex<Instant>);

impl Answers {
    /// Of a server that has just answered.
    pub fn new() -> Answers {
        Answers(Mutex::new(Instant::now()))
    }

    /// The server answers now.
    pub fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the server again and again, on a connection of its own: how busy the other connections are tells nothing of the
/// server, and asking must not wait for them.
pub(crate) async fn ask(options: PgConnectOptions, answers: Arc<Answers>) {
    let mut conn = None;
    loop {
        conn = match tokio::time::timeout(ANSWER, ask_once(conn.take(), &options)).await {
            Ok(Ok(conn)) => {
                answers.note();
                Some(conn)
            }
            Ok(Err(error)) => {
                if has_no_connection_free(&error) {
                    answers.note();
                }
                None
            }
            Err(_) => None,
        };
        tokio::time::sleep(EVERY).await;
    }
}

async fn ask_once(conn: Option<PgConnection>, options: &PgConnectOptions) -> Result<PgConnection, Error> {
    let mut conn = match conn {
        Some(conn) => conn,
        None => options.connect().await?,
    };
    sqlx::query("SELECT 1").execute(&mut conn).await?;
    Ok(conn)
}

/// Whether the server is there, and has no connection free for one who only asks.
fn has_no_connection_free(error: &Error) -> bool {
    matches!(error, Error::Database(database) if database.code().is_some_and(|code| code == "53300"))
}
