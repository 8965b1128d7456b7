//! Wrong logins, counted by name and by address: after some that are free each further one must wait longer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use maxhost_model::{Code, Problem};
use parking_lot::Mutex;

/// Most logins that are remembered, and most names and addresses whose wrong ones are counted.
const MOST_REMEMBERED: usize = 4_096;
/// Wrong logins that cost no delay: of one name, and from one address.
pub(crate) const FREE_BY_NAME: u32 = 3;
pub(crate) const FREE_BY_ADDRESS: u32 = 10;
/// The first delay, which doubles with each further wrong login, and the longest.
pub(crate) const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(300);
/// After so long without a wrong login all is forgotten.
pub(crate) const FORGOTTEN: Duration = Duration::from_secs(900);

/// Tells the time. It is asked while what is counted is locked, so that no try is earlier than one that was counted before it.
pub(crate) type Now = dyn Fn() -> Instant + Send + Sync;

/// Whose wrong logins are counted.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    Name(String),
    Address(IpAddr),
}

#[derive(Clone, Copy)]
struct Wrong {
    times: u32,
    last: Instant,
}

/// A try that is counted as wrong until it is known to be right.
pub(crate) struct Counted {
    subject: Subject,
    at: Instant,
    /// When the one before it was counted.
    before: Option<Instant>,
}

/// The wrong logins of names and addresses.
#[derive(Default)]
pub(crate) struct WrongLogins {
    counted: Mutex<HashMap<Subject, Wrong>>,
}

impl Subject {
    fn free(&self) -> u32 {
        match self {
            Subject::Name(_) => FREE_BY_NAME,
            Subject::Address(_) => FREE_BY_ADDRESS,
        }
    }
}

impl Wrong {
    /// Until when the next try has to wait.
    fn until(&self, free: u32) -> Instant {
        match self.times.checked_sub(free) {
            None => self.last,
            Some(beyond) => {
                let delay = FIRST_DELAY.saturating_mul(1_u32.checked_shl(beyond).unwrap_or(u32::MAX));
                self.last + delay.min(LONGEST_DELAY)
            }
        }
    }
}

impl WrongLogins {
    /// Refuses a try that comes too soon after wrong ones.
    pub(crate) fn may_try(&self, subjects: &[Subject], now: &Now) -> Result<(), Problem> {
        delay(&self.counted.lock(), subjects, now())
    }

    /// Counts a try as wrong before its password is looked at, so that of many tries at once none passes a delay that those
    /// before it have earned, and one that is given up stays counted. A right one is taken back.
    pub(crate) fn count(&self, subjects: Vec<Subject>, now: &Now) -> Result<Vec<Counted>, Problem> {
        let mut wrong = self.counted.lock();
        let now = now();
        delay(&wrong, &subjects, now)?;
        let counted = subjects.into_iter().map(|subject| {
            let before = wrong.get(&subject).filter(|was| now.duration_since(was.last) < FORGOTTEN).copied();
            let times = before.map_or(0, |was| was.times).saturating_add(1);
            remember(&mut wrong, subject.clone(), Wrong { times, last: now }, |was| {
                now.duration_since(was.last) < FORGOTTEN
            });
            Counted { subject, at: now, before: before.map(|was| was.last) }
        });
        Ok(counted.collect())
    }

    /// The try was right: nothing under the user's name counts any more. Others from his address may have guessed at other
    /// names, so of the address only this try is forgotten.
    pub(crate) fn take_back(&self, counted: Vec<Counted>) {
        let mut wrong = self.counted.lock();
        for Counted { subject, at, before } in counted {
            let Some(was) = wrong.get_mut(&subject) else { continue };
            was.times = was.times.saturating_sub(1);
            match (&subject, before) {
                (Subject::Address(_), Some(before)) if was.last == at => was.last = before,
                (Subject::Address(_), _) if was.times > 0 => (),
                _ => drop(wrong.remove(&subject)),
            }
        }
    }
}

fn delay(wrong: &HashMap<Subject, Wrong>, subjects: &[Subject], now: Instant) -> Result<(), Problem> {
    let until = subjects.iter().filter_map(|subject| Some(wrong.get(subject)?.until(subject.free()))).max();
    match until {
        Some(until) if until > now => {
            let wait = until - now;
            Err(Problem::new(
                Code::LoginDelayed,
                format!("too many wrong logins: try again in {} s", wait.as_secs() + 1),
            )
            .detail("retry_after_ms", wait.as_millis().to_string()))
        }
        _ => Ok(()),
    }
}

/// Keeps an entry, and no more than there is room for: those that count no longer go first, then any.
pub(crate) fn remember<K: Clone + Eq + std::hash::Hash, V>(
    map: &mut HashMap<K, V>,
    key: K,
    value: V,
    counts: impl Fn(&V) -> bool,
) {
    if map.len() >= MOST_REMEMBERED && !map.contains_key(&key) {
        map.retain(|_, value| counts(value));
        if map.len() >= MOST_REMEMBERED
            && let Some(any) = map.keys().next().cloned()
        {
            map.remove(&any);
        }
    }
    map.insert(key, value);
}
