//! Cash between Alice and Bob over a notary: issuing, paying and taking back, what vaults and ledgers show of it, and that
//! no crash makes or loses money.

use futures::future::join_all;
use maxhost_model::Code;
use maxhost_rpc::proto::v1 as pb;
use maxhost_tests::ledger::{
    Away, issue, locks, money, notary_status, pay, payment, query, schema, show, signers, start_paying, transactions,
    tx, unsettled, verified_again,
};
use maxhost_tests::{ALICE, BOB, CAROL, End, Host, MODES, NOTARY, Network, cli, eventually};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn cash_is_issued_paid_and_taken_back_however_flows_are_put_away() {
    for mode in MODES {
        let network = Network::new().setting(mode);
        let host = network.run();
        let issued = issue(&host, 1000).await;
        let paid = tx(&pay(&host, ALICE, "Bob", 400).await);
        host.until_quiet().await;
        assert_eq!((money(&network, "Alice"), money(&network, "Bob")), (600, 400), "{mode}");
        let states = query(&network, "Bob", &[]);
        assert_eq!(states.len(), 1, "{states:?}");
        let state = &states[0];
        assert_eq!(
            (&state["type"], &state["status"], &state["relevant"]),
            (&json!("cash/Cash"), &json!("unconsumed"), &json!(true))
        );
        assert_eq!((&state["state"]["quantity"], &state["state"]["currency"]), (&json!(400), &json!("GBP")));
        assert_eq!(state["lock"], Value::Null);
        // Whoever gets money has all that it comes from.
        let ids = |identity: &str| -> Vec<String> {
            let listed = transactions(&network, identity);
            listed.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
        };
        let (mut of_bob, mut both) = (ids("Bob"), vec![issued.clone(), paid.clone()]);
        of_bob.sort();
        both.sort();
        assert_eq!(of_bob, both);
        let shown = show(&network, &paid, "Bob");
        assert_eq!((&shown["status"], shown["inputs"].as_array().unwrap().len()), (&json!("verified"), 1));
        let by = signers(&shown);
        assert!(by.contains(&json!(ALICE)) && by.contains(&json!(NOTARY)), "{by:?}");
        let graph = network.cli(&["ledger", "graph", &paid, "--identity", "Bob"]).ok().objects();
        assert_eq!(graph.iter().map(|node| node["depth"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1]);
        for (limit, is_cut) in [("1", true), ("2", false)] {
            let mut command = cli::command(&["ledger", "graph", &paid, "--identity", "Bob", "--limit", limit]);
            command.env("MAXHOST_CONFIG", network.path("maxhost.toml"));
            let told = cli::answer(command, None).ok();
            assert_eq!(told.err.contains("there are more"), is_cut, "{told}");
        }
        let exit = host.run(ALICE, "cash/exit", json!({"quantity": 100, "currency": "GBP"})).await;
        exit.result();
        host.until_quiet().await;
        assert_eq!((money(&network, "Alice"), money(&network, "Bob")), (500, 400));
        let status = notary_status(&network, "Notary");
        assert_eq!((&status["committed"], &status["conflicts"]), (&json!(2), &json!(0)), "an issue needs no notary");
        assert_eq!(host.until_quiet().await.flows["hospital"], 0);
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_paid_is_refused_and_leaves_no_trace() {
    let network = Network::new();
    let host = network.run();
    issue(&host, 100).await;
    pay(&host, ALICE, BOB, 40).await.result();
    let kind = |end: End| end.failure().exception.unwrap_or_default();
    assert_eq!(kind(pay(&host, ALICE, BOB, 61).await), "cash/insufficient");
    assert_eq!(kind(pay(&host, ALICE, ALICE, 1).await), "cash/to-oneself");
    for quantity in [0, -5] {
        assert_eq!(kind(pay(&host, ALICE, BOB, quantity).await), "cash/quantity-invalid");
    }
    let exit = host.run(BOB, "cash/exit", json!({"quantity": 10, "currency": "GBP"})).await;
    assert_eq!(kind(exit), "cash/not-issuer");
    let bad = host.run(ALICE, "cash/issue", json!({"quantity": 10, "currency": "pounds"})).await;
    assert_eq!(kind(bad), "ledger/rejected");
    host.until_quiet().await;
    assert_eq!((money(&network, "Alice"), money(&network, "Bob")), (60, 40));
    assert_eq!(transactions(&network, "Alice").len(), 2);
    assert!(locks(&network, "Alice").is_empty());
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn words_that_no_database_can_hold_are_refused_where_they_come_in() {
    let network = Network::new();
    let host = network.run();
    issue(&host, 100).await;
    let look_for = |wanted: Value| host.run(ALICE, "hostile/look-for", wanted);
    let (nul, long) = ("GB\0P", "x".repeat(4096));
    for wanted in [
        json!({"state_type": "cash/Cash", "token": nul}),
        json!({"state_type": "cash/Cash", "token": long}),
        json!({"state_type": "cash/Ca\0sh", "token": "GBP"}),
        json!({"state_type": "Cash", "token": "GBP"}),
    ] {
        assert_eq!(look_for(wanted.clone()).await.failure().kind, "illegal-argument", "{wanted}");
    }
    for wanted in [
        json!({"state_type": "cash/Ca\0sh"}),
        json!({"state_type": format!("cash/{long}")}),
        json!({"state_type": "cash/Cash", "where": format!("notary = '{nul}'")}),
        json!({"state_type": "cash/Cash", "where": format!("currency like '{nul}%'")}),
        json!({"state_type": "cash/Cash", "sort": format!("\"{nul}\"")}),
    ] {
        assert_eq!(look_for(wanted.clone()).await.failure().exception.as_deref(), Some("ledger/rejected"), "{wanted}");
    }
    let asked = |filter: &str, types: &[&str]| pb::VaultQueryRequest {
        identity: "Alice".to_owned(),
        types: types.iter().map(|name| (*name).to_owned()).collect(),
        r#where: Some(filter.to_owned()),
        ..pb::VaultQueryRequest::default()
    };
    for request in [asked(&format!("notary = '{nul}'"), &[]), asked("quantity > 0", &["cash/Ca\0sh"])] {
        let refused = host.client().query(request.clone()).await.unwrap_err();
        assert_eq!(refused.code, Code::QueryInvalid, "{request:?}: {refused}");
    }
    // Nothing has come of it: nobody is in hospital, and what can be asked for is found.
    for (wanted, found) in [
        (json!({"state_type": "cash/Cash", "token": "GBP"}), 1),
        (json!({"state_type": "cash/Cash", "where": "currency = 'GBP'", "sort": "notary"}), 1),
    ] {
        assert_eq!(look_for(wanted).await.result(), json!(found));
    }
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_are_answered_without_waking_anybody() {
    let network = Network::new().setting("flows.idle_close=1 s");
    let host = network.run();
    for quantity in 1..=5 {
        issue(&host, quantity * 10).await;
    }
    host.until_identity("Alice", maxhost_rpc::proto::v1::IdentityState::Cold).await;
    let quantities = |states: &[Value]| -> Vec<i64> {
        states.iter().filter_map(|state| state["state"]["quantity"].as_i64()).collect()
    };
    let found = query(
        &network,
        "Alice",
        &["--where", "quantity >= 20 and quantity < 50 and owner like 'O=Al%'", "--sort", "quantity:desc"],
    );
    assert_eq!(quantities(&found), [40, 30, 20]);
    let page = query(&network, "Alice", &["--sort", "quantity", "--limit", "2"]);
    assert_eq!(quantities(&page), [10, 20]);
    let cursor = page.last().unwrap()["cursor"].as_str().unwrap().to_owned();
    assert_eq!(quantities(&query(&network, "Alice", &["--cursor", &cursor])), [30, 40]);
    // What is said again beside a cursor is the same, but for the size of the page.
    assert_eq!(
        quantities(&query(&network, "Alice", &["--cursor", &cursor, "--sort", "quantity", "--limit", "1"])),
        [30]
    );
    for other in
        [["--sort", "quantity:desc"], ["--where", "quantity > 1"], ["--type", "cash/Cash"], ["--status", "consumed"]]
    {
        let words = [&["vault", "query", "--identity", "Alice", "--cursor", &cursor][..], &other].concat();
        network.cli(&words).fails(4, "cursor-invalid");
    }
    network.cli(&["vault", "query", "--identity", "Bob", "--cursor", &cursor]).fails(4, "cursor-invalid");
    for never in ["--cursor=-1", "--cursor=1000000000", "--cursor=nonsense"] {
        let refused = network.cli(&["vault", "track", "--identity", "Alice", never]).fails(4, "cursor-invalid");
        assert!(!refused["remedy"].as_str().unwrap().contains("flow"), "{refused}");
    }
    // What goes on by itself ends when the time is over that it was given.
    for endless in [
        &["vault", "track", "--identity", "Alice"][..],
        &["identity", "where", "Alice", "--watch"],
        &["cluster", "status", "--watch"],
    ] {
        let ended = network.cli(&[endless, &["--timeout", "1s"]].concat());
        assert_eq!(ended.exit, 5, "{ended}");
        assert!(!ended.error()["remedy"].as_str().unwrap().is_empty(), "{ended}");
    }
    let count = network.cli(&["vault", "query", "--identity", "Alice", "--count"]).ok().object();
    assert_eq!(count["count"], 5);
    let sums = query(&network, "Alice", &["--sum", "quantity", "--by", "currency"]);
    assert_eq!(sums, [json!({"currency": "GBP", "sum": 150, "count": 5})]);
    let wrong = network.cli(&["vault", "query", "--identity", "Alice", "--where", "quantity > > 1"]);
    assert_eq!(wrong.fails(4, "query-invalid")["details"]["position"], 11);
    // An id may carry the name of its algorithm.
    let known = network.cli(&["ledger", "list", "--identity", "Alice"]).ok().objects()[0]["id"].clone();
    let named = format!("SHA-256:{}", known.as_str().unwrap());
    assert_eq!(network.cli(&["ledger", "show", &named, "--identity", "Alice"]).ok().object()["id"], known);
    for unknown in ["ab".repeat(32), format!("BLAKE2:{}", known.as_str().unwrap())] {
        let unknown = network.cli(&["ledger", "show", &unknown, "--identity", "Alice"]);
        unknown.fails(3, "transaction-not-found");
    }
    network.cli(&["notary", "status", "--identity", "Alice"]).fails(3, "notary-not-here");
    let identity = host.identity("Alice").await.unwrap();
    assert_eq!(identity.state(), maxhost_rpc::proto::v1::IdentityState::Cold);
    // Nobody runs who sleeps, also on a host that is alone.
    let found = network.cli(&["identity", "where", "Alice"]).ok().object();
    assert_eq!((&found["state"], &found["host"], &found["epoch"]), (&json!("cold"), &Value::Null, &Value::Null));
    let status = network.cli(&["cluster", "status"]).ok().object();
    assert!(status["identities"]["asleep"].as_u64() >= Some(1), "{status}");
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_at_once_share_the_money_without_a_false_refusal() {
    let network = Network::new();
    let host = network.run();
    join_all((0..12).map(|_| issue(&host, 50))).await;
    let ends = join_all((0..12).map(|number| pay(&host, ALICE, if number % 2 == 0 { BOB } else { CAROL }, 50))).await;
    ends.iter().for_each(|end| drop(end.result()));
    host.until_quiet().await;
    assert_eq!((money(&network, "Alice"), money(&network, "Bob"), money(&network, "Carol")), (0, 300, 300));
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notary_that_validates_verifies_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("network");
    let cordapps = maxhost_tests::cli::cordapps();
    let words = ["init", folder.to_str().unwrap(), "--validating", "--cordapps", cordapps.to_str().unwrap()];
    Network::new().begin(&folder);
    drop(maxhost_tests::cli::run(&words).ok());
    let mut command = maxhost_tests::cli::command(&["run", "--json", "--config"]);
    command.arg(folder.join("maxhost.toml"));
    let host = Host::up(command, &folder);
    issue(&host, 100).await;
    pay(&host, ALICE, BOB, 30).await.result();
    // The payee records a moment after the payer.
    host.until_quiet().await;
    pay(&host, BOB, CAROL, 10).await.result();
    let mut status = maxhost_tests::cli::command(&["notary", "status", "--identity", "Notary", "--json", "--config"]);
    status.arg(folder.join("maxhost.toml"));
    let status = maxhost_tests::cli::answer(status, None).ok().object();
    assert_eq!((&status["validating"], &status["committed"]), (&json!(true), &json!(2)));
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_crash_makes_or_loses_money() {
    let network = Network::new();
    let host = network.run();
    join_all((0..10).map(|_| issue(&host, 100))).await;
    host.kill_9();
    for (round, middle) in (0..).zip([40, 80, 120]) {
        let host = network.run();
        let pays = (0..10).map(|number| {
            let (from, to) = if (number + round) % 3 == 0 { (BOB, ALICE) } else { (ALICE, BOB) };
            let arguments = payment(to, 7 + number);
            async { host.start(from, "cash/pay", arguments).await }
        });
        join_all(pays).await;
        // In the middle of whatever they do.
        tokio::time::sleep(std::time::Duration::from_millis(middle)).await;
        host.kill_9();
    }
    let host = network.run();
    host.until_quiet().await;
    eventually("money is where it was", async || {
        let (alice, bob) = (money(&network, "Alice"), money(&network, "Bob"));
        if alice + bob == 1000 { Ok(()) } else { Err(format!("Alice has {alice}, Bob has {bob}")) }
    })
    .await;
    for identity in ["Alice", "Bob"] {
        assert_eq!(unsettled(&network, identity), Vec::<Value>::new(), "{identity}");
        assert!(locks(&network, identity).is_empty());
    }
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asset_is_sold_for_cash_in_one_transaction() {
    for mode in MODES {
        let network = Network::new().setting(mode);
        let host = network.run();
        issue(&host, 1000).await;
        pay(&host, ALICE, BOB, 500).await.result();
        host.run(ALICE, "trade/issue", json!({"asset": "bond-1"})).await.result();
        let terms = |price: i64| json!({"buyer": "Bob", "asset": "bond-1", "price": price, "currency": "GBP"});
        let refused = host.run(ALICE, "trade/sell", terms(501)).await;
        assert_eq!(refused.failure().exception.as_deref(), Some("cash/insufficient"), "{mode}");
        let sold = host.run(ALICE, "trade/sell", terms(300)).await.result()["tx"].as_str().unwrap().to_owned();
        host.until_quiet().await;
        assert_eq!((money(&network, "Alice"), money(&network, "Bob")), (800, 200), "{mode}");
        let assets = |identity: &str| query(&network, identity, &["--type", "trade/Asset"]).len();
        eventually("the asset changes hands", async || {
            if (assets("Alice"), assets("Bob")) == (0, 1) { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        let shown = show(&network, &sold, "Alice");
        assert_eq!(
            (&shown["status"], shown["signatures"].as_array().unwrap().len()),
            (&json!("verified"), 3),
            "{mode}"
        );
        assert!(unsettled(&network, "Alice").is_empty() && unsettled(&network, "Bob").is_empty());
        assert_eq!(host.until_quiet().await.flows["hospital"], 0);
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debt_is_issued_and_settled_with_cash() {
    let network = Network::new();
    let host = network.run();
    issue(&host, 100).await;
    pay(&host, ALICE, BOB, 60).await.result();
    let terms = json!({"lender": ALICE, "quantity": 50, "currency": "GBP", "due": null});
    let issued = host.run(BOB, "iou/issue", terms).await.result();
    let id = issued["id"].as_str().unwrap();
    let settle = |quantity: i64| json!({"id": id, "quantity": quantity});
    host.run(BOB, "iou/settle", settle(20)).await.result();
    let owed = query(&network, "Alice", &["--type", "iou/Iou"]);
    assert_eq!((owed.len(), &owed[0]["state"]["paid"]), (1, &json!(20)));
    assert_eq!(host.run(BOB, "iou/settle", settle(31)).await.state, "failed", "more than is owed");
    host.run(BOB, "iou/settle", settle(30)).await.result();
    assert!(query(&network, "Bob", &["--type", "iou/Iou"]).is_empty(), "settled in full, nothing takes its place");
    host.until_quiet().await;
    assert_eq!((money(&network, "Alice"), money(&network, "Bob")), (90, 10));
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_money_is_not_spent_twice() {
    let network = Network::new();
    let host = network.run();
    issue(&host, 100).await;
    let both = json!({"to": [BOB, CAROL], "quantity": 100, "currency": "GBP"});
    let ended = host.run(ALICE, "hostile/double-spend", both).await.result();
    assert_eq!(ended["second"], json!({"kind": "flow-exception", "exception": "notary/conflict"}));
    host.until_quiet().await;
    assert_eq!((money(&network, "Alice"), money(&network, "Bob"), money(&network, "Carol")), (0, 100, 0));
    // Carol does not take Alice's word for it, and asks the notary.
    eventually("nothing is left of the second", async || {
        let left = unsettled(&network, "Carol");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let status = notary_status(&network, "Notary");
    assert_eq!((&status["committed"], &status["conflicts"]), (&json!(1), &json!(1)));
    host.stop();
}

/// What it signs as a party is no notarisation: that its money is spent once is decided as for anybody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_notary_that_pays_asks_itself_as_anybody_does() {
    let network = Network::new();
    let host = network.run();
    host.run(NOTARY, "cash/issue", json!({"quantity": 100, "currency": "GBP"})).await.result();
    let paid = tx(&pay(&host, NOTARY, ALICE, 40).await);
    host.until_quiet().await;
    let has = |identity: &str| money(&network, identity);
    assert_eq!((has("Notary"), has("Alice")), (60, 40));
    let committed = || notary_status(&network, "Notary")["committed"].clone();
    assert_eq!(committed(), 1);
    // It has signed twice: for its money, and for the commit.
    let shown = show(&network, &paid, "Alice");
    assert_eq!(signers(&shown), [NOTARY, NOTARY]);
    assert_eq!(verified_again(&network, &paid, "Alice")["valid"], true);
    pay(&host, ALICE, BOB, 40).await.result();
    host.until_quiet().await;
    assert_eq!((has("Alice"), has("Bob"), committed()), (0, 40, json!(2)));
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_flow_has_left_in_flight_is_settled() {
    let network = Network::new();
    // Nobody runs the notary for a while.
    let notary = Away::notary(&network);
    let host = network.run();
    issue(&host, 100).await;
    let id = start_paying(&host, BOB, 40).await;
    let statuses =
        |identity: &str| unsettled(&network, identity).iter().map(|one| one["status"].clone()).collect::<Vec<_>>();
    assert_eq!(statuses("Bob"), ["in-flight"], "everybody has it before the notary is asked");
    assert!(host.kill(&id).await);
    host.end(&id).await;
    assert_eq!(statuses("Alice"), ["in-flight"]);
    notary.comes_back();
    eventually("both have settled it", async || {
        let money = (money(&network, "Alice"), money(&network, "Bob"));
        let left = (unsettled(&network, "Alice"), unsettled(&network, "Bob"));
        if money == (60, 40) && left.0.is_empty() && left.1.is_empty() {
            Ok(())
        } else {
            Err(format!("{money:?} {left:?}"))
        }
    })
    .await;
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn money_that_another_payment_has_in_flight_is_locked_and_not_missing() {
    let network = Network::new();
    // Nobody runs the notary for a while.
    let notary = Away::notary(&network);
    let host = network.run();
    issue(&host, 100).await;
    let first = start_paying(&host, BOB, 40).await;
    // What holds it is told where states are shown.
    let sent = unsettled(&network, "Alice")[0]["id"].clone();
    assert_eq!(query(&network, "Alice", &[])[0]["in_flight"], sent);
    let (second, too_much) = tokio::join!(pay(&host, ALICE, BOB, 10), pay(&host, ALICE, BOB, 101));
    let second = second.failure();
    assert_eq!(second.exception.as_deref(), Some("cash/locked"), "{second:?}");
    assert!(second.message.contains("there is enough, but 100 are held by others"), "{second:?}");
    assert_eq!(too_much.failure().exception.as_deref(), Some("cash/insufficient"));
    notary.comes_back();
    assert_eq!(host.end(&first).await.state, "completed");
    pay(&host, ALICE, BOB, 10).await.result();
    // Of those that come at once none is told that the money is not there: each waits for its change.
    let ends = join_all((0..5).map(|_| pay(&host, ALICE, BOB, 5))).await;
    let paid = ends.iter().filter(|end| end.state == "completed").count();
    assert!(paid > 0, "{ends:?}");
    for end in ends.iter().filter(|end| end.state != "completed") {
        assert_eq!(end.failure().exception.as_deref(), Some("cash/locked"), "{ends:?}");
    }
    host.until_quiet().await;
    let paid = 50 + 5 * i64::try_from(paid).unwrap();
    assert_eq!((money(&network, "Alice"), money(&network, "Bob")), (100 - paid, paid));
    assert!(query(&network, "Alice", &[]).iter().all(|state| state["in_flight"].is_null()));
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_verified_again_from_what_is_there() {
    let network = Network::new();
    let notary = Away::notary(&network);
    let host = network.run();
    let issued = issue(&host, 100).await;
    let why = |identity: &str, id: &str| network.cli(&["ledger", "why-invalid", id, "--identity", identity]);
    let wrong = |examined: &Value| -> Vec<Value> {
        let checks = examined["checks"].as_array().unwrap().iter();
        checks.filter(|one| one["ok"] == false).map(|one| json!([one["what"], one["subject"], one["code"]])).collect()
    };
    let examined = why("Alice", &issued).ok().object();
    assert_eq!((&examined["id"], &examined["status"]), (&json!(issued), &json!("verified")));
    assert_eq!((&examined["valid"], wrong(&examined)), (&json!(true), vec![]), "{examined}");
    let checked: Vec<&str> =
        examined["checks"].as_array().unwrap().iter().map(|one| one["what"].as_str().unwrap()).collect();
    assert_eq!(checked, ["network", "parameters", "signature", "attachment", "rules", "contract"]);
    why("Bob", &issued).fails(3, "transaction-not-found");
    why("Alice", "nonsense").fails(3, "transaction-not-found");

    // Nobody runs the notary: what waits for it lacks its signature, and nothing else.
    let id = start_paying(&host, BOB, 40).await;
    let waiting = unsettled(&network, "Bob")[0]["id"].as_str().unwrap().to_owned();
    let examined = why("Bob", &waiting).ok().object();
    let signer = json!(["signer", NOTARY, "signature-missing"]);
    assert_eq!((&examined["valid"], wrong(&examined)), (&json!(false), vec![signer]), "{examined}");
    notary.comes_back();
    assert_eq!(host.end(&id).await.state, "completed");
    host.until_quiet().await;
    assert_eq!(why("Bob", &waiting).ok().object()["valid"], true);

    // Without the code of its contract nobody can say. Hosts of one server have it in the database.
    host.stop();
    std::fs::remove_file(network.path("cordapps/cash-0.1.0.contract.wasm")).unwrap();
    let host = network.run();
    let examined = why("Bob", &waiting).ok().object();
    let missing: Vec<Value> = wrong(&examined).iter().map(|one| json!([one[0], one[2]])).collect();
    match network.server() {
        None => assert_eq!(missing, [json!(["attachment", "contract-attachment-missing"])]),
        Some(_) => assert_eq!((&examined["valid"], missing), (&json!(true), vec![])),
    }
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_read_views_and_need_no_host() {
    let network = Network::new();
    let host = network.run();
    let issued = issue(&host, 1000).await;
    let paid = tx(&pay(&host, ALICE, BOB, 400).await);
    host.until_quiet().await;
    host.stop();
    let of = |identity: &str, sql: &str| {
        network.sql(&sql.replace("report_", &format!("{}report_", schema(&network, identity))))
    };
    let has = |identity: &str| {
        let sql =
            "SELECT sum(quantity) FROM report_state WHERE status = 'unconsumed' AND relevant AND type = 'cash/Cash'";
        of(identity, &format!("{sql} AND identity = '{identity}' GROUP BY identity, token, issuer"))
    };
    assert_eq!((has(ALICE).as_str(), has(BOB).as_str()), ("600", "400"));
    let spent = format!("SELECT consumed_by FROM report_state WHERE ref = '{issued}:0' AND status = 'consumed'");
    assert_eq!(of(ALICE, &spent), paid);
    let status = format!("SELECT status FROM report_transaction WHERE identity = '{BOB}' AND id = '{paid}'");
    assert_eq!(of(BOB, &status), "verified");
    let verdict = format!("SELECT verdict FROM report_notarised WHERE id = '{paid}'");
    assert_eq!(of(NOTARY, &verdict), "committed");
    // A time is of this century, whatever the database.
    let recorded = of(ALICE, &format!("SELECT recorded FROM report_transaction WHERE id = '{issued}'"));
    assert!(recorded.starts_with("20"), "{recorded}");
}
