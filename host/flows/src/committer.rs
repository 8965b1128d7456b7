//! What units are handed to: the database, and what becomes visible once they are written.

use std::sync::Arc;

use maxhost_store::Store;

use crate::counters::Counters;
use crate::outbox_notices::OutboxNotices;
use crate::registry::Directory;
use crate::router::Router;
use crate::waking::Waking;
use crate::watchers::Watchers;

/// The database that units are handed to, and everybody who is told once a unit is written.
pub(crate) struct Committer {
    pub store: Store,
    pub directory: Arc<Directory>,
    pub router: Router,
    pub waking: Arc<Waking>,
    pub outbox: Arc<OutboxNotices>,
    pub watchers: Arc<Watchers>,
    pub counters: Arc<Counters>,
    /// Messages between identities of this host go through the broker too.
    pub always_broker: bool,
}
