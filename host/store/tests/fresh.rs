//! What is kept in memory until a batch is sealed cannot be told from what is written at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;

use bytes::Bytes;
use common::*;
use maxhost_model::{FlowRow, IdentityRow};
use maxhost_store::{FlowState, Op};
use rusqlite::Connection;
use rusqlite::types::Value;

/// Tables that units write, with what their rows are ordered by.
const TABLES: [(&str, &str); 5] = [
    ("flow", "id"),
    ("ended", "id"),
    ("journal", "flow, seq, lane"),
    ("initiation", "identity, id"),
    ("client", "identity, client_id"),
];

/// Numbers that follow from a seed (splitmix64, <https://prng.di.unimi.it/splitmix64.c>).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn any_text(numbers: &mut Numbers) -> Bytes {
    text(&numbers.below(1_000).to_string())
}

/// Some operations on a handful of flows and initiations: many fit, many do not. A unit of several that fails in its
/// middle has its whole batch written singly, so there must be runs with units of one only.
fn ops(numbers: &mut Numbers, most: u64, identities: [IdentityRow; 2], first: FlowRow) -> Vec<Op> {
    let count = 1 + numbers.below(most);
    (0..count)
        .map(|_| {
            let flow = FlowRow(first.0 + numbers.below(6) as i64);
            let other = FlowRow(first.0 + numbers.below(6) as i64);
            let (seq, id) = (numbers.below(3) as u32, numbers.below(5) as i64 + 1);
            match numbers.below(12) {
                0..=1 => start(flow),
                2 => start_with_client(flow, &format!("client {}", numbers.below(2)), "somebody"),
                3..=4 => Op::AppendLog { flow, seq, body: any_text(numbers) },
                5..=6 => {
                    let session = other.session(numbers.below(2) as u16);
                    Op::Deliver { session, seq, body: any_text(numbers) }
                }
                7 => Op::Initiate { to: identities[numbers.below(2) as usize], id, body: any_text(numbers) },
                8 => Op::TakeInitiation { id },
                9 => {
                    let reason = (seq > 0).then(|| "ward".to_owned());
                    Op::SetState { flow, state: FlowState::Hospital, reason, attempts: seq }
                }
                10 => end(flow),
                _ => end_kept(flow, 5000),
            }
        })
        .collect()
}

fn rows(dir: &Path) -> Vec<(&'static str, Vec<Vec<Value>>)> {
    let conn = Connection::open(dir.join("host.db")).unwrap();
    let read = |(table, order)| {
        let mut sql = conn.prepare(&format!("SELECT * FROM {table} ORDER BY {order}")).unwrap();
        let columns = sql.column_count();
        let rows = sql.query_map([], |row| (0..columns).map(|column| row.get(column)).collect());
        (table, rows.unwrap().collect::<Result<_, _>>().unwrap())
    };
    TABLES.map(read).into()
}

/// The same units in batches of random size, and each in a transaction of its own: same outcomes, same rows.
#[tokio::test]
async fn batches_and_single_units_come_to_the_same() {
    let mut succeeded = 0;
    for seed in 0..60 {
        let (together, single) = (Fixture::new().await, Fixture::new().await);
        let identities = [together.alice, together.bob];
        let mut numbers = Numbers(seed);
        let (most, units) = if seed % 2 == 0 { (1, 30) } else { (4, 4) };
        let first = together.store.next_flow_row();
        assert_eq!(single.store.next_flow_row(), first);
        for batch in 0..10 {
            let count = 1 + numbers.below(units);
            let first = FlowRow(first.0 + batch * 3);
            let units: Vec<(IdentityRow, Vec<Op>)> = (0..count)
                .map(|_| (identities[numbers.below(2) as usize], ops(&mut numbers, most, identities, first)))
                .collect();
            let gate = hold_the_committer(&together.store, together.alice);
            let answers: Vec<_> =
                units.iter().map(|(identity, ops)| submit(&together.store, *identity, None, ops.clone())).collect();
            drop(gate);
            for ((identity, ops), answer) in units.into_iter().zip(answers) {
                let told = format!("{ops:?}");
                let (one, other) = (answer.await.unwrap(), single.commit(identity, ops).await);
                succeeded += u32::from(one.is_ok());
                assert_eq!(format!("{one:?}"), format!("{other:?}"), "seed {seed}, batch {batch}: {told}");
            }
            assert_eq!(rows(together.dir.path()), rows(single.dir.path()), "seed {seed}, batch {batch}");
        }
    }
    assert!(succeeded > 1_000, "only {succeeded} units were written: the comparison says little");
}

/// What a unit took out of memory before it failed is there again.
#[tokio::test]
async fn an_initiation_that_a_failing_unit_took_still_waits() {
    let f = Fixture::new().await;
    let (id, nobody) = (f.store.next_initiation(), f.store.next_flow_row());
    let gate = hold_the_committer(&f.store, f.alice);
    let asks = submit(&f.store, f.alice, None, vec![Op::Initiate { to: f.bob, id, body: text("hello") }]);
    let fails = submit(&f.store, f.bob, None, vec![Op::TakeInitiation { id }, log(nobody, 0)]);
    drop(gate);
    asks.await.unwrap().unwrap();
    fails.await.unwrap().unwrap_err();
    assert_eq!(f.store.initiations(f.bob, 0, 10).await.unwrap(), [(id, text("hello"))]);
}
