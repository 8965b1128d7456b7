//! Which destination's messages are sent next: in turns, so that none waits for another's backlog, and with pauses for
//! those whose messages are not taken. No I/O in here.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Destinations that are sent to at once.
pub(crate) const ACTIVE: usize = 16;
/// Of those, destinations whose last batch was not taken: a try may take as long as a broker is given to answer.
pub(crate) const ACTIVE_FAILING: usize = 4;
/// The pause after the first failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Where one destination stands.
#[derive(Debug, Default)]
struct Destination {
    /// Rows up to this one whose senders are held here were sent.
    after: i64,
    /// There may be rows behind that.
    news: bool,
    active: bool,
    /// In line for its turn.
    queued: bool,
    /// In a row.
    failures: u32,
    not_before: Option<Instant>,
    /// It was sent back to the first row while its turn lasted.
    rewound: bool,
}

/// How a batch went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// All rows up to this one are done with.
    pub after: i64,
    /// There may be more behind it.
    pub more: bool,
    /// Why the batch ended before its end; to be tried again.
    pub failure: Option<String>,
}

/// Whose turn it is: a destination, and the row after which to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn {
    pub destination: Arc<str>,
    pub after: i64,
}

/// All destinations that have, or may have, messages.
#[derive(Debug, Default)]
pub(crate) struct Destinations {
    /// All rows are behind this one.
    begin: i64,
    known: HashMap<Arc<str>, Destination>,
    line: VecDeque<Arc<str>>,
    active: usize,
    active_failing: usize,
}

impl Destinations {
    /// Of rows that are all behind this one.
    pub fn behind(begin: i64) -> Destinations {
        Destinations { begin, ..Destinations::default() }
    }

    /// There are messages for a destination.
    pub fn news(&mut self, destination: &Arc<str>) {
        let begin = self.begin;
        let entry = self.known.entry(destination.clone());
        let entry = entry.or_insert_with(|| Destination { after: begin, ..Destination::default() });
        entry.news = true;
        if !entry.active && !entry.queued {
            entry.queued = true;
            self.line.push_back(destination.clone());
        }
    }

    /// Rows of another sender may be sent now: each destination is looked at from its first row on.
    pub fn look_at_all(&mut self) {
        let known: Vec<Arc<str>> = self.known.keys().cloned().collect();
        for destination in known {
            if let Some(entry) = self.known.get_mut(&destination) {
                entry.after = self.begin;
                entry.rewound = entry.active;
            }
            self.news(&destination);
        }
    }

    /// The next turn, if there is one and room for it.
    pub fn next(&mut self, now: Instant) -> Option<Turn> {
        if self.active >= ACTIVE {
            return None;
        }
        for _ in 0..self.line.len() {
            let destination = self.line.pop_front()?;
            let Some(entry) = self.known.get_mut(&destination) else { continue };
            let paused = entry.not_before.is_some_and(|at| at > now);
            if paused || (entry.failures > 0 && self.active_failing >= ACTIVE_FAILING) {
                self.line.push_back(destination);
                continue;
            }
            entry.queued = false;
            entry.active = true;
            entry.news = false;
            entry.not_before = None;
            self.active += 1;
            self.active_failing += usize::from(entry.failures > 0);
            return Some(Turn { after: entry.after, destination });
        }
        None
    }

    /// When the next pause ends, if somebody waits for that only. Where there is no room, the end of a turn makes some.
    pub fn next_due(&self) -> Option<Instant> {
        // Whoever pauses has failed.
        if self.active >= ACTIVE || self.active_failing >= ACTIVE_FAILING {
            return None;
        }
        self.line.iter().filter_map(|destination| self.known.get(destination)?.not_before).min()
    }

    /// A turn is over. Gives how often in a row the destination's messages were not taken.
    pub fn report(&mut self, turn: &Turn, report: &Report, now: Instant) -> u32 {
        let Some(entry) = self.known.get_mut(&turn.destination) else { return 0 };
        entry.active = false;
        self.active = self.active.saturating_sub(1);
        self.active_failing = self.active_failing.saturating_sub(usize::from(entry.failures > 0));
        if !std::mem::take(&mut entry.rewound) {
            entry.after = report.after;
        }
        if report.failure.is_some() {
            let pause = FIRST_PAUSE.saturating_mul(1 << entry.failures.min(16)).min(LONGEST_PAUSE);
            entry.not_before = Some(now + pause);
            entry.failures = entry.failures.saturating_add(1);
            entry.news = true;
        } else {
            entry.failures = 0;
            entry.news |= report.more;
        }
        let (failures, news) = (entry.failures, entry.news);
        if news {
            self.news(&turn.destination);
        }
        failures
    }

    /// These are all the destinations for which there are rows, whoever's they are: of the others nothing is remembered,
    /// unless there is something to do for them. Until then a place is kept, so that rows of senders that are not held here
    /// are not read from the first on each time.
    pub fn keep(&mut self, with_rows: &HashSet<Arc<str>>) {
        self.known.retain(|name, entry| entry.active || entry.queued || with_rows.contains(name));
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn name(number: usize) -> Arc<str> {
        format!("Party {number}").into()
    }

    fn done(after: i64, more: bool) -> Report {
        Report { after, more, failure: None }
    }

    fn failed(after: i64) -> Report {
        Report { after, more: true, failure: Some("no".to_owned()) }
    }

    #[test]
    fn a_long_backlog_and_dead_destinations_starve_nobody() {
        let (mut destinations, now) = (Destinations::default(), Instant::now());
        // More dead destinations than can be sent to at once, all of them failing for the first time.
        for number in 0..ACTIVE * 2 {
            destinations.news(&name(number));
        }
        for _ in 0..2 {
            let turns: Vec<Turn> = std::iter::from_fn(|| destinations.next(now)).collect();
            assert_eq!(turns.len(), ACTIVE);
            turns.iter().for_each(|turn| assert_eq!(destinations.report(turn, &failed(0), now), 1));
        }
        assert_eq!(destinations.next(now), None, "all are paused");
        // When they are tried again, and hang, there is room for others.
        let later = now + FIRST_PAUSE;
        let hanging: Vec<Turn> = std::iter::from_fn(|| destinations.next(later)).collect();
        assert_eq!(hanging.len(), ACTIVE_FAILING);
        assert_eq!(destinations.next_due(), None, "nobody is looked for before one of them ends");
        let (alive, busy) = (name(1000), name(1001));
        destinations.news(&alive);
        destinations.news(&busy);
        let mut served = Vec::new();
        for round in 0..6 {
            let turn = destinations.next(later).unwrap();
            destinations.report(&turn, &done(round, *turn.destination == *busy), later);
            served.push(turn.destination);
        }
        assert_eq!(served.iter().filter(|served| **served == alive).count(), 1);
        assert_eq!(served.iter().filter(|served| **served == busy).count(), 5);
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_end_with_success() {
        let (mut destinations, mut now) = (Destinations::default(), Instant::now());
        destinations.news(&name(1));
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let turn = destinations.next(now).unwrap();
            destinations.report(&turn, &failed(0), now);
            assert_eq!(destinations.next(now), None);
            let due = destinations.next_due().unwrap();
            pauses.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]);
        // A message that comes meanwhile does not shorten the pause.
        let turn = destinations.next(now).unwrap();
        destinations.news(&name(1));
        destinations.report(&turn, &failed(0), now);
        destinations.news(&name(1));
        assert_eq!(destinations.next(now), None);
        let turn = destinations.next(destinations.next_due().unwrap()).unwrap();
        assert_eq!(destinations.report(&turn, &done(9, false), now), 0);
        destinations.keep(&[name(1)].into());
        assert_eq!(destinations.len(), 1, "it has rows, which are another host's");
        destinations.keep(&HashSet::new());
        assert_eq!(destinations.len(), 0, "nothing is remembered of who has nothing");
    }

    #[test]
    fn a_notice_in_the_middle_of_a_turn_is_not_lost() {
        let (mut destinations, now) = (Destinations::default(), Instant::now());
        destinations.news(&name(1));
        let turn = destinations.next(now).unwrap();
        destinations.news(&name(1));
        assert_eq!(destinations.next(now), None, "one turn at a time");
        destinations.report(&turn, &done(5, false), now);
        assert_eq!(destinations.next(now), Some(Turn { destination: name(1), after: 5 }));
    }

    #[test]
    fn rows_that_were_sent_are_not_read_again_until_another_sender_is_held() {
        let (mut destinations, now) = (Destinations::behind(3), Instant::now());
        destinations.news(&name(1));
        let turn = destinations.next(now).unwrap();
        assert_eq!(turn.after, 3);
        destinations.report(&turn, &done(7, false), now);
        assert_eq!(destinations.next(now), None);
        destinations.news(&name(1));
        let turn = destinations.next(now).unwrap();
        assert_eq!(turn.after, 7);
        destinations.look_at_all();
        destinations.report(&turn, &done(9, false), now);
        let turn = destinations.next(now).unwrap();
        assert_eq!(turn.after, 3);
        // The sender is held now, while the turn lasts: what the turn says of its place does not count.
        destinations.look_at_all();
        destinations.report(&turn, &done(9, false), now);
        assert_eq!(destinations.next(now).unwrap().after, 3);
    }

    #[test]
    fn a_destination_with_something_to_do_is_kept_though_no_row_was_seen() {
        let (mut destinations, now) = (Destinations::default(), Instant::now());
        destinations.news(&name(1));
        destinations.news(&name(2));
        let turn = destinations.next(now).unwrap();
        // The rows were looked for before these came.
        destinations.keep(&HashSet::new());
        destinations.report(&turn, &done(5, false), now);
        assert_eq!(destinations.next(now).unwrap().destination, name(2));
    }
}
