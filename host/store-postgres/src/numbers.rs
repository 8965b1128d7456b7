//! Numbers of flows and initiations, leased from the database in blocks.
//!
//! A block is taken in a transaction of its own, so commits never wait for one another because of a counter. Numbers of
//! a block that were not used when a run ends are lost. The high bits of a number are the incarnation of the database,
//! so numbers that were given out before it was put back to an earlier moment are never given out again.

use std::collections::VecDeque;

use maxhost_model::FlowRow;
use parking_lot::Mutex;
use sqlx::postgres::PgPool;
use tokio::sync::Notify;

/// Bits of a number below the incarnation.
pub(crate) const COUNT_BITS: u32 = 36;
/// Numbers in a block.
const BLOCK: i64 = 1 << 17;
/// With fewer numbers than this left, the next block is taken.
const LOW: i64 = BLOCK / 2;
/// Blocks of which it is known which numbers were used: what is written is of the newest ones.
const REMEMBERED: usize = 4;

/// What is numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Flow,
    Initiation,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Flow, Kind::Initiation];

    fn name(self) -> &'static str {
        match self {
            Kind::Flow => "flow",
            Kind::Initiation => "initiation",
        }
    }
}

/// A block of numbers that are this run's alone.
struct Block {
    first: i64,
    /// The next to be given out.
    next: i64,
    /// Which numbers rows were written for, a bit each.
    used: Box<[u64]>,
}

impl Block {
    fn new(first: i64) -> Block {
        Block { first, next: first, used: vec![0; (BLOCK / 64) as usize].into() }
    }

    fn left(&self) -> i64 {
        self.first + BLOCK - self.next
    }

    /// Notes that a number is used; `None` if it is of another block. True if it was not used before.
    fn observe(&mut self, number: i64) -> Option<bool> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok().filter(|place| *place < BLOCK as usize)?;
        let (word, bit) = (&mut self.used[place / 64], 1 << (place % 64));
        let new = *word & bit == 0;
        *word |= bit;
        Some(new)
    }
}

#[derive(Default)]
struct Lease {
    blocks: VecDeque<Block>,
}

impl Lease {
    fn left(&self) -> i64 {
        self.blocks.iter().map(Block::left).sum()
    }

    fn take(&mut self) -> Option<i64> {
        let block = self.blocks.iter_mut().find(|block| block.left() > 0)?;
        block.next += 1;
        Some(block.next - 1)
    }

    fn add(&mut self, first: i64) {
        self.blocks.push_back(Block::new(first));
        while self.blocks.len() > REMEMBERED && self.blocks.front().is_some_and(|block| block.left() == 0) {
            self.blocks.pop_front();
        }
    }
}

/// The numbers of a run.
pub(crate) struct Numbers {
    leases: [Mutex<Lease>; 2],
    low: Notify,
}

impl Numbers {
    pub(crate) fn new() -> Numbers {
        Numbers { leases: [Mutex::default(), Mutex::default()], low: Notify::new() }
    }

    fn lease(&self, kind: Kind) -> &Mutex<Lease> {
        &self.leases[kind as usize]
    }

    fn take(&self, kind: Kind) -> i64 {
        let mut lease = self.lease(kind).lock();
        let number = lease.take();
        let low = lease.left() < LOW;
        drop(lease);
        if low {
            self.low.notify_one();
        }
        number.unwrap_or(i64::MAX)
    }

    /// A row for a new flow, or one beyond the greatest if there is none for now.
    pub(crate) fn next_flow_row(&self) -> FlowRow {
        FlowRow(self.take(Kind::Flow))
    }

    pub(crate) fn next_initiation(&self) -> i64 {
        self.take(Kind::Initiation)
    }

    /// Notes that a row is written under this number. True if the number is this run's and nothing can have it already.
    pub(crate) fn observe(&self, kind: Kind, number: i64) -> bool {
        let mut lease = self.lease(kind).lock();
        lease.blocks.iter_mut().rev().find_map(|block| block.observe(number)).unwrap_or(false)
    }

    /// Takes blocks of what runs low.
    pub(crate) async fn refill(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        for kind in Kind::ALL {
            if self.lease(kind).lock().left() < LOW {
                let sql = "UPDATE maxhost.number SET next = next + $2 WHERE kind = $1 AND (next + $2) >> $3 = next >> $3 \
                           RETURNING next - $2";
                let first = sqlx::query_scalar(sql)
                    .bind(kind.name())
                    .bind(BLOCK)
                    .bind(COUNT_BITS.cast_signed())
                    .fetch_one(pool)
                    .await?;
                self.lease(kind).lock().add(first);
            }
        }
        Ok(())
    }

    /// Keeps blocks in store, for ever.
    pub(crate) async fn keep(&self, pool: &PgPool) {
        loop {
            self.low.notified().await;
            while let Err(error) = self.refill(pool).await {
                if matches!(error, sqlx::Error::PoolClosed) {
                    return;
                }
                tracing::debug!(%error, "no numbers could be leased; tried again");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_new_once() {
        let numbers = Numbers::new();
        assert!(numbers.next_flow_row() > FlowRow::MAX, "there is none");
        numbers.lease(Kind::Flow).lock().add(1);
        let [a, b] = [numbers.next_flow_row().0, numbers.next_flow_row().0];
        assert_eq!((a, b), (1, 2));
        assert!(numbers.observe(Kind::Flow, b) && numbers.observe(Kind::Flow, a));
        assert!(!numbers.observe(Kind::Flow, a) && !numbers.observe(Kind::Flow, i64::MIN));
        assert!(!numbers.observe(Kind::Flow, 1 + BLOCK), "another's");
        assert!(!numbers.observe(Kind::Initiation, 2));
    }

    #[test]
    fn blocks_follow_each_other() {
        let mut lease = Lease::default();
        lease.add(1);
        lease.add(1_000_000);
        let mut last = 0;
        for _ in 0..2 * BLOCK {
            last = lease.take().unwrap_or(0);
        }
        assert_eq!((last, lease.take()), (1_000_000 + BLOCK - 1, None));
        for first in 2..9 {
            lease.add(first * 1_000_000);
            while lease.take().is_some() {}
        }
        assert_eq!(lease.blocks.len(), REMEMBERED);
    }
}
