//! How long this host leaves an identity to others that it could not run.

use std::time::Duration;

use maxhost_model::{Class, Code, Problem};
use maxhost_store::StoreError;

use crate::base::clock::Moment;

/// The longest pause after trouble that passes by itself: when it is over, what waits goes on soon.
const PASSING: Duration = Duration::from_secs(2);
/// The longest pause after trouble of the identity.
const STAYING: Duration = Duration::from_secs(300);

/// How long an identity is left alone, by what kept this host from running it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    /// It is not the identity's, and passes by itself: the database does not answer, or a clock is wrong.
    Short,
    /// It is the identity's at this host: its keys, its components, a claim that was refused.
    Longer,
}

impl Pause {
    /// Whether a problem says that the trouble passes by itself. A clock that is wrong is nobody's identity's trouble.
    pub fn of_problem(problem: &Problem) -> Pause {
        match problem.class() {
            Class::Unavailable => Pause::Short,
            _ if problem.code == Code::ClockOff => Pause::Short,
            Class::Failed | Class::Usage | Class::NotFound | Class::Refused => Pause::Longer,
        }
    }

    /// As [`Pause::of_problem`], of a claim that was not written. One that another host has taken, or that has moved to
    /// another database, is left alone for longer each time.
    pub fn of_claim(error: &StoreError) -> Pause {
        match error {
            StoreError::Unreachable { .. } | StoreError::Closed => Pause::Short,
            error if error.is_retriable() => Pause::Short,
            _ => Pause::Longer,
        }
    }
}

/// How long it is waited before an identity is tried whose owners died one after the other.
const AFTER_DEATHS: Duration = Duration::from_secs(30);

/// How often in a row an identity could not be run for trouble that stays, and when it is tried again.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    failures: u32,
    not_before: Moment,
    /// So many of its owners died, and until then it is waited.
    deaths: Option<(u32, Moment)>,
}

impl Retry {
    /// It could not be run: it is tried again after a second, doubling each time. How often trouble has passed does not count.
    pub fn put_off(&mut self, now: Moment, pause: Pause) {
        let doubled = Duration::from_secs(1u64 << self.failures.min(9));
        match pause {
            Pause::Short => self.not_before = now + PASSING,
            Pause::Longer => {
                self.not_before = now + doubled.min(STAYING);
                self.failures = self.failures.saturating_add(1);
            }
        }
    }

    /// It was refused because so many of its owners died. Who asks again meanwhile does not have it wait for longer; that another
    /// has died does.
    pub fn wait_after(&mut self, deaths: u32, now: Moment) {
        let until = match self.deaths {
            Some((known, until)) if known == deaths => until,
            _ => now + AFTER_DEATHS,
        };
        self.deaths = Some((deaths, until));
        self.not_before = until;
    }

    /// Since how many deaths it has been waited for long enough; 0 if it has not.
    pub fn waited_since(&self, now: Moment) -> u32 {
        self.deaths.filter(|(_, until)| *until <= now).map_or(0, |(deaths, _)| deaths)
    }

    /// Before then it is not tried.
    pub fn not_before(&self) -> Moment {
        self.not_before
    }
}

#[cfg(test)]
mod tests {
    use maxhost_group_commit::{Fault, FaultKind};
    use maxhost_model::IdentityRow;

    use super::*;

    const fn at(seconds: u64) -> Moment {
        Moment::new(Duration::from_secs(seconds))
    }

    fn fault(kind: FaultKind) -> Fault {
        Fault::new(kind, std::io::Error::other("a fault"))
    }

    #[test]
    fn what_passes_by_itself_is_tried_again_soon_however_long_it_took() {
        let mut retry = Retry::default();
        for second in 0..1_000 {
            retry.put_off(at(second), Pause::Short);
            assert!(retry.not_before() <= at(second + 2), "after {second} seconds");
        }
        retry.put_off(at(1_000), Pause::Longer);
        assert_eq!(retry.not_before(), at(1_001), "what has passed does not count for what stays");
    }

    #[test]
    fn what_stays_is_tried_again_after_longer_each_time() {
        let mut retry = Retry::default();
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            retry.put_off(at(7), Pause::Longer);
            assert_eq!(retry.not_before(), at(7 + seconds));
        }
    }

    #[test]
    fn after_deaths_it_is_waited_once_for_each_number() {
        let mut retry = Retry::default();
        assert_eq!(retry.waited_since(at(1_000)), 0);
        retry.wait_after(3, at(0));
        retry.wait_after(3, at(20));
        assert_eq!((retry.not_before(), retry.waited_since(at(29))), (at(30), 0), "who asks again does not put it off");
        assert_eq!(retry.waited_since(at(30)), 3);
        retry.wait_after(4, at(31));
        assert_eq!((retry.not_before(), retry.waited_since(at(60)), retry.waited_since(at(61))), (at(61), 0, 4));
    }

    #[test]
    fn trouble_of_the_database_or_of_the_host_passes_and_that_of_the_identity_stays() {
        let place = || "server/database".to_owned();
        for passing in [
            StoreError::Io(fault(FaultKind::Io)),
            StoreError::Busy(fault(FaultKind::Busy)),
            StoreError::Unreachable { place: place(), source: fault(FaultKind::Io) },
            StoreError::ClockOff { place: place(), ahead: 9_000, limit: Duration::from_secs(5) },
        ] {
            assert_eq!(Pause::of_claim(&passing), Pause::Short, "{passing}");
            assert_eq!(Pause::of_problem(&passing.into()), Pause::Short);
        }
        let (identity, claim) = (IdentityRow(1), maxhost_store::UNCLAIMED);
        let fenced = StoreError::Fenced { identity, claim, current: claim };
        assert_eq!(Pause::of_claim(&fenced), Pause::Longer);
        for code in [Code::KeyUnreadable, Code::CordappNotFound, Code::StoreIncompatible] {
            assert_eq!(Pause::of_problem(&Problem::new(code, "some trouble")), Pause::Longer, "{code}");
        }
    }
}
