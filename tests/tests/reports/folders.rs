//! Folders of manifests that are changed in ways of their own: each change acts within a second.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use maxhost_rpc::proto::v1 as pb;
use maxhost_tests::{Host, Network, eventually};

/// How long a change may take to act, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(10);

fn sh(folder: &Path, script: &str) {
    let status = Command::new("bash").arg("-ec").arg(script).current_dir(folder).status().unwrap();
    assert!(status.success(), "{script}");
}

async fn acts(host: &Host, what: &str, fits: impl Fn(&pb::Identity) -> bool) {
    let begun = Instant::now();
    eventually(what, async || {
        let alice = host.identity("Alice").await.map_err(|problem| problem.to_string())?;
        if fits(&alice) { Ok(()) } else { Err(format!("{alice:?}")) }
    })
    .await;
    let took = begun.elapsed();
    assert!(took < SOON, "{what} took {took:?}: it was found by the slow look only");
}

fn runs(identity: &pb::Identity, cordapps: usize) -> bool {
    identity.cordapps.len() == cordapps && identity.state() != pb::IdentityState::Quarantined
}

/// Leaves the first CorDapp only.
const ONE: &str = r#"sed -i 's/^cordapps.*/cordapps = ["ping-pong"]/' "#;

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_was_replaced_by_a_copy_is_watched_as_the_first_one_was() {
    let network = Network::new();
    let host = network.run();
    let all = host.identity("Alice").await.unwrap().cordapps.len();
    assert!(all > 1);
    sh(network.folder(), "cp -r identities copy; rm -rf identities; mv copy identities");
    acts(&host, "the same manifest in the copy", |alice| runs(alice, all)).await;
    // Whatever was still on its way from the replacement is over.
    tokio::time::sleep(Duration::from_secs(1)).await;
    sh(network.folder(), &format!("{ONE} identities/alice.toml"));
    acts(&host, "a change in the copy", |alice| runs(alice, 1)).await;
    sh(network.folder(), "mv identities away; mkdir identities; cp away/*.toml identities/");
    tokio::time::sleep(Duration::from_secs(1)).await;
    sh(network.folder(), r#"echo 'broken = 1' >> identities/alice.toml"#);
    acts(&host, "a fault in the second copy", |alice| alice.state() == pb::IdentityState::Quarantined).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_are_links_act_when_their_files_do() {
    let network = Network::new();
    // As Kubernetes mounts a ConfigMap: links to a link to a folder.
    sh(
        network.folder(),
        "mv identities first; mkdir identities; ln -s first now; for f in first/*.toml; do ln -s ../now/$(basename $f) identities/; done",
    );
    let host = network.run();
    let all = host.identity("Alice").await.unwrap().cordapps.len();
    tokio::time::sleep(Duration::from_secs(1)).await;
    sh(network.folder(), &format!("cp -r first second; {ONE} second/alice.toml; ln -sfn second now"));
    acts(&host, "another folder behind the link", |alice| runs(alice, 1)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    sh(network.folder(), "cp first/alice.toml second/alice.toml");
    acts(&host, "another file behind the link", |alice| runs(alice, all)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_stops_nothing() {
    let network = Network::new();
    let host = network.run();
    sh(network.folder(), "mkfifo identities/fifo.toml cordapps/fifo.wasm; mkdir identities/folder.toml");
    eventually("a FIFO that is told", async || match host.identity("fifo.toml").await {
        Ok(identity) if identity.state() == pb::IdentityState::Quarantined => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    sh(network.folder(), &format!("{ONE} identities/alice.toml"));
    acts(&host, "a change beside a FIFO", |alice| runs(alice, 1)).await;
    let doctor = network.cli(&["doctor"]);
    assert_eq!(doctor.exit, 1, "{doctor}");
    assert!(doctor.out.contains("fifo.toml") && doctor.out.contains("fifo.wasm"), "{doctor}");
}
