//! Whether a host reaches the parts that all hosts share, and whether it does worse than others.
//!
//! A host that alone is cut from the database or the broker keeps its session with the ownership service, and with it all that
//! it owns, though it can do nothing for it. So each host tells the others which parts it does not reach, and one that is cut
//! gives up what it runs if another host reaches all that it reaches itself and more. When all are cut nobody gives anything
//! up: that would gain nothing, and everything would move when the part is back.
//!
//! A host tells that it misses a part some time before it would give up for it, so that those which are cut at the same moment
//! know of each other; and it tells that it reaches one again only when it has done so for a while, so that the first one to
//! reach a part that was away does not have the others give up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use maxhost_ownership::{HostInfo, Reach};

/// A part that hosts share.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// The same on all hosts.
    pub name: String,
    /// When it last answered.
    pub answered: Instant,
    /// One that has not answered for so long is missed.
    pub doubted_after: Duration,
}

/// What is remembered of a part.
#[derive(Debug, Default)]
struct Seen {
    is_missed: bool,
    /// It has not answered for so long that this host gives up what it runs, if another one does better.
    is_gone: bool,
    /// Since when it answers, if it is missed.
    answers_since: Option<Instant>,
}

/// What one host reaches, as it has seen it so far.
#[derive(Debug)]
pub(crate) struct Reached {
    session_timeout: Duration,
    looked: Option<Instant>,
    /// When the host went on after it had been stopped for a while: it has heard nothing meanwhile, and that says nothing.
    resumed: Option<Instant>,
    seen: BTreeMap<String, Seen>,
}

impl Reached {
    /// Of a host that reaches everything, whose session lasts so long without a sign of life.
    pub fn new(session_timeout: Duration) -> Reached {
        Reached { session_timeout, looked: None, resumed: None, seen: BTreeMap::new() }
    }

    /// Takes in how the parts are now.
    pub fn look(&mut self, parts: Vec<Part>, now: Instant) {
        let before = self.looked.replace(now);
        if before.is_some_and(|before| now.saturating_duration_since(before) > self.session_timeout / 2) {
            self.resumed = Some(now);
        }
        for Part { name, answered, doubted_after } in parts {
            let unheard = now.saturating_duration_since(answered);
            let silent = self.resumed.map_or(unheard, |resumed| unheard.min(now.saturating_duration_since(resumed)));
            let seen = self.seen.entry(name).or_default();
            seen.is_gone = silent >= doubted_after + self.session_timeout / 2;
            seen.is_missed |= silent >= doubted_after;
            if unheard >= doubted_after {
                seen.answers_since = None;
            } else if seen.is_missed {
                let since = *seen.answers_since.get_or_insert(now);
                seen.is_missed = now.saturating_duration_since(since) < self.session_timeout;
            }
        }
    }

    /// The parts that are missed, by name.
    pub fn missed(&self) -> Vec<String> {
        self.seen.iter().filter(|(_, seen)| seen.is_missed).map(|(name, _)| name.clone()).collect()
    }

    /// Whether one of them has not answered for so long that this host would give up what it runs.
    pub fn is_cut(&self) -> bool {
        self.seen.values().any(|seen| seen.is_gone)
    }

    /// Whether this host stands back from now on, beside these other hosts.
    pub fn stands_back(&self, stands_back: bool, others: &[HostInfo]) -> bool {
        let missed = self.missed();
        let mut better = others.iter().filter(|host| runs_flows(host) && reaches_more(host, &missed));
        match stands_back {
            // Until it reaches everything again, or nobody is there who does better. That one has no slot free any more is no
            // reason to take back what it was given.
            true => better.next().is_some(),
            false => self.is_cut() && better.any(|host| host.free_slots > 0),
        }
    }
}

fn runs_flows(host: &HostInfo) -> bool {
    host.roles.flows && !host.draining
}

/// Whether a host reaches everything but these, and something of these. One that has not told may reach less.
fn reaches_more(host: &HostInfo, missed: &[String]) -> bool {
    match &host.reach {
        Some(Reach { missed: theirs, stands_back: false }) => {
            theirs.len() < missed.len() && theirs.iter().all(|part| missed.contains(part))
        }
        Some(Reach { stands_back: true, .. }) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use maxhost_model::RunId;
    use maxhost_ownership::Roles;

    use super::*;

    const SESSION: Duration = Duration::from_secs(6);

    fn other(name: &str, missed: &[&str]) -> HostInfo {
        let missed = missed.iter().map(|part| (*part).to_owned()).collect();
        HostInfo {
            name: name.into(),
            run: RunId(1),
            free_slots: 10,
            since_ms: 0,
            draining: false,
            roles: Roles::BOTH,
            labels: Default::default(),
            reach: Some(Reach { missed, stands_back: false }),
        }
    }

    /// A host that is looked at when so many seconds have passed, and whose parts have answered at these.
    struct Cut {
        start: Instant,
        reached: Reached,
    }

    impl Cut {
        fn new() -> Cut {
            Cut { start: Instant::now(), reached: Reached::new(SESSION) }
        }

        fn look(&mut self, now: u64, answered: &[(&str, u64)]) {
            let at = |seconds| self.start + Duration::from_secs(seconds);
            let part = |(name, answered): &(&str, u64)| Part {
                name: (*name).to_owned(),
                answered: at(*answered),
                doubted_after: SESSION / 2,
            };
            let parts = answered.iter().map(part).collect();
            self.reached.look(parts, at(now));
        }

        /// After a time without the store.
        fn from_the_store() -> Cut {
            let mut cut = Cut::new();
            cut.look(7, &[("store", 0), ("broker", 7)]);
            cut
        }
    }

    #[test]
    fn a_part_is_missed_before_one_gives_up_for_it_and_until_it_has_answered_for_a_while() {
        let mut cut = Cut::new();
        let well = [other("b", &[])];
        cut.look(2, &[("store", 0), ("broker", 2)]);
        assert!(cut.reached.missed().is_empty());
        cut.look(3, &[("store", 0), ("broker", 3)]);
        assert_eq!(cut.reached.missed(), ["store"]);
        assert!(!cut.reached.stands_back(false, &well), "the others may be cut too, and have not told yet");
        cut.look(6, &[("store", 0), ("broker", 6)]);
        assert!(cut.reached.stands_back(false, &well));
        // It answers, is silent again, and answers for good.
        for (now, answered) in [(9, 9), (12, 9), (13, 13), (16, 16), (18, 18)] {
            cut.look(now, &[("store", answered), ("broker", now)]);
            assert!(cut.reached.stands_back(true, &well), "at {now}");
        }
        cut.look(19, &[("store", 19), ("broker", 19)]);
        assert!(cut.reached.missed().is_empty());
        assert!(!cut.reached.stands_back(true, &well));
    }

    #[test]
    fn a_host_that_was_stopped_is_not_cut() {
        let mut cut = Cut::new();
        cut.look(1, &[("store", 1)]);
        cut.look(20, &[("store", 1)]);
        cut.look(22, &[("store", 1)]);
        assert!(cut.reached.missed().is_empty() && !cut.reached.is_cut());
        cut.look(24, &[("store", 1)]);
        cut.look(26, &[("store", 1)]);
        assert!(cut.reached.is_cut(), "it has had the time to hear something");
        // To be stopped is no answer either.
        for now in [40, 60, 80] {
            cut.look(now, &[("store", 1)]);
            assert_eq!(cut.reached.missed(), ["store"]);
        }
    }

    #[test]
    fn nobody_gives_up_who_is_not_alone() {
        let cut = Cut::from_the_store();
        assert!(cut.reached.is_cut());
        let stands_back = |others: &[HostInfo]| cut.reached.stands_back(false, others);
        assert!(!stands_back(&[]));
        assert!(!stands_back(&[other("b", &["store"])]), "all are cut");
        assert!(!stands_back(&[other("b", &["broker"])]), "each lacks what the other has");
        assert!(stands_back(&[other("b", &["store"]), other("c", &[])]));
    }

    #[test]
    fn who_is_not_able_to_take_over_counts_for_nothing() {
        let cut = Cut::from_the_store();
        let unable = [
            HostInfo { free_slots: 0, ..other("full", &[]) },
            HostInfo { draining: true, ..other("leaving", &[]) },
            HostInfo { roles: Roles { flows: false, rpc: true }, ..other("worker", &[]) },
            HostInfo { reach: None, ..other("of an earlier version", &[]) },
            HostInfo { reach: Some(Reach { missed: Vec::new(), stands_back: true }), ..other("back", &[]) },
        ];
        assert!(!cut.reached.stands_back(false, &unable));
        assert!(cut.reached.stands_back(true, &unable[..1]), "it is full with what it was given");
        assert!(!cut.reached.stands_back(true, &unable[1..]), "nobody does better any more");
    }

    #[test]
    fn one_that_reaches_nothing_gives_up_for_one_that_reaches_something() {
        let mut cut = Cut::new();
        cut.look(7, &[("store", 0), ("broker", 0)]);
        assert!(cut.reached.stands_back(false, &[other("b", &["broker"])]));
        assert!(!cut.reached.stands_back(false, &[other("b", &["store", "broker"])]));
    }
}
