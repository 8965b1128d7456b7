//! A broken manifest costs its identity, with a reason; the others run on, and it comes back when mended.

use std::fs;

use maxhost_rpc::proto::v1::IdentityState;
use maxhost_tests::{ALICE, BOB, CAROL, Host, Network, eventually};
use serde_json::{Value, json};

/// The identity in the list that shows this reason.
async fn quarantined(network: &Network, words: &[&str]) -> Value {
    eventually(&format!("a reason with {words:?}"), async || {
        let list = network.cli(&["identity", "list"]).ok().objects();
        let fits = |identity: &&Value| {
            let reason = identity["reason"].as_str().unwrap_or_default();
            identity["state"] == "quarantined" && words.iter().all(|word| reason.contains(word))
        };
        list.iter().find(fits).cloned().ok_or_else(|| format!("{list:#?}"))
    })
    .await
}

async fn alice_works(host: &Host) {
    let end = host.run(ALICE, "ping", json!({"peer": BOB, "count": 1})).await;
    assert_eq!(end.result(), json!({"rounds": 1}));
}

fn rewrite(network: &Network, file: &str, change: impl Fn(&str) -> String) -> String {
    let path = network.path(&format!("identities/{file}.toml"));
    let text = fs::read_to_string(&path).unwrap();
    // Moved into its place: a host that looked while it is written would see half of it.
    let beside = network.path(&format!("{file}.toml.new"));
    fs::write(&beside, change(&text)).unwrap();
    fs::rename(beside, path).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_in_a_manifest_is_told_with_its_line_and_mended_without_a_restart() {
    let network = Network::new();
    let mistakes: &[(&str, &[&str])] = &[
        ("cordaps = []\n", &["carol.toml:4", "cordaps", "did you mean 'cordapps'"]),
        ("\n[limits]\nflows = \"many\"\n", &["carol.toml:6", "limits.flows"]),
        ("\n[limits]\nmemory_per_flow = \"1 parsec\"\n", &["carol.toml:6", "limits.memory_per_flow"]),
        ("\n[limit]\nflows = 1\n", &["carol.toml", "limit", "did you mean 'limits"]),
        ("this is no TOML\n", &["carol.toml:4"]),
    ];
    let carol =
        |tail: &str| format!("name = \"{CAROL}\"\ncordapps = [\"ping-pong\"]\nkeys = \"../keys/carol\"\n{tail}");
    fs::write(network.path("identities/carol.toml"), carol(mistakes[0].0)).unwrap();
    let host = network.run();
    assert_eq!(host.ready()["identities"], 4);
    let told = host.event("identity-quarantined", |_| true);
    assert_eq!(told["code"], "manifest-invalid", "{told}");
    assert!(told["reason"].as_str().is_some_and(|reason| reason.contains("did you mean 'cordapps'")), "{told}");
    for (mistake, words) in mistakes {
        fs::write(network.path("identities/carol.toml"), carol(mistake)).unwrap();
        let shown = quarantined(&network, &[&["manifest-invalid"], *words].concat()).await;
        assert!(shown["manifest"].as_str().unwrap().ends_with("carol.toml"), "{shown}");
        // What is no TOML names nobody.
        let (exit, code) = if shown["name"] == CAROL { (5, "identity-quarantined") } else { (3, "identity-not-found") };
        network.cli(&["flow", "start", "--identity", "Carol", "ping"]).fails(exit, code);
        alice_works(&host).await;
    }
    // A manifest that names nobody goes by its file.
    assert_eq!(network.cli(&["identity", "show", "carol.toml"]).ok().object()["state"], "quarantined");
    assert_eq!(host.status().await.identities["quarantined"], 1);

    fs::write(network.path("identities/carol.toml"), carol("")).unwrap();
    host.until_identity(CAROL, IdentityState::Cold).await;
    assert_eq!(host.run(CAROL, "ping", json!({"peer": BOB, "count": 1})).await.result(), json!({"rounds": 1}));
    assert_eq!(host.status().await.identities["quarantined"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_while_the_identity_runs_is_told_and_its_flows_are_not_lost() {
    let network = Network::new();
    let host = network.run();
    let beat = host.start(BOB, "beat", json!({"beats": 20, "interval_ms": 50})).await;
    let sound = rewrite(&network, "bob", |text| format!("{text}\nflows = 3\n"));
    quarantined(&network, &["manifest-invalid", "bob.toml", "'flows'"]).await;
    // It is that one identity, and there once.
    let list = network.cli(&["identity", "list"]).ok().objects();
    assert_eq!(list.len(), 4, "{list:#?}");
    assert_eq!(network.cli(&["identity", "show", "Bob"]).ok().object()["state"], "quarantined");
    network.cli(&["flow", "start", "--identity", "Bob", "statics", "{\"times\": 1}"]).fails(5, "identity-quarantined");
    assert_eq!(host.run(ALICE, "statics", json!({"times": 1})).await.result()["static"], 1);
    rewrite(&network, "bob", |_| sound.clone());
    eventually("Bob mended", async || {
        let status = host.status().await;
        if status.identities["quarantined"] == 0 { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    assert_eq!(host.end(&beat).await.result(), json!({"beats": 20}));
    alice_works(&host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_is_that_of_the_manifest_as_it_is_now() {
    let network = Network::new();
    let host = network.run();
    let write = |tail: &str| {
        let text = format!("name = \"{CAROL}\"\ncordapps = [\"ping-pong\"]\nkeys = \"../keys/{tail}");
        fs::write(network.path("identities/carol.toml"), text).unwrap();
    };
    for (tail, reason) in
        [("nobody\"\n", "keys/nobody"), ("carol\"\nodd = 1\n", "'odd'"), ("nobody\"\n", "keys/nobody")]
    {
        write(tail);
        let shown = quarantined(&network, &[reason]).await;
        assert_eq!(shown["name"], CAROL);
        assert_eq!(network.cli(&["identity", "show", "Carol"]).ok().object()["reason"], shown["reason"]);
        assert_eq!(network.cli(&["identity", "list"]).ok().objects().len(), 4);
        assert_eq!(host.status().await.identities["quarantined"], 1);
    }
    write("carol\"\n");
    host.until_identity(CAROL, IdentityState::Cold).await;
    assert_eq!(host.status().await.identities["quarantined"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_manifest_names_must_be_there() {
    let network = Network::new();
    let host = network.run();
    let write = |file: &str, name: &str, cordapps: &str, keys: &str| {
        let text = format!("name = \"{name}\"\ncordapps = [{cordapps}]\nkeys = \"{keys}\"\n");
        fs::write(network.path(&format!("identities/{file}.toml")), text).unwrap();
    };
    write("eve", "O=Eve, L=Rome, C=IT", "\"no-such-app\"", "../keys/carol");
    let shown = quarantined(&network, &["cordapp-not-found", "no-such-app"]).await;
    assert_eq!(shown["name"], "O=Eve, L=Rome, C=IT");
    write("fay", "O=Fay, L=Rome, C=IT", "\"ping-pong\"", "../keys/fay");
    quarantined(&network, &["key-unreadable", "keys/fay"]).await;
    write("gus", "O=Gus", "\"ping-pong\"", "../keys/gus");
    quarantined(&network, &["manifest-invalid", "gus.toml:1", "name"]).await;
    // The name is taken: the first one keeps it.
    write("hal", ALICE, "\"ping-pong\"", "../keys/alice");
    quarantined(&network, &["manifest-invalid", "hal.toml", "alice.toml"]).await;
    alice_works(&host).await;
    // Keys of somebody else are found when the identity opens.
    write("ivy", "O=Ivy, L=Rome, C=IT", "\"ping-pong\"", "../keys/carol");
    host.until_identity("O=Ivy, L=Rome, C=IT", IdentityState::Cold).await;
    let refused =
        network.cli(&["flow", "start", "--identity", "Ivy", "ping", &json!({"peer": BOB, "count": 1}).to_string()]);
    refused.fails(5, "identity-quarantined");
    alice_works(&host).await;

    for file in ["eve", "fay", "gus", "hal", "ivy"] {
        fs::remove_file(network.path(&format!("identities/{file}.toml"))).unwrap();
    }
    eventually("the usual identities", async || {
        let list = network.cli(&["identity", "list"]).ok().objects();
        if list.len() == 4 { Ok(()) } else { Err(format!("{list:#?}")) }
    })
    .await;
    alice_works(&host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_is_one_line_in_the_log() {
    let network = Network::new();
    let sound = rewrite(&network, "carol", |text| format!("{text}\nflows = 3\n"));
    let host = network.run();
    quarantined(&network, &["manifest-invalid", "carol.toml"]).await;
    let told = network.log_lines(&["quarantined", "carol.toml"]);
    assert!(told.len() == 1 && told[0].contains("manifest-invalid") && told[0].contains(CAROL), "{told:#?}");

    // While the host runs: a manifest, an identity that is looked at, and one that is opened.
    rewrite(&network, "carol", |_| sound.clone());
    rewrite(&network, "bob", |text| format!("{text}\nflows = 3\n"));
    quarantined(&network, &["manifest-invalid", "bob.toml"]).await;
    // It changes and is as it was. Whoever sees the others has seen that.
    rewrite(&network, "bob", |text| format!("{text}\n"));
    let name = |name: &str| format!("O={name}, L=Rome, C=IT");
    let write = |file: &str, cordapp: &str| {
        let text = format!("name = \"{}\"\ncordapps = [\"{cordapp}\"]\nkeys = \"../keys/carol\"\n", name(file));
        fs::write(network.path(&format!("identities/{file}.toml")), text).unwrap();
    };
    write("eve", "no-such-app");
    write("ivy", "ping-pong");
    quarantined(&network, &["cordapp-not-found", "no-such-app"]).await;
    host.until_identity(&name("ivy"), IdentityState::Cold).await;
    network
        .cli(&["flow", "start", "--identity", "ivy", "ping", &json!({"peer": BOB, "count": 1}).to_string()])
        .fails(5, "identity-quarantined");
    for words in [["bob.toml", "manifest-invalid"], [&name("eve"), "cordapp-not-found"], [&name("ivy"), "code="]] {
        host.event("identity-quarantined", |event| {
            let told = format!("{} {}", event["identity"], event["reason"]);
            told.contains(words[0])
        });
        let told = network.log_lines(&["quarantined", words[0]]);
        assert!(told.len() == 1 && told[0].contains(words[1]), "{told:#?}");
    }
    host.stop();
}
