//! Whoever asks a notary for very much does not keep others from it.

use futures::future::join_all;
use maxhost_tests::ledger::{issue, money, payment, until_asks_notary};
use maxhost_tests::{ALICE, BOB, CAROL, Network, eventually};
use serde_json::json;

/// So many payments of one identity wait for the notary when another asks for one.
const FLOOD: i64 = 40;
/// So many flows of the notary are in memory at once.
const ROOM: i64 = 4;

/// How many requests a notary has decided before the first of this caller.
fn decided_before(network: &Network, caller: &str) -> i64 {
    let first = format!("(SELECT min(number) FROM notary_request WHERE caller = '{caller}')");
    network.sql(&format!("SELECT count(*) FROM notary_request WHERE number < {first}")).parse().unwrap()
}

async fn one_among_many(mode: &str) {
    let network = Network::new().setting(mode).limits("notary", &format!("flows = {ROOM}"));
    let host = network.run();
    join_all((0..FLOOD).map(|_| issue(&host, 10))).await;
    let end = host.run(BOB, "cash/issue", json!({"quantity": 10, "currency": "GBP"})).await;
    end.result();
    host.until_quiet().await;
    host.stop();
    // The notary is there and does nothing, so all requests are in its database before it decides the first one.
    let manifest = network.path("identities/notary.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let lacks =
        |line: &str| if line.starts_with("cordapps") { "cordapps = [\"nowhere\"]".to_owned() } else { line.to_owned() };
    let broken: Vec<String> = text.lines().map(lacks).collect();
    std::fs::write(&manifest, broken.join("\n")).unwrap();
    let host = network.run();
    let start = async |from: &str| {
        let id = host.start(from, "cash/pay", payment(CAROL, 10)).await;
        until_asks_notary(&host, &id).await;
        id
    };
    let mut flows = join_all((0..FLOOD).map(|_| start(ALICE))).await;
    flows.push(start(BOB).await);
    std::fs::write(&manifest, text).unwrap();
    for id in &flows {
        host.end(id).await.result();
    }
    eventually("the payee has it all", async || match money(&network, "Carol") {
        all if all == 10 * (FLOOD + 1) => Ok(()),
        other => Err(format!("{mode}: {other}")),
    })
    .await;
    if !maxhost_tests::is_on_server() {
        // The ledgers of a server are in schemas of their own.
        let before = decided_before(&network, BOB);
        assert!(before <= 2 * ROOM, "{mode}: {before} requests were decided before the only one of another");
    }
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_among_many_of_another_is_decided_in_its_turn() {
    one_among_many("flows.evict=after-linger").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_among_many_is_decided_in_its_turn_by_flows_that_are_put_away() {
    one_among_many("flows.evict=every-wait").await;
    one_among_many("flows.evict=random:9").await;
}
