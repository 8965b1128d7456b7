//! Time: the wall clock for what people and other hosts see, the monotonic one for everything that waits.
//!
//! Whoever waits asks a [`Clock`] and no other source, so that a wall clock that is set neither shortens nor lengthens a
//! wait, and so that tests of it run on a clock of their own.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use maxhost_journal::{Millis, Nanos};
use maxhost_store::Store;

/// A point of the monotonic clock: the time since the clock was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Moment(Duration);

impl Moment {
    /// So long after the clock was made.
    #[cfg(test)]
    pub const fn new(since: Duration) -> Moment {
        Moment(since)
    }

    /// The time since an earlier moment; zero since a later one.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(duration))
    }
}

/// Where the host's time comes from.
pub(crate) trait Clock: Send + Sync + 'static {
    /// Nanoseconds since 1970 UTC. May jump in either direction.
    fn wall(&self) -> Nanos;

    /// Never goes back and never jumps.
    fn monotonic(&self) -> Moment;

    /// Ends at that moment, or at once if it has passed.
    fn sleep_until(&self, at: Moment) -> BoxFuture<'static, ()>;
}

/// Milliseconds since 1970 UTC.
pub(crate) fn wall_millis(clock: &dyn Clock) -> Millis {
    maxhost_journal::to_millis(clock.wall())
}

/// The time of the database's server, in milliseconds since 1970, which is the same for all hosts that use it; of a database in this
/// process, or as long as it is not known, the time of this machine.
pub(crate) fn shared_millis(store: &Store, clock: &dyn Clock) -> Millis {
    store.server_millis().and_then(|millis| Millis::try_from(millis).ok()).unwrap_or_else(|| wall_millis(clock))
}

/// The clocks of the machine. Sleeps on tokio's timer.
#[derive(Debug)]
pub(crate) struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    pub fn new() -> SystemClock {
        SystemClock { origin: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> Nanos {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as Nanos)
    }

    fn monotonic(&self) -> Moment {
        Moment(self.origin.elapsed())
    }

    fn sleep_until(&self, at: Moment) -> BoxFuture<'static, ()> {
        // A moment too far away for the timer is as good as the farthest that it has.
        let longest = Duration::from_secs(365 * 24 * 3600);
        let at = self.origin + at.0.min(self.origin.elapsed() + longest);
        Box::pin(tokio::time::sleep_until(at.into()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::task::{Poll, Waker};

    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Times {
        wall: Nanos,
        monotonic: Moment,
        sleepers: BTreeMap<(Moment, u64), Waker>,
        sleeps: u64,
    }

    /// A clock that moves only when it is told to.
    #[derive(Clone, Default)]
    pub(crate) struct VirtualClock(Arc<Mutex<Times>>);

    impl VirtualClock {
        pub fn at(wall: Nanos) -> VirtualClock {
            let clock = VirtualClock::default();
            clock.0.lock().wall = wall;
            clock
        }

        /// Sets the wall clock, as an operator or a time server does.
        pub fn set_wall(&self, wall: Nanos) {
            self.0.lock().wall = wall;
        }

        /// Lets time pass and wakes whose moment has come.
        pub fn advance(&self, by: Duration) {
            let woken = {
                let mut times = self.0.lock();
                times.wall += by.as_nanos() as Nanos;
                times.monotonic = times.monotonic + by;
                let later = (times.monotonic + Duration::from_nanos(1), 0);
                let later = times.sleepers.split_off(&later);
                std::mem::replace(&mut times.sleepers, later)
            };
            woken.into_values().for_each(Waker::wake);
        }

        /// The first moment that somebody sleeps until.
        pub fn next(&self) -> Option<Moment> {
            self.0.lock().sleepers.keys().next().map(|(at, _)| *at)
        }
    }

    impl Clock for VirtualClock {
        fn wall(&self) -> Nanos {
            self.0.lock().wall
        }

        fn monotonic(&self) -> Moment {
            self.0.lock().monotonic
        }

        fn sleep_until(&self, at: Moment) -> BoxFuture<'static, ()> {
            let number = {
                let mut times = self.0.lock();
                times.sleeps += 1;
                times.sleeps
            };
            let sleeper = Sleeper { clock: self.clone(), key: (at, number) };
            Box::pin(async move {
                std::future::poll_fn(|context| {
                    let mut times = sleeper.clock.0.lock();
                    if times.monotonic >= sleeper.key.0 {
                        return Poll::Ready(());
                    }
                    times.sleepers.insert(sleeper.key, context.waker().clone());
                    Poll::Pending
                })
                .await;
            })
        }
    }

    /// Forgets its alarm when nobody waits for it any more.
    struct Sleeper {
        clock: VirtualClock,
        key: (Moment, u64),
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            self.clock.0.lock().sleepers.remove(&self.key);
        }
    }

    #[test]
    fn the_system_clock_goes_on() {
        let clock = SystemClock::new();
        let (wall, moment) = (clock.wall(), clock.monotonic());
        assert!(wall > 1_600_000_000_000_000_000, "it is later than 2020");
        assert!(clock.monotonic() >= moment);
        assert_eq!(wall_millis(&clock) / 1_000_000, wall / 1_000_000_000_000, "the same quarter of an hour");
    }

    #[tokio::test]
    async fn a_sleep_ends_at_its_moment() {
        let clock = SystemClock::new();
        let at = clock.monotonic() + Duration::from_millis(5);
        clock.sleep_until(at).await;
        assert!(clock.monotonic() >= at);
        clock.sleep_until(Moment::default()).await;
    }

    #[test]
    fn a_virtual_clock_wakes_whose_moment_has_come() {
        use futures::FutureExt;
        let clock = VirtualClock::at(7);
        let mut sleep = clock.sleep_until(Moment::new(Duration::from_secs(2)));
        assert!((&mut sleep).now_or_never().is_none());
        assert_eq!(clock.next(), Some(Moment::new(Duration::from_secs(2))));
        clock.set_wall(1_000_000_000_000);
        assert!((&mut sleep).now_or_never().is_none(), "the wall clock wakes nobody");
        clock.advance(Duration::from_secs(2));
        assert!((&mut sleep).now_or_never().is_some());
        assert_eq!(clock.next(), None);
    }
}
