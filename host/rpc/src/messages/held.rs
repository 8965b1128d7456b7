//! Requests that wait, for the end of a flow or for trouble to pass: in hand of this worker, and unacknowledged.
//!
//! They are bounded in number and bytes. Beyond that the ones that have been here longest are told to go back to the broker, which
//! gives them out again after a while; so no number of waiting requests keeps new ones from being answered.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Requests that wait in one worker.
pub(super) const MOST: u32 = 4_096;
/// Bytes of them.
const MOST_BYTES: usize = 8 << 20;

/// Those that wait.
#[derive(Default)]
pub(super) struct Held(Mutex<Seats>);

#[derive(Default)]
struct Seats {
    /// By the order in which they came.
    taken: BTreeMap<u64, (usize, CancellationToken)>,
    bytes: usize,
    next: u64,
}

/// The place of one that waits. It is free again when this is dropped.
pub(super) struct Seat<'a> {
    held: &'a Held,
    number: u64,
    leave: CancellationToken,
}

impl Held {
    /// Takes a place for a request of so many bytes; whoever has waited longest makes room.
    pub fn take(&self, bytes: usize) -> Seat<'_> {
        let mut seats = self.0.lock();
        let leave = CancellationToken::new();
        let number = seats.next;
        seats.next += 1;
        seats.bytes += bytes;
        seats.taken.insert(number, (bytes, leave.clone()));
        while seats.taken.len() > MOST as usize || seats.bytes > MOST_BYTES {
            let Some((_, (bytes, leave))) = seats.taken.pop_first() else { break };
            seats.bytes -= bytes;
            leave.cancel();
        }
        Seat { held: self, number, leave }
    }

    /// How many wait.
    pub fn len(&self) -> u64 {
        self.0.lock().taken.len() as u64
    }
}

impl Seat<'_> {
    /// Waits until the request has to make room for others.
    pub async fn is_wanted(&self) {
        self.leave.cancelled().await;
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut seats = self.held.0.lock();
        if let Some((bytes, _)) = seats.taken.remove(&self.number) {
            seats.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_waited_longest_makes_room() {
        let held = Held::default();
        let seats: Vec<Seat<'_>> = (0..MOST).map(|_| held.take(10)).collect();
        assert!(seats.iter().all(|seat| !seat.leave.is_cancelled()));
        let another = held.take(10);
        assert!(seats[0].leave.is_cancelled() && !seats[1].leave.is_cancelled() && !another.leave.is_cancelled());
        // Large ones count by their bytes, and one is let in however large it is not beyond all of them.
        let large = held.take(MOST_BYTES - 20);
        assert!(
            seats[seats.len() - 2].leave.is_cancelled() && !another.leave.is_cancelled() && !large.leave.is_cancelled()
        );
        drop((seats, another, large));
        let left = held.0.lock();
        assert_eq!((left.bytes, left.taken.len()), (0, 0));
    }
}
