//! Points in time and time-windows (behaviour.md 10.9).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// A point in time: nanoseconds since 1970, UTC, at most those of the year 2262. As text RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Timestamp(u64);

impl Timestamp {
    /// The last point that can be told: what fits 63 bits, so that every database can hold it.
    pub const MAX: Timestamp = Timestamp(i64::MAX as u64);

    /// This many nanoseconds after 1970, or the last point if there are too many.
    #[must_use]
    pub fn from_nanos(nanos: u64) -> Timestamp {
        Timestamp(nanos.min(Timestamp::MAX.0))
    }

    /// Nanoseconds since 1970.
    #[must_use]
    pub fn nanos(self) -> u64 {
        self.0
    }

    /// This much later; at most [`Timestamp::MAX`].
    #[must_use]
    pub fn plus(self, duration: Duration) -> Timestamp {
        Timestamp::from_nanos(self.0.saturating_add(nanos_of(duration)))
    }

    /// This much earlier; at the least 1970.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(nanos_of(duration)))
    }
}

fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl TryFrom<u64> for Timestamp {
    type Error = Refused;

    fn try_from(nanos: u64) -> Result<Timestamp> {
        if nanos > Timestamp::MAX.0 {
            return Err(Refused::new(Rule::ValueInvalid, "a time is beyond the year 2262"));
        }
        Ok(Timestamp(nanos))
    }
}

impl From<Timestamp> for u64 {
    fn from(time: Timestamp) -> u64 {
        time.0
    }
}

impl FromStr for Timestamp {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Timestamp> {
        let refuse = || {
            let shown: String = text.chars().take(40).collect();
            Refused::new(Rule::ValueInvalid, format!("'{shown}' is no time as RFC 3339 writes it, from 1970 to 2262"))
        };
        let parsed: jiff::Timestamp = text.parse().map_err(|_| refuse())?;
        let nanos = u64::try_from(parsed.as_nanosecond()).map_err(|_| refuse())?;
        Timestamp::try_from(nanos).map_err(|_| refuse())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(time) => fmt::Display::fmt(&time, f),
            Err(_) => write!(f, "{} ns", self.0),
        }
    }
}

/// When a transaction may be notarised: from the first point on, and before the second. At least one is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Ends", into = "Ends")]
pub struct TimeWindow {
    from: Option<Timestamp>,
    until: Option<Timestamp>,
}

/// The form in a component: `[from, until]`, null where there is none.
type Ends = (Option<Timestamp>, Option<Timestamp>);

impl TimeWindow {
    fn new(from: Option<Timestamp>, until: Option<Timestamp>) -> Result<TimeWindow> {
        match (from, until) {
            (None, None) => Err(Refused::new(Rule::TimeWindowInvalid, "a time-window needs a beginning or an end")),
            (Some(from), Some(until)) if from >= until => Err(Refused::new(
                Rule::TimeWindowInvalid,
                format!("a time-window must begin before it ends, not at {from} and {until}"),
            )),
            _ => Ok(TimeWindow { from, until }),
        }
    }

    /// From this point on.
    #[must_use]
    pub fn from_only(from: Timestamp) -> TimeWindow {
        TimeWindow { from: Some(from), until: None }
    }

    /// Before this point.
    #[must_use]
    pub fn until_only(until: Timestamp) -> TimeWindow {
        TimeWindow { from: None, until: Some(until) }
    }

    /// From the first point on, and before the second.
    ///
    /// # Errors
    /// [`Rule::TimeWindowInvalid`] unless the first is earlier.
    pub fn between(from: Timestamp, until: Timestamp) -> Result<TimeWindow> {
        TimeWindow::new(Some(from), Some(until))
    }

    /// From this point on, for so long.
    ///
    /// # Errors
    /// [`Rule::TimeWindowInvalid`] if the duration is zero.
    pub fn starting(from: Timestamp, duration: Duration) -> Result<TimeWindow> {
        TimeWindow::between(from, from.plus(duration))
    }

    /// Around this point, by a tolerance to either side.
    ///
    /// # Errors
    /// [`Rule::TimeWindowInvalid`] if the tolerance is zero.
    pub fn with_tolerance(time: Timestamp, tolerance: Duration) -> Result<TimeWindow> {
        TimeWindow::between(time.minus(tolerance), time.plus(tolerance))
    }

    /// The first point inside.
    #[must_use]
    pub fn from(&self) -> Option<Timestamp> {
        self.from
    }

    /// The first point that is too late.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// Whether a point is inside.
    #[must_use]
    pub fn contains(&self, time: Timestamp) -> bool {
        !self.is_before(time) && !self.is_over(time)
    }

    /// Whether it has not begun at this point.
    #[must_use]
    pub fn is_before(&self, time: Timestamp) -> bool {
        self.from.is_some_and(|from| time < from)
    }

    /// Whether it is over at this point: then it stays so.
    #[must_use]
    pub fn is_over(&self, time: Timestamp) -> bool {
        self.until.is_some_and(|until| time >= until)
    }

    /// How long it is; `None` when one end is open.
    #[must_use]
    pub fn length(&self) -> Option<Duration> {
        Some(Duration::from_nanos(self.until?.0 - self.from?.0))
    }

    /// The point in its middle; `None` when one end is open.
    #[must_use]
    pub fn midpoint(&self) -> Option<Timestamp> {
        let (from, until) = (self.from?, self.until?);
        Some(Timestamp(from.0 + (until.0 - from.0) / 2))
    }
}

impl TryFrom<Ends> for TimeWindow {
    type Error = Refused;

    fn try_from((from, until): Ends) -> Result<TimeWindow> {
        TimeWindow::new(from, until)
    }
}

impl From<TimeWindow> for Ends {
    fn from(window: TimeWindow) -> Ends {
        (window.from, window.until)
    }
}

impl fmt::Display for TimeWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.from, self.until) {
            (Some(from), Some(until)) => write!(f, "from {from} until {until}"),
            (Some(from), None) => write!(f, "from {from}"),
            (None, Some(until)) => write!(f, "until {until}"),
            (None, None) => f.write_str("open"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::codec;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    #[test]
    fn the_beginning_is_inside_and_the_end_is_not() {
        let window = TimeWindow::between(at(10), at(20)).unwrap();
        assert_eq!([9, 10, 19, 20].map(|t| window.contains(at(t))), [false, true, true, false]);
        assert!(window.is_before(at(9)) && !window.is_over(at(9)));
        assert!(window.is_over(at(20)) && !window.is_before(at(20)));
        assert_eq!(window.midpoint(), Some(at(15)));
        assert_eq!(window.length(), Some(Duration::from_nanos(10)));
        assert_eq!(TimeWindow::from_only(at(10)).midpoint(), None);
        assert!(TimeWindow::until_only(at(10)).contains(at(0)));
    }

    #[test]
    fn empty_windows_are_refused() {
        assert_eq!(TimeWindow::between(at(5), at(5)).unwrap_err().rule(), Rule::TimeWindowInvalid);
        assert!(TimeWindow::with_tolerance(at(5), Duration::ZERO).is_err());
        let open = codec::encode("time-window", &(None::<u64>, None::<u64>)).unwrap();
        assert_eq!(codec::decode::<TimeWindow>("time-window", &open).unwrap_err().rule(), Rule::ComponentInvalid);
    }

    #[test]
    fn times_are_read_and_written_as_rfc_3339() {
        let time: Timestamp = "2026-11-28T05:00:00.5+01:00".parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-28T04:00:00.5Z");
        assert!("2026-11-28".parse::<Timestamp>().is_err());
        assert!("1969-12-31T23:59:59Z".parse::<Timestamp>().is_err());
        assert!("2300-01-01T00:00:00Z".parse::<Timestamp>().is_err());
        assert!(Timestamp::try_from(u64::MAX).is_err());
    }

    proptest! {
        #[test]
        fn windows_round_trip(from in proptest::option::of(0_u64..100), until in proptest::option::of(100_u64..200), t in 0_u64..200) {
            prop_assume!(from.is_some() || until.is_some());
            let window = TimeWindow::new(from.map(at), until.map(at)).unwrap();
            let bytes = codec::encode("time-window", &window).unwrap();
            prop_assert_eq!(codec::decode::<TimeWindow>("time-window", &bytes).unwrap(), window);
            prop_assert_eq!(window.contains(at(t)), from.is_none_or(|f| f <= t) && until.is_none_or(|u| t < u));
        }
    }
}
