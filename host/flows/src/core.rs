//! What all identities of a host share: database, code, network, slots, and the way a message takes from a commit to
//! its recipient.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use maxhost_broker::Broker;
use maxhost_cordapps::Catalogue;
use maxhost_journal::{FrameBatch, Initiation, Limits, Millis, Nanos};
use maxhost_model::{Code, FlowId, FlowRow, Problem, SecureHash, SessionId, X500Name};
use maxhost_ownership::{Ownedness, Ownership};
use maxhost_pki::{KeyVault, NetworkMap, OpenIdentity};
use maxhost_store::{Author, Claim, Store, StoreError};
use tokio::sync::{Notify, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use crate::activation::GuestCode;
use crate::admission::Slots;
use crate::clock::Clock;
use crate::deadlines::Deadlines;
use crate::guest_threads::GuestThreads;
use crate::identity::Actor;
use crate::membership::Membership;
use crate::memory::GuestMemory;
use crate::message::IdentityCommand;
use crate::offer::{Offer, Runner};
use crate::options::{HostOptions, IdentityLimits, OperatorEvent};
use crate::outcomes::RecentOutcomes;
use crate::placement::{CordappSet, CpuProfile, IoShare};
use crate::registry::{ColdState, Directory, EntryState, IdentityEntry, MAILBOX};
use crate::relay::notices::{OutboxNotices, QueueNotices};
use crate::running_flow::{Arrival, RunningFlow};
use crate::spawner::Spawner;
use crate::trouble::Trouble;
use crate::watchers::Watchers;

/// Counted since the start of the host.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub started: AtomicU64,
    pub completed: AtomicU64,
    pub failed: AtomicU64,
    pub killed: AtomicU64,
    /// Waits, starts and ends that were made durable.
    pub steps: AtomicU64,
    pub evictions: AtomicU64,
    pub replays: AtomicU64,
    pub shadow_replays: AtomicU64,
    pub hospital: AtomicU64,
}

impl Counters {
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// See the module.
pub(crate) struct Core {
    pub options: HostOptions,
    pub store: Store,
    pub broker: Arc<dyn Broker>,
    pub ownership: Arc<dyn Ownership>,
    /// Its part in a cluster; `None` for a host that is alone.
    pub membership: Option<Membership>,
    pub catalogue: Arc<Catalogue<CpuProfile>>,
    pub directory: Directory,
    /// Flows in memory.
    pub ports: DashMap<FlowRow, Arc<RunningFlow>>,
    pub network: Arc<NetworkMap>,
    pub vault: Arc<KeyVault>,
    /// How the keys of an identity are opened.
    pub keys: Arc<dyn IdentityKeys>,
    /// What runs the code of flows.
    pub code: GuestCode,
    pub outcomes: RecentOutcomes,
    pub watchers: Watchers,
    pub slots: Slots,
    /// Linear memory of the guests.
    pub memory: GuestMemory,
    /// Threads for guests that compute.
    pub guests: GuestThreads,
    /// What identities compute on the other threads.
    pub io_share: IoShare,
    /// Threads for everything else.
    pub io: Spawner,
    pub events: broadcast::Sender<OperatorEvent>,
    pub counters: Counters,
    pub stopping: CancellationToken,
    /// What was put into the outbox.
    pub outbox: OutboxNotices,
    /// Whose queues are to be looked into.
    pub queues: QueueNotices,
    pub timers: crate::timers::Timers,
    /// Rings when installed components came or went.
    pub components_changed: Notify,
    pub clock: Arc<dyn Clock>,
    pub deadlines: Deadlines,
    /// The unit of a guest's computing budget.
    pub tick: Duration,
}

/// How the keys of an identity are opened.
pub(crate) trait IdentityKeys: Send + Sync {
    /// Opens them. Reads a few files on the calling thread.
    ///
    /// # Errors
    /// A key or a certificate cannot be read, or does not hold.
    fn open(&self, entry: &IdentityEntry) -> Result<Arc<OpenIdentity>, Problem>;
}

/// Keys that are sealed in the folder that an identity's manifest names.
pub(crate) struct SealedKeys {
    pub vault: Arc<KeyVault>,
    pub network: Arc<NetworkMap>,
}

impl IdentityKeys for SealedKeys {
    fn open(&self, entry: &IdentityEntry) -> Result<Arc<OpenIdentity>, Problem> {
        let (spec, now) = (entry.spec.lock().clone(), std::time::SystemTime::now());
        let trust = self.network.trust_root();
        OpenIdentity::open(&self.vault, &spec.keys, &entry.name, trust, now).map(Arc::new).map_err(Problem::from)
    }
}

/// An identity whose keys, CorDapps and claim are in memory. Authority comes from here, never from a guest.
pub(crate) struct Opened {
    pub entry: Arc<IdentityEntry>,
    pub keys: Arc<OpenIdentity>,
    pub cordapps: Arc<CordappSet>,
    /// The claim that all work begins under while it is open so.
    pub claim: Claim,
    pub limits: IdentityLimits,
}

impl Opened {
    /// The identity as one who writes under this claim.
    pub fn author(&self) -> Author {
        Author { identity: self.entry.row, claim: self.claim }
    }
}

impl Core {
    /// Nanoseconds since 1970 UTC.
    pub fn now(&self) -> Nanos {
        self.clock.wall()
    }

    /// Milliseconds since 1970 UTC.
    pub fn now_millis(&self) -> Millis {
        crate::clock::wall_millis(&*self.clock)
    }

    /// What somebody is told whose request was dropped without an answer.
    pub fn unanswered(&self) -> Problem {
        if self.stopping.is_cancelled() {
            return crate::error::stopping();
        }
        Problem::new(
            Code::Internal,
            "the host met a defect before anything of the request was written: its log says more",
        )
    }

    pub fn journal_limits(&self) -> Limits {
        let message = self.network.parameters().max_message_size;
        Limits {
            entries: self.options.journal_entries,
            bytes: self.options.journal_bytes,
            message: usize::try_from(message).unwrap_or(usize::MAX),
            ..Limits::default()
        }
    }

    pub fn emit(&self, event: OperatorEvent) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }

    /// Says that an identity cannot be hosted, and why: in the log, where no line is lost, and among the events.
    pub fn tell_quarantined(&self, identity: &str, problem: &Problem) {
        tracing::warn!(identity, code = %problem.code, reason = problem.message, "identity quarantined");
        self.emit(OperatorEvent::IdentityQuarantined {
            identity: identity.to_owned(),
            code: problem.code.to_string(),
            reason: problem.message.clone(),
        });
    }

    /// A party by its canonical name: hosted here, or known to the network.
    ///
    /// # Errors
    /// What the network says of it cannot be read now, or is not valid.
    pub fn party(&self, name: &X500Name) -> Result<Option<maxhost_model::Party>, Trouble> {
        match self.network.party(name) {
            Ok(found) => Ok(found.map(|verified| verified.party)),
            Err(error) if error.is_retriable() => Err(Trouble::Passing(error.into())),
            Err(error) => Err(Trouble::Permanent(error.into())),
        }
    }

    /// The verified parties whose name fits, sorted by name. Blocking.
    pub fn parties(&self, fits: impl Fn(&X500Name) -> bool) -> Vec<maxhost_pki::VerifiedParty> {
        self.network.matching(fits, |name, error| {
            tracing::warn!(%name, %error, "a party is not on the map: what its node published does not verify");
        })
    }

    /// Brings a batch that is in the database to the flow it is for. If the flow has ended meanwhile, nobody will look
    /// into its inbox: whoever confirmed a session to it is told.
    pub fn route_batch(self: &Arc<Core>, to: &Arc<IdentityEntry>, session: SessionId, seq: u32, batch: FrameBatch) {
        let row = session.flow();
        let port = self.ports.get(&row).map(|port| port.value().clone());
        let arrival = Arrival { session: session.index(), seq, batch, runner: None };
        let arrival = match port {
            Some(port) => match port.push(arrival) {
                Ok(()) => return,
                Err(arrival) => arrival,
            },
            None => arrival,
        };
        self.tell(to, IdentityCommand::News(row));
        crate::late_confirm::undelivered(self, to, session, &arrival.batch);
    }

    /// Whether somebody else may run this identity: this host does not open it for what comes from elsewhere.
    fn may_be_of_others(&self, entry: &IdentityEntry) -> bool {
        self.membership.is_some() && !entry.is_held()
    }

    /// Puts a command into an identity's mailbox, and opens the identity if it sleeps. What is in the database already is
    /// no reason to open one that this host does not hold: whoever runs it next finds it there.
    pub fn tell(self: &Arc<Core>, entry: &Arc<IdentityEntry>, command: IdentityCommand) {
        if command.is_in_database() && self.may_be_of_others(entry) && entry.mailbox().is_none() {
            return self.ring(entry);
        }
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
            EntryState::Cold(cold) => {
                let cold = std::mem::take(cold);
                *state = self.open(entry, cold, command);
                None
            }
            EntryState::Quarantined { problem, .. } => Some((command, crate::error::quarantined(&entry.text, problem))),
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

    /// Offers an initiation that is not written yet to an identity that is open. An identity that is not, or has no
    /// room, hears of it when it is written.
    pub fn offer(self: &Arc<Core>, entry: &Arc<IdentityEntry>, id: i64, initiation: Initiation, runner: Runner) {
        let speculation = runner.speculation.clone();
        let command =
            IdentityCommand::Initiation { id, initiation: Box::new(initiation), offer: Some(Offer::new(runner)) };
        // As in `tell`.
        let refused = match &*entry.state.lock() {
            EntryState::Active { mailbox, open: true, draining: false } => {
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

    fn open(self: &Arc<Core>, entry: &Arc<IdentityEntry>, cold: ColdState, first: IdentityCommand) -> EntryState {
        let (mailbox, commands) = mpsc::channel(MAILBOX);
        // The channel is new, so there is room.
        let _ = mailbox.try_send(first);
        self.timers.clear(entry.row);
        let actor = Actor::new(self.clone(), entry.clone(), mailbox.clone(), commands, cold);
        crate::identity::spawn(self, entry, actor);
        EntryState::Active { mailbox, open: false, draining: false }
    }

    /// Opens an identity if it sleeps.
    pub fn wake(self: &Arc<Core>, entry: &Arc<IdentityEntry>) {
        match self.may_be_of_others(entry) {
            true => self.ring(entry),
            false => self.tell(entry, IdentityCommand::Wake),
        }
    }

    /// The broker has messages for an identity of the cluster: somebody has to take them. Whoever owns it may have let it go
    /// before they came, and this host's copy of who owns what may be behind, so the destination is remembered for a while.
    pub fn sent_to(&self, identity: SecureHash) {
        let Some(membership) = &self.membership else { return };
        if self.directory.by_key(&identity).is_none() {
            return;
        }
        membership.note_sent(identity);
        if !matches!(self.ownership.owner_of(&identity), Ownedness::Owned(_)) {
            membership.ring(identity);
        }
    }

    /// This host does not own an identity any more, or may not: everything that it does for it ends, and nothing is
    /// repeated.
    pub fn lose(&self, entry: &IdentityEntry, why: &str) {
        if entry.release().is_none() {
            return;
        }
        tracing::warn!(identity = %entry.text, why, "the identity is not this host's any more");
        entry.drop_what_is_known();
        self.timers.clear(entry.row);
        if let Some(membership) = &self.membership {
            membership.held_changed();
        }
    }

    /// A unit was refused. If it carried the claim that this host takes for its own, the identity is another's.
    pub fn note_fenced(&self, error: &StoreError) {
        let StoreError::Fenced { identity, claim, current } = error else { return };
        let entry = self.directory.by_row(*identity);
        if let Some(entry) = entry.filter(|entry| entry.author().claim == *claim) {
            self.lose(&entry, "the database has another claim");
            entry.note_claim(*current);
        }
    }

    /// There is work for an identity that this host does not hold: somebody has to run it.
    pub fn ring(self: &Arc<Core>, entry: &Arc<IdentityEntry>) {
        let is_cold = matches!(&*entry.state.lock(), EntryState::Cold(_));
        match (&self.membership, entry.key()) {
            (Some(membership), Some(key)) => membership.ring(key),
            (Some(_), None) => {}
            (None, _) if is_cold => self.tell(entry, IdentityCommand::Wake),
            (None, _) => {}
        }
    }

    /// A new flow id for a new row.
    pub fn new_flow_id(&self, row: FlowRow) -> Result<FlowId, Problem> {
        Ok(FlowId::new(row, u128::from_be_bytes(random_bytes()?)))
    }
}

/// Bytes from the system's random generator.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], Problem> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Problem::new(Code::Internal, format!("the system gives no random numbers: {error}")))?;
    Ok(bytes)
}
