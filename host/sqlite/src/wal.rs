//! When the write-ahead log is worked off: copied into the database file, so that it can be overwritten from its start.
//!
//! Copying does not hold up readers, but it holds up the committer, so it is done in idle moments, and under load only
//! when the log has grown. A reader in the middle of its transaction keeps the log from being started anew; if such
//! readers follow one upon the other without a gap, the log would grow for ever, so from some length on the committer
//! waits for a gap, shortly.

use std::time::{Duration, Instant};

use maxhost_group_commit::Stats;
use rusqlite::{Connection, Statement};

use crate::error::SqliteError;
use crate::reserve::Reserve;

/// When the write-ahead log is worked off.
#[derive(Debug, Clone)]
pub struct WalLimits {
    /// How long nothing must come before the moment counts as idle.
    pub idle: Duration,
    /// Fewer pages than this are left alone even in an idle moment.
    pub idle_pages: u64,
    /// With this many pages it is worked off under load too.
    pub busy_pages: u64,
    /// With this many pages in the file the committer waits for readers, so that it can start anew.
    pub longest_pages: u64,
    /// How long it waits for them.
    pub patience: Duration,
    /// Bytes by which the file is kept longer than the log, so that commits overwrite instead of growing it; 0: not at
    /// all. Made bit by bit in idle moments.
    pub ahead_bytes: u64,
}

impl Default for WalLimits {
    fn default() -> WalLimits {
        WalLimits {
            idle: Duration::from_millis(20),
            idle_pages: 250,
            busy_pages: 10_000,
            longest_pages: 40_000,
            patience: Duration::from_millis(100),
            ahead_bytes: 0,
        }
    }
}

/// Bytes of a frame's header in the log (<https://sqlite.org/walformat.html>).
const FRAME_HEADER: u64 = 24;
/// A moment without work that is long enough to make room in.
const MOMENT: Duration = Duration::from_micros(500);

/// How long to wait when nothing is left to be done.
const FOREVER: Duration = Duration::from_secs(3600);

/// The write-ahead log as the committer sees it.
pub(crate) struct Wal<'c, 's> {
    conn: &'c Connection,
    state: Statement<'c>,
    stats: &'s Stats,
    limits: WalLimits,
    /// Pages that are not in the database file yet.
    unsaved: u64,
    /// At which length of the file to wait for readers next.
    wait_at: u64,
    reserve: Option<Reserve>,
    frame_bytes: u64,
}

impl<'c, 's> Wal<'c, 's> {
    pub(crate) fn new(conn: &'c Connection, stats: &'s Stats, limits: WalLimits) -> Result<Wal<'c, 's>, SqliteError> {
        let state = conn.prepare("PRAGMA wal_checkpoint(NOOP)")?;
        let wait_at = limits.longest_pages;
        let page: i64 = conn.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let frame_bytes = u64::try_from(page).unwrap_or(0) + FRAME_HEADER;
        let longest = limits.busy_pages.saturating_mul(frame_bytes).saturating_add(limits.ahead_bytes);
        let reserve = Reserve::new(conn.path(), limits.ahead_bytes, longest);
        Ok(Wal { conn, state, stats, limits, unsaved: 0, wait_at, reserve, frame_bytes })
    }

    /// How long the committer may sleep before [`Wal::idle`] has something to do.
    pub(crate) fn patience(&self) -> Duration {
        if self.reserve.as_ref().is_some_and(Reserve::is_due) {
            return MOMENT;
        }
        if self.unsaved >= self.limits.idle_pages.max(1) { self.limits.idle } else { FOREVER }
    }

    /// A transaction was committed.
    pub(crate) fn committed(&mut self) {
        let pages = self.state.query_row([], |row| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)));
        let Ok((length, saved)) = pages else { return };
        let length = u64::try_from(length).unwrap_or(0);
        self.unsaved = length.saturating_sub(u64::try_from(saved).unwrap_or(0));
        self.stats.set_log_pages(length);
        if length >= self.wait_at {
            let started_anew = self.start_anew();
            self.wait_at = if started_anew { self.limits.longest_pages } else { length + self.limits.busy_pages };
        } else if self.unsaved >= self.limits.busy_pages {
            self.work_off("PASSIVE");
        }
        let used = length.saturating_mul(self.frame_bytes);
        if let Some(reserve) = &mut self.reserve
            && reserve.use_up_to(used)
        {
            reserve.extend();
        }
    }

    /// Nothing is to be committed for the moment.
    pub(crate) fn idle(&mut self) {
        if let Some(reserve) = self.reserve.as_mut().filter(|reserve| reserve.is_due()) {
            return reserve.extend();
        }
        self.work_off("PASSIVE");
        // What a reader keeps back is left for the idle moment after the next commit.
        self.unsaved = 0;
    }

    /// The disk is full: a log that was worked off is overwritten instead of growing.
    pub(crate) fn disk_full(&mut self) {
        if let Some(reserve) = &mut self.reserve {
            reserve.give_up();
        }
        self.work_off("PASSIVE");
    }

    /// The last act.
    pub(crate) fn close(&mut self) {
        self.work_off("TRUNCATE");
    }

    fn start_anew(&mut self) -> bool {
        let ordinary: i64 = self.conn.query_row("PRAGMA busy_timeout", [], |row| row.get(0)).unwrap_or(5000);
        let patience = self.limits.patience;
        if self.conn.busy_timeout(patience).is_err() {
            return false;
        }
        let done = self.work_off("RESTART");
        let ordinary = Duration::from_millis(u64::try_from(ordinary).unwrap_or(5000));
        if let Err(error) = self.conn.busy_timeout(ordinary) {
            tracing::warn!(%error, "the waiting time of the database could not be set");
        }
        done
    }

    /// Copies what it can; true if nothing stood in the way. Failing is no harm: the next time gets it.
    fn work_off(&mut self, mode: &str) -> bool {
        let started = Instant::now();
        let result = self.conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        self.stats.record_checkpoint(started.elapsed());
        match result {
            Ok((busy, length, saved)) => {
                self.unsaved = u64::try_from(length - saved).unwrap_or(0);
                busy == 0
            }
            Err(error) => {
                tracing::warn!(%error, "the write-ahead log could not be worked off");
                false
            }
        }
    }
}
