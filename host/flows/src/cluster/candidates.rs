//! Which host should run an identity, as the hosts are now: what its manifest says of them ([`crate::cluster::host_rules`]) and who runs
//! what, from this host's own copies. They may be behind, so this says who tries, never who may write.

use std::collections::HashMap;
use std::sync::Arc;

use maxhost_model::{Code, Problem};
use maxhost_ownership::{Ownedness, Ownership};

use crate::cluster::host_rules::{self, Fit, Unplaced};
use crate::options::HostRules;
use crate::registry::directory::Directory;
use crate::registry::entry::IdentityEntry;

/// The hosts that may run the identities of a directory.
pub(crate) struct Candidates {
    directory: Arc<Directory>,
    ownership: Arc<dyn Ownership>,
}

impl Candidates {
    pub fn new(directory: Arc<Directory>, ownership: Arc<dyn Ownership>) -> Candidates {
        Candidates { directory, ownership }
    }

    /// Whether this host should run an identity. While it knows of no hosts it tries: then nobody is given anything.
    pub fn fit_here(&self, entry: &IdentityEntry) -> Fit {
        let rules = entry.spec.lock().hosts.clone();
        if rules.is_empty() {
            return Fit::Best;
        }
        let Some(hosts) = self.ownership.known_hosts() else { return Fit::Best };
        let companions = self.companions(entry, &rules);
        let of = |host: &str| companions.get(host).copied().unwrap_or(0);
        host_rules::fit(&rules, self.ownership.host(), &hosts, of)
    }

    /// How many others of its group are on each host. Those that this host is about to open count too.
    fn companions(&self, entry: &IdentityEntry, rules: &HostRules) -> HashMap<Arc<str>, u32> {
        let mut companions: HashMap<Arc<str>, u32> = HashMap::new();
        let Some(group) = &rules.apart else { return companions };
        for other in self.directory.group(group).iter().filter(|other| other.row != entry.row) {
            let owner = match other.key().map(|key| self.ownership.owner_of(&key)) {
                Some(Ownedness::Owned(owner)) => Some(owner.host),
                Some(Ownedness::Free | Ownedness::Unknown) | None => {
                    other.mailbox().map(|_| Arc::from(self.ownership.host()))
                }
            };
            owner.into_iter().for_each(|host| *companions.entry(host).or_default() += 1);
        }
        companions
    }

    /// Why nobody may run an identity now; `None` if somebody does, or could, or nothing is known of hosts.
    pub fn unplaced(&self, entry: &IdentityEntry) -> Option<Unplaced> {
        let rules = entry.spec.lock().hosts.clone();
        if rules.only.is_empty() {
            return None;
        }
        match entry.key().map(|key| self.ownership.owner_of(&key)) {
            Some(Ownedness::Owned(_)) => None,
            Some(Ownedness::Free | Ownedness::Unknown) | None => {
                host_rules::unplaced(&rules, &self.ownership.known_hosts()?)
            }
        }
    }

    /// Refuses what nobody could do, though there are hosts: none of those that may run the identity takes identities.
    ///
    /// # Errors
    /// `identity-pinned`.
    pub fn check_placed(&self, entry: &IdentityEntry) -> Result<(), Problem> {
        match self.unplaced(entry) {
            Some(Unplaced { reason, is_refused: true }) => {
                let text = format!("nobody runs {}, and nothing was begun: {reason}", entry.text);
                Err(Problem::new(Code::IdentityPinned, text).detail("identity", &*entry.text))
            }
            Some(Unplaced { is_refused: false, .. }) | None => Ok(()),
        }
    }
}
