//! Queries of a vault, against the meaning of their criteria on random data.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::query::{
    Builtin, CompareOp, Criterion, Cursor, Field, Number, Operand, Query, Row, SortKey, StatusFilter, Value,
    page as naive, parse,
};
use maxhost_ledger::vault::recording::{Described, StatesToRecord};

use super::ledger::{at, cash, key, output, recording};
use super::{Databases, World};
use crate::ledger::query::{Effort, each, page, page_with};
use crate::ledger::{OutputState, Recording, StateContent};

/// Random numbers from a seed (SplitMix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    pub(super) fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }
}

/// With these a walk along an index takes every turn on some twenty states.
const EFFORTS: [Effort; 4] = [
    Effort { few: 0, piece: 1, walked: u32::MAX, sorted: 0 },
    Effort { few: 1, piece: 2, walked: 4, sorted: 0 },
    Effort { few: 2, piece: 3, walked: 6, sorted: u32::MAX },
    Effort { few: 3, piece: 100, walked: 0, sorted: u32::MAX },
];

const FIELDS: [&str; 5] = ["quantity", "currency", "due", "owner", "owner.name"];

fn value(random: &mut Random) -> Value {
    match random.below(8) {
        0 | 1 => Value::Number(Number::parse(random.of(&["-3", "0", "1", "1.5", "2", "7"])).unwrap()),
        2 | 3 => Value::text(random.of(&["GBP", "gbp", "USD", "", "ä", "\u{10000}", "\u{ffff}", "it's", "a_b%"])),
        4 => Value::Time(at(random.below(4))),
        5 => Value::text(at(random.below(4)).to_string()),
        6 => Value::Bool(random.below(2) == 0),
        _ => Value::Null,
    }
}

fn field(random: &mut Random) -> Field {
    match random.below(8) {
        0 => {
            Field::Builtin(random.of(&[Builtin::Ref, Builtin::Notary, Builtin::Lock, Builtin::Type, Builtin::Relevant]))
        }
        1 => Field::Builtin(random.of(&[Builtin::Recorded, Builtin::Consumed, Builtin::Constraint])),
        _ => Field::Data(random.of(&FIELDS).to_owned()),
    }
}

fn operand(random: &mut Random, literal: bool) -> Operand {
    if literal { Operand::Literal(value(random)) } else { Operand::Field(field(random)) }
}

fn criterion(random: &mut Random, depth: u64) -> Criterion {
    let negated = random.below(3) == 0;
    match random.below(if depth == 0 { 5 } else { 9 }) {
        0 | 1 => {
            let sides = random.of(&[(false, true), (false, true), (true, false), (false, false)]);
            let (left, right) = (operand(random, sides.0), operand(random, sides.1));
            let all = [
                CompareOp::Equal,
                CompareOp::NotEqual,
                CompareOp::Less,
                CompareOp::LessOrEqual,
                CompareOp::Greater,
                CompareOp::GreaterOrEqual,
            ];
            Criterion::Compare { left, op: random.of(&all), right }
        }
        2 => {
            let (low, high) = (operand(random, true), operand(random, true));
            Criterion::Between { value: operand(random, false), low, high, negated }
        }
        3 => {
            let list = (0..random.below(4)).map(|_| operand(random, true)).collect();
            Criterion::In { value: operand(random, false), list, negated }
        }
        4 if random.below(2) == 0 => Criterion::IsNull { value: operand(random, false), negated },
        4 => {
            let pattern = random.of(&["%", "G%", "_BP", "g%p", ""]).to_owned();
            Criterion::Like { value: operand(random, false), pattern, ignore_case: random.below(2) == 0, negated }
        }
        5 => criterion(random, depth - 1).negate(),
        6 | 7 => Criterion::All((0..random.below(3)).map(|_| criterion(random, depth - 1)).collect()),
        _ => Criterion::Any((0..random.below(3)).map(|_| criterion(random, depth - 1)).collect()),
    }
}

fn state(random: &mut Random) -> OutputState {
    let mut fields: BTreeMap<String, Value> = BTreeMap::new();
    for name in FIELDS {
        if random.below(4) > 0 {
            fields.insert(name.to_owned(), value(random));
        }
    }
    let type_name = random.of(&["cash/Cash", "iou/Iou"]).to_owned();
    let content = StateContent {
        type_name,
        state: Bytes::from_static(b"x"),
        notary: random.of(&["O=Notary, L=Zurich, C=CH", "O=notary, L=Oslo, C=NO"]).to_owned(),
        constraint: random.of(&["signature", "hash"]).to_owned(),
        participants: ["O=Ann".to_owned()].into(),
        fields,
        amount: None,
        linear_id: None,
    };
    let participants = vec![key(if random.below(4) == 0 { 2 } else { 1 })];
    OutputState { described: Described { participants, owner: None, fungible: false }, content }
}

fn query(random: &mut Random) -> Query {
    let types = match random.below(4) {
        0 => Some(vec!["cash/Cash".to_owned()]),
        1 => Some(vec!["iou/Iou".to_owned(), "cash/Cash".to_owned()]),
        2 if random.below(8) == 0 => Some(Vec::new()),
        _ => None,
    };
    let sort = (0..random.below(3)).map(|_| SortKey { field: field(random), descending: random.below(2) == 0 });
    let sort = sort.collect();
    Query {
        status: random.of(&[StatusFilter::Unconsumed, StatusFilter::Consumed, StatusFilter::All]),
        types,
        filter: criterion(random, 3),
        sort,
        limit: 1 + random.below(9) as u32,
    }
}

/// A vault of random states, some consumed; and the same as rows in memory.
async fn vault<D: Databases>(random: &mut Random) -> (World<D>, Vec<Row>) {
    let world = World::<D>::new().await;
    let mut open: Vec<StateRef> = Vec::new();
    for number in 1..=20 {
        let inputs: Vec<StateRef> = match open.is_empty() || random.below(2) == 0 {
            true => Vec::new(),
            false => vec![open.swap_remove(random.below(open.len() as u64) as usize)],
        };
        let outputs: Vec<OutputState> = (0..1 + random.below(3)).map(|_| state(random)).collect();
        open.extend((0..outputs.len() as u32).map(|index| output(number, index)));
        let what = StatesToRecord::AllVisible;
        world.record(Recording { what, at: at(random.below(4)), ..recording(number, &inputs, outputs) }).await;
    }
    let everything = Query { status: StatusFilter::All, limit: 10_000, ..Query::default() };
    let rows = world.all(&everything).await.rows.into_iter().map(|row| row.row).collect();
    (world, rows)
}

pub async fn queries_mean_what_they_say<D: Databases>() {
    let seed = u64::from(std::process::id());
    let mut random = Random(seed);
    let (world, rows) = vault::<D>(&mut random).await;
    for _ in 0..400 {
        let query = query(&mut random);
        let mut cursor: Option<Cursor> = None;
        loop {
            let expected = naive(&query, &rows, cursor.as_ref()).unwrap();
            let wanted: Vec<StateRef> = expected.rows.iter().map(|row| row.reference).collect();
            // As in a small vault, and in the ways of large ones.
            let effort = random.of(&EFFORTS);
            for effort in [Effort::default(), effort] {
                let (alice, cursor, when) = (world.alice.identity, cursor.as_ref(), (None, at(9)));
                let found = page_with(&*world.store, alice, &query, cursor, when, effort).await.unwrap();
                let refs: Vec<StateRef> = found.rows.iter().map(|row| row.row.reference).collect();
                assert_eq!(refs, wanted, "seed {seed}: {query:?} behind {cursor:?} with {effort:?}");
                assert_eq!(found.cursor, expected.cursor, "seed {seed}: {query:?} with {effort:?}");
            }
            cursor = expected.cursor;
            if cursor.is_none() {
                break;
            }
        }
        let mut streamed = 0;
        each(&*world.store, world.alice.identity, &query, None, at(9), |_| {
            streamed += 1;
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(streamed, rows.iter().filter(|row| query.finds(row)).count(), "seed {seed}: {query:?}");
    }
}

pub async fn pages_go_on_over_changes<D: Databases>() {
    let world = World::<D>::new().await;
    let quantity = SortKey { field: Field::Data("quantity".to_owned()), descending: true };
    for number in 1..=9 {
        world.record(recording(number, &[], vec![cash(u64::from(number) * 10, "GBP", 1)])).await;
    }
    let query = Query { sort: vec![quantity], limit: 3, ..Query::default() };
    let first = page(&*world.store, world.alice.identity, &query, None, None, at(0)).await.unwrap();
    let shown = |page: &crate::ledger::VaultPage| page.rows.iter().map(|row| row.row.reference).collect::<Vec<_>>();
    assert_eq!(shown(&first), [output(9, 0), output(8, 0), output(7, 0)]);
    // One that was shown goes, one that was not goes, one comes before and one behind.
    world.record(recording(20, &[output(7, 0), output(6, 0)], vec![cash(95, "GBP", 1), cash(45, "GBP", 1)])).await;
    let second = page(&*world.store, world.alice.identity, &query, first.cursor.as_ref(), None, at(0)).await.unwrap();
    assert_eq!(shown(&second), [output(5, 0), output(20, 1), output(4, 0)]);
    let last = page(&*world.store, world.alice.identity, &query, second.cursor.as_ref(), None, at(0)).await.unwrap();
    assert_eq!(shown(&last), [output(3, 0), output(2, 0), output(1, 0)]);
    assert_eq!(last.cursor, None);
}

/// However large states are, no page is much larger than its bound, and pages together have them all.
pub async fn pages_of_large_states_are_bounded_in_bytes<D: Databases>() {
    let world = World::<D>::new().await;
    let (alice, large) = (world.alice.identity, Bytes::from(vec![7; crate::PAGE_BYTES / 2]));
    for number in 1..=7 {
        let small = cash(u64::from(number) * 10, "GBP", 1);
        let content = StateContent { state: large.clone(), ..small.content };
        world.record(recording(number, &[], vec![OutputState { content, ..small }])).await;
    }
    let by = |field: Field| vec![SortKey { field, descending: false }];
    let few = Criterion::Compare {
        left: Operand::Field(Field::Data("currency".to_owned())),
        op: CompareOp::Equal,
        right: Operand::Literal(Value::Text("GBP".to_owned())),
    };
    let queries = [
        Query::default(),
        Query { filter: few, ..Query::default() },
        Query { sort: by(Field::Data("quantity".to_owned())), ..Query::default() },
        Query { sort: by(Field::Builtin(Builtin::Recorded)), ..Query::default() },
        // The database does not sort by this.
        Query { sort: by(Field::Builtin(Builtin::Lock)), ..Query::default() },
    ];
    for query in queries {
        for effort in [Effort::default(), EFFORTS[0]] {
            let (mut sizes, mut seen, mut cursor) = (Vec::new(), HashSet::new(), None);
            loop {
                let found =
                    page_with(&*world.store, alice, &query, cursor.as_ref(), (None, at(9)), effort).await.unwrap();
                sizes.push(found.rows.len());
                seen.extend(found.rows.iter().map(|row| row.row.reference));
                cursor = found.cursor;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!((sizes, seen.len()), (vec![2, 2, 2, 1], 7), "{query:?}");
        }
        let mut all = 0;
        each(&*world.store, alice, &query, None, at(9), |_| {
            all += 1;
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(all, 7);
    }
    // A part of what was there at a moment goes on behind any reference, whatever has changed since.
    let whole = Query { limit: 100, ..Query::default() };
    let then = world.store.newest_change(alice).await.unwrap();
    world.record(recording(9, &[output(1, 0), output(5, 0)], vec![cash(1, "GBP", 1)])).await;
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let found = page(&*world.store, alice, &whole, cursor.as_ref(), Some(then), at(9)).await.unwrap();
        seen.extend(found.rows.iter().map(|row| row.row.reference));
        let Some(end) = found.cursor else { break };
        cursor = whole.cursor_behind(end.after().1);
        assert_eq!(cursor, Some(end), "a reference is all that a cursor says");
    }
    let mut then: Vec<StateRef> = (1..=7).map(|number| output(number, 0)).collect();
    then.sort_unstable();
    assert_eq!(seen, then);

    let changes = world.store.vault_changes(alice, 0, 100, at(9)).await.unwrap();
    assert_eq!(changes.len(), 2);
    let after = changes[1].number;
    let rest = world.store.vault_changes(alice, after, 100, at(9)).await.unwrap();
    assert_eq!((rest.len(), rest[0].number), (2, after + 1));
    assert_eq!(world.store.vault_changes(alice, after, 1, at(9)).await.unwrap().len(), 1);
}

/// A list and a chain of alternatives may be as long as the language lets them be.
pub async fn the_longest_criteria_are_answered<D: Databases>() {
    let world = World::<D>::new().await;
    for number in 1..=3 {
        world.record(recording(number, &[], vec![cash(u64::from(number) * 10, "GBP", 1)])).await;
    }
    let list = |value: &dyn Fn(u32) -> String| (0..1_000).map(value).collect::<Vec<_>>().join(", ");
    let either = |part: &dyn Fn(u32) -> String, count: u32| (0..count).map(part).collect::<Vec<_>>().join(" or ");
    let filters = [
        format!("quantity in ({})", list(&|number| (number * 20).to_string())),
        format!("currency = 'GBP' and quantity in ({})", list(&|number| (number * 20).to_string())),
        either(&|number| format!("quantity = {}", number * 20), 800),
        either(&|number| format!("notary = '{number}'"), 600) + " or quantity = 20",
        either(&|number| format!("quantity > {} and quantity < {}", number * 20 + 15, number * 20 + 25), 300),
    ];
    for filter in filters {
        let query = Query { filter: parse(&filter).unwrap(), ..Query::default() };
        let found = world.all(&query).await.rows;
        let found: Vec<_> = found.iter().map(|row| row.row.reference).collect();
        assert_eq!(found, [output(2, 0)], "{}", filter.chars().take(120).collect::<String>());
    }
}
