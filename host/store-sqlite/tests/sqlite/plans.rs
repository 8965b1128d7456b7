//! How pages of a vault are read: no page looks at a whole vault where less is enough.

use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::query::{Query, SortKey, StatusFilter, parse};
use maxhost_model::{IdentityRow, SecureHash};
use maxhost_store::ledger::{FieldRanges, PageRequest, SqlCriteria, SqlDialect};
use rusqlite::Connection;

const IDENTITY: IdentityRow = IdentityRow(1);

fn tables() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(include_str!("../../migrations/0004_ledger.sql")).unwrap();
    conn
}

fn plan(conn: &Connection, sql: &str) -> Vec<String> {
    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    for number in 1..=statement.parameter_count() {
        statement.raw_bind_parameter(number, 1).unwrap();
    }
    let mut rows = statement.raw_query();
    let mut steps = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        steps.push(row.get::<_, String>(3).unwrap());
    }
    steps
}

/// The steps of a page, behind a state or not, with fields looked up or state by state.
fn page(conn: &Connection, query: &Query, few: bool, behind: bool) -> Vec<String> {
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
    let (cursor, fields) = (query.cursor_after(&row), FieldRanges::of(query));
    let few = few.then_some(fields.as_slice());
    let after = behind.then_some(&cursor);
    let request = PageRequest { query, after, as_of: None, now: Timestamp::from_nanos(0), limit: 100, few };
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
fn a_named_state_is_looked_up() {
    let named = query(&format!("ref = '{}'", StateRef::new(SecureHash::of(b"tx"), 3)));
    let steps = page(&tables(), &named, false, false);
    assert!(steps.iter().any(|step| step.contains("vault_state_ref (identity=? AND tx=? AND idx=?)")), "{steps:?}");
}
