//! Since when initiations wait in the database. Their rows have no time, so the host remembers when it first saw the first one
//! of each identity.

use std::collections::HashMap;
use std::time::Duration;

use maxhost_model::IdentityRow;
use parking_lot::Mutex;
use tokio::time::Instant;

/// The first initiation of each identity that has one, and when this host first saw it.
#[derive(Debug, Default)]
pub(crate) struct FirstSeen(Mutex<HashMap<IdentityRow, (i64, Instant)>>);

impl FirstSeen {
    /// Takes what waits now, and tells for how long the one that was seen first has waited at least; `None` if nothing waits.
    pub fn look(&self, waiting: Vec<(IdentityRow, i64)>, now: Instant) -> Option<Duration> {
        let mut seen = self.0.lock();
        let before = std::mem::take(&mut *seen);
        *seen = waiting
            .into_iter()
            .map(|(identity, first)| match before.get(&identity) {
                Some(known) if known.0 == first => (identity, *known),
                _ => (identity, (first, now)),
            })
            .collect();
        seen.values().map(|(_, since)| now.saturating_duration_since(*since)).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_that_takes_its_initiations_is_not_behind() {
        let (seen, begun) = (FirstSeen::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        let (alice, bob) = (IdentityRow(1), IdentityRow(2));
        let looks = [
            (vec![(alice, 10), (bob, 11)], 0, Some(0)),
            (vec![(alice, 10), (bob, 12)], 30, Some(30)),
            // Of Alice's nothing is left, and Bob's first is the one that was there the last time.
            (vec![(bob, 12)], 40, Some(10)),
            (vec![(bob, 13)], 50, Some(0)),
            (vec![], 60, None),
        ];
        for (waiting, seconds, oldest) in looks {
            assert_eq!(seen.look(waiting, at(seconds)), oldest.map(Duration::from_secs), "after {seconds} s");
        }
    }
}
