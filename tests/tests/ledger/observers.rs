//! Observers: who gets a transaction that does not concern him, what each keeps of it by its own choice, and what nobody can do
//! with states that are not his own.

use maxhost_tests::ledger::{
    Away, issue, locks, pay, query, show, transactions, tx, until_asks_notary, verified_again,
};
use maxhost_tests::{ALICE, BOB, CAROL, End, Host, MODES, Network, eventually};
use serde_json::{Value, json};

/// A payment from Alice to Bob, with what each keeps of it.
fn observed(quantity: i64, payee: &str, observers: &[(&str, &str)]) -> Value {
    let recipient = |party: &str, states: &str| json!({"party": party, "states": states});
    let observers: Vec<Value> = observers.iter().map(|(party, states)| recipient(party, states)).collect();
    json!({"to": recipient(BOB, payee), "quantity": quantity, "currency": "GBP", "observers": observers})
}

async fn pay_observed(host: &Host, terms: Value) -> String {
    tx(&host.run(ALICE, "hostile/pay-observed", terms).await)
}

async fn report(host: &Host, tx: &str, to: &str, states: &str) -> End {
    host.run(ALICE, "hostile/report", json!({"to": {"party": to, "states": states}, "tx": tx})).await
}

/// The cash of a vault: how much each state is, whether it is the identity's own, and whether it is consumed.
fn cash(network: &Network, identity: &str) -> Vec<(i64, bool, bool)> {
    let states = query(network, identity, &["--type", "cash/Cash", "--status", "all"]);
    let read = |state: &Value| {
        let quantity = state["state"]["quantity"].as_i64().unwrap();
        (quantity, state["relevant"].as_bool().unwrap(), state["status"] == "consumed")
    };
    let mut read: Vec<_> = states.iter().map(read).collect();
    read.sort_unstable();
    read
}

fn sum(network: &Network, identity: &str, more: &[&str]) -> Value {
    query(network, identity, &[&["--sum", "quantity"][..], more].concat())[0]["sum"].clone()
}

fn count(network: &Network, identity: &str, more: &[&str]) -> Value {
    query(network, identity, &[&["--count"][..], more].concat())[0]["count"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_sees_states_that_are_not_its_own_and_what_becomes_of_them() {
    for mode in MODES {
        let network = Network::new().setting(mode);
        let host = network.run();
        issue(&host, 100).await;
        pay_observed(&host, observed(40, "only-relevant", &[(CAROL, "all-visible")])).await;
        host.until_quiet().await;
        assert_eq!(cash(&network, "Carol"), [(40, false, false), (60, false, false)], "{mode}");
        assert_eq!(cash(&network, "Bob"), [(40, true, false)], "{mode}");
        assert_eq!(cash(&network, "Alice"), [(60, true, false), (100, true, true)], "{mode}");

        // What she sees is not hers, and is not counted as if it were.
        assert_eq!(sum(&network, "Carol", &[]), Value::Null, "{mode}");
        assert_eq!(sum(&network, "Bob", &[]), 40, "{mode}");
        for all in [&["--relevancy", "all"], &["--relevancy", "not-relevant"], &["--where", "relevant = false"]] {
            assert_eq!(sum(&network, "Carol", all), 100, "{mode}");
        }
        assert_eq!(count(&network, "Carol", &[]), 2, "{mode}");
        assert_eq!(count(&network, "Carol", &["--relevancy", "relevant"]), 0, "{mode}");
        assert_eq!(count(&network, "Carol", &["--relevancy", "not-relevant", "--where", "quantity > 50"]), 1, "{mode}");
        let seen = host.run(CAROL, "hostile/spend-seen", json!("GBP")).await.result();
        let expected = json!({
            "of_others": 100, "own": 0, "locked": "vault/locked", "selected": "cash/insufficient", "spent": "ledger/missing-signatures",
        });
        assert_eq!(seen, expected, "{mode}");

        // The next payment consumes what she has seen, whatever she keeps of it.
        let next = pay_observed(&host, observed(10, "only-relevant", &[(CAROL, "only-relevant")])).await;
        host.until_quiet().await;
        let after = vec![(40, false, false), (60, false, true)];
        assert_eq!(cash(&network, "Carol"), after, "{mode}");
        // Recorded with more later, what was left out comes in, once; with less, nothing goes.
        for states in ["all-visible", "all-visible", "none", "only-relevant"] {
            report(&host, &next, CAROL, states).await.result();
            let all = vec![(10, false, false), (40, false, false), (50, false, false), (60, false, true)];
            assert_eq!(cash(&network, "Carol"), all, "{states}, {mode}");
        }
        assert_eq!(cash(&network, "Bob"), [(10, true, false), (40, true, false)], "{mode}");
        let valid = verified_again(&network, &next, "Carol");
        assert_eq!(valid["valid"], true, "{mode}");
        for identity in ["Alice", "Bob", "Carol"] {
            assert!(locks(&network, identity).is_empty(), "{mode}");
        }
        assert_eq!(host.until_quiet().await.flows["hospital"], 0);
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_records_a_transaction_chooses_for_himself() {
    for mode in MODES {
        let network = Network::new().setting(mode);
        let host = network.run();
        issue(&host, 100).await;
        // The payee keeps nothing, one who is told by the payer as an observer keeps his own, and the payer keeps all.
        let mut terms = observed(40, "none", &[(CAROL, "only-relevant")]);
        terms["states"] = json!("all-visible");
        let paid = pay_observed(&host, terms).await;
        host.until_quiet().await;
        assert_eq!((cash(&network, "Bob"), cash(&network, "Carol")), (vec![], vec![]), "{mode}");
        assert_eq!(cash(&network, "Alice"), [(40, false, false), (60, true, false), (100, true, true)], "{mode}");
        assert_eq!(sum(&network, "Alice", &[]), 60, "{mode}");
        for identity in ["Bob", "Carol"] {
            let shown = show(&network, &paid, identity);
            assert_eq!(shown["status"], "verified", "{identity}, {mode}");
        }
        // Bob wants his money after all, and can spend it.
        report(&host, &paid, BOB, "only-relevant").await.result();
        assert_eq!(cash(&network, "Bob"), [(40, true, false)], "{mode}");
        pay(&host, BOB, CAROL, 15).await.result();
        host.until_quiet().await;
        assert_eq!(cash(&network, "Bob"), [(25, true, false), (40, true, true)], "{mode}");
        assert_eq!(cash(&network, "Carol"), [(15, true, false)], "{mode}");
        // A transaction of before comes in with what has become of its states since.
        report(&host, &paid, CAROL, "all-visible").await.result();
        assert_eq!(cash(&network, "Carol"), [(15, true, false), (40, false, true), (60, false, false)], "{mode}");
        assert_eq!((sum(&network, "Carol", &[]), sum(&network, "Bob", &[])), (json!(15), json!(25)), "{mode}");
        assert_eq!(host.until_quiet().await.flows["hospital"], 0);
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn observers_are_no_participants_and_participants_no_observers() {
    let network = Network::new();
    let host = network.run();
    issue(&host, 100).await;
    for (wrong, text) in [
        ("payee-observes", "none of the sessions with participants is with that party"),
        ("twice", "is that of a participant and that of an observer"),
        ("oneself", "without a session with oneself"),
    ] {
        let mut terms = observed(40, "only-relevant", &[(CAROL, "all-visible")]);
        terms["wrong"] = json!(wrong);
        let refused = host.run(ALICE, "hostile/pay-observed", terms).await.failure();
        assert_eq!(refused.kind, "illegal-argument", "{refused:?}");
        assert!(refused.message.contains(text), "{refused:?}");
    }
    // What is not complete is not recorded by anybody: looked at, it leaves what it comes from.
    let sketch = |as_complete: bool| json!({"to": BOB, "quantity": 40, "currency": "GBP", "as_complete": as_complete});
    let refused = host.run(ALICE, "hostile/sketch", sketch(true)).await.failure();
    assert_eq!(refused.exception.as_deref(), Some("ledger/missing-signatures"), "{refused:?}");
    let shown = host.run(ALICE, "hostile/sketch", sketch(false)).await.result()["tx"].clone();
    let unknown = report(&host, shown.as_str().unwrap(), CAROL, "all-visible").await.failure();
    assert_eq!(unknown.kind, "illegal-argument", "{unknown:?}");
    host.until_quiet().await;
    assert_eq!((cash(&network, "Bob"), cash(&network, "Carol")), (vec![], vec![]));
    let known = transactions(&network, "Bob");
    assert_eq!(known.len(), 1, "where the money comes from: {known:?}");
    // Nothing is in flight, and nothing held.
    pay(&host, ALICE, BOB, 100).await.result();
    host.until_quiet().await;
    assert_eq!(cash(&network, "Bob"), [(100, true, false)]);
    host.stop();
}

/// A flow that dies leaves its transaction to the platform, which keeps of it what the flow wanted to keep.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_settled_for_a_killed_flow_keeps_its_choice() {
    let network = Network::new();
    // Nobody runs the notary for a while.
    let notary = Away::notary(&network);
    let host = network.run();
    issue(&host, 100).await;
    let mut terms = observed(40, "none", &[(CAROL, "all-visible")]);
    terms["states"] = json!("all-visible");
    let id = host.start(ALICE, "hostile/pay-observed", terms).await;
    until_asks_notary(&host, &id).await;
    assert!(host.kill(&id).await);
    host.end(&id).await;
    notary.comes_back();
    let expected = [
        ("Alice", vec![(40, false, false), (60, true, false), (100, true, true)]),
        ("Bob", vec![]),
        ("Carol", vec![(40, false, false), (60, false, false)]),
    ];
    for (identity, expected) in expected {
        eventually("it is settled", async || {
            let listed = transactions(&network, identity);
            let left: Vec<&Value> = listed.iter().filter(|one| one["status"] != "verified").collect();
            let has = cash(&network, identity);
            if left.is_empty() && listed.len() == 2 && has == expected {
                Ok(())
            } else {
                Err(format!("{identity}: {left:?}, {has:?}"))
            }
        })
        .await;
    }
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn states_are_found_by_their_external_id() {
    let network = Network::new();
    let host = network.run();
    issue(&host, 100).await;
    for asset in ["bond-1", "bond's"] {
        host.run(ALICE, "trade/issue", json!({"asset": asset})).await.result();
    }
    host.until_quiet().await;
    let named = |ids: &[&str]| -> Vec<Value> {
        let words: Vec<&str> = ids.iter().flat_map(|id| ["--external-id", id]).collect();
        let mut found = query(&network, "Alice", &words);
        found.sort_by_key(|state| state["external_id"].to_string());
        found.iter().map(|state| state["external_id"].clone()).collect()
    };
    assert_eq!(named(&["bond-1"]), [json!("bond-1")]);
    assert_eq!(named(&["bond's", "bond-1", "none"]), [json!("bond's"), json!("bond-1")]);
    assert_eq!(named(&["none"]), Vec::<Value>::new());
    let of_cash = query(&network, "Alice", &["--type", "cash/Cash"]);
    assert!(of_cash[0].get("external_id").is_none(), "{of_cash:?}");
    // A cursor goes on with all that was asked.
    let page = |more: &[&str]| network.cli(&[&["vault", "query", "--identity", "Alice"][..], more].concat());
    let both = ["--external-id", "bond-1", "--external-id", "bond's", "--relevancy", "relevant", "--limit", "1"];
    let first = page(&both).ok().objects();
    let cursor = first.last().unwrap()["cursor"].as_str().unwrap().to_owned();
    for again in [&both[..], &[]] {
        let second = page(&[again, &["--cursor", &cursor]].concat()).ok().objects();
        assert_eq!(second.len(), 1, "{second:?}");
        assert_ne!(second[0]["ref"], first[0]["ref"]);
    }
    page(&["--cursor", &cursor, "--relevancy", "not-relevant"]).fails(4, "cursor-invalid");
    let too_long = "x".repeat(600);
    page(&["--external-id", &too_long]).fails(4, "query-invalid");
    host.stop();
}
