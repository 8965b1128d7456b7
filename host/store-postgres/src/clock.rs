//! How far the clock of this machine is from the server's: all hosts of a database write times into it, and wake by them.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use maxhost_store::StoreError;
use sqlx::postgres::PgConnection;

use crate::error::of_server;

/// How often the server is asked for one measurement; the quickest answer counts, since it says most.
const ASKED: usize = 3;

/// A measurement, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offset {
    /// How far this machine's clock is ahead of the server's; below zero if it is behind.
    ahead: i64,
    /// How far the measurement may be off, because it is not known when on its way the server was asked.
    uncertain: i64,
}

impl Offset {
    /// Whether the clocks differ by more than this for sure.
    fn is_beyond(self, limit: Duration) -> bool {
        let limit = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        self.ahead.saturating_abs().saturating_sub(self.uncertain) > limit
    }
}

/// Asks the server for the time.
pub(crate) async fn measure(conn: &mut PgConnection) -> Result<Offset, sqlx::Error> {
    let mut best: Option<Offset> = None;
    for _ in 0..ASKED {
        let (asked, before) = (Instant::now(), now());
        let server: i64 = sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8")
            .fetch_one(&mut *conn)
            .await?;
        let uncertain = i64::try_from(asked.elapsed().as_millis() / 2).unwrap_or(i64::MAX).saturating_add(1);
        let ahead = before.saturating_add(uncertain).saturating_sub(server);
        if best.is_none_or(|best| uncertain < best.uncertain) {
            best = Some(Offset { ahead, uncertain });
        }
    }
    best.ok_or(sqlx::Error::RowNotFound)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The clock of this machine beside that of one server, as it was measured last.
#[derive(Debug)]
pub(crate) struct HostClock {
    place: String,
    limit: Duration,
    /// How far it is ahead, where that is beyond the limit; otherwise zero.
    beyond: AtomicI64,
}

impl HostClock {
    /// Of the server at this place, which may differ by so much.
    pub fn new(place: String, limit: Duration) -> HostClock {
        HostClock { place, limit, beyond: AtomicI64::new(0) }
    }

    /// Measures, for one who has not begun yet.
    ///
    /// # Errors
    /// [`StoreError::ClockOff`]; or the server does not answer.
    pub async fn look(&self, conn: &mut PgConnection) -> Result<(), StoreError> {
        let offset = measure(conn).await.map_err(|error| of_server(&self.place, error))?;
        if offset.is_beyond(self.limit) { Err(self.refusal(offset.ahead)) } else { Ok(()) }
    }

    fn refusal(&self, ahead: i64) -> StoreError {
        StoreError::ClockOff { place: self.place.clone(), ahead, limit: self.limit }
    }

    /// Keeps a measurement, and says in the log what has changed.
    pub fn note(&self, offset: Offset) {
        let beyond = if offset.is_beyond(self.limit) { offset.ahead } else { 0 };
        let before = self.beyond.swap(beyond, Ordering::Relaxed);
        match (before, beyond) {
            (0, 0) => {}
            (0, ahead) => tracing::error!(
                database = self.place,
                ahead_ms = ahead,
                "the clock of this machine differs from the database server's: no identity is taken until it is right"
            ),
            (_, 0) => tracing::info!(database = self.place, "the clock of this machine is right again"),
            _ => {}
        }
    }

    /// Whether identities may be taken.
    ///
    /// # Errors
    /// [`StoreError::ClockOff`].
    pub fn check(&self) -> Result<(), StoreError> {
        match self.beyond.load(Ordering::Relaxed) {
            0 => Ok(()),
            ahead => Err(self.refusal(ahead)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_that_is_not_exact_enough_refuses_nobody() {
        let limit = Duration::from_secs(5);
        let beyond = |ahead, uncertain| Offset { ahead, uncertain }.is_beyond(limit);
        assert!(!beyond(5_000, 0));
        assert!(beyond(5_001, 0) && beyond(-5_001, 0));
        assert!(!beyond(7_000, 2_000) && beyond(7_001, 2_000));
        assert!(beyond(i64::MIN, 1));
    }

    #[test]
    fn identities_are_taken_again_when_the_clock_is_right_again() {
        let clock = HostClock::new("server/database".to_owned(), Duration::from_secs(5));
        assert!(clock.check().is_ok());
        clock.note(Offset { ahead: -60_000, uncertain: 3 });
        let refused = clock.check();
        assert!(refused.as_ref().is_err_and(StoreError::is_retriable));
        assert!(refused.is_err_and(|error| error.to_string().contains("60000 ms behind")));
        clock.note(Offset { ahead: 20, uncertain: 3 });
        assert!(clock.check().is_ok());
    }
}
