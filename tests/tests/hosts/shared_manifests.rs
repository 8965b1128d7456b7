//! Hosts without a folder of manifests: identities come from ZooKeeper, and what changes there is live on all of them.

use std::fs;
use std::path::PathBuf;

use maxhost_broker_amqp::test_servers::Artemis;
use maxhost_model::{RunId, SecureHash};
use maxhost_ownership_zookeeper::{Address, FileName, Folder, LARGEST_FILE, SharedFiles, ZooKeeperOptions};
use maxhost_pki::TrustRoot;
use maxhost_rpc::proto::v1 as pb;
use maxhost_tests::{ALICE, BOB, CAROL, Host, Network, cli, eventually};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Servers};
use crate::{result, start};

const DAVE: &str = "O=Dave, L=Berlin, C=DE";

/// Gives a host no manifests and no keys of identities: only the vault that they are sealed with.
fn configure(cluster: &Cluster, host: &str) {
    let file = cluster.configure(host);
    let keys = cluster.folder(host).join("keys");
    fs::create_dir_all(&keys).unwrap();
    fs::copy(cluster.network.path("keys/vault.toml"), keys.join("vault.toml")).unwrap();
    let dir = |path: PathBuf| format!("dir = \"{}\"", path.display());
    let text = fs::read_to_string(&file).unwrap();
    let text = text
        .replace(&dir(cluster.network.path("identities")), "source = \"ownership\"")
        .replace(&dir(cluster.network.path("keys")), &dir(keys));
    fs::write(file, text).unwrap();
}

/// The configuration from which people manage the identities: that of the development network, with its folders.
fn configure_office(cluster: &Cluster) -> PathBuf {
    let text = fs::read_to_string(cluster.configure("office")).unwrap();
    let text = text.replace("[identities]\n", "[identities]\nsource = \"ownership\"\n");
    let file = cluster.network.path("office.toml");
    fs::write(&file, text).unwrap();
    file
}

fn office(network: &Network, words: &[&str]) -> cli::Answer {
    let mut command = cli::command(words);
    command.arg("--json").arg("--config").arg(network.path("office.toml"));
    command.env("MAXHOST_BROKER_PASSWORD", Artemis::PASSWORD);
    cli::answer(command, None)
}

/// What `identity publish` says became of each, by the names of the files.
fn results(answer: &cli::Answer) -> Vec<String> {
    let stem = |one: &Value| one["file"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    answer.objects().iter().map(|one| format!("{} {}", stem(one), one["result"].as_str().unwrap())).collect()
}

/// What the check of manifests says.
fn manifests(network: &Network) -> Value {
    let answer = office(network, &["doctor"]);
    answer.objects().into_iter().find(|check| check["check"] == "manifests").unwrap()
}

async fn shows(hosts: &[&Host], name: &str, what: &str, fits: impl Fn(Option<&pb::Identity>) -> bool) {
    for host in hosts {
        eventually(&format!("{name}: {what}"), async || {
            let shown = host.identity(name).await;
            if fits(shown.as_ref().ok()) { Ok(()) } else { Err(format!("{shown:?}")) }
        })
        .await;
    }
}

fn is_quarantined(identity: Option<&pb::Identity>) -> bool {
    identity.is_some_and(|identity| identity.state() == pb::IdentityState::Quarantined)
}

fn is_well(identity: Option<&pb::Identity>) -> bool {
    identity.is_some_and(|identity| identity.state() != pb::IdentityState::Quarantined)
}

async fn ping(hosts: &[&Host], from: &str, to: &str) {
    let flow = start(hosts, from, "ping", json!({"peer": to, "count": 2})).await;
    assert_eq!(result(hosts[0], &flow).await, json!({"rounds": 2}));
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_come_from_zookeeper_and_changes_are_live_on_all_hosts() {
    if Artemis::is_missing() {
        return;
    }
    let mut servers = Servers::start().await;
    let cluster = Cluster::new(&servers, 0, "manifests", "/maxhost/manifests");
    configure_office(&cluster);
    let none = manifests(&cluster.network);
    assert!(none["ok"] == false && none["detail"].as_str().unwrap().contains("has no manifests"), "{none}");

    // What is wrong with one manifest is said, and the others are published.
    let file = |name: &str| cluster.network.path(&format!("identities/{name}.toml"));
    let carol = fs::read_to_string(file("carol")).unwrap();
    fs::write(file("carol"), format!("{carol}# {}\n", "x".repeat(LARGEST_FILE))).unwrap();
    fs::write(file("broken"), "name = \"O=Erin, L=Oslo, C=NO\"\nkeyz = 1\n").unwrap();
    let plain = cluster.network.path("keys/plain");
    fs::create_dir(&plain).unwrap();
    for name in ["name", "certificates.pem", "identity.key", "tls.key", "node-ca.key"] {
        fs::copy(cluster.network.path(&format!("keys/alice/{name}")), plain.join(name)).unwrap();
    }
    fs::write(plain.join("identity.key"), "-----BEGIN PRIVATE KEY-----\n").unwrap();
    fs::write(file("plain"), format!("name = \"{ALICE}\"\nkeys = \"../keys/plain\"\n")).unwrap();
    let answer = office(&cluster.network, &["identity", "publish"]);
    assert_eq!(
        results(&answer),
        [
            "alice.toml created",
            "bob.toml created",
            "broken.toml refused",
            "carol.toml refused",
            "notary.toml created",
            "plain.toml refused"
        ]
    );
    let error = answer.fails(4, "manifest-invalid");
    assert!(error["message"].as_str().unwrap().starts_with("3 of 6 manifests were refused"), "{error}");
    let reason = |name: &str| {
        let objects = answer.objects();
        let one = objects.iter().find(|one| one["file"].as_str().unwrap().ends_with(name)).unwrap();
        format!("{} {}", one["code"].as_str().unwrap(), one["reason"].as_str().unwrap())
    };
    assert!(reason("broken.toml").contains("keyz"), "{answer}");
    assert!(reason("carol.toml").contains("262144 at the most"), "{answer}");
    assert!(reason("plain.toml").contains("not a sealed key"), "{answer}");
    fs::remove_file(file("broken")).unwrap();
    fs::remove_file(file("plain")).unwrap();
    fs::write(file("carol"), carol).unwrap();
    let answer = office(&cluster.network, &["identity", "publish"]).ok();
    let now = ["alice.toml unchanged", "bob.toml unchanged", "carol.toml created", "notary.toml unchanged"];
    assert_eq!(results(&answer), now);
    let well = manifests(&cluster.network);
    assert_eq!((&well["ok"], &well["detail"]), (&json!(true), &json!("4 manifests")), "{well}");

    // Hosts that have never seen the folder run them.
    configure(&cluster, "max-a");
    configure(&cluster, "max-b");
    let (a, b) = (cluster.run_as_configured("max-a"), cluster.run_as_configured("max-b"));
    for host in [&a, &b] {
        assert_eq!((&host.ready()["identities"], &host.ready()["quarantined"]), (&json!(4), &json!(0)));
    }
    ping(&[&a, &b], ALICE, BOB).await;
    assert!(cluster.folder("max-a").join("data/shared/keys/alice/identity.key").is_file());

    // One is added by a command, and runs on either.
    let endpoint = |host: &Host| format!("http://{}", host.ready()["grpc"].as_str().unwrap());
    let (at_a, at_b) = (endpoint(&a), endpoint(&b));
    let new = ["identity", "new", DAVE, "--cordapp", "ping-pong", "--endpoint", &at_a];
    let added = office(&cluster.network, &new).ok().object();
    assert!(added["manifest"].as_str().unwrap().ends_with("/maxhost/manifests/identities/dave"), "{added}");
    assert!(!file("dave").exists());
    office(&cluster.network, &new).fails(4, "identity-exists");
    shows(&[&a, &b], DAVE, "it is there", is_well).await;
    ping(&[&b, &a], DAVE, CAROL).await;

    // One is changed.
    let alice = fs::read_to_string(file("alice")).unwrap();
    let line = alice.lines().find(|line| line.starts_with("cordapps")).unwrap();
    fs::write(file("alice"), alice.replace(line, "cordapps = [\"ping-pong\"]")).unwrap();
    assert_eq!(results(&office(&cluster.network, &["identity", "publish", "Alice"]).ok()), ["alice.toml changed"]);
    let runs_one = |shown: Option<&pb::Identity>| shown.is_some_and(|identity| identity.cordapps.len() == 1);
    shows(&[&a, &b], ALICE, "it has one CorDapp", runs_one).await;

    // Broken ones are quarantined with the reason, on all hosts, and cost the others nothing.
    let address = format!("{}", servers.zookeeper.client_address(0));
    let address = Address { servers: address, folder: "/maxhost/manifests".to_owned() };
    let root = TrustRoot::from_pem_file(&cluster.network.path("network/root.pem")).unwrap();
    let id: String = SecureHash::of(root.der()).to_string().chars().take(32).collect();
    let files = SharedFiles::open(ZooKeeperOptions::new(address, "test", RunId(1)), &id).await.unwrap();
    let node = |name| FileName::new(Folder::Identities, name).unwrap();
    files.put(&node("bob"), format!("name = \"{BOB}\"\nkeyz = \"x\"\n").as_bytes()).await.unwrap();
    files.put(&node("copy"), format!("name = \"{CAROL}\"\nkeys = \"../keys/copy\"\n").as_bytes()).await.unwrap();
    files.put(&node("theft"), b"name = \"O=Mallory, L=Oslo, C=NO\"\nkeys = \"/etc\"\n").await.unwrap();
    for (name, word) in [(BOB, "keyz"), ("copy.toml", "already"), ("O=Mallory, L=Oslo, C=NO", "../keys/theft")] {
        shows(&[&a, &b], name, "it is quarantined", is_quarantined).await;
        let reason = a.identity(name).await.unwrap().reason.unwrap_or_default();
        assert!(reason.contains(word), "{name}: {reason}");
    }
    let sick = manifests(&cluster.network);
    assert!(sick["ok"] == false && sick["detail"].as_str().unwrap().starts_with("3 of 7 are broken"), "{sick}");
    ping(&[&a, &b], ALICE, CAROL).await;
    assert_eq!(results(&office(&cluster.network, &["identity", "publish", "bob.toml"]).ok()), ["bob.toml changed"]);
    shows(&[&a, &b], BOB, "it is well", is_well).await;
    for name in ["copy.toml", "theft.toml"] {
        let _removed = office(&cluster.network, &["identity", "remove", name, "--yes", "--endpoint", &at_b]).ok();
    }
    shows(&[&a, &b], "copy.toml", "it is gone", |shown| shown.is_none()).await;

    // One is removed, and comes back with the keys that it had.
    let gone = ["identity", "remove", "Dave", "--yes", "--endpoint", &at_b];
    assert_eq!(office(&cluster.network, &gone).ok().object()["removed"], true);
    shows(&[&a, &b], DAVE, "it is gone", |shown| shown.is_none()).await;
    office(&cluster.network, &gone).fails(3, "identity-not-found");
    let _added = office(&cluster.network, &new).ok();
    shows(&[&a, &b], DAVE, "it is there again", is_well).await;
    ping(&[&a, &b], DAVE, CAROL).await;

    // ZooKeeper is started again: hosts go on following it.
    let Cluster { network, .. } = cluster;
    servers.zookeeper.kill(0);
    servers.zookeeper.restart(0);
    assert!(servers.zookeeper.serves().await);
    fs::write(network.path("identities/alice.toml"), alice).unwrap();
    assert_eq!(results(&office(&network, &["identity", "publish", "Alice"]).ok()), ["alice.toml changed"]);
    let runs_all = |shown: Option<&pb::Identity>| shown.is_some_and(|identity| identity.cordapps.len() > 1);
    shows(&[&a, &b], ALICE, "it has all CorDapps", runs_all).await;
    ping(&[&b, &a], BOB, ALICE).await;
}
