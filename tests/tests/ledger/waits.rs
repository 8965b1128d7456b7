//! Flows that wait for the ledger, and are told by other flows of their identity; and payments that are repeated because a
//! state that they only looked at was consumed.

use maxhost_rpc::proto::v1 as pb;
use maxhost_tests::ledger::{Away, issue, money, pay, query, start_paying, unsettled};
use maxhost_tests::{ALICE, BOB, CAROL, Host, MODES, Network, eventually};
use serde_json::{Value, json};

/// A network whose identities sleep as soon as they can.
fn sleepy(mode: &str) -> Network {
    Network::new().settings(&[mode, "flows.idle_close=50 ms"])
}

async fn await_commit(host: &Host, who: &str, tx: &str) -> String {
    host.start(who, "hostile/await-commit", json!({ "tx": tx })).await
}

async fn await_consumption(host: &Host, who: &str, states: &[&str]) -> String {
    host.start(who, "hostile/await-consumption", json!({ "states": states })).await
}

/// A payment of Alice to Bob that waits for the notary: its flow, and its transaction, which neither has in its ledger yet.
async fn payment_in_flight(network: &Network, host: &Host, quantity: i64) -> (String, String) {
    let flow = start_paying(host, BOB, quantity).await;
    let tx = unsettled(network, "Alice")[0]["id"].as_str().unwrap().to_owned();
    (flow, tx)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_waits_for_the_ledger_is_told_by_whoever_records() {
    for mode in MODES {
        let network = sleepy(mode);
        let notary = Away::notary(&network);
        let host = network.run();
        let issued = issue(&host, 100).await;
        let (_, tx) = payment_in_flight(&network, &host, 40).await;
        let (state, made) = (format!("{issued}:0"), format!("{tx}:0"));
        // Two of whoever is paid, of whoever pays one for the transaction and one for the states that it consumes.
        let mut flows = Vec::new();
        for who in [BOB, BOB, ALICE] {
            flows.push((await_commit(&host, who, &tx).await, json!(tx)));
        }
        flows.push((await_consumption(&host, ALICE, &[&state]).await, json!(true)));
        // What the payment makes is not consumed by it, and not by anything else for now.
        let later = await_consumption(&host, BOB, &[&state, &made]).await;
        for (flow, _) in &flows[..3] {
            let shown = host.until_waits(flow, "ledger-commit").await.waiting_for.unwrap();
            assert_eq!((shown.awaited.as_deref(), shown.parties.len()), (Some(tx.as_str()), 0), "{mode}");
        }
        let shown = host.until_waits(&later, "state-consumption").await.waiting_for.unwrap();
        assert_eq!(shown.awaited, Some(format!("{state} and 1 more")), "{mode}");
        if mode == MODES[1] {
            for who in ["Alice", "Bob"] {
                host.until_identity(who, pb::IdentityState::Cold).await;
            }
        }
        notary.comes_back();
        for (flow, expected) in flows {
            assert_eq!(host.end(&flow).await.result(), expected, "{mode}");
        }
        host.until(&later, |shown| {
            shown.waiting_for.as_ref().and_then(|waiting| waiting.awaited.as_ref()).is_some_and(|next| *next == made)
        })
        .await;
        pay(&host, BOB, CAROL, 40).await.result();
        assert_eq!(host.end(&later).await.result(), json!(true), "{mode}");
        // What is there already is not waited for.
        let (now, none) = (json!({"tx": tx, "patience_ms": 0}), json!({"states": [state, made], "patience_ms": 0}));
        assert_eq!(host.run(BOB, "hostile/await-commit", now).await.result(), json!(tx), "{mode}");
        assert_eq!(host.run(BOB, "hostile/await-consumption", none).await.result(), json!(true), "{mode}");
        assert_eq!(host.until_quiet().await.flows["hospital"], 0, "{mode}");
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_the_ledger_survives_the_host() {
    for mode in MODES {
        let network = sleepy(mode);
        let notary = Away::notary(&network);
        let host = network.run();
        let issued = issue(&host, 100).await;
        let (_, tx) = payment_in_flight(&network, &host, 40).await;
        let waiting = [await_commit(&host, BOB, &tx).await, await_commit(&host, ALICE, &tx).await];
        let consumption = await_consumption(&host, ALICE, &[&format!("{issued}:0")]).await;
        for flow in &waiting {
            host.until_waits(flow, "ledger-commit").await;
        }
        host.until_waits(&consumption, "state-consumption").await;
        host.kill_9();
        let host = network.run();
        for flow in &waiting {
            let shown = host.until_waits(flow, "ledger-commit").await.waiting_for.unwrap();
            assert_eq!(shown.awaited.as_deref(), Some(tx.as_str()), "{mode}");
        }
        notary.comes_back();
        // Killed while they are about to be told: they are told, or find what was recorded while nobody told them.
        eventually("a ledger has it", async || match unsettled(&network, "Alice").is_empty() {
            true => Ok(()),
            false => Err("in flight".to_owned()),
        })
        .await;
        host.kill_9();
        let host = network.run();
        for flow in &waiting {
            assert_eq!(host.end(flow).await.result(), json!(tx), "{mode}");
        }
        assert_eq!(host.end(&consumption).await.result(), json!(true), "{mode}");
        assert_eq!(host.until_quiet().await.flows["hospital"], 0, "{mode}");
        assert_eq!((money(&network, "Alice"), money(&network, "Bob")), (60, 40), "{mode}");
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_wait_for_a_transaction_ends_with_an_error_of_a_session() {
    let unknown = "ab".repeat(32);
    for mode in MODES {
        let network = Network::new().setting(mode);
        let host = network.run();
        let commit = async |act: &str, patience_ms: u64| {
            let wanted = json!({"tx": unknown, "patience_ms": patience_ms, "beside": {"peer": BOB, "act": act}});
            host.run(ALICE, "hostile/await-commit", wanted).await
        };
        let failure = commit("throw", 60_000).await.failure();
        assert_eq!(failure.exception.as_deref(), Some("hostile/disturbed"), "{mode}: {failure:?}");
        assert_eq!(failure.peer.as_deref(), Some(BOB), "{mode}");
        for act in ["speak", "end"] {
            assert_eq!(commit(act, 500).await.result(), Value::Null, "{mode}, {act}");
        }
        let states = [format!("{unknown}:0")];
        for act in ["throw", "speak", "end"] {
            let wanted = json!({"states": states, "patience_ms": 500, "beside": {"peer": BOB, "act": act}});
            let end = host.run(ALICE, "hostile/await-consumption", wanted).await;
            // The peer's error is no business of a wait for states, and nothing else of the flow touches the session.
            assert_eq!(end.result(), json!(false), "{mode}, {act}");
        }
        host.until_quiet().await;
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_waited_for_is_refused_and_what_never_comes_can_be_given_up() {
    let network = Network::new().setting("flows.evict=every-wait");
    let host = network.run();
    let commit = async |tx: &str| host.run(ALICE, "hostile/await-commit", json!({"tx": tx, "patience_ms": 0})).await;
    let consumption = async |states: Value| {
        host.run(ALICE, "hostile/await-consumption", json!({"states": states, "patience_ms": 0})).await
    };
    let (unknown, long) = ("cd".repeat(32), "x".repeat(100_000));
    for tx in ["", "cd", long.as_str()] {
        let refused = commit(tx).await.failure();
        assert_eq!(refused.kind, "illegal-argument", "{refused:?}");
        assert!(refused.message.len() < 200, "{refused:?}");
    }
    for state in ["", unknown.as_str(), "cd:0", long.as_str()] {
        let refused = consumption(json!([state])).await.failure();
        assert_eq!(refused.exception.as_deref(), Some("ledger/rejected"), "{refused:?}");
    }
    let states = |count: u32| (0..count).map(|index| format!("{unknown}:{index}")).collect::<Vec<_>>();
    assert_eq!(consumption(json!(states(1_001))).await.failure().kind, "illegal-argument");
    assert_eq!(consumption(json!(states(1_000))).await.result(), json!(false), "nobody knows them");
    assert_eq!(consumption(json!([])).await.result(), json!(true), "of no states all are consumed");
    assert_eq!(commit(&unknown).await.result(), Value::Null);
    let flow = await_consumption(&host, ALICE, &[&format!("{unknown}:7")]).await;
    host.until_waits(&flow, "state-consumption").await;
    assert!(host.kill(&flow).await);
    assert_eq!(host.end(&flow).await.state, "killed");
    host.until_quiet().await;
    host.stop();
}

/// The terms of a payment of 10 by Carol's list.
fn terms(patience_ms: u64) -> Value {
    let payment = json!({"to": "Bob", "quantity": 10, "currency": "GBP", "authority": "Carol"});
    json!({"payment": payment, "patience_ms": patience_ms})
}

/// The list of Carol's that Alice has in her vault.
fn known_list(network: &Network) -> String {
    let lists = query(network, "Alice", &["--type", "sanctions/SanctionsList"]);
    assert_eq!(lists.len(), 1, "{lists:?}");
    lists[0]["ref"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_whose_list_was_replaced_is_repeated_by_the_new_one() {
    for mode in MODES {
        let network = sleepy(mode);
        let host = network.run();
        issue(&host, 100).await;
        let publish =
            async |host: &Host, names: Value| host.run(CAROL, "sanctions/publish", json!({ "names": names })).await;
        publish(&host, json!([])).await.result();
        host.run(ALICE, "sanctions/pay", terms(0)["payment"].clone()).await.result();
        host.until_quiet().await;
        let first = known_list(&network);
        // Carol's list changes and nobody tells Alice, who pays by the one that she knows.
        publish(&host, json!(["Notary"])).await.result();
        let flow = host.start(ALICE, "sanctions/pay-following", terms(600_000)).await;
        let shown = host.until_waits(&flow, "state-consumption").await.waiting_for.unwrap();
        assert_eq!(shown.awaited.as_deref(), Some(first.as_str()), "{mode}");
        host.kill_9();
        let host = network.run();
        host.until_waits(&flow, "state-consumption").await;
        let tell = async |host: &Host| host.run(CAROL, "sanctions/tell", json!({"followers": ["Alice"]})).await;
        tell(&host).await.result();
        host.end(&flow).await.result();
        host.until_quiet().await;
        assert_ne!(known_list(&network), first, "{mode}");
        assert_eq!((money(&network, "Alice"), money(&network, "Bob")), (80, 20), "{mode}");
        // Nobody tells her in time.
        publish(&host, json!([])).await.result();
        let refused = host.run(ALICE, "sanctions/pay-following", terms(300)).await.failure();
        assert_eq!(refused.exception.as_deref(), Some("notary/conflict"), "{mode}: {refused:?}");
        // The new list forbids it: that is no conflict, and it is not tried again.
        publish(&host, json!(["Bob"])).await.result();
        let flow = host.start(ALICE, "sanctions/pay-following", terms(600_000)).await;
        host.until_waits(&flow, "state-consumption").await;
        tell(&host).await.result();
        let refused = host.end(&flow).await.failure();
        assert_eq!(refused.exception.as_deref(), Some("sanctions/sanctioned"), "{mode}: {refused:?}");
        host.until_quiet().await;
        assert_eq!((money(&network, "Alice"), money(&network, "Bob")), (80, 20), "{mode}");
        assert!(unsettled(&network, "Alice").is_empty() && unsettled(&network, "Bob").is_empty(), "{mode}");
        assert_eq!(host.until_quiet().await.flows["hospital"], 0, "{mode}");
        host.stop();
    }
}
