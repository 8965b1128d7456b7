//! What surrounds the program: the environment it is started in, the umask, the files it leaves.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use maxhost_tests::{ALICE, BOB, Host, Network, cli};
use serde_json::json;

#[test]
fn variables_that_kubernetes_injects_are_ignored_and_misspelt_ones_are_not() {
    let network = Network::new();
    let with = |name: &str, value: &str| {
        let mut command = network.command(&["doctor"]);
        command.env(name, value);
        cli::answer(command, None)
    };
    for (name, value) in [
        ("MAXHOST_RPC_PORT", "tcp://10.0.0.1:7000"),
        ("MAXHOST_RPC_SERVICE_HOST", "10.0.0.1"),
        ("MAXHOST_RPC_SERVICE_PORT_GRPC", "7000"),
        ("MAXHOST_STORE_PORT_5432_TCP_ADDR", "10.0.0.2"),
    ] {
        let answer = with(name, value);
        let config = answer.objects().into_iter().find(|check| check["check"] == "config").unwrap();
        assert_eq!(config["ok"], true, "{name}: {answer}");
    }
    let answer = with("MAXHOST_RPC_LISTN", "127.0.0.1:0");
    let config = answer.objects().into_iter().find(|check| check["check"] == "config").unwrap();
    assert_eq!(config["ok"], false, "{answer}");
    assert!(config["detail"].as_str().unwrap().contains("MAXHOST_RPC_LISTEN"), "{answer}");
}

fn all_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        found.extend(if path.is_dir() { all_below(&path) } else { vec![path] });
    }
    found
}

/// Files and folders that others than the owner may use.
fn open_to_others(folder: &Path) -> Vec<String> {
    let exposed = |path: &PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o077 != 0;
    all_below(folder).into_iter().filter(exposed).map(|path| path.display().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_flows_say_and_keys_are_their_owners_whatever_the_umask() {
    let network = Network::new();
    // As a copy by an operator leaves them.
    let data = network.path("data");
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(network.path("data/broker.db-old"), "x").unwrap();
    // Also below the first level, as an earlier version left it.
    std::fs::create_dir(network.path("data/attachments")).unwrap();
    std::fs::write(network.path("data/attachments/old"), "x").unwrap();
    let doctor = network.cli(&["doctor"]);
    let private = |answer: &cli::Answer| {
        answer.objects().into_iter().find(|check| check["check"] == "private").unwrap()["ok"].as_bool().unwrap()
    };
    assert!(!private(&doctor), "{doctor}");
    let mut command = network.run_command();
    // SAFETY: umask is safe to call between fork and exec, and touches no memory.
    unsafe {
        command.pre_exec(|| {
            libc::umask(0);
            Ok(())
        })
    };
    let host = Host::up(command, network.folder());
    host.run(ALICE, "ping", json!({"peer": BOB, "count": 3})).await.result();
    assert_eq!(open_to_others(&data), Vec::<String>::new());
    assert!(private(&network.cli(&["doctor"])));
    let keys = network.path("keys");
    assert!(open_to_others(&keys).iter().all(|path| !Path::new(path).is_dir()), "{:?}", open_to_others(&keys));
    // Certificates and names are everybody's, if everybody gets there.
    let secret = |path: &&String| {
        path.ends_with(".key") || path.ends_with("passphrase") || path.ends_with("vault.toml") || path.contains("vault")
    };
    assert_eq!(open_to_others(&keys).iter().find(secret), None);
}

/// Runs a command under a umask that lets everybody read.
fn with_usual_umask(network: &Network, args: &[&str]) -> cli::Answer {
    let mut command = network.command(args);
    // SAFETY: umask is safe to call between fork and exec, and touches no memory.
    unsafe {
        command.pre_exec(|| {
            libc::umask(0o022);
            Ok(())
        })
    };
    cli::answer(command, None)
}

#[test]
fn an_attachment_that_is_imported_is_its_owners_only() {
    let network = Network::new();
    let private = |answer: &cli::Answer| {
        let found = answer.objects().into_iter().find(|check| check["check"] == "private").unwrap();
        (found["ok"].as_bool().unwrap(), found["detail"].as_str().unwrap().to_owned())
    };
    for path in all_below(&network.path("data")) {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode & 0o700)).unwrap();
    }
    let terms = network.path("terms.txt");
    std::fs::write(&terms, "the terms of a loan").unwrap();
    let imported = with_usual_umask(&network, &["attachment", "import", terms.to_str().unwrap()]).ok().object();
    let file = PathBuf::from(imported["file"].as_str().unwrap());
    assert!(file.is_file(), "{}", file.display());
    assert_eq!(open_to_others(&network.path("data/attachments")), Vec::<String>::new());
    assert!(private(&network.cli(&["doctor"])).0);
    // Doctor looks into the folders below, too.
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let (ok, detail) = private(&network.cli(&["doctor"]));
    assert!(!ok && detail.contains(&file.display().to_string()), "{detail}");
}
