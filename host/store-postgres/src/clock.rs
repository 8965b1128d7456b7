//! How far the clock of this machine is from the server's: all hosts of a database write times into it, and wake by them.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use maxhost_store::StoreError;
use sqlx::postgres::PgConnection;

use crate::error::of_server;

/// How often the server is asked for one measurement; the quickest answer counts, since it says most.
const ASKED: usize = 3;

/// A measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    offset: Offset,
    /// The server's clock at a moment, in milliseconds since 1970.
    server: (i64, Instant),
}

/// How two clocks differ, in milliseconds.
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
pub(crate) async fn measure(conn: &mut PgConnection) -> Result<Measured, sqlx::Error> {
    let mut best: Option<Measured> = None;
    for _ in 0..ASKED {
        let (asked, before) = (Instant::now(), now());
        let server: i64 = sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8")
            .fetch_one(&mut *conn)
            .await?;
        let halfway = asked.elapsed() / 2;
        let uncertain = i64::try_from(halfway.as_millis()).unwrap_or(i64::MAX).saturating_add(1);
        let ahead = before.saturating_add(uncertain).saturating_sub(server);
        if best.is_none_or(|best| uncertain < best.offset.uncertain) {
            best = Some(Measured { offset: Offset { ahead, uncertain }, server: (server, asked + halfway) });
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
    /// The server's clock at a moment.
    server: Mutex<Option<(i64, Instant)>>,
}

impl HostClock {
    /// Of the server at this place, which may differ by so much.
    pub fn new(place: String, limit: Duration) -> HostClock {
        HostClock { place, limit, beyond: AtomicI64::new(0), server: Mutex::default() }
    }

    /// Measures, for one who has not begun yet.
    ///
    /// # Errors
    /// [`StoreError::ClockOff`]; or the server does not answer.
    pub async fn look(&self, conn: &mut PgConnection) -> Result<(), StoreError> {
        let Measured { offset, server } = measure(conn).await.map_err(|error| of_server(&self.place, error))?;
        self.set_server(server);
        if offset.is_beyond(self.limit) { Err(self.refusal(offset.ahead)) } else { Ok(()) }
    }

    fn set_server(&self, server: (i64, Instant)) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
    }

    /// What the server's clock says now, in milliseconds since 1970: as it was measured last, and as it has gone on since by the
    /// monotonic clock of this machine. `None` if it was never measured.
    pub fn server_millis(&self) -> Option<i64> {
        let (millis, at) = (*self.server.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(millis.saturating_add(i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX)))
    }

    fn refusal(&self, ahead: i64) -> StoreError {
        StoreError::ClockOff { place: self.place.clone(), ahead, limit: self.limit }
    }

    /// Keeps a measurement, and says in the log what has changed.
    pub fn note(&self, Measured { offset, server }: Measured) {
        self.set_server(server);
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
        let measured = |ahead| Measured {
            offset: Offset { ahead, uncertain: 3 },
            server: (now().saturating_sub(ahead), Instant::now()),
        };
        clock.note(measured(-60_000));
        let refused = clock.check();
        assert!(refused.as_ref().is_err_and(StoreError::is_retriable));
        assert!(refused.is_err_and(|error| error.to_string().contains("60000 ms behind")));
        clock.note(measured(20));
        assert!(clock.check().is_ok());
    }

    #[test]
    fn the_server_s_time_goes_on_whatever_this_machine_s_clock_says() {
        let clock = HostClock::new("server/database".to_owned(), Duration::from_secs(5));
        assert_eq!(clock.server_millis(), None);
        let offset = Offset { ahead: 3_600_000, uncertain: 1 };
        let Some(at) = Instant::now().checked_sub(Duration::from_secs(2)) else { return };
        clock.note(Measured { offset, server: (1_000_000, at) });
        let told = clock.server_millis();
        assert!(told.is_some_and(|told| (1_002_000..1_060_000).contains(&told)), "{told:?}");
    }
}
