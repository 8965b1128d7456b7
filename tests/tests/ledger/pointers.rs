//! States that point to others: what they point to is looked at by the transactions that make them, the newest of it.

use maxhost_tests::ledger::{query, show};
use maxhost_tests::{ALICE, BOB, End, Host, MODES, Network};
use serde_json::{Value, json};

async fn put(host: &Host, terms: Value) -> End {
    host.run(ALICE, "hostile/put", terms).await
}

/// A new post that leads there: its id and its first version.
async fn new_post(host: &Host, to: &[&str]) -> (String, String) {
    let done = put(host, json!({ "to": to })).await.result();
    (text(&done["id"]), text(&done["reference"]))
}

async fn follow(host: &Host, who: &str, to: &str) -> End {
    host.run(who, "hostile/follow", json!(to)).await
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn sorted(references: &Value) -> Vec<String> {
    let mut all: Vec<String> = references.as_array().unwrap().iter().map(text).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_states_point_to_is_looked_at_with_all_that_it_points_to() {
    for mode in MODES {
        let network = Network::new().setting(mode);
        let host = network.run();
        let (first, first_version) = new_post(&host, &[]).await;
        let (second, second_version) = new_post(&host, &[&first]).await;
        // The newest of the first, and through the second it again; each once.
        let changed = put(&host, json!({"id": first})).await.result();
        assert_eq!(changed["references"], json!([]), "{mode}");
        let newest = text(&changed["reference"]);
        let third = put(&host, json!({"to": [second, first], "with": BOB})).await.result();
        let mut expected = vec![second_version.clone(), newest.clone()];
        expected.sort();
        assert_eq!(sorted(&third["references"]), expected, "{mode}");
        host.until_quiet().await;
        // Bob has judged what he has recorded, with what it looks at.
        let tx = text(&third["reference"]);
        let tx = tx.split(':').next().unwrap();
        let shown = show(&network, tx, "Bob");
        assert_eq!((&shown["status"], sorted(&shown["references"])), (&json!("verified"), expected), "{mode}: {shown}");
        // A circle: what is consumed in the transaction is not looked at besides.
        let circle = put(&host, json!({"id": first, "to": [second]})).await.result();
        assert_eq!(circle["references"], json!([second_version]), "{mode}");
        // A pointer to a version leads there, and nowhere once that is consumed: the notary says so.
        let fixed = put(&host, json!({"to": [second_version]})).await.result();
        assert_eq!(sorted(&fixed["references"]).len(), 2, "the second post, and the newest of the first: {fixed}");
        let old = put(&host, json!({"to": [first_version]})).await;
        assert_eq!(old.failure().exception.as_deref(), Some("notary/conflict"), "{mode}: {old:?}");
        assert_eq!(follow(&host, ALICE, &first_version).await.result(), json!(first_version), "{mode}");
        assert_eq!(follow(&host, ALICE, &first).await.result(), circle["reference"], "{mode}");
        assert_eq!(host.until_quiet().await.flows["hospital"], 0);
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pointer_that_leads_nowhere_is_refused_and_leaves_no_trace() {
    let network = Network::new().setting("flows.evict=every-wait");
    let host = network.run();
    let (first, _) = new_post(&host, &[]).await;
    let (second, _) = new_post(&host, &[&first]).await;
    put(&host, json!({"id": first, "down": true})).await.result();
    let nobody = "00000000-0000-4000-8000-000000000000";
    let unknown = format!("{}:0", "ab".repeat(32));
    // It has come to its end; that which leads to it cannot be looked at either; there never was one.
    for to in [&first, &second, nobody, &unknown] {
        let refused = put(&host, json!({ "to": [to] })).await.failure();
        assert_eq!(refused.exception.as_deref(), Some("ledger/rejected"), "{to}: {refused:?}");
        assert!(refused.message.starts_with("a pointer leads to "), "{to}: {refused:?}");
    }
    for to in [&first, nobody, &unknown] {
        assert_eq!(follow(&host, ALICE, to).await.failure().kind, "illegal-state", "{to}");
    }
    // What is no name of a type reaches neither journal nor database.
    let long = "x".repeat(1 << 20);
    let types = [
        ("hostile/Post", "illegal-state"),
        ("Post", "illegal-argument"),
        ("hostile/Po\0st", "illegal-argument"),
        ("hostile/Post/x", "illegal-argument"),
        (long.as_str(), "illegal-argument"),
    ];
    for (state_type, kind) in types {
        let told = host.run(ALICE, "hostile/follow-type", json!(state_type)).await.result();
        assert_eq!(told, json!(kind), "{}", state_type.chars().take(40).collect::<String>());
    }
    // Others have posts of their own only.
    assert_eq!(follow(&host, BOB, &second).await.failure().kind, "illegal-state");
    host.until_quiet().await;
    assert_eq!(query(&network, "Alice", &["--type", "hostile/Post"]).len(), 1, "the second is still there");
    host.stop();
}
