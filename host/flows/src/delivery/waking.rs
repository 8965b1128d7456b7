//! How commands reach an identity, and how one that sleeps is opened for them.

use std::sync::{Arc, OnceLock, Weak};

use maxhost_journal::Initiation;
use maxhost_model::{Code, Problem};
use maxhost_store::StoreError;
use tokio::sync::mpsc;

use crate::base::counters::Counters;
use crate::cluster::candidates::Candidates;
use crate::cluster::host_rules::Fit;
use crate::cluster::membership::Membership;
use crate::flow::offer::{Offer, Runner};
use crate::registry::directory::Directory;
use crate::registry::entry::{ColdState, EntryState, IdentityEntry, MAILBOX};
use crate::registry::message::IdentityCommand;
use crate::registry::timers::Timers;

/// Whoever makes an identity's actor.
pub(crate) trait OpensIdentities: Send + Sync {
    /// Starts the actor of an identity that was cold. It takes its commands from `commands`, to which `mailbox` leads.
    fn open(
        self: Arc<Self>,
        entry: &Arc<IdentityEntry>,
        cold: ColdState,
        mailbox: mpsc::Sender<IdentityCommand>,
        commands: mpsc::Receiver<IdentityCommand>,
    );
}

/// The way to the identities of one host. A command for an identity that sleeps opens it, if this host may hold it.
pub(crate) struct Waking {
    opener: OnceLock<Weak<dyn OpensIdentities>>,
    candidates: Arc<Candidates>,
    directory: Arc<Directory>,
    timers: Arc<Timers>,
    membership: Option<Arc<Membership>>,
    counters: Arc<Counters>,
}

impl Waking {
    pub fn new(
        candidates: Arc<Candidates>,
        directory: Arc<Directory>,
        timers: Arc<Timers>,
        membership: Option<Arc<Membership>>,
        counters: Arc<Counters>,
    ) -> Waking {
        Waking { opener: OnceLock::new(), candidates, directory, timers, membership, counters }
    }

    /// From now on identities that sleep are opened by this one. Only the first counts.
    pub fn set_opener(&self, opener: Weak<dyn OpensIdentities>) {
        let _ = self.opener.set(opener);
    }

    /// Whether somebody else may run this identity: this host does not open it for what comes from elsewhere.
    fn may_be_of_others(&self, entry: &IdentityEntry) -> bool {
        self.membership.is_some() && !entry.is_held()
    }

    /// Whether this host opens no identity, because it runs none or was asked to drain.
    fn takes_nothing(&self) -> bool {
        self.membership.as_ref().is_some_and(|membership| membership.takes_nothing())
    }

    /// Whether this host runs as many identities as it may, so that it opens no other for a request. One that it holds is not
    /// another. For what the ownership service tells, the supervisor looks before.
    fn has_no_room(&self, entry: &IdentityEntry, command: &IdentityCommand) -> bool {
        let Some(membership) = self.membership.as_deref().filter(|_| command.is_request()) else { return false };
        let is_another = !entry.is_held() && entry.mailbox().is_none();
        is_another && membership.free_slots(self.directory.running()) == 0
    }

    /// Whether another host should open the identity for a request, because of what its manifest says of hosts. If none does,
    /// this one is told by the ownership service that it is wanted.
    fn is_for_another(&self, entry: &IdentityEntry, command: &IdentityCommand) -> bool {
        let is_asked = self.membership.is_some() && command.is_request();
        is_asked && !entry.is_held() && entry.mailbox().is_none() && self.candidates.fit_here(entry) != Fit::Best
    }

    /// Puts a command into an identity's mailbox, and opens the identity if it sleeps. What is in the database already is
    /// no reason to open one that this host does not hold: whoever runs it next finds it there.
    pub fn tell(&self, entry: &Arc<IdentityEntry>, command: IdentityCommand) {
        if command.is_in_database() && self.may_be_of_others(entry) && entry.mailbox().is_none() {
            return self.ring(entry);
        }
        let has_no_room = self.has_no_room(entry, &command);
        let is_for_another = self.is_for_another(entry, &command);
        // Only under this lock are commands put in, and only under it does an actor close: so none falls between.
        let mut state = entry.state.lock();
        let refused = match &mut *state {
            EntryState::Active { mailbox, .. } => match mailbox.try_send(command) {
                Ok(()) => None,
                Err(mpsc::error::TrySendError::Full(command) | mpsc::error::TrySendError::Closed(command)) => {
                    match command.mark() {
                        Some(mark) => {
                            entry.marks.set(mark);
                            None
                        }
                        None => {
                            let text = format!("identity {} has {MAILBOX} requests waiting", entry.text);
                            Some((command, Problem::new(Code::Overloaded, text)))
                        }
                    }
                }
            },
            EntryState::Cold(_) if self.takes_nothing() => {
                let text = format!("identity {} is not opened here: this host takes no identities", entry.text);
                Some((command, Problem::new(Code::IdentityDraining, text)))
            }
            EntryState::Cold(_) if has_no_room => {
                let text = format!("identity {} is not opened here: this host has no slot free", entry.text);
                Some((command, Problem::new(Code::IdentityDraining, text)))
            }
            EntryState::Cold(_) if is_for_another => {
                let text = format!("identity {} is not opened here: other hosts suit its manifest better", entry.text);
                Some((command, Problem::new(Code::IdentityDraining, text)))
            }
            EntryState::Cold(cold) => match self.opener.get().and_then(Weak::upgrade) {
                Some(opener) => {
                    let cold = std::mem::take(cold);
                    *state = self.open(&opener, entry, cold, command);
                    None
                }
                None => Some((command, crate::base::error::stopping())),
            },
            EntryState::Quarantined { problem, .. } => {
                Some((command, crate::base::error::quarantined(&entry.text, problem)))
            }
            EntryState::Removed => {
                let text = format!("identity {} is not hosted here any more", entry.text);
                Some((command, Problem::new(Code::IdentityDraining, text)))
            }
        };
        drop(state);
        if let Some((command, problem)) = refused {
            command.refuse(problem);
        }
    }

    fn open(
        &self,
        opener: &Arc<dyn OpensIdentities>,
        entry: &Arc<IdentityEntry>,
        cold: ColdState,
        first: IdentityCommand,
    ) -> EntryState {
        let (mailbox, commands) = mpsc::channel(MAILBOX);
        // The channel is new, so there is room.
        let _ = mailbox.try_send(first);
        self.timers.clear(entry.row);
        opener.clone().open(entry, cold, mailbox.clone(), commands);
        EntryState::Active { mailbox, open: false, draining: false, _actor: self.directory.count_actor() }
    }

    /// Offers an initiation that is not written yet to an identity that is open. An identity that is not, or has no
    /// room, hears of it when it is written.
    pub fn offer(&self, entry: &Arc<IdentityEntry>, id: i64, initiation: Initiation, runner: Runner) {
        let speculation = runner.speculation.clone();
        let command =
            IdentityCommand::Initiation { id, initiation: Box::new(initiation), offer: Some(Offer::new(runner)) };
        // As in `tell`.
        let refused = match &*entry.state.lock() {
            EntryState::Active { mailbox, open: true, draining: false, .. } => {
                mailbox.try_send(command).err().map(mpsc::error::TrySendError::into_inner)
            }
            _ => Some(command),
        };
        if let Some(IdentityCommand::Initiation { id, initiation, offer: Some(offer) }) = refused {
            offer.take();
            if speculation.decline() {
                self.tell(entry, IdentityCommand::Initiation { id, initiation, offer: None });
            }
        }
    }

    /// Opens an identity if it sleeps.
    pub fn wake(&self, entry: &Arc<IdentityEntry>) {
        match self.may_be_of_others(entry) {
            true => self.ring(entry),
            false => self.tell(entry, IdentityCommand::Wake),
        }
    }

    /// There is work for an identity that this host does not hold: somebody has to run it.
    pub fn ring(&self, entry: &Arc<IdentityEntry>) {
        let is_cold = matches!(&*entry.state.lock(), EntryState::Cold(_));
        match (&self.membership, entry.key()) {
            (Some(membership), Some(key)) => membership.ring(key),
            (Some(_), None) => {}
            (None, _) if is_cold => self.tell(entry, IdentityCommand::Wake),
            (None, _) => {}
        }
    }

    /// This host does not own an identity any more, or may not: everything that it does for it ends, and nothing is
    /// repeated.
    pub fn lose(&self, entry: &IdentityEntry, why: &str) {
        if !entry.lose() {
            return;
        }
        tracing::warn!(identity = %entry.text, why, "the identity is not this host's any more");
        self.timers.clear(entry.row);
        if let Some(membership) = &self.membership {
            membership.held_changed();
            // One without an actor may be owned still, as far as the ownership service knows: the sweep gives it back.
            if entry.mailbox().is_none() {
                membership.look_for_work();
            }
        }
    }

    /// A unit was refused. If it carried the claim that this host takes for its own, the identity is another's.
    pub fn note_fenced(&self, error: &StoreError) {
        let StoreError::Fenced { identity, claim, current } = error else { return };
        Counters::add(&self.counters.fenced_units);
        let entry = self.directory.by_row(*identity);
        if let Some(entry) = entry.filter(|entry| entry.author().claim == *claim) {
            self.lose(&entry, "the database has another claim");
            entry.note_claim(*current);
        }
    }
}
