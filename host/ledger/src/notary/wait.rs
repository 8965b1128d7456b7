//! How long a caller will wait, told to it when the notary is busy (behaviour.md 11.7).

use std::collections::VecDeque;
use std::time::Duration;

/// From this estimate on a caller is told.
pub const WAIT_THRESHOLD: Duration = Duration::from_secs(10);

/// The estimate when nothing has been measured yet.
const UNKNOWN: Duration = Duration::from_secs(10);

/// How many measurements count.
const MEASUREMENTS: usize = 100;

/// The longest estimate that is told: a day.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Measures how fast states are committed, and estimates how long the queue takes.
#[derive(Debug, Clone, Default)]
pub struct WaitEstimate {
    /// States a minute, the newest last.
    measured: VecDeque<u64>,
}

impl WaitEstimate {
    /// A batch of so many states took so long to commit.
    pub fn measure(&mut self, states: usize, took: Duration) {
        let nanos = took.as_nanos().max(1);
        let a_minute = (states as u128).saturating_mul(60_000_000_000) / nanos;
        if self.measured.len() == MEASUREMENTS {
            self.measured.pop_front();
        }
        self.measured.push_back(u64::try_from(a_minute).unwrap_or(u64::MAX));
    }

    /// How long a caller will wait behind so many queued states: twice the time at the median of what was measured.
    #[must_use]
    pub fn estimate(&self, queued_states: usize) -> Duration {
        let mut sorted: Vec<u64> = self.measured.iter().copied().collect();
        sorted.sort_unstable();
        match sorted.get(sorted.len() / 2) {
            None | Some(0) => UNKNOWN,
            Some(a_minute) => {
                let millis = (queued_states as u128).saturating_mul(2 * 60 * 1000) / u128::from(*a_minute);
                Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)).min(LONGEST)
            }
        }
    }

    /// The wait to tell a caller, if it is long enough to be told.
    #[must_use]
    pub fn update(&self, queued_states: usize) -> Option<Duration> {
        Some(self.estimate(queued_states)).filter(|wait| *wait > WAIT_THRESHOLD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_is_twice_the_time_at_the_median() {
        let mut wait = WaitEstimate::default();
        assert_eq!(wait.estimate(5), UNKNOWN);
        assert_eq!(wait.update(5), None);
        for _ in 0..3 {
            wait.measure(100, Duration::from_secs(1));
        }
        wait.measure(1, Duration::from_secs(100));
        assert_eq!(wait.estimate(600), Duration::from_secs(12));
        assert_eq!(wait.update(600), Some(Duration::from_secs(12)));
        assert_eq!(wait.update(500), None);
        for _ in 0..MEASUREMENTS {
            wait.measure(1000, Duration::from_secs(1));
        }
        assert_eq!(wait.measured.len(), MEASUREMENTS);
        assert_eq!(wait.estimate(600), Duration::from_millis(1200));
        wait.measure(usize::MAX, Duration::ZERO);
        assert!(wait.estimate(usize::MAX) <= LONGEST);
    }
}
