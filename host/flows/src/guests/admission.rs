//! Instances are admitted, never over-committed: a newcomer that finds no slot asks the flow that has lingered longest
//! to give up its own, and waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use maxhost_model::IdentityRow;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::guests::memory::{Grant, GuestMemory};

#[derive(Debug, Clone)]
pub(crate) struct Slots {
    semaphore: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    pressure: Arc<Notify>,
    total: u32,
}

/// What guests need room for: instances, memory, and the journals that they are brought back from. Clones are one and the same.
#[derive(Clone)]
pub(crate) struct GuestRoom {
    pub slots: Slots,
    pub memory: GuestMemory,
    pub journals: JournalRoom,
}

/// A journal of so many bytes at most needs no room.
pub(crate) const SMALL_JOURNAL: u64 = 256 << 10;
/// Bytes of the larger ones that are in memory at once, and of one identity. One that is larger is alone.
const JOURNALS: u64 = 256 << 20;
const JOURNALS_OF_ONE: u64 = 128 << 20;
/// The same of flows that are brought back to be ended.
const ENDED_JOURNALS: u64 = 128 << 20;

/// Room for journals, from when they are read until they are replayed: identities have it in turn, as they have memory.
#[derive(Clone)]
pub(crate) struct JournalRoom {
    replayed: GuestMemory,
    /// Who is to end does not wait for those that are replayed.
    ended: GuestMemory,
}

impl JournalRoom {
    pub fn new() -> JournalRoom {
        JournalRoom { replayed: GuestMemory::new(JOURNALS), ended: GuestMemory::new(ENDED_JOURNALS) }
    }

    /// Waits for room for a journal of so many bytes, of a flow that is to go on, or to end.
    pub async fn take(&self, owner: IdentityRow, bytes: u64, is_ending: bool) -> Grant {
        let memory = if is_ending { &self.ended } else { &self.replayed };
        let mut grant = memory.grant(owner, JOURNALS_OF_ONE);
        // Never refused: it is no more than there can be.
        grant.reserve(bytes.min(memory.most(JOURNALS_OF_ONE))).await;
        grant
    }

    /// Room for a journal of a flow that need not be replayed, if there is some.
    pub fn try_take(&self, owner: IdentityRow, bytes: u64) -> Option<Grant> {
        let mut grant = self.replayed.grant(owner, JOURNALS_OF_ONE);
        grant.try_grow(bytes.min(self.replayed.most(JOURNALS_OF_ONE))).then_some(grant)
    }
}

/// The right to one instance.
pub(crate) type Slot = OwnedSemaphorePermit;

impl Slots {
    pub fn new(total: u32) -> Slots {
        Slots {
            semaphore: Arc::new(Semaphore::new(total as usize)),
            waiting: Arc::default(),
            pressure: Arc::default(),
            total,
        }
    }

    pub fn try_take(&self) -> Option<Slot> {
        self.semaphore.clone().try_acquire_owned().ok()
    }

    /// Waits for a slot. `None` if the host stops.
    pub async fn take(&self) -> Option<Slot> {
        if let Some(slot) = self.try_take() {
            return Some(slot);
        }
        let waiting = Waiting::new(self);
        let slot = self.semaphore.clone().acquire_owned().await.ok();
        drop(waiting);
        slot
    }

    /// True while somebody waits for a slot: who waits for a message should give his up.
    pub fn is_scarce(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Ends when somebody wants this slot. The one who has waited longest is asked first.
    pub async fn wanted(&self) {
        self.pressure.notified().await;
    }

    pub fn in_use(&self) -> u64 {
        u64::from(self.total) - self.semaphore.available_permits() as u64
    }

    /// Nobody gets a slot any more.
    pub fn close(&self) {
        self.semaphore.close();
    }
}

/// Counts a newcomer while he waits, also when he gives up.
struct Waiting<'a>(&'a Slots);

impl<'a> Waiting<'a> {
    fn new(slots: &'a Slots) -> Waiting<'a> {
        slots.waiting.fetch_add(1, Ordering::AcqRel);
        slots.pressure.notify_one();
        Waiting(slots)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_newcomer_asks_who_has_waited_longest_and_gets_what_he_gives_up() {
        let slots = Slots::new(1);
        let held = slots.try_take();
        assert!(held.is_some() && slots.try_take().is_none() && !slots.is_scarce());
        let (mut first, mut second) = (Box::pin(slots.wanted()), Box::pin(slots.wanted()));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        let mut newcomer = Box::pin(slots.take());
        assert!((&mut newcomer).now_or_never().is_none() && slots.is_scarce());
        assert!((&mut first).now_or_never().is_some(), "who has lingered longest is asked");
        assert!((&mut second).now_or_never().is_none(), "and nobody else");
        drop(held);
        let taken = newcomer.now_or_never().flatten();
        assert!(taken.is_some() && !slots.is_scarce());
        assert_eq!(slots.in_use(), 1);
    }

    #[test]
    fn who_gives_up_waiting_is_not_waited_for() {
        let slots = Slots::new(1);
        let held = slots.try_take();
        let mut newcomer = Box::pin(slots.take());
        assert!((&mut newcomer).now_or_never().is_none() && slots.is_scarce());
        drop(newcomer);
        assert!(!slots.is_scarce());
        drop(held);
        assert_eq!(slots.in_use(), 0);
    }

    #[test]
    fn a_host_that_stops_gives_no_slots() {
        let slots = Slots::new(1);
        let held = slots.try_take();
        let mut newcomer = Box::pin(slots.take());
        assert!((&mut newcomer).now_or_never().is_none());
        slots.close();
        assert!(newcomer.now_or_never().is_some_and(|slot| slot.is_none()));
        drop(held);
        assert!(slots.try_take().is_none());
    }

    #[test]
    fn journals_of_one_identity_leave_room_for_those_of_others_and_for_flows_that_end() {
        let (room, carol, alice) = (JournalRoom::new(), IdentityRow(1), IdentityRow(2));
        let takes = |owner, is_ending| Box::pin(room.take(owner, 64 << 20, is_ending));
        let (first, second) = (takes(carol, false).now_or_never(), takes(carol, false).now_or_never());
        assert!(first.is_some() && second.is_some());
        let mut third = takes(carol, false);
        assert!((&mut third).now_or_never().is_none(), "it waits for its identity's own");
        assert!(takes(alice, false).now_or_never().is_some(), "and holds up nobody else");
        assert!(takes(carol, true).now_or_never().is_some(), "nor who is to end");
        assert!(room.try_take(carol, 1).is_none());
        drop(first);
        assert!((&mut third).now_or_never().is_some());
        drop((second, third));
        assert!(Box::pin(room.take(carol, u64::MAX, false)).now_or_never().is_some(), "one that is too large is alone");
    }
}
