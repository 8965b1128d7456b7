//! Whose turn it is to serve a demand, without anybody being asked: every host sees how many slots each has free and
//! comes to the same order by itself.
//!
//! Weighted rendezvous hashing: each host gets a number from the identity, its own name and its weight; lowest first.
//! Over many identities each host is first in proportion to its free slots.

use std::time::Duration;

/// What each place in the order waits longer than the one before it.
pub const STEP: Duration = Duration::from_millis(25);
/// No host waits longer than this, however many there are.
pub const LONGEST: Duration = Duration::from_millis(500);

/// How long `host` leaves a demand for `identity` to the hosts before it, of all hosts and their free slots. `None` if
/// it has no slot.
#[must_use]
pub fn turn<'a>(identity: &str, host: &str, hosts: impl IntoIterator<Item = (&'a str, u32)>) -> Option<Duration> {
    let mut own = None;
    let mut others = Vec::new();
    for (name, slots) in hosts {
        if slots > 0 {
            let score = score(identity, name, slots);
            if name == host { own = Some(score) } else { others.push((score, name)) }
        }
    }
    let own = own?;
    let before = others.into_iter().filter(|(score, name)| (*score, *name) < (own, host)).count();
    Some((STEP * u32::try_from(before).unwrap_or(u32::MAX).min(1000)).min(LONGEST))
}

/// Exponentially distributed with the weight as its rate, so the least of several is a host's with a probability in
/// proportion to its weight.
fn score(identity: &str, host: &str, slots: u32) -> f64 {
    let hash = mix(fnv(fnv(0xcbf2_9ce4_8422_2325, identity.as_bytes()), host.as_bytes()));
    // In (0, 1]: never zero, whose logarithm is none.
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

    #[test]
    fn everybody_comes_to_the_same_order() {
        let hosts = [("a", 10), ("b", 20), ("c", 0), ("d", 5)];
        for n in 0..200 {
            let identity = format!("O=Party {n}, L=London, C=GB");
            let mut turns: Vec<_> = hosts.iter().filter_map(|(host, _)| turn(&identity, host, hosts)).collect();
            turns.sort();
            assert_eq!(turns, [Duration::ZERO, STEP, STEP * 2], "{identity}");
            assert_eq!(turn(&identity, "c", hosts), None, "no slot, no turn");
        }
    }

    #[test]
    fn the_first_turn_goes_by_free_slots() {
        let hosts = [("small", 10), ("large", 30)];
        let first =
            (0..4000).filter(|n| turn(&format!("identity {n}"), "large", hosts) == Some(Duration::ZERO)).count();
        assert!((2850..3150).contains(&first), "{first} of 4000 instead of about 3000");
    }

    #[test]
    fn nobody_waits_for_ever() {
        let names: Vec<String> = (0..500).map(|n| format!("host {n}")).collect();
        let hosts = names.iter().map(|name| (name.as_str(), 1));
        let longest = names.iter().filter_map(|name| turn("x", name, hosts.clone())).max();
        assert_eq!(longest, Some(LONGEST));
    }
}
