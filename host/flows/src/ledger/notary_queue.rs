//! The requests that wait for a notary, and how long they will. Callers take turns, by the states that their requests name, and
//! each has a bound of its own, so one that asks for very much delays nobody else by more than a fair share
//! (docs/behaviour.md 11.4).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use maxhost_ledger::notary::{NotaryError, UniquenessRequest, WaitEstimate};
use maxhost_ledger::tx::{StateRef, TransactionSignature};
use maxhost_store::AttemptToken;
use maxhost_store::ledger::NewParameters;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::base::fair_queue::FairQueue;
use crate::base::trouble::Trouble;

/// How much a notary takes at once.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// The most requests of a batch.
    batch: usize,
    /// The most states of a batch, or there is one request.
    batch_states: usize,
    /// The most requests that wait, and their bytes.
    waiting: Share,
    /// The same of one caller, which may have one request in any case.
    of_caller: Share,
}

/// Requests and bytes.
#[derive(Debug, Clone, Copy)]
struct Share {
    requests: usize,
    bytes: usize,
}

const BOUNDS: Bounds = Bounds {
    batch: 1_000,
    batch_states: 20_000,
    waiting: Share { requests: 100_000, bytes: 256 << 20 },
    of_caller: Share { requests: 1_000, bytes: 16 << 20 },
};

/// What a request comes to.
pub(crate) type Decided = Result<Result<TransactionSignature, NotaryError>, Trouble>;

/// A request that waits.
pub(crate) struct WaitingRequest {
    /// Who asks.
    pub caller: Arc<str>,
    /// For what.
    pub request: UniquenessRequest,
    /// The network parameters that it was checked by, if the notary's ledger does not have them yet. They are kept in the commit
    /// that decides it: what is committed can be asked for again, whichever parameters are in force then.
    pub parameters: Option<NewParameters>,
    /// The attempts that it comes from, which may not be written yet.
    pub builds_on: SmallVec<[AttemptToken; 2]>,
    /// Gets what it comes to.
    pub answer: oneshot::Sender<Decided>,
}

impl WaitingRequest {
    /// How many states it names.
    pub fn states(&self) -> usize {
        states_of(&self.request)
    }

    /// What it comes from was given up.
    pub fn is_void(&self) -> bool {
        self.builds_on.iter().any(AttemptToken::is_revoked)
    }

    /// What it takes in memory, about.
    fn bytes(&self) -> usize {
        let parameters = self.parameters.as_ref().map_or(0, |parameters| parameters.body.len());
        size_of::<WaitingRequest>() + self.states() * size_of::<StateRef>() + parameters
    }
}

fn states_of(request: &UniquenessRequest) -> usize {
    request.inputs.len() + request.references.len()
}

/// What became of a request that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    /// It waits, and nobody decides what waits: whoever handed it in has to.
    First,
    /// It waits.
    Waits,
    /// There is no room: the caller has as many waiting as it may, or all have. It may be handed in again after so long.
    NoRoom(Duration),
}

/// The requests to one notary.
pub(crate) struct NotaryQueue {
    bounds: Bounds,
    state: Mutex<State>,
}

impl Default for NotaryQueue {
    fn default() -> NotaryQueue {
        NotaryQueue { bounds: BOUNDS, state: Mutex::default() }
    }
}

#[derive(Default)]
struct State {
    waiting: FairQueue<WaitingRequest>,
    /// What waits of each caller that has something waiting.
    callers: HashMap<Arc<str>, Load>,
    all: Load,
    deciding: bool,
    estimate: WaitEstimate,
    /// How many requests found no room.
    #[cfg(test)]
    turned_away: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Load {
    requests: usize,
    bytes: usize,
    states: usize,
}

impl Load {
    fn add(&mut self, one: &WaitingRequest) {
        self.requests += 1;
        self.bytes += one.bytes();
        self.states += one.states();
    }

    fn remove(&mut self, one: &WaitingRequest) {
        self.requests = self.requests.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(one.bytes());
        self.states = self.states.saturating_sub(one.states());
    }

    /// Whether one more of so many bytes is within a share.
    fn fits(&self, bytes: usize, share: Share) -> bool {
        self.requests < share.requests && self.bytes.saturating_add(bytes) <= share.bytes
    }
}

impl State {
    /// How many states are decided before a request of this caller is that names so many: its own that wait, and as many of each
    /// other caller at most, because they take turns.
    fn ahead_of(&self, caller: &str, states: usize) -> usize {
        let own = self.callers.get(caller).map_or(0, |load| load.states).saturating_add(states);
        self.callers.values().fold(states, |ahead, load| ahead.saturating_add(load.states.min(own)))
    }
}

impl NotaryQueue {
    /// One with little room.
    #[cfg(test)]
    pub fn of_little_room(of_caller: usize) -> NotaryQueue {
        let of_caller = Share { requests: of_caller, ..BOUNDS.of_caller };
        NotaryQueue { bounds: Bounds { batch: 2, of_caller, ..BOUNDS }, state: Mutex::default() }
    }

    /// How many requests found no room.
    #[cfg(test)]
    pub fn turned_away(&self) -> u64 {
        self.state.lock().turned_away
    }

    /// How many requests wait.
    pub fn len(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// How long this caller will wait if it asks for this now, if that is long enough to be told, milliseconds.
    pub fn wait_ms(&self, caller: &str, request_states: usize) -> Option<u64> {
        let state = self.state.lock();
        state.estimate.update(state.ahead_of(caller, request_states)).map(milliseconds)
    }

    /// Adds a request.
    pub fn add(&self, waiting: WaitingRequest) -> Added {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let bytes = waiting.bytes();
        let fits = match state.callers.get(&waiting.caller) {
            None => true,
            Some(load) => load.fits(bytes, self.bounds.of_caller),
        };
        if !fits || !state.all.fits(bytes, self.bounds.waiting) {
            let ahead = state.ahead_of(&waiting.caller, waiting.states());
            #[cfg(test)]
            {
                state.turned_away += 1;
            }
            return Added::NoRoom(state.estimate.estimate(ahead));
        }
        let caller = waiting.caller.clone();
        state.all.add(&waiting);
        state.callers.entry(caller.clone()).or_default().add(&waiting);
        state.waiting.push(&caller, waiting.states() as u64, waiting);
        match std::mem::replace(&mut state.deciding, true) {
            true => Added::Waits,
            false => Added::First,
        }
    }

    /// The next batch, by turns of the callers; if it is empty, whoever comes next begins anew.
    pub fn take(&self) -> Vec<WaitingRequest> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (mut batch, mut states) = (Vec::new(), 0);
        while let Some((_, next)) = state.waiting.peek() {
            let more = next.states();
            if batch.len() == self.bounds.batch || (states + more > self.bounds.batch_states && !batch.is_empty()) {
                break;
            }
            let Some((caller, next)) = state.waiting.pop() else { break };
            states += more;
            state.all.remove(&next);
            if let Some(load) = state.callers.get_mut(&caller) {
                load.remove(&next);
                if load.requests == 0 {
                    state.callers.remove(&caller);
                }
            }
            batch.push(next);
        }
        state.deciding = !batch.is_empty();
        batch
    }

    /// So many states were decided in so long.
    pub fn measure(&self, states: usize, took: Duration) {
        self.state.lock().estimate.measure(states, took);
    }
}

/// Deciding what waits: one at a time does, whom [`Added::First`] told to. However it ends, whoever comes next begins anew.
pub(crate) struct Deciding {
    queue: Arc<NotaryQueue>,
    is_over: bool,
}

impl Deciding {
    /// Begins to decide what waits in a queue.
    pub fn begin(queue: Arc<NotaryQueue>) -> Deciding {
        Deciding { queue, is_over: false }
    }

    /// The requests.
    pub fn queue(&self) -> &NotaryQueue {
        &self.queue
    }

    /// The next batch; if it is empty, this is over.
    pub fn take(&mut self) -> Vec<WaitingRequest> {
        let batch = self.queue.take();
        self.is_over = batch.is_empty();
        batch
    }
}

impl Drop for Deciding {
    fn drop(&mut self) {
        // Once it is over, somebody else may have begun.
        if !self.is_over {
            self.queue.state.lock().deciding = false;
        }
    }
}

/// For a message that tells how long it will take.
pub(crate) fn milliseconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use bytes::Bytes;
    use maxhost_ledger::notary::{Outcome, Plan, Rows, WAIT_THRESHOLD, plan_batch};
    use maxhost_ledger::time::Timestamp;
    use maxhost_model::SecureHash;

    use super::*;

    fn state(number: u32) -> StateRef {
        StateRef::new(SecureHash::of(b"issued"), number)
    }

    fn request(caller: &str, number: u32, states: u32) -> WaitingRequest {
        let request = UniquenessRequest {
            id: SecureHash::of(&number.to_be_bytes()),
            inputs: (0..states).map(|one| state(number * 100_000 + one)).collect(),
            references: Vec::new(),
            window: None,
        };
        WaitingRequest {
            caller: caller.into(),
            request,
            parameters: None,
            builds_on: SmallVec::new(),
            answer: oneshot::channel().0,
        }
    }

    fn fill(queue: &NotaryQueue, caller: &str, count: u32, states: u32) {
        for number in 0..count {
            assert!(!matches!(queue.add(request(caller, number, states)), Added::NoRoom(_)), "{caller} {number}");
        }
    }

    fn callers(batch: &[WaitingRequest]) -> Vec<&str> {
        batch.iter().map(|one| &*one.caller).collect()
    }

    #[test]
    fn one_request_of_another_is_in_the_next_batch_however_much_a_caller_asks_for() {
        let queue = NotaryQueue::default();
        fill(&queue, "flooding", 1_000, 30);
        assert_eq!(queue.take().len(), 666, "20,000 states are a batch");
        assert_eq!(queue.add(request("single", 7, 1)), Added::Waits);
        let next = queue.take();
        assert_eq!(next[0].caller.as_ref(), "single", "and it is the first there");
        assert_eq!(callers(&next).iter().filter(|one| **one == "flooding").count(), 334);
        assert!(queue.take().is_empty());
        assert_eq!(queue.add(request("single", 8, 1)), Added::First, "whoever comes next begins anew");
    }

    #[test]
    fn batches_are_filled_in_turns_by_states() {
        let queue = NotaryQueue::default();
        fill(&queue, "large", 6, 5_000);
        fill(&queue, "small", 1_000, 10);
        fill(&queue, "other", 1_000, 10);
        let batch = queue.take();
        let of = |caller: &str| -> usize {
            batch.iter().filter(|one| &*one.caller == caller).map(WaitingRequest::states).sum()
        };
        let shares: [usize; 3] = [of("large"), of("small"), of("other")];
        assert!(shares.iter().sum::<usize>() <= 20_000 && batch.len() <= 1_000, "{shares:?}");
        assert!(shares.iter().all(|share| (4_900..=10_000).contains(share)), "{shares:?}");
    }

    /// A flood, and a caller that asks once: whatever has been taken before, it waits for one batch at most.
    #[test]
    fn a_flood_of_many_callers_leaves_everybody_a_turn() {
        let queue = NotaryQueue::default();
        for flooding in 0..20 {
            fill(&queue, &format!("flooding {flooding}"), 1_000, 1);
        }
        for round in 0..19 {
            queue.add(request("single", round, 1));
            let batch = queue.take();
            assert_eq!(batch.len(), 1_000);
            assert_eq!(callers(&batch).iter().filter(|one| **one == "single").count(), 1, "round {round}");
        }
    }

    #[test]
    fn a_caller_at_its_bound_is_told_and_others_are_not_held_up() {
        let queue = NotaryQueue::default();
        fill(&queue, "flooding", 1_000, 1);
        let Added::NoRoom(wait) = queue.add(request("flooding", 1_000, 1)) else { panic!("there is room") };
        assert_eq!(wait, WAIT_THRESHOLD, "nothing was measured yet");
        assert_eq!(queue.add(request("other", 1, 1)), Added::Waits);
        assert_eq!(queue.take().len(), 1_000);
        assert_eq!(queue.add(request("flooding", 1_000, 1)), Added::Waits, "there is room again");

        // Bytes count too, and a request that is larger than the share of a caller is taken by itself.
        let body = Bytes::from(vec![0; 17 << 20]);
        let large = |number| {
            let (hash, at) = (SecureHash::of(b"parameters"), Timestamp::from_nanos(0));
            let parameters = Some(NewParameters { hash, body: body.clone(), at });
            WaitingRequest { parameters, ..request("large", number, 1) }
        };
        assert_eq!(queue.add(large(1)), Added::Waits);
        assert!(matches!(queue.add(large(2)), Added::NoRoom(_)));
        assert!(matches!(queue.add(request("large", 3, 1)), Added::NoRoom(_)));
        // All callers together have a bound as well.
        let taken = (0..40).filter(|one| {
            let caller: Arc<str> = format!("large {one}").into();
            queue.add(WaitingRequest { caller, ..large(9) }) == Added::Waits
        });
        assert_eq!(taken.count(), 14, "15 of 17 MiB are within 256 MiB");
    }

    #[test]
    fn a_caller_is_told_of_a_wait_by_what_is_decided_before_its_request() {
        let queue = NotaryQueue::default();
        assert_eq!(queue.wait_ms("single", 1), None);
        queue.measure(100, Duration::from_secs(1));
        fill(&queue, "flooding", 1_000, 2);
        // 2,001 states at 100 a second, twice.
        assert_eq!(queue.wait_ms("flooding", 1), Some(40_020));
        assert_eq!(queue.wait_ms("single", 1), None, "one state of the other is decided before");
        assert_eq!(queue.wait_ms("single", 1_000), Some(40_000), "and as many as it asks for itself");
        while !queue.take().is_empty() {}
        assert_eq!(queue.wait_ms("flooding", 1), None);
    }

    #[test]
    fn whoever_comes_behind_one_that_has_panicked_decides_what_waits() {
        let queue = Arc::new(NotaryQueue::default());
        assert_eq!(queue.add(request("a", 1, 1)), Added::First);
        let deciding = Deciding::begin(queue.clone());
        assert_eq!(queue.add(request("a", 2, 1)), Added::Waits, "one decides");
        let defect = catch_unwind(AssertUnwindSafe(move || {
            let _deciding = deciding;
            panic!("on purpose");
        }));
        assert!(defect.is_err());
        assert_eq!(queue.add(request("a", 3, 1)), Added::First);
        let mut next = Deciding::begin(queue.clone());
        assert_eq!((next.take().len(), next.take().len()), (3, 0));
        assert_eq!(queue.add(request("a", 4, 1)), Added::First);
        drop(next);
        assert_eq!(queue.add(request("a", 5, 1)), Added::Waits, "one that is over takes nothing from the next");
    }

    struct Nothing;

    impl Rows for Nothing {
        type Error = std::convert::Infallible;

        fn consumers(
            &mut self,
            _: &std::collections::BTreeSet<StateRef>,
        ) -> Result<std::collections::BTreeMap<StateRef, SecureHash>, Self::Error> {
            Ok(Default::default())
        }

        fn outcomes(
            &mut self,
            _: &std::collections::BTreeSet<SecureHash>,
        ) -> Result<std::collections::BTreeMap<SecureHash, Outcome>, Self::Error> {
            Ok(Default::default())
        }
    }

    /// Turns decide who is first, and nothing else: of those that want the same state, the first in the batch has it, and what comes
    /// twice gets one answer.
    #[test]
    fn a_batch_by_turns_is_decided_one_request_after_the_other() {
        let queue = NotaryQueue::default();
        let of = |caller: &str, id: &[u8], number: u32| {
            let mut request = request(caller, 0, 0);
            (request.request.id, request.request.inputs) = (SecureHash::of(id), vec![state(number)]);
            request
        };
        for one in [of("a", b"1", 1), of("a", b"2", 2), of("a", b"3", 2), of("b", b"4", 2), of("b", b"1", 1)] {
            queue.add(one);
        }
        let batch = queue.take();
        assert_eq!(callers(&batch), ["a", "b", "a", "b", "a"]);
        let requests: Vec<UniquenessRequest> = batch.iter().map(|one| one.request.clone()).collect();
        let stamp = maxhost_ledger::notary::BatchStamp { batch: 1, at: Timestamp::from_nanos(5) };
        let Plan { verdicts, consumed, .. } =
            plan_batch(&requests, stamp, &mut Nothing).unwrap_or_else(|never| match never {});
        // 1 by a, 4 by b, 2 by a in vain, 1 by b again, 3 by a in vain.
        assert_eq!(verdicts.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false, true, false]);
        assert_eq!(verdicts[0], verdicts[3]);
        assert_eq!(consumed, [(state(1), SecureHash::of(b"1")), (state(2), SecureHash::of(b"4"))]);
    }
}
