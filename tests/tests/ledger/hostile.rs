//! What is wrong with a transaction is found by whoever gets it: each kind of bad transaction has a code of its own, and
//! leaves nothing behind on either side.

use std::fs;

use maxhost_tests::ledger::{issue, locks, notary_status, pay, query, show, transactions};
use maxhost_tests::{ALICE, BOB, CAROL, Network, cli, eventually};
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
    [query(network, identity, &["--status", "all"]), transactions(network, identity), locks(network, identity)]
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
    issue(&host, 1000).await;
    host.run(ALICE, "cash/issue", json!({"quantity": 7, "currency": "EUR", "to": BOB})).await.result();
    host.until_quiet().await;
    let before = (everything(&network, "Alice"), everything(&network, "Bob"));
    let committed = || notary_status(&network, "Notary");
    let asked = committed();
    for (how, code) in BAD {
        assert_eq!(bad(how).await, json!({ "refused": code }), "{how}");
    }
    host.until_quiet().await;
    eventually("both have what they had, and no lock", async || {
        let after = (everything(&network, "Alice"), everything(&network, "Bob"));
        if after == before { Ok(()) } else { Err(format!("{before:?} before, {after:?} after")) }
    })
    .await;
    assert_eq!(committed(), asked, "the notary learned of nothing");
    // The money that was in the bad payments is spent as if nothing had been.
    pay(&host, ALICE, BOB, 1000).await.result();
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_transaction_is_refused_however_flows_are_put_away() {
    let network = Network::new().setting("flows.evict=every-wait");
    let host = network.run();
    issue(&host, 10).await;
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
        show(&network, id, "Bob")
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
            let spendable = query(&network, "Bob", &[]);
            if spendable.len() == 1 { Ok(()) } else { Err(format!("{how}: {:?}", everything(&network, "Bob"))) }
        })
        .await;
        pay(&host, BOB, CAROL, 5).await.result();
        host.until_quiet().await;
        let [states, transactions, _] = everything(&network, "Carol");
        assert_eq!((states.len(), transactions.len()), (count, 3 * count), "{how}");
        assert!(transactions.iter().all(|one| one["status"] == "verified"), "{how}: {transactions:?}");
    }
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

/// Installs a CorDapp that is called as a sample is, and is another one; `make build` makes it too. This identity runs it, all
/// others run the sample.
fn install_false(network: &Network, name: &str, identity: &str) {
    let file = cli::target().join(format!("guests/wasm32-wasip2/release/hostile_false_{name}.wasm"));
    assert!(file.is_file(), "there is no {}: run `make build`", file.display());
    drop(network.cli(&["cordapp", "install", &file.display().to_string()]).ok());
    // Two are called so from now on, and each manifest says which it means.
    let (plain, good, bad) = (format!("\"{name}\""), format!("\"{name}@0.1\""), format!("\"{name}@6.0\""));
    let files = fs::read_dir(network.path("identities")).unwrap().map(|entry| entry.unwrap().path());
    for manifest in files.filter(|file| file.extension().is_some_and(|extension| extension == "toml")) {
        let is_false = manifest.file_stem().is_some_and(|stem| stem == identity);
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, text.replace(&plain, if is_false { &bad } else { &good })).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_is_given_for_what_was_agreed_and_for_nothing_else() {
    let network = Network::new();
    let host = network.run();
    issue(&host, 100).await;
    let terms = json!({"lender": ALICE, "quantity": 50, "currency": "GBP"});
    let id = host.run(BOB, "iou/issue", terms).await.result()["id"].clone();
    for asset in ["bond-1", "bond-2"] {
        host.run(BOB, "trade/issue", json!({ "asset": asset })).await.result();
        let terms = json!({"buyer": "Alice", "asset": asset, "price": 5, "currency": "GBP"});
        host.run(BOB, "trade/sell", terms).await.result();
    }
    host.until_quiet().await;
    host.stop();

    install_false(&network, "iou", "bob");
    // It answers sales, too.
    let manifest = network.path("identities/bob.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace(", \"trade\"", "")).unwrap();
    let host = network.run();
    let before = query(&network, "Alice", &[]);
    assert_eq!(before.len(), 4, "a debt, two bonds and money: {before:?}");
    // Alice is asked to lend, and what she is given to sign gives her claim to Carol.
    let claimed = host.run(BOB, "iou/issue", json!({"id": id, "to": "Carol"})).await.result();
    assert_eq!(claimed, json!({"refused": "iou/unexpected-proposal"}));
    // Bob pays with what he owes himself, in his name and in another's.
    for issuer in ["Bob", "Carol"] {
        let terms = json!({"id": id, "quantity": 50, "issuer": issuer});
        let paid = host.run(BOB, "iou/settle", terms).await.result();
        assert_eq!(paid, json!({"refused": "iou/paid-with-debt"}), "{issuer}");
    }
    // A bond is sold for less than was asked.
    let terms = json!({"buyer": "Bob", "asset": "bond-1", "price": 5, "currency": "GBP"});
    let failure = host.run(ALICE, "trade/sell", terms).await.failure();
    assert_eq!(failure.exception.as_deref(), Some("trade/price"), "{failure:?}");
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    assert_eq!(query(&network, "Alice", &[]), before);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn money_in_the_name_of_another_is_neither_taken_nor_spent() {
    let network = Network::new();
    install_false(&network, "cash", "carol");
    let host = network.run();
    // Bob sees what he is paid with, and takes nothing else than what he has seen.
    for (behind_another, refused) in [(false, json!("cash/issuer-unknown")), (true, Value::Null)] {
        let terms = json!({"to": "Bob", "issuer": "Alice", "behind_another": behind_another});
        let paid = host.run(CAROL, "cash/pay", terms).await.result();
        assert_eq!(paid, json!({ "refused": refused }));
    }
    host.until_quiet().await;
    assert_eq!(query(&network, "Bob", &[]), Vec::<Value>::new());
    // Whoever takes it without a look can do nothing with it.
    let terms = json!({"to": ALICE, "issuer": ALICE, "quantity": 50, "currency": "GBP"});
    host.run(CAROL, "hostile/counterfeit", terms).await.result();
    host.until_quiet().await;
    let pay = async |quantity: i64| pay(&host, ALICE, BOB, quantity).await;
    let exit =
        async |quantity: i64| host.run(ALICE, "cash/exit", json!({"quantity": quantity, "currency": "GBP"})).await;
    assert_eq!(exit(1).await.failure().exception.as_deref(), Some("cash/not-issuer"));
    assert_eq!(pay(1).await.failure().exception.as_deref(), Some("cash/insufficient"));
    // Nor does it stand in the way of good money.
    issue(&host, 100).await;
    pay(30).await.result();
    exit(70).await.result();
    assert_eq!(pay(1).await.failure().exception.as_deref(), Some("cash/insufficient"));
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    let quantities = |identity: &str| -> Vec<Value> {
        query(&network, identity, &[]).into_iter().map(|state| state["state"]["quantity"].clone()).collect()
    };
    assert_eq!((quantities("Alice"), quantities("Bob")), (vec![json!(50)], vec![json!(30)]));
    host.stop();
}
