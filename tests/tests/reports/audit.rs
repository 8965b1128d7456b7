//! The audit trail, by the program that ships: who sees what, what is kept over a crash, and how much.

use maxhost_tests::{ALICE, BOB, Host, Network, cli, eventually};
use serde_json::{Value, json};

fn list(network: &Network, words: &[&str]) -> Vec<Value> {
    network.cli(&[&["audit", "list"], words].concat()).ok().objects()
}

/// Waits until the trail has such rows.
async fn until(network: &Network, words: &[&str], what: &str, fits: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    eventually(what, async || {
        let rows = list(network, words);
        if fits(&rows) { Ok(rows) } else { Err(format!("{rows:?}")) }
    })
    .await
}

fn texts<'a>(rows: &'a [Value], field: &str) -> Vec<&'a str> {
    rows.iter().map(|row| row[field].as_str().unwrap_or("-")).collect()
}

async fn pings(host: &Host, count: usize) -> Vec<String> {
    let mut flows = Vec::new();
    for _ in 0..count {
        flows.push(host.start(ALICE, "ping", json!({"peer": BOB, "count": 1})).await);
    }
    flows
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_in_the_trail_with_what_they_did_and_were_refused() {
    let network = Network::new().setting("rpc.users.file=users.toml");
    network.add_user("ann", "secret", &["--permission", "StartFlow.ping-pong/*", "--identity", "Alice"]);
    network.add_user("auditor", "sees", &["--permission", "ListAudit", "--identity", "Alice"]);
    network.add_user("operator", "boss", &["--permission", "ALL"]);
    let host = network.run();
    let arguments = json!({"peer": BOB, "count": 1}).to_string();
    let start = |identity: &'static str| {
        let words = ["flow", "start", "--identity", identity, "ping", &arguments];
        network.as_user("ann", "secret", &words)
    };
    let started = start("Alice").ok().object();
    start("Bob").fails(3, "identity-not-found");
    network.as_user("ann", "secret", &["status"]).fails(4, "permission-denied");
    network.as_user("ann", "wrong-one", &["status"]).fails(4, "unauthenticated");
    // Whoever may not read the trail is refused, and that is in it.
    network.as_user("ann", "secret", &["audit", "list"]).fails(4, "permission-denied");
    let _shown = network.as_user("operator", "boss", &["identity", "show", "Bob"]).ok();

    let ask = |user: &str, password: &str, words: &[&str]| {
        network.as_user(user, password, &[&["audit", "list"], words].concat()).ok().objects()
    };
    let of_ann = eventually("all that Ann did is in the trail", async || {
        let rows = ask("operator", "boss", &["--user", "ann"]);
        if rows.len() == 5 { Ok(rows) } else { Err(format!("{rows:?}")) }
    })
    .await;
    assert_eq!(texts(&of_ann, "action"), ["ListAudit", "Status", "Status", "StartFlow", "StartFlow"], "newest first");
    let codes = ["permission-denied", "unauthenticated", "permission-denied", "identity-not-found", "-"];
    assert_eq!(texts(&of_ann, "code"), codes);
    assert_eq!(of_ann.iter().map(|row| row["allowed"] == true).collect::<Vec<_>>(), [false, false, false, false, true]);
    let done = &of_ann[4];
    assert_eq!((&done["identity"], &done["flow"]), (&json!(ALICE), &json!("ping-pong/ping")), "{done}");
    assert_eq!(done["flow_id"], started["flow_id"]);
    assert_eq!(of_ann[3]["identity"], "Bob", "as it was asked for");
    for row in &of_ann {
        assert_eq!((&row["user"], &row["count"]), (&json!("ann"), &json!(1)), "{row}");
        assert!(row["at"].as_str().is_some() && row["host"].as_str().is_some(), "{row}");
    }
    assert!(!format!("{of_ann:?}").contains("wrong-one"), "no password is kept");

    // Whoever has some identities sees what is about those.
    let of_alice = ask("auditor", "sees", &[]);
    assert!(!of_alice.is_empty() && of_alice.iter().all(|row| row["identity"] == ALICE), "{of_alice:?}");
    let by_identity = ask("operator", "boss", &["--identity", "Alice"]);
    assert!(by_identity.iter().all(|row| row["identity"] == ALICE) && !by_identity.is_empty(), "{by_identity:?}");
    let of_bob = ask("operator", "boss", &["--identity", BOB, "--user", "operator"]);
    assert_eq!(texts(&of_bob, "action"), ["GetIdentity"]);

    // Limits and times; pages go on where the one before ended.
    assert_eq!(ask("operator", "boss", &["--user", "ann", "--limit", "2"]), of_ann[..2]);
    let at = of_ann[2]["at"].as_str().unwrap();
    assert_eq!(ask("operator", "boss", &["--user", "ann", "--since", at]), of_ann[..3]);
    assert_eq!(ask("operator", "boss", &["--user", "ann", "--since", "1h"]).len(), 5);
    let tomorrow = "2999-01-01T00:00:00Z";
    assert_eq!(ask("operator", "boss", &["--since", tomorrow]), Vec::<Value>::new());
    let ask = |words: &[&str]| network.as_user("operator", "boss", &[&["audit", "list"], words].concat());
    ask(&["--since", "yesterday"]).fails(2, "usage");
    ask(&["--identity", "Nobody"]).fails(3, "identity-not-found");
    // The option before the noun is the caller, the one behind it the filter.
    let mut command = network.command(&["--user", "operator", "audit", "list", "--user", "ann", "--limit", "1"]);
    command.env("MAXHOST_PASSWORD", "boss");
    assert_eq!(cli::answer(command, None).ok().object(), of_ann[0]);
    drop(host);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_outlives_a_crash_and_a_stop() {
    let network = Network::new();
    let host = network.run();
    let flows = pings(&host, 5).await;
    let is_whole = |rows: &[Value]| {
        let starts: Vec<_> = rows.iter().filter(|row| row["action"] == "StartFlow").collect();
        flows.iter().all(|flow| starts.iter().any(|row| row["flow_id"] == flow.as_str()))
    };
    until(&network, &["--user", "local"], "the starts are in the trail", &is_whole).await;
    host.kill_9();
    let host = network.run();
    let rows = list(&network, &[]);
    assert!(is_whole(&rows), "what was there is there: {rows:?}");
    // What is noted in the last moment before a stop is written too.
    let last = pings(&host, 1).await;
    host.stop();
    let _host = network.run();
    assert!(list(&network, &[]).iter().any(|row| row["flow_id"] == last[0].as_str()), "the last one");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_rows_go_and_a_flood_of_looks_is_summed_up() {
    let network = Network::new().setting("audit.max_rows=100");
    let host = network.run();
    let flows = pings(&host, 130).await;
    let starts = |rows: &[Value]| rows.iter().filter(|row| row["action"] == "StartFlow").count();
    let kept = until(&network, &["--limit", "5000"], "100 starts are kept", |rows| starts(rows) == 100).await;
    let is_kept = |flow: &String| kept.iter().any(|row| row["flow_id"] == flow.as_str());
    assert!(flows[30..].iter().all(is_kept) && !flows[..30].iter().any(is_kept), "the oldest have gone");
    // Looks that are alike have few rows of their own; the rest is one row that says how many.
    let before = looks(&list(&network, &["--limit", "5000"]));
    for _ in 0..60 {
        host.client().list_hosts(Default::default()).await.unwrap();
    }
    let rows = until(&network, &["--limit", "5000"], "the looks", |rows| looks(rows).0 > before.0).await;
    assert!(looks(&rows).1 <= before.1 + 20, "few rows: {:?}", looks(&rows));
    host.stop();
    let _host = network.run();
    let rows = list(&network, &["--limit", "5000"]);
    assert_eq!(looks(&rows).0, 60, "each look counts: {rows:?}");
}

/// How many looks at the hosts there were, and in how many rows.
fn looks(rows: &[Value]) -> (u64, usize) {
    let looks: Vec<&Value> = rows.iter().filter(|row| row["action"] == "ListHosts").collect();
    (looks.iter().map(|row| row["count"].as_u64().unwrap()).sum(), looks.len())
}
