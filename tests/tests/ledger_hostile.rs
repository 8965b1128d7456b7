//! What is wrong with a transaction is found by whoever gets it: each kind of bad transaction has a code of its own, and
//! leaves nothing behind on either side.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use maxhost_tests::{ALICE, BOB, CAROL, Network, eventually};
use serde_json::{Value, json};

/// How a transaction is spoiled, and the code with which it is refused (docs/errors.md).
const BAD: [(&str, &str); 10] = [
    ("no-signature", "nothing-signed"),
    ("forged-signature", "signature-invalid"),
    ("wrong-network", "network-wrong"),
    ("tampered-output", "back-chain-tampered"),
    ("looping-contract", "contract-out-of-fuel"),
    ("money-from-nothing", "contract-rejected"),
    ("unknown-input", "state-unknown"),
    ("not-canonical", "not-canonical"),
    ("wrong-notary", "notary-untrusted"),
    ("no-key", "contract-rejected"),
];

/// All that an identity has: its vault, its transactions, its locks.
fn everything(network: &Network, identity: &str) -> [Vec<Value>; 3] {
    let ask = |words: &[&str]| network.cli(&[words, &["--identity", identity]].concat()).ok().objects();
    [ask(&["vault", "query", "--status", "all"]), ask(&["ledger", "list"]), ask(&["vault", "locks"])]
}

/// An identity without anything.
fn nothing() -> [Vec<Value>; 3] {
    [Vec::new(), Vec::new(), Vec::new()]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_transaction_is_refused_with_a_code_of_its_own_and_leaves_nothing() {
    let network = Network::new();
    let host = network.run();
    let bad = async |how: &str| {
        let end = host.run(ALICE, "hostile/bad-transaction", json!({"peer": "Bob", "how": how})).await;
        end.result()
    };
    // With nothing of one's own, too.
    assert_eq!(bad("no-signature").await, json!({"refused": "nothing-signed"}));
    for identity in ["Alice", "Bob"] {
        assert_eq!(everything(&network, identity), nothing(), "{identity}");
    }
    host.run(ALICE, "cash/issue", json!({"quantity": 1000, "currency": "GBP"})).await.result();
    host.run(ALICE, "cash/issue", json!({"quantity": 7, "currency": "EUR", "to": BOB})).await.result();
    host.until_quiet().await;
    let before = (everything(&network, "Alice"), everything(&network, "Bob"));
    let committed = |network: &Network| network.cli(&["notary", "status", "--identity", "Notary"]).ok().object();
    let asked = committed(&network);
    for (how, code) in BAD {
        assert_eq!(bad(how).await, json!({ "refused": code }), "{how}");
    }
    host.until_quiet().await;
    eventually("both have what they had, and no lock", async || {
        let after = (everything(&network, "Alice"), everything(&network, "Bob"));
        if after == before { Ok(()) } else { Err(format!("{before:?} before, {after:?} after")) }
    })
    .await;
    assert_eq!(committed(&network), asked, "the notary learned of nothing");
    // The money that was in the bad payments is spent as if nothing had been.
    host.run(ALICE, "cash/pay", json!({"to": BOB, "quantity": 1000, "currency": "GBP"})).await.result();
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_transaction_is_refused_however_flows_are_put_away() {
    let network = Network::new().setting("flows.evict=every-wait");
    let host = network.run();
    host.run(ALICE, "cash/issue", json!({"quantity": 10, "currency": "GBP"})).await.result();
    for (how, code) in [("tampered-output", "back-chain-tampered"), ("forged-signature", "signature-invalid")] {
        let end = host.run(ALICE, "hostile/bad-transaction", json!({"peer": "Bob", "how": how})).await;
        assert_eq!(end.result(), json!({ "refused": code }), "{how}");
    }
    host.until_quiet().await;
    assert_eq!(everything(&network, "Bob"), nothing());
    host.stop();
}

/// What it comes from is good, and is recorded; the payment is not, and no money comes of it.
#[tokio::test(flavor = "multi_thread")]
async fn money_that_is_spent_without_what_encumbers_it_is_refused() {
    let network = Network::new();
    let host = network.run();
    let bad = json!({"peer": "Bob", "how": "encumbered-alone"});
    let end = host.run(ALICE, "hostile/bad-transaction", bad).await;
    assert_eq!(end.result(), json!({"refused": "encumbrance-input-missing"}));
    host.until_quiet().await;
    assert_eq!(everything(&network, "Alice"), nothing());
    let [states, transactions, locks] = everything(&network, "Bob");
    assert_eq!((states, transactions.len(), locks), (Vec::new(), 1, Vec::new()));
    let shown = |transaction: &Value| {
        let id = transaction["id"].as_str().unwrap();
        network.cli(&["ledger", "show", id, "--identity", "Bob"]).ok().object()
    };
    let issue = shown(&transactions[0]);
    assert_eq!((&issue["status"], issue["inputs"].as_array().unwrap().len()), (&json!("verified"), 0));
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

/// What is told falsely of the notary's answer to a payment, and the code with which that is refused.
const FALSE_OUTCOMES: [(&str, &str); 2] = [("garbage-behind", "signature-invalid"), ("refused", "made-up")];

/// The payee checks what he is told, and asks the notary: the money is his, and others take it from him.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_tells_something_false_of_the_notary_takes_no_money_from_anybody() {
    let network = Network::new();
    let host = network.run();
    for (count, (how, code)) in (1..).zip(FALSE_OUTCOMES) {
        let end = host.run(ALICE, "hostile/false-outcome", json!({"peer": "Bob", "how": how})).await;
        assert_eq!(end.result(), json!({ "refused": code }), "{how}");
        eventually("Bob has settled it", async || {
            let spendable = network.cli(&["vault", "query", "--identity", "Bob"]).ok().objects();
            if spendable.len() == 1 { Ok(()) } else { Err(format!("{how}: {:?}", everything(&network, "Bob"))) }
        })
        .await;
        host.run(BOB, "cash/pay", json!({"to": CAROL, "quantity": 5, "currency": "GBP"})).await.result();
        host.until_quiet().await;
        let [states, transactions, _] = everything(&network, "Carol");
        assert_eq!((states.len(), transactions.len()), (count, 3 * count), "{how}");
        assert!(transactions.iter().all(|one| one["status"] == "verified"), "{how}: {transactions:?}");
    }
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}
