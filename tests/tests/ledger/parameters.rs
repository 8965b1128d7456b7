//! Network parameters change while a network is in use. What was agreed under former ones stays good, for those too who were
//! not there; and nobody makes up parameters of the past.

use maxhost_model::SecureHash;
use maxhost_pki::parameters::read_parameters;
use maxhost_pki::{DevNetwork, ProvenParameters, TrustRoot, devnet};
use maxhost_tests::ledger::{Away, issue, money, pay, start_paying, transactions, verified_again};
use maxhost_tests::{ALICE, BOB, CAROL, Host, NOTARY, Network, eventually};
use serde_json::{Value, json};

/// The epochs of the parameters that an identity's ledger keeps, oldest first.
fn kept(network: &Network, identity: &str) -> String {
    match maxhost_tests::is_on_server() {
        // Its ledger is in a schema of its own.
        true => String::new(),
        false => network.sql(&format!(
            "SELECT count(*) FROM network_parameters p JOIN identity i ON i.id = p.identity WHERE i.name = '{identity}'"
        )),
    }
}

fn in_force(network: &Network) -> (u64, String) {
    let shown = network.cli(&["network", "parameters"]).ok().object();
    (shown["epoch"].as_u64().unwrap(), shown["hash"].as_str().unwrap().to_owned())
}

fn update(network: &Network, words: &[&str]) -> Value {
    network.cli(&[&["network", "update"][..], words].concat()).ok().object()
}

/// Whether each transaction that an identity has is good by all that it has.
fn all_good(network: &Network, identity: &str) -> usize {
    let listed = transactions(network, identity);
    for one in &listed {
        let id = one["id"].as_str().unwrap();
        let examined = verified_again(network, id, identity);
        assert_eq!(examined["valid"], true, "{identity}: {examined}");
    }
    listed.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_agreed_under_former_parameters_stays_good() {
    let network = Network::new().setting("flows.evict=every-wait");
    let host = network.run();
    let first = in_force(&network);
    issue(&host, 1000).await;
    pay(&host, ALICE, BOB, 400).await.result();
    host.until_quiet().await;

    // They are taken while the host runs; what says nothing new changes nothing.
    let next = update(&network, &["--max-transaction-size", "5000000"]);
    assert_eq!((&next["epoch"], &next["changed"]), (&json!(2), &json!(true)), "{next}");
    let second = in_force(&network);
    assert_eq!((second.0, second.1.as_str()), (2, next["hash"].as_str().unwrap()));
    assert_ne!(second.1, first.1);
    assert_eq!(update(&network, &["--max-transaction-size", "5000000"])["changed"], false);

    // Carol was not there. She has what she gets from Bob, who has it of his own.
    assert_eq!(kept(&network, CAROL).replace('0', ""), "");
    pay(&host, BOB, CAROL, 300).await.result();
    host.until_quiet().await;
    assert_eq!((money(&network, "Bob"), money(&network, "Carol")), (100, 300));
    assert_eq!(all_good(&network, "Carol"), 3);
    if !maxhost_tests::is_on_server() {
        assert_eq!((kept(&network, BOB), kept(&network, CAROL)), ("2".to_owned(), "2".to_owned()));
    }
    host.stop();

    // All of that is in the database, and former parameters are in no folder.
    let host = network.run();
    assert_eq!(in_force(&network), second);
    pay(&host, CAROL, ALICE, 300).await.result();
    host.until_quiet().await;
    assert_eq!((money(&network, "Alice"), money(&network, "Carol")), (900, 0));
    assert_eq!(all_good(&network, "Alice"), 4);

    // A notary that is taken off the list does not notarise what is built now, and what it has notarised stays good.
    let listed = network.cli(&["network", "update", "--remove-notary", "O=Nobody, L=Oslo, C=NO"]);
    listed.fails(3, "party-not-found");
    let last = update(&network, &["--remove-notary", NOTARY]);
    assert_eq!((&last["epoch"], &last["notaries"]), (&json!(3), &json!([])));
    assert!(pay(&host, ALICE, BOB, 1).await.failure().exception.is_some());
    host.until_quiet().await;
    assert_eq!((money(&network, "Alice"), all_good(&network, "Carol")), (900, 4));
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

/// It was built when the notary was on the list, and that counts: who asks the notary again does not look whether it still is.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_with_a_notary_that_leaves_the_list_is_settled() {
    let network = Network::new();
    let host = network.run();
    issue(&host, 100).await;
    // The notary's ledger keeps the parameters from here on.
    pay(&host, ALICE, BOB, 10).await.result();
    host.until_quiet().await;
    host.stop();
    // Nobody runs the notary for a while.
    let notary = Away::notary(&network);
    let host = network.run();
    let id = start_paying(&host, BOB, 40).await;
    assert_eq!(update(&network, &["--remove-notary", NOTARY])["notaries"], json!([]));
    assert!(host.kill(&id).await);
    host.end(&id).await;
    notary.comes_back();
    eventually("both have settled it", async || {
        let both = (money(&network, "Alice"), money(&network, "Bob"));
        if both == (50, 50) { Ok(()) } else { Err(format!("{both:?}")) }
    })
    .await;
    host.until_quiet().await;
    assert_eq!((all_good(&network, "Alice"), all_good(&network, "Bob")), (3, 3));
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

/// The notary sees a transaction for the first time, and for the first time any of its parameters, when the network has changed them
/// twice: it gets them from whoever asks. So does whoever gets the money afterwards.
async fn asked_after_two_updates(mode: &str, validating: bool) {
    let network = Network::with_two_notaries(validating).setting(mode);
    // Nobody runs the notary for a while.
    let notary = Away::notary(&network);
    let host = network.run();
    issue(&host, 100).await;
    let id = start_paying(&host, BOB, 40).await;
    for size in ["5000000", "6000000"] {
        update(&network, &["--max-transaction-size", size]);
    }
    assert_eq!(in_force(&network).0, 3);
    notary.comes_back();
    host.end(&id).await.result();
    host.until_quiet().await;
    assert_eq!((money(&network, "Alice"), money(&network, "Bob")), (60, 40), "{mode}");
    pay(&host, BOB, CAROL, 30).await.result();
    host.until_quiet().await;
    assert_eq!(all_good(&network, "Carol"), 3, "{mode}");
    if !maxhost_tests::is_on_server() {
        // Those of the first payment and those of the second; not those between.
        assert_eq!((kept(&network, NOTARY), kept(&network, CAROL)), ("2".to_owned(), "2".to_owned()), "{mode}");
    }
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notary_asks_for_parameters_that_it_does_not_know() {
    asked_after_two_updates("flows.evict=never", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notary_asks_for_parameters_that_it_does_not_know_from_flows_that_are_put_away() {
    asked_after_two_updates("flows.evict=every-wait", false).await;
    asked_after_two_updates("flows.evict=random:5", true).await;
}

/// Sends Bob a transaction under parameters that he does not know, with something for them; gives the code of his refusal.
async fn refusal(host: &Host, hash: &SecureHash, given: &[u8], bytes: Option<u64>) -> String {
    let asked = json!({"peer": "Bob", "hash": hash.to_string(), "given": given, "bytes": bytes});
    let end = host.run(ALICE, "hostile/bad-parameters", asked).await;
    end.result()["refused"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_makes_up_parameters_of_the_past() {
    let network = Network::new();
    let folder = network.path("network");
    let trust = TrustRoot::from_pem_file(&folder.join("root.pem")).unwrap();
    let former = read_parameters(&folder, &trust, std::time::SystemTime::now()).unwrap();
    update(&network, &["--max-transaction-size", "5000000"]);
    let host = network.run();

    // Another operator's, for another network; the operator's own, with a byte changed; and such as the former ones are not.
    let other = tempfile::tempdir().unwrap();
    let mut made = DevNetwork::create(other.path(), &devnet::Options::default()).unwrap();
    made.set_notaries(&[]).unwrap();
    let foreign = read_parameters(&other.path().join("network"), made.trust_root(), std::time::SystemTime::now());
    let foreign: ProvenParameters = foreign.unwrap();
    let altered = |at: usize| {
        let mut bytes = former.proof().to_vec();
        let place = bytes.len() * at / 10;
        bytes[place] ^= 1;
        bytes
    };
    let (hash, unknown) = (former.hash(), SecureHash::of(b"parameters that never were"));
    assert_eq!(refusal(&host, &foreign.hash(), foreign.proof(), None).await, "parameters-untrusted");
    for at in 0..10 {
        assert_eq!(refusal(&host, &hash, &altered(at), None).await, "parameters-untrusted", "{at}");
    }
    assert_eq!(refusal(&host, &hash, b"\xa0", None).await, "parameters-untrusted");
    assert_eq!(refusal(&host, &unknown, former.proof(), None).await, "parameters-tampered");
    assert_eq!(refusal(&host, &unknown, b"", None).await, "parameters-unknown");
    assert_eq!(refusal(&host, &unknown, b"", Some(1 << 20)).await, "transaction-too-large");
    assert_eq!(refusal(&host, &unknown, b"", Some(5)).await, "protocol");
    host.until_quiet().await;
    for identity in ["Alice", "Bob"] {
        for what in [&["ledger", "list"][..], &["vault", "query", "--status", "all"]] {
            let found = network.cli(&[what, &["--identity", identity]].concat()).ok().objects();
            assert!(found.is_empty(), "{identity}: {found:?}");
        }
        assert_eq!(kept(&network, identity).replace('0', ""), "");
    }

    // What the operator has signed is believed whoever gives it; the transaction is refused for what it says itself.
    assert_eq!(refusal(&host, &hash, former.proof(), None).await, "contract-rejected");
    host.until_quiet().await;
    assert!(transactions(&network, "Bob").is_empty());
    if !maxhost_tests::is_on_server() {
        assert_eq!(kept(&network, BOB), "1");
    }
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

/// What lies in the network folder is taken only if it may take the place of what is in force.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_host_takes_later_parameters_of_its_operator_only() {
    let network = Network::new();
    let host = network.run();
    let file = network.path("network/parameters");
    let first = (in_force(&network), std::fs::read(&file).unwrap());
    let put = |bytes: &[u8]| {
        let staged = network.path("network/.staged");
        std::fs::write(&staged, bytes).unwrap();
        std::fs::rename(&staged, &file).unwrap();
    };
    let refused = async |words: &[&str]| {
        eventually("the host says that it does not take them", async || match network.log_lines(words).is_empty() {
            true => Err("nothing in the log".to_owned()),
            false => Ok(()),
        })
        .await;
    };
    let mut spoilt = first.1.clone();
    let last = spoilt.len() - 1;
    spoilt[last] ^= 1;
    put(&spoilt);
    refused(&["network-invalid", "those in force stay", "signature"]).await;
    assert_eq!(in_force(&network), first.0);
    put(&first.1);

    assert_eq!(update(&network, &["--max-transaction-size", "5000000"])["epoch"], 2);
    let second = in_force(&network);
    put(&first.1);
    refused(&["network-invalid", "those in force stay", "epoch 1"]).await;
    assert_eq!(in_force(&network), second);

    // The largest message waits for a start. What the folder had last is the former epoch, so this is its next one.
    let next = update(&network, &["--max-message-size", "5000000", "--max-transaction-size", "4000000"]);
    assert_eq!((&next["epoch"], &next["max_message_size"]), (&json!(2), &json!(5_000_000)));
    let third = update(&network, &["--max-message-size", "6000000"]);
    refused(&["network-invalid", "those in force stay", "largest message"]).await;
    assert_eq!(in_force(&network), second);
    host.stop();
    let host = network.run();
    assert_eq!(in_force(&network), (3, third["hash"].as_str().unwrap().to_owned()));
    host.stop();
}
