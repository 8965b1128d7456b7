//! Which identities this host has: takes them in, quarantines those that cannot be hosted, and lets them go.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use dashmap::Entry;
use maxhost_model::{Code, FlowRow, IdentityRow, Problem, SecureHash, X500Name};
use maxhost_store::{Caution, Claim, ClaimRequest, DEATHS_LAST, IdentityRecord, StoreError, UNCLAIMED, each_live_flow};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::api::IdentityPhase;
use crate::base::spawner::blocking;
use crate::host::parts::Parts;
use crate::host::readmission::{KeyStamp, Readmission};
use crate::options::{IdentitySpec, OperatorEvent};
use crate::registry::entry::{AfterLeaving, ColdState, EntryState, IdentityEntry};
use crate::registry::message::IdentityCommand;

/// Identities that are opened at once after a start, to look after their flows.
const OPENING_AT_ONCE: usize = 64;
/// How often it is looked whether an identity that is let go of has closed.
const LOOK: Duration = Duration::from_millis(5);
/// How soon the database is asked again after it did not answer.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// How often quarantined identities are looked at.
const READMISSION: Duration = Duration::from_secs(2);

/// How an identity is held when it is taken in.
struct Claimed {
    claim: Claim,
    /// The key under which the ownership service has given it.
    owned_as: Option<SecureHash>,
}

impl Default for Claimed {
    fn default() -> Claimed {
        Claimed { claim: UNCLAIMED, owned_as: None }
    }
}

/// The identities of a host, as its manifests name them.
pub(crate) struct Hosting {
    parts: Arc<Parts>,
    /// Flows of identities that are not hosted, as the database had them when it was last read.
    live: Mutex<HashMap<IdentityRow, Vec<FlowRow>>>,
    /// Manifests that came back while their identities were being let go of.
    returning: Mutex<Vec<IdentitySpec>>,
    returned: Arc<Notify>,
}

impl Hosting {
    /// Hosts nothing yet. `live` are the flows that have not ended, of all identities of the database.
    pub(crate) fn start(parts: Arc<Parts>, live: HashMap<IdentityRow, Vec<FlowRow>>) -> Arc<Hosting> {
        let (live, returned) = (Mutex::new(live), Arc::<Notify>::default());
        let hosting = Arc::new(Hosting { parts, live, returning: Mutex::default(), returned: returned.clone() });
        hosting.parts.io.spawn(readmit(Arc::downgrade(&hosting), returned));
        hosting
    }

    /// Takes identities in. Those that cannot be hosted are quarantined and returned; the others run on.
    ///
    /// # Errors
    /// Only if the database fails: then none was taken in.
    pub(crate) async fn put_identities(
        self: &Arc<Hosting>,
        specs: Vec<IdentitySpec>,
    ) -> Result<Vec<(IdentitySpec, Problem)>, Problem> {
        let mut problems = Vec::new();
        let mut named: Vec<(X500Name, IdentitySpec)> = Vec::with_capacity(specs.len());
        for spec in specs {
            match self.check_name(&spec) {
                Ok(name) => named.push((name, spec)),
                Err(problem) => {
                    self.quarantine(&spec.manifest, Some(spec.name.clone()), problem.clone()).await;
                    problems.push((spec, problem));
                }
            }
        }
        let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
        let rows = self.parts.store.register_identities(&names).await.map_err(Problem::from)?;
        let keys: HashMap<X500Name, SecureHash> = match named.len() {
            0 => HashMap::new(),
            _ => self.parts.network.fingerprints(),
        };
        let mut claims: HashMap<IdentityRow, Claimed> = match named.len() {
            0 => HashMap::new(),
            _ => {
                let records = self.parts.store.identities().await.map_err(Problem::from)?;
                let coming: HashSet<IdentityRow> = rows.iter().copied().collect();
                let absent = records.iter().filter(|record| !coming.contains(&record.row));
                absent.for_each(|record| self.parts.directory.remember(record.row, &record.name));
                self.claim_new(records.into_iter().filter(|record| coming.contains(&record.row)).collect(), &keys)
                    .await?
            }
        };
        let mut waking = Vec::new();
        for ((name, spec), row) in named.into_iter().zip(rows) {
            self.parts.directory.broken.remove(&spec.manifest.display().to_string());
            // It is taken in once it has gone.
            if self.parts.directory.get(name.as_str()).is_some_and(|entry| entry.comes_back(&spec)) {
                continue;
            }
            let problem = self.unusable(&spec);
            let key = keys.get(&name).copied();
            let entry = self.put(name, row, spec.clone(), claims.remove(&row).unwrap_or_default());
            if let Some(key) = key {
                self.parts.directory.set_key(&entry, key);
            }
            // From now on it has what its CorDapps can do, whatever becomes of the files.
            let problem = problem.or_else(|| entry.cordapps(&self.parts.catalogue).err());
            if let Some(problem) = problem {
                set_quarantined(&entry, problem.clone());
                self.parts.events.tell_quarantined(&entry.text, &problem);
                problems.push((spec, problem));
            } else {
                waking.push(entry);
            }
        }
        // What they had left in the outbox when they were last here can be sent now.
        self.parts.outbox.look_at_all();
        match &self.parts.membership {
            Some(membership) => membership.look_for_work(),
            None => {
                self.parts.queues.held(waking.iter().cloned());
                self.parts.io.spawn(wake_busy(self.parts.clone(), waking));
            }
        }
        Ok(problems)
    }

    /// Claims those that are not hosted yet, all in one transaction, so that whoever writes to one of them finds it held.
    /// One that cannot be claimed now is claimed when it is opened. Returns the claims as the database shows them.
    async fn claim_new(
        &self,
        records: Vec<IdentityRecord>,
        keys: &HashMap<X500Name, SecureHash>,
    ) -> Result<HashMap<IdentityRow, Claimed>, Problem> {
        let mut claims = HashMap::with_capacity(records.len());
        let mut requests = Vec::new();
        for record in &records {
            claims.insert(record.row, Claimed { claim: record.claim, owned_as: None });
            let key = X500Name::parse(&record.name).ok().and_then(|name| keys.get(&name).copied());
            let is_to_come = self.parts.membership.is_none() && self.parts.directory.get(&record.name).is_none();
            let Some(key) = key.filter(|_| is_to_come) else { continue };
            if let Ok(owned) = self.parts.ownership.claim(key, record.claim.token).await {
                requests.push((
                    key,
                    ClaimRequest { identity: record.row, token: owned.token, key_fp: None, caution: Caution::None },
                ));
            }
        }
        let claimed = self.parts.store.claim_all(requests.iter().map(|(_, request)| *request).collect()).await;
        for ((key, request), claim) in requests.into_iter().zip(claimed.map_err(Problem::from)?) {
            if let Ok(claim) = claim {
                claims.insert(request.identity, Claimed { claim, owned_as: Some(key) });
            }
        }
        Ok(claims)
    }

    /// Those of them that no host may claim, because too many died that had them: all that are in quarantine for that, if the
    /// database cannot be asked.
    async fn refused_by_the_database(&self, quarantined: &[Arc<IdentityEntry>]) -> HashSet<IdentityRow> {
        let mut refused: HashSet<IdentityRow> =
            quarantined.iter().filter(|entry| is_unclean(entry)).map(|entry| entry.row).collect();
        if !refused.is_empty()
            && let Ok(records) = self.parts.store.identities().await
        {
            for record in records.iter().filter(|record| record.unclean < DEATHS_LAST) {
                refused.remove(&record.row);
            }
        }
        refused
    }

    fn check_name(&self, spec: &IdentitySpec) -> Result<X500Name, Problem> {
        let name = X500Name::parse(&spec.name).map_err(Problem::from)?;
        let other = self.parts.directory.get(name.as_str()).map(|entry| entry.spec.lock().manifest.clone());
        match other {
            Some(other) if other != spec.manifest && other.exists() => Err(Problem::new(
                Code::ManifestInvalid,
                format!("{} and {} both name {name}", other.display(), spec.manifest.display()),
            )
            .remedy("remove one of the two manifests")),
            _ => Ok(name),
        }
    }

    /// What can be seen to be wrong without opening the identity.
    fn unusable(&self, spec: &IdentitySpec) -> Option<Problem> {
        if !spec.keys.is_dir() {
            let text = format!("the key folder {} of {} does not exist", spec.keys.display(), spec.name);
            return Some(Problem::new(Code::KeyUnreadable, text));
        }
        // An identity whose manifest names the same CorDapps as before goes on with what it has.
        let known = self.parts.directory.get(&spec.name).filter(|entry| entry.spec.lock().cordapps == spec.cordapps);
        match known {
            Some(entry) => entry.cordapps(&self.parts.catalogue).err(),
            None => self.parts.catalogue.set(&spec.cordapps).err(),
        }
    }

    fn put(&self, name: X500Name, row: IdentityRow, spec: IdentitySpec, claimed: Claimed) -> Arc<IdentityEntry> {
        let spec = IdentitySpec { cordapps: self.parts.directory.shared_cordapps(spec.cordapps), ..spec };
        let Some(entry) = self.parts.directory.get(name.as_str()) else {
            let live = self.live.lock().remove(&row).unwrap_or_default();
            let entry =
                Arc::new(IdentityEntry::new(row, name, spec, live, claimed.claim, self.parts.directory.held.clone()));
            if let Some(key) = claimed.owned_as {
                entry.hold(claimed.claim, key, self.parts.ownership.session().borrow().number);
            }
            self.parts.directory.insert(entry.clone());
            self.parts.events.emit(OperatorEvent::IdentityAdded { identity: entry.text.to_string() });
            return entry;
        };
        let before = std::mem::replace(&mut *entry.spec.lock(), Arc::new(spec));
        self.look_at_rules(&entry, &before);
        let active = {
            let mut state = entry.state.lock();
            if let EntryState::Quarantined { problem, cold } = &mut *state {
                // Somebody has asked for it to be tried again. After any other trouble it is tried no sooner than it was to be.
                if problem.code == Code::IdentityUnclean {
                    entry.put_off_no_more();
                }
                *state = EntryState::Cold(std::mem::take(cold));
            }
            matches!(*state, EntryState::Active { .. })
        };
        if active {
            self.parts.waking.tell(&entry, IdentityCommand::Refresh);
        }
        entry
    }

    /// If the manifest of an identity says something else of hosts than before, it is looked who should run it now.
    fn look_at_rules(&self, entry: &IdentityEntry, before: &IdentitySpec) {
        if entry.spec.lock().hosts == before.hosts {
            return;
        }
        self.parts.directory.note_group(entry);
        // One that this host may run from now on is looked for with all others that are wanted.
        self.parts.membership.iter().for_each(|membership| membership.rules_changed());
    }

    /// A manifest that names no usable identity: shown, and in nobody's way. If it was the manifest of an identity that
    /// is hosted, its flows are put away; they go on when it is mended.
    pub(crate) async fn quarantine(self: &Arc<Hosting>, manifest: &Path, name: Option<String>, problem: Problem) {
        let hosted = name.as_ref().and_then(|name| self.parts.directory.get(name));
        match hosted.filter(|entry| entry.spec.lock().manifest == manifest) {
            Some(entry) => self.remove(entry, AfterLeaving::Broken(Box::new(problem))).await,
            None => self.set_broken(manifest, name, problem),
        }
    }

    /// It is told once, however often a file changes and comes to the same. Nobody sees it before it is told.
    fn set_broken(&self, manifest: &Path, name: Option<String>, problem: Problem) {
        let entry = self.parts.directory.broken.entry(manifest.display().to_string());
        let broken = (name, problem);
        if matches!(&entry, Entry::Occupied(known) if *known.get() == broken) {
            return;
        }
        let (name, problem) = &broken;
        self.parts.events.tell_quarantined(name.as_deref().unwrap_or(entry.key()), problem);
        entry.insert(broken);
    }

    /// The manifest of an identity is gone: its flows are put away, and it is hosted no more. `name` may also be that of
    /// a quarantined manifest, or its file.
    pub(crate) async fn remove_identity(self: &Arc<Hosting>, name: &str) {
        let is_it =
            |file: &String, known: &Option<String>| known.as_deref() == Some(name) || Path::new(file).ends_with(name);
        self.parts.directory.broken.retain(|file, (known, _)| !is_it(file, known));
        self.returning.lock().retain(|spec| spec.name != name);
        if let Some(entry) = self.parts.directory.get(name) {
            self.remove(entry, AfterLeaving::Forgotten).await;
        }
    }

    /// Lets an identity go. Returns at once: however long its flows take to suspend, nobody else waits for it.
    async fn remove(self: &Arc<Hosting>, entry: Arc<IdentityEntry>, after: AfterLeaving) {
        if let Some(pending) = &mut *entry.leaving.lock() {
            *pending = after;
            return;
        }
        *entry.leaving.lock() = Some(after);
        if self.remove_closed(&entry) {
            return self.gone(entry).await;
        }
        self.parts.waking.tell(&entry, IdentityCommand::Drain);
        self.parts.io.spawn(self.clone().let_go(entry));
    }

    /// Removes an identity that has no actor, and remembers its live flows. False if it has one.
    fn remove_closed(&self, entry: &IdentityEntry) -> bool {
        let cold = match &mut *entry.state.lock() {
            EntryState::Active { .. } | EntryState::Removed => return false,
            state @ (EntryState::Cold(_) | EntryState::Quarantined { .. }) => {
                match std::mem::replace(state, EntryState::Removed) {
                    EntryState::Cold(cold) | EntryState::Quarantined { cold, .. } => cold,
                    EntryState::Active { .. } | EntryState::Removed => ColdState::default(),
                }
            }
        };
        self.live.lock().insert(entry.row, cold.live.into());
        self.parts.events.emit(OperatorEvent::IdentityRemoved { identity: entry.text.to_string() });
        true
    }

    /// Waits until an identity that was told to drain has closed.
    async fn let_go(self: Arc<Hosting>, entry: Arc<IdentityEntry>) {
        // One that could not be opened to drain is closed too.
        while !entry.is_removed() && !self.remove_closed(&entry) {
            if self.sleeps_until_stop(LOOK).await {
                return;
            }
        }
        let rows = loop {
            let mut rows = Vec::new();
            match each_live_flow(&*self.parts.store, entry.row, |flow| rows.push(flow.row)).await {
                Ok(()) => break rows,
                Err(error) => tracing::warn!(identity = %entry.text, %error, "its flows cannot be read; tried again"),
            }
            if self.sleeps_until_stop(READ_AGAIN).await {
                return;
            }
        };
        self.live.lock().insert(entry.row, rows);
        self.gone(entry).await;
    }

    /// Sleeps. True if the host stops meanwhile.
    async fn sleeps_until_stop(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.parts.stopping.cancelled()).await.is_ok()
    }

    /// Forgets an identity that has closed, and does what is to be done then.
    async fn gone(self: &Arc<Hosting>, entry: Arc<IdentityEntry>) {
        self.forget(&entry).await;
        let after = entry.leaving.lock().take();
        match after {
            None | Some(AfterLeaving::Forgotten) => {}
            Some(AfterLeaving::Broken(problem)) => {
                let manifest = entry.spec.lock().manifest.clone();
                self.set_broken(&manifest, Some(entry.text.to_string()), *problem);
            }
            Some(AfterLeaving::Hosted(spec)) => {
                self.returning.lock().push(*spec);
                self.returned.notify_one();
            }
        }
    }

    async fn forget(&self, entry: &IdentityEntry) {
        // Whoever takes it in next claims it anew: that may be this host.
        if let Some(fingerprint) = entry.release()
            && let Err(error) = self.parts.ownership.hand_over(fingerprint, None).await
        {
            tracing::warn!(identity = %entry.text, %error, "a removed identity could not be released");
        }
        self.parts.directory.remove(&entry.text);
    }
}

/// Whether an identity is in quarantine because of what the database says, and not for trouble of this host.
fn is_unclean(entry: &IdentityEntry) -> bool {
    entry.problem().is_some_and(|problem| problem.code == Code::IdentityUnclean)
}

fn set_quarantined(entry: &IdentityEntry, problem: Problem) {
    let mut state = entry.state.lock();
    let cold = match &mut *state {
        EntryState::Cold(cold) => std::mem::take(cold),
        EntryState::Quarantined { cold, .. } => std::mem::take(cold),
        // It goes on with what it has.
        EntryState::Active { .. } => return,
        EntryState::Removed => ColdState::default(),
    };
    *state = EntryState::Quarantined { problem: Box::new(problem), cold };
}

/// Opens the identities for which something waits in the database, some at a time.
pub(crate) async fn wake_busy(parts: Arc<Parts>, entries: Vec<Arc<IdentityEntry>>) {
    let left = until_read(&parts, || parts.store.left_work(parts.now_millis() as i64));
    let Some(left) = left.await else { return };
    let waits = left.into_iter().filter(|left| left.initiations || left.late_confirms || left.outbox);
    let waiting: HashSet<IdentityRow> = waits.map(|left| left.identity).collect();
    let is_busy = |entry: &IdentityEntry| match &*entry.state.lock() {
        EntryState::Cold(cold) => !cold.live.is_empty() || waiting.contains(&entry.row),
        _ => false,
    };
    wake_some(&parts, entries.iter().filter(|entry| is_busy(entry)).cloned().collect()).await;
    if !parts.store.keeps_ledgers() {
        return;
    }
    // A flow that is gone may have left a transaction in flight, which holds its states until the identity settles it. These come
    // last, because on some databases each identity is asked about by itself.
    let sleeping: Vec<IdentityRow> =
        entries.iter().filter(|entry| entry.phase() == IdentityPhase::Cold).map(|entry| entry.row).collect();
    let unsettled = until_read(&parts, || parts.store.with_unsettled(&sleeping)).await;
    let unsettled: HashSet<IdentityRow> = unsettled.into_iter().flatten().collect();
    wake_some(&parts, entries.into_iter().filter(|entry| unsettled.contains(&entry.row)).collect()).await;
}

/// Opens these, not too many at once.
async fn wake_some(parts: &Parts, entries: Vec<Arc<IdentityEntry>>) {
    for some in entries.chunks(OPENING_AT_ONCE) {
        some.iter().for_each(|entry| parts.waking.wake(entry));
        let opening = |entry: &Arc<IdentityEntry>| entry.phase() == IdentityPhase::Opening;
        while some.iter().any(opening) && !parts.stopping.is_cancelled() {
            parts.clock.sleep_until(parts.clock.monotonic() + Duration::from_millis(2)).await;
        }
    }
}

/// What the database has for identities that nobody will tell them of. Read until it can be: what is overlooked would wait for
/// ever. `None`: the host stops.
async fn until_read<T, F: Future<Output = Result<T, StoreError>>>(parts: &Parts, read: impl Fn() -> F) -> Option<T> {
    loop {
        match read().await {
            Ok(found) => return Some(found),
            Err(error) => tracing::warn!(%error, "what waits for identities cannot be read; tried again"),
        }
        tokio::select! {
            biased;
            () = parts.stopping.cancelled() => return None,
            () = parts.clock.sleep_until(parts.clock.monotonic() + READMISSION) => {}
        }
    }
}

/// Takes identities in again: those whose manifest came back while they were let go of, and those in quarantine once what
/// was wrong is mended, for whoever mends keys or components need not touch the manifest.
async fn readmit(hosting: Weak<Hosting>, returned: Arc<Notify>) {
    let mut look_at = tokio::time::Instant::now() + READMISSION;
    let mut readmission = Readmission::default();
    loop {
        let look = tokio::select! {
            () = tokio::time::sleep_until(look_at) => true,
            () = returned.notified() => false,
        };
        let Some(hosting) = hosting.upgrade() else { return };
        if hosting.parts.stopping.is_cancelled() {
            return;
        }
        let returning = std::mem::take(&mut *hosting.returning.lock());
        if !returning.is_empty()
            && let Err(problem) = hosting.put_identities(returning.clone()).await
        {
            tracing::warn!(%problem, "identities cannot be hosted again yet; tried again");
            hosting.returning.lock().extend(returning);
        }
        if !look {
            continue;
        }
        look_at = tokio::time::Instant::now() + READMISSION;
        let all = hosting.parts.directory.all();
        let quarantined: HashMap<IdentityRow, _> =
            all.into_iter().filter(|entry| entry.problem().is_some()).map(|entry| (entry.row, entry)).collect();
        let turn = readmission.turn(quarantined.keys().copied().collect());
        let turn: Vec<_> = turn.iter().filter_map(|row| quarantined.get(row).cloned()).collect();
        let refused = hosting.refused_by_the_database(&turn).await;
        for entry in turn.into_iter().filter(|entry| !refused.contains(&entry.row)) {
            let (looking, spec) = (hosting.clone(), entry.spec.lock().as_ref().clone());
            // What else it lacks is known without its keys.
            let looked = blocking(move || match looking.unusable(&spec) {
                Some(problem) => Err(problem),
                None => Ok((KeyStamp::of(&spec.keys), spec)),
            });
            let Ok((stamp, spec)) = looked.await else { continue };
            if !readmission.is_due(entry.row, stamp, hosting.parts.clock.monotonic()) {
                continue;
            }
            let (opening, name, keys) = (hosting.clone(), entry.name.clone(), spec.keys.clone());
            let opened = blocking(move || {
                let (vault, trust) = (&opening.parts.vault, opening.parts.network.trust_root());
                let now = std::time::SystemTime::now();
                maxhost_pki::OpenIdentity::open(vault, &keys, &name, trust, now).map(drop).map_err(Problem::from)
            });
            let is_usable = opened.await.is_ok();
            // Also if they are: what quarantines it again need not be its keys.
            readmission.failed(entry.row, stamp, hosting.parts.clock.monotonic());
            if !is_usable {
                continue;
            }
            tracing::info!(identity = %entry.text, "mended: out of quarantine");
            // Whoever is refused is told of there.
            if let Err(problem) = hosting.put_identities(vec![spec]).await {
                tracing::warn!(identity = %entry.text, %problem, "cannot be hosted yet");
            }
        }
    }
}
