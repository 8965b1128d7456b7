//! Work that guests cause and that cannot be broken off by whoever polls it: contracts that judge a transaction, certificates
//! and signatures that are checked, journals that are folded. It takes its turns on the threads for guests, on the account
//! of the identity whose flow wants it, so that an identity whose flows verify is to others as one whose flows compute.
//!
//! Each job is done on a worker of its own, which computes only while it has a turn. One that no run waits for is lent to it at
//! once; otherwise a thread for guests hands over its own, and waits meanwhile. So no more threads compute than there are
//! threads for guests. A turn lasts for [`TURN`] and as
//! long as the job takes from one call of [`maxhost_sandbox::pace`] to the next.
//!
//! What has begun stays in memory until it is done, so few jobs are begun at once, fewer of one identity, and identities
//! take turns in beginning ([`JobQueue`]). The others wait: each is waited for by a flow that is in memory.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use maxhost_model::IdentityRow;
use maxhost_sandbox::{in_turns, pace};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::base::trouble::Trouble;
use crate::guests::threads::{GuestThreads, LentTurn, step_back};

/// How long a job goes on before it lets others go first.
const TURN: Duration = Duration::from_millis(5);
/// So long a worker waits for another job before its thread ends.
const IDLE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// Which jobs have begun, and which wait.
struct JobQueue<J> {
    /// At most so many have begun at once, and so many of one identity.
    most: usize,
    most_of_one: usize,
    begun: usize,
    owners: HashMap<IdentityRow, OwnersJobs<J>>,
    /// Identities of which another job may begin, in turn.
    order: VecDeque<IdentityRow>,
}

struct OwnersJobs<J> {
    begun: usize,
    waiting: VecDeque<J>,
    /// It stands in the order.
    is_next: bool,
}

impl<J> JobQueue<J> {
    fn new(most: usize, most_of_one: usize) -> JobQueue<J> {
        JobQueue { most, most_of_one, begun: 0, owners: HashMap::new(), order: VecDeque::new() }
    }

    fn add(&mut self, owner: IdentityRow, job: J) {
        let nothing = OwnersJobs { begun: 0, waiting: VecDeque::new(), is_next: false };
        self.owners.entry(owner).or_insert(nothing).waiting.push_back(job);
        self.put_in_order(owner);
    }

    fn put_in_order(&mut self, owner: IdentityRow) {
        let most = self.most_of_one;
        if let Some(jobs) = self.owners.get_mut(&owner).filter(|jobs| !jobs.is_next)
            && jobs.begun < most
            && !jobs.waiting.is_empty()
        {
            jobs.is_next = true;
            self.order.push_back(owner);
        }
    }

    /// The next job to begin, if another one may.
    fn next(&mut self) -> Option<(IdentityRow, J)> {
        if self.begun >= self.most {
            return None;
        }
        let owner = self.order.pop_front()?;
        let jobs = self.owners.get_mut(&owner)?;
        jobs.is_next = false;
        let job = jobs.waiting.pop_front()?;
        jobs.begun += 1;
        self.begun += 1;
        self.put_in_order(owner);
        Some((owner, job))
    }

    /// A job of this identity that has begun is over.
    fn over(&mut self, owner: IdentityRow) {
        self.begun = self.begun.saturating_sub(1);
        let Some(jobs) = self.owners.get_mut(&owner) else { return };
        jobs.begun = jobs.begun.saturating_sub(1);
        if jobs.begun == 0 && jobs.waiting.is_empty() {
            self.owners.remove(&owner);
        } else {
            self.put_in_order(owner);
        }
    }
}

/// The jobs of a host.
pub(crate) struct GuestJobs {
    guests: Arc<GuestThreads>,
    state: Mutex<State>,
    work: Condvar,
}

struct State {
    queue: JobQueue<Job>,
    /// Workers there are, and those of them that wait for a job.
    workers: usize,
    idle: usize,
}

impl GuestJobs {
    /// At most `most` are begun at once, and `most_of_one` of one identity. Their turns are those of these threads.
    pub fn new(guests: Arc<GuestThreads>, most: usize, most_of_one: usize) -> Arc<GuestJobs> {
        let queue = JobQueue::new(most.max(1), most_of_one.clamp(1, most.max(1)));
        let state = Mutex::new(State { queue, workers: 0, idle: 0 });
        Arc::new(GuestJobs { guests, state, work: Condvar::new() })
    }

    /// Does work that blocks, on the account of an identity, and gives what it comes to. One that has not begun when nobody waits
    /// for it any more is not done.
    ///
    /// # Errors
    /// The work has panicked, which is a defect, or there is no thread for it.
    pub async fn run<R: Send + 'static>(
        self: &Arc<GuestJobs>,
        owner: IdentityRow,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, Trouble> {
        let (reply, done) = oneshot::channel();
        let job = move || {
            if !reply.is_closed() {
                let _ = reply.send(work());
            }
        };
        self.begin(owner, Box::new(job));
        done.await.map_err(|_| Trouble::defect("work that a flow wanted was broken off"))
    }

    fn begin(self: &Arc<GuestJobs>, owner: IdentityRow, job: Job) {
        let mut state = self.state.lock();
        state.queue.add(owner, job);
        self.see_to_workers(&mut state);
    }

    /// Has another worker look for a job, if one may begin. It does the same when it has one.
    fn see_to_workers(self: &Arc<GuestJobs>, state: &mut State) {
        if state.queue.order.is_empty() || state.queue.begun >= state.queue.most {
            return;
        }
        if state.idle > 0 {
            self.work.notify_one();
        } else if state.workers < state.queue.most {
            let jobs = self.clone();
            match std::thread::Builder::new().name("guest-job".to_owned()).spawn(move || jobs.serve()) {
                Ok(_) => state.workers += 1,
                Err(error) => {
                    tracing::error!(%error, "there is no thread for the work of flows");
                    // Without any worker nobody would ever do it. Whoever waits for a job is told so when it is dropped.
                    while state.workers == 0
                        && let Some((owner, job)) = state.queue.next()
                    {
                        drop(job);
                        state.queue.over(owner);
                    }
                }
            }
        }
    }

    /// A worker: does one job after the other.
    fn serve(self: Arc<GuestJobs>) {
        step_back();
        let mut state = self.state.lock();
        loop {
            let Some((owner, job)) = state.queue.next() else {
                state.idle += 1;
                let waited = self.work.wait_for(&mut state, IDLE);
                state.idle -= 1;
                if waited.timed_out() && state.queue.order.is_empty() {
                    state.workers -= 1;
                    return;
                }
                continue;
            };
            self.see_to_workers(&mut state);
            drop(state);
            let done = std::panic::catch_unwind(AssertUnwindSafe(|| Turns::of(&self.guests, owner).run(job)));
            if done.is_err() {
                tracing::error!(?owner, "work that a flow wanted panicked: this is a defect of the host");
            }
            state = self.state.lock();
            state.queue.over(owner);
        }
    }
}

/// The turns of one job, as its worker has them.
struct Turns {
    guests: Arc<GuestThreads>,
    owner: IdentityRow,
    gate: Arc<Gate>,
    /// Since when it has this turn.
    begun: Cell<Instant>,
    /// The turn, if it is lent.
    lent: Cell<Option<LentTurn>>,
    /// It has its turns from a thread for guests from now on.
    handed_over: Cell<bool>,
}

impl Turns {
    fn of(guests: &Arc<GuestThreads>, owner: IdentityRow) -> Turns {
        Turns {
            guests: guests.clone(),
            owner,
            gate: Arc::default(),
            begun: Cell::new(Instant::now()),
            lent: Cell::new(None),
            handed_over: Cell::new(false),
        }
    }

    /// Does the job.
    fn run(self, job: Job) {
        struct Over(Arc<Gate>);
        impl Drop for Over {
            fn drop(&mut self) {
                self.0.set(Stage::Over);
            }
        }
        let _over = Over(self.gate.clone());
        self.next();
        let between = move || {
            if self.begun.get().elapsed() >= TURN {
                self.next();
            }
        };
        in_turns(Rc::new(between), job);
    }

    /// Gives its turn back, if it has one, and waits for the next.
    fn next(&self) {
        if self.handed_over.get() {
            self.gate.give_back();
            self.gate.until_turn();
        } else {
            // Whoever waits for the turn that is given back goes first.
            drop(self.lent.take());
            match self.guests.lend(self.owner) {
                Some(turn) => self.lent.set(Some(turn)),
                None => self.have_handed_over(),
            }
        }
        self.begun.set(Instant::now());
    }

    /// Stands in for a run among the others until the job is over.
    fn have_handed_over(&self) {
        self.handed_over.set(true);
        self.guests.spawn(self.owner, Turn(self.gate.clone()));
        self.gate.until_turn();
    }
}

/// Who of the two computes: the worker, or the thread for guests that has handed its turn over.
#[derive(Default)]
struct Gate {
    stage: Mutex<Stage>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The worker waits for a turn.
    #[default]
    Waits,
    /// It has one.
    Runs,
    /// The job is over.
    Over,
    /// There are no turns any more, because the host stops: the job goes on without.
    Free,
}

impl Gate {
    fn set(&self, stage: Stage) {
        *self.stage.lock() = stage;
        self.changed.notify_all();
    }

    /// The worker waits for its next turn.
    fn until_turn(&self) {
        let mut stage = self.stage.lock();
        while *stage == Stage::Waits {
            self.changed.wait(&mut stage);
        }
    }

    fn give_back(&self) {
        let mut stage = self.stage.lock();
        if *stage == Stage::Runs {
            *stage = Stage::Waits;
            self.changed.notify_all();
        }
    }

    /// The worker has this thread's turn. True if its job is over.
    fn hand_over(&self) -> bool {
        let mut stage = self.stage.lock();
        if *stage == Stage::Waits {
            *stage = Stage::Runs;
            self.changed.notify_all();
        }
        while *stage == Stage::Runs {
            self.changed.wait(&mut stage);
        }
        *stage != Stage::Waits
    }
}

/// The turns of a job, as the threads for guests see it: a run that computes for one turn and wants another one.
struct Turn(Arc<Gate>);

impl Future for Turn {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0.hand_over() {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut stage = self.0.stage.lock();
        if *stage != Stage::Over {
            *stage = Stage::Free;
            self.0.changed.notify_all();
        }
    }
}

/// Does the same with each of many things, and lets others go first now and then.
pub(crate) fn each_in_turns<T, R>(things: Vec<T>, work: impl Fn(T) -> R) -> Vec<R> {
    let paced = |thing| {
        pace();
        work(thing)
    };
    things.into_iter().map(paced).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use maxhost_sandbox::thread_time;
    use tokio::runtime::Handle;

    use super::*;

    const CAROL: IdentityRow = IdentityRow(1);
    const ALICE: IdentityRow = IdentityRow(2);

    #[test]
    fn identities_take_turns_in_beginning_however_many_jobs_each_has() {
        let mut queue = JobQueue::new(3, 2);
        (0..60).for_each(|number| queue.add(CAROL, number));
        let first: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(first, [(CAROL, 0), (CAROL, 1)], "one identity never has all of them");
        (60..70).for_each(|number| queue.add(ALICE, number));
        assert_eq!(queue.next(), Some((ALICE, 60)));
        assert_eq!(queue.next(), None);
        let mut begun = Vec::new();
        for over in [CAROL, CAROL, ALICE, CAROL, ALICE] {
            queue.over(over);
            begun.extend(queue.next().map(|(owner, _)| owner));
            assert_eq!(queue.begun, 3);
            assert!(queue.owners.values().all(|jobs| jobs.begun <= 2));
        }
        assert!(begun.iter().filter(|owner| **owner == ALICE).count() >= 2, "{begun:?}");
    }

    #[test]
    fn whoever_has_nothing_to_do_is_forgotten() {
        let mut queue = JobQueue::new(2, 2);
        for number in 0..1_000 {
            queue.add(IdentityRow(number), ());
            let (owner, ()) = queue.next().unwrap();
            queue.over(owner);
        }
        assert!(queue.owners.is_empty() && queue.order.is_empty() && queue.begun == 0);
    }

    /// Works until this thread has had so much of the processor, and lets others go first in between.
    fn work_for(time: Duration) {
        let until = thread_time() + time;
        while thread_time() < until {
            pace();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_job_waits_for_the_turns_at_hand_and_not_for_sixty_jobs_of_another() {
        let guests = Arc::new(GuestThreads::start(1, &Handle::current()).unwrap());
        let jobs = GuestJobs::new(guests, 4, 2);
        let (turns, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        for _ in 0..60 {
            let (jobs, turns, over) = (jobs.clone(), turns.clone(), over.clone());
            let spin = move || {
                while !over.load(Ordering::SeqCst) {
                    turns.fetch_add(1, Ordering::SeqCst);
                    work_for(TURN * 2);
                }
            };
            tokio::spawn(async move { drop(jobs.run(CAROL, spin).await) });
        }
        while turns.load(Ordering::SeqCst) < 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut between = Vec::new();
        for _ in 0..11 {
            let before = turns.load(Ordering::SeqCst);
            let done = tokio::time::timeout(Duration::from_secs(60), jobs.run(ALICE, || work_for(TURN / 5))).await;
            done.unwrap().unwrap();
            between.push(turns.load(Ordering::SeqCst) - before);
        }
        over.store(true, Ordering::SeqCst);
        between.sort_unstable();
        // The system may hold up whoever wants the job: so the median.
        assert!(between[5] <= 3, "others had so many turns before a job of less than one was done: {between:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_panics_ends_alone() {
        let guests = Arc::new(GuestThreads::start(2, &Handle::current()).unwrap());
        let jobs = GuestJobs::new(guests, 2, 2);
        let panics = jobs.run(CAROL, || -> u32 { panic!("on purpose") }).await;
        assert!(panics.is_err());
        for number in 0..20 {
            assert_eq!(jobs.run(CAROL, move || number).await.unwrap(), number);
        }
        // The last answer comes a moment before its job is over.
        let all_over = async {
            while jobs.state.lock().queue.begun > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all_over).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_has_begun_is_done_when_the_threads_end() {
        let guests = Arc::new(GuestThreads::start(1, &Handle::current()).unwrap());
        let jobs = GuestJobs::new(guests.clone(), 2, 2);
        let (begun, has_begun) = oneshot::channel();
        let of_carol = jobs.clone();
        let job = tokio::spawn(async move {
            let work = move || {
                let _ = begun.send(());
                work_for(TURN * 10);
                7
            };
            of_carol.run(CAROL, work).await
        });
        has_begun.await.unwrap();
        guests.stop();
        assert_eq!(tokio::time::timeout(Duration::from_secs(60), job).await.unwrap().unwrap().unwrap(), 7);
        let free = tokio::time::timeout(Duration::from_secs(60), jobs.run(ALICE, || 8)).await;
        assert_eq!(free.unwrap().unwrap(), 8, "there are no turns to wait for");
    }
}
