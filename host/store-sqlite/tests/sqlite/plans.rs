//! How pages of a vault are read: no page looks at a whole vault where less is enough.

use std::ops::Bound;

use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::query::{Criterion, Query, SortKey, StatusFilter, of_key_external_ids, parse};
use maxhost_model::{IdentityRow, SecureHash};
use maxhost_store::ledger::{Having, Indexed, PageRequest, Slice, Source, SqlCriteria, SqlDialect, SqlValue};
use rusqlite::Connection;

const IDENTITY: IdentityRow = IdentityRow(1);

fn tables() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(include_str!("../../migrations/0004_ledger.sql")).unwrap();
    conn.execute_batch(include_str!("../../migrations/0010_vault_order.sql")).unwrap();
    conn
}

fn plan(conn: &Connection, sql: &str) -> Vec<String> {
    explained(conn, &format!("EXPLAIN QUERY PLAN {sql}"), 3)
}

/// A column of what a statement is explained by.
fn explained(conn: &Connection, sql: &str, column: usize) -> Vec<String> {
    let mut statement = conn.prepare(sql).unwrap();
    for number in 1..=statement.parameter_count() {
        statement.raw_bind_parameter(number, 1).unwrap();
    }
    let mut rows = statement.raw_query();
    let mut found = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        found.push(row.get::<_, String>(column).unwrap());
    }
    found
}

/// The steps of a page, behind a state or not, with states looked up or one by one.
fn page(conn: &Connection, query: &Query, few: bool, behind: bool) -> Vec<String> {
    let few = few.then(|| Having::of(query));
    page_from(conn, query, few.as_deref().map_or(Source::Vault, Source::Few), behind)
}

/// The steps of a page from where its states are looked for.
fn page_from(conn: &Connection, query: &Query, source: Source<'_>, behind: bool) -> Vec<String> {
    let row = maxhost_ledger::vault::query::Row {
        reference: StateRef::new(SecureHash::of(b"tx"), 0),
        type_name: "cash/Cash".to_owned(),
        status: maxhost_ledger::vault::query::Status::Unconsumed,
        recorded: Timestamp::from_nanos(1),
        consumed: None,
        notary: "O=Notary".to_owned(),
        lock: None,
        relevant: true,
        constraint: "signature".to_owned(),
        participants: Default::default(),
        external_ids: Default::default(),
        data: Default::default(),
    };
    let cursor = query.cursor_after(&row);
    let (after, types) = (behind.then_some(&cursor), query.types.as_deref());
    let now = Timestamp::from_nanos(0);
    let request = PageRequest { query, after, as_of: None, now, limit: 100, types, alike: &[], source };
    let criteria = SqlCriteria::page(IDENTITY, &request, SqlDialect::sqlite());
    plan(conn, &format!("SELECT s.tx, s.idx, s.state FROM {}", criteria.sql))
}

fn query(filter: &str) -> Query {
    let mut query = Query::default();
    if !filter.is_empty() {
        query.filter = parse(filter).unwrap();
    }
    query
}

fn is_of_large(step: &str) -> bool {
    ["vault_state", "vault_field", "s", "k", "f"].iter().any(|table| step.split(' ').nth(1) == Some(table))
}

#[test]
fn no_page_scans_a_table_or_sorts_the_whole_vault() {
    let conn = tables();
    let all = Query { status: StatusFilter::All, ..Query::default() };
    let typed = Query { types: Some(vec!["cash/Cash".to_owned()]), ..Query::default() };
    let criteria = [
        query(""),
        all,
        typed,
        query("currency = 'GBP'"),
        query("quantity > 5"),
        query("quantity >= 5 and quantity < 9 and owner = 'O=Ann'"),
        query("owner = 'O=Ann' or owner = 'O=Bob'"),
        query("notary = 'O=Notary'"),
    ];
    for (query, behind) in criteria.iter().flat_map(|query| [(query, false), (query, true)]) {
        let steps = page(&conn, query, false, behind);
        for step in steps.iter().filter(|step| is_of_large(step)) {
            assert!(step.starts_with("SEARCH"), "{query:?}: {steps:?}");
        }
        assert!(
            !steps.iter().any(|step| step.contains("TEMP B-TREE")),
            "{query:?} reads all before the first: {steps:?}"
        );
    }
}

#[test]
fn what_few_states_have_is_looked_up_and_nothing_else_is_read() {
    let conn = tables();
    let sorted = Query { sort: SortKey::parse_list("quantity:desc,due").unwrap(), ..query("owner = 'O=Ann'") };
    // What is compared to a time may be one or a text.
    let due = query("due >= '2026-01-01T00:00:00Z' and due < '2026-01-02T00:00:00Z'");
    let many: Vec<String> = (0..1_000).map(|number| format!("'{number}'")).collect();
    let listed = query(&format!("serial in ({})", many.join(", ")));
    let recorded =
        query("recorded >= '2026-01-01T00:00:00Z' and recorded < '2026-01-02T00:00:00Z' and currency = 'GBP'");
    let steps = page(&conn, &recorded, true, false);
    let range = "SEARCH r USING INDEX vault_state_recorded (identity=? AND recorded>? AND recorded<?)";
    assert!(steps.iter().any(|step| step == range), "{steps:?}");
    for query in [query("serial = '1'"), listed, query("quantity >= 5 and quantity < 9"), due, sorted] {
        for behind in [false, true] {
            let steps = page(&conn, &query, true, behind);
            assert!(
                steps
                    .iter()
                    .any(|step| step.starts_with("SEARCH f USING PRIMARY KEY (identity=? AND name=? AND value")),
                "{query:?}: {steps:?}"
            );
            assert!(
                steps.iter().any(|step| step.starts_with("SEARCH s USING INTEGER PRIMARY KEY")),
                "{query:?}: {steps:?}"
            );
            for step in steps.iter().filter(|step| is_of_large(step)) {
                let by_name_alone = step.ends_with("(identity=? AND name=?)");
                assert!(step.starts_with("SEARCH") && !by_name_alone, "{query:?}: {steps:?}");
            }
        }
    }
}

#[test]
fn a_page_that_is_sorted_reads_a_piece_of_an_index() {
    let conn = tables();
    let field = |name: &str| Indexed::Field(name.to_owned());
    let number = |number: i64| Bound::Included(SqlValue::Integer(number));
    let bytes = |byte: u8| Bound::Excluded(SqlValue::Bytes(vec![byte]));
    let typed = Some(vec!["cash/Cash".to_owned(), "iou/Iou".to_owned()]);
    for (sort, of, from, to) in [
        ("quantity", field("quantity"), Bound::Unbounded, bytes(9)),
        ("quantity:desc", field("quantity"), bytes(9), bytes(1)),
        ("quantity:desc,due", field("quantity"), bytes(9), Bound::Unbounded),
        ("recorded", Indexed::Recorded, number(3), number(9)),
        ("recorded:desc,owner", Indexed::Recorded, Bound::Unbounded, number(9)),
    ] {
        let sort_keys = SortKey::parse_list(sort).unwrap();
        let slice = Slice { of, descending: sort_keys[0].descending, from, to };
        let query = Query { sort: sort_keys, types: typed.clone(), ..query("currency = 'GBP'") };
        let range = match slice.of {
            Indexed::Field(_) => "SEARCH f USING PRIMARY KEY (identity=? AND name=? AND value",
            Indexed::Recorded => "SEARCH s USING INDEX vault_state_recorded (identity=? AND recorded",
        };
        for behind in [false, true] {
            let steps = page_from(&conn, &query, Source::Slice(&slice), behind);
            assert!(steps.iter().any(|step| step.starts_with(range)), "{sort}: {steps:?}");
            for step in steps.iter().filter(|step| is_of_large(step)) {
                let by_identity_alone = step.ends_with("(identity=?)") || step.ends_with("(identity=? AND name=?)");
                assert!(step.starts_with("SEARCH") && !by_identity_alone, "{sort}: {steps:?}");
            }
            let sorts_all = |step: &String| step == "USE TEMP B-TREE FOR ORDER BY";
            assert!(!steps.iter().any(sorts_all), "{sort}: the states of one key are enough to sort: {steps:?}");
        }
        let key = SqlCriteria::key_at(IDENTITY, &slice, 128, SqlDialect::sqlite());
        let steps = plan(&conn, &key.sql);
        assert!(steps.len() == 1 && steps[0].replace("COVERING ", "").starts_with(range), "{sort}: {steps:?}");
    }
}

#[test]
fn states_are_counted_in_an_index_alone() {
    let conn = tables();
    let typed = ["cash/Cash".to_owned()];
    for (status, types, index) in [
        (
            StatusFilter::Unconsumed,
            Some(&typed[..]),
            "SEARCH s USING INDEX vault_state_unconsumed (identity=? AND type=?)",
        ),
        (StatusFilter::Unconsumed, None, "SEARCH s USING INDEX vault_state_unconsumed (identity=?)"),
        (StatusFilter::All, None, "SEARCH s USING COVERING INDEX"),
    ] {
        let types_of = |types: &[String]| Query { types: Some(types.to_vec()), ..Query::default() };
        let sort = SortKey::parse_list("quantity").unwrap();
        let query = Query { status, sort, ..types.map(types_of).unwrap_or_default() };
        let steps = page_from(&conn, &query, Source::Counted, false);
        assert!(
            status == StatusFilter::All || steps.iter().any(|step| step.starts_with(index)),
            "what is consumed is not read: {steps:?}"
        );
        let counted = SqlCriteria::count_states(IDENTITY, status, types, 100, SqlDialect::sqlite());
        let sql = format!("SELECT count(*) FROM {}", counted.sql);
        let steps = plan(&conn, &sql);
        assert!(steps.iter().any(|step| step.starts_with(index)), "{status:?}: {steps:?}");
        // The place of a state's row is known then, and nobody goes there: no column of it is read.
        let operations = explained(&conn, &format!("EXPLAIN {sql}"), 1);
        assert!(operations.len() > 5 && !operations.contains(&"Column".to_owned()), "{status:?}: {operations:?}");
    }
}

#[test]
fn a_state_that_has_several_of_the_values_looked_for_is_looked_up_once() {
    let looked_up = |filter: Criterion| {
        let having = Having::of(&Query { filter, ..Query::default() });
        SqlCriteria::count(IDENTITY, &having[0], 9, SqlDialect::sqlite()).sql
    };
    let of_keys = |ids: &[&str]| {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        looked_up(of_key_external_ids(&ids).unwrap().unwrap())
    };
    assert!(of_keys(&["one", "two"]).contains("SELECT DISTINCT f.state"), "{}", of_keys(&["one", "two"]));
    assert!(!of_keys(&["one"]).contains("DISTINCT"), "a state has a value once");
    let of_data = looked_up(parse("serial in ('1', '2')").unwrap());
    assert!(of_data.contains("IN (") && !of_data.contains("DISTINCT"), "a state has one value of a field: {of_data}");
}

#[test]
fn a_named_state_is_looked_up() {
    let named = query(&format!("ref = '{}'", StateRef::new(SecureHash::of(b"tx"), 3)));
    let steps = page(&tables(), &named, false, false);
    assert!(steps.iter().any(|step| step.contains("vault_state_ref (identity=? AND tx=? AND idx=?)")), "{steps:?}");
}
