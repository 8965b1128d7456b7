//! Sample CorDapps that show one feature of the ledger each: states that are only looked at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use maxhost_tests::{ALICE, CAROL, End, Host, Network, eventually};
use serde_json::{Value, json};

async fn issue(host: &Host, quantity: i64) {
    host.run(ALICE, "cash/issue", json!({"quantity": quantity, "currency": "GBP"})).await.result();
}

fn query(network: &Network, identity: &str, more: &[&str]) -> Vec<Value> {
    network.cli(&[&["vault", "query", "--identity", identity][..], more].concat()).ok().objects()
}

/// How much GBP an identity has.
fn money(network: &Network, identity: &str) -> i64 {
    let words = ["vault", "query", "--identity", identity, "--sum", "quantity", "--type", "cash/Cash"];
    network.cli(&words).ok().object()["sum"].as_i64().unwrap_or(0)
}

async fn until_has(network: &Network, identity: &str, quantity: i64) {
    eventually("the money arrives", async || {
        let has = money(network, identity);
        if has == quantity { Ok(()) } else { Err(format!("{identity} has {has} in place of {quantity}")) }
    })
    .await;
}

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
        // Bob has the list, which he does not keep, in the back-chain only.
        assert!(query(&network, "Bob", &["--type", "sanctions/SanctionsList"]).is_empty(), "{mode}");
        let last = query(&network, "Carol", &["--type", "sanctions/SanctionsList"]);
        assert_eq!((last.len(), &last[0]["state"]["names"]), (1, &json!([])), "{mode}");
        assert_eq!(host.until_quiet().await.flows["hospital"], 0);
        host.stop();
    }
}
