//! What a transaction comes from, and what is attached to it: long back-chains that are got in pieces, by several flows at
//! once, and over crashes; and files that travel.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use maxhost_ledger::keys::{Scheme, SigningKey};
use maxhost_model::SecureHash;
use maxhost_tests::ledger::{issue, pay, payment, query, show, tx, verified_again};
use maxhost_tests::{ALICE, BOB, CAROL, End, Host, MODES, Network, eventually};
use serde_json::{Value, json};
/// Transactions that are made behind the issue: more than come in one message, and than are kept in memory.
const LENGTH: usize = 300;

/// Alice's money has gone through her own hands so many times.
async fn lengthen(host: &Host, times: usize) -> String {
    issue(host, 1000).await;
    tx(&host.run(ALICE, "hostile/lengthen", json!({"currency": "GBP", "times": times})).await)
}

/// All transactions of an identity, page by page.
fn listed(network: &Network, identity: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let more: Vec<&str> = cursor.iter().flat_map(|cursor| ["--cursor", cursor]).collect();
        let page = network.cli(&[&["ledger", "list", "--identity", identity][..], &more].concat()).ok().objects();
        cursor = page.last().and_then(|last| last["cursor"].as_str()).map(str::to_owned);
        all.extend(page.into_iter().filter(|one| one["id"].is_string()));
        if cursor.is_none() {
            return all;
        }
    }
}

/// The ids of an identity's transactions, all of which are verified.
fn verified(network: &Network, identity: &str) -> BTreeSet<String> {
    let id = |one: Value| {
        assert_eq!(one["status"], "verified", "{identity}: {one}");
        one["id"].as_str().unwrap().to_owned()
    };
    listed(network, identity).into_iter().map(id).collect()
}

/// Waits until an identity has at least so many transactions, all verified: which states a payment takes is not told before.
async fn settled(network: &Network, host: &Host, identity: &str, at_least: usize) {
    host.until_quiet().await;
    eventually("all of the chain is there", async || {
        let count = listed(network, identity).iter().filter(|one| one["status"] == "verified").count();
        if count >= at_least { Ok(()) } else { Err(format!("{count} of {at_least}")) }
    })
    .await;
    verified(network, identity);
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_chain_arrives_whole_however_flows_are_put_away() {
    for mode in MODES {
        let network = Network::new();
        let host = network.run();
        lengthen(&host, LENGTH).await;
        host.stop();
        let host = network.run_with(&["--set", mode]);
        pay(&host, ALICE, BOB, 10).await.result();
        settled(&network, &host, "Bob", LENGTH + 2).await;
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_that_need_the_same_chain_do_not_get_in_each_others_way() {
    let network = Network::new();
    let host = network.run();
    lengthen(&host, LENGTH).await;
    pay(&host, ALICE, CAROL, 400).await.result();
    settled(&network, &host, "Carol", LENGTH + 2).await;
    // Bob gets from two what comes from one chain.
    let ends = join_all([ALICE, CAROL].map(|payer| pay(&host, payer, BOB, 10)));
    ends.await.iter().for_each(|end| drop(end.result()));
    settled(&network, &host, "Bob", LENGTH + 4).await;
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_goes_on_where_a_killed_host_has_left_it() {
    let network = Network::new();
    let host = network.run();
    lengthen(&host, LENGTH).await;
    let id = host.start(ALICE, "cash/pay", payment(BOB, 10)).await;
    let mut host = host;
    for wait in [20, 50, 90, 140, 200] {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        host.kill_9();
        host = network.run();
    }
    // Nobody is given the same twice, so what was got before the host died is there.
    host.end(&id).await.result();
    settled(&network, &host, "Bob", LENGTH + 2).await;
    host.stop();
}

/// What an identity has of attachments in its ledger.
fn kept(network: &Network, identity: &str) -> String {
    let of = format!("(SELECT id FROM identity WHERE name LIKE '%O={identity},%')");
    network.sql(&format!("SELECT count(*) FROM attachment WHERE identity = {of}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_travels_with_its_transaction_however_flows_are_put_away() {
    for mode in MODES {
        let network = Network::new().setting(mode);
        let host = network.run();
        // Larger than a message takes at once.
        let sent = host.run(ALICE, "hostile/attach", json!({"peer": "Bob", "bytes": 1_300_000, "text": mode})).await;
        let sent = sent.result();
        let found = |end: End| end.result()["bytes"].as_u64();
        let which = json!({"attachment": sent["attachment"]});
        assert_eq!(found(host.run(BOB, "hostile/read-attachment", which.clone()).await), Some(1_300_000), "{mode}");
        assert_eq!(found(host.run(CAROL, "hostile/read-attachment", which.clone()).await), None);
        // Whoever gets what comes of it gets it from Bob.
        host.until_quiet().await;
        pay(&host, BOB, "Carol", 1).await.result();
        assert_eq!(found(host.run(CAROL, "hostile/read-attachment", which).await), Some(1_300_000));
        let shown = show(&network, sent["tx"].as_str().unwrap(), "Carol");
        assert!(shown["attachments"].as_array().unwrap().contains(&sent["attachment"]), "{shown}");
        assert_eq!(verified_again(&network, sent["tx"].as_str().unwrap(), "Carol")["valid"], true);
        assert_eq!(host.until_quiet().await.flows["hospital"], 0);
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_attachments_are_refused_and_leave_nothing() {
    const BAD: [(&str, &str); 6] = [
        ("huge", "transaction-too-large"),
        ("endless", "protocol"),
        ("too-many", "transaction-too-large"),
        ("tampered", "attachment-tampered"),
        ("untrusted-code", "attachment-untrusted"),
        ("broken-code", "attachment-malformed"),
    ];
    let network = Network::new();
    let host = network.run();
    for (how, code) in BAD {
        let end = host.run(ALICE, "hostile/bad-attachment", json!({"peer": "Bob", "how": how})).await;
        assert_eq!(end.result(), json!({ "refused": code }), "{how}");
    }
    host.until_quiet().await;
    for identity in ["Alice", "Bob"] {
        assert!(verified(&network, identity).is_empty(), "{identity}");
        let states = query(&network, identity, &["--status", "all"]);
        assert!(states.is_empty(), "{identity}: {states:?}");
    }
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
    if !maxhost_tests::is_on_server() {
        assert_eq!(kept(&network, "Bob"), "0");
    }
}

#[test]
fn files_that_are_no_code_are_imported_listed_and_exported() {
    let network = Network::new();
    let file = network.path("terms.txt");
    std::fs::write(&file, "the terms").unwrap();
    let imported = network.cli(&["attachment", "import", file.to_str().unwrap()]).ok().object();
    let id = imported["id"].as_str().unwrap().to_owned();
    assert_eq!(
        (&imported["bytes"], &imported["code_hash"], &imported["signers"]),
        (&json!(9), &Value::Null, &json!([]))
    );
    let again = network.cli(&["attachment", "import", file.to_str().unwrap()]).ok().object();
    assert_eq!(again, imported);
    let listed = network.cli(&["attachment", "list"]).ok().objects();
    assert!(listed.iter().any(|one| one["id"] == id.as_str()) && listed.len() > 1, "{listed:?}");
    assert_eq!(network.cli(&["attachment", "show", &id]).ok().object()["bytes"], 9);
    let copy = network.path("copy.txt");
    drop(network.cli(&["attachment", "export", &id, "--file", copy.to_str().unwrap()]).ok());
    assert_eq!(std::fs::read(&copy).unwrap(), b"the terms");
    let flows = network.path("cordapps");
    let flows = std::fs::read_dir(flows).unwrap().map(|one| one.unwrap().path());
    let mut flows = flows.filter(|path| !path.to_string_lossy().ends_with(".contract.wasm"));
    let flows = flows.find(|path| path.extension().is_some_and(|extension| extension == "wasm")).unwrap();
    network.cli(&["attachment", "import", flows.to_str().unwrap()]).fails(4, "component-invalid");
    network.cli(&["attachment", "show", &"ab".repeat(32)]).fails(3, "attachment-not-found");
}

/// Code that is not installed any more comes from whoever has kept it. It is run, because a key has signed it that has signed
/// what is installed.
#[tokio::test(flavor = "multi_thread")]
async fn code_of_a_peer_is_run_if_its_signer_is_known() {
    let network = Network::new();
    let host = network.run();
    let issued = issue(&host, 100).await;
    let installed = network.path("cordapps/cash-0.1.0.contract.wasm");
    let old = std::fs::read(&installed).unwrap();
    let id = SecureHash::of(&old).to_string();
    let kept = host.run(ALICE, "hostile/keep-attachment", json!({"attachment": id})).await.result();
    assert_eq!(kept["bytes"].as_u64(), Some(old.len() as u64));
    host.stop();
    // The same code under one more signature is another file.
    let key = SigningKey::from_seed(Scheme::Ed25519, &[7; 32]).unwrap();
    std::fs::write(&installed, maxhost_ledger::attachment::sign(&old, &key).unwrap()).unwrap();
    let host = network.run();
    assert!(network.cli(&["attachment", "list"]).ok().objects().iter().all(|one| one["id"] != id.as_str()));
    pay(&host, ALICE, BOB, 40).await.result();
    settled(&network, &host, "Bob", 2).await;
    let shown = show(&network, &issued, "Bob");
    assert_eq!(shown["attachments"], json!([id]));
    assert_eq!(verified_again(&network, &issued, "Bob")["valid"], true);
    host.stop();
}
