//! What a notary tells of the requests that it has decided: through gRPC and the command line, to whoever may see its ledger,
//! and without being woken.

use maxhost_model::Code;
use maxhost_rpc::proto::v1 as pb;
use maxhost_tests::ledger::issue;
use maxhost_tests::{ALICE, BOB, CAROL, Host, NOTARY, Network, eventually};
use serde_json::{Value, json};

/// The same money for two: one transaction is committed, the other is refused for ever.
async fn double_spend(host: &Host) -> String {
    let both = json!({"to": [BOB, CAROL], "quantity": 100, "currency": "GBP"});
    let ended = host.run(ALICE, "hostile/double-spend", both).await.result();
    assert_eq!(ended["second"]["exception"], "notary/conflict", "{ended}");
    ended["first"].as_str().unwrap().to_owned()
}

fn requests(network: &Network, more: &[&str]) -> Vec<Value> {
    network.cli(&[&["notary", "requests", "--identity", "Notary"][..], more].concat()).ok().objects()
}

async fn until_cold(network: &Network) {
    eventually("the notary sleeps", async || {
        let shown = network.cli(&["identity", "show", NOTARY]).ok().object();
        if shown["state"] == "cold" { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notary_shows_what_it_has_decided_and_sleeps_on() {
    for mode in ["flows.evict=never", "flows.evict=every-wait", "flows.evict=random:3"] {
        let network = Network::new().settings(&[mode, "flows.idle_close=1s"]);
        let host = network.run();
        issue(&host, 100).await;
        let first = double_spend(&host).await;
        host.until_quiet().await;
        // Whoever was told of the second asks the notary what became of it.
        eventually("nothing is left of the second", async || {
            let listed = network.cli(&["ledger", "list", "--identity", "Carol"]).ok().objects();
            let left = listed.iter().filter(|one| one["status"] != "verified").count();
            if left == 0 { Ok(()) } else { Err(format!("{listed:?}")) }
        })
        .await;
        host.until_quiet().await;
        until_cold(&network).await;

        let conflicts = requests(&network, &["--outcome", "conflict"]);
        let refused = conflicts.first().unwrap_or_else(|| panic!("{mode}: nothing is refused"));
        let second = refused["id"].as_str().unwrap().to_owned();
        assert_ne!(second, first);
        assert_eq!((&refused["caller"], &refused["conflicting"]), (&json!(ALICE), &json!(1)), "{mode}: {refused}");
        let committed = requests(&network, &["--outcome", "committed"]);
        assert_eq!(committed.iter().map(|one| &one["id"]).collect::<Vec<_>>(), [&json!(first)], "{mode}");
        assert!(requests(&network, &["--caller", CAROL, "--outcome", "committed"]).is_empty());
        assert!(requests(&network, &["--until", "1h"]).is_empty());
        let listed = requests(&network, &["--since", "1h"]);
        assert_eq!(listed, requests(&network, &[]), "{mode}");
        let at = |row: &Value| row["at"].as_str().unwrap().to_owned();
        assert!(listed.windows(2).all(|pair| at(&pair[0]) >= at(&pair[1])), "newest first: {listed:?}");

        // One request, with what stood in its way.
        let shown = network.cli(&["notary", "show", &second, "--identity", "Notary"]).ok().object();
        assert_eq!((&shown["id"], &shown["decided"], &shown["more"]), (&json!(second), &Value::Null, &json!(false)));
        let with_conflicts = shown["requests"].as_array().unwrap().iter().find(|one| one["outcome"] == "conflict");
        let conflict = &with_conflicts.unwrap()["conflicts"][0];
        assert_eq!((&conflict["kind"], &conflict["consumed_by"]), (&json!("input"), &json!(first)), "{mode}: {shown}");
        let shown = network.cli(&["notary", "show", &first, "--identity", "Notary"]).ok().object();
        assert_eq!(shown["decided"]["committed"], true, "{mode}: {shown}");

        // A state: which transaction has consumed it, and when.
        let state = conflict["ref"].as_str().unwrap();
        let unspent = format!("{first}:0");
        let told = network.cli(&["notary", "consumed", state, &unspent, "--identity", "Notary"]).ok().objects();
        assert_eq!(
            (told[0]["ref"].as_str(), told[0]["consumed_by"].as_str()),
            (Some(state), Some(&*first)),
            "{told:?}"
        );
        assert_eq!(told[0]["at"], shown["decided"]["at"]);
        assert_eq!((told[1]["ref"].as_str(), &told[1]["consumed_by"]), (Some(&*unspent), &Value::Null));

        let shown = network.cli(&["identity", "show", NOTARY]).ok().object();
        assert_eq!(shown["state"], "cold", "{mode}: nothing of this has woken it");
        // What it has decided outlives its host.
        host.stop();
        let host = network.run();
        assert_eq!(requests(&network, &["--outcome", "conflict"]), conflicts, "{mode}");
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_comes_in_pages_and_bad_questions_are_refused() {
    let network = Network::new();
    let host = network.run();
    for _ in 0..3 {
        issue(&host, 10).await;
    }
    for _ in 0..3 {
        let pay = json!({"to": BOB, "quantity": 10, "currency": "GBP"});
        host.run(ALICE, "cash/pay", pay).await.result();
    }
    let all: Vec<Value> = requests(&network, &[]);
    assert!(all.len() >= 3, "{all:?}");
    let client = host.client();
    let (mut cursor, mut seen) = (None, Vec::new());
    loop {
        let request = pb::ListNotaryRequestsRequest {
            identity: NOTARY.to_owned(),
            limit: 1,
            cursor: cursor.take(),
            ..Default::default()
        };
        let page = client.list_requests(request).await.unwrap();
        assert!(page.requests.len() <= 1);
        seen.extend(page.requests.into_iter().map(|one| one.id));
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, all.iter().map(|one| one["id"].as_str().unwrap()).collect::<Vec<_>>());

    let list = async |change: &dyn Fn(&mut pb::ListNotaryRequestsRequest)| {
        let mut request = pb::ListNotaryRequestsRequest { identity: NOTARY.to_owned(), ..Default::default() };
        change(&mut request);
        client.list_requests(request).await
    };
    assert_eq!(list(&|request| request.cursor = Some("x".to_owned())).await.unwrap_err().code, Code::CursorInvalid);
    assert_eq!(list(&|request| request.outcome = 77).await.unwrap_err().code, Code::RequestInvalid);
    assert_eq!(list(&|request| ALICE.clone_into(&mut request.identity)).await.unwrap_err().code, Code::NotaryNotHere);
    assert!(list(&|request| request.caller = Some("no\0body".to_owned())).await.unwrap().requests.is_empty());
    let unknown = pb::GetNotaryRequestRequest { identity: NOTARY.to_owned(), id: "0".repeat(64) };
    assert_eq!(client.get_request(unknown).await.unwrap_err().code, Code::TransactionNotFound);
    let consumption = async |states: Vec<String>| {
        client.consumption(pb::NotaryConsumptionRequest { identity: NOTARY.to_owned(), states }).await
    };
    let state = |index: usize| format!("{}:{index}", "0".repeat(64));
    assert_eq!(consumption((0..100).map(state).collect()).await.unwrap().states.len(), 100);
    for wrong in [Vec::new(), vec!["nothing".to_owned()], (0..101).map(state).collect()] {
        assert_eq!(consumption(wrong).await.unwrap_err().code, Code::RequestInvalid);
    }
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_see_the_notarys_ledger_is_told_and_the_trail_says_so() {
    let network = Network::new().settings(&["rpc.users.file=users.toml"]);
    network.add_user("ann", "secret", &["--permission", "ReadLedger", "--identity", "Alice"]);
    network.add_user("ned", "secret", &["--permission", "ReadLedger", "--identity", "Notary"]);
    network.add_user("vic", "secret", &["--permission", "QueryVault", "--identity", "Notary"]);
    network.add_user("operator", "boss", &["--permission", "ALL"]);
    let host = network.run();
    let (id, state) = ("0".repeat(64), format!("{}:0", "0".repeat(64)));
    let ask = |user: &str, words: &[&str]| {
        network.as_user(user, "secret", &[&["notary"][..], words, &["--identity", "Notary"]].concat())
    };
    let _ = ask("ned", &["requests"]).ok();
    let _ = ask("ned", &["consumed", &state]).ok();
    ask("ned", &["show", &id]).fails(3, "transaction-not-found");
    for words in [&["requests"][..], &["show", &id], &["consumed", &state]] {
        ask("ann", words).fails(3, "identity-not-found");
        ask("vic", words).fails(4, "permission-denied");
    }
    let detail = |detail: &str| {
        let rows = network.as_user("operator", "boss", &["audit", "list", "--user", "ned"]).ok().objects();
        let found = rows.iter().find(|row| row["detail"] == detail && row["identity"] == NOTARY).cloned();
        found.ok_or_else(|| format!("{rows:?}"))
    };
    eventually("what was asked about is told", async || {
        detail(&id)?;
        detail(&state).map(|_| ())
    })
    .await;
    host.stop();
}
