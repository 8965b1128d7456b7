//! The guests' memory is admitted, never over-committed: an instance gets more only within what the host gives to all
//! (`limits.memory`) and to one identity (`limits.memory` of its manifest).
//!
//! Who gets none waits, in turn. While somebody waits, flows that only linger give up their instances, of the identity
//! that is short or of all if the host is. A request that waits for the host holds back all that come after it, so that a
//! large one is not passed for ever by small ones; one that waits for its identity holds back those of its identity only.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use maxhost_model::IdentityRow;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

/// The host's memory for guests. Clones are one and the same.
#[derive(Clone)]
pub(crate) struct GuestMemory {
    shared: Arc<Shared>,
}

struct Shared {
    limit: u64,
    state: Mutex<State>,
    /// How many requests wait. Read without the lock, by runs that are about to linger.
    waiting: AtomicUsize,
    /// Rings while the host is short: whoever has lingered longest gives up his instance.
    pressure: Notify,
}

#[derive(Default)]
struct State {
    used: u64,
    accounts: HashMap<IdentityRow, Account>,
    requests: VecDeque<Request>,
    next_request: u64,
    host_is_short: bool,
}

/// What one identity has.
struct Account {
    limit: u64,
    used: u64,
    /// Grants that name it: it is kept while there are some.
    grants: usize,
    waiting: usize,
    pressure: Arc<Notify>,
}

struct Request {
    number: u64,
    owner: IdentityRow,
    bytes: u64,
    granted: oneshot::Sender<()>,
}

impl GuestMemory {
    /// So many bytes for all guests.
    pub fn new(limit: u64) -> GuestMemory {
        let shared = Shared { limit, state: Mutex::default(), waiting: AtomicUsize::new(0), pressure: Notify::new() };
        GuestMemory { shared: Arc::new(shared) }
    }

    /// The most that one run of an identity can ever have: what is beyond is refused and not waited for.
    pub fn most(&self, identity_limit: u64) -> u64 {
        self.shared.limit.min(identity_limit)
    }

    /// Bytes that guests have.
    #[cfg(test)]
    fn used(&self) -> u64 {
        self.shared.state.lock().used
    }

    /// What one run of an identity has: nothing yet. The identity's limit is the one it was last named with.
    pub fn grant(&self, owner: IdentityRow, limit: u64) -> Grant {
        let mut state = self.shared.state.lock();
        let account = state.accounts.entry(owner).or_insert_with(|| Account {
            limit,
            used: 0,
            grants: 0,
            waiting: 0,
            pressure: Arc::new(Notify::new()),
        });
        account.limit = limit;
        account.grants += 1;
        Grant { memory: self.clone(), owner, bytes: 0, reserved: 0, pressure: account.pressure.clone() }
    }
}

/// The memory of one run. Given back when it is dropped.
pub(crate) struct Grant {
    memory: GuestMemory,
    owner: IdentityRow,
    bytes: u64,
    /// Of these, so many are set aside for what the guest is going to ask for.
    reserved: u64,
    pressure: Arc<Notify>,
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grant").field("owner", &self.owner).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Grant {
    /// What its guest has.
    pub fn bytes(&self) -> u64 {
        self.bytes - self.reserved
    }

    /// Waits for so much before there is an instance, which then need not wait. False if there can never be so much.
    pub async fn reserve(&mut self, bytes: u64) -> bool {
        let granted = self.take_in_turn(bytes).await;
        if granted {
            self.reserved += bytes;
        }
        granted
    }

    /// Takes more if there is some, and nobody waits for it.
    pub fn try_grow(&mut self, bytes: u64) -> bool {
        if bytes <= self.reserved {
            self.reserved -= bytes;
            return true;
        }
        let shared = &self.memory.shared;
        let mut state = shared.state.lock();
        let turn = !state.host_is_short && state.accounts.get(&self.owner).is_some_and(|account| account.waiting == 0);
        let granted = turn && state.take(shared.limit, self.owner, bytes).is_ok();
        if granted {
            self.bytes += bytes;
        }
        granted
    }

    /// Waits for more. False if there can never be so much. Dropping the future gives up the place in the queue.
    pub async fn grow(&mut self, bytes: u64) -> bool {
        self.take_in_turn(bytes).await
    }

    async fn take_in_turn(&mut self, bytes: u64) -> bool {
        let (memory, owner) = (self.memory.clone(), self.owner);
        let (granted, answer) = oneshot::channel();
        let mut place = {
            let mut state = memory.shared.state.lock();
            let most = state.accounts.get(&owner).map_or(0, |account| memory.most(account.limit));
            if self.bytes.saturating_add(bytes) > most {
                return false;
            }
            let number = state.next_request;
            state.next_request += 1;
            state.requests.push_back(Request { number, owner, bytes, granted });
            if let Some(account) = state.accounts.get_mut(&owner) {
                account.waiting += 1;
            }
            memory.shared.serve(&mut state);
            Place { memory: memory.clone(), number, owner, bytes, answer: Some(answer) }
        };
        let granted = match place.answer.as_mut() {
            Some(answer) => answer.await.is_ok(),
            None => false,
        };
        if granted {
            place.answer = None;
            self.bytes += bytes;
        }
        granted
    }

    /// True while somebody waits for what this run could give back.
    pub fn is_wanted(&self) -> bool {
        let shared = &self.memory.shared;
        if shared.waiting.load(Ordering::Acquire) == 0 {
            return false;
        }
        let state = shared.state.lock();
        state.host_is_short || state.accounts.get(&self.owner).is_some_and(|account| account.waiting > 0)
    }

    /// Ends when somebody wants what this run has.
    pub async fn wanted(&self) {
        tokio::select! {
            biased;
            () = self.memory.shared.pressure.notified() => {}
            () = self.pressure.notified() => {}
        }
    }

    /// What was set aside and not asked for is given back.
    pub fn keep_what_is_used(&mut self) {
        let unused = std::mem::take(&mut self.reserved);
        if unused > 0 {
            self.bytes -= unused;
            let shared = &self.memory.shared;
            let mut state = shared.state.lock();
            state.release(self.owner, unused);
            shared.serve(&mut state);
        }
    }

    /// The instance is gone: nothing is needed any more.
    pub fn give_back(&mut self) {
        self.reserved = 0;
        let bytes = std::mem::take(&mut self.bytes);
        if bytes > 0 {
            let shared = &self.memory.shared;
            let mut state = shared.state.lock();
            state.release(self.owner, bytes);
            shared.serve(&mut state);
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.give_back();
        let mut state = self.memory.shared.state.lock();
        if let Some(account) = state.accounts.get_mut(&self.owner) {
            account.grants -= 1;
            if account.grants == 0 {
                state.accounts.remove(&self.owner);
            }
        }
    }
}

/// A place in the queue. Whoever goes before his turn leaves it; what was granted to him meanwhile is given back.
struct Place {
    memory: GuestMemory,
    number: u64,
    owner: IdentityRow,
    bytes: u64,
    /// `None` once the grant is in the hands of its run.
    answer: Option<oneshot::Receiver<()>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(mut answer) = self.answer.take() else { return };
        let shared = &self.memory.shared;
        let mut state = shared.state.lock();
        if let Some(position) = state.requests.iter().position(|request| request.number == self.number) {
            state.requests.remove(position);
            state.leave_queue(self.owner);
        } else if answer.try_recv().is_ok() {
            state.release(self.owner, self.bytes);
        }
        shared.serve(&mut state);
    }
}

/// Why a request cannot be granted now.
enum Short {
    Host,
    Identity,
}

impl State {
    fn take(&mut self, limit: u64, owner: IdentityRow, bytes: u64) -> Result<(), Short> {
        let Some(account) = self.accounts.get_mut(&owner) else { return Err(Short::Identity) };
        if account.used.saturating_add(bytes) > account.limit {
            return Err(Short::Identity);
        }
        if self.used.saturating_add(bytes) > limit {
            return Err(Short::Host);
        }
        account.used += bytes;
        self.used += bytes;
        Ok(())
    }

    fn release(&mut self, owner: IdentityRow, bytes: u64) {
        self.used -= bytes;
        if let Some(account) = self.accounts.get_mut(&owner) {
            account.used -= bytes;
        }
    }

    fn leave_queue(&mut self, owner: IdentityRow) {
        if let Some(account) = self.accounts.get_mut(&owner) {
            account.waiting -= 1;
        }
    }
}

impl Shared {
    /// Grants what can be granted, in turn, and rings for what cannot.
    fn serve(&self, state: &mut State) {
        let mut short: Vec<IdentityRow> = Vec::new();
        let mut host_is_short = false;
        let mut index = 0;
        while let Some(Request { owner, bytes, .. }) = state.requests.get(index) {
            let (owner, bytes) = (*owner, *bytes);
            if short.contains(&owner) {
                index += 1;
                continue;
            }
            match state.take(self.limit, owner, bytes) {
                Ok(()) => {
                    state.leave_queue(owner);
                    if let Some(request) = state.requests.remove(index)
                        && request.granted.send(()).is_err()
                    {
                        // He has just gone.
                        state.release(owner, bytes);
                    }
                }
                Err(Short::Identity) => {
                    short.push(owner);
                    index += 1;
                }
                Err(Short::Host) => {
                    host_is_short = true;
                    break;
                }
            }
        }
        state.host_is_short = host_is_short;
        self.waiting.store(state.requests.len(), Ordering::Release);
        if host_is_short {
            self.pressure.notify_one();
        }
        for owner in short {
            if let Some(account) = state.accounts.get(&owner) {
                account.pressure.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use futures::FutureExt;

    use super::*;

    const ALICE: IdentityRow = IdentityRow(1);
    const BOB: IdentityRow = IdentityRow(2);

    #[test]
    fn nobody_gets_more_than_the_host_or_the_identity_has() {
        let memory = GuestMemory::new(100);
        let (mut one, mut two, mut other) = (memory.grant(ALICE, 60), memory.grant(ALICE, 60), memory.grant(BOB, 100));
        assert!(one.try_grow(40));
        assert!(!two.try_grow(30), "Alice has 60");
        assert!(two.try_grow(20));
        assert!(!other.try_grow(50), "the host has 100");
        assert!(other.try_grow(40));
        assert_eq!(memory.used(), 100);
        drop((one, two));
        assert_eq!(memory.used(), 40);
        assert!(other.try_grow(60));
    }

    #[test]
    fn who_waits_gets_what_is_given_back_and_small_requests_do_not_pass_large_ones() {
        let memory = GuestMemory::new(100);
        let (mut holder, mut large, mut small) =
            (memory.grant(ALICE, 100), memory.grant(BOB, 100), memory.grant(ALICE, 100));
        assert!(holder.try_grow(50));
        let mut waiting = Box::pin(large.grow(80));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(!small.try_grow(10), "somebody waits before");
        assert!(holder.is_wanted());
        assert!(holder.wanted().now_or_never().is_some(), "whoever lingers is asked");
        drop(holder);
        assert_eq!(waiting.as_mut().now_or_never(), Some(true));
        drop(waiting);
        assert!(small.try_grow(10));
        assert_eq!(memory.used(), 90);
    }

    #[test]
    fn an_identity_that_is_short_holds_up_nobody_else() {
        let memory = GuestMemory::new(100);
        let (mut one, mut two, mut other) = (memory.grant(ALICE, 50), memory.grant(ALICE, 50), memory.grant(BOB, 100));
        assert!(one.try_grow(50));
        let mut waiting = Box::pin(two.grow(10));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(other.try_grow(50));
        assert!(!other.is_wanted());
        assert!(one.is_wanted());
        assert!(one.wanted().now_or_never().is_some());
        one.give_back();
        assert_eq!(waiting.as_mut().now_or_never(), Some(true));
    }

    #[test]
    fn who_stops_waiting_leaves_the_queue_and_what_he_was_granted() {
        let memory = GuestMemory::new(100);
        let (mut holder, mut first, mut second) =
            (memory.grant(ALICE, 100), memory.grant(BOB, 100), memory.grant(BOB, 100));
        assert!(holder.try_grow(100));
        let mut gone = Box::pin(first.grow(60));
        let mut stays = Box::pin(second.grow(60));
        assert!(gone.as_mut().now_or_never().is_none());
        assert!(stays.as_mut().now_or_never().is_none());
        holder.give_back();
        drop(gone);
        assert_eq!(stays.as_mut().now_or_never(), Some(true));
        drop(stays);
        assert_eq!(memory.used(), 60);
    }

    #[test]
    fn what_can_never_be_had_is_not_waited_for() {
        let memory = GuestMemory::new(100);
        let mut grant = memory.grant(ALICE, 50);
        assert!(grant.try_grow(30));
        assert_eq!(grant.grow(30).now_or_never(), Some(false));
        assert_eq!(memory.most(50), 50);
    }

    #[test]
    fn what_is_reserved_is_there_when_the_guest_asks() {
        let memory = GuestMemory::new(100);
        let mut grant = memory.grant(ALICE, 100);
        assert_eq!(grant.reserve(60).now_or_never(), Some(true));
        assert_eq!((memory.used(), grant.bytes()), (60, 0));
        assert!(grant.try_grow(20));
        assert!(grant.try_grow(40));
        assert_eq!((memory.used(), grant.bytes()), (60, 60));
        assert!(grant.try_grow(40));
        assert!(!grant.try_grow(1));
        grant.give_back();
        assert_eq!(grant.reserve(60).now_or_never(), Some(true));
        assert!(grant.try_grow(20));
        grant.keep_what_is_used();
        assert_eq!((memory.used(), grant.bytes()), (20, 20));
        drop(grant);
        assert_eq!(memory.used(), 0);
    }
}
