//! Where ledgers lie, and how their tables come about.

use std::ops::Bound;

use crate::common::ledger::{CASH, at, cash, id, recording};
use crate::common::*;
use maxhost_ledger::notary::UniquenessRequest;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::query::{Cursor, Query, SortKey, StatusFilter, parse};
use maxhost_model::IdentityRow;
use maxhost_store::ledger::query::page;
use maxhost_store::ledger::{
    Having, Indexed, LedgerOp, NotaryOp, PageRequest, Slice, Source, SqlCriteria, SqlDialect, SqlValue,
};
use maxhost_store_postgres::{PostgresStore, migrate};

fn issue(number: u32) -> maxhost_store::Op {
    LedgerOp::Record(Box::new(recording(number, &[], vec![cash(10, "GBP", 1)]))).into()
}

fn tables_of(database: &Database, identity: IdentityRow) -> String {
    database.sql(&format!("SELECT count(*) FROM pg_tables WHERE schemaname = 'maxhost_i{}'", identity.0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_is_made_when_it_is_first_used_and_lies_in_its_identitys_schema() {
    let database = Database::new().await;
    let store = PostgresStore::open(database.options()).await.unwrap();
    let rows = store.register_identities(&["Alice", "Bob"]).await.unwrap();
    let (alice, bob) = (claim(&store, rows[0], 1).await, claim(&store, rows[1], 1).await);
    let flow = store.next_flow_row();
    store.commit(alice, vec![start(flow)]).await.unwrap();
    assert_eq!(tables_of(&database, rows[0]), "0", "who has no ledger has no tables");
    assert_eq!(store.newest_change(rows[0]).await.unwrap(), 0);
    assert!(store.ledger_transaction(rows[0], &id(1)).await.unwrap().is_none());
    assert!(store.notary_counts(rows[0]).await.unwrap().is_none());

    store.commit(alice, vec![issue(1)]).await.unwrap();
    assert_eq!((tables_of(&database, rows[0]), tables_of(&database, rows[1])), ("14".to_owned(), "0".to_owned()));
    assert_eq!(database.sql(&format!("SELECT count(*) FROM maxhost_i{}.vault_state", rows[0].0)), "1");
    assert_eq!(database.sql("SELECT count(*) FROM maxhost.vault_state"), "0");
    // Two ledgers, one commit each, one statement for both.
    let (one, two) = tokio::join!(store.commit(alice, vec![issue(2)]), store.commit(bob, vec![issue(2)]));
    one.unwrap();
    two.unwrap();
    assert_eq!((store.newest_change(rows[0]).await.unwrap(), store.newest_change(rows[1]).await.unwrap()), (2, 1));
    // A table that is gone is no empty ledger.
    database.sql(&format!("DROP TABLE maxhost_i{}.vault_change", rows[1].0));
    assert!(store.newest_change(rows[1]).await.is_err());
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_could_not_be_made_leaves_nothing_and_is_made_later() {
    let database = Database::new().await;
    let store = PostgresStore::open(database.options()).await.unwrap();
    let rows = store.register_identities(&["Alice", "Bob"]).await.unwrap();
    let (alice, bob) = (claim(&store, rows[0], 1).await, claim(&store, rows[1], 1).await);
    let schema = format!("maxhost_i{}", rows[0].0);
    database.sql(&format!("CREATE TABLE {schema}.attachment (in_the_way int)"));
    let gate = hold_the_committer(&store, alice);
    let cannot = submit(&store, alice, None, vec![issue(1)]);
    let other = submit(&store, bob, None, vec![issue(1)]);
    drop(gate);
    assert!(cannot.await.unwrap().is_err());
    other.await.unwrap().unwrap();
    assert_eq!(tables_of(&database, rows[0]), "1", "whole or not at all");
    database.sql(&format!("DROP TABLE {schema}.attachment"));
    store.commit(alice, vec![issue(1)]).await.unwrap();
    assert_eq!(tables_of(&database, rows[0]), "14");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ledgers_of_an_older_version_are_brought_up_to_date() {
    let database = Database::new().await;
    let store = PostgresStore::open(database.options()).await.unwrap();
    let rows = store.register_identities(&["Alice", "Bob", "Carol"]).await.unwrap();
    // As an older build left them: with a version, and without what this one adds.
    database.sql("UPDATE maxhost.identity SET ledger = 1 WHERE name <> 'Carol'");
    claim(&store, rows[0], 1).await;
    assert_eq!(tables_of(&database, rows[0]), "14", "when it is claimed");
    assert_eq!(tables_of(&database, rows[1]), "0");
    store.close().await;
    migrate(&database.options()).await.unwrap();
    assert_eq!((tables_of(&database, rows[1]), tables_of(&database, rows[2])), ("14".to_owned(), "0".to_owned()));
    assert_eq!(database.sql("SELECT count(DISTINCT ledger) FROM maxhost.identity WHERE ledger > 1"), "1");
}

/// A unit that the server does not take costs the others of its batch nothing, and they stand on each other as before.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_the_server_does_not_take_fails_its_own_unit() {
    let database = Database::new().await;
    let store = PostgresStore::open(database.options()).await.unwrap();
    let identity = store.register_identities(&["Alice"]).await.unwrap()[0];
    let alice = claim(&store, identity, 1).await;
    let gate = hold_the_committer(&store, alice);
    let first = submit(&store, alice, None, vec![issue(1)]);
    let mut spoilt = recording(2, &[StateRef::new(id(1), 0)], vec![cash(10, "GBP", 1)]);
    spoilt.outputs[0].content.linear_id = Some("a\0b".to_owned());
    let spoilt = submit(&store, alice, None, vec![LedgerOp::Record(Box::new(spoilt)).into()]);
    let spends = recording(3, &[StateRef::new(id(1), 0)], vec![cash(7, "GBP", 1)]);
    let spends = submit(&store, alice, None, vec![LedgerOp::Record(Box::new(spends)).into()]);
    drop(gate);
    first.await.unwrap().unwrap();
    assert!(spoilt.await.unwrap().is_err());
    spends.await.unwrap().unwrap();
    let spent = store.spent_by(identity, &[StateRef::new(id(1), 0)]).await.unwrap();
    assert_eq!(spent, [(StateRef::new(id(1), 0), id(3))]);
    assert!(store.ledger_transaction(identity, &id(2)).await.unwrap().is_none());
    store.close().await;
}

/// What a statement with these values would be, typed in.
fn typed_in(criteria: &SqlCriteria) -> String {
    let mut sql = criteria.sql.clone();
    for (place, value) in criteria.values.iter().enumerate().rev() {
        let value = match value {
            SqlValue::Integer(number) => number.to_string(),
            SqlValue::Text(text) => format!("'{text}'"),
            SqlValue::Bytes(bytes) => {
                format!("'\\x{}'::bytea", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>())
            }
        };
        sql = sql.replace(&format!("${}", place + 1), &value);
    }
    sql
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_reads_the_whole_vault() {
    let database = Database::new().await;
    let store = PostgresStore::open(database.options()).await.unwrap();
    let identity = store.register_identities(&["Alice"]).await.unwrap()[0];
    let alice = claim(&store, identity, 1).await;
    store.commit(alice, vec![issue(1)]).await.unwrap();
    let all = Query { status: StatusFilter::All, ..Query::default() };
    let first = page(&*store, identity, &all, None, None, at(0)).await.unwrap().rows.remove(0);
    let schema = format!("maxhost_i{}", identity.0);
    database.sql(&format!(
        "INSERT INTO {schema}.vault_state (identity, number, tx, idx, type, notary, constraint_kind, relevant, recorded, \
         change_in, state, participants, fields, token, issuer, quantity, bucket, consumed_by) \
         SELECT {id}, n, sha256(n::text::bytea), 0, 'cash/Cash', 'O=Notary', 'signature', 1, n, 1, 'x', 'x', 'x', 'GBP', \
         'O=Bank', n, n % 20, CASE WHEN n % 10 > 0 THEN 'x'::bytea END FROM generate_series(100, 20000) n; \
         INSERT INTO {schema}.vault_field SELECT {id}, 'owner', sha256((n % 997)::text::bytea), n \
         FROM generate_series(100, 20000) n; ANALYZE {schema}.vault_state; ANALYZE {schema}.vault_field",
        id = identity.0
    ));
    let plan = |sql: &str| database.sql(&format!("EXPLAIN {sql}"));
    let of_page = |query: &Query, after: Option<&Cursor>| {
        let few = Having::of(query);
        let source = Some(few.as_slice()).filter(|few| !few.is_empty()).map_or(Source::Vault, Source::Few);
        let types = query.types.as_deref();
        let request = PageRequest { query, after, as_of: None, now: at(0), limit: 200, types, alike: &[], source };
        let criteria = SqlCriteria::page(identity, &request, SqlDialect::postgres(&schema));
        plan(&format!("SELECT s.tx, s.state FROM {}", typed_in(&criteria)))
    };
    let unconsumed = Query { types: Some(vec![CASH.to_owned()]), ..Query::default() };
    let owner = Query { filter: parse("owner = 'O=Ann'").unwrap(), ..Query::default() };
    for (query, index) in
        [(&unconsumed, "vault_state_unconsumed"), (&all, "vault_state_pkey"), (&owner, "vault_field_pkey")]
    {
        for after in [None, Some(query.cursor_after(&first.row))] {
            let plan = of_page(query, after.as_ref());
            assert!(!plan.contains("Seq Scan") && plan.contains(index), "{query:?} behind {after:?}: {plan}");
        }
    }
    for (sort, of, index) in [
        ("owner:desc", Indexed::Field("owner".to_owned()), "vault_field_pkey"),
        ("recorded", Indexed::Recorded, "vault_state_recorded"),
    ] {
        let sort = SortKey::parse_list(sort).unwrap();
        let (descending, all) = (sort[0].descending, Bound::Unbounded);
        let query = Query { sort, ..Query::default() };
        let slice = Slice { of, descending, from: all.clone(), to: all };
        let key = SqlCriteria::key_at(identity, &slice, 128, SqlDialect::postgres(&schema));
        let found = plan(&typed_in(&key));
        assert!(!found.contains("Seq Scan") && !found.contains("Sort") && found.contains(index), "{query:?}: {found}");
        let (to, source) = (database.sql(&typed_in(&key)), Source::Slice);
        let to = match slice.of {
            Indexed::Recorded => SqlValue::Integer(to.parse().unwrap()),
            Indexed::Field(_) => {
                let digits = to.trim_start_matches("\\x").as_bytes().chunks(2);
                let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
                SqlValue::Bytes(digits.map(byte).collect())
            }
        };
        let slice = Slice { to: Bound::Excluded(to), ..slice };
        let (after, now) = (None, at(0));
        let request = PageRequest {
            query: &query,
            after,
            as_of: None,
            now,
            limit: 101,
            types: None,
            alike: &[],
            source: source(&slice),
        };
        let criteria = SqlCriteria::page(identity, &request, SqlDialect::postgres(&schema));
        let found = plan(&format!("SELECT s.tx, s.state FROM {}", typed_in(&criteria)));
        assert!(!found.contains("Seq Scan") && found.contains(index), "{query:?}: {found}");
    }
    // As the committer plans it: for whatever values.
    let candidates = database.sql(&format!(
        "SET plan_cache_mode = force_generic_plan; PREPARE q (int8, text, text, int2, int8) AS SELECT s.tx FROM {schema}.vault_state s WHERE s.identity = $1 AND s.type = $2 AND s.token = $3 \
         AND s.token IS NOT NULL AND s.consumed_by IS NULL AND s.relevant = 1 AND s.in_flight IS NULL AND s.bucket >= $4 \
         ORDER BY s.bucket LIMIT $5; EXPLAIN EXECUTE q ({}, 'cash/Cash', 'GBP', 12, 256)",
        identity.0
    ));
    assert!(candidates.contains("vault_state_amount") && !candidates.contains("Sort"), "{candidates}");
    store.close().await;
}

/// The server counts how often it has read a table from end to end.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_to_a_notary_reads_what_it_has_committed_from_end_to_end() {
    let database = Database::new().await;
    let store = PostgresStore::open(database.options()).await.unwrap();
    let identity = store.register_identities(&["Notary"]).await.unwrap()[0];
    let notary = claim(&store, identity, 1).await;
    let request = |number: u32| UniquenessRequest {
        id: id(number),
        inputs: vec![StateRef::new(id(1_000 + number), 0), StateRef::new(id(1_000 + number), 1)],
        references: vec![StateRef::new(id(2_000 + number), 0)],
        window: None,
    };
    let batch = |numbers: std::ops::Range<u32>| -> maxhost_store::Op {
        let requests = numbers.map(|number| ("O=Caller".to_owned(), request(number))).collect();
        LedgerOp::Notarise(Box::new(NotaryOp { requests, at: at(5) })).into()
    };
    store.commit(notary, vec![batch(0..1)]).await.unwrap();
    let schema = format!("maxhost_i{}", identity.0);
    database.sql(&format!(
        "INSERT INTO {schema}.notary_state SELECT {id}, sha256(n::text::bytea), 0, sha256(n::text::bytea) \
         FROM generate_series(1, 20000) n; \
         INSERT INTO {schema}.notary_tx SELECT {id}, sha256(n::text::bytea), 1, 1 FROM generate_series(1, 20000) n; \
         ANALYZE {schema}.notary_state; ANALYZE {schema}.notary_tx",
        id = identity.0
    ));
    let read = || {
        database.sql(&format!(
            "SELECT string_agg(relname || ' ' || seq_scan, ' ' ORDER BY relname) FROM pg_stat_user_tables \
             WHERE schemaname = '{schema}' AND relname IN ('notary_state', 'notary_tx', 'notary_request')"
        ))
    };
    // A store that is closed has told what it has read.
    store.close().await;
    let before = read();
    let store = PostgresStore::open(database.options()).await.unwrap();
    let notary = claim(&store, identity, 2).await;
    for round in 0..5 {
        // Half of them for the second time.
        store.commit(notary, vec![batch(round * 10..round * 10 + 20)]).await.unwrap();
    }
    store.close().await;
    assert!(before.contains("notary_state") && before.contains("notary_tx"), "{before}");
    assert_eq!(read(), before);
}
