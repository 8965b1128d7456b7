//! Components come and go: identities keep what they have, flows keep the code they were started with, and nothing is
//! kept that nobody needs.

use std::fs;
use std::path::PathBuf;

use maxhost_rpc::proto::v1::IdentityState;
use maxhost_tests::{ALICE, BOB, Network, eventually};
use serde_json::{Value, json};

/// Kept components that nobody names: `docs/operating.md`, Bounds.
const KEPT_UNNAMED: usize = 16;

/// The installed files of a CorDapp.
fn installed(network: &Network, name: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(network.path("cordapps")).unwrap().map(|file| file.unwrap().path());
    let is_it = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().replace('_', "-").starts_with(name);
    files.filter(is_it).collect()
}

fn kept(network: &Network) -> Vec<PathBuf> {
    fs::read_dir(network.path("data/components")).unwrap().map(|file| file.unwrap().path()).collect()
}

fn alice(network: &Network) -> Value {
    network.cli(&["identity", "show", "Alice"]).ok().object()
}

fn names(identity: &Value) -> Vec<String> {
    let cordapps = identity["cordapps"].as_array().cloned().unwrap_or_default();
    let mut names: Vec<String> =
        cordapps.iter().map(|cordapp| cordapp["name"].as_str().unwrap_or_default().to_owned()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_is_removed_takes_nothing_from_a_running_host() {
    let network = Network::new();
    let host = network.run();
    let before = names(&alice(&network));
    assert!(before.contains(&"heartbeat".to_owned()), "{before:?}");
    // Bob is awake, Alice sleeps.
    let beats = host.start(BOB, "beat", json!({"beats": 40, "interval_ms": 50})).await;
    let saved = network.path("saved.wasm");
    for file in installed(&network, "heartbeat") {
        fs::copy(&file, &saved).unwrap();
        fs::remove_file(file).unwrap();
    }
    eventually("the host has noticed", async || {
        match network.log_lines(&["go on with the CorDapps they have", "heartbeat"]).len() {
            1 => Ok(()),
            lines => Err(format!("{lines} lines")),
        }
    })
    .await;
    for identity in [ALICE, BOB] {
        assert_eq!(host.run(identity, "statics", json!({"times": 1})).await.result()["static"], 1);
        assert_eq!(
            host.run(identity, "beat", json!({"beats": 1, "interval_ms": 1})).await.result(),
            json!({"beats": 1})
        );
    }
    assert_eq!(host.run(ALICE, "ping", json!({"peer": BOB, "count": 1})).await.result(), json!({"rounds": 1}));
    assert_eq!(names(&alice(&network)), before);
    assert_ne!(alice(&network)["state"], "quarantined");
    assert_eq!(host.end(&beats).await.result(), json!({"beats": 40}));
    host.stop();

    // A host that starts has nothing to go on with, and says so.
    let host = network.run();
    let shown = host.until_identity(ALICE, IdentityState::Quarantined).await;
    assert!(shown.reason().contains("cordapp-not-found") && shown.reason().contains("heartbeat"), "{shown:?}");
    let _installed = network.cli(&["cordapp", "install", &saved.display().to_string()]).ok();
    host.until_identity(ALICE, IdentityState::Cold).await;
    assert_eq!(host.run(ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await.result(), json!({"beats": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_no_live_flow_names_is_removed_and_other_code_is_not() {
    let network = Network::new().setting("flows.linger=50ms");
    let host = network.run();
    // Waits for longer than this test runs, on the code that is installed now.
    let long = host.start(ALICE, "beat", json!({"beats": 1000, "interval_ms": 200_000})).await;
    host.until_waits(&long, "sleep").await;
    let original = fs::read(&installed(&network, "heartbeat")[0]).unwrap();
    let file = installed(&network, "heartbeat")[0].clone();
    let named = kept(&network);
    let versions = KEPT_UNNAMED + 4;
    for version in 0..versions {
        // A custom section at the end makes it another component that does the same.
        let mut bytes = original.clone();
        bytes.extend([0, 4, 3, b'v', b'e', u8::try_from(version).unwrap()]);
        let new = network.path("new.wasm");
        fs::write(&new, &bytes).unwrap();
        fs::rename(&new, &file).unwrap();
        let hash = sha256(&bytes);
        eventually("the new version is kept", async || {
            match kept(&network).iter().any(|path| path.to_string_lossy().contains(&hash)) {
                true => Ok(()),
                false => Err(format!("{:?}", kept(&network))),
            }
        })
        .await;
        let beat = host.run(ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await;
        assert_eq!(beat.result(), json!({"beats": 1}));
    }
    // What was there before, the version that is installed, and the newest of those in between.
    eventually("old versions are gone", async || match kept(&network).len() {
        left if left <= named.len() + 1 + KEPT_UNNAMED => Ok(()),
        left => Err(format!("{left} of {}", named.len() + versions)),
    })
    .await;
    for path in named {
        assert!(path.is_file(), "{} is installed or named by a live flow", path.display());
    }
    // The flow ends on the code that it was started with, after a start of the host too.
    host.kill_9();
    let host = network.run();
    assert_eq!(host.state(&long).await, "suspended");
    assert!(host.kill(&long).await);
    assert_eq!(host.state(&long).await, "killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_is_made_anew_from_what_is_installed() {
    let network = Network::new().setting("flows.linger=50ms");
    let host = network.run();
    let beat = host.start(ALICE, "beat", json!({"beats": 3, "interval_ms": 1500})).await;
    host.until_waits(&beat, "sleep").await;
    host.kill_9();
    let bytes = fs::read(&installed(&network, "heartbeat")[0]).unwrap();
    let copy = network.path(&format!("data/components/{}.wasm", sha256(&bytes)));
    assert_eq!(fs::read(&copy).unwrap(), bytes);
    let mut damaged = bytes.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&copy, &damaged).unwrap();
    // Another version is installed under another name, so that the flow's own code is needed from the copy.
    let host = network.run();
    assert_eq!(host.end(&beat).await.result(), json!({"beats": 3}));
    host.kill_9();

    // Gone altogether: the start of the host makes it again.
    fs::remove_file(&copy).unwrap();
    let host = network.run();
    assert_eq!(fs::read(&copy).unwrap(), bytes);
    host.stop();
}

fn sha256(bytes: &[u8]) -> String {
    maxhost_model::SecureHash::of(bytes).to_string()
}
