//! The time for which hosts have run on a database: it never jumps.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sqlx::postgres::PgConnection;

/// The time that hosts have run, as this host knows it.
#[derive(Debug)]
pub(crate) struct Lived(Mutex<(i64, Instant)>);

impl Lived {
    pub(crate) fn new(ms: i64) -> Lived {
        Lived(Mutex::new((ms, Instant::now())))
    }

    /// The time that hosts have run by now, milliseconds.
    pub(crate) fn now(&self) -> i64 {
        let (base, since) = *self.0.lock();
        base.saturating_add(i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    pub(crate) fn set(&self, ms: i64) {
        *self.0.lock() = (ms, Instant::now());
    }
}

/// How much of the time since somebody last looked counts at most, so that a clock which is set forward, or a time
/// without hosts, makes nothing old. Hosts look every few seconds.
const LONGEST: Duration = Duration::from_secs(120);

/// Moves the time on by what has passed of the server's clock. Several hosts may do so: what each adds has passed since
/// another one looked.
pub(crate) async fn touch(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "UPDATE maxhost.database SET lived_at = clock_timestamp(), lived = lived + \
         least(greatest(floor(extract(epoch FROM clock_timestamp() - lived_at) * 1000), 0), $1)::int8 RETURNING lived",
    )
    .bind(i64::try_from(LONGEST.as_millis()).unwrap_or(i64::MAX))
    .fetch_one(conn)
    .await
}
