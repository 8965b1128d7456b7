//! Which host serves a demand first, without anybody being asked: every host sees how many slots each has free and
//! comes to the same order by itself.
//!
//! Weighted rendezvous hashing (Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005): each host gets
//! a number from the identity, its own name and its weight; lowest first. Over many identities each host is first in
//! proportion to its free slots.

use std::time::Duration;

use maxhost_model::SecureHash;

/// What each place in the order waits longer than the one before it.
pub const STEP: Duration = Duration::from_millis(25);
/// No host waits longer than this for its place in the order, however many there are.
pub const LONGEST: Duration = Duration::from_millis(500);
/// What the others wait in addition when a host was named that should take the identity over.
pub const TARGET: Duration = Duration::from_secs(2);

/// How long `host` leaves a demand for `identity` to the hosts before it, of all hosts and their free slots. `target`
/// is the host that should serve the demand; it has no effect unless that host is there and has a slot. `None` if
/// `host` has no slot.
#[must_use]
pub fn turn<'a>(
    identity: &SecureHash,
    host: &str,
    hosts: impl IntoIterator<Item = (&'a str, u32)>,
    target: Option<&str>,
) -> Option<Duration> {
    let mut own = None;
    let mut others = Vec::new();
    let mut target_is_there = false;
    for (name, slots) in hosts {
        if slots > 0 {
            let score = score(identity, name, slots);
            target_is_there |= target == Some(name);
            if name == host { own = Some(score) } else { others.push((score, name)) }
        }
    }
    let own = own?;
    if target == Some(host) {
        return Some(Duration::ZERO);
    }
    let before = others.into_iter().filter(|(score, name)| (*score, *name) < (own, host)).count();
    let place = (STEP * u32::try_from(before).unwrap_or(u32::MAX).min(1000)).min(LONGEST);
    Some(if target_is_there { TARGET + place } else { place })
}

/// A number that is exponentially distributed with the weight as its rate, so the least of several is a host's with a
/// probability in proportion to its weight.
fn score(identity: &SecureHash, host: &str, slots: u32) -> f64 {
    let hash = mix(fnv(fnv(0xcbf2_9ce4_8422_2325, identity.as_bytes()), host.as_bytes()));
    // In (0, 1]: never zero, which has no logarithm.
    let uniform = ((hash >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    -uniform.ln() / f64::from(slots)
}

/// FNV-1a over the bytes and a separator: the same on every host, whatever its version.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().chain(&[0xff]).fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finaliser of SplitMix64, because the upper bits of FNV are poor for short inputs.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(n: usize) -> SecureHash {
        SecureHash::of(&n.to_be_bytes())
    }

    #[test]
    fn everybody_comes_to_the_same_order() {
        let hosts = [("a", 10), ("b", 20), ("c", 0), ("d", 5)];
        for n in 0..200 {
            let of = |host| turn(&identity(n), host, hosts, None);
            let mut turns: Vec<_> = hosts.iter().filter_map(|(host, _)| of(host)).collect();
            turns.sort();
            assert_eq!(turns, [Duration::ZERO, STEP, STEP * 2], "{n}");
            assert_eq!(of("c"), None, "no slot, no turn");
        }
    }

    #[test]
    fn the_first_turn_goes_by_free_slots() {
        let hosts = [("small", 10), ("large", 30)];
        let is_first = |n: &usize| turn(&identity(*n), "large", hosts, None) == Some(Duration::ZERO);
        let first = (0..4000).filter(is_first).count();
        assert!((2850..3150).contains(&first), "{first} of 4000 instead of about 3000");
    }

    #[test]
    fn nobody_waits_for_ever() {
        let names: Vec<String> = (0..500).map(|n| format!("host {n}")).collect();
        let hosts = names.iter().map(|name| (name.as_str(), 1));
        let longest = names.iter().filter_map(|name| turn(&identity(7), name, hosts.clone(), None)).max();
        assert_eq!(longest, Some(LONGEST));
    }

    #[test]
    fn a_target_comes_first_if_it_is_there_and_has_room() {
        let hosts = [("a", 10), ("b", 20), ("full", 0)];
        for n in 0..50 {
            let of = |host, target| turn(&identity(n), host, hosts, Some(target));
            assert_eq!(of("a", "a"), Some(Duration::ZERO));
            assert!(of("b", "a") >= Some(TARGET));
            for target in ["full", "gone"] {
                assert!(of("a", target).max(of("b", target)) == Some(STEP), "{target} keeps nobody waiting");
            }
        }
    }
}
