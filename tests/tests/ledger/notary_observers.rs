//! Changes of notary that others look on at: what each keeps of them by its own choice, and what ends them before anybody is asked.

use maxhost_tests::ledger::{issue_at, query};
use maxhost_tests::{ALICE, BOB, CAROL, Host, MODES, NOTARY, Network, SECOND_NOTARY, eventually};
use serde_json::{Value, json};

fn observers(of: &[(&str, &str)]) -> Value {
    of.iter().map(|(party, states)| json!({"party": party, "states": states})).collect()
}

fn terms(reference: &str, to: &str, of: &[(&str, &str)]) -> Value {
    json!({"reference": reference, "notary": to, "observers": observers(of)})
}

/// Alice has another notary keep a state while others look on. Where the state is then.
async fn moved(host: &Host, who: &str, terms: Value) -> String {
    host.run(who, "hostile/move-observed", terms).await.result().as_str().unwrap().to_owned()
}

fn transaction_of(reference: &str) -> String {
    reference.split(':').next().unwrap().to_owned()
}

/// The states of a type: where each is, who keeps it, whether it is the identity's own, and whether it is consumed.
fn states(network: &Network, identity: &str, of: &str) -> Vec<(String, String, bool, bool)> {
    let found = query(network, identity, &["--type", of, "--status", "all"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let read = |state: &Value| {
        (
            text(&state["ref"]),
            text(&state["notary"]),
            state["relevant"].as_bool().unwrap(),
            state["status"] == "consumed",
        )
    };
    let mut read: Vec<_> = found.iter().map(read).collect();
    read.sort();
    read
}

fn sorted(mut states: Vec<(&String, &str, bool, bool)>) -> Vec<(String, String, bool, bool)> {
    states.sort();
    states.into_iter().map(|(at, notary, own, spent)| (at.clone(), notary.to_owned(), own, spent)).collect()
}

fn left_over(network: &Network, identity: &str) -> Vec<Value> {
    let listed = network.cli(&["ledger", "list", "--identity", identity]).ok().objects().into_iter();
    let unsettled = listed.filter(|one| one["status"] != "verified");
    unsettled.chain(network.cli(&["vault", "locks", "--identity", identity]).ok().objects()).collect()
}

fn nothing_is_left(network: &Network) {
    for identity in [ALICE, BOB, CAROL] {
        assert_eq!(left_over(network, identity), Vec::<Value>::new(), "{identity}");
    }
}

fn committed(network: &Network) -> i64 {
    let status = network.cli(&["notary", "status", "--identity", NOTARY]).ok().object();
    status["committed"].as_i64().unwrap()
}

/// How many transactions an identity has, each of them good by all that it has.
fn all_good(network: &Network, identity: &str) -> usize {
    let listed = network.cli(&["ledger", "list", "--identity", identity]).ok().objects();
    for one in &listed {
        let id = one["id"].as_str().unwrap();
        let examined = network.cli(&["ledger", "why-invalid", id, "--identity", identity]).ok().object();
        assert_eq!(examined["valid"], true, "{identity}: {examined}");
    }
    listed.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn observers_of_a_change_of_notary_have_it_with_its_chain_and_keep_what_they_choose() {
    for mode in MODES {
        let network = Network::with_two_notaries(false).setting(mode);
        let host = network.run();
        issue_at(&host, 100, NOTARY).await;
        let first = query(&network, "Alice", &[])[0]["ref"].as_str().unwrap().to_owned();
        let looking = [(CAROL, "all-visible"), (BOB, "only-relevant")];
        let second = moved(&host, ALICE, terms(&first, SECOND_NOTARY, &looking)).await;
        host.until_quiet().await;

        // Neither was there when the money was issued. Both have where it comes from, and one has the state.
        let expected = sorted(vec![(&second, SECOND_NOTARY, false, false)]);
        assert_eq!(states(&network, "Carol", "cash/Cash"), expected, "{mode}");
        assert_eq!(states(&network, "Bob", "cash/Cash"), [], "{mode}");
        let expected = sorted(vec![(&first, NOTARY, true, true), (&second, SECOND_NOTARY, true, false)]);
        assert_eq!(states(&network, "Alice", "cash/Cash"), expected, "{mode}");
        let change = transaction_of(&second);
        for identity in ["Alice", "Bob", "Carol"] {
            assert_eq!(all_good(&network, identity), 2, "{identity}, {mode}");
            let shown = network.cli(&["ledger", "show", &change, "--identity", identity]).ok().object();
            let signed = shown["signatures"].as_array().unwrap();
            let by: Vec<&str> = signed.iter().map(|one| one["by"].as_str().unwrap()).collect();
            assert_eq!(by, [ALICE, NOTARY], "nobody who looks on has signed: {identity}, {mode}");
            assert_eq!((&shown["status"], &shown["new_notary"]), (&json!("verified"), &json!(SECOND_NOTARY)));
        }
        // What Carol sees is not hers.
        let seen = host.run(CAROL, "hostile/spend-seen", json!("GBP")).await.result();
        assert_eq!(
            (&seen["of_others"], &seen["own"], &seen["locked"]),
            (&json!(100), &json!(0), &json!("vault/locked"))
        );

        // Back again. What she has seen is consumed, and she keeps nothing of what takes its place; Bob does this time.
        let looking = [(CAROL, "none"), (BOB, "all-visible")];
        let third = moved(&host, ALICE, terms(&second, NOTARY, &looking)).await;
        host.until_quiet().await;
        let expected = sorted(vec![(&second, SECOND_NOTARY, false, true)]);
        assert_eq!(states(&network, "Carol", "cash/Cash"), expected, "{mode}");
        let expected = sorted(vec![(&third, NOTARY, false, false)]);
        assert_eq!(states(&network, "Bob", "cash/Cash"), expected, "{mode}");
        assert_eq!((all_good(&network, "Bob"), all_good(&network, "Carol")), (3, 3), "{mode}");

        // Money that was looked at is paid as any other, to one of those who looked at it.
        let payment = json!({"to": BOB, "quantity": 100, "currency": "GBP"});
        host.run(ALICE, "cash/pay", payment).await.result();
        host.until_quiet().await;
        let of_bob = query(&network, "Bob", &["--relevancy", "relevant"]);
        assert_eq!((of_bob.len(), &of_bob[0]["state"]["quantity"]), (1, &json!(100)), "{mode}");
        nothing_is_left(&network);
        assert_eq!(host.until_quiet().await.flows["hospital"], 0);
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn participants_sign_and_observers_do_not() {
    for mode in MODES {
        let network = Network::with_two_notaries(true).setting(mode);
        let host = network.run();
        let debt = json!({"lender": ALICE, "quantity": 50, "currency": "GBP", "due": null});
        host.run(BOB, "iou/issue", debt).await.result();
        host.until_quiet().await;
        let first = query(&network, "Bob", &["--type", "iou/Iou"])[0]["ref"].as_str().unwrap().to_owned();
        let mut asked = terms(&first, SECOND_NOTARY, &[(CAROL, "all-visible")]);
        // Whoever moves it need not keep it.
        asked["states"] = json!("none");
        let second = moved(&host, BOB, asked).await;
        host.until_quiet().await;
        assert_eq!(
            states(&network, "Alice", "iou/Iou"),
            sorted(vec![(&first, NOTARY, true, true), (&second, SECOND_NOTARY, true, false)]),
            "{mode}"
        );
        assert_eq!(states(&network, "Bob", "iou/Iou"), sorted(vec![(&first, NOTARY, true, true)]), "{mode}");
        assert_eq!(
            states(&network, "Carol", "iou/Iou"),
            sorted(vec![(&second, SECOND_NOTARY, false, false)]),
            "{mode}"
        );
        let shown = network.cli(&["ledger", "show", &transaction_of(&second), "--identity", "Carol"]).ok().object();
        let by: Vec<&str> =
            shown["signatures"].as_array().unwrap().iter().map(|one| one["by"].as_str().unwrap()).collect();
        assert_eq!(by, [BOB, ALICE, NOTARY], "{mode}");
        assert_eq!(all_good(&network, "Carol"), 2, "{mode}");
        nothing_is_left(&network);
        assert_eq!(host.until_quiet().await.flows["hospital"], 0);
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_observer_does_not_take_moves_nothing() {
    let network = Network::with_two_notaries(false);
    let host = network.run();
    issue_at(&host, 100, NOTARY).await;
    let first = query(&network, "Alice", &[])[0]["ref"].as_str().unwrap().to_owned();
    for (wrong, text) in [("twice", "is given twice"), ("oneself", "without a session with oneself")] {
        let mut asked = terms(&first, SECOND_NOTARY, &[(CAROL, "all-visible")]);
        asked["wrong"] = json!(wrong);
        let refused = host.run(ALICE, "hostile/move-observed", asked).await.failure();
        assert_eq!(refused.kind, "illegal-argument", "{refused:?}");
        assert!(refused.message.contains(text), "{refused:?}");
    }
    // One who does not want it, and one who takes it for what it is not: never given as an ordinary transaction.
    for (states, exception) in [("refuse", "hostile/looks-away"), ("as-payment", "ledger/rejected")] {
        let asked = terms(&first, SECOND_NOTARY, &[(BOB, "all-visible"), (CAROL, states)]);
        let refused = host.run(ALICE, "hostile/move-observed", asked).await.failure();
        assert_eq!(refused.exception.as_deref(), Some(exception), "{refused:?}");
    }
    assert_eq!(committed(&network), 0, "nobody has asked the notary");
    assert_eq!(left_over(&network, ALICE), Vec::<Value>::new());
    assert_eq!(states(&network, "Alice", "cash/Cash"), sorted(vec![(&first, NOTARY, true, false)]));
    assert_eq!(query(&network, "Carol", &["--status", "all"]), Vec::<Value>::new());
    // The money is where it was, and can be spent.
    host.run(ALICE, "cash/pay", json!({"to": CAROL, "quantity": 100, "currency": "GBP"})).await.result();
    // Bob has had the changes in flight, and learns from the notary that they will never be.
    eventually("Bob has asked the notary", async || {
        let left = left_over(&network, BOB);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    host.until_quiet().await;
    assert_eq!(query(&network, "Bob", &["--status", "all"]), Vec::<Value>::new());
    nothing_is_left(&network);
    host.stop();
}

/// A flow that dies leaves its change of notary to the platform, which keeps of it what the flow wanted to keep.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_settled_for_a_killed_change_keeps_the_choice_of_each() {
    let network = Network::with_two_notaries(false);
    // Nobody runs the old notary for a while.
    let manifest = network.path("identities/notary.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::remove_file(&manifest).unwrap();
    let host = network.run();
    issue_at(&host, 100, NOTARY).await;
    let first = query(&network, "Alice", &[])[0]["ref"].as_str().unwrap().to_owned();
    let mut asked = terms(&first, SECOND_NOTARY, &[(BOB, "none"), (CAROL, "all-visible")]);
    asked["states"] = json!("none");
    let flow = host.start(ALICE, "hostile/move-observed", asked).await;
    host.until(&flow, |shown| format!("{:?}", shown.waiting_for).contains("Notary")).await;
    assert!(host.kill(&flow).await);
    host.end(&flow).await;
    std::fs::write(&manifest, text).unwrap();
    eventually("it is settled by all", async || {
        let left: Vec<Value> = [ALICE, BOB, CAROL].iter().flat_map(|identity| left_over(&network, identity)).collect();
        let counts = [ALICE, BOB, CAROL]
            .map(|identity| network.cli(&["ledger", "list", "--identity", identity]).ok().objects().len());
        if left.is_empty() && counts == [2; 3] { Ok(()) } else { Err(format!("{counts:?}, {left:?}")) }
    })
    .await;
    host.until_quiet().await;
    assert_eq!(states(&network, "Alice", "cash/Cash"), sorted(vec![(&first, NOTARY, true, true)]));
    assert_eq!(states(&network, "Bob", "cash/Cash"), []);
    let seen = states(&network, "Carol", "cash/Cash");
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((seen[0].1.as_str(), seen[0].2, seen[0].3), (SECOND_NOTARY, false, false));
    host.stop();
}
