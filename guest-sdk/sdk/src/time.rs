//! A flow's time: a point that only the host moves, and the same again on replay.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::str::FromStr;
use std::time::Duration;

use maxhost_contract::rfc3339;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::host;

/// The time of the last event this flow saw, plus a tick for every call: it rises, and it stands still while the flow
/// computes.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp(host::now())
}

/// A point in time, UTC, between 1970 and 2554. As text RFC 3339, with the nanoseconds it has.
///
/// Arithmetic with [`Duration`] stops at the ends of that range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// This many nanoseconds after 1970.
    #[must_use]
    pub const fn from_unix_nanos(nanos: u64) -> Timestamp {
        Timestamp(nanos)
    }

    /// This many milliseconds after 1970; the last representable point when there are too many.
    #[must_use]
    pub const fn from_unix_millis(millis: u64) -> Timestamp {
        Timestamp(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since 1970.
    #[must_use]
    pub const fn as_unix_nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since 1970.
    #[must_use]
    pub const fn as_unix_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// How long after `earlier` this is; zero when it is not.
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Milliseconds since 1970, rounded up: a deadline must not fall before what the author said.
    pub(crate) const fn deadline_millis(self) -> u64 {
        self.0.div_ceil(1_000_000)
    }
}

/// The nanoseconds of a duration, as many as a timestamp can hold.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(nanos(duration)))
    }
}

impl AddAssign<Duration> for Timestamp {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;

    fn sub(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(nanos(duration)))
    }
}

impl SubAssign<Duration> for Timestamp {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub<Timestamp> for Timestamp {
    type Output = Duration;

    /// Zero when the other is later.
    fn sub(self, earlier: Timestamp) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        rfc3339::write(self.0, f)
    }
}

/// The text is no RFC 3339 time between 1970 and 2554.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseTimestampError(String);

impl fmt::Display for ParseTimestampError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not a time such as 2026-01-31T12:00:00Z, between 1970 and 2554", self.0)
    }
}

impl std::error::Error for ParseTimestampError {}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Timestamp, ParseTimestampError> {
        rfc3339::parse(text).map(Timestamp).ok_or_else(|| ParseTimestampError(text.chars().take(64).collect()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const NANOS_PER_SECOND: u64 = 1_000_000_000;
    const SECONDS_PER_DAY: u64 = 86_400;

    fn time(text: &str) -> u64 {
        text.parse::<Timestamp>().unwrap().as_unix_nanos()
    }

    #[test]
    fn text_and_numbers_agree() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2024-12-31T12:30:15Z", 1_735_648_215),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
            ("2554-07-21T23:34:33Z", 18_446_744_073),
        ] {
            assert_eq!(time(text), seconds * NANOS_PER_SECOND, "{text}");
            assert_eq!(Timestamp(seconds * NANOS_PER_SECOND).to_string(), text);
        }
    }

    #[test]
    fn fractions_and_offsets() {
        assert_eq!(time("1970-01-01T00:00:01.5Z"), 1_500_000_000);
        assert_eq!(time("1970-01-01T00:00:00.0000000019Z"), 1);
        assert_eq!(time("1970-01-01t02:00:00+02:00"), 0);
        assert_eq!(time("1970-01-02T23:30:00-00:30"), 2 * SECONDS_PER_DAY * NANOS_PER_SECOND);
        assert_eq!(Timestamp(1_000_000_010).to_string(), "1970-01-01T00:00:01.00000001Z");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1969-12-31T23:59:59Z",
            "2023-02-29T00:00:00Z",
            "2023-00-01T00:00:00Z",
            "2023-01-00T00:00:00Z",
            "2023-01-01T24:00:00Z",
            "2023-01-01T00:00:60Z",
            "2023-01-01T00:00:00.Z",
            "2023-01-01T00:00:00+24:00",
            "2023-01-01T00:00:00Z ",
            "9999-01-01T00:00:00Z",
            "2023-01-01T+0:00:00Z",
            "äöüäöüäöüäöü",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    #[test]
    fn arithmetic_stops_at_the_ends() {
        assert_eq!(Timestamp(5) - Duration::from_secs(1), Timestamp(0));
        assert_eq!(Timestamp(5) + Duration::MAX, Timestamp(u64::MAX));
        assert_eq!(Timestamp(5) - Timestamp(3), Duration::from_nanos(2));
        assert_eq!(Timestamp(3) - Timestamp(5), Duration::ZERO);
        assert_eq!(Timestamp(1).deadline_millis(), 1);
    }
}
