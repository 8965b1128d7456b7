//! Which hosts may run an identity, and which of them suit it: what its manifest says of hosts, held against the hosts that there
//! are. Nothing here is waited for, so the answer is as old as what it is given.

use maxhost_ownership::HostInfo;

use crate::options::HostRules;

/// How badly a host suits an identity that it may run: less is better. To be apart from others of the group counts for more than
/// to be on a host that is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Misfit {
    /// Other identities of its group on that host.
    pub companions: u32,
    /// There are hosts that are preferred, and this is none of them.
    pub is_not_preferred: bool,
}

/// Whether a host should run an identity, as things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// No other host that has room suits it better.
    Best,
    /// One does.
    Lesser,
    /// It may not run here.
    Never,
}

/// Whether a host runs identities at all, and was not asked to give them up.
pub(crate) fn takes_identities(host: &HostInfo) -> bool {
    host.roles.flows && !host.draining && !host.reach.as_ref().is_some_and(|reach| reach.stands_back)
}

/// Whether a host takes one more. One that does not reach all that hosts share is given none.
pub(crate) fn has_room(host: &HostInfo) -> bool {
    let misses_something = host.reach.as_ref().is_some_and(|reach| !reach.missed.is_empty());
    takes_identities(host) && host.free_slots > 0 && !misses_something
}

/// Whether a word is the name of a host or one of its labels.
fn names(word: &str, host: &HostInfo) -> bool {
    *word == *host.name || host.labels.iter().any(|label| **label == *word)
}

/// Whether a host may run an identity, whether or not it has room.
pub(crate) fn may_run(rules: &HostRules, host: &HostInfo) -> bool {
    rules.only.is_empty() || rules.only.iter().any(|word| names(word, host))
}

/// How badly a host suits an identity, if so many others of its group are there.
pub(crate) fn misfit(rules: &HostRules, host: &HostInfo, companions: u32) -> Misfit {
    let is_preferred = rules.prefer.is_empty() || rules.prefer.iter().any(|word| names(word, host));
    Misfit { companions, is_not_preferred: !is_preferred }
}

/// Whether this host should run an identity, of all these, which include it. `companions` tells how many others of the group a
/// host of some name has.
pub(crate) fn fit(rules: &HostRules, us: &str, hosts: &[HostInfo], companions: impl Fn(&str) -> u32) -> Fit {
    if rules.is_empty() {
        return Fit::Best;
    }
    let Some(own) = hosts.iter().find(|host| *host.name == *us) else {
        // Its labels are not known.
        let is_named = rules.only.is_empty() || rules.only.iter().any(|word| **word == *us);
        return if is_named { Fit::Best } else { Fit::Never };
    };
    if !may_run(rules, own) {
        return Fit::Never;
    }
    let misfit_of = |host: &HostInfo| misfit(rules, host, companions(&host.name));
    let ours = misfit_of(own);
    let mut others = hosts.iter().filter(|host| *host.name != *us && has_room(host) && may_run(rules, host));
    if others.any(|host| misfit_of(host) < ours) { Fit::Lesser } else { Fit::Best }
}

/// Why nobody may run an identity now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unplaced {
    /// In words.
    pub reason: String,
    /// None of the hosts that may run it takes identities, though others do. Otherwise they take some and have no room, or no
    /// host runs identities at all.
    pub is_refused: bool,
}

/// Why nobody may run an identity now, if a manifest pins it to hosts of which none has room; `None` if one has.
pub(crate) fn unplaced(rules: &HostRules, hosts: &[HostInfo]) -> Option<Unplaced> {
    let may: Vec<&HostInfo> = hosts.iter().filter(|host| host.roles.flows && may_run(rules, host)).collect();
    if rules.only.is_empty() || may.iter().any(|host| has_room(host)) {
        return None;
    }
    let named = rules.only.join(", ");
    let takes = may.iter().any(|host| takes_identities(host));
    let why = |host: &&HostInfo| {
        let why = match host {
            host if host.draining => "gives up what it runs",
            host if !takes_identities(host) => "stands back",
            host if host.free_slots == 0 => "has no slot free",
            _ => "does not reach all that hosts share",
        };
        format!("{} {why}", host.name)
    };
    let state = match may.is_empty() {
        true => "no host of that name or label is in the cluster".to_owned(),
        false => may.iter().map(why).collect::<Vec<_>>().join(", "),
    };
    let is_refused = !takes && hosts.iter().any(takes_identities);
    Some(Unplaced { reason: format!("its manifest lets it run on {named} only: {state}"), is_refused })
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use maxhost_model::RunId;
    use maxhost_ownership::{Reach, Roles};

    use super::*;

    /// A host that runs flows and has so many slots free.
    pub(crate) fn host(name: &str, free_slots: u32) -> HostInfo {
        HostInfo {
            name: name.into(),
            run: RunId(1),
            free_slots,
            since_ms: 0,
            draining: false,
            roles: Roles::BOTH,
            labels: Arc::default(),
            reach: Some(Reach::default()),
        }
    }

    pub(crate) fn rules(only: &[&str], prefer: &[&str], apart: Option<&str>) -> HostRules {
        let words = |words: &[&str]| words.iter().map(|word| Arc::from(*word)).collect();
        HostRules { only: words(only), prefer: words(prefer), apart: apart.map(Arc::from) }
    }

    fn labelled(name: &str, label: &str) -> HostInfo {
        HostInfo { labels: [Arc::from(label)].into(), ..host(name, 5) }
    }

    #[test]
    fn who_is_named_neither_by_name_nor_by_label_never_runs_a_pinned_identity() {
        let hosts = [host("a", 5), labelled("b", "hsm"), host("c", 5)];
        let of = |us: &str, rules: &HostRules| fit(rules, us, &hosts, |_| 0);
        let pinned = rules(&["a", "hsm"], &[], None);
        assert_eq!(["a", "b", "c", "gone"].map(|us| of(us, &pinned)), [Fit::Best, Fit::Best, Fit::Never, Fit::Never]);
        assert_eq!(of("c", &rules(&[], &[], None)), Fit::Best);
        // Also if those that may have no room: it is no wish.
        let full = [host("a", 0), host("c", 5)];
        assert_eq!(fit(&pinned, "c", &full, |_| 0), Fit::Never);
    }

    #[test]
    fn a_wish_counts_while_the_host_is_there_and_has_room() {
        let wishes = rules(&[], &["a"], None);
        let hosts = |a: HostInfo| [a, host("b", 5)];
        assert_eq!(fit(&wishes, "b", &hosts(host("a", 1)), |_| 0), Fit::Lesser);
        assert_eq!(fit(&wishes, "a", &hosts(host("a", 1)), |_| 0), Fit::Best);
        let unable = [
            host("a", 0),
            host("another", 5),
            HostInfo { draining: true, ..host("a", 5) },
            HostInfo { roles: Roles { flows: false, rpc: true }, ..host("a", 5) },
            HostInfo { reach: Some(Reach { missed: vec!["store".to_owned()], stands_back: false }), ..host("a", 5) },
            HostInfo { reach: Some(Reach { missed: Vec::new(), stands_back: true }), ..host("a", 5) },
        ];
        for a in unable {
            assert_eq!(fit(&wishes, "b", &hosts(a.clone()), |_| 0), Fit::Best, "{a:?}");
        }
    }

    #[test]
    fn a_group_is_apart_before_wishes_are_granted() {
        let group = rules(&[], &["a"], Some("signers"));
        let hosts = [host("a", 5), host("b", 5), host("c", 5)];
        let of = |us: &str, a: u32, b: u32, c: u32| {
            fit(&group, us, &hosts, |name| match name {
                "a" => a,
                "b" => b,
                _ => c,
            })
        };
        assert_eq!(["a", "b"].map(|us| of(us, 0, 0, 0)), [Fit::Best, Fit::Lesser]);
        assert_eq!(["a", "b", "c"].map(|us| of(us, 1, 0, 0)), [Fit::Lesser, Fit::Best, Fit::Best]);
        assert_eq!(["a", "b", "c"].map(|us| of(us, 1, 1, 1)), [Fit::Best, Fit::Lesser, Fit::Lesser]);
        // A single host runs all of them.
        assert_eq!(fit(&group, "b", &[host("b", 5)], |_| 3), Fit::Best);
    }

    #[test]
    fn why_nobody_may_run_a_pinned_identity_is_told() {
        let pinned = rules(&["max-9", "hsm"], &[], None);
        let of = |hosts: &[HostInfo]| unplaced(&pinned, hosts);
        assert_eq!(of(&[host("a", 5), labelled("b", "hsm")]), None);
        assert_eq!(unplaced(&rules(&[], &["max-9"], None), &[]), None);
        let told = of(&[host("a", 5)]).unwrap();
        assert!(told.is_refused, "{told:?}");
        assert_eq!(
            told.reason,
            "its manifest lets it run on max-9, hsm only: no host of that name or label is in the cluster"
        );
        // Before any host is there one of those that may run it can still come: whoever asks waits for it.
        assert!(!of(&[]).unwrap().is_refused);
        let full = of(&[host("a", 5), host("max-9", 0)]).unwrap();
        assert!(!full.is_refused && full.reason.ends_with(": max-9 has no slot free"), "{full:?}");
        let leaving = of(&[host("a", 5), HostInfo { draining: true, ..labelled("b", "hsm") }]).unwrap();
        assert!(leaving.is_refused && leaving.reason.ends_with(": b gives up what it runs"), "{leaving:?}");
    }
}
