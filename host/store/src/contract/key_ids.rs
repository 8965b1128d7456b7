//! External ids of keys: which key has which, and the states that are found by them.

use std::collections::BTreeSet;

use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::query::{Query, SortKey, StatusFilter, of_key_external_ids, parse};
use maxhost_model::{FlowRow, SecureHash};

use super::ledger::{at, cash, key, output, recording};
use super::{Databases, World, end};
use crate::ledger::codec::set_key_external_ids;
use crate::ledger::{AssignedKey, KnownKey, LedgerOp, OutputState};
use crate::{Author, Op};

fn known(byte: u8) -> Op {
    let party = "O=Alice, L=London, C=GB".to_owned();
    LedgerOp::AddKey(Box::new(KnownKey { key: key(byte), party, nonce: Some([byte; 32]), at: at(1) })).into()
}

fn assign(byte: u8, external_id: &str) -> Op {
    let (id, external_id) = (key(byte).fingerprint(), external_id.to_owned());
    LedgerOp::AssignKey(Box::new(AssignedKey { id, external_id, at: at(1) })).into()
}

pub async fn a_key_has_one_external_id_for_ever<D: Databases>() {
    let world = World::<D>::new().await;
    let all: Vec<SecureHash> = (10..=14).map(|byte| key(byte).fingerprint()).collect();
    let ids = async |world: &World<D>, of: Author| -> Vec<(SecureHash, String)> {
        let mut found = world.store.key_external_ids(of.identity, &all).await.unwrap();
        found.sort();
        found
    };
    let keys = async |world: &World<D>, of: Author, id: &str, after, limit| -> Vec<SecureHash> {
        let found = world.store.keys_of_external_id(of.identity, id, after, limit).await.unwrap();
        found.iter().map(|known| known.key.fingerprint()).collect()
    };
    assert!(ids(&world, world.alice).await.is_empty(), "no ledger is in use yet");
    assert!(keys(&world, world.alice, "one", None, 9).await.is_empty());
    let spoilt = vec![known(10), assign(10, "one"), end(FlowRow(4_000_000))];
    assert!(world.commit(world.alice, spoilt).await.is_err());
    assert!(ids(&world, world.alice).await.is_empty(), "what was undone never was");
    let made = vec![
        known(10),
        assign(10, "one"),
        known(11),
        assign(11, "one"),
        known(12),
        assign(12, "two"),
        known(13),
        assign(10, "two"),
    ];
    world.commit(world.alice, made).await.unwrap();
    world.commit(world.alice, vec![assign(11, "two")]).await.unwrap();
    world.commit(world.bob, vec![known(14), assign(14, "one")]).await.unwrap();
    let world = world.reopen().await;
    let mut expected: Vec<(SecureHash, String)> =
        [(10, "one"), (11, "one"), (12, "two")].map(|(byte, id)| (key(byte).fingerprint(), id.to_owned())).into();
    expected.sort();
    assert_eq!(ids(&world, world.alice).await, expected, "what is kept stays as it is");
    assert!(world.store.key_external_ids(world.alice.identity, &[]).await.unwrap().is_empty());
    let mut ones = vec![key(10).fingerprint(), key(11).fingerprint()];
    ones.sort();
    assert_eq!(keys(&world, world.alice, "one", None, 9).await, ones, "in the order of fingerprints");
    assert_eq!(keys(&world, world.alice, "one", None, 1).await, ones[..1]);
    assert_eq!(keys(&world, world.alice, "one", Some(ones[0]), 9).await, ones[1..]);
    assert!(keys(&world, world.alice, "nobody", None, 9).await.is_empty());
    assert_eq!(keys(&world, world.bob, "one", None, 9).await, [key(14).fingerprint()]);
}

pub async fn states_are_found_by_the_external_ids_of_their_keys<D: Databases>() {
    let world = World::<D>::new().await;
    let of = |quantity: u64, ids: &[&str]| -> OutputState {
        let mut state = cash(quantity, "GBP", 1);
        let ids: BTreeSet<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        set_key_external_ids(&mut state.content.fields, &ids).unwrap();
        state
    };
    // Longer than what an index keeps of a text.
    let [long, longer] = ["a", "b"].map(|end| "x".repeat(500) + end);
    let outputs = vec![of(10, &["one"]), of(20, &["two", "one"]), of(30, &[]), of(40, &[&long]), of(50, &[&longer])];
    world.record(recording(1, &[], outputs)).await;
    world.record(recording(2, &[output(1, 0)], vec![of(10, &["two"])])).await;
    let world = world.reopen().await;
    let found = async |filter, status| -> BTreeSet<StateRef> {
        let rows = world.all(&Query { status, filter, ..Query::default() }).await.rows;
        let each: Vec<StateRef> = rows.iter().map(|row| row.row.reference).collect();
        let set: BTreeSet<StateRef> = each.iter().copied().collect();
        assert_eq!(set.len(), each.len(), "each once: {each:?}");
        set
    };
    let ids = |ids: &[&str]| {
        of_key_external_ids(&ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>()).unwrap().unwrap()
    };
    let unconsumed = StatusFilter::Unconsumed;
    assert_eq!(found(ids(&["one"]), unconsumed).await, [output(1, 1)].into());
    assert_eq!(found(ids(&["one"]), StatusFilter::All).await, [output(1, 0), output(1, 1)].into());
    assert_eq!(found(ids(&["one", "two"]), unconsumed).await, [output(1, 1), output(2, 0)].into());
    assert_eq!(found(ids(&["one"]).and(ids(&["two"])), unconsumed).await, [output(1, 1)].into(), "it has both");
    assert!(found(ids(&["nobody"]), unconsumed).await.is_empty());
    assert_eq!(found(ids(&[&long]), unconsumed).await, [output(1, 3)].into());
    let not_one = parse("not \"@key_external_id\" = 'one'").unwrap();
    assert_eq!(found(not_one, unconsumed).await, [output(1, 2), output(1, 3), output(1, 4), output(2, 0)].into());
    let none = async |text: &str| found(parse(text).unwrap(), unconsumed).await;
    assert_eq!(none("\"@key_external_id\" is null").await, [output(1, 2)].into());
    assert_eq!(none("quantity > 10 and \"@key_external_id\" is null").await, [output(1, 2)].into());
    assert!(none("quantity = 20 and \"@key_external_id\" is null").await.is_empty());
    let one = none("\"@key_external_id\" is null or \"@key_external_id\" = 'one'").await;
    assert_eq!(one, [output(1, 1), output(1, 2)].into());
    let some = none("\"@key_external_id\" is not null").await;
    assert_eq!(some, [output(1, 1), output(1, 3), output(1, 4), output(2, 0)].into());
    // No field of the data has that name, so it sorts nothing.
    let sort = SortKey::parse_list("quantity:desc").unwrap();
    let query = Query { filter: ids(&["one", "two"]), sort, ..Query::default() };
    let rows = world.all(&query).await.rows;
    assert_eq!(rows.iter().map(|row| row.row.reference).collect::<Vec<_>>(), [output(1, 1), output(2, 0)]);
    let both: BTreeSet<String> = ["one".to_owned(), "two".to_owned()].into();
    assert_eq!(rows[0].row.external_ids, both);
    assert!(rows[0].row.data.keys().all(|name| !name.contains('@')), "{:?}", rows[0].row.data);
}
