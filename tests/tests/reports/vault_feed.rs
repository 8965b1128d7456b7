//! Following a vault that has much: what is there comes in parts, and each of them is a place to go on from.

use std::collections::BTreeSet;

use maxhost_rpc::proto::v1 as pb;
use maxhost_tests::ledger::issue;
use maxhost_tests::{ALICE, Host, Network};

/// States that are put beside the one that Alice has.
const COPIES: usize = 2_500;

/// Puts copies of the state of Alice's vault beside it.
fn fill(network: &Network) {
    let database = network.database();
    let mut columns = database.prepare("SELECT name FROM pragma_table_info('vault_state')").unwrap();
    let columns = columns.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let columns = columns.map(|name| match &*name.unwrap() {
        "number" => "(SELECT max(number) FROM vault_state) + value".to_owned(),
        "idx" => "1000 + value".to_owned(),
        name => format!("copied.{name}"),
    });
    let columns: Vec<String> = columns.collect();
    let statement = format!(
        "WITH RECURSIVE series(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM series LIMIT {COPIES}) \
         INSERT INTO vault_state SELECT {} FROM series, (SELECT * FROM vault_state WHERE idx = 0 \
         AND identity = (SELECT id FROM identity WHERE name = ?1)) copied",
        columns.join(", ")
    );
    assert_eq!(database.execute(&statement, [ALICE]).unwrap(), COPIES);
}

/// What comes behind a cursor, until so many updates came.
async fn updates(host: &Host, cursor: Option<&str>, count: usize) -> Vec<pb::VaultUpdate> {
    let query = pb::VaultQueryRequest { identity: "Alice".to_owned(), limit: Some(7), ..Default::default() };
    let request = pb::VaultTrackRequest { query: Some(query), cursor: cursor.map(str::to_owned) };
    let mut stream = host.client().track(request).await.unwrap();
    let mut updates = Vec::new();
    while updates.len() < count {
        updates.push(host.client().next_update(&mut stream).await.unwrap().unwrap());
    }
    updates
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_is_followed_in_parts_from_any_of_them() {
    let network = Network::new();
    let host = network.run();
    let empty = updates(&host, None, 1).await;
    assert!(empty[0].produced.is_empty() && !empty[0].more, "of an empty vault there is a part too");
    issue(&host, 10).await;
    host.stop();
    fill(&network);
    let host = network.run();
    let first = updates(&host, None, 1).await;
    assert!(first[0].more && first[0].produced.len() <= 1_000, "{}", first[0].produced.len());
    // What comes meanwhile is no part of what was there.
    issue(&host, 77).await;
    let rest = updates(&host, Some(&first[0].cursor), 3).await;
    let parts = [&first[..], &rest[..2]].concat();
    assert_eq!(parts.iter().map(|part| part.more).collect::<Vec<_>>(), [true, true, false]);
    let refs: BTreeSet<&String> = parts.iter().flat_map(|part| &part.produced).map(|state| &state.r#ref).collect();
    let told: usize = parts.iter().map(|part| part.produced.len()).sum();
    assert_eq!((told, refs.len()), (COPIES + 1, COPIES + 1), "each once");
    let issued = &rest[2];
    assert!(issued.transaction.is_some() && issued.produced.len() == 1 && !issued.more);
    assert!(!refs.contains(&issued.produced[0].r#ref));
    for part in [&rest[0], &rest[1]] {
        let again = updates(&host, Some(&part.cursor), if part.more { 2 } else { 1 }).await;
        assert_eq!(again.last(), Some(issued), "behind {}", part.cursor);
    }
    let refused = |wrong: &str| {
        let answer = network.cli(&["vault", "track", "--identity", "Alice", "--cursor", wrong]);
        answer.fails(4, "cursor-invalid")["details"].clone()
    };
    for wrong in ["1@nonsense", "1@"] {
        assert_eq!(refused(wrong)["field"], "cursor");
    }
    let beyond = refused(&format!("1000000{}", &first[0].cursor));
    assert!(beyond["cursor"].as_str().is_some_and(|told| told.starts_with("1000000")), "{beyond}");
    let lines = network.cli(&["vault", "track", "--identity", "Alice", "--timeout", "20s"]);
    let more: Vec<bool> = lines.objects().iter().map(|line| line["more"] == true).collect();
    assert_eq!(more[..3], [true, true, false], "{}", more.len());
    host.stop();
}
