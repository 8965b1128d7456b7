//! States whose notary changes: what becomes of them, whoever has a part in them, and what is refused.

use std::time::Duration;

use futures::future::join_all;
use maxhost_tests::ledger::{
    Away, issue_at, locks, notary_status, pay, query, show, signers, transactions, unsettled, until_asks_notary,
    verified_again,
};
use maxhost_tests::{ALICE, BOB, CAROL, Host, MODES, NOTARY, Network, SECOND_NOTARY, eventually};
use serde_json::{Value, json};

/// The amounts of cash that an identity can spend, with who keeps them, the smallest first.
fn cash(network: &Network, identity: &str) -> Vec<(i64, String)> {
    let states = query(network, identity, &["--type", "cash/Cash", "--sort", "quantity"]);
    let one =
        |state: &Value| (state["state"]["quantity"].as_i64().unwrap(), state["notary"].as_str().unwrap().to_owned());
    states.iter().map(one).collect()
}

async fn until_has(network: &Network, identity: &str, wanted: &[(i64, &str)]) {
    eventually("the money arrives", async || {
        let has = cash(network, identity);
        let fits = has.iter().map(|(quantity, notary)| (*quantity, notary.as_str())).eq(wanted.iter().copied());
        if fits { Ok(()) } else { Err(format!("{identity} has {has:?} in place of {wanted:?}")) }
    })
    .await;
}

/// The transactions of an identity that are not verified, and what it holds locked.
fn left_over(network: &Network, identity: &str) -> Vec<Value> {
    [unsettled(network, identity), locks(network, identity)].concat()
}

fn nothing_is_left(network: &Network) {
    for identity in [ALICE, BOB, CAROL] {
        assert_eq!(left_over(network, identity), Vec::<Value>::new(), "{identity}");
    }
}

fn committed(network: &Network, notary: &str) -> (i64, i64) {
    let status = notary_status(network, notary);
    (status["committed"].as_i64().unwrap(), status["conflicts"].as_i64().unwrap())
}

/// From here on the platform answers for these identities whether notaries change, and no CorDapp of theirs.
fn without_hostile(network: &Network, identities: &[&str]) {
    for identity in identities {
        let file = network.path(&format!("identities/{identity}.toml"));
        let text = std::fs::read_to_string(&file).unwrap();
        let line = text.lines().find(|line| line.starts_with("cordapps")).unwrap();
        let (before, list) = line.split_once('[').unwrap();
        let names = list.trim_end_matches(']').split(", ").filter(|name| !name.contains("hostile"));
        let kept = format!("{before}[{}]", names.collect::<Vec<_>>().join(", "));
        assert_ne!(line, kept);
        std::fs::write(&file, text.replace(line, &kept)).unwrap();
    }
}

async fn cash_moves(mode: &str, validating: bool) {
    let network = Network::with_two_notaries(validating).setting(mode);
    let host = network.run();
    issue_at(&host, 100, NOTARY).await;
    let before = query(&network, "Alice", &[])[0]["ref"].clone();
    let terms = json!({"to": SECOND_NOTARY, "currency": "GBP", "from": NOTARY});
    let moved = host.run(ALICE, "cash/change-notary", terms.clone()).await.result();
    assert_eq!((&moved["quantity"], moved["states"].as_array().unwrap().len()), (&json!(100), 1), "{mode}");
    until_has(&network, ALICE, &[(100, SECOND_NOTARY)]).await;
    let now = moved["states"][0].as_str().unwrap();
    let consumed = query(&network, "Alice", &["--status", "consumed"]);
    assert_eq!((&consumed[0]["ref"], consumed.len()), (&before, 1));
    let change = now.split(':').next().unwrap();
    assert_eq!(consumed[0]["consumed_by"], change);
    let again = host.run(ALICE, "cash/change-notary", terms).await.result();
    assert_eq!(again, json!({"states": [], "quantity": 0}), "there is nothing left to move");

    // It is spent as any other money, by those who get it, with all that it comes from.
    pay(&host, ALICE, BOB, 40).await.result();
    until_has(&network, BOB, &[(40, SECOND_NOTARY)]).await;
    pay(&host, BOB, CAROL, 10).await.result();
    until_has(&network, CAROL, &[(10, SECOND_NOTARY)]).await;
    let shown = show(&network, change, "Carol");
    assert_eq!(
        (&shown["status"], &shown["notary"], &shown["new_notary"], &shown["inputs"]),
        (&json!("verified"), &json!(NOTARY), &json!(SECOND_NOTARY), &json!([before])),
        "{mode}"
    );
    let output = &shown["outputs"][0];
    assert_eq!((&output["notary"], &output["state"]["quantity"]), (&json!(SECOND_NOTARY), &json!(100)));
    let by = signers(&shown);
    assert_eq!(by, [ALICE, NOTARY]);
    let of_carol = transactions(&network, "Carol");
    assert_eq!(of_carol.len(), 4, "an issue, a change of notary and two payments: {of_carol:?}");
    for one in of_carol {
        let id = one["id"].as_str().unwrap();
        let examined = verified_again(&network, id, "Carol");
        assert_eq!(examined["valid"], true, "{mode}: {examined}");
    }
    assert_eq!((committed(&network, NOTARY), committed(&network, SECOND_NOTARY)), ((1, 0), (2, 0)));
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    nothing_is_left(&network);
    host.stop();
}

/// Anybody can make as much money as a state can say, and give it to somebody.
#[tokio::test(flavor = "multi_thread")]
async fn cash_that_cannot_be_added_up_is_an_error_of_the_flow_that_moves_it() {
    let network = Network::with_two_notaries(false);
    let host = network.run();
    for _ in 0..3 {
        let gift = json!({"quantity": i64::MAX, "currency": "XXX", "to": ALICE, "notary": NOTARY});
        host.run(BOB, "cash/issue", gift).await.result();
    }
    let kept_by = |notary: &str| cash(&network, ALICE).iter().filter(|(_, keeper)| keeper == notary).count();
    eventually("the money arrives", async || match kept_by(NOTARY) {
        3 => Ok(()),
        some => Err(format!("{some} of 3")),
    })
    .await;
    host.until_quiet().await;
    let terms = json!({"to": SECOND_NOTARY, "currency": "XXX"});
    let failure = host.run(ALICE, "cash/change-notary", terms.clone()).await.failure();
    assert_eq!(failure.exception.as_deref(), Some("cash/too-much"), "{failure:?}");
    assert_eq!((kept_by(NOTARY), kept_by(SECOND_NOTARY)), (1, 2), "as much has moved as can be told");
    let moved = host.run(ALICE, "cash/change-notary", terms).await.result();
    assert_eq!(moved["quantity"], json!(i64::MAX), "the next flow goes on");
    assert_eq!(kept_by(SECOND_NOTARY), 3);
    // So is an account that has more than can be told.
    for _ in 0..3 {
        let assigned = json!({"account": "rich", "quantity": i64::MAX, "currency": "XXX"});
        host.run(ALICE, "cash/assign", assigned).await.result();
    }
    let failure = host.run(ALICE, "cash/account", json!({"account": "rich"})).await.failure();
    assert_eq!(failure.exception.as_deref(), Some("cash/too-much"), "{failure:?}");
    host.until_quiet().await;
    nothing_is_left(&network);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn cash_moves_to_another_notary_and_is_spent_there_however_flows_are_put_away() {
    for mode in MODES {
        cash_moves(mode, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn notaries_that_validate_verify_changes_of_notary_in_a_chain() {
    cash_moves("flows.evict=never", true).await;
}

/// A debt of Bob to Alice.
async fn debt(host: &Host, quantity: i64) -> String {
    let terms = json!({"lender": ALICE, "quantity": quantity, "currency": "GBP", "due": null});
    host.run(BOB, "iou/issue", terms).await.result()["id"].as_str().unwrap().to_owned()
}

/// Who keeps the debts of an identity that are open.
fn debts(network: &Network, identity: &str) -> Vec<String> {
    let states = query(network, identity, &["--type", "iou/Iou"]);
    states.iter().map(|state| state["notary"].as_str().unwrap().to_owned()).collect()
}

async fn until_kept_by(network: &Network, identities: &[&str], notary: &str) {
    eventually("all have recorded the change", async || {
        let kept: Vec<_> = identities.iter().map(|identity| debts(network, identity)).collect();
        if kept.iter().all(|of_one| *of_one == [notary]) { Ok(()) } else { Err(format!("{kept:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debt_moves_when_both_sides_sign_and_goes_on_as_before() {
    for (mode, of_the_platform) in
        [("flows.evict=never", true), ("flows.evict=every-wait", true), ("flows.evict=random:11", false)]
    {
        let network = Network::with_two_notaries(false).setting(mode);
        if of_the_platform {
            without_hostile(&network, &["alice", "bob"]);
        }
        let host = network.run();
        let id = debt(&host, 50).await;
        host.until_quiet().await;
        let moved = host.run(BOB, "iou/change-notary", json!({"id": id, "to": SECOND_NOTARY})).await.result();
        assert_eq!(moved["id"], id, "{mode}");
        until_kept_by(&network, &[ALICE, BOB], SECOND_NOTARY).await;
        let change = moved["state"].as_str().unwrap().split(':').next().unwrap();
        let shown = show(&network, change, "Alice");
        let by = signers(&shown);
        assert_eq!(by, [BOB, ALICE, NOTARY], "{mode}");
        let answered = if of_the_platform { "maxhost/change-notary" } else { "hostile/wary" };
        assert_eq!(host.flows(Some(ALICE), Some(answered)).await.len(), 1, "{mode}");
        // Whoever gets the claim has not seen the debt before.
        host.run(ALICE, "iou/transfer", json!({"id": id, "to": CAROL})).await.result();
        host.until_quiet().await;
        until_kept_by(&network, &[BOB, CAROL], SECOND_NOTARY).await;
        // And back again, on the other's wish.
        host.run(CAROL, "iou/change-notary", json!({"id": id, "to": NOTARY})).await.result();
        until_kept_by(&network, &[BOB, CAROL], NOTARY).await;
        issue_at(&host, 80, NOTARY).await;
        pay(&host, ALICE, BOB, 80).await.result();
        until_has(&network, BOB, &[(80, NOTARY)]).await;
        host.run(BOB, "iou/settle", json!({"id": id, "quantity": 50})).await.result();
        until_has(&network, CAROL, &[(50, NOTARY)]).await;
        assert_eq!(host.until_quiet().await.flows["hospital"], 0);
        nothing_is_left(&network);
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn states_that_belong_together_move_together() {
    for validating in [false, true] {
        let network = Network::with_two_notaries(validating);
        let host = network.run();
        issue_at(&host, 100, NOTARY).await;
        let terms = json!({"seller": "Bob", "quantity": 70, "currency": "GBP", "until": "2099-01-01T00:00:00Z"});
        let escrow = host.run(ALICE, "escrow/lock", terms).await.result();
        host.until_quiet().await;
        let locked = query(&network, "Alice", &["--type", "cash/Cash", "--where", "quantity = 70"]);
        let terms = json!({"to": SECOND_NOTARY, "reference": locked[0]["ref"]});
        host.run(ALICE, "cash/change-notary", terms).await.result();
        host.until_quiet().await;
        assert_eq!(cash(&network, ALICE), [(30, NOTARY.to_owned()), (70, SECOND_NOTARY.to_owned())]);
        let escrows = query(&network, "Bob", &["--type", "escrow/Escrow"]);
        assert_eq!((escrows.len(), &escrows[0]["notary"]), (1, &json!(SECOND_NOTARY)));
        let locked = query(&network, "Alice", &["--type", "cash/Cash", "--where", "quantity = 70"]);
        assert_eq!(
            (&locked[0]["encumbered_by"], &escrows[0]["encumbered_by"]),
            (&escrows[0]["ref"], &locked[0]["ref"])
        );
        // They move once more, and still belong together.
        let terms = json!({"to": NOTARY, "reference": locked[0]["ref"]});
        host.run(ALICE, "cash/change-notary", terms).await.result();
        host.until_quiet().await;
        host.run(ALICE, "escrow/release", json!({"id": escrow["id"]})).await.result();
        until_has(&network, BOB, &[(70, NOTARY)]).await;
        pay(&host, BOB, CAROL, 5).await.result();
        until_has(&network, CAROL, &[(5, NOTARY)]).await;
        assert_eq!(host.until_quiet().await.flows["hospital"], 0);
        nothing_is_left(&network);
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_moved_is_not_spent_at_the_old_notary() {
    let network = Network::with_two_notaries(false);
    let host = network.run();
    issue_at(&host, 100, NOTARY).await;
    let terms = json!({"to": BOB, "notary": SECOND_NOTARY, "currency": "GBP"});
    let ended = host.run(ALICE, "hostile/move-and-spend", terms).await.result();
    assert_eq!(ended, json!({"kind": "flow-exception", "exception": "notary/conflict"}));
    eventually("Bob has asked the notary too", async || {
        let left = left_over(&network, BOB);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    host.until_quiet().await;
    assert_eq!((cash(&network, ALICE), cash(&network, BOB)), (vec![(100, SECOND_NOTARY.to_owned())], vec![]));
    assert_eq!(committed(&network, NOTARY), (1, 1));
    nothing_is_left(&network);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_are_not_to_be_have_their_own_codes_and_leave_no_trace() {
    let network = Network::with_two_notaries(false);
    let host = network.run();
    issue_at(&host, 100, NOTARY).await;
    let first = query(&network, "Alice", &[])[0]["ref"].as_str().unwrap().to_owned();
    let ask = async |who: &str, reference: &str, notary: &str| -> Value {
        host.run(who, "hostile/move-state", json!({"reference": reference, "notary": notary})).await.result()
    };
    assert_eq!(ask(ALICE, &first, BOB).await, "notary-untrusted");
    assert_eq!(ask(ALICE, &first, "O=Nobody, L=Oslo, C=NO").await, "notary-untrusted");
    assert_eq!(ask(ALICE, &first, NOTARY).await, "notary-unchanged");
    assert_eq!(ask(ALICE, &format!("{}:0", "ab".repeat(32)), SECOND_NOTARY).await, "state-unknown");
    assert_eq!(ask(BOB, &first, SECOND_NOTARY).await, "state-unknown");
    pay(&host, ALICE, BOB, 40).await.result();
    host.until_quiet().await;
    assert_eq!(ask(ALICE, &first, SECOND_NOTARY).await, "state-consumed");
    let of_bob = query(&network, "Bob", &[])[0]["ref"].as_str().unwrap().to_owned();
    assert_eq!(ask(ALICE, &of_bob, SECOND_NOTARY).await, "key-not-own", "she knows it, and it is none of hers");
    assert_eq!(ask(ALICE, "x", NOTARY).await, "value-invalid");

    // A flow of the other side decides, and says why not.
    let id = debt(&host, 51).await;
    host.until_quiet().await;
    let kept = query(&network, "Bob", &["--type", "iou/Iou"])[0]["ref"].as_str().unwrap().to_owned();
    assert_eq!(ask(BOB, &kept, SECOND_NOTARY).await, "notary-change-refused");
    let refused = host.run(BOB, "iou/change-notary", json!({"id": id, "to": SECOND_NOTARY})).await.failure();
    assert_eq!(refused.exception.as_deref(), Some("ledger/rejected"));
    assert!(
        refused.message.contains("a debt of 51 stays where it is") && refused.message.contains(ALICE),
        "{refused:?}"
    );
    host.until_quiet().await;
    assert_eq!((debts(&network, ALICE), debts(&network, BOB)), (vec![NOTARY.to_owned()], vec![NOTARY.to_owned()]));
    assert_eq!(committed(&network, NOTARY), (1, 0), "nobody has asked it");
    nothing_is_left(&network);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_of_one_notary() {
    let network = Network::with_two_notaries(false);
    let host = network.run();
    issue_at(&host, 60, NOTARY).await;
    issue_at(&host, 100, SECOND_NOTARY).await;
    let refused = pay(&host, ALICE, BOB, 110).await.failure();
    assert_eq!(refused.exception.as_deref(), Some("cash/several-notaries"), "{refused:?}");
    assert_eq!(pay(&host, ALICE, BOB, 161).await.failure().exception.as_deref(), Some("cash/insufficient"));
    // The smallest is taken along if it can be: here it is another notary's.
    pay(&host, ALICE, BOB, 90).await.result();
    until_has(&network, BOB, &[(90, SECOND_NOTARY)]).await;
    host.run(ALICE, "cash/change-notary", json!({"to": SECOND_NOTARY, "currency": "GBP"})).await.result();
    pay(&host, ALICE, BOB, 70).await.result();
    until_has(&network, BOB, &[(70, SECOND_NOTARY), (90, SECOND_NOTARY)]).await;
    host.until_quiet().await;
    assert_eq!(cash(&network, ALICE), []);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_change_has_left_in_flight_is_settled() {
    let network = Network::with_two_notaries(false);
    // Nobody runs the old notary for a while.
    let notary = Away::notary(&network);
    let host = network.run();
    let id = debt(&host, 50).await;
    let flow = host.start(BOB, "iou/change-notary", json!({"id": id, "to": SECOND_NOTARY})).await;
    until_asks_notary(&host, &flow).await;
    let statuses =
        |identity: &str| left_over(&network, identity).iter().map(|one| one["status"].clone()).collect::<Vec<_>>();
    assert_eq!(statuses("Alice"), ["in-flight"], "everybody has it before the notary is asked");
    assert!(host.kill(&flow).await);
    host.end(&flow).await;
    notary.comes_back();
    until_kept_by(&network, &[ALICE, BOB], SECOND_NOTARY).await;
    host.until_quiet().await;
    nothing_is_left(&network);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_crash_loses_what_moves() {
    let network = Network::with_two_notaries(false);
    let host = network.run();
    join_all((0..6).map(|_| issue_at(&host, 10, NOTARY))).await;
    let ids = join_all((0..4).map(|_| debt(&host, 50))).await;
    host.kill_9();
    for round in 0..3 {
        let host = network.run();
        let to = if round % 2 == 0 { SECOND_NOTARY } else { NOTARY };
        host.start(ALICE, "cash/change-notary", json!({"to": to, "currency": "GBP"})).await;
        for (number, id) in ids.iter().enumerate() {
            let who = if number % 2 == 0 { ALICE } else { BOB };
            host.start(who, "iou/change-notary", json!({"id": id, "to": to})).await;
        }
        // In the middle of whatever they do.
        tokio::time::sleep(Duration::from_millis(60 * (round + 1))).await;
        host.kill_9();
    }
    let host = network.run();
    host.until_quiet().await;
    eventually("nothing is left over", async || {
        let left: Vec<Value> = [ALICE, BOB].iter().flat_map(|identity| left_over(&network, identity)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    host.until_quiet().await;
    let held: Vec<i64> = cash(&network, ALICE).into_iter().map(|(quantity, _)| quantity).collect();
    assert_eq!(held, [10; 6]);
    let refs = |identity: &str| {
        let mut refs: Vec<String> = query(&network, identity, &["--type", "iou/Iou"])
            .iter()
            .map(|state| format!("{} {}", state["ref"], state["notary"]))
            .collect();
        refs.sort();
        refs
    };
    assert_eq!((refs(ALICE).len(), refs(ALICE)), (4, refs(BOB)), "both have the same debts at the same notaries");
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
    host.stop();
}
