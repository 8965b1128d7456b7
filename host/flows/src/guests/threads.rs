//! Threads for guests that compute, shared fairly by identity.
//!
//! Every identity has an account of the time that its runs have computed here. A free thread takes a run of the identity
//! that has had least, and lets it compute until it waits or its tick is over (5 ms, `sandbox/src/state.rs`). So it makes
//! no difference to an identity whether another one computes with one flow or with a thousand. Time that an identity does
//! not use is not saved up beyond [`CREDIT`]: a bucket of tokens that is filled at the pace of the others.
//!
//! A turn that no run waits for is lent to work on another thread ([`GuestThreads::lend`]), which need not wait for one of
//! these threads to hand its own over. No more runs and borrowers compute at once than there are threads.
//!
//! The threads run at a lower priority than those for I/O, so that a full host still answers.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use maxhost_model::{Code, IdentityRow, Problem};
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;

/// So far an identity that had nothing to compute may be ahead of the others.
const CREDIT: Duration = Duration::from_millis(20);
/// What a run is taken to compute until it is known: one tick.
const TURN: Duration = Duration::from_millis(5);
/// So many runs there may be before those that are gone are looked for.
const SWEEP: usize = 1024;
/// How much the kernel prefers other threads of the host to these: steps of `nice`.
const LOWER: i32 = 5;
/// So long the kernel lets one of these threads go on before it looks whether another has woken (sched(7), since Linux
/// 6.12; older ones take no notice).
const SLICE: Duration = Duration::from_micros(100);

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The threads. Dropped, they end with the turn that they are at, and drop what they were given.
pub(crate) struct GuestThreads {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    accounts: HashMap<IdentityRow, Account>,
    /// The identities that have a run to poll, by the time they have had.
    order: BTreeSet<(u64, IdentityRow)>,
    /// The time that the last one taken had had, nanoseconds: nobody who comes later begins far behind it.
    clock: u64,
    /// All that are not over, also those that wait: they are dropped with the threads.
    tasks: HashMap<u64, Weak<Task>>,
    next_task: u64,
    /// With so many, those that were dropped by whoever could have woken them are let go.
    sweep_at: usize,
    /// How many may compute at once, how many runs are being polled, and how many turns are lent.
    threads: usize,
    polled: usize,
    lent: usize,
    stopped: bool,
}

#[derive(Default)]
struct Account {
    /// The processor time that it has had, nanoseconds.
    had: u64,
    queue: VecDeque<Arc<Task>>,
    /// Runs of it that are being polled, and turns that are lent to it.
    polled: u32,
}

const IDLE: u8 = 0;
const QUEUED: u8 = 1;
const POLLED: u8 = 2;
/// Woken while it was polled.
const AGAIN: u8 = 3;
const OVER: u8 = 4;

struct Task {
    number: u64,
    owner: IdentityRow,
    shared: Weak<Shared>,
    stage: AtomicU8,
    work: Mutex<Option<Work>>,
}

impl GuestThreads {
    /// Starts so many threads. Timers of what they poll are those of `io`.
    pub fn start(count: usize, io: &Handle) -> Result<GuestThreads, Problem> {
        let count = count.max(1);
        let state = State { threads: count, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), work: Condvar::new() });
        let threads = GuestThreads { shared: shared.clone() };
        for _ in 0..count {
            let (shared, io) = (shared.clone(), io.clone());
            std::thread::Builder::new()
                .name("guest".to_owned())
                .spawn(move || serve(&shared, &io))
                .map_err(|error| Problem::new(Code::Internal, format!("no threads for guests: {error}")))?;
        }
        Ok(threads)
    }

    /// None at all, for a simulation.
    #[cfg(test)]
    pub fn none() -> GuestThreads {
        GuestThreads { shared: Arc::new(Shared { state: Mutex::default(), work: Condvar::new() }) }
    }

    /// Polls this here to its end, on the account of this identity.
    pub fn spawn(&self, owner: IdentityRow, work: impl Future<Output = ()> + Send + 'static) {
        let mut state = self.shared.state.lock();
        if state.stopped {
            return;
        }
        let number = state.next_task;
        state.next_task += 1;
        if state.tasks.len() >= state.sweep_at {
            state.tasks.retain(|_, task| task.strong_count() > 0);
            state.sweep_at = (state.tasks.len() * 2).max(SWEEP);
        }
        let task = Arc::new(Task {
            number,
            owner,
            shared: Arc::downgrade(&self.shared),
            stage: AtomicU8::new(QUEUED),
            work: Mutex::new(Some(Box::pin(work))),
        });
        state.tasks.insert(number, Arc::downgrade(&task));
        state.enqueue(task);
        drop(state);
        self.shared.work.notify_one();
    }

    /// A turn for work on another thread, on the account of this identity, if there is one that no run waits for. Whoever has it
    /// gives it back after [`TURN`], so that no run that comes meanwhile waits for longer than for another run.
    pub fn lend(&self, owner: IdentityRow) -> Option<LentTurn> {
        let mut state = self.shared.state.lock();
        if state.stopped || !state.order.is_empty() || !state.has_room() {
            return None;
        }
        state.lend(owner);
        Some(LentTurn { shared: self.shared.clone(), owner, begun: Instant::now() })
    }

    /// Ends the threads. What they were given is dropped.
    pub fn stop(&self) {
        let (accounts, tasks) = {
            let mut state = self.shared.state.lock();
            state.stopped = true;
            state.order.clear();
            (std::mem::take(&mut state.accounts), std::mem::take(&mut state.tasks))
        };
        self.shared.work.notify_all();
        drop(accounts);
        for task in tasks.into_values().filter_map(|task| task.upgrade()) {
            // One that is being polled is dropped by its thread.
            if let Some(mut work) = task.work.try_lock() {
                *work = None;
            }
        }
    }
}

impl Drop for GuestThreads {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A turn of the threads for guests that another thread has. Dropped, it is given back.
pub(crate) struct LentTurn {
    shared: Arc<Shared>,
    owner: IdentityRow,
    begun: Instant,
}

impl Drop for LentTurn {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.lent -= 1;
        state.charge(self.owner, self.begun.elapsed());
        let wanted = !state.order.is_empty();
        drop(state);
        // A thread that found no room for a run waits for this.
        if wanted {
            self.shared.work.notify_one();
        }
    }
}

impl Shared {
    fn enqueue(&self, task: Arc<Task>) {
        let mut state = self.state.lock();
        if state.stopped {
            return;
        }
        state.enqueue(task);
        drop(state);
        self.work.notify_one();
    }
}

impl State {
    fn enqueue(&mut self, task: Arc<Task>) {
        let owner = task.owner;
        let least = self.clock.saturating_sub(CREDIT.as_nanos() as u64);
        let account = self.accounts.entry(owner).or_default();
        if account.queue.is_empty() {
            account.had = account.had.max(least);
            self.order.insert((account.had, owner));
        }
        account.queue.push_back(task);
    }

    fn has_room(&self) -> bool {
        self.polled + self.lent < self.threads
    }

    /// As [`State::take`], without a run.
    fn lend(&mut self, owner: IdentityRow) {
        self.lent += 1;
        let least = self.clock.saturating_sub(CREDIT.as_nanos() as u64);
        let account = self.accounts.entry(owner).or_default();
        account.polled += 1;
        account.had = account.had.max(least) + TURN.as_nanos() as u64;
    }

    /// The next run in turn. Its identity is charged for a turn at once, or every thread would take one of the same.
    fn take(&mut self) -> Option<Arc<Task>> {
        let (had, owner) = self.order.pop_first()?;
        self.clock = self.clock.max(had);
        let account = self.accounts.get_mut(&owner)?;
        let task = account.queue.pop_front()?;
        account.polled += 1;
        account.had = had + TURN.as_nanos() as u64;
        if !account.queue.is_empty() {
            self.order.insert((account.had, owner));
        }
        Some(task)
    }

    /// A run of this identity has computed for so long.
    fn charge(&mut self, owner: IdentityRow, computed: Duration) {
        let Some(account) = self.accounts.get_mut(&owner) else { return };
        let before = account.had;
        account.polled -= 1;
        account.had = before.saturating_add(computed.as_nanos() as u64).saturating_sub(TURN.as_nanos() as u64);
        if !account.queue.is_empty() {
            self.order.remove(&(before, owner));
            self.order.insert((account.had, owner));
        }
    }

    /// Forgets who has had no more than anybody who comes anew; all, when nobody has anything to compute.
    fn forget_idle(&mut self) {
        let (clock, idle) = (self.clock, self.order.is_empty());
        self.accounts
            .retain(|_, account| !account.queue.is_empty() || account.polled > 0 || (!idle && account.had > clock));
    }
}

/// Accounts that may lie idle before they are looked through.
const IDLE_ACCOUNTS: usize = 1024;

fn serve(shared: &Arc<Shared>, io: &Handle) {
    step_back();
    let _context = io.enter();
    let mut state = shared.state.lock();
    while !state.stopped {
        if !state.has_room() {
            shared.work.wait(&mut state);
            continue;
        }
        let Some(task) = state.take() else {
            state.forget_idle();
            shared.work.wait(&mut state);
            continue;
        };
        state.polled += 1;
        if state.accounts.len() > IDLE_ACCOUNTS {
            state.forget_idle();
        }
        drop(state);
        let begun = Instant::now();
        let again = task.poll();
        state = shared.state.lock();
        state.polled -= 1;
        if state.stopped {
            drop(state);
            *task.work.lock() = None;
            return;
        }
        state.charge(task.owner, begun.elapsed());
        if task.stage.load(Ordering::Acquire) == OVER {
            state.tasks.remove(&task.number);
        } else if again {
            state.enqueue(task);
        }
    }
}

/// The kernel prefers other threads to this one: those that wake have the processor soon, and this one has less of it while
/// others want it. Where it does not allow that, this one is like the others.
pub(crate) fn step_back() {
    // SAFETY: the call takes a number and touches no memory. On Linux it is about the calling thread alone.
    unsafe { libc::nice(LOWER) };
    #[cfg(target_os = "linux")]
    {
        // SAFETY: a struct of plain numbers, for which zeros are valid.
        let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
        attributes.size = std::mem::size_of::<libc::sched_attr>() as u32;
        attributes.sched_policy = libc::SCHED_OTHER as u32;
        attributes.sched_nice = LOWER;
        attributes.sched_runtime = SLICE.as_nanos() as u64;
        // SAFETY: the call reads the struct, whose size is in it, and is about the calling thread alone.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    }
}

impl Task {
    /// Polls it once. True if it wants to be polled again at once.
    fn poll(self: &Arc<Task>) -> bool {
        self.stage.store(POLLED, Ordering::Release);
        let waker = Waker::from(self.clone());
        let mut work = self.work.lock();
        let Some(future) = work.as_mut() else { return false };
        let polled =
            std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
        match polled {
            Ok(Poll::Pending) => {
                drop(work);
                // Woken meanwhile, it is still this thread's to put into the queue.
                self.stage.compare_exchange(POLLED, IDLE, Ordering::AcqRel, Ordering::Acquire).is_err() && {
                    self.stage.store(QUEUED, Ordering::Release);
                    true
                }
            }
            done => {
                if done.is_err() {
                    tracing::error!("a run panicked: this is a defect of the host");
                }
                self.stage.store(OVER, Ordering::Release);
                *work = None;
                false
            }
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Task>) {
        let next = |stage| match stage {
            IDLE => Some(QUEUED),
            POLLED => Some(AGAIN),
            _ => None,
        };
        if self.stage.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) == Ok(IDLE)
            && let Some(shared) = self.shared.upgrade()
        {
            shared.enqueue(self);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::atomic::AtomicU64;

    use super::*;

    fn task(owner: i64) -> Arc<Task> {
        Arc::new(Task {
            number: 0,
            owner: IdentityRow(owner),
            shared: Weak::new(),
            stage: AtomicU8::new(QUEUED),
            work: Mutex::default(),
        })
    }

    #[test]
    fn turns_go_round_by_identity_however_many_runs_each_has() {
        let mut state = State::default();
        (0..600).for_each(|_| state.enqueue(task(1)));
        let mut turns = HashMap::new();
        for round in 0..1_000 {
            if round == 500 {
                state.enqueue(task(2));
            }
            let task = state.take().unwrap();
            *turns.entry(task.owner.0).or_insert(0) += 1;
            state.charge(task.owner, TURN);
            state.enqueue(task);
        }
        let ratio = f64::from(turns[&2]) / 500.0;
        assert!((0.45..0.6).contains(&ratio), "{turns:?}");
    }

    #[test]
    fn who_computes_little_goes_before_who_computes_much() {
        let mut state = State::default();
        (0..10).for_each(|_| state.enqueue(task(1)));
        for _ in 0..100 {
            let spins = state.take().unwrap();
            state.charge(spins.owner, TURN);
            state.enqueue(spins);
            state.enqueue(task(2));
            let brief = state.take().unwrap();
            assert_eq!(brief.owner, IdentityRow(2));
            state.charge(brief.owner, Duration::from_micros(50));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_run_that_does_little_waits_for_the_turns_at_hand_and_not_for_six_hundred() {
        const THREADS: usize = 2;
        let threads = GuestThreads::start(THREADS, &Handle::current()).unwrap();
        let turns = Arc::new(AtomicU64::new(0));
        for _ in 0..600 {
            let turns = turns.clone();
            threads.spawn(IdentityRow(1), async move {
                loop {
                    turns.fetch_add(1, Ordering::SeqCst);
                    let until = Instant::now() + Duration::from_micros(300);
                    while Instant::now() < until {}
                    tokio::task::yield_now().await;
                }
            });
        }
        let (done, seen) = tokio::sync::oneshot::channel();
        threads.spawn(IdentityRow(2), async move {
            let mut between = Vec::new();
            for _ in 0..201 {
                let before = turns.load(Ordering::SeqCst);
                tokio::task::yield_now().await;
                between.push(turns.load(Ordering::SeqCst) - before);
            }
            between.sort_unstable();
            let _ = done.send(between);
        });
        let between = tokio::time::timeout(Duration::from_secs(60), seen).await.unwrap().unwrap();
        // The system may hold up the thread that has taken it, and the others go on meanwhile: so the median.
        assert!(
            between[100] <= 2 * THREADS as u64,
            "others had so many turns from one of its own to the next: {between:?}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_turn_is_lent_when_there_is_one_and_a_run_that_comes_has_the_next() {
        let threads = GuestThreads::start(1, &Handle::current()).unwrap();
        let lent = threads.lend(IdentityRow(1)).unwrap();
        assert!(threads.lend(IdentityRow(2)).is_none(), "there is one thread");
        let (begun, has_begun) = std::sync::mpsc::channel();
        let (ends, end) = std::sync::mpsc::channel::<()>();
        threads.spawn(IdentityRow(2), async move {
            begun.send(()).unwrap();
            let _ = end.recv();
        });
        assert!(has_begun.recv_timeout(Duration::from_millis(50)).is_err(), "two would compute on one thread");
        drop(lent);
        has_begun.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(threads.lend(IdentityRow(1)).is_none(), "a run computes");
        ends.send(()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while threads.lend(IdentityRow(1)).is_none() {
            assert!(Instant::now() < deadline, "the turn of a run that is over is nobody's");
            std::thread::yield_now();
        }
        threads.stop();
        assert!(threads.lend(IdentityRow(1)).is_none());
    }

    #[test]
    fn who_had_a_turn_lent_is_charged_for_it() {
        let mut state = State { threads: 2, ..State::default() };
        state.lend(IdentityRow(1));
        state.charge(IdentityRow(1), TURN * 2);
        state.enqueue(task(1));
        state.enqueue(task(2));
        assert_eq!(state.take().unwrap().owner, IdentityRow(2));
    }

    #[test]
    fn idle_accounts_are_forgotten_unless_they_owe() {
        let mut state = State::default();
        for owner in 0..10_000 {
            state.enqueue(task(owner));
            let task = state.take().unwrap();
            state.charge(task.owner, Duration::from_micros(1));
        }
        // Another one computes on, until it has had more than they.
        for _ in 0..2 {
            state.enqueue(task(-1));
            state.take().unwrap();
            state.charge(IdentityRow(-1), TURN);
        }
        state.enqueue(task(-2));
        state.forget_idle();
        let mut kept: Vec<i64> = state.accounts.keys().map(|owner| owner.0).collect();
        kept.sort_unstable();
        assert_eq!(kept, [-2, -1], "who has had more than the others, and who has something to compute");
        state.take().unwrap();
        state.charge(IdentityRow(-2), TURN);
        state.forget_idle();
        assert_eq!(state.accounts.len(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_waits_is_woken_and_what_panics_ends_alone() {
        let threads = GuestThreads::start(2, &Handle::current()).unwrap();
        let count = Arc::new(AtomicU64::new(0));
        let (done, mut all) = tokio::sync::mpsc::channel::<()>(1);
        for number in 0..200_u64 {
            let (count, done) = (count.clone(), done.clone());
            threads.spawn(IdentityRow((number % 7) as i64), async move {
                let _done = done;
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                assert!(number != 13, "on purpose");
                tokio::time::sleep(Duration::from_millis(number % 5)).await;
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
        drop(done);
        assert!(tokio::time::timeout(Duration::from_secs(30), all.recv()).await.unwrap().is_none());
        assert_eq!(count.load(Ordering::Relaxed), 199);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_left_is_dropped_with_the_threads() {
        let threads = GuestThreads::start(1, &Handle::current()).unwrap();
        let held = Arc::new(());
        let inner = held.clone();
        threads.spawn(IdentityRow(1), async move {
            let _inner = inner;
            std::future::pending::<()>().await;
        });
        drop(threads);
        tokio::time::timeout(Duration::from_secs(30), async {
            while Arc::strong_count(&held) > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap();
    }
}
