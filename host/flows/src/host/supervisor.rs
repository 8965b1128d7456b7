//! Which identities this host runs, when it shares them with other hosts.
//!
//! The hosts of a cluster have the same manifests and the same database. An identity is run by one of them at a time, or by
//! none while nothing is to be done for it. Whoever has work for one that nobody runs *rings*: he raises a demand for it,
//! which the ownership service tells to hosts that have a slot free. A host serves it by opening the identity, which
//! claims it ([`crate::identity`]), and lets it go when it sleeps.
//!
//! All of this says who tries. Who may write is decided by the database, so what is done here too often, or by two hosts
//! at once, does no harm. What is done too seldom is found by a sweep: work without an owner can be told from rows and
//! queues. `docs/cluster.md` has the rules.
//!
//! A host without slots, an RPC worker, takes part in all of this except that it opens nothing. One of the hosts that answer
//! clients is the scheduler ([`crate::host::scheduler`]): it looks for work that nobody was told of, and the others leave that to it.
//!
//! What a manifest says of hosts ([`crate::cluster::candidates`]) decides as well: a host that may not run an identity opens it for nobody, and
//! one that suits it less than another leaves it to that one for [`rendezvous::TARGET`]. What is run where it should not be is given
//! away ([`crate::host::balancing`]).
//!
//! One that alone is cut from the database or the broker stands back until it is not ([`crate::host::standing_back`]).
//!
//! A host that is alone has no membership: it owns whatever its manifests name for as long as it runs.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use maxhost_model::SecureHash;
use maxhost_ownership::{Change, Demand, Ownedness, SessionState, rendezvous};
use maxhost_store::LeftWork;
use parking_lot::Mutex;

use crate::base::clock::Moment;
use crate::cluster::host_rules::Fit;
use crate::cluster::membership::Membership;
use crate::host::parts::Parts;
use crate::registry::entry::IdentityEntry;
use crate::registry::message::IdentityCommand;

/// How often it is looked for work that nobody was told of.
const SWEEP: Duration = Duration::from_secs(30);
/// Demands that are raised at once.
const RAISED: usize = 32;
/// Tellings of how many more identities this host can run are so far apart at least, where that has changed by more than a
/// sixteenth or somebody waits for it; else [`SMALL_OFFERS_APART`].
const OFFERS_APART: Duration = Duration::from_millis(50);
const SMALL_OFFERS_APART: Duration = Duration::from_secs(1);
/// How soon the ownership service is asked again after it did not answer, or work is looked for again that could not be. The
/// latter doubles, up to the time of a sweep.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the broker may take to tell which queues hold messages.
const LISTING: Duration = Duration::from_secs(20);
/// A scheduler that could not look for work so often in a row makes room for another. It does so again at every so many more,
/// and no more often, because the reason may be one that concerns all hosts.
const RESIGNS_AT: u32 = 3;

/// Begins to serve demands, until the host stops.
pub(crate) fn start(parts: &Arc<Parts>) {
    parts.io.spawn(follow_session(parts.clone()));
    parts.io.spawn(follow_changes(parts.clone()));
    let room = Arc::<Room>::default();
    parts.io.spawn(follow_demands(parts.clone(), room.clone()));
    parts.io.spawn(offer_slots(parts.clone(), room.clone()));
    parts.io.spawn(raise_demands(parts.clone()));
    parts.io.spawn(look_for_work(parts.clone(), room));
    parts.io.spawn(crate::host::draining::follow(parts.clone()));
    parts.io.spawn(crate::host::standing_back::follow(parts.clone()));
    parts.io.spawn(crate::host::scheduler::run(parts.clone()));
    parts.io.spawn(crate::host::balancing::run(parts.clone()));
}

async fn follow_session(parts: Arc<Parts>) {
    let mut session = parts.ownership.session();
    loop {
        let now = *session.borrow_and_update();
        let is_over = matches!(now.state, SessionState::Lost | SessionState::Closed);
        for entry in parts.directory.all() {
            if entry.is_held() && (is_over || entry.held_in() != now.number) {
                parts.waking.lose(&entry, "the session with the ownership service is over");
            }
        }
        if let (SessionState::Connected, Some(membership)) = (now.state, &parts.membership) {
            membership.held_changed();
            membership.look_for_work();
        }
        tokio::select! {
            changed = session.changed() => if changed.is_err() { return },
            () = parts.stopping.cancelled() => return,
        }
    }
}

async fn follow_changes(parts: Arc<Parts>) {
    let Some(membership) = &parts.membership else { return };
    let mut changes = parts.ownership.changes();
    loop {
        let change = tokio::select! {
            change = changes.next() => change,
            () = parts.stopping.cancelled() => return,
        };
        match change {
            Some(Change::Released(owner)) if membership.take_sent_to(&owner.identity) => {
                membership.ring(owner.identity)
            }
            Some(Change::Missed) => membership.look_for_work(),
            Some(Change::Released(_) | Change::Claimed(_)) => {}
            None => return,
        }
    }
}

/// The identities that this host has begun to open because they are wanted: each takes the room of one, though it is not held
/// yet. So of many that are told at once no more are opened than there is room for.
#[derive(Default)]
struct Room {
    opening: Mutex<Vec<Arc<IdentityEntry>>>,
    /// How often it was looked for what nobody serves.
    looks: AtomicUsize,
}

impl Room {
    /// How many more there is room for.
    fn free(&self, parts: &Parts, membership: &Membership) -> usize {
        Room::left(&mut self.opening.lock(), parts, membership)
    }

    fn left(opening: &mut Vec<Arc<IdentityEntry>>, parts: &Parts, membership: &Membership) -> usize {
        let free = membership.free_slots(parts.directory.held.get()) as usize;
        if opening.len() >= free {
            opening.retain(|entry| !entry.is_held() && entry.mailbox().is_some());
        }
        // An identity that was claimed between the two looks counts twice; then what is held has changed, and it is looked again.
        free.saturating_sub(opening.len())
    }

    /// Opens an identity, if there is room. One that is being opened already needs none. `fits` looks whether it suits this host,
    /// with those in mind that were opened before: no two are opened at the same time.
    fn open(
        &self,
        parts: &Parts,
        membership: &Membership,
        (entry, message): (&Arc<IdentityEntry>, Option<Arc<[u8]>>),
        fits: impl FnOnce() -> bool,
    ) -> bool {
        let mut opening = self.opening.lock();
        let is_cold = entry.mailbox().is_none();
        if is_cold && !fits() {
            return false;
        }
        if is_cold && Room::left(&mut opening, parts, membership) == 0 {
            return false;
        }
        // Before it is opened, so that it is there when the identity is held.
        if let Some(command) = message {
            entry.told_with_demand(command);
        }
        parts.waking.tell(entry, IdentityCommand::Wake);
        if is_cold {
            opening.push(entry.clone());
        }
        true
    }
}

async fn follow_demands(parts: Arc<Parts>, room: Arc<Room>) {
    let mut demands = parts.ownership.demands();
    loop {
        let demand = tokio::select! {
            demand = demands.next() => demand,
            () = parts.stopping.cancelled() => return,
        };
        let Some(demand) = demand else { return };
        if parts.directory.by_key(&demand.identity).is_some() {
            serve(&parts, &room, demand);
        }
    }
}

/// Has an identity that is wanted looked at when it is this host's turn. However often that is told, one task waits for it.
fn serve(parts: &Arc<Parts>, room: &Arc<Room>, Demand { identity, turn, message }: Demand) {
    let Some(membership) = &parts.membership else { return };
    if membership.turns().tell(identity, parts.clock.monotonic() + turn, message) {
        parts.io.spawn(take_turns(parts.clone(), room.clone(), identity));
    }
}

/// Waits for this host's turns with an identity, and as long as the identity is left to others.
async fn take_turns(parts: Arc<Parts>, room: Arc<Room>, identity: SecureHash) {
    let Some(membership) = &parts.membership else { return };
    // Until then it is left to hosts that suit it better, however often it is told meanwhile.
    let mut left_until = None;
    while let Some((at, again)) = membership.turns().next(&identity) {
        let Some(entry) = parts.directory.by_key(&identity) else { return membership.turns().forget(&identity) };
        let until = at.max(entry.not_before()).max(left_until.unwrap_or(at));
        tokio::select! {
            () = parts.clock.sleep_until(until) => {}
            () = again.notified() => continue,
            () = parts.stopping.cancelled() => return,
        }
        let now = parts.clock.monotonic();
        if entry.not_before() > now {
            continue;
        }
        let fit = parts.candidates.fit_here(&entry);
        if fit == Fit::Lesser && left_until.is_none() {
            left_until = Some(now + rendezvous::TARGET);
            continue;
        }
        let was_left = left_until.take().is_some();
        let message = membership.turns().take_message(&identity);
        let is_last = !membership.turns().has_come(identity, at);
        if fit != Fit::Never {
            open_if_free(&parts, &room, (membership, was_left), &entry, (&identity, message));
        }
        if is_last {
            return;
        }
    }
}

/// Opens an identity that is wanted, unless somebody has it. `was_left`: hosts that suit it better have had the time to take it.
fn open_if_free(
    parts: &Parts,
    room: &Room,
    (membership, was_left): (&Membership, bool),
    entry: &Arc<IdentityEntry>,
    (identity, message): (&SecureHash, Option<Arc<[u8]>>),
) {
    if !matches!(parts.ownership.owner_of(identity), Ownedness::Free) || entry.is_held() {
        return;
    }
    let fits = || match parts.candidates.fit_here(entry) {
        Fit::Best => true,
        Fit::Lesser => was_left,
        Fit::Never => false,
    };
    if !room.open(parts, membership, (entry, message), fits) {
        membership.decline();
    }
}

/// Tells the service how many more identities this host can run, whenever that changes. Each telling is written down by the service
/// and read by all hosts, so while many identities come or go it is told only now and then; at once, if there is no room any more, or
/// there is some again.
async fn offer_slots(parts: Arc<Parts>, room: Arc<Room>) {
    let Some(membership) = &parts.membership else { return };
    let mut told: Option<(u32, Moment)> = None;
    loop {
        let free = membership.free_slots(parts.directory.held.get());
        let apart = |before: u32| match before.abs_diff(free) > before / 16 || membership.has_declined() {
            true => OFFERS_APART,
            false => SMALL_OFFERS_APART,
        };
        if let Some((before, at)) = told
            && (before == 0) == (free == 0)
            && parts.clock.monotonic() < at + apart(before)
        {
            tokio::select! {
                () = parts.clock.sleep_until(at + apart(before)) => told = None,
                () = membership.until_held_changes() => {}
                () = parts.stopping.cancelled() => return,
            }
            continue;
        }
        told = Some((free, parts.clock.monotonic()));
        let again = match parts.ownership.offer(free).await {
            Ok(()) if free > 0 && membership.take_declined() => match serve_the_unserved(&parts, &room).await {
                Ok(()) => Duration::MAX,
                Err(reason) => {
                    tracing::debug!(reason, "what nobody serves is not known; asked again");
                    membership.note_declined();
                    AGAIN
                }
            },
            Ok(()) => Duration::MAX,
            Err(error) => {
                tracing::debug!(%error, "the ownership service does not know what this host can run; told again");
                AGAIN
            }
        };
        tokio::select! {
            () = membership.until_held_changes() => {}
            () = tokio::time::sleep(again) => {}
            () = parts.stopping.cancelled() => return,
        }
    }
}

/// Brings demands to the service, each until it is durable.
async fn raise_demands(parts: Arc<Parts>) {
    let Some(membership) = &parts.membership else { return };
    loop {
        let parts = &parts;
        let raise = |identity: SecureHash| async move {
            let raised = parts.ownership.demand(identity).await;
            if let Err(error) = &raised {
                tracing::debug!(%identity, %error, "a demand could not be raised; tried again");
                membership.ring(identity);
            }
            raised.is_err()
        };
        let raising = stream::iter(membership.take_rung()).map(raise).buffer_unordered(RAISED);
        let failed = raising.fold(false, |failed, this| std::future::ready(failed || this)).await;
        let again = if failed { AGAIN } else { Duration::MAX };
        tokio::select! {
            () = membership.rung(), if !failed => {}
            () = tokio::time::sleep(again) => {}
            () = parts.stopping.cancelled() => return,
        }
    }
}

/// Brings those to the service that were rung for until now. For a host that leaves: what it does not bring is found by
/// the sweeps of the others.
pub(crate) async fn raise_last_demands(parts: &Parts) {
    for identity in parts.membership.iter().flat_map(|membership| membership.take_rung()) {
        if let Err(error) = parts.ownership.demand(identity).await {
            tracing::debug!(%identity, %error, "a demand could not be raised");
        }
    }
}

async fn look_for_work(parts: Arc<Parts>, room: Arc<Room>) {
    let Some(membership) = &parts.membership else { return };
    let mut failures = 0_u32;
    // Whether something has happened that this host may not have heard all of. From time to time the scheduler looks.
    let mut is_asked = true;
    loop {
        let looked = async {
            give_back(&parts).await?;
            serve_the_unserved(&parts, &room).await?;
            // Seen now, so that whoever asks later is told since when they wait.
            parts.age_of_initiations().await.map_err(|error| error.to_string())?;
            match is_asked || is_for_this_host(&parts) {
                true => ring_for_work(&parts).await,
                false => Ok(()),
            }
        };
        let pause = match looked.await {
            Ok(()) => {
                (is_asked, failures) = (false, 0);
                SWEEP
            }
            Err(reason) => {
                failures = failures.saturating_add(1);
                tracing::warn!(reason, failures, "work without an owner cannot be looked for; tried again");
                if failures.is_multiple_of(RESIGNS_AT) && is_scheduler(&parts) {
                    membership.make_room_for_a_scheduler();
                }
                AGAIN.saturating_mul(1 << (failures - 1).min(5)).min(SWEEP)
            }
        };
        tokio::select! {
            () = membership.until_work_is_looked_for() => is_asked = true,
            () = tokio::time::sleep(pause) => {}
            () = parts.stopping.cancelled() => return,
        }
    }
}

/// Whether this host has to look for work from time to time: it is the scheduler, or none is known.
fn is_for_this_host(parts: &Parts) -> bool {
    parts.ownership.scheduler().borrow().as_deref().is_none_or(|name| name == parts.ownership.host())
}

fn is_scheduler(parts: &Parts) -> bool {
    parts.ownership.scheduler().borrow().as_deref() == Some(parts.ownership.host())
}

/// Rings for identities that nobody owns and for which there is work, by what the database tells and by what the broker tells:
/// neither waits for the other.
async fn ring_for_work(parts: &Parts) -> Result<(), String> {
    let (rows, queues) = tokio::join!(ring_for_rows(parts), ring_for_queues(parts));
    rows.and(queues)
}

/// Rings for identities with rows that somebody has to look after, with a wake-up time that has come, or with an owner that has
/// died.
async fn ring_for_rows(parts: &Parts) -> Result<(), String> {
    let now = i64::try_from(parts.now_millis()).unwrap_or(i64::MAX);
    let left = parts.store.left_work(now).await.map_err(|error| error.to_string())?;
    let left: HashSet<_> = left.iter().map(|LeftWork { identity, .. }| *identity).collect();
    let records = parts.store.identities().await.map_err(|error| error.to_string())?;
    let with_work = records.into_iter().filter(|record| record.owner().is_some() || left.contains(&record.row));
    ring_for_free(parts, with_work.filter_map(|record| parts.directory.by_row(record.row)?.key()));
    Ok(())
}

/// Rings for identities with messages in their queue.
async fn ring_for_queues(parts: &Parts) -> Result<(), String> {
    let listed = tokio::time::timeout(LISTING, parts.broker.waiting()).await;
    let waiting = listed.map_err(|_| "the broker does not tell its queues".to_owned())?;
    let waiting = waiting.map_err(|error| error.to_string())?;
    let queued = waiting.iter().filter_map(|queue| queue.fingerprint());
    ring_for_free(parts, queued.filter(|key| parts.directory.by_key(key).is_some()));
    Ok(())
}

fn ring_for_free(parts: &Parts, keys: impl Iterator<Item = SecureHash>) {
    let Some(membership) = &parts.membership else { return };
    for key in keys.filter(|key| matches!(parts.ownership.owner_of(key), Ownedness::Free)) {
        membership.ring(key);
    }
}

/// Serves demands that were told and that nobody has served, for want of room or of the identity's manifest.
/// No more are begun with than there is room for; the others wait until what this host holds changes.
async fn serve_the_unserved(parts: &Arc<Parts>, room: &Arc<Room>) -> Result<(), String> {
    let Some(membership) = parts.membership.as_ref().filter(|membership| !membership.takes_nothing()) else {
        return Ok(());
    };
    let now = parts.clock.monotonic();
    let mut wanted = parts.ownership.wanted().await.map_err(|error| error.to_string())?;
    // Each run begins somewhere else, so that hosts do not all try for the same few, and each look, so that all have their turn.
    let run = usize::try_from(parts.store.run().0).unwrap_or(0);
    let begin = run.wrapping_add(room.looks.fetch_add(1, Ordering::Relaxed));
    let begin = begin.checked_rem(wanted.len()).unwrap_or(0);
    wanted.rotate_left(begin);
    let mut free = room.free(parts, membership);
    for identity in wanted {
        let can_be_opened = |entry: &Arc<IdentityEntry>| entry.not_before() <= now && !entry.is_held();
        let may_run_here = |entry: &&Arc<IdentityEntry>| parts.candidates.fit_here(entry) != Fit::Never;
        let entry = parts.directory.by_key(&identity);
        if entry.as_ref().filter(|entry| can_be_opened(entry)).filter(may_run_here).is_none() {
            continue;
        }
        if free == 0 {
            membership.note_declined();
            break;
        }
        free -= 1;
        serve(parts, room, Demand { identity, turn: Duration::ZERO, message: None });
    }
    Ok(())
}

/// Gives back what this host owns and does not run: its claim was made although the answer said otherwise, or it could not
/// tell the service that it had let the identity go. To open it is the way, because nobody else of this host claims it
/// meanwhile.
async fn give_back(parts: &Parts) -> Result<(), String> {
    for entry in parts.directory.all() {
        let Some(key) = entry.key() else { continue };
        let is_ours =
            matches!(parts.ownership.owner_of(&key), Ownedness::Owned(owner) if *owner.host == *parts.ownership.host());
        if !is_ours || !entry.is_left_alone() {
            continue;
        }
        tracing::debug!(identity = %entry.text, "this host owns an identity that it does not run");
        match entry.problem() {
            None => parts.waking.tell(&entry, IdentityCommand::Wake),
            // It cannot be opened.
            Some(_) => drop(parts.ownership.hand_over(key, None).await.map_err(|error| error.to_string())?),
        }
    }
    Ok(())
}
