//! When identities in quarantine are looked at again. What an identity lacks is found out by opening its keys, which costs far
//! more than looking whether any of their files has changed; so the keys are opened again when one has, and else less and
//! less often, for what passes with time.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use maxhost_model::IdentityRow;

use crate::base::clock::Moment;

/// So many identities are looked at at once; the others have their turn at the next looks.
pub(crate) const AT_ONCE: usize = 256;
/// So soon keys of which no file has changed are opened again at first. The pause doubles, up to the longest.
const FIRST: Duration = Duration::from_secs(4);
const LONGEST: Duration = Duration::from_secs(300);
/// Files of a folder that are looked at, at most.
const FILES: usize = 64;

/// What a folder of keys looks like from outside: another value whenever one of its files was written, replaced, added, removed,
/// or given other permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyStamp(u64);

impl KeyStamp {
    /// Of this folder. Blocking. One that cannot be read has a stamp too.
    pub fn of(folder: &Path) -> KeyStamp {
        let stamp = |path: &Path| {
            let known = fs::metadata(path).map_err(|error| error.kind());
            known.map(|known| (known.ino(), known.len(), known.mode(), known.ctime(), known.ctime_nsec()))
        };
        let mut hasher = DefaultHasher::new();
        stamp(folder).hash(&mut hasher);
        let files = fs::read_dir(folder).into_iter().flatten().take(FILES);
        let mut files: Vec<_> = files.flatten().map(|file| file.path()).collect();
        files.sort();
        for file in files {
            (stamp(&file), file).hash(&mut hasher);
        }
        KeyStamp(hasher.finish())
    }
}

/// The identities whose keys could not be used.
#[derive(Debug, Default)]
pub(crate) struct Readmission {
    tried: HashMap<IdentityRow, Tried>,
    /// The last one that was looked at.
    last: Option<IdentityRow>,
}

#[derive(Debug, Clone, Copy)]
struct Tried {
    stamp: KeyStamp,
    again: Moment,
    pause: Duration,
}

impl Readmission {
    /// Whose turn it is of those that are in quarantine: [`AT_ONCE`] at most, each once before any comes again. Forgets all
    /// others.
    pub fn turn(&mut self, mut quarantined: Vec<IdentityRow>) -> Vec<IdentityRow> {
        let known: HashSet<IdentityRow> = quarantined.iter().copied().collect();
        self.tried.retain(|row, _| known.contains(row));
        quarantined.sort_unstable();
        let behind = self.last.map_or(0, |last| quarantined.partition_point(|row| *row <= last));
        quarantined.rotate_left(behind);
        quarantined.truncate(AT_ONCE);
        self.last = quarantined.last().copied();
        quarantined
    }

    /// Whether the keys of an identity, which look like this, are to be opened again.
    pub fn is_due(&self, identity: IdentityRow, stamp: KeyStamp, now: Moment) -> bool {
        self.tried.get(&identity).is_none_or(|tried| tried.stamp != stamp || tried.again <= now)
    }

    /// They were opened, and the identity is still in quarantine, unless it is in it no more at the next look.
    pub fn failed(&mut self, identity: IdentityRow, stamp: KeyStamp, now: Moment) {
        let before = self.tried.get(&identity).filter(|before| before.stamp == stamp);
        let pause = before.map_or(FIRST, |before| (before.pause * 2).min(LONGEST));
        self.tried.insert(identity, Tried { stamp, again: now + pause, pause });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ALICE: IdentityRow = IdentityRow(1);

    fn at(seconds: u64) -> Moment {
        Moment::new(Duration::from_secs(seconds))
    }

    #[test]
    fn keys_of_which_no_file_has_changed_are_opened_less_and_less_often() {
        let (mut readmission, same) = (Readmission::default(), KeyStamp(1));
        // Looked at every two seconds for an hour.
        let opened = (0..1_800).filter(|look| {
            let now = at(look * 2);
            let due = readmission.is_due(ALICE, same, now);
            if due {
                readmission.failed(ALICE, same, now);
            }
            due
        });
        let opened: Vec<u64> = opened.collect();
        assert_eq!(opened[..4], [0, 2, 6, 14], "in looks");
        assert!(opened.len() < 25, "{opened:?}");
        assert!(!readmission.is_due(ALICE, same, at(3_601)));
        assert!(readmission.is_due(ALICE, KeyStamp(2), at(3_601)), "a file has changed");
        readmission.failed(ALICE, KeyStamp(2), at(3_601));
        assert!(readmission.is_due(ALICE, KeyStamp(2), at(3_605)), "and the pause begins anew");
    }

    #[test]
    fn a_few_are_looked_at_at_once_and_all_in_turn() {
        let mut readmission = Readmission::default();
        let all: Vec<IdentityRow> = (0..1_000).map(IdentityRow).collect();
        let mut seen = HashSet::new();
        for _ in 0..4 {
            let turn = readmission.turn(all.clone());
            assert!(turn.len() <= AT_ONCE);
            turn.iter().for_each(|row| readmission.failed(*row, KeyStamp(1), at(0)));
            seen.extend(turn);
        }
        assert_eq!(seen.len(), 1_000);
        assert_eq!(readmission.turn(vec![IdentityRow(7)]), [IdentityRow(7)]);
        assert_eq!(readmission.tried.len(), 1, "whoever is out of quarantine is forgotten");
        assert!(readmission.turn(Vec::new()).is_empty() && readmission.tried.is_empty());
    }

    #[test]
    fn whatever_changes_in_a_folder_of_keys_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("alice");
        let mut stamps = vec![KeyStamp::of(&keys)];
        fs::create_dir(&keys).unwrap();
        stamps.push(KeyStamp::of(&keys));
        fs::write(keys.join("identity.key"), "a").unwrap();
        stamps.push(KeyStamp::of(&keys));
        assert_eq!(stamps.last(), Some(&KeyStamp::of(&keys)), "nothing has changed");
        fs::write(keys.join("identity.key"), "bc").unwrap();
        stamps.push(KeyStamp::of(&keys));
        fs::set_permissions(keys.join("identity.key"), fs::Permissions::from_mode(0o400)).unwrap();
        stamps.push(KeyStamp::of(&keys));
        fs::remove_file(keys.join("identity.key")).unwrap();
        stamps.push(KeyStamp::of(&keys));
        for (index, stamp) in stamps.iter().enumerate() {
            assert!(!stamps[..index].contains(stamp), "{stamps:?}");
        }
    }
}
