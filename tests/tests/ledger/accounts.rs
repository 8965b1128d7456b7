//! Keys that are made for an external id, such as a customer's account: which keys an account has, which account a key, what is
//! under them, and that no crash loses any of it.

use maxhost_tests::ledger::{issue, query};
use maxhost_tests::{ALICE, BOB, CAROL, Host, Network, eventually};
use serde_json::{Value, json};

async fn assign(host: &Host, account: &str, quantity: i64) {
    let arguments = json!({"account": account, "quantity": quantity, "currency": "GBP"});
    host.run(ALICE, "cash/assign", arguments).await.result();
}

fn payment(to: &str, account: Option<&str>, quantity: i64) -> Value {
    json!({"to": to, "account": account, "quantity": quantity, "currency": "GBP"})
}

/// What an account has, as a flow of its identity is told.
async fn account(host: &Host, identity: &str, account: &str) -> Value {
    host.run(identity, "cash/account", json!({ "account": account })).await.result()
}

/// The amounts under keys of these accounts, in order.
fn amounts(network: &Network, identity: &str, accounts: &[&str]) -> Vec<i64> {
    let options: Vec<&str> = accounts.iter().flat_map(|account| ["--key-external-id", account]).collect();
    let states = query(network, identity, &options);
    let mut amounts: Vec<i64> = states.iter().filter_map(|state| state["state"]["quantity"].as_i64()).collect();
    amounts.sort_unstable();
    amounts
}

async fn until_has(network: &Network, identity: &str, accounts: &[&str], expected: &[i64]) {
    eventually("the money is in the accounts", async || {
        let found = amounts(network, identity, accounts);
        if found == expected { Ok(()) } else { Err(format!("{identity}: {found:?} in {accounts:?}")) }
    })
    .await;
}

async fn money_in_accounts(mode: &str) {
    let network = Network::new().setting(mode);
    let host = network.run();
    issue(&host, 1000).await;
    assign(&host, "one", 100).await;
    // A payer names the account, and the payee makes the key for it. The next payment is to another key.
    for quantity in [30, 20] {
        host.run(ALICE, "cash/pay", payment("Bob", Some("it's Bob's"), quantity)).await.result();
    }
    host.run(ALICE, "cash/pay", payment("Bob", None, 10)).await.result();
    until_has(&network, "Bob", &["it's Bob's"], &[20, 30]).await;
    host.until_quiet().await;
    let held = |keys: u64, states: u64, quantity: u64| json!({"keys": keys, "confirmed": keys, "states": states, "quantity": quantity});
    assert_eq!(account(&host, BOB, "it's Bob's").await, held(2, 2, 50), "{mode}");
    assert_eq!(account(&host, BOB, "another").await, held(0, 0, 0), "{mode}");
    // The account is the payee's own affair.
    assert_eq!(account(&host, ALICE, "it's Bob's").await, held(0, 0, 0), "{mode}");
    let shown = query(&network, "Bob", &["--key-external-id", "it's Bob's"]);
    assert!(shown.iter().all(|state| state["key_external_ids"] == json!(["it's Bob's"])), "{mode}: {shown:?}");
    assert!(shown.iter().all(|state| state["relevant"] == true && state["participants"] == json!([BOB])), "{shown:?}");
    let named = query(&network, "Bob", &["--where", "quantity = 10"]);
    assert_eq!((named.len(), &named[0]["key_external_ids"]), (1, &Value::Null), "{mode}");
    host.kill_9();

    let host = network.run();
    assert_eq!(account(&host, BOB, "it's Bob's").await, held(2, 2, 50), "{mode}");
    // What is under a key of an account is the customer's: a payment of Bob's own has the 10 that are his.
    for arguments in [payment("Carol", None, 11), payment("Carol", Some("safe"), 60)] {
        let failure = host.run(BOB, "cash/pay", arguments).await.failure();
        assert_eq!(failure.exception.as_deref(), Some("cash/insufficient"), "{mode}: {failure:?}");
    }
    let assigned = json!({"account": "another", "quantity": 11, "currency": "GBP"});
    let failure = host.run(BOB, "cash/assign", assigned).await.failure();
    assert_eq!(failure.exception.as_deref(), Some("cash/insufficient"), "{mode}: {failure:?}");
    assert_eq!(account(&host, BOB, "it's Bob's").await, held(2, 2, 50), "{mode}");
    // A payment from the account has that, and no more; what is left is the account's, and what is spent is it no more.
    let from = |quantity: i64, to: Option<&str>| {
        let mut arguments = payment("Carol", to, quantity);
        arguments["from_account"] = json!("it's Bob's");
        arguments
    };
    let failure = host.run(BOB, "cash/pay", from(51, None)).await.failure();
    assert_eq!(failure.exception.as_deref(), Some("cash/insufficient"), "{mode}: {failure:?}");
    host.run(BOB, "cash/pay", from(35, Some("safe"))).await.result();
    until_has(&network, "Carol", &["safe"], &[35]).await;
    until_has(&network, "Bob", &["it's Bob's"], &[15]).await;
    host.until_quiet().await;
    assert_eq!(account(&host, BOB, "it's Bob's").await, held(3, 1, 15), "{mode}: what is left has a new key");
    host.run(BOB, "cash/pay", from(5, None)).await.result();
    until_has(&network, "Bob", &["it's Bob's"], &[10]).await;
    host.run(BOB, "cash/pay", from(10, Some("safe"))).await.result();
    until_has(&network, "Carol", &["safe"], &[10, 35]).await;
    until_has(&network, "Bob", &["it's Bob's"], &[]).await;
    assert_eq!(account(&host, BOB, "it's Bob's").await, held(3, 0, 0), "{mode}: its keys stay");
    let consumed = query(&network, "Bob", &["--key-external-id", "it's Bob's", "--status", "consumed"]);
    assert_eq!(consumed.len(), 4, "{mode}");
    assert_eq!(account(&host, CAROL, "safe").await["quantity"], 45, "{mode}");
    // Bob's own money was there all the time, and is spent by a payment of his own.
    host.run(BOB, "cash/pay", payment("Carol", None, 10)).await.result();
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_have_keys_and_what_is_under_them_however_flows_are_put_away() {
    for mode in ["flows.evict=never", "flows.evict=every-wait", "flows.evict=random:3"] {
        money_in_accounts(mode).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn states_are_found_by_one_of_several_accounts_each_once() {
    let network = Network::new();
    let host = network.run();
    issue(&host, 1000).await;
    for (name, quantity) in [("one", 100), ("two", 200)] {
        assign(&host, name, quantity).await;
    }
    host.until_quiet().await;
    // The second assignment has left alone what the first one had assigned.
    let all: i64 = query(&network, "Alice", &[]).iter().filter_map(|state| state["state"]["quantity"].as_i64()).sum();
    assert_eq!(all, 1000);
    assert_eq!(amounts(&network, "Alice", &["two"]), [200]);
    let (one, both) = (amounts(&network, "Alice", &["one"]), amounts(&network, "Alice", &["one", "two"]));
    assert_eq!(one, [100]);
    assert_eq!(both.len(), one.len() + 1, "each once: {both:?}");
    let counted = |condition: &str| {
        let answer = network.cli(&["vault", "query", "--identity", "Alice", "--where", condition, "--count"]);
        answer.ok().object()["count"].as_u64().unwrap()
    };
    let name = "\"@key_external_id\"";
    assert_eq!(counted(&format!("{name} in ('one', 'two')")), both.len() as u64);
    assert_eq!(counted(&format!("{name} = 'two' and {name} = 'two'")), 1);
    assert_eq!(counted(&format!("{name} = 'two' and {name} = 'one'")), 0);
    assert_eq!(counted(&format!("{name} = 'nobody'")), 0);
    let others = counted(&format!("not {name} in ('one', 'two')"));
    assert_eq!(others + both.len() as u64, counted("true = true"));
    // Pages of one state have each state once, in any order.
    for sort in [&[][..], &["--sort", "quantity:desc"]] {
        let which = ["--key-external-id", "one", "--key-external-id", "two", "--limit", "1"];
        let (mut cursor, mut seen) = (None::<String>, Vec::new());
        loop {
            let behind: Vec<&str> = cursor.as_deref().map_or_else(Vec::new, |cursor| vec!["--cursor", cursor]);
            let mut page = query(&network, "Alice", &[&which[..], sort, &behind].concat());
            cursor = page.last().and_then(|last| Some(last["cursor"].as_str()?.to_owned()));
            page.retain(|one| one["cursor"].is_null());
            seen.extend(page.iter().map(|one| one["ref"].as_str().unwrap().to_owned()));
            if cursor.is_none() {
                break;
            }
        }
        let found = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!((found, seen.len()), (both.len(), both.len()), "{sort:?}");
    }
    assert_eq!(counted(&format!("{name} is null")), others, "what is Alice's own");
    assert_eq!(counted(&format!("{name} is not null")), both.len() as u64);
    for wrong in ["< 'one'", "= 1", "like 'o%'"] {
        let condition = format!("{name} {wrong}");
        let error = network.cli(&["vault", "query", "--identity", "Alice", "--where", &condition]);
        error.fails(4, "query-invalid");
    }
    network.cli(&["vault", "query", "--identity", "Alice", "--key-external-id", ""]).fails(4, "query-invalid");
    host.stop();
}

/// However many customers there are, and whatever they have: what the identity has itself is found, and nothing else is spent.
#[tokio::test(flavor = "multi_thread")]
async fn money_of_customers_is_neither_paid_with_nor_taken_back() {
    let network = Network::new();
    let host = network.run();
    // Alice owes what her customers have: to take it back would be to keep it.
    issue(&host, 1000).await;
    for number in 0..9 {
        assign(&host, &format!("customer-{number}"), 110).await;
    }
    host.until_quiet().await;
    let exit = |quantity: i64| json!({"quantity": quantity, "currency": "GBP"});
    let failure = host.run(ALICE, "cash/exit", exit(11)).await.failure();
    assert_eq!(failure.exception.as_deref(), Some("cash/insufficient"), "{failure:?}");
    host.run(ALICE, "cash/exit", exit(3)).await.result();
    let failure = host.run(ALICE, "cash/pay", payment("Bob", None, 8)).await.failure();
    assert_eq!(failure.exception.as_deref(), Some("cash/insufficient"), "{failure:?}");
    // As often as one likes: the selection takes whatever it meets first, and it is among a hundred times as much.
    for _ in 0..7 {
        host.run(ALICE, "cash/pay", payment("Bob", None, 1)).await.result();
    }
    host.until_quiet().await;
    for number in 0..9 {
        assert_eq!(account(&host, ALICE, &format!("customer-{number}")).await["quantity"], 110, "{number}");
    }
    assert!(query(&network, "Alice", &["--where", "\"@key_external_id\" is null"]).is_empty());
    assert_eq!(network.cli(&["vault", "locks", "--identity", "Alice"]).ok().objects(), Vec::<Value>::new());
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_id_that_no_key_can_have_makes_no_key() {
    let network = Network::new();
    let host = network.run();
    issue(&host, 100).await;
    let longest = "x".repeat(512);
    assign(&host, &longest, 10).await;
    assert_eq!(account(&host, ALICE, &longest).await["quantity"], 10, "at the bound");
    for wrong in [String::new(), "x".repeat(513), "no\0thing".to_owned()] {
        let arguments = json!({"account": wrong, "quantity": 1, "currency": "GBP"});
        let failed = host.run(ALICE, "cash/assign", arguments).await;
        assert_eq!(failed.failure().kind, "illegal-argument", "{} bytes", wrong.len());
        let failed = host.run(ALICE, "cash/pay", payment("Bob", Some(&wrong), 1)).await;
        assert_eq!(failed.failure().kind, "illegal-argument", "{} bytes", wrong.len());
    }
    host.until_quiet().await;
    assert_eq!(network.cli(&["vault", "locks", "--identity", "Alice"]).ok().objects(), Vec::<Value>::new());
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_another_account_than_is_given_gets_no_key() {
    for mode in ["flows.evict=never", "flows.evict=every-wait", "flows.evict=random:3"] {
        let network = Network::new().setting(mode);
        let host = network.run();
        for of_another in [false, true] {
            let asked = json!({"peer": "Bob", "of_another": of_another});
            let failure = host.run(ALICE, "hostile/ask-for-account", asked).await.failure();
            assert_eq!(failure.exception.as_deref(), Some("ledger/protocol"), "{mode}: {failure:?}");
            assert!(!failure.message.contains("of-nobody"), "nobody else is told for what keys are: {failure:?}");
        }
        for name in ["of-somebody", "of-nobody"] {
            assert_eq!(account(&host, BOB, name).await["keys"], 0, "{mode}");
        }
        host.stop();
    }
}
