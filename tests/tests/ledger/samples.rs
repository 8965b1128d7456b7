//! Sample CorDapps that show one feature of the ledger each: states that are only looked at, states that can only be spent
//! together, and signatures of those who see a part of a transaction only.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use maxhost_ledger::time::Timestamp;
use maxhost_tests::ledger::{issue, locks, money, notary_status, pay, query, show, signers, transactions, until_has};
use maxhost_tests::{ALICE, BOB, CAROL, End, Network, eventually};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_names_a_sanctioned_party_is_refused() {
    for mode in ["flows.evict=never", "flows.evict=every-wait"] {
        let network = Network::new().setting(mode);
        let host = network.run();
        issue(&host, 100).await;
        let pay = async |to: &str| -> End {
            let terms = json!({"to": to, "quantity": 10, "currency": "GBP", "authority": "Carol"});
            host.run(ALICE, "sanctions/pay", terms).await
        };
        assert_eq!(pay("Bob").await.failure().exception.as_deref(), Some("sanctions/no-list"), "{mode}");
        let publish =
            async |names: Value| host.run(CAROL, "sanctions/publish", json!({ "names": names })).await.result();
        let first = publish(json!([])).await;
        pay("Bob").await.result();
        until_has(&network, "Bob", 10).await;
        let second = publish(json!(["Bob"])).await;
        assert_eq!(first["id"], second["id"], "the same list");
        let refused = pay("Bob").await;
        assert_eq!(refused.failure().exception.as_deref(), Some("sanctions/sanctioned"), "{mode}");
        // Carol is the authority, and not on her list.
        pay("Carol").await.result();
        publish(json!([])).await;
        pay("Bob").await.result();
        until_has(&network, "Bob", 20).await;
        host.until_quiet().await;
        assert_eq!((money(&network, "Alice"), money(&network, "Carol")), (70, 10), "{mode}");
        assert_eq!(query(&network, "Bob", &["--type", "sanctions/Receipt"]).len(), 2, "{mode}");
        // Payer and payee have the newest list that a payment of theirs has followed. It is Carol's.
        for (identity, is_own) in [("Carol", true), ("Alice", false), ("Bob", false)] {
            let lists = query(&network, identity, &["--type", "sanctions/SanctionsList"]);
            assert_eq!(lists.len(), 1, "{identity}, {mode}: {lists:?}");
            let list = (&lists[0]["state"]["names"], &lists[0]["relevant"], &lists[0]["state"]["authority"]["name"]);
            assert_eq!(list, (&json!([]), &json!(is_own), &json!(CAROL)), "{identity}, {mode}");
        }
        assert_eq!(host.until_quiet().await.flows["hospital"], 0);
        host.stop();
    }
}

/// A point in time so long from now, RFC 3339.
fn from_now(duration: Duration) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + duration;
    Timestamp::from_nanos(u64::try_from(since.as_nanos()).unwrap()).to_string()
}

/// The states of a type that an identity has, with what encumbers each.
fn encumbrances(network: &Network, identity: &str, state_type: &str) -> Vec<(Value, Value)> {
    let states = query(network, identity, &["--type", state_type]);
    states.into_iter().map(|state| (state["state"]["quantity"].clone(), state["encumbered_by"].clone())).collect()
}

/// Locks money twice: once it is paid, once it is taken back when the time is up.
async fn money_in_escrow(mode: &str) {
    const FAR: Duration = Duration::from_secs(3600);
    const NEAR: Duration = Duration::from_secs(15);
    let network = Network::new().setting(mode);
    let host = network.run();
    issue(&host, 100).await;
    let lock = async |quantity: i64, until: String| -> End {
        let terms = json!({"seller": "Bob", "quantity": quantity, "currency": "GBP", "until": until});
        host.run(ALICE, "escrow/lock", terms).await
    };
    let on = async |who: &str, flow: &str, id: &Value| host.run(who, flow, json!({ "id": id })).await;
    let near = lock(30, from_now(NEAR)).await.result();
    let far = lock(50, from_now(FAR)).await.result();
    // All is Alice's still, and 20 of it can be spent. Each amount that is locked says with which escrow, and the other way.
    assert_eq!(money(&network, "Alice"), 100);
    let mut cash = encumbrances(&network, "Alice", "cash/Cash");
    cash.sort_by_key(|(quantity, _)| quantity.as_i64());
    let escrows = query(&network, "Alice", &["--type", "escrow/Escrow", "--sort", "quantity"]);
    let references: Vec<&Value> = escrows.iter().map(|escrow| &escrow["ref"]).collect();
    let expected = [(json!(20), Value::Null), (json!(30), references[0].clone()), (json!(50), references[1].clone())];
    assert_eq!(cash, expected, "{mode}");
    let pay = async |quantity: i64| -> End { pay(&host, ALICE, BOB, quantity).await };
    assert_eq!(pay(21).await.failure().exception.as_deref(), Some("cash/insufficient"), "{mode}");
    assert_eq!(lock(21, from_now(FAR)).await.failure().exception.as_deref(), Some("cash/insufficient"), "{mode}");
    pay(20).await.result();
    until_has(&network, "Bob", 20).await;
    // The seller sees the escrow, and can do nothing; the buyer can take nothing back before its time.
    assert_eq!(query(&network, "Bob", &["--type", "escrow/Escrow"]).len(), 2, "{mode}");
    for flow in ["escrow/release", "escrow/reclaim"] {
        let refused = on(BOB, flow, &far["id"]).await;
        assert_eq!(refused.failure().exception.as_deref(), Some("escrow/not-buyer"), "{mode}");
    }
    let early = on(ALICE, "escrow/reclaim", &far["id"]).await;
    assert_eq!(early.failure().exception.as_deref(), Some("notary/time-window"), "{mode}");
    on(ALICE, "escrow/release", &far["id"]).await.result();
    until_has(&network, "Bob", 70).await;
    let again = on(ALICE, "escrow/release", &far["id"]).await;
    assert_eq!(again.failure().exception.as_deref(), Some("escrow/not-found"), "{mode}");
    eventually("the time is up", async || {
        let end = on(ALICE, "escrow/reclaim", &near["id"]).await;
        match end.error.as_ref().and_then(|failure| failure.exception.as_deref()) {
            None => Ok(()),
            Some("notary/time-window") => Err("too early".to_owned()),
            Some(other) => panic!("{mode}: {other}"),
        }
    })
    .await;
    // What was locked is money as any other again.
    pay(30).await.result();
    until_has(&network, "Bob", 100).await;
    host.until_quiet().await;
    for identity in ["Alice", "Bob"] {
        assert!(query(&network, identity, &["--type", "escrow/Escrow"]).is_empty(), "{identity}, {mode}");
        assert!(locks(&network, identity).is_empty(), "{identity}, {mode}");
    }
    assert_eq!((money(&network, "Alice"), encumbrances(&network, "Bob", "cash/Cash").len()), (0, 3), "{mode}");
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn money_in_escrow_is_spent_by_its_rules_only() {
    money_in_escrow("flows.evict=never").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_in_escrow_is_spent_by_its_rules_only_when_flows_are_put_away() {
    money_in_escrow("flows.evict=every-wait").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_in_escrow_is_spent_by_its_rules_only_when_flows_are_put_away_at_random() {
    money_in_escrow("flows.evict=random:7").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terms_of_an_escrow_that_cannot_be_are_refused() {
    let network = Network::new();
    let host = network.run();
    issue(&host, 10).await;
    let later = from_now(Duration::from_secs(3600));
    for (seller, until, kind) in [
        ("Alice", later.as_str(), "escrow/to-oneself"),
        ("Bob", "tomorrow", "escrow/until-invalid"),
        ("Bob", "2001-01-01T00:00:00Z", "escrow/until-invalid"),
        ("Nobody", later.as_str(), "cash/party-unknown"),
        ("O=Bob, L=Paris", later.as_str(), "cash/party-unknown"),
        ("O=Alice", later.as_str(), "escrow/to-oneself"),
        ("l=London, c=gb", later.as_str(), "escrow/to-oneself"),
        ("O=", later.as_str(), "cash/party-ambiguous"),
    ] {
        let terms = json!({"seller": seller, "quantity": 1, "currency": "GBP", "until": until});
        let end = host.run(ALICE, "escrow/lock", terms).await;
        assert_eq!(end.failure().exception.as_deref(), Some(kind), "{seller}, {until}");
    }
    let none = host.run(ALICE, "escrow/release", json!({"id": "it's"})).await;
    assert_eq!(none.failure().exception.as_deref(), Some("escrow/not-found"));
    assert_eq!(encumbrances(&network, "Alice", "cash/Cash"), [(json!(10), Value::Null)]);
    host.stop();
}

/// The seller takes part in what is consumed, and in nothing that is made of it.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_part_in_what_is_consumed_gets_the_transaction() {
    let network = Network::new();
    let host = network.run();
    issue(&host, 10).await;
    let until = from_now(Duration::from_secs(3600));
    let terms = json!({"seller": "Bob", "quantity": 10, "currency": "GBP", "until": until});
    let escrow = host.run(ALICE, "escrow/lock", terms).await.result();
    let unseen = host.run(ALICE, "hostile/reclaim-unseen", escrow["id"].clone()).await.failure();
    assert_eq!(unseen.kind, "illegal-argument", "{unseen:?}");
    assert!(unseen.message.contains(BOB), "{unseen:?}");
    host.until_quiet().await;
    let status = notary_status(&network, "Notary");
    assert_eq!(status["committed"], 1, "it was not asked");
    assert_eq!(query(&network, "Bob", &["--type", "escrow/Escrow"]).len(), 1);
    host.run(ALICE, "escrow/release", json!({"id": escrow["id"]})).await.result();
    until_has(&network, "Bob", 10).await;
    host.stop();
}

/// Interest is paid by a value that Carol signs for. She sees the value, and nothing of the payment.
async fn value_of_an_oracle(mode: &str) {
    let network = Network::new().setting(mode);
    let host = network.run();
    issue(&host, 1_000).await;
    let kind = |end: &End| end.failure().exception;
    let asked = json!({"oracle": "Carol", "name": "rate", "date": "2030-01-01"});
    let query_rate = async || host.run(ALICE, "oracle/query", asked.clone()).await;
    assert_eq!(kind(&query_rate().await).as_deref(), Some("oracle/unknown"), "{mode}");
    let rate = json!({"name": "rate", "date": "2030-01-01", "value": 52_500});
    let published = host.run(CAROL, "oracle/publish", rate.clone()).await.result();
    let again = host.run(CAROL, "oracle/publish", rate).await;
    assert_eq!(kind(&again).as_deref(), Some("oracle/published-already"), "{mode}");
    assert_eq!(query_rate().await.result(), json!({"value": 52_500}), "{mode}");
    let pay = async |more: Value| -> End {
        let mut terms = json!({"oracle": "Carol", "to": "Bob", "name": "rate", "date": "2030-01-01",
            "notional": 2_000, "currency": "GBP"});
        terms.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        host.run(ALICE, "oracle/pay", terms).await
    };
    for (more, refused) in [
        (json!({"value": 60_000}), "oracle/wrong-value"),
        (json!({"value": 52_500, "date": "2030-01-02"}), "oracle/unknown"),
        (json!({"show": "nothing"}), "oracle/not-concerned"),
        (json!({"show": "all"}), "oracle/shown-too-much"),
        (json!({"to": "Alice"}), "oracle/to-oneself"),
        (json!({"notional": 1}), "oracle/nothing-due"),
    ] {
        let end = pay(more.clone()).await;
        assert_eq!(kind(&end).as_deref(), Some(refused), "{more}, {mode}");
    }
    let paid = pay(json!({})).await.result();
    let tx = paid["tx"].as_str().unwrap();
    until_has(&network, "Bob", 105).await;
    host.until_quiet().await;
    assert_eq!((money(&network, "Alice"), money(&network, "Carol")), (895, 0), "{mode}");
    assert!(locks(&network, "Alice").is_empty(), "{mode}");
    let payments = query(&network, "Bob", &["--type", "oracle/Payment"]);
    assert_eq!((payments.len(), &payments[0]["state"]["value"]), (1, &json!(52_500)), "{mode}");
    let shown = show(&network, tx, "Bob");
    assert!(signers(&shown).contains(&json!(CAROL)), "{shown}, {mode}");
    // Carol has what she has published. The payment, the money and what it comes from she has not.
    let all = query(&network, "Carol", &["--status", "all"]);
    assert_eq!(all.iter().map(|state| &state["type"]).collect::<Vec<_>>(), ["oracle/Fact"], "{mode}");
    let known = transactions(&network, "Carol");
    assert_eq!(known.iter().map(|one| &one["id"]).collect::<Vec<_>>(), [&published["tx"]], "{mode}");
    network.cli(&["ledger", "show", tx, "--identity", "Carol"]).fails(3, "transaction-not-found");
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oracle_signs_for_its_value_and_sees_nothing_else() {
    value_of_an_oracle("flows.evict=never").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oracle_signs_for_its_value_and_sees_nothing_else_when_flows_are_put_away() {
    value_of_an_oracle("flows.evict=every-wait").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oracle_signs_for_its_value_and_sees_nothing_else_when_flows_are_put_away_at_random() {
    value_of_an_oracle("flows.evict=random:7").await;
}
