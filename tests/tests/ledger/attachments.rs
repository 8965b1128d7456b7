//! Attachments through gRPC: what an identity has is listed, shown, taken and brought while it sleeps, and nothing is half
//! there. The command line is the client.

use std::fs;
use std::path::PathBuf;

use futures::{StreamExt, stream};
use maxhost_ledger::attachment::sign;
use maxhost_ledger::keys::{Scheme, SigningKey};
use maxhost_model::SecureHash;
use maxhost_rpc::proto::v1 as pb;
use maxhost_rpc::proto::v1::import_attachment_request::Part;
use maxhost_tests::cli::{Answer, cordapps};
use maxhost_tests::{ALICE, BOB, Host, MODES, Network};
use serde_json::{Value, json};

fn of(network: &Network, identity: &str, words: &[&str]) -> Answer {
    network.cli(&[&["attachment"][..], words, &["--identity", identity]].concat())
}

/// A file to import.
fn file(network: &Network, name: &str, bytes: &[u8]) -> PathBuf {
    let file = network.path(name);
    fs::write(&file, bytes).unwrap();
    file
}

fn import(network: &Network, identity: &str, name: &str, bytes: &[u8]) -> Answer {
    of(network, identity, &["import", file(network, name, bytes).to_str().unwrap()])
}

fn export(network: &Network, identity: &str, id: &str) -> Vec<u8> {
    let copy = network.path("exported");
    let exported = of(network, identity, &["export", id, "--file", copy.to_str().unwrap()]).ok().object();
    assert_eq!(exported["file"].as_str(), copy.to_str());
    let bytes = fs::read(&copy).unwrap();
    assert_eq!((exported["bytes"].as_u64(), exported["id"].as_str()), (Some(bytes.len() as u64), Some(id)));
    fs::remove_file(copy).unwrap();
    bytes
}

fn listed(network: &Network, identity: &str) -> Vec<Value> {
    of(network, identity, &["list"]).ok().objects()
}

async fn is_asleep(host: &Host, identity: &str) -> bool {
    host.identity(identity).await.unwrap().state() == pb::IdentityState::Cold
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_imports_is_there_for_flows_and_the_identity_sleeps_on() {
    for mode in MODES {
        let network = Network::new().setting(mode);
        let host = network.run();
        // More than one message of it.
        let bytes: Vec<u8> = (0..700_000_u32).map(|at| (at % 251) as u8).collect();
        let id = SecureHash::of(&bytes).to_string();
        let new = import(&network, ALICE, "terms", &bytes).ok().object();
        assert_eq!((new["id"].as_str(), &new["new"], &new["bytes"]), (Some(&*id), &json!(true), &json!(700_000)));
        assert_eq!(
            (&new["source"], &new["code_hash"], &new["signers"]),
            (&json!("rpc:local"), &Value::Null, &json!([]))
        );
        assert_eq!(import(&network, ALICE, "terms", &bytes).ok().object()["new"], json!(false), "it is there");
        let empty = import(&network, ALICE, "empty", b"").ok().object();

        let all = listed(&network, ALICE);
        let mut ids = [id.as_str(), empty["id"].as_str().unwrap()];
        ids.sort_unstable();
        assert_eq!(all.iter().map(|one| one["id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
        let page = of(&network, ALICE, &["list", "--limit", "1"]).ok().objects();
        assert_eq!((page.len(), &page[1]), (2, &json!({ "cursor": ids[0] })));
        let page = of(&network, ALICE, &["list", "--limit", "1", "--cursor", ids[0]]).ok().objects();
        assert_eq!(page, all[1..]);
        assert!(listed(&network, BOB).is_empty(), "each identity has its own");
        assert_eq!(export(&network, ALICE, &id), bytes);
        assert_eq!(export(&network, ALICE, empty["id"].as_str().unwrap()), b"");
        of(&network, BOB, &["show", &id]).fails(3, "attachment-not-found");
        of(&network, BOB, &["export", &id, "--file", "nowhere"]).fails(3, "attachment-not-found");
        assert!(is_asleep(&host, ALICE).await && is_asleep(&host, BOB).await, "{mode}");

        let found = host.run(ALICE, "hostile/read-attachment", json!({ "attachment": id })).await.result();
        assert_eq!(found["bytes"], 700_000, "{mode}");
        host.stop();
        let host = network.run();
        assert_eq!(export(&network, ALICE, &id), bytes, "it is in the database");
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_with_a_transaction_is_listed_of_whoever_got_it() {
    let network = Network::new().setting("flows.idle_close=1 s");
    let host = network.run();
    let sent = host.run(ALICE, "hostile/attach", json!({"peer": "Bob", "bytes": 300_000, "text": "for Bob"})).await;
    let id = sent.result()["attachment"].as_str().unwrap().to_owned();
    host.until_quiet().await;
    for identity in [ALICE, BOB] {
        host.until_identity(identity, pb::IdentityState::Cold).await;
    }
    for (identity, source) in [(ALICE, "local".to_owned()), (BOB, format!("p2p:{ALICE}"))] {
        let listed = listed(&network, identity);
        let [one] = listed.as_slice() else { panic!("{listed:?}") };
        assert_eq!((one["id"].as_str(), one["source"].as_str()), (Some(&*id), Some(&*source)));
        assert!(one["kept"].as_str().is_some_and(|kept| kept.ends_with('Z')), "{one}");
        assert_eq!(of(&network, identity, &["show", &id]).ok().object(), *one);
        let bytes = export(&network, identity, &id);
        assert!(bytes.len() == 300_000 && bytes.starts_with(b"for Bob"));
        assert!(is_asleep(&host, identity).await);
    }
    // Contract code that is installed is found as flows find it, and is not of the ledger.
    let code = network.path("cordapps/cash-0.1.0.contract.wasm");
    let bytes = fs::read(code).unwrap();
    let id = SecureHash::of(&bytes).to_string();
    let shown = of(&network, BOB, &["show", &id]).ok().object();
    assert_eq!((&shown["name"], &shown["source"], &shown["kept"]), (&json!("cash"), &json!("host"), &Value::Null));
    assert!(export(&network, BOB, &id) == bytes);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_attached_is_refused_and_leaves_nothing() {
    let network = Network::new();
    fs::remove_file(network.path("cordapps/iou-0.1.0.contract.wasm")).unwrap();
    let host = network.run();
    let large = vec![b'x'; 10 * 1024 * 1024];
    let error = import(&network, ALICE, "large", &large).fails(4, "attachment-too-large");
    assert_eq!((&error["details"]["bytes"], &error["details"]["limit"]), (&json!("10485760"), &json!("10485760")));
    import(&network, ALICE, "broken", b"\0asm").fails(4, "component-invalid");
    let flows = fs::read(cordapps().join("ping-pong.wasm")).unwrap();
    import(&network, ALICE, "flows", &flows).fails(4, "component-invalid");
    let key = SigningKey::from_seed(Scheme::Ed25519, &[7; 32]).unwrap();
    let unknown = sign(&fs::read(cordapps().join("iou.contract.wasm")).unwrap(), &key).unwrap();
    let error = import(&network, ALICE, "unknown", &unknown).fails(4, "ledger-refused");
    assert_eq!(error["details"]["rule"], "attachment-untrusted", "{error}");
    let mut cut = sign(&fs::read(cordapps().join("cash.contract.wasm")).unwrap(), &key).unwrap();
    let last = cut.len() - 1;
    cut[last] ^= 1;
    import(&network, ALICE, "cut", &cut).fails(4, "component-signatures");
    import(&network, "Nobody", "terms", b"terms").fails(3, "identity-not-found");
    import(&network, "A\u{1}", "terms", b"terms").fails(3, "identity-not-found");
    of(&network, ALICE, &["import", network.path("none").to_str().unwrap()]).fails(3, "file-not-found");
    of(&network, ALICE, &["import", network.folder().to_str().unwrap()]).fails(4, "file-unreadable");
    of(&network, ALICE, &["show", "no id"]).fails(3, "attachment-not-found");
    of(&network, ALICE, &["list", "--cursor", "no cursor"]).fails(4, "cursor-invalid");
    network.cli(&["attachment", "list", "--cursor", "x"]).fails(2, "usage");

    // A client that goes away in the middle.
    let announced = pb::ImportedFile { identity: ALICE.to_owned(), id: "ab".repeat(32), bytes: 500_000 };
    let message = |part| pb::ImportAttachmentRequest { part: Some(part) };
    let parts = [message(Part::File(announced)), message(Part::Chunk(vec![7; 200_000]))];
    let broken_off = host.client().import_attachment(stream::iter(parts).chain(stream::pending()));
    assert!(tokio::time::timeout(std::time::Duration::from_secs(1), broken_off).await.is_err(), "it never ends");
    assert_eq!(listed(&network, ALICE), [] as [Value; 0]);

    // The same code as what is installed, under another signature, has somebody who vouches for it.
    let known = sign(&fs::read(cordapps().join("cash.contract.wasm")).unwrap(), &key).unwrap();
    let new = import(&network, ALICE, "known", &known).ok().object();
    assert_eq!((&new["name"], new["signers"].as_array().map(Vec::len)), (&json!("cash"), Some(1)));
    assert_eq!(listed(&network, ALICE)[0]["code_hash"], new["code_hash"]);
    assert!(is_asleep(&host, ALICE).await);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_and_bounds_hold_and_the_trail_tells() {
    let network = Network::new().settings(&["rpc.users.file=users.toml", "limits.imported_attachments=1"]);
    network.add_user("ann", "secret", &["--permission", "ReadAttachments", "--identity", "Alice"]);
    network.add_user("ben", "secret", &["--permission", "ImportAttachment", "--identity", "Alice"]);
    network.add_user("operator", "boss", &["--permission", "ALL"]);
    let host = network.run();
    let terms = file(&network, "terms", b"the terms");
    let import = |user: &str, identity: &str, file: &PathBuf| {
        let words = ["attachment", "import", file.to_str().unwrap(), "--identity", identity];
        network.as_user(user, "secret", &words)
    };
    let list =
        |user: &str, identity: &str| network.as_user(user, "secret", &["attachment", "list", "--identity", identity]);
    import("ann", "Alice", &terms).fails(4, "permission-denied");
    assert!(list("ann", "Alice").ok().objects().is_empty());
    import("ben", "Bob", &terms).fails(3, "identity-not-found");
    let imported = import("ben", "Alice", &terms).ok().object();
    assert_eq!(imported["source"], "rpc:ben");
    let id = imported["id"].as_str().unwrap();
    list("ben", "Alice").fails(4, "permission-denied");
    list("ann", "Bob").fails(3, "identity-not-found");
    let export = ["attachment", "export", id, "--identity", "Alice", "--file", "nowhere"];
    network.as_user("ben", "secret", &export).fails(4, "permission-denied");
    assert_eq!(list("ann", "Alice").ok().object()["id"].as_str(), Some(id));

    let other = file(&network, "other", b"other terms");
    let error = import("ben", "Alice", &other).fails(4, "attachments-full");
    assert_eq!((&error["details"]["attachments"], &error["details"]["bytes"]), (&json!("1"), &json!("9")));
    assert_eq!(import("ben", "Alice", &terms).ok().object()["new"], false, "what is there needs no room");

    let expected = json!([
        ["ann", "ImportAttachment", false, "permission-denied"],
        ["ben", "ImportAttachment", false, "identity-not-found"],
        ["ben", "ImportAttachment", true, null],
        ["ben", "ImportAttachment", true, "attachments-full"],
        ["ben", "ImportAttachment", true, null],
    ]);
    let told = || {
        let rows = network.as_user("operator", "boss", &["audit", "list"]).ok().objects();
        let rows = rows.into_iter().rev().filter(|row| row["action"] == "ImportAttachment").map(|row| {
            let identity = row["identity"].as_str().unwrap_or_default().to_owned();
            assert!(row["detail"].as_str().is_some_and(|detail| detail.len() == 64), "{row}");
            assert!(identity == ALICE || identity == "Bob", "{row}");
            json!([row["user"], row["action"], row["allowed"], row["code"]])
        });
        Value::Array(rows.collect())
    };
    maxhost_tests::eventually("all of it is told", async || match told() {
        rows if rows == expected => Ok(()),
        rows => Err(rows.to_string()),
    })
    .await;
    let rows = network.as_user("operator", "boss", &["audit", "list", "--user", "ann"]).ok().objects();
    let reads: Vec<&Value> = rows.iter().filter(|row| row["action"] == "ReadAttachments").collect();
    assert!(reads.iter().any(|row| row["identity"] == ALICE && row["allowed"] == true), "{rows:?}");
    assert!(reads.iter().any(|row| row["identity"] == "Bob" && row["allowed"] == false), "{rows:?}");
    host.stop();
}
