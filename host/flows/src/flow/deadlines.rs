//! When flows that wait for a time have to be looked at, by the monotonic clock.
//!
//! A flow's journal names its deadline by the wall clock, since it must hold in another process too. In this process the
//! deadline is turned into a moment of the monotonic clock once, when it is seen first, and that moment counts however
//! the wall clock is set, and however often the flow is put away and brought back.

use std::time::Duration;

use dashmap::DashMap;
use maxhost_journal::{Millis, Nanos};
use maxhost_model::FlowRow;

use crate::base::clock::{Clock, Moment, wall_millis};

const NANOS_PER_MILLI: Nanos = 1_000_000;

#[derive(Debug, Clone, Copy)]
struct Deadline {
    until: Millis,
    at: Moment,
    /// The latest time that deadlines of the flow were reckoned from, as it would be at that moment.
    reckoned: (Millis, Moment),
}

impl Deadline {
    /// The time at a later moment, if the wall clock had not been set back since.
    fn time_at(&self, now: Moment) -> Millis {
        let (time, then) = self.reckoned;
        time.saturating_add(Millis::try_from(now.since(then).as_millis()).unwrap_or(Millis::MAX))
    }
}

/// The deadlines of the flows of this host: the latest of each flow that has had one, in memory or not. It stays when the
/// wait is over, because what the flow did since may turn out not to be written, and then it waits again.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    by_flow: DashMap<FlowRow, Deadline>,
}

impl Deadlines {
    /// The moment at which a flow's wait until then is over. `from`: the time from which it was reckoned, if the flow is at hand
    /// to tell. The wall clock may have gone back since, and the wait must not be longer for that.
    pub fn moment(&self, clock: &dyn Clock, flow: FlowRow, until: Millis, from: Option<Millis>) -> Moment {
        let (now, wall) = (clock.monotonic(), wall_millis(clock));
        let reckon = |before: Option<&Deadline>| {
            let latest = before.map_or(0, |before| before.time_at(now));
            let left = Duration::from_millis(until.saturating_sub(wall.max(from.unwrap_or(latest))));
            Deadline { until, at: now + left, reckoned: (wall.max(from.unwrap_or(0)).max(latest), now) }
        };
        let mut deadline = self.by_flow.entry(flow).or_insert_with(|| reckon(None));
        if deadline.until != until {
            *deadline = reckon(Some(&deadline));
        }
        deadline.at
    }

    /// Whether the flow has had a deadline.
    pub fn has(&self, flow: FlowRow) -> bool {
        self.by_flow.contains_key(&flow)
    }

    /// The time that the flow is to be told: that of the wall clock, but never before a deadline of its that is over,
    /// nor behind one that is not.
    pub fn time(&self, clock: &dyn Clock, flow: FlowRow) -> Nanos {
        let wall = clock.wall();
        let Some(deadline) = self.by_flow.get(&flow).map(|deadline| *deadline.value()) else { return wall };
        let until = deadline.until.saturating_mul(NANOS_PER_MILLI);
        match clock.monotonic() >= deadline.at {
            true => wall.max(until),
            false => wall.min(until.saturating_sub(1)),
        }
    }

    /// The flow has ended.
    pub fn forget(&self, flow: FlowRow) {
        self.by_flow.remove(&flow);
    }

    /// These flows are not this host's any more. If they become so again, their deadlines are reckoned anew.
    pub fn forget_all(&self, flows: impl IntoIterator<Item = FlowRow>) {
        flows.into_iter().for_each(|flow| self.forget(flow));
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_flow.len()
    }
}

#[cfg(test)]
mod tests {
    use maxhost_journal::to_millis;

    use super::*;
    use crate::base::clock::tests::VirtualClock;

    const START: Nanos = 1_700_000_000_000_000_000;
    const START_MS: Millis = START / NANOS_PER_MILLI;
    const HOUR: Nanos = 3_600_000_000_000;
    const FLOW: FlowRow = FlowRow(7);

    #[test]
    fn a_clock_that_goes_back_an_hour_does_not_lengthen_a_wait_of_five_seconds() {
        let (clock, deadlines) = (VirtualClock::at(START), Deadlines::default());
        let until = START_MS + 5_000;
        let at = deadlines.moment(&clock, FLOW, until, None);
        clock.set_wall(START - HOUR);
        assert_eq!(deadlines.moment(&clock, FLOW, until, None), at, "it is asked for again when the flow comes back");
        clock.advance(Duration::from_secs(4));
        assert!(deadlines.time(&clock, FLOW) < until * NANOS_PER_MILLI);
        clock.advance(Duration::from_secs(1));
        assert!(clock.monotonic() >= at);
        assert_eq!(deadlines.time(&clock, FLOW), until * NANOS_PER_MILLI);
    }

    #[test]
    fn a_clock_that_goes_forward_an_hour_does_not_shorten_it() {
        let (clock, deadlines) = (VirtualClock::at(START), Deadlines::default());
        let until = START_MS + 5_000;
        deadlines.moment(&clock, FLOW, until, None);
        clock.set_wall(START + HOUR);
        clock.advance(Duration::from_secs(4));
        assert!(deadlines.time(&clock, FLOW) < until * NANOS_PER_MILLI);
        clock.advance(Duration::from_secs(1));
        assert_eq!(deadlines.time(&clock, FLOW), START + HOUR + 5_000_000_000);
    }

    #[test]
    fn a_deadline_that_was_reckoned_before_the_clock_went_back_is_not_further_away_for_it() {
        let (clock, deadlines) = (VirtualClock::at(START - HOUR), Deadlines::default());
        let at = deadlines.moment(&clock, FLOW, START_MS + 5_000, Some(START_MS));
        assert_eq!(at, clock.monotonic() + Duration::from_secs(5));
    }

    #[test]
    fn a_deadline_that_is_reckoned_again_after_the_clock_went_back_is_not_further_away_for_it() {
        let (clock, deadlines) = (VirtualClock::at(START), Deadlines::default());
        let at = deadlines.moment(&clock, FLOW, START_MS + 5_000, Some(START_MS));
        deadlines.moment(&clock, FLOW, START_MS + 6_000, Some(START_MS));
        clock.set_wall(START - HOUR);
        clock.advance(Duration::from_secs(1));
        assert_eq!(deadlines.moment(&clock, FLOW, START_MS + 5_000, None), at, "from its row");
        clock.advance(Duration::from_secs(7));
        let over = deadlines.moment(&clock, FLOW, START_MS + 6_000, None);
        assert_eq!(over, clock.monotonic(), "it was over when it was looked at again");
    }

    #[test]
    fn a_deadline_from_before_the_clock_was_put_right_is_not_further_away_for_one_that_came_then() {
        let (clock, deadlines) = (VirtualClock::at(START + HOUR), Deadlines::default());
        let fast = START_MS + 3_600_000;
        let at = deadlines.moment(&clock, FLOW, fast + 5_000, Some(fast));
        clock.set_wall(START);
        deadlines.moment(&clock, FLOW, START_MS + 5_000, Some(START_MS));
        clock.advance(Duration::from_secs(1));
        assert_eq!(deadlines.moment(&clock, FLOW, fast + 5_000, None), at, "from its row");
    }

    #[test]
    fn what_is_reckoned_after_the_clock_went_back_is_waited_for() {
        let (clock, deadlines) = (VirtualClock::at(START), Deadlines::default());
        for flow in [FLOW, FlowRow(8)] {
            deadlines.time(&clock, flow);
        }
        deadlines.moment(&clock, FLOW, START_MS + 1_000, Some(START_MS));
        clock.advance(Duration::from_secs(1));
        clock.set_wall(START - HOUR);
        clock.advance(Duration::from_secs(1));
        for flow in [FLOW, FlowRow(8)] {
            let from = to_millis(deadlines.time(&clock, flow));
            let at = deadlines.moment(&clock, flow, from + 5_000, Some(from));
            assert_eq!(at, clock.monotonic() + Duration::from_secs(5), "a sleep of five seconds takes five");
        }
    }

    #[test]
    fn another_deadline_takes_the_place_of_the_last_and_none_is_kept_for_ever() {
        let (clock, deadlines) = (VirtualClock::at(START), Deadlines::default());
        let first = deadlines.moment(&clock, FLOW, START_MS + 1_000, None);
        assert!(deadlines.moment(&clock, FLOW, START_MS + 2_000, None) > first);
        assert_eq!(deadlines.len(), 1);
        assert!(deadlines.has(FLOW));
        deadlines.forget(FLOW);
        assert_eq!((deadlines.len(), deadlines.time(&clock, FLOW)), (0, START));
        assert!(!deadlines.has(FLOW));
    }
}
