//! Which identities this host knows, and how they are found: by name, row, key or group.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dashmap::DashMap;
use maxhost_cordapps::CordappRef;
use maxhost_model::{Code, IdentityRow, NameQuery, Problem, SecureHash, X500Name};
use parking_lot::Mutex;

use crate::registry::entry::{CountedActor, HeldCount, IdentityEntry};

/// Which identities are of one group.
#[derive(Default)]
struct Groups {
    members: HashMap<Arc<str>, HashSet<IdentityRow>>,
    of: HashMap<IdentityRow, Arc<str>>,
}

impl Groups {
    fn put(&mut self, row: IdentityRow, group: Option<Arc<str>>) {
        if self.of.get(&row) == group.as_ref() {
            return;
        }
        if let Some(before) = self.of.remove(&row)
            && let Some(members) = self.members.get_mut(&before)
        {
            members.remove(&row);
            if members.is_empty() {
                self.members.remove(&before);
            }
        }
        if let Some(group) = group {
            self.members.entry(group.clone()).or_default().insert(row);
            self.of.insert(row, group);
        }
    }
}

/// All identities of this host, by name.
#[derive(Default)]
pub(crate) struct Directory {
    by_name: DashMap<Arc<str>, Arc<IdentityEntry>>,
    by_row: DashMap<IdentityRow, Arc<IdentityEntry>>,
    /// Rows by the fingerprint of the identity's key.
    by_key: DashMap<SecureHash, IdentityRow>,
    /// How many of them are held.
    pub held: HeldCount,
    /// The groups whose identities are to run on different hosts, by name, and the group of each that has one.
    groups: Mutex<Groups>,
    /// How many of them have an actor.
    actors: Arc<AtomicU32>,
    /// Names of identities that the database knows and that are not hosted: their flows are still there.
    absent: DashMap<IdentityRow, Arc<str>>,
    /// The CorDapps that the manifest told last names: most manifests name the same, and share one list.
    cordapps: Mutex<Arc<[CordappRef]>>,
    /// Manifests that name no usable identity, by file.
    pub broken: DashMap<String, (Option<String>, Problem)>,
}

impl Directory {
    pub fn get(&self, name: &str) -> Option<Arc<IdentityEntry>> {
        self.by_name.get(name).map(|entry| entry.value().clone())
    }

    pub fn by_row(&self, row: IdentityRow) -> Option<Arc<IdentityEntry>> {
        self.by_row.get(&row).map(|entry| entry.value().clone())
    }

    /// The identity whose key has this fingerprint.
    pub fn by_key(&self, fingerprint: &SecureHash) -> Option<Arc<IdentityEntry>> {
        let row = *self.by_key.get(fingerprint)?.value();
        self.by_row(row)
    }

    /// Notes which key an identity has. True if that is news.
    pub fn set_key(&self, entry: &IdentityEntry, fingerprint: SecureHash) -> bool {
        let before = entry.note_key(fingerprint);
        if let Some(before) = before.filter(|before| *before != fingerprint) {
            self.by_key.remove(&before);
        }
        self.by_key.insert(fingerprint, entry.row);
        before != Some(fingerprint)
    }

    /// The name of an identity, hosted or not.
    pub fn name_of(&self, row: IdentityRow) -> Option<Arc<str>> {
        let hosted = self.by_row.get(&row).map(|entry| entry.value().text.clone());
        hosted.or_else(|| self.absent.get(&row).map(|name| name.value().clone()))
    }

    /// Takes note of the name of an identity, for as long as it is not hosted.
    pub fn remember(&self, row: IdentityRow, name: &str) {
        if !self.by_row.contains_key(&row) {
            self.absent.insert(row, name.into());
        }
    }

    /// The same CorDapps, in the list that others have too if they are those that were asked for last.
    pub fn shared_cordapps(&self, named: Arc<[CordappRef]>) -> Arc<[CordappRef]> {
        let mut last = self.cordapps.lock();
        if *last != named {
            *last = named;
        }
        last.clone()
    }

    /// Takes note of the group that the manifest of an identity names.
    pub fn note_group(&self, entry: &IdentityEntry) {
        let group = entry.spec.lock().hosts.apart.clone();
        self.groups.lock().put(entry.row, group);
    }

    /// The identities of a group.
    pub fn group(&self, group: &str) -> Vec<Arc<IdentityEntry>> {
        let rows: Vec<IdentityRow> = self.groups.lock().members.get(group).into_iter().flatten().copied().collect();
        rows.into_iter().filter_map(|row| self.by_row(row)).collect()
    }

    pub fn insert(&self, entry: Arc<IdentityEntry>) {
        self.note_group(&entry);
        self.absent.remove(&entry.row);
        self.by_row.insert(entry.row, entry.clone());
        self.by_name.insert(entry.text.clone(), entry);
    }

    pub fn remove(&self, name: &str) -> Option<Arc<IdentityEntry>> {
        let (_, entry) = self.by_name.remove(name)?;
        self.absent.insert(entry.row, entry.text.clone());
        self.groups.lock().put(entry.row, None);
        self.by_row.remove(&entry.row);
        if let Some(key) = entry.key() {
            self.by_key.remove(&key);
        }
        Some(entry)
    }

    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// How many of them this host runs, or is about to. An identity that is held has an actor and the other way round, but for
    /// the time in which it is opened or let go, so the larger of the two numbers counts.
    pub fn running(&self) -> u32 {
        self.held.get().max(self.actors.load(Ordering::Acquire))
    }

    /// Counts the actor of one of them.
    pub fn count_actor(&self) -> CountedActor {
        CountedActor::of(&self.actors)
    }

    /// All of them, in no order.
    pub fn all(&self) -> Vec<Arc<IdentityEntry>> {
        self.by_name.iter().map(|entry| entry.value().clone()).collect()
    }

    /// All that a name or a part of one fits, sorted by name.
    pub fn matching(&self, query: &str) -> Vec<Arc<IdentityEntry>> {
        let query = NameQuery::new(query);
        let mut found: Vec<_> = self
            .by_name
            .iter()
            .filter(|entry| query.matches(&entry.value().name))
            .map(|entry| entry.value().clone())
            .collect();
        found.sort_by(|a, b| a.text.cmp(&b.text));
        found
    }

    /// A manifest that cannot be used, by the name in it or a part of that.
    fn broken_named(&self, query: &str) -> Option<(String, Problem)> {
        let part = query.to_lowercase();
        let mut named = self.broken.iter().filter_map(|broken| {
            let (name, problem) = broken.value();
            name.clone().map(|name| (name, problem.clone()))
        });
        named.find(|(name, _)| name.to_lowercase().contains(&part))
    }

    /// The one identity that a name, or a part that fits exactly one, names.
    ///
    /// # Errors
    /// None fits, or several do: they are listed.
    pub fn resolve(&self, query: &str) -> Result<Arc<IdentityEntry>, Problem> {
        if let Some(entry) = self.get(query) {
            return Ok(entry);
        }
        if let Ok(name) = X500Name::parse(query)
            && let Some(entry) = self.get(name.as_str())
        {
            return Ok(entry);
        }
        let found = self.matching(query);
        match found.as_slice() {
            [entry] => Ok(entry.clone()),
            [] => match self.broken_named(query) {
                Some((name, problem)) => Err(crate::base::error::quarantined(&name, &problem)),
                None => {
                    let text = format!("no identity of this host fits '{query}'");
                    Err(Problem::new(Code::IdentityNotFound, text).detail("identity", query))
                }
            },
            several => {
                let names: Vec<&str> = several.iter().take(10).map(|entry| entry.text.as_ref()).collect();
                let more = if several.len() > 10 { format!(" and {} more", several.len() - 10) } else { String::new() };
                let text = format!("'{query}' fits several identities: {}{more}", names.join("; "));
                Err(Problem::new(Code::IdentityAmbiguous, text).detail("identity", query))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use maxhost_store::UNCLAIMED;
    use tokio::sync::mpsc;

    use super::*;
    use crate::options::{HostRules, IdentitySpec};
    use crate::registry::entry::tests::party;
    use crate::registry::entry::{ColdState, EntryState};

    #[test]
    fn identities_of_one_group_are_found_until_their_manifests_say_otherwise() {
        let directory = Directory::default();
        let of = |group: &str| HostRules { apart: Some(group.into()), ..HostRules::default() };
        let entries = [of("a"), of("a"), of("b"), HostRules::default()];
        let entries: Vec<_> =
            entries.into_iter().zip(1..).map(|(hosts, row)| party(row, hosts, &directory.held)).collect();
        entries.iter().for_each(|entry| directory.insert(entry.clone()));
        let rows = |group: &str| {
            let mut rows: Vec<i64> = directory.group(group).iter().map(|entry| entry.row.0).collect();
            rows.sort_unstable();
            rows
        };
        assert_eq!((rows("a"), rows("b"), rows("c")), (vec![1, 2], vec![3], vec![]));
        let spec = entries[0].spec.lock().as_ref().clone();
        *entries[0].spec.lock() = Arc::new(IdentitySpec { hosts: of("b"), ..spec });
        directory.note_group(&entries[0]);
        assert_eq!((rows("a"), rows("b")), (vec![2], vec![1, 3]));
        directory.remove(&entries[2].text);
        directory.remove(&entries[1].text);
        assert_eq!((rows("a"), rows("b")), (vec![], vec![1]));
    }

    #[test]
    fn what_is_held_is_counted_exactly() {
        let directory = Directory::default();
        let entry = |row| party(row, HostRules::default(), &directory.held);
        let (one, other, key) = (entry(1), entry(2), SecureHash::of(b"a key"));
        one.hold(UNCLAIMED, key, 1);
        // Claimed anew in another session, it is the same identity.
        one.hold(UNCLAIMED, key, 2);
        other.hold(UNCLAIMED, key, 2);
        assert_eq!(directory.held.get(), 2);
        assert_eq!(one.release(), Some(key));
        assert_eq!(one.release(), None);
        assert!(!one.lose(), "it was let go before");
        assert_eq!(directory.held.get(), 1);
        assert!(other.lose() && !other.lose());
        assert_eq!(directory.held.get(), 0);
        one.hold(UNCLAIMED, key, 3);
        assert_eq!(directory.held.get(), 1);
        // One that is being opened takes a place before it is held, and the same one afterwards.
        let active = |entry: &IdentityEntry| {
            let (mailbox, _commands) = mpsc::channel(1);
            let _actor = directory.count_actor();
            *entry.state.lock() = EntryState::Active { mailbox, open: false, draining: false, _actor };
        };
        active(&one);
        assert_eq!(directory.running(), 1);
        active(&other);
        assert_eq!((directory.held.get(), directory.running()), (1, 2));
        other.hold(UNCLAIMED, key, 4);
        assert_eq!(directory.running(), 2);
        *one.state.lock() = EntryState::Cold(ColdState::default());
        assert_eq!(directory.running(), 2, "it is held yet");
        one.release();
        assert_eq!(directory.running(), 1);
        other.release();
        *other.state.lock() = EntryState::Removed;
        assert_eq!(directory.running(), 0);
    }
}
