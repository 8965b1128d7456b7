//! Points in time and time-windows.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::rfc3339;

/// A point in time, UTC, between 1970 and 2262. In data it is text as RFC 3339 writes it, so that queries compare it as a
/// time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The last point: the ledger counts nanoseconds in 63 bits.
    pub const MAX: Timestamp = Timestamp(i64::MAX as u64);

    /// This many nanoseconds after 1970; the last point if there are too many.
    #[must_use]
    pub const fn from_unix_nanos(nanos: u64) -> Timestamp {
        if nanos > Timestamp::MAX.0 { Timestamp::MAX } else { Timestamp(nanos) }
    }

    /// Nanoseconds since 1970.
    #[must_use]
    pub const fn as_unix_nanos(self) -> u64 {
        self.0
    }

    /// This much later; at most [`Timestamp::MAX`].
    #[must_use]
    pub fn plus(self, duration: Duration) -> Timestamp {
        Timestamp::from_unix_nanos(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        rfc3339::write(self.0, f)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no RFC 3339 time between 1970 and 2262.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseTimestampError(String);

impl fmt::Display for ParseTimestampError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not a time such as 2026-01-31T12:00:00Z, between 1970 and 2262", self.0)
    }
}

impl core::error::Error for ParseTimestampError {}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Timestamp, ParseTimestampError> {
        let nanos = rfc3339::parse(text).filter(|nanos| *nanos <= Timestamp::MAX.0);
        nanos.map(Timestamp).ok_or_else(|| ParseTimestampError(text.chars().take(64).collect()))
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

/// When a transaction may be notarised: all that a contract knows of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeWindow {
    /// From this point on.
    pub from: Option<Timestamp>,
    /// Before this point.
    pub until: Option<Timestamp>,
}

impl TimeWindow {
    /// Whether it is certain that the transaction is notarised at this point or later.
    #[must_use]
    pub fn begins_at_or_after(&self, time: Timestamp) -> bool {
        self.from.is_some_and(|from| from >= time)
    }

    /// Whether it is certain that the transaction is notarised before this point.
    #[must_use]
    pub fn ends_by(&self, time: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= time)
    }
}

/// On the ledger it is `[from, until]`, in nanoseconds.
impl Serialize for TimeWindow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.from.map(Timestamp::as_unix_nanos), self.until.map(Timestamp::as_unix_nanos)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TimeWindow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TimeWindow, D::Error> {
        let (from, until) = <(Option<u64>, Option<u64>)>::deserialize(deserializer)?;
        Ok(TimeWindow { from: from.map(Timestamp::from_unix_nanos), until: until.map(Timestamp::from_unix_nanos) })
    }
}
