//! What is kept in memory until a batch is sealed cannot be told from what is written at once.

use std::path::Path;

use crate::common::*;
use bytes::Bytes;
use maxhost_model::FlowRow;
use maxhost_store::{Author, FlowOp, FlowState, MessageOp, Op, Recipient};
use rusqlite::Connection;
use rusqlite::types::Value;

/// Tables that units write, with what their rows are ordered by.
const TABLES: [(&str, &str); 6] = [
    ("flow", "id"),
    ("ended", "id"),
    ("journal", "flow, seq, stream"),
    ("initiation", "identity, id"),
    ("late_confirm", "identity, session"),
    ("client", "identity, user, client_id"),
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
fn ops(numbers: &mut Numbers, most: u64, identities: [Recipient; 2], first: FlowRow) -> Vec<Op> {
    let count = 1 + numbers.below(most);
    (0..count)
        .map(|_| {
            let flow = FlowRow(first.0 + numbers.below(6) as i64);
            let other = FlowRow(first.0 + numbers.below(6) as i64);
            let (seq, id) = (numbers.below(3) as u32, numbers.below(5) as i64 + 1);
            match numbers.below(12) {
                0..=1 => start(flow),
                2 => start_with_client(flow, &format!("client {}", numbers.below(2)), "somebody"),
                3..=4 => FlowOp::AppendLog { flow, seq, body: any_text(numbers) }.into(),
                5..=6 => {
                    let (session, confirms) = (other.session(numbers.below(2) as u16), numbers.below(2) == 0);
                    let to = identities[numbers.below(2) as usize];
                    MessageOp::Deliver { to, session, seq, body: any_text(numbers), confirms }.into()
                }
                7 => {
                    let to = identities[numbers.below(2) as usize];
                    MessageOp::Initiate { to, id, body: any_text(numbers) }.into()
                }
                8 => take(id),
                9 => {
                    let reason = (seq > 0).then(|| "ward".to_owned());
                    FlowOp::SetState { flow, state: FlowState::Hospital, reason, attempts: seq, expect: None }.into()
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
        // When a row goes depends on when it was written.
        let columns = sql.column_names().iter().position(|name| *name == "forget_at").unwrap_or(sql.column_count());
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
        let (together, single) = (World::<File>::new().await, World::<File>::new().await);
        let authors = [together.alice, together.bob];
        assert_eq!(authors, [single.alice, single.bob]);
        let mut numbers = Numbers(seed);
        let (most, units) = if seed % 2 == 0 { (1, 30) } else { (4, 4) };
        let first = together.store.next_flow_row();
        assert_eq!(single.store.next_flow_row(), first);
        for batch in 0..10 {
            let count = 1 + numbers.below(units);
            let first = FlowRow(first.0 + batch * 3);
            let units: Vec<(Author, Vec<Op>)> = (0..count)
                .map(|_| (authors[numbers.below(2) as usize], ops(&mut numbers, most, authors.map(to), first)))
                .collect();
            let gate = hold_the_committer(&together.store, together.alice);
            let answers: Vec<_> =
                units.iter().map(|(author, ops)| submit(&together.store, *author, None, ops.clone())).collect();
            drop(gate);
            for ((author, ops), answer) in units.into_iter().zip(answers) {
                let told = format!("{ops:?}");
                let (one, other) = (answer.await.unwrap(), single.commit(author, ops).await);
                succeeded += u32::from(one.is_ok());
                assert_eq!(format!("{one:?}"), format!("{other:?}"), "seed {seed}, batch {batch}: {told}");
            }
            assert_eq!(
                rows(together.databases.dir.path()),
                rows(single.databases.dir.path()),
                "seed {seed}, batch {batch}"
            );
        }
    }
    assert!(succeeded > 1_000, "only {succeeded} units were written: the comparison says little");
}
