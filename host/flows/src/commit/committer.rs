//! What units are handed to: the database, and what becomes visible once they are written.

use std::sync::Arc;

use maxhost_model::IdentityRow;
use maxhost_store::Store;

use crate::base::counters::Counters;
use crate::base::rules::{Rule, holds};
use crate::delivery::outbox_notices::OutboxNotices;
use crate::delivery::router::Router;
use crate::delivery::waking::Waking;
use crate::ledger::waits::{LedgerWaits, Recorded};
use crate::registry::directory::Directory;
use crate::registry::message::IdentityCommand;
use crate::reporting::watchers::Watchers;

/// The database that units are handed to, and everybody who is told once a unit is written.
pub(crate) struct Committer {
    pub store: Store,
    pub directory: Arc<Directory>,
    pub router: Router,
    pub waking: Arc<Waking>,
    pub outbox: Arc<OutboxNotices>,
    pub watchers: Arc<Watchers>,
    pub counters: Arc<Counters>,
    pub ledger_waits: LedgerWaits,
    /// Messages between identities of this host go through the broker too.
    pub always_broker: bool,
}

impl Committer {
    /// A unit of this identity is written: its flows that wait for what it has recorded look into the ledger.
    pub fn tell_waiting(&self, identity: IdentityRow, recorded: &Recorded) {
        if recorded.is_empty() || !holds(Rule::RecordedIsTold) {
            return;
        }
        for row in self.ledger_waits.waiting_for(identity, recorded) {
            let is_told = self.router.flows.get(row).is_some_and(|flow| flow.stir());
            if let (false, Some(entry)) = (is_told, self.directory.by_row(identity)) {
                self.waking.tell(&entry, IdentityCommand::News(row));
            }
        }
    }
}
