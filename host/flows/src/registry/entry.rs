//! What this host knows of an identity. A cold one is an entry here and rows in the database, nothing else.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use maxhost_cordapps::Catalogue;
use maxhost_model::{FencingToken, FlowRow, IdentityRow, Problem, SecureHash, X500Name};
use maxhost_pki::OpenIdentity;
use maxhost_store::{Author, Claim, NOBODY, Recipient};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::api::IdentityPhase;
use crate::base::clock::Moment;
use crate::guests::placement::{CordappSet, CpuProfile};
use crate::ledger::notary_queue::NotaryQueue;
use crate::options::IdentitySpec;
use crate::registry::in_hospital::InHospital;
use crate::registry::marks::{Mark, Marks};
use crate::registry::message::IdentityCommand;
use crate::registry::retry::{Pause, Retry};

/// Commands that wait for one identity; more are not lost, the actor then looks into the database. Few in tests, so that
/// those who reach the bound do so soon.
pub(crate) const MAILBOX: usize = if cfg!(test) { 2 } else { 4096 };

/// One identity of this host.
pub(crate) struct IdentityEntry {
    pub row: IdentityRow,
    pub name: X500Name,
    pub text: Arc<str>,
    pub spec: Mutex<Arc<IdentitySpec>>,
    pub state: Mutex<EntryState>,
    /// What its actor has to look after that no command tells of.
    pub marks: Marks,
    /// The claim that the database shows, as far as this host knows.
    pub claim: Mutex<Claim>,
    /// Its late confirmations have been looked for since this host started.
    pub swept: AtomicBool,
    /// The fingerprint of the key under which this process owns it, and the session with the ownership service in which it
    /// does.
    owned_as: Mutex<Option<(SecureHash, u64)>>,
    /// How many identities this process owns: one for each whose `owned_as` is set.
    count: HeldCount,
    /// When it is tried again to run it here, after it could not be.
    retry: Mutex<Retry>,
    /// The host that it is to be handed over to when it is let go.
    moves_to: Mutex<Option<String>>,
    /// A command that came with the demand for which it is being opened ([`IdentityEntry::told_with_demand`]).
    told_with_demand: Mutex<Option<Arc<[u8]>>>,
    /// What it has in hospital that this host could not go on with.
    pub in_hospital: InHospital,
    /// The fingerprint of its key, once it is known.
    key: Mutex<Option<SecureHash>>,
    /// Its keys, while somebody uses them.
    keys: Mutex<Weak<OpenIdentity>>,
    /// Somebody takes its messages from the broker ([`Serving`]).
    served: AtomicBool,
    /// Tells whoever takes its messages that it may be held no longer.
    pub no_longer_held: Notify,
    /// What is under way for it outside of its actor ([`Errand`]).
    errands: AtomicU32,
    /// How often its actor has met a defect.
    pub defects: AtomicU32,
    /// Live flows, as its actor counts them.
    pub live_flows: AtomicU64,
    /// Set once its manifest is gone or broken: it is let go of as soon as its flows have suspended.
    pub leaving: Mutex<Option<AfterLeaving>>,
    /// Requests to it as a notary.
    pub notary: Arc<NotaryQueue>,
    /// The CorDapps that it last had, and the manifest that named them.
    cordapps: Mutex<Option<(Arc<IdentitySpec>, Arc<CordappSet>)>>,
}

/// How many identities of a directory are held.
#[derive(Clone, Default)]
pub(crate) struct HeldCount(Arc<AtomicU32>);

impl HeldCount {
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }
}

/// The actor of an identity, which is counted for as long as this lives.
pub(crate) struct CountedActor(Arc<AtomicU32>);

impl CountedActor {
    pub fn of(actors: &Arc<AtomicU32>) -> CountedActor {
        actors.fetch_add(1, Ordering::AcqRel);
        CountedActor(actors.clone())
    }
}

impl Drop for CountedActor {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Something that is under way for an identity and that its actor does not see: a message on its way from the broker into
/// the database, a queue that nobody has looked into yet, a word to a responder. An identity that is let go meanwhile
/// would have it refused, and would be wanted again at once, so it stays until there is none.
pub(crate) struct Errand(Arc<IdentityEntry>);

impl Errand {
    pub fn of(entry: &Arc<IdentityEntry>) -> Errand {
        entry.errands.fetch_add(1, Ordering::AcqRel);
        Errand(entry.clone())
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        if self.0.errands.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Its actor may have nothing else to do.
            self.0.marks.set(Mark::Answered);
        }
    }
}

/// Taking an identity's messages from the broker: one at a time does. However it ends, another may begin.
pub(crate) struct Serving(Arc<IdentityEntry>);

impl Serving {
    /// `None` if somebody does already.
    pub fn begin(entry: &Arc<IdentityEntry>) -> Option<Serving> {
        (!entry.served.swap(true, Ordering::AcqRel)).then(|| Serving(entry.clone()))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.served.store(false, Ordering::Release);
    }
}

/// What becomes of an identity that is being let go of, when it has gone.
pub(crate) enum AfterLeaving {
    /// It is not hosted any more.
    Forgotten,
    /// Its manifest has come back.
    Hosted(Box<IdentitySpec>),
    /// Its manifest names no usable identity.
    Broken(Box<Problem>),
}

/// What an identity is doing.
pub(crate) enum EntryState {
    /// Rows only.
    Cold(ColdState),
    /// An actor takes commands.
    Active {
        mailbox: mpsc::Sender<IdentityCommand>,
        /// It has read its keys, CorDapps and flows.
        open: bool,
        /// It is being let go.
        draining: bool,
        _actor: CountedActor,
    },
    /// It cannot be hosted.
    Quarantined { problem: Box<Problem>, cold: ColdState },
    /// Not hosted any more.
    Removed,
}

/// What is remembered of a cold identity.
#[derive(Debug, Default, Clone)]
pub(crate) struct ColdState {
    pub live: Box<[FlowRow]>,
    /// Those of them that are in hospital: they are not tried again before the host starts anew.
    pub held: Box<[FlowRow]>,
    pub wake_at: Option<Moment>,
}

impl IdentityEntry {
    pub fn new(
        row: IdentityRow,
        name: X500Name,
        spec: IdentitySpec,
        live: Vec<FlowRow>,
        claim: Claim,
        count: HeldCount,
    ) -> IdentityEntry {
        IdentityEntry {
            row,
            text: name.as_str().into(),
            name,
            spec: Mutex::new(Arc::new(spec)),
            state: Mutex::new(EntryState::Cold(ColdState { live: live.into(), ..ColdState::default() })),
            marks: Marks::default(),
            claim: Mutex::new(claim),
            swept: AtomicBool::new(false),
            owned_as: Mutex::new(None),
            count,
            retry: Mutex::default(),
            moves_to: Mutex::new(None),
            told_with_demand: Mutex::new(None),
            in_hospital: InHospital::default(),
            key: Mutex::new(None),
            keys: Mutex::new(Weak::new()),
            served: AtomicBool::new(false),
            no_longer_held: Notify::new(),
            errands: AtomicU32::new(0),
            defects: AtomicU32::new(0),
            live_flows: AtomicU64::new(0),
            leaving: Mutex::new(None),
            notary: Arc::default(),
            cordapps: Mutex::new(None),
        }
    }

    /// Notes that the manifest of an identity that is being let go of has come back. False if it is not being let go of.
    pub fn comes_back(&self, spec: &IdentitySpec) -> bool {
        match &mut *self.leaving.lock() {
            Some(after) => {
                *after = AfterLeaving::Hosted(Box::new(spec.clone()));
                true
            }
            None => false,
        }
    }

    /// What the CorDapps of its manifest can do. If one of them is installed no more, it is what they could do while they
    /// were: an identity goes on with what it has, whether it is awake or not, until its manifest names other CorDapps or
    /// the host stops.
    ///
    /// # Errors
    /// A CorDapp is not there, or two of them do not go together, and the identity has none from before.
    pub fn cordapps(&self, catalogue: &Catalogue<CpuProfile>) -> Result<Arc<CordappSet>, Problem> {
        let spec = self.spec.lock().clone();
        let found = catalogue.set(&spec.cordapps);
        let mut had = self.cordapps.lock();
        match found {
            Ok(set) => {
                if !had.as_ref().is_some_and(|(_, had)| Arc::ptr_eq(had, &set)) {
                    *had = Some((spec, set.clone()));
                }
                Ok(set)
            }
            Err(problem) => match &*had {
                Some((named, had)) if named.cordapps == spec.cordapps => Ok(had.clone()),
                _ => Err(problem),
            },
        }
    }

    /// Why it goes on with CorDapps of which one is installed no more; `None` if it does not.
    pub fn former_cordapps(&self, catalogue: &Catalogue<CpuProfile>) -> Option<Problem> {
        let spec = self.spec.lock().clone();
        let problem = catalogue.set(&spec.cordapps).err()?;
        let had = self.cordapps.lock();
        had.as_ref().is_some_and(|(named, _)| named.cordapps == spec.cordapps).then_some(problem)
    }

    /// Whether this host owns it and has claimed it in the database. It may have lost it a moment ago; then the database
    /// refuses whatever is written for it.
    pub fn is_held(&self) -> bool {
        self.owned_as.lock().is_some()
    }

    /// It is claimed in the database, under the key and in the session in which the ownership service gave it.
    pub fn hold(&self, claim: Claim, key: SecureHash, session: u64) {
        *self.claim.lock() = claim;
        // Counted under the lock, so that the count is that of the entries that are held.
        let mut owned_as = self.owned_as.lock();
        if owned_as.replace((key, session)).is_none() {
            self.count.0.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// It is not held any more. Returns the key under which it was.
    pub fn release(&self) -> Option<SecureHash> {
        let mut owned_as = self.owned_as.lock();
        let (key, _) = owned_as.take()?;
        self.count.0.fetch_sub(1, Ordering::AcqRel);
        drop(owned_as);
        // Nobody's: what still comes for it under the claim of before goes another way.
        self.claim.lock().run = NOBODY;
        self.swept.store(false, Ordering::Release);
        *self.told_with_demand.lock() = None;
        self.no_longer_held.notify_one();
        Some(key)
    }

    /// The database shows this claim, which is not this host's.
    pub fn note_claim(&self, claim: Claim) {
        *self.claim.lock() = Claim { run: NOBODY, ..claim };
    }

    /// The key under which it is held.
    pub fn held_as(&self) -> Option<SecureHash> {
        self.owned_as.lock().map(|(key, _)| key)
    }

    /// The session in which it was claimed; 0 if it is not held.
    pub fn held_in(&self) -> u64 {
        self.owned_as.lock().map_or(0, |(_, session)| session)
    }

    /// This host does not own it any more, or may not: what is known of it may be another owner's past. Its actor is told,
    /// at the same moment, so that an actor which closes has either seen it or let the identity go itself. False if it was
    /// not held.
    pub fn lose(&self) -> bool {
        let mut state = self.state.lock();
        if self.release().is_none() {
            return false;
        }
        match &mut *state {
            EntryState::Active { .. } => self.marks.set(Mark::Lost),
            EntryState::Cold(cold) | EntryState::Quarantined { cold, .. } => *cold = ColdState::default(),
            EntryState::Removed => {}
        }
        true
    }

    /// Hands it over to the host of this name, as soon as its flows have given up. False if it is not held, or not under the
    /// claim `from`: then nothing is left to whoever holds it next.
    pub fn move_to(&self, host: String, from: Option<FencingToken>) -> bool {
        // What is said under the lock is taken by the actor that lets it go.
        let owned_as = self.owned_as.lock();
        let is_meant = owned_as.is_some() && from.is_none_or(|from| from == self.claim.lock().token);
        if is_meant {
            *self.moves_to.lock() = Some(host);
            self.marks.set(Mark::Drain);
        }
        is_meant
    }

    /// The host that it is to be handed over to, once.
    pub fn take_target(&self) -> Option<String> {
        self.moves_to.lock().take()
    }

    /// It is opened for a demand with which this command came: a copy of one that is in its queue, or will be. It is kept until
    /// somebody takes it or the identity is let go.
    pub fn told_with_demand(&self, command: Arc<[u8]>) {
        *self.told_with_demand.lock() = Some(command);
    }

    /// Whether a command came along that nobody has taken yet.
    pub fn is_told_with_demand(&self) -> bool {
        self.told_with_demand.lock().is_some()
    }

    /// The command that came with the demand, once.
    pub fn take_told_with_demand(&self) -> Option<Arc<[u8]>> {
        self.told_with_demand.lock().take()
    }

    /// Whether something is under way for it outside of its actor.
    pub fn has_errands(&self) -> bool {
        self.errands.load(Ordering::Acquire) > 0
    }

    /// Whether it has no actor and is not held.
    pub fn is_left_alone(&self) -> bool {
        matches!(&*self.state.lock(), EntryState::Cold(_) | EntryState::Quarantined { .. }) && !self.is_held()
    }

    /// It could not be opened here though it was claimed: it is left to others for a while.
    pub fn put_off(&self, now: Moment, pause: Pause) {
        self.retry.lock().put_off(now, pause);
    }

    /// It was refused because so many of its owners died.
    pub fn wait_after(&self, deaths: u32, now: Moment) {
        self.retry.lock().wait_after(deaths, now);
    }

    /// Since how many deaths of its owners this host has waited for long enough; 0 if it has not.
    pub fn waited_since(&self, now: Moment) -> u32 {
        self.retry.lock().waited_since(now)
    }

    /// It was opened, or what was wrong is mended.
    pub fn put_off_no_more(&self) {
        *self.retry.lock() = Retry::default();
    }

    /// Before then it is not tried to run it here.
    pub fn not_before(&self) -> Moment {
        self.retry.lock().not_before()
    }

    /// Its key has this fingerprint from now on. Returns what it had before.
    pub fn note_key(&self, fingerprint: SecureHash) -> Option<SecureHash> {
        self.key.lock().replace(fingerprint)
    }

    /// The fingerprint of its key, which its queue is named after; `None` if the network does not know it yet.
    pub fn key(&self) -> Option<SecureHash> {
        *self.key.lock()
    }

    /// Its keys, if somebody uses them.
    pub fn keys_in_use(&self) -> Option<Arc<OpenIdentity>> {
        self.keys.lock().upgrade()
    }

    /// Somebody uses its keys.
    pub fn note_keys(&self, keys: &Arc<OpenIdentity>) {
        *self.keys.lock() = Arc::downgrade(keys);
    }

    /// The identity as one who writes for it under the claim that is known now. Work that goes on for longer keeps the
    /// claim that it began under instead.
    pub fn author(&self) -> Author {
        Author { identity: self.row, claim: *self.claim.lock() }
    }

    /// The identity as one to whom a message is written.
    pub fn recipient(&self) -> Recipient {
        Recipient { identity: self.row, claim: *self.claim.lock() }
    }

    pub fn phase(&self) -> IdentityPhase {
        match &*self.state.lock() {
            EntryState::Cold(_) => IdentityPhase::Cold,
            EntryState::Active { draining: true, .. } => IdentityPhase::Draining,
            EntryState::Active { open: true, .. } => IdentityPhase::Active,
            EntryState::Active { .. } => IdentityPhase::Opening,
            EntryState::Quarantined { .. } => IdentityPhase::Quarantined,
            EntryState::Removed => IdentityPhase::Draining,
        }
    }

    /// Nobody runs it here: it sleeps, or is quarantined.
    pub fn is_at_rest(&self) -> bool {
        matches!(&*self.state.lock(), EntryState::Cold(_) | EntryState::Quarantined { .. })
    }

    /// Not hosted any more.
    pub fn is_removed(&self) -> bool {
        matches!(&*self.state.lock(), EntryState::Removed)
    }

    pub fn problem(&self) -> Option<Problem> {
        match &*self.state.lock() {
            EntryState::Quarantined { problem, .. } => Some((**problem).clone()),
            _ => None,
        }
    }

    /// The mailbox, if an actor takes commands.
    pub fn mailbox(&self) -> Option<mpsc::Sender<IdentityCommand>> {
        match &*self.state.lock() {
            EntryState::Active { mailbox, .. } => Some(mailbox.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use maxhost_store::UNCLAIMED;

    use super::*;
    use crate::options::HostRules;

    /// An identity of this row that has neither CorDapps nor flows and is not claimed. While it is held, it is counted there.
    pub(crate) fn party(row: i64, hosts: HostRules, count: &HeldCount) -> Arc<IdentityEntry> {
        let name = X500Name::parse(&format!("O=Party {row}, L=London, C=GB")).unwrap();
        let spec = IdentitySpec {
            name: name.as_str().to_owned(),
            cordapps: Vec::new().into(),
            keys: Default::default(),
            limits: Default::default(),
            notary: None,
            hosts,
            manifest: Default::default(),
        };
        Arc::new(IdentityEntry::new(IdentityRow(row), name, spec, Vec::new(), UNCLAIMED, count.clone()))
    }

    fn entry() -> Arc<IdentityEntry> {
        party(1, HostRules::default(), &HeldCount::default())
    }

    #[test]
    fn an_owner_is_moved_under_the_claim_that_was_meant_and_leaves_nothing_to_the_next() {
        let of = |epoch| FencingToken { generation: 1, epoch };
        let (entry, key) = (entry(), SecureHash::of(b"a key"));
        let moved = |epoch| (entry.move_to("b".to_owned(), epoch), entry.marks.take_all().has(Mark::Drain));
        entry.hold(Claim { token: of(7), ..UNCLAIMED }, key, 1);
        assert_eq!((moved(Some(of(6))), entry.take_target()), ((false, false), None));
        assert_eq!((moved(Some(of(7))), entry.take_target()), ((true, true), Some("b".to_owned())));
        assert_eq!(
            (moved(None), entry.take_target()),
            ((true, true), Some("b".to_owned())),
            "an earlier version has asked"
        );
        // It is being let go: what comes now comes too late.
        entry.release();
        assert_eq!((moved(Some(of(7))), entry.take_target()), ((false, false), None));
    }

    #[test]
    fn messages_are_taken_by_another_when_whoever_took_them_has_panicked() {
        let entry = entry();
        let serving = Serving::begin(&entry);
        assert!(serving.is_some() && Serving::begin(&entry).is_none(), "one does");
        let defect = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _serving = serving;
            panic!("on purpose");
        }));
        assert!(defect.is_err() && Serving::begin(&entry).is_some());
        assert!(Serving::begin(&entry).is_some(), "it ended at once");
    }
}
