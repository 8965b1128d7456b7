//! Files that are no CorDapps: refused by the command line, and harmless in the folder of a running host.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use maxhost_rpc::proto::v1::IdentityState;
use maxhost_tests::{ALICE, BOB, Host, Network, cli, eventually};
use serde_json::json;

/// Of the right shape, but for one thing.
const BAD: &[(&str, &str, &str)] = &[
    ("garbage", "", "component-invalid"),
    ("module", "(module)", "component-invalid"),
    ("empty", "(component)", "component-wrong-world"),
    (
        "describe-only",
        r#"(component
            (core module $m (func (export "f")))
            (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "f")))
            (export "describe" (func $f)))"#,
        "component-wrong-world",
    ),
    ("http", r#"(component (import "wasi:http/types@0.2.6" (instance)))"#, "component-forbidden-import"),
    ("own-import", r#"(component (import "acme:secret/door" (instance)))"#, "component-forbidden-import"),
];

fn bytes(text: &str) -> Vec<u8> {
    if text.is_empty() { b"\0asm, or so it says".to_vec() } else { wat::parse_str(text).unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_refuses_them_and_installs_nothing() {
    let network = Network::new();
    let installed = || fs::read_dir(network.path("cordapps")).unwrap().count();
    let before = installed();
    for (name, text, code) in BAD {
        let file = network.path(&format!("{name}.wasm"));
        fs::write(&file, bytes(text)).unwrap();
        let file = file.display().to_string();
        for verb in ["inspect", "install"] {
            let error = network.cli(&["cordapp", verb, &file]).fails(4, code);
            if *code == "component-forbidden-import" {
                let import = text.split('"').nth(1).unwrap();
                assert!(error["message"].as_str().unwrap().contains(import), "{error}");
            }
        }
    }
    assert_eq!(installed(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_host_is_unharmed_by_them() {
    let network = Network::new();
    let host = network.run();
    let beat = host.start(ALICE, "beat", json!({"beats": 20, "interval_ms": 50})).await;
    for (name, text, _) in BAD {
        fs::write(network.path(&format!("cordapps/{name}.wasm")), bytes(text)).unwrap();
    }
    // Who names one of them is quarantined with the reason; nobody else notices.
    let manifest = format!("name = \"{}\"\ncordapps = [\"http\"]\nkeys = \"../keys/carol\"\n", maxhost_tests::CAROL);
    fs::write(network.path("identities/carol.toml"), manifest).unwrap();
    let carol = host.until_identity(maxhost_tests::CAROL, IdentityState::Quarantined).await;
    assert!(carol.reason().contains("component-forbidden-import"), "{carol:?}");
    assert_eq!(host.run(ALICE, "ping", json!({"peer": BOB, "count": 1})).await.result(), json!({"rounds": 1}));
    assert_eq!(host.end(&beat).await.result(), json!({"beats": 20}));
    host.stop();
    // Nor is a host that starts over them.
    let host = network.run();
    assert_eq!(host.run(ALICE, "ping", json!({"peer": BOB, "count": 1})).await.result(), json!({"rounds": 1}));
    let doctor = network.cli(&["doctor"]);
    assert_eq!(doctor.exit, 1, "{doctor}");
    let check = doctor.objects().into_iter().find(|check| check["check"] == "cordapps").unwrap();
    assert_eq!(check["ok"], false, "{check}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_one_is_inspected_installed_and_used_without_a_restart() {
    let network = Network::new();
    let file = cli::cordapps().join("heartbeat.wasm").display().to_string();
    let inspected = network.cli(&["cordapp", "inspect", &file]).ok().object();
    assert_eq!(inspected["name"], "heartbeat");
    assert_eq!(inspected["bytes"], fs::metadata(&file).unwrap().len());
    assert_eq!(inspected["hash"].as_str().map(str::len), Some(64));
    assert!(inspected["version"].is_string());
    assert!(
        inspected["imports"]
            .as_array()
            .unwrap()
            .iter()
            .any(|import| import.as_str().unwrap().starts_with("maxhost:cordapp"))
    );
    let beat = &inspected["flows"][0];
    assert_eq!((&beat["name"], &beat["startable"], &beat["responds_to"]), (&json!("beat"), &json!(true), &json!(null)));
    assert!(beat["arguments"]["properties"]["interval_ms"].is_object(), "{beat}");

    let installed = || -> Vec<PathBuf> {
        let files = fs::read_dir(network.path("cordapps")).unwrap().map(|file| file.unwrap().path());
        files.filter(|file| file.display().to_string().contains("heartbeat")).collect()
    };
    installed().iter().for_each(|file| fs::remove_file(file).unwrap());
    let manifest = format!("name = \"{ALICE}\"\ncordapps = [\"heartbeat\"]\nkeys = \"../keys/alice\"\n");
    fs::write(network.path("identities/alice.toml"), manifest).unwrap();
    let host = network.run();
    let alice = host.until_identity(ALICE, IdentityState::Quarantined).await;
    assert!(alice.reason().contains("cordapp-not-found"), "{alice:?}");

    let answer = network.cli(&["cordapp", "install", &file]).ok().object();
    assert_eq!((&answer["name"], &answer["hash"]), (&inspected["name"], &inspected["hash"]));
    assert_eq!(installed().len(), 1);
    // The same again changes nothing.
    let _again = network.cli(&["cordapp", "install", &file]).ok();
    host.until_identity(ALICE, IdentityState::Cold).await;
    let types = eventually("what Alice can run", async || {
        let types = network.cli(&["flow", "types", "--identity", "Alice"]);
        if types.exit == 0 { Ok(types.objects()) } else { Err(types.to_string()) }
    })
    .await;
    assert_eq!(types.len(), 1);
    assert_eq!(host.run(ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await.result(), json!({"beats": 1}));
}

/// The machine code in a folder, and when each file of it was written.
fn machine_code(folder: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let code = files.filter(|file| file.extension().is_some_and(|extension| extension == "cwasm"));
    code.map(|file| (file.clone(), fs::metadata(file).unwrap().modified().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_init_has_compiled_is_not_compiled_again() {
    let dir = tempfile::tempdir().unwrap();
    let [apps, net] = ["apps", "net"].map(|name| dir.path().join(name));
    fs::create_dir(&apps).unwrap();
    for file in ["heartbeat.wasm", "cash.contract.wasm"] {
        fs::copy(cli::cordapps().join(file), apps.join(file)).unwrap();
    }
    let made = cli::run(&["init", net.to_str().unwrap(), "--cordapps", apps.to_str().unwrap(), "--json"]);
    assert_eq!(made.ok().object()["cordapps"], json!(["heartbeat"]));
    let code = || ["data/code", "data/code/contracts"].map(|folder| machine_code(&net.join(folder)));
    let compiled = code();
    assert_eq!(compiled.each_ref().map(BTreeMap::len), [1, 1]);

    let file = net.join("maxhost.toml").display().to_string();
    let doctor = cli::run(&["doctor", "--json", "--config", &file]).objects();
    let check = doctor.iter().find(|check| check["check"] == "cordapps").unwrap();
    assert_eq!(check["ok"], true, "{check}");
    assert_eq!(cli::run(&["attachment", "list", "--json", "--config", &file]).ok().objects().len(), 1);
    let host = Host::up(cli::command(&["run", "--json", "--config", &file]), &net);
    let beats = host.run(ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await.result();
    assert_eq!(beats, json!({"beats": 1}));
    assert_eq!(code(), compiled);
}
