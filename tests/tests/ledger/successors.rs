//! A publisher's key is replaced: states of before go on under code that the successor has signed, for everybody alike.

use std::path::{Path, PathBuf};

use maxhost_ledger::attachment::{SignedCode, sign};
use maxhost_ledger::keys::{Scheme, SigningKey};
use maxhost_model::SecureHash;
use maxhost_tests::{ALICE, BOB, CAROL, MODES, Network, SECOND_NOTARY};
use serde_json::{Value, json};

use maxhost_tests::ledger::{issue, money, pay, query, verified_again};

fn contracts(network: &Network) -> Vec<PathBuf> {
    let files = std::fs::read_dir(network.path("cordapps")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.to_string_lossy().ends_with(".contract.wasm")).collect()
}

/// A section at the end of WebAssembly that says nothing to a machine: its kind, its length, its name and a byte.
const ANOTHER_BUILD: &[u8] = b"\x00\x07\x05build\x02";

/// Another build of cash, under the signature of a new key and of no other, in a file that is installed nowhere.
fn of_successor(network: &Network) -> (PathBuf, SecureHash) {
    let file = std::fs::read(network.path("cordapps/cash-0.1.0.contract.wasm")).unwrap();
    let code = [SignedCode::read(&file).unwrap().code(&file), ANOTHER_BUILD].concat();
    let signed = sign(&code, &SigningKey::from_seed(Scheme::Ed25519, &[7; 32]).unwrap()).unwrap();
    let path = network.path("successor.contract.wasm");
    std::fs::write(&path, &signed).unwrap();
    (path, SecureHash::of(&signed))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn parameters(network: &Network) -> Value {
    network.cli(&["network", "parameters"]).ok().object()
}

/// Whether each transaction that an identity has is good by all that it has.
fn all_good(network: &Network, identity: &str) -> usize {
    let listed = network.cli(&["ledger", "list", "--identity", identity]).ok().objects();
    for one in &listed {
        let id = one["id"].as_str().unwrap();
        let examined = network.cli(&["ledger", "why-invalid", id, "--identity", identity]).ok().object();
        assert_eq!(examined["valid"], true, "{identity}: {examined}");
    }
    listed.len()
}

/// A file of a key that has a successor, and that of the successor.
struct OldKey {
    successor: PathBuf,
    /// The id of the successor's file.
    id: SecureHash,
    /// Where the old file is kept, outside of what is installed.
    old: String,
}

/// Money was issued under a key, by somebody who keeps the code in the ledger; from then on nothing is installed that the key has
/// signed, because its publisher does not use it any more.
async fn issued_under_the_old_key(network: &Network) -> OldKey {
    let (successor, id) = of_successor(network);
    let old = text(&network.path("old.contract.wasm"));
    std::fs::copy(network.path("cordapps/cash-0.1.0.contract.wasm"), &old).unwrap();
    let host = network.run();
    issue(&host, 100).await;
    drop(network.cli(&["attachment", "import", &old, "--identity", "Alice"]).ok());
    host.until_quiet().await;
    host.stop();
    for file in contracts(network) {
        std::fs::remove_file(file).unwrap();
    }
    std::fs::copy(&successor, network.path("cordapps/cash-0.1.0.contract.wasm")).unwrap();
    OldKey { successor, id, old }
}

async fn goes_on(mode: &str, validating: bool) {
    let network = Network::with_two_notaries(validating).setting(mode);
    let OldKey { successor, id, old } = issued_under_the_old_key(&network).await;
    let host = network.run();
    issue(&host, 50).await;
    // To the network they are two publishers, and code of the one is no code for states of the other.
    drop(pay(&host, ALICE, BOB, 120).await.failure());
    host.until_quiet().await;
    assert_eq!((money(&network, "Alice"), money(&network, "Bob")), (150, 0), "{mode}");

    // The operator says that they are one, while the host runs.
    let words = format!("{old}={}", text(&successor));
    let next = network.cli(&["network", "update", "--succeed", &words]).ok().object();
    assert_eq!((&next["epoch"], &next["changed"]), (&json!(2), &json!(true)), "{next}");
    let shown = parameters(&network);
    assert_eq!(shown["epoch"], 2, "{shown}");
    assert_eq!(shown["publisher_successions"][0].as_array().unwrap().len(), 2, "{shown}");

    // Both kinds of money are spent in one payment, by the code of the successor. Those who were not there get code of the old
    // key with what the money comes from, and run it.
    let paid = pay(&host, ALICE, BOB, 120).await.result()["tx"].as_str().unwrap().to_owned();
    host.until_quiet().await;
    assert_eq!((money(&network, "Alice"), money(&network, "Bob")), (30, 120), "{mode}");
    let shown = network.cli(&["ledger", "show", &paid, "--identity", "Bob"]).ok().object();
    assert_eq!((&shown["attachments"], &shown["status"]), (&json!([id.to_string()]), &json!("verified")), "{mode}");
    pay(&host, BOB, CAROL, 120).await.result();
    host.until_quiet().await;
    assert_eq!(
        (all_good(&network, "Alice"), all_good(&network, "Bob"), all_good(&network, "Carol")),
        (3, 4, 4),
        "{mode}"
    );
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();

    // It is the same after a start, and money that has gone on goes on.
    let host = network.run();
    pay(&host, CAROL, ALICE, 120).await.result();
    host.until_quiet().await;
    assert_eq!((money(&network, "Alice"), all_good(&network, "Alice")), (150, 5), "{mode}");
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn states_go_on_under_code_of_a_successor() {
    goes_on("flows.evict=never", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn states_go_on_under_code_of_a_successor_however_flows_are_put_away() {
    goes_on("flows.evict=every-wait", true).await;
    goes_on("flows.evict=random:5", false).await;
}

/// Who takes part in a state is said by the code that made it, by the parameters of then. No contract judges a change of notary,
/// so a state moves though its contract has no code any more.
async fn moves_though_the_succession_is_gone(mode: &str) {
    let network = Network::with_two_notaries(true).setting(mode);
    let OldKey { successor, old, .. } = issued_under_the_old_key(&network).await;
    let host = network.run();
    drop(network.cli(&["network", "update", "--succeed", &format!("{old}={}", text(&successor))]).ok());
    pay(&host, ALICE, BOB, 60).await.result();
    host.until_quiet().await;
    drop(network.cli(&["network", "update", "--unsucceed", &old]).ok());
    assert_eq!(parameters(&network)["epoch"], 3);

    drop(pay(&host, BOB, CAROL, 10).await.failure());
    let terms = json!({"to": SECOND_NOTARY, "currency": "GBP"});
    let moved = host.run(BOB, "cash/change-notary", terms).await.result();
    assert_eq!((&moved["quantity"], moved["states"].as_array().unwrap().len()), (&json!(60), 1), "{mode}");
    host.until_quiet().await;
    let states = query(&network, "Bob", &["--type", "cash/Cash"]);
    assert_eq!((states.len(), &states[0]["notary"]), (1, &json!(SECOND_NOTARY)), "{mode}");
    let change = moved["states"][0].as_str().unwrap().split(':').next().unwrap();
    let examined = verified_again(&network, change, "Bob");
    assert_eq!(examined["valid"], true, "{mode}: {examined}");
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_of_a_successor_moves_to_another_notary_when_the_succession_is_gone() {
    for mode in MODES {
        moves_though_the_succession_is_gone(mode).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_one_successor_and_is_no_successor_of_itself() {
    let network = Network::new();
    let (new, _) = of_successor(&network);
    let (old, new) = (text(&network.path("keys/developer.pem")), text(&new));
    let update = |words: &[&str]| network.cli(&[&["network", "update"][..], words].concat());
    let before = parameters_file(&network);
    update(&["--succeed", &old]).fails(4, "arguments-invalid");
    update(&["--succeed", &format!("{old}={old}")]).fails(4, "arguments-invalid");
    update(&["--unsucceed", &old]).fails(4, "arguments-invalid");
    assert_eq!(parameters_file(&network), before, "nothing is half done");
    let first = update(&["--succeed", &format!("{old}={new}")]).ok().object();
    assert_eq!((&first["epoch"], &first["changed"]), (&json!(2), &json!(true)));
    assert_eq!(update(&["--succeed", &format!("{old}={new}")]).ok().object()["changed"], false);
    // The other way round there would be a circle.
    update(&["--succeed", &format!("{new}={old}")]).fails(4, "arguments-invalid");
    // What an operator has said by mistake is taken back.
    let last = update(&["--unsucceed", &new]).ok().object();
    assert_eq!((&last["epoch"], &last["changed"]), (&json!(3), &json!(true)));
    let host = network.run();
    let shown = parameters(&network);
    assert_eq!((&shown["epoch"], shown.get("publisher_successions")), (&json!(3), None), "{shown}");
    host.stop();
}

fn parameters_file(network: &Network) -> Vec<u8> {
    std::fs::read(network.path("network/parameters")).unwrap()
}
