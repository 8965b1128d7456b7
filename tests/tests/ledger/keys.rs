//! Keys of parties that states do not name: money that is paid to a key, and who can tell whose it is; that no crash loses a
//! key that money is under; and statements about keys that nobody should believe.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::future::join_all;
use maxhost_model::SecureHash;
use maxhost_tests::flows::with;
use maxhost_tests::ledger::{issue, locks, money, query, show, signers, tx, until_has};
use maxhost_tests::{ALICE, BOB, CAROL, End, Host, MODES, Network, eventually};
use serde_json::{Value, json};

fn terms(to: &str, quantity: i64, anonymous: bool) -> Value {
    json!({"to": to, "quantity": quantity, "currency": "GBP", "anonymous": anonymous})
}

async fn pay(host: &Host, from: &str, terms: Value) -> String {
    tx(&host.run(from, "cash/pay", terms).await)
}

/// The fingerprint of the owner of a state that does not name it.
fn fingerprint(state: &Value) -> String {
    let owner = &state["state"]["owner"];
    assert_eq!(owner["name"], Value::Null, "{state}");
    let key = BASE64_STANDARD.decode(owner["owning_key"].as_str().unwrap()).unwrap();
    SecureHash::of(&key).to_string()
}

/// Money goes from Alice to a key of Bob's, from there to Carol by name, and back to a key of Alice's, who takes all of hers
/// back. The host dies in between.
async fn money_under_keys(mode: &str) {
    let network = Network::new().setting(mode);
    let host = network.run();
    issue(&host, 1000).await;
    let paid = pay(&host, ALICE, terms("Bob", 400, true)).await;
    until_has(&network, "Bob", 400).await;
    host.until_quiet().await;
    // The payee knows that it is his, and so does the payer whose the change is.
    let (bobs, change) = (query(&network, "Bob", &[]), query(&network, "Alice", &[]));
    assert_eq!((bobs.len(), change.len()), (1, 1), "{mode}");
    assert_eq!((&bobs[0]["participants"], &bobs[0]["relevant"]), (&json!([BOB]), &json!(true)), "{mode}");
    assert_eq!((&change[0]["participants"], &change[0]["state"]["quantity"]), (&json!([ALICE]), &json!(600)), "{mode}");
    let (of_bob, of_alice) = (fingerprint(&bobs[0]), fingerprint(&change[0]));
    assert_ne!(of_bob, of_alice);
    let owned = |identity: &str, owner: &str| query(&network, identity, &["--where", &format!("owner = '{owner}'")]);
    assert_eq!((owned("Bob", &of_bob).len(), owned("Alice", &of_alice).len()), (1, 1), "{mode}");
    assert!(owned("Bob", BOB).is_empty() && owned("Bob", &of_alice).is_empty(), "{mode}");
    host.kill_9();

    let host = network.run();
    let passed_on = pay(&host, BOB, terms("Carol", 150, false)).await;
    until_has(&network, "Carol", 150).await;
    host.until_quiet().await;
    // Carol has both transactions. Nothing in them says who Bob is: neither the states nor who has signed.
    for tx in [&paid, &passed_on] {
        let seen = show(&network, tx, "Carol");
        assert_eq!(seen["status"], json!("verified"), "{mode}");
        assert!(!seen.to_string().contains("O=Bob"), "{mode}: {seen}");
    }
    assert!(signers(&show(&network, &paid, "Carol")).contains(&json!(ALICE)), "{mode}");
    // Bob's change stays under the key, which he alone knows as his.
    assert_eq!((owned("Bob", &of_bob).len(), money(&network, "Bob")), (1, 250), "{mode}");

    pay(&host, BOB, terms("Alice", 250, true)).await;
    until_has(&network, "Alice", 850).await;
    // 600 and 250 under two keys, and 100 more under her name.
    issue(&host, 100).await;
    let exit = host.run(ALICE, "cash/exit", json!({"quantity": 950, "currency": "GBP"})).await;
    exit.result();
    host.until_quiet().await;
    assert_eq!((money(&network, "Alice"), money(&network, "Bob"), money(&network, "Carol")), (0, 0, 150), "{mode}");
    let refused = host.run(ALICE, "cash/pay", terms("Bob", 1, true)).await;
    assert_eq!(refused.failure().exception.as_deref(), Some("cash/insufficient"), "{mode}");
    for identity in ["Alice", "Bob", "Carol"] {
        assert!(locks(&network, identity).is_empty(), "{mode}");
    }
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_paid_to_keys_and_spent_from_them() {
    money_under_keys("flows.evict=never").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_paid_to_keys_and_spent_from_them_when_flows_are_put_away() {
    money_under_keys("flows.evict=every-wait").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_paid_to_keys_and_spent_from_them_when_flows_are_put_away_at_random() {
    money_under_keys("flows.evict=random:7").await;
}

/// Asset and money change hands between keys. Bob sells the asset under his key again, and signs with that key only.
async fn trade_between_keys(mode: &str) {
    let network = Network::new().setting(mode);
    let host = network.run();
    issue(&host, 500).await;
    pay(&host, ALICE, terms("Bob", 500, true)).await;
    until_has(&network, "Bob", 500).await;
    host.run(ALICE, "trade/issue", json!({"asset": "bond-1"})).await.result();
    let sell = async |from: &str, to: &str, price: i64| {
        let terms = json!({"buyer": to, "asset": "bond-1", "price": price, "currency": "GBP", "anonymous": true});
        tx(&host.run(from, "trade/sell", terms).await)
    };
    let assets = |identity: &str| query(&network, identity, &["--type", "trade/Asset"]);
    let cash = |identity: &str| money(&network, identity);
    sell(ALICE, "Bob", 300).await;
    host.until_quiet().await;
    eventually("the asset is Bob's", async || {
        if assets("Bob").len() == 1 && assets("Alice").is_empty() { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    let bought = assets("Bob").remove(0);
    fingerprint(&bought);
    assert_eq!(bought["participants"], json!([ALICE, BOB]), "{mode}: Alice stands behind it");
    assert_eq!((cash("Alice"), cash("Bob")), (300, 200), "{mode}");
    let back = sell(BOB, "Alice", 100).await;
    host.until_quiet().await;
    assert_eq!((cash("Alice"), cash("Bob"), assets("Alice").len(), assets("Bob").len()), (200, 300, 1, 0), "{mode}");
    let by = signers(&show(&network, &back, "Alice"));
    assert!(by.contains(&json!(BOB)), "{mode}: Alice knows the key as Bob's: {by:?}");
    let text = show(&network, &back, "Alice")["outputs"].to_string();
    assert!(!text.contains("O=Bob"), "{mode}: {text}");
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asset_is_sold_for_cash_between_keys() {
    for mode in MODES {
        trade_between_keys(mode).await;
    }
}

/// The host dies while keys are made and money is paid to them. Whatever was finalised can be spent: by all paying all that
/// they have to Carol, who was paid nothing before.
#[tokio::test(flavor = "multi_thread")]
async fn no_crash_loses_a_key_that_money_is_under() {
    let network = Network::new();
    let host = network.run();
    join_all((0..10).map(|_| issue(&host, 100))).await;
    host.kill_9();
    for round in 0..4 {
        let host = network.run();
        let pays = (0..8).map(|number| {
            let (from, to) = if (number + round) % 3 == 0 { (BOB, "Alice") } else { (ALICE, "Bob") };
            let host = &host;
            async move { host.start(from, "cash/pay", terms(to, 7 + number, true)).await }
        });
        join_all(pays).await;
        // In the middle of whatever they do.
        let middle = std::time::Duration::from_millis(25 * u64::try_from(round).unwrap());
        tokio::time::sleep(middle).await;
        host.kill_9();
    }
    let host = network.run();
    host.until_quiet().await;
    let (alice, bob) = eventually("money is where it was", async || {
        let (alice, bob) = (money(&network, "Alice"), money(&network, "Bob"));
        if alice + bob == 1000 { Ok((alice, bob)) } else { Err(format!("Alice has {alice}, Bob has {bob}")) }
    })
    .await;
    for (from, all) in [(ALICE, alice), (BOB, bob)] {
        if all > 0 {
            pay(&host, from, terms("Carol", all, true)).await;
        }
    }
    until_has(&network, "Carol", 1000).await;
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

/// What is wrong with a statement about a key, and the code with which it is refused.
const FALSE: [(&str, &str); 6] = [
    ("old-statement", "key-statement-foreign"),
    ("key-of-another", "key-not-proved"),
    ("without-party", "key-not-proved"),
    ("name-of-another", "key-statement-foreign"),
    ("legal-key", "key-not-fresh"),
    ("nothing", "protocol"),
];

async fn false_keys(mode: &str) {
    let network = Network::new().setting(mode);
    let host = network.run();
    let lie =
        async |how: &str| -> End { host.run(ALICE, "hostile/false-key", json!({"peer": "Bob", "how": how})).await };
    for (how, code) in FALSE {
        assert_eq!(lie(how).await.result(), json!({ "refused": code }), "{how}, {mode}");
    }
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_ones_own_is_not_believed() {
    for mode in MODES {
        false_keys(mode).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_of_a_key_knows_whose_it_is_and_nobody_else_does() {
    for mode in MODES {
        let network = Network::new().setting(mode);
        let host = network.run();
        let told = host.run(ALICE, "hostile/tell-keys", with(BOB)).await.result();
        assert_eq!(told, json!({"before": null, "after": ALICE, "refused": "key-not-own"}), "{mode}");
        let told = host.run(BOB, "hostile/tell-keys", with(CAROL)).await.result();
        assert_eq!(told["after"], json!(BOB), "{mode}");
        assert_eq!(host.until_quiet().await.flows["hospital"], 0);
        host.stop();
    }
}
