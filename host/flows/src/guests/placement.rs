//! On which threads a run is polled.
//!
//! A flow that only talks is polled where its identity and the connections are: to hand it over to other threads and back
//! takes longer than its own work. A flow that computes would hold those up. So once it has done so for a whole tick
//! (5 ms, `sandbox/src/state.rs`), or for [`LONG`] until its wait, it goes to the threads for guests
//! (`guests/threads.rs`), and flows of its kind begin there until several have shown that they do not. It comes back when
//! it talks again.
//!
//! Many flows that each compute for less than that would hold up the threads for I/O too. What an identity computes there
//! beyond [`BRIEF`] at a stretch is drawn from a bucket of its own; while that is empty its flows run on the threads for
//! guests.

use std::cell::Cell;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use futures::future::BoxFuture;
use maxhost_model::IdentityRow;
use maxhost_sandbox::contract::ContractEngine;
use maxhost_sandbox::{briefly, thread_time};

use crate::base::spawner::Spawner;
use crate::base::trouble::Trouble;
use crate::guests::jobs::GuestJobs;
use crate::guests::threads::GuestThreads;

/// So long a run may work at a stretch and still count as one that only talks. No run is told by it in tests, which must
/// not depend on how busy the machine is.
const LONG: Duration = if cfg!(test) { Duration::MAX } else { Duration::from_millis(2) };
/// So long a run may work at a stretch on the threads for I/O and draw nothing from its identity's bucket.
const BRIEF: Duration = Duration::from_micros(250);
/// What a bucket holds, and how much it can owe.
const BUCKET: Duration = Duration::from_millis(20);
/// A bucket is filled with this share of a core's time: one in so many.
const SHARE: u32 = 20;
/// After so many short stretches in a row a run comes back from the threads for guests.
const QUIET: u8 = 2;
/// Light runs that weigh as much as one long stretch.
const WEIGHT: u32 = 8;
/// So many light runs it takes at most until a flow no longer counts as one that computes.
const MOST: u32 = 64;

/// So long contracts may hold up the thread that asks them, and whatever else is polled there: then, or at the next tick of their
/// engine, they are broken off.
const MOST_HERE: Duration = Duration::from_millis(5);
/// Contracts that take so long are asked in turns the next times: so often.
const LONG_HERE: Duration = Duration::from_millis(1);
const IN_TURNS: u32 = 64;

/// What the runs of one flow were like of late.
#[derive(Debug, Default)]
pub(crate) struct CpuProfile(AtomicU32);

impl CpuProfile {
    /// Whether the next run is likely to compute.
    pub fn computes(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn note_long_work(&self) {
        let more = |weight: u32| Some((weight + WEIGHT).min(MOST));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    fn note_light_run(&self) {
        let less = |weight: u32| weight.checked_sub(1);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// So old a reading of a thread's time may be where a little more than was worked does no harm: a reading is a system call,
/// and a run takes less than that from one wait to the next.
const RECENT: Duration = Duration::from_micros(200);

/// The processor's time that this thread has had, as it was [`RECENT`] ago or later; what is reckoned from it is too much by that at most.
fn recent_thread_time(now: Instant) -> Duration {
    let (at, read) = READ.get();
    if at.is_some_and(|at| now.saturating_duration_since(at) < RECENT) {
        return read;
    }
    let read = thread_time();
    READ.set((Some(now), read));
    read
}

/// One poll of a run, on the thread that is at it.
#[derive(Debug, Clone, Copy)]
struct PollMark {
    /// No two polls of the process have the same.
    number: u64,
    /// The thread's time at its beginning.
    began: Duration,
}

thread_local! {
    static POLL: Cell<PollMark> = {
        static THREADS: AtomicU64 = AtomicU64::new(1);
        // So many polls no thread lives to see.
        let number = THREADS.fetch_add(1, Ordering::Relaxed) << 40;
        Cell::new(PollMark { number, began: Duration::ZERO })
    };
    /// The thread's time when it was read last, and when that was.
    static READ: Cell<(Option<Instant>, Duration)> = const { Cell::new((None, Duration::ZERO)) };
}

/// Notes that this thread begins to poll a run. Gives the thread's time.
fn note_poll(now: Instant) -> Duration {
    let began = recent_thread_time(now);
    POLL.set(PollMark { number: POLL.get().number + 1, began });
    began
}

/// How long one run works from one wait to the next: by the processor's time, because on a busy machine a run that does
/// little may be held up for long. It may yield in between, and go on on another thread.
#[derive(Debug)]
pub(crate) struct BusyTimer {
    since: Instant,
    /// What it has worked in polls that are over.
    worked: Duration,
    /// The poll in which it was looked at last, and the thread's time then.
    seen: PollMark,
    long: bool,
    quiet: u8,
}

impl BusyTimer {
    pub fn new() -> BusyTimer {
        let since = Instant::now();
        let seen = PollMark { number: POLL.get().number, began: recent_thread_time(since) };
        BusyTimer { since, worked: Duration::ZERO, seen, long: false, quiet: 0 }
    }

    /// The run works again.
    pub fn begin(&mut self) {
        self.since = Instant::now();
        self.worked = Duration::ZERO;
        self.seen = PollMark { number: POLL.get().number, began: recent_thread_time(self.since) };
    }

    /// Whether it has worked for long since it began to.
    fn is_long(&mut self) -> bool {
        self.since.elapsed() > LONG && self.work() > LONG
    }

    /// How long it has worked since it began to. What it did before it yielded counts if it was looked at then, as it is at
    /// every tick.
    fn work(&mut self) -> Duration {
        let (poll, now) = (POLL.get(), thread_time());
        let from = if poll.number == self.seen.number { self.seen.began } else { poll.began };
        self.worked += now.saturating_sub(from);
        self.seen = PollMark { number: poll.number, began: now };
        self.worked
    }

    /// A tick has passed while the run worked.
    pub fn tick(&mut self, profile: &CpuProfile, place: &Place) {
        if self.is_long() {
            self.computes(profile, place);
        }
    }

    /// The run waits, or is over.
    pub fn end(&mut self, profile: &CpuProfile, place: &Place) {
        if self.is_long() {
            self.computes(profile, place);
        } else if place.runs_apart() {
            self.quiet = self.quiet.saturating_add(1);
            if self.quiet >= QUIET && !profile.computes() {
                place.run_with_identity();
            }
        }
    }

    /// The run has been working for long.
    fn computes(&mut self, profile: &CpuProfile, place: &Place) {
        self.long = true;
        self.quiet = 0;
        profile.note_long_work();
        place.run_apart();
    }

    /// The guest is done; what its end still takes is the host's.
    pub fn close(&mut self, profile: &CpuProfile, place: &Place) {
        self.end(profile, place);
        self.begin();
        if !self.long {
            profile.note_light_run();
        }
    }
}

/// A flow of an installed CorDapp, with what its runs were like.
pub(crate) type FlowDef = maxhost_cordapps::FlowDef<CpuProfile>;

/// What the CorDapps of one identity can do together.
pub(crate) type CordappSet = maxhost_cordapps::CordappSet<CpuProfile>;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What identities have computed on the threads for I/O beyond what talking takes.
#[derive(Debug, Default)]
struct IoShare {
    buckets: DashMap<IdentityRow, Bucket>,
    /// How many there are: most hosts have none, and nobody has to look.
    count: AtomicUsize,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Nanoseconds; below zero it is in debt.
    level: i64,
    at: Instant,
}

const FULL: i64 = BUCKET.as_nanos() as i64;

impl Bucket {
    fn level(&self, now: Instant) -> i64 {
        let filled = now.saturating_duration_since(self.at) / SHARE;
        self.level.saturating_add(i64::try_from(filled.as_nanos()).unwrap_or(i64::MAX)).min(FULL)
    }
}

/// Full buckets are let go when there are so many.
const BUCKETS: usize = 1024;

impl IoShare {
    /// A run of this identity has worked for so long at a stretch.
    fn draw(&self, owner: IdentityRow, worked: Duration, now: Instant) {
        let Some(over) = worked.checked_sub(BRIEF).filter(|over| !over.is_zero()) else { return };
        {
            let mut bucket = self.buckets.entry(owner).or_insert(Bucket { level: FULL, at: now });
            let level = bucket.level(now).saturating_sub(i64::try_from(over.as_nanos()).unwrap_or(i64::MAX));
            *bucket = Bucket { level: level.max(-FULL), at: now };
        }
        if self.buckets.len() > BUCKETS {
            self.buckets.retain(|_, bucket| bucket.level(now) < FULL);
        }
        self.count.store(self.buckets.len(), Ordering::Relaxed);
    }

    /// Whether the bucket of this identity is empty.
    fn is_spent(&self, owner: IdentityRow) -> bool {
        self.count.load(Ordering::Relaxed) > 0
            && self.buckets.get(&owner).is_some_and(|bucket| bucket.level(Instant::now()) < 0)
    }
}

/// Identities whose contracts were not brief of late.
#[derive(Debug, Default)]
struct NotBrief {
    /// How often they are asked in turns before they are tried again.
    left: DashMap<IdentityRow, u32>,
    /// How many there are: most hosts have none, and nobody has to look.
    count: AtomicUsize,
}

impl NotBrief {
    fn note(&self, owner: IdentityRow) {
        self.left.insert(owner, IN_TURNS);
        self.count.store(self.left.len(), Ordering::Relaxed);
    }

    /// Whether contracts of this identity are to be asked in turns, once more.
    fn are(&self, owner: IdentityRow) -> bool {
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let Some(mut left) = self.left.get_mut(&owner) else { return false };
        *left = left.saturating_sub(1);
        let over = *left == 0;
        drop(left);
        if over {
            self.left.remove(&owner);
            self.count.store(self.left.len(), Ordering::Relaxed);
        }
        true
    }
}

/// Where one run is polled, and on whose account.
#[derive(Debug)]
pub(crate) struct Place {
    owner: IdentityRow,
    apart: AtomicBool,
}

impl Place {
    /// With its identity.
    pub fn of(owner: IdentityRow) -> Place {
        Place { owner, apart: AtomicBool::new(false) }
    }

    /// From its next wait or tick on the run is polled on the threads for guests.
    pub fn run_apart(&self) {
        self.apart.store(true, Ordering::Release);
    }

    /// From its next wait on the run is polled where its identity is.
    fn run_with_identity(&self) {
        self.apart.store(false, Ordering::Release);
    }

    /// Whether it is polled on the threads for guests, or is to be.
    fn runs_apart(&self) -> bool {
        self.apart.load(Ordering::Acquire)
    }
}

/// The threads that runs are polled on. Clones are one and the same.
#[derive(Clone)]
pub(crate) struct Placement {
    /// Threads for everything but guests that compute.
    io: Spawner,
    guests: Arc<GuestThreads>,
    jobs: Arc<GuestJobs>,
    share: Arc<IoShare>,
    not_brief: Arc<NotBrief>,
}

/// Instances of contracts that are left to whoever does not take turns: clients, and code that is being loaded.
const SPARE_SLOTS: u32 = 2;

/// The processors of a simulation.
#[cfg(test)]
const SIMULATED_THREADS: usize = 4;

impl Placement {
    pub fn new(io: Spawner, guests: Arc<GuestThreads>) -> Placement {
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        // A job that has the turn must not wait for an instance of one that waits for a turn.
        let most = ContractEngine::usual_slots().saturating_sub(SPARE_SLOTS) as usize;
        let jobs = GuestJobs::new(guests.clone(), most, threads.min(most / 2));
        Placement { io, guests, jobs, share: Arc::default(), not_brief: Arc::default() }
    }

    /// Does work that a flow of this identity wants and that blocks, in the turns of the threads for guests. It calls
    /// [`maxhost_sandbox::pace`] now and then.
    ///
    /// # Errors
    /// The work has panicked, which is a defect.
    pub fn work<R: Send + 'static>(
        &self,
        owner: IdentityRow,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> BoxFuture<'static, Result<R, Trouble>> {
        #[cfg(test)]
        if self.io.executor().is_some() {
            return self.io.blocking(work);
        }
        let jobs = self.jobs.clone();
        Box::pin(async move { jobs.run(owner, work).await })
    }

    /// Into how many parts work is divided that all processors do together.
    pub fn threads(&self) -> usize {
        #[cfg(test)]
        if self.io.executor().is_some() {
            // The same on every machine, so that a seed tells the same story on all of them.
            return SIMULATED_THREADS;
        }
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    }

    /// Does work that asks contracts about few states and is likely to be brief, where the flow of this identity is polled that
    /// wants it: to hand it over to other threads and back takes about as long as the work itself. `None` if it is to be done in
    /// turns ([`Placement::work`]), from its beginning: nothing is known of it. That is so for a while after contracts of the
    /// identity took long.
    pub fn try_here<R, E>(&self, owner: IdentityRow, work: impl FnOnce() -> Result<R, E>) -> Option<R> {
        #[cfg(test)]
        if self.io.executor().is_some() {
            return None;
        }
        if self.not_brief.are(owner) || self.is_spent(owner) {
            return None;
        }
        let (began, thread_began) = (Instant::now(), recent_thread_time(Instant::now()));
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| briefly(MOST_HERE, work)));
        let took_long = began.elapsed() > LONG_HERE && thread_time().saturating_sub(thread_began) > LONG_HERE + RECENT;
        let done = done.ok().and_then(Result::ok);
        if took_long || done.is_none() {
            self.not_brief.note(owner);
        }
        done
    }

    /// Whether this identity has computed so much on the threads for I/O that its next runs belong elsewhere.
    pub fn is_spent(&self, owner: IdentityRow) -> bool {
        self.share.is_spent(owner)
    }

    /// Polls a run to its end, where its place says.
    pub fn spawn(&self, place: Arc<Place>, work: impl Future<Output = ()> + Send + 'static) {
        #[cfg(test)]
        if let Some(executor) = self.io.executor() {
            return executor.spawn(work);
        }
        self.put(place, Box::pin(work));
    }

    fn put(&self, place: Arc<Place>, work: Work) {
        let (apart, owner) = (place.runs_apart(), place.owner);
        let placed = Placed { placement: self.clone(), place, work: Some(work), apart };
        if apart {
            self.guests.spawn(owner, placed);
        } else {
            self.io.spawn(placed);
        }
    }

    /// The guests' threads end.
    pub fn stop(&self) {
        self.guests.stop();
    }
}

/// A run that is polled where it belongs: with its identity, or apart on the threads for guests.
struct Placed {
    placement: Placement,
    place: Arc<Place>,
    work: Option<Work>,
    apart: bool,
}

impl Future for Placed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let begun = Instant::now();
        let thread_begun = note_poll(begun);
        let Some(work) = &mut self.work else { return Poll::Ready(()) };
        if work.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        if !self.apart {
            let now = Instant::now();
            let (share, owner) = (&self.placement.share, self.place.owner);
            let took = now.saturating_duration_since(begun);
            if took > BRIEF {
                share.draw(owner, thread_time().saturating_sub(thread_begun).min(took), now);
            }
            if share.is_spent(owner) {
                self.place.run_apart();
            }
        }
        if self.place.runs_apart() == self.apart {
            return Poll::Pending;
        }
        // Polled there at once, it names whom to wake from now on, so nothing that happens meanwhile is missed.
        if let Some(work) = self.work.take() {
            self.placement.put(self.place.clone(), work);
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_flow_counts_as_one_that_computes_until_several_runs_did_not() {
        let profile = CpuProfile::default();
        profile.note_light_run();
        assert!(!profile.computes());
        profile.note_long_work();
        for _ in 1..WEIGHT {
            profile.note_light_run();
            assert!(profile.computes());
        }
        profile.note_light_run();
        assert!(!profile.computes());
        (0..1_000).for_each(|_| profile.note_long_work());
        (0..MOST).for_each(|_| profile.note_light_run());
        assert!(!profile.computes(), "however much it computed once");
    }

    /// Works until this thread has had a millisecond more of the processor.
    fn work_a_millisecond() {
        let until = thread_time() + Duration::from_millis(1);
        while thread_time() < until {}
    }

    #[test]
    fn only_work_counts_as_work_whichever_threads_do_it() {
        let mut timer = BusyTimer::new();
        timer.begin();
        // It is held up, and goes on on another thread, which has worked for others.
        std::thread::sleep(Duration::from_millis(5));
        let mut timer = std::thread::spawn(move || {
            work_a_millisecond();
            note_poll(Instant::now());
            assert!(timer.work() < Duration::from_micros(900), "{timer:?}");
            timer
        })
        .join()
        .unwrap();
        // It works in turns on several threads.
        for turn in 1..=4 {
            timer = std::thread::spawn(move || {
                note_poll(Instant::now());
                work_a_millisecond();
                let worked = timer.work();
                assert!(worked >= Duration::from_millis(turn), "in turn {turn}: {timer:?}");
                timer
            })
            .join()
            .unwrap();
        }
        timer.begin();
        assert!(timer.work() < Duration::from_millis(1), "{timer:?}");
    }

    #[test]
    fn whose_contracts_were_not_brief_is_asked_in_turns_for_a_while() {
        let not_brief = NotBrief::default();
        assert!(!not_brief.are(IdentityRow(1)));
        not_brief.note(IdentityRow(1));
        assert!(!not_brief.are(IdentityRow(2)), "others are not affected");
        assert!((0..IN_TURNS).all(|_| not_brief.are(IdentityRow(1))));
        assert!(!not_brief.are(IdentityRow(1)));
        assert_eq!(not_brief.count.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn brief_work_is_free_and_much_of_it_empties_the_bucket() {
        let (share, owner, begun) = (IoShare::default(), IdentityRow(1), Instant::now());
        (0..10_000).for_each(|_| share.draw(owner, BRIEF, begun));
        assert!(!share.is_spent(owner));
        (0..20).for_each(|_| share.draw(owner, Duration::from_millis(2), begun));
        assert!(share.is_spent(owner));
        assert!(!share.is_spent(IdentityRow(2)), "the bucket is its own");
        let bucket = *share.buckets.get(&owner).unwrap();
        assert!(bucket.level >= -FULL, "no debt is for ever");
        assert_eq!(bucket.level(begun + BUCKET * SHARE * 2), FULL);
    }
}
