//! The binary as a user meets it, for what needs no running host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

fn maxhost(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maxhost"));
    for variable in ["MAXHOST_CONFIG", "MAXHOST_ENDPOINT", "MAXHOST_PASSPHRASE"] {
        command.env_remove(variable);
    }
    command.current_dir(dir).args(words).stdin(Stdio::null()).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn objects(output: &Output) -> Vec<Value> {
    out(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The code in the last line on standard error.
fn code(output: &Output) -> String {
    let text = err(output);
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap_or_else(|_| panic!("{text}"));
    for field in ["message", "remedy", "details"] {
        assert!(!last["error"][field].is_null(), "{last}");
    }
    last["error"]["code"].as_str().unwrap().to_owned()
}

fn exit(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn network(words: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let made = maxhost(dir.path(), &[&["init", "net", "--json"], words].concat());
    assert_eq!(exit(&made), 0, "{}", err(&made));
    dir
}

#[test]
fn init_makes_a_network_and_says_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let made = maxhost(dir.path(), &["init", "net", "--json"]);
    assert_eq!(exit(&made), 0, "{}", err(&made));
    let object = &objects(&made)[0];
    assert_eq!(object["dir"], dir.path().join("net").display().to_string());
    assert_eq!(object["identities"].as_array().unwrap().len(), 4);
    assert_eq!(object["identities"][0], "O=Alice, L=London, C=GB");
    for path in ["maxhost.toml", "identities/alice.toml", "identities/notary.toml", "keys/alice", "network/parameters"]
    {
        assert!(dir.path().join("net").join(path).exists(), "{path}");
    }
    assert!(!dir.path().join("net/.maxhost-init").exists());
}

#[test]
fn init_takes_names_and_counts() {
    let dir = network(&["--identity", "O=Dave, L=Oslo, C=NO", "--count", "12", "--notary", "O=Judge, L=Bern, C=CH"]);
    let manifests = std::fs::read_dir(dir.path().join("net/identities")).unwrap().count();
    assert_eq!(manifests, 14);
    assert!(dir.path().join("net/identities/party-00012.toml").exists());
}

#[test]
fn init_refuses_a_folder_in_use_and_goes_on_after_an_interruption() {
    let dir = network(&[]);
    let again = maxhost(dir.path(), &["init", "net", "--json"]);
    assert_eq!((exit(&again), code(&again).as_str()), (4, "directory-in-use"));
    assert_eq!(exit(&maxhost(dir.path(), &["init", ".", "--json"])), 4);
    std::fs::write(dir.path().join("file"), "").unwrap();
    let file = maxhost(dir.path(), &["init", "file", "--json"]);
    assert_eq!((exit(&file), code(&file).as_str()), (4, "directory-in-use"));

    let key = std::fs::read(dir.path().join("net/keys/alice/identity.key")).unwrap();
    std::fs::write(dir.path().join("net/.maxhost-init"), "").unwrap();
    std::fs::remove_file(dir.path().join("net/maxhost.toml")).unwrap();
    std::fs::remove_dir_all(dir.path().join("net/identities")).unwrap();
    let on = maxhost(dir.path(), &["init", "net", "--json"]);
    assert_eq!(exit(&on), 0, "{}", err(&on));
    assert_eq!(std::fs::read(dir.path().join("net/keys/alice/identity.key")).unwrap(), key);
    assert!(dir.path().join("net/identities/carol.toml").exists());
    assert!(dir.path().join("net/maxhost.toml").exists());
}

#[test]
fn init_checks_everything_before_it_writes_anything() {
    let dir = tempfile::tempdir().unwrap();
    let bad = maxhost(dir.path(), &["init", "net", "--identity", "Dave", "--json"]);
    assert_eq!((exit(&bad), code(&bad).as_str()), (4, "name-invalid"));
    std::fs::create_dir(dir.path().join("apps")).unwrap();
    std::fs::write(dir.path().join("apps/x.wasm"), "garbage").unwrap();
    let words = ["init", "net", "--cordapps", "apps", "--json"];
    let bad = maxhost(dir.path(), &words);
    assert_eq!((exit(&bad), code(&bad).as_str()), (4, "component-invalid"));
    assert!(!dir.path().join("net").exists());
    // A folder that was there is as empty as before.
    std::fs::create_dir(dir.path().join("net")).unwrap();
    assert_eq!(code(&maxhost(dir.path(), &words)), "component-invalid");
    assert_eq!(std::fs::read_dir(dir.path().join("net")).unwrap().count(), 0);
}

#[test]
fn wrong_usage_is_exit_2_in_either_form() {
    let dir = tempfile::tempdir().unwrap();
    for words in
        [&["flow", "start"][..], &["nonsense"], &["flow", "list", "--state", "odd"], &["status", "--timeout", "5"]]
    {
        let plain = maxhost(dir.path(), words);
        assert_eq!(exit(&plain), 2, "{words:?}");
        assert!(out(&plain).is_empty());
        let json = maxhost(dir.path(), &[words, &["--json"]].concat());
        assert_eq!((exit(&json), code(&json).as_str()), (2, "usage"), "{words:?}");
    }
    // A noun alone: people see the help, programs what is wrong.
    for noun in ["flow", "cordapp"] {
        let plain = maxhost(dir.path(), &[noun]);
        assert!(exit(&plain) == 2 && err(&plain).contains("Usage:"), "{noun}: {}", err(&plain));
        let json = maxhost(dir.path(), &["--json", noun]);
        assert_eq!((exit(&json), code(&json).as_str()), (2, "usage"), "{noun}");
        assert!(err(&json).contains("incomplete"), "{noun}: {}", err(&json));
    }
    // At most none is no question, wherever it is asked.
    for words in [
        &["flow", "list"][..],
        &["audit", "list"],
        &["vault", "query", "--identity", "x"],
        &["vault", "locks", "--identity", "x"],
        &["ledger", "list", "--identity", "x"],
        &["ledger", "graph", "x", "--identity", "x"],
    ] {
        let none = maxhost(dir.path(), &[words, &["--limit", "0", "--json"]].concat());
        assert_eq!((exit(&none), code(&none).as_str()), (2, "usage"), "{words:?}");
    }
    // A number below zero is a wrong value, not an unknown option; as the arguments of a flow it is a number.
    for words in
        [&["init", "x", "--count", "-1"][..], &["flow", "list", "--limit", "-1"], &["status", "--timeout", "-1s"]]
    {
        let negative = maxhost(dir.path(), words);
        let told = err(&negative);
        assert!(exit(&negative) == 2 && told.contains("invalid value '-1"), "{told}");
    }
    let number = maxhost(dir.path(), &["flow", "start", "--identity", "x", "y", "-5", "--json"]);
    assert_eq!((exit(&number), code(&number).as_str()), (3, "config-not-found"));
    for color in [&["--color", "always"][..], &["--color=always"]] {
        let colored = maxhost(dir.path(), &[color, &["nonsense"]].concat());
        assert!(exit(&colored) == 2 && err(&colored).contains('\u{1b}'), "{}", err(&colored));
    }
    assert!(!err(&maxhost(dir.path(), &["--color", "never", "nonsense"])).contains('\u{1b}'));
    let help = maxhost(dir.path(), &["--help"]);
    assert_eq!(exit(&help), 0);
    for noun in ["init", "run", "status", "identity", "cordapp", "flow", "network", "doctor", "completions"] {
        assert!(out(&help).contains(noun), "{noun}");
    }
}

#[test]
fn without_a_configuration_or_a_host_the_exit_code_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let none = maxhost(dir.path(), &["status", "--json"]);
    assert_eq!((exit(&none), code(&none).as_str()), (3, "config-not-found"));
    let dir = network(&[]);
    for words in [
        &["status"][..],
        &["identity", "list"],
        &["flow", "start", "--identity", "Alice", "x"],
        &["flow", "watch", "x"],
    ] {
        let words = [words, &["--json", "--config", "net/maxhost.toml"]].concat();
        let down = maxhost(dir.path(), &words);
        assert_eq!((exit(&down), code(&down).as_str()), (5, "host-unreachable"), "{words:?}");
    }
    // A host that has the folder and does not listen yet: who waits for it does not start another one.
    let mut lock = maxhost_store::DataLock::acquire(&dir.path().join("net/data")).unwrap();
    let early = maxhost(dir.path(), &["status", "--json", "--config", "net/maxhost.toml"]);
    assert_eq!((exit(&early), code(&early).as_str()), (5, "host-unreachable"));
    let told = err(&early);
    assert!(told.contains("not ready yet") && told.contains(&format!("process {}", std::process::id())), "{told}");
    // One that listens and has lost the file that says where.
    lock.set_endpoint("http://127.0.0.1:1").unwrap();
    let lost = maxhost(dir.path(), &["status", "--json", "--config", "net/maxhost.toml"]);
    assert_eq!((exit(&lost), code(&lost).as_str()), (5, "host-unreachable"));
    assert!(err(&lost).contains("no host answers at http://127.0.0.1:1"), "{}", err(&lost));
    drop(lock);
    // An endpoint that a killed host left behind.
    std::fs::write(dir.path().join("net/data/endpoint"), "http://127.0.0.1:1\n").unwrap();
    let gone = maxhost(dir.path(), &["flow", "list", "--json", "--config", "net/maxhost.toml"]);
    assert_eq!((exit(&gone), code(&gone).as_str()), (5, "host-unreachable"));
    let gone = maxhost(dir.path(), &["status", "--json", "--endpoint", "http://127.0.0.1:1"]);
    assert_eq!((exit(&gone), code(&gone).as_str()), (5, "host-unreachable"));
    // A port that is none would be taken for that of HTTP.
    for endpoint in ["not an url", "127.0.0.1:99999", "http://127.0.0.1:0", "https://[::1]:65536", "127.0.0.1:"] {
        let odd = maxhost(dir.path(), &["status", "--json", "--endpoint", endpoint]);
        assert_eq!((exit(&odd), code(&odd).as_str()), (2, "usage"), "{endpoint}: {}", err(&odd));
    }
    let gone = maxhost(dir.path(), &["status", "--json", "--endpoint", "[::1]:1"]);
    assert_eq!((exit(&gone), code(&gone).as_str()), (5, "host-unreachable"));
}

#[test]
fn a_wrong_configuration_is_told_with_file_line_and_remedy() {
    let dir = network(&[]);
    let file = dir.path().join("net/maxhost.toml");
    let text = std::fs::read_to_string(&file).unwrap() + "\n[flows]\nevct = \"never\"\n";
    std::fs::write(&file, &text).unwrap();
    let bad = maxhost(dir.path(), &["run", "--config", "net/maxhost.toml"]);
    assert_eq!(exit(&bad), 4);
    let line = text.lines().count();
    assert!(
        err(&bad).contains(&format!("maxhost.toml:{line}: unknown key 'flows.evct'; did you mean 'flows.evict'?")),
        "{}",
        err(&bad)
    );
    assert!(err(&bad).contains("try: "));
}

#[test]
fn a_configuration_that_is_no_ordinary_file_is_refused_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(dir.path().join("large"), "#".repeat((1 << 20) + 1)).unwrap();
    let fifo = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for (file, word) in
        [("folder", "regular file"), ("fifo", "regular file"), ("/dev/zero", "regular file"), ("large", "1048576")]
    {
        let odd = maxhost(dir.path(), &["status", "--json", "--config", file]);
        assert_eq!((exit(&odd), code(&odd).as_str()), (4, "file-unreadable"), "{file}");
        assert!(err(&odd).contains(word), "{file}: {}", err(&odd));
    }
    // Nor is what a host should have written down.
    let dir = network(&[]);
    let endpoint = dir.path().join("net/data/endpoint");
    assert!(Command::new("mkfifo").arg(&endpoint).status().unwrap().success());
    let odd = maxhost(dir.path(), &["status", "--json", "--config", "net/maxhost.toml"]);
    assert_eq!((exit(&odd), code(&odd).as_str()), (5, "host-unreachable"));
}

#[test]
fn a_wrong_override_is_told_with_a_remedy_of_its_own() {
    let dir = network(&[]);
    for (words, variable) in [(&["--set", "rpc.lsten=x"][..], "MAXHOST_ODD"), (&[], "MAXHOST_RPC_LSTEN")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_maxhost"));
        command.args(["run", "--json", "--config", "net/maxhost.toml"]).args(words).env(variable, "x");
        let bad = command.current_dir(dir.path()).output().unwrap();
        assert_eq!((exit(&bad), code(&bad).as_str()), (4, "config-invalid"), "{}", err(&bad));
        let told = err(&bad).to_lowercase();
        assert!(told.contains("did you mean") && told.contains("listen") && !told.contains("at the line"), "{told}");
    }
}

#[test]
fn odd_variables_of_the_environment_are_no_matter() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let dir = network(&[]);
    let odd = OsStr::from_bytes(b"\xff\xfe");
    let mut command = Command::new(env!("CARGO_BIN_EXE_maxhost"));
    command.env("ODD", odd).env(odd, "x").env_remove("MAXHOST_CONFIG").env("MAXHOST_ENDPOINT", "");
    let down =
        command.args(["status", "--json", "--config", "net/maxhost.toml"]).current_dir(dir.path()).output().unwrap();
    assert_eq!((exit(&down), code(&down).as_str()), (5, "host-unreachable"), "{}", err(&down));
    // Set and empty is as good as not set.
    let mut command = Command::new(env!("CARGO_BIN_EXE_maxhost"));
    command.env("MAXHOST_CONFIG", "").env("MAXHOST_ENDPOINT", "").args(["status", "--json"]);
    let down = command.current_dir(dir.path().join("net")).output().unwrap();
    assert_eq!((exit(&down), code(&down).as_str()), (5, "host-unreachable"), "{}", err(&down));
}

#[test]
fn bad_arguments_are_refused_before_the_host_is_asked() {
    let dir = network(&[]);
    let start = ["flow", "start", "--identity", "Alice", "x", "{oops", "--json", "--config", "net/maxhost.toml"];
    let bad = maxhost(dir.path(), &start);
    assert_eq!((exit(&bad), code(&bad).as_str()), (4, "arguments-invalid"));
}

#[test]
fn what_is_no_component_is_refused_and_not_installed() {
    let dir = network(&[]);
    let garbage = dir.path().join("x.wasm");
    std::fs::write(&garbage, [0; 100]).unwrap();
    let file = garbage.display().to_string();
    let bad = maxhost(dir.path(), &["cordapp", "inspect", &file, "--json"]);
    assert_eq!((exit(&bad), code(&bad).as_str()), (4, "component-invalid"));
    let bad = maxhost(dir.path(), &["cordapp", "install", &file, "--json", "--config", "net/maxhost.toml"]);
    assert_eq!((exit(&bad), code(&bad).as_str()), (4, "component-invalid"));
    assert_eq!(std::fs::read_dir(dir.path().join("net/cordapps")).unwrap().count(), 0);
    // A device without an end is read to no end.
    let endless = maxhost(dir.path(), &["cordapp", "inspect", "/dev/zero", "--json"]);
    assert_eq!((exit(&endless), code(&endless).as_str()), (4, "component-too-large"));
    let start = ["flow", "start", "--identity", "Alice", "x", "@/dev/zero", "--json", "--config", "net/maxhost.toml"];
    let endless = maxhost(dir.path(), &start);
    assert_eq!((exit(&endless), code(&endless).as_str()), (4, "message-too-large"));
    let missing = maxhost(dir.path(), &["cordapp", "inspect", "nothing.wasm", "--json"]);
    assert_eq!((exit(&missing), code(&missing).as_str()), (3, "file-not-found"));
    let missing = maxhost(dir.path(), &["cordapp", "build", "nothing", "--json"]);
    assert_eq!((exit(&missing), code(&missing).as_str()), (3, "file-not-found"));
    let missing = maxhost(dir.path(), &["init", "other", "--cordapps", "nothing", "--json"]);
    assert_eq!((exit(&missing), code(&missing).as_str()), (3, "file-not-found"));
    let empty = maxhost(dir.path(), &["cordapp", "build", ".", "--json"]);
    assert_eq!((exit(&empty), code(&empty).as_str()), (3, "file-not-found"));
    let named = maxhost(dir.path(), &["cordapp", "new", "No/Name", "--json"]);
    assert_eq!((exit(&named), code(&named).as_str()), (4, "name-invalid"));
}

#[test]
fn a_file_or_folder_that_is_not_there_is_exit_3() {
    let dir = network(&[]);
    for words in [
        &["cordapp", "inspect", "nothing.wasm"][..],
        &["cordapp", "install", "nothing.wasm", "--config", "net/maxhost.toml"],
        &["cordapp", "build", "nowhere"],
        &["cordapp", "build", "."],
        &["init", "other", "--cordapps", "nowhere"],
        &["flow", "start", "--identity", "Alice", "x", "@nothing.json", "--config", "net/maxhost.toml"],
        &["run", "--set", "identities.dir=nowhere", "--config", "net/maxhost.toml"],
    ] {
        let missing = maxhost(dir.path(), &[words, &["--json"]].concat());
        assert_eq!((exit(&missing), code(&missing).as_str()), (3, "file-not-found"), "{words:?}");
    }
    // A folder is there, but is no file.
    let folder = maxhost(dir.path(), &["cordapp", "inspect", ".", "--json"]);
    assert_eq!((exit(&folder), code(&folder).as_str()), (4, "file-unreadable"));
}

#[test]
fn a_folder_of_the_installation_that_is_missing_is_exit_3_and_named() {
    let dir = network(&[]);
    let net = dir.path().join("net");
    let passphrase = std::fs::read_to_string(net.join("keys/passphrase")).unwrap();
    let call = |words: &[&str], passphrase: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_maxhost"));
        command.env_remove("MAXHOST_PASSPHRASE").envs(passphrase.map(|text| ("MAXHOST_PASSPHRASE", text)));
        command.args(words).args(["--json", "--config", "net/maxhost.toml"]);
        command.current_dir(dir.path()).stdin(Stdio::null()).output().unwrap()
    };
    for folder in ["keys", "network", "identities", "keys/vault.toml", "network/root.pem", "network/parameters"] {
        let (here, away) = (net.join(folder), dir.path().join("away"));
        std::fs::rename(&here, &away).unwrap();
        let mut asked = vec![vec!["run"]];
        if !folder.contains('/') {
            asked.push(vec!["identity", "new", "O=Dave, L=Oslo, C=NO"]);
        }
        if ["keys", "network", "keys/vault.toml"].contains(&folder) {
            asked.push(vec!["network", "update", "--max-message-size", "10000000"]);
        }
        for words in asked {
            // The passphrase lies in the folder of keys, or comes from elsewhere.
            for passphrase in [None, Some(passphrase.trim())] {
                let missing = call(&words, passphrase);
                let told = (exit(&missing), code(&missing));
                assert_eq!(told, (3, "file-not-found".to_owned()), "{folder} {words:?}: {}", err(&missing));
                assert!(err(&missing).contains(folder), "{folder} {words:?}: {}", err(&missing));
            }
        }
        let doctor = call(&["doctor"], Some(passphrase.trim()));
        let wrong = objects(&doctor).into_iter().filter(|check| check["ok"] == false);
        let told: Vec<String> = wrong.map(|check| check["detail"].as_str().unwrap().to_owned()).collect();
        assert!(exit(&doctor) == 1 && told.iter().any(|detail| detail.contains(folder)), "{folder}: {told:?}");
        assert!(!here.exists(), "{folder} was made anew");
        std::fs::rename(&away, &here).unwrap();
    }
}

#[test]
fn a_configuration_is_looked_at_before_anything_is_made() {
    let dir = network(&[]);
    let data = dir.path().join("net/data");
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::write(dir.path().join("net/users.toml"), "[[usr]]\n").unwrap();
    for (setting, refusal) in [
        ("rpc.listen=bogus", "config-invalid"),
        ("rpc.listen=127.0.0.1", "config-invalid"),
        ("rpc.listen=no such host:1", "config-invalid"),
        ("rpc.listen=0.0.0.0:0", "listen-refused"),
        ("rpc.tls.cert=server.pem", "config-invalid"),
        ("rpc.users.file=users.toml", "user-invalid"),
        ("rpc.users.file=nobody.toml", "file-not-found"),
        ("rpc.messages.enabled=true", "config-invalid"),
        ("metrics.listen=bogus", "config-invalid"),
        ("metrics.listen=no such host:1", "config-invalid"),
        ("broker.url=amqp://localhost:5672", "config-invalid"),
        ("ownership.url=zk://localhost:2181/x", "config-invalid"),
        ("identities.source=ownership", "config-invalid"),
        ("identities.dir=nowhere", "file-not-found"),
        ("network.dir=nowhere", "file-not-found"),
        ("keys.dir=nowhere", "file-not-found"),
        ("keys.passphrase_file=nothing", "passphrase-missing"),
        ("flows.linger=soon", "config-invalid"),
        ("limits.memory=some", "config-invalid"),
        ("store.url=bogus", "config-invalid"),
        ("roles=flows", "config-invalid"),
    ] {
        let refused = maxhost(dir.path(), &["run", "--json", "--config", "net/maxhost.toml", "--set", setting]);
        assert_eq!(code(&refused), refusal, "{setting}: {}", err(&refused));
        assert!(!data.exists(), "{setting}: the data folder was made");
    }
}

#[test]
fn an_identity_is_issued_and_removed_without_a_host() {
    let dir = network(&[]);
    let call = |words: &[&str]| maxhost(dir.path(), &[words, &["--json", "--config", "net/maxhost.toml"]].concat());
    // What is not installed would only be quarantined: nothing is issued.
    let early = call(&["identity", "new", "O=Dave, L=Oslo, C=NO", "--cordapp", "ping-pong"]);
    assert_eq!((exit(&early), code(&early).as_str()), (3, "cordapp-not-found"));
    assert!(!dir.path().join("net/keys/dave").exists() && !dir.path().join("net/identities/dave.toml").exists());
    let new = call(&["identity", "new", "O=Dave, L=Oslo, C=NO"]);
    assert_eq!(exit(&new), 0, "{}", err(&new));
    assert_eq!(objects(&new)[0]["name"], "O=Dave, L=Oslo, C=NO");
    let manifest = dir.path().join("net/identities/dave.toml");
    assert!(std::fs::read_to_string(&manifest).unwrap().contains("cordapps = []"));
    let twice = call(&["identity", "new", "O=Dave, L=Oslo, C=NO"]);
    assert_eq!((exit(&twice), code(&twice).as_str()), (4, "identity-exists"));
    let bad = call(&["identity", "new", "Dave"]);
    assert_eq!((exit(&bad), code(&bad).as_str()), (4, "name-invalid"));
    assert_eq!(err(&bad).matches("'Dave' is not").count(), 1, "{}", err(&bad));
    // The same organisation elsewhere gets files of its own.
    assert_eq!(exit(&call(&["identity", "new", "O=Dave, L=Rome, C=IT"])), 0);
    let many = call(&["identity", "remove", "Dave", "--yes"]);
    assert_eq!((exit(&many), code(&many).as_str()), (4, "identity-ambiguous"));
    let nobody = call(&["identity", "remove", "", "--yes"]);
    assert_eq!((exit(&nobody), code(&nobody).as_str()), (3, "identity-not-found"));
    let removed = call(&["identity", "remove", "Oslo"]);
    assert_eq!(exit(&removed), 0, "{}", err(&removed));
    assert!(!manifest.exists() && dir.path().join("net/keys/dave").is_dir());
    let none = call(&["identity", "remove", "Oslo"]);
    assert_eq!((exit(&none), code(&none).as_str()), (3, "identity-not-found"));
}

#[test]
fn a_start_whose_answer_got_lost_tells_the_user_what_he_may_do() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    // Takes requests and goes away without an answer.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = std::io::Read::read(&mut stream.unwrap(), &mut [0; 4096]);
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let start = ["flow", "start", "--identity", "Alice", "ping", "--endpoint", &endpoint, "--json"];
    for (words, remedy) in
        [(&[][..], "--client-id"), (&["--wait"], "--client-id"), (&["--client-id", "x"], "start it again")]
    {
        let lost = maxhost(dir.path(), &[&start, words].concat());
        assert_eq!((exit(&lost), code(&lost).as_str()), (5, "host-unreachable"), "{}", err(&lost));
        assert!(err(&lost).contains(remedy), "{}", err(&lost));
    }
}

#[test]
fn notaries_and_identities_may_be_named_by_a_part_and_sizes_have_a_least() {
    let dir = network(&["--count", "2"]);
    let call = |words: &[&str]| maxhost(dir.path(), &[words, &["--json", "--config", "net/maxhost.toml"]].concat());
    let notaries = |output: &Output| {
        let shown = objects(output).pop().unwrap_or_else(|| panic!("{}", err(output)));
        shown["notaries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let added = notaries(&call(&["network", "update", "--add-notary", "00002"]));
    assert!(added.len() == 2 && added[1].contains("Party 00002"), "{added:?}");
    assert_eq!(notaries(&call(&["network", "update", "--remove-notary", "Party"])), added[..1]);
    let several = call(&["network", "update", "--add-notary", "Party"]);
    assert_eq!((exit(&several), code(&several).as_str()), (4, "identity-ambiguous"));
    assert!(err(&several).contains("Party 00001") && err(&several).contains("Party 00002"), "{}", err(&several));
    for option in ["--add-notary", "--remove-notary"] {
        let nobody = call(&["network", "update", option, "Nobody"]);
        assert_eq!((exit(&nobody), code(&nobody).as_str()), (3, "party-not-found"), "{option}");
    }
    for size in ["--max-message-size", "--max-transaction-size"] {
        for few in ["0", "1", "65535"] {
            let refused = call(&["network", "update", size, few]);
            assert_eq!((exit(&refused), code(&refused).as_str()), (4, "arguments-invalid"), "{size} {few}");
            assert!(err(&refused).contains(size) && err(&refused).contains("bytes or more"), "{}", err(&refused));
        }
    }

    let several = call(&["user", "add", "ann", "--permission", "ALL", "--identity", "Party", "--no-password"]);
    assert_eq!(code(&several), "identity-ambiguous");
    assert!(err(&several).contains("Party 00001") && err(&several).contains("Party 00002"), "{}", err(&several));
    let local = call(&["user", "add", "local", "--permission", "ALL", "--no-password"]);
    assert_eq!(code(&local), "user-invalid");
    let export = call(&["attachment", "export", "00"]);
    assert_eq!((exit(&export), code(&export).as_str()), (2, "usage"), "bytes are no JSON");
    let users = dir.path().join("net/users.toml");
    std::fs::write(&users, "[[user]]\nname = \"ann\"\npermisions = [\"ALL\"]\nidentities = [\"*\"]\n").unwrap();
    let broken = call(&["user", "list"]);
    assert_eq!((exit(&broken), code(&broken).as_str()), (4, "user-invalid"));
    assert!(err(&broken).contains("users.toml:3: ") && err(&broken).contains("'permissions'"), "{}", err(&broken));
    std::fs::write(&users, "[[user]]\nname = \"ann\nidentities = [\"*\"]\n").unwrap();
    assert!(err(&call(&["user", "list"])).contains("users.toml:2: "), "{}", err(&call(&["user", "list"])));
}

#[test]
fn doctor_finds_a_healthy_network_healthy_and_names_what_is_broken() {
    use std::os::unix::fs::PermissionsExt;
    let dir = network(&[]);
    let call = || maxhost(dir.path(), &["doctor", "--json", "--config", "net/maxhost.toml"]);
    let failed = |output: &Output| -> Vec<String> {
        let checks = objects(output);
        assert!(checks.len() >= 12, "{checks:?}");
        let wrong = checks.iter().filter(|check| check["ok"] == false);
        wrong
            .inspect(|check| assert!(check["remedy"].is_string(), "{check}"))
            .map(|check| check["check"].as_str().unwrap().to_owned())
            .collect()
    };
    let healthy = call();
    // The machine's own limits are not this test's to judge.
    let wrong: Vec<String> = failed(&healthy)
        .into_iter()
        .filter(|check| !["maps", "open files", "disk"].contains(&check.as_str()))
        .collect();
    assert!(wrong.is_empty(), "{}", out(&healthy));

    let net = dir.path().join("net");
    std::fs::write(net.join("identities/bob.toml"), "nme = \"x\"\n").unwrap();
    std::fs::set_permissions(net.join("keys/alice/identity.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(net.join("keys/passphrase"), "wrong\n").unwrap();
    std::fs::write(net.join("cordapps/x.wasm"), "x").unwrap();
    std::fs::write(net.join("data/maxhost.db"), "this is no database at all").unwrap();
    let broken = call();
    assert_eq!(exit(&broken), 1);
    let wrong = failed(&broken);
    for check in ["manifests", "keys", "passphrase", "cordapps", "database"] {
        assert!(wrong.iter().any(|wrong| wrong == check), "{check}: {}", out(&broken));
    }
    assert_eq!(code(&broken), "installation-unsound");
    let told = err(&maxhost(dir.path(), &["doctor", "--config", "net/maxhost.toml"]));
    let is_compiling =
        |line: &str| line == "the installed CorDapps are compiled for this machine first, which may take a while";
    assert!(told.lines().all(is_compiling), "people have what is wrong in lines of the output: {told}");
}

#[test]
fn what_is_done_to_a_database_has_the_fields_of_its_commands() {
    let dir = network(&[]);
    for command in ["migrate", "migrate", "check"] {
        let done = maxhost(dir.path(), &["db", command, "--json", "--config", "net/maxhost.toml"]);
        let told = objects(&done).remove(0);
        assert_eq!((exit(&done), &told["ok"]), (0, &Value::Bool(true)), "{told}");
        assert!(told.as_object().unwrap().contains_key("identity") && told["detail"].is_string(), "{told}");
        assert!(command == "check" || (told["before"].is_u64() && told["after"].is_u64()), "{told}");
    }
}

#[test]
fn doctor_finds_what_keeps_a_host_from_starting() {
    let dir = network(&[]);
    let net = dir.path().join("net");
    let configuration = std::fs::read_to_string(net.join("maxhost.toml")).unwrap();
    let finds = |more: &str, check: &str| {
        std::fs::write(net.join("maxhost.toml"), format!("{configuration}\n{more}\n")).unwrap();
        let checks = objects(&maxhost(dir.path(), &["doctor", "--json", "--config", "net/maxhost.toml"]));
        let found = checks.iter().find(|found| found["check"] == check).unwrap_or_else(|| panic!("{more}: {checks:?}"));
        (found["ok"].as_bool().unwrap(), found["detail"].as_str().unwrap().to_owned())
    };
    std::fs::write(net.join("users.toml"), "[[user]]\nname = \"ann\"\npermisions = []\n").unwrap();
    std::fs::create_dir(net.join("folder")).unwrap();
    for file in ["users.toml", "none.toml", "folder"] {
        let (ok, detail) = finds(&format!("[rpc.users]\nfile = \"{file}\""), "users");
        assert!(!ok && detail.contains(file), "{detail}");
    }
    assert!(finds("", "users").0 && finds("", "tls").0);
    assert!(!finds("[rpc.tls]\ncert = \"none.pem\"\nkey = \"none.key\"", "tls").0);
    assert!(!finds("[rpc.tls]\ncert = \"users.toml\"\nkey = \"users.toml\"", "tls").0);
    assert!(!finds("[metrics]\nlisten = \"nowhere\"", "config").0);
    assert!(!finds("[metrics]\nlisten = \"no such host:1\"", "metrics").0);
    assert!(finds("[metrics]\nlisten = \"127.0.0.1:0\"", "metrics").0);
    // A lock that cannot be read, as another user's cannot, says nothing about whether a host runs.
    let _there_was_none = std::fs::remove_file(net.join("data/host.lock"));
    std::os::unix::fs::symlink("host.lock", net.join("data/host.lock")).unwrap();
    let (ok, detail) = finds("", "host");
    assert!(!ok && detail.contains("cannot be read"), "{detail}");
}

#[test]
fn output_that_cannot_be_written_is_a_failure_and_a_reader_that_has_gone_is_none() {
    let dir = network(&[]);
    let data = dir.path().join("data.csv");
    std::fs::write(&data, "a,b\n").unwrap();
    let imported = maxhost(dir.path(), &["attachment", "import", "data.csv", "--json", "--config", "net/maxhost.toml"]);
    let id = objects(&imported)[0]["id"].as_str().unwrap().to_owned();
    let run = |words: &[&str], out: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_maxhost"));
        command.current_dir(dir.path()).args(words).stdin(Stdio::null()).stdout(out).output().unwrap()
    };
    let export = ["attachment", "export", &id, "--config", "net/maxhost.toml"];
    for (words, tells_json) in [
        (&["completions", "bash", "--json"][..], true),
        (&["--help", "--json"], true),
        (&["--version", "--json"], true),
        (&["flow", "start", "--help", "--json"], true),
        (&["attachment", "list", "--json", "--config", "net/maxhost.toml"], true),
        (&["--help"], false),
        (&["identity", "-h"], false),
        // The bytes of a file are no JSON.
        (&export, false),
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let lost = run(words, full.into());
        assert_eq!(exit(&lost), 1, "{words:?}: {}", err(&lost));
        match tells_json {
            true => assert_eq!(code(&lost), "output-failed", "{words:?}"),
            false => assert!(err(&lost).contains("[output-failed]"), "{words:?}: {}", err(&lost)),
        }
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let gone = run(words, writer.into());
        assert!(exit(&gone) == 0 && gone.stderr.is_empty(), "{words:?}: {}", err(&gone));
    }
}

#[test]
fn completions_are_scripts() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = maxhost(dir.path(), &["completions", shell]);
        assert_eq!(exit(&script), 0);
        assert!(out(&script).contains("maxhost"), "{shell}");
    }
}
