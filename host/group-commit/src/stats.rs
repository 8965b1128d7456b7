//! What the committer counts about itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Durations in buckets that double: bucket `i` holds those below 2^i µs.
#[derive(Debug)]
pub(crate) struct Timing {
    buckets: [AtomicU64; 32],
    sum_us: AtomicU64,
    max_us: AtomicU64,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_us: AtomicU64::new(0),
            max_us: AtomicU64::new(0),
        }
    }
}

impl Timing {
    pub(crate) fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = (64 - us.leading_zeros() as usize).min(self.buckets.len() - 1);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
        self.max_us.fetch_max(us, Relaxed);
    }

    fn view(&self) -> TimingView {
        let counts: Vec<u64> = self.buckets.iter().map(|b| b.load(Relaxed)).collect();
        let count: u64 = counts.iter().sum();
        let max_us = self.max_us.load(Relaxed);
        let below = |share: f64| {
            let wanted = (count as f64 * share).ceil() as u64;
            let mut seen = 0;
            for (bucket, n) in counts.iter().enumerate() {
                seen += n;
                if seen >= wanted {
                    return (1u64 << bucket).min(max_us);
                }
            }
            max_us
        };
        TimingView {
            count,
            mean_us: self.sum_us.load(Relaxed).checked_div(count).unwrap_or(0),
            p50_us: below(0.5),
            p99_us: below(0.99),
            max_us,
        }
    }
}

/// A summary of durations. The percentiles are upper bounds, up to twice the true value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimingView {
    /// How many.
    pub count: u64,
    /// Mean, µs.
    pub mean_us: u64,
    /// Half of them took no longer, µs.
    pub p50_us: u64,
    /// 99 of 100 took no longer, µs.
    pub p99_us: u64,
    /// The longest, µs.
    pub max_us: u64,
}

/// Counters of one committer, written by its thread, read by anybody.
#[derive(Debug, Default)]
pub struct Stats {
    pub(crate) commits: AtomicU64,
    pub(crate) failed_commits: AtomicU64,
    pub(crate) units: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) refused_units: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) log_pages: AtomicU64,
    pub(crate) queue: Timing,
    pub(crate) apply: Timing,
    pub(crate) commit: Timing,
    pub(crate) checkpoint: Timing,
}

impl Stats {
    /// Notes that the database has worked off its log, and how long that took.
    pub fn record_checkpoint(&self, took: Duration) {
        self.checkpoint.record(took);
        self.checkpoints.fetch_add(1, Relaxed);
    }

    /// Notes how many pages the database's log has.
    pub fn set_log_pages(&self, pages: u64) {
        self.log_pages.store(pages, Relaxed);
    }

    /// The counters as they are now.
    #[must_use]
    pub fn view(&self, (queued_units, queued_bytes): (usize, usize)) -> GroupStats {
        GroupStats {
            commits: self.commits.load(Relaxed),
            failed_commits: self.failed_commits.load(Relaxed),
            units: self.units.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            refused_units: self.refused_units.load(Relaxed),
            checkpoints: self.checkpoints.load(Relaxed),
            log_pages: self.log_pages.load(Relaxed),
            queue: self.queue.view(),
            apply: self.apply.view(),
            commit: self.commit.view(),
            checkpoint: self.checkpoint.view(),
            queued_units,
            queued_bytes,
        }
    }
}

/// Counters of one committer since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupStats {
    /// Transactions committed; each is one fsync of the log.
    pub commits: u64,
    /// Transactions that failed as a whole.
    pub failed_commits: u64,
    /// Units committed.
    pub units: u64,
    /// Bytes that the units of committed transactions held in memory.
    pub bytes: u64,
    /// Units refused alone, by a conflict or a stale epoch.
    pub refused_units: u64,
    /// How often the log was worked off.
    pub checkpoints: u64,
    /// Pages in the database's log that are not in its tables yet; 0 where the database does not tell.
    pub log_pages: u64,
    /// How long the oldest unit of each batch waited before it was taken.
    pub queue: TimingView,
    /// From begin to just before commit, a batch.
    pub apply: TimingView,
    /// The commit itself: writing the log and fsync.
    pub commit: TimingView,
    /// How long working off the log took.
    pub checkpoint: TimingView,
    /// Units waiting now.
    pub queued_units: usize,
    /// Bytes waiting now.
    pub queued_bytes: usize,
}

impl GroupStats {
    /// Units a commit, on average.
    #[must_use]
    pub fn units_per_commit(&self) -> f64 {
        self.units as f64 / self.commits.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_upper_bounds_within_a_factor_of_two() {
        let timing = Timing::default();
        for us in 1..=1000 {
            timing.record(Duration::from_micros(us));
        }
        let view = timing.view();
        assert_eq!((view.count, view.mean_us, view.max_us), (1000, 500, 1000));
        assert!((500..=1000).contains(&view.p50_us), "{view:?}");
        assert_eq!(view.p99_us, 1000);
        assert_eq!(Timing::default().view(), TimingView::default());
    }
}
