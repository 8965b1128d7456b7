//! What a host does whose server goes away, and what its commands say of it.

use std::time::Duration;

use maxhost_tests::{ALICE, BOB, Network};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn flows_wait_for_the_server_and_go_on() {
    let network = Network::new().on_own_server();
    let server = network.server().unwrap();
    let mut host = network.run();
    let beat = host.start(BOB, "beat", json!({"beats": 30, "interval_ms": 100})).await;
    assert_eq!(host.run(ALICE, "statics", json!({"times": 1})).await.result()["static"], 1);
    for round in 0..3 {
        tokio::task::block_in_place(|| {
            match round {
                0 => server.kill().unwrap(),
                1 => server.pause().unwrap(),
                _ => server.stop().unwrap(),
            }
            std::thread::sleep(Duration::from_millis(600));
            match round {
                1 => server.unpause().unwrap(),
                _ => server.resume().unwrap(),
            }
        });
        assert!(host.is_running());
        let pinged = host.run(ALICE, "ping", json!({"peer": BOB, "count": 2})).await;
        assert_eq!(pinged.result(), json!({"rounds": 2}));
    }
    assert_eq!(host.end(&beat).await.result(), json!({"beats": 30}));
    let status = host.until_quiet().await;
    for phase in ["hospital", "failed", "killed"] {
        assert_eq!(status.flows[phase], 0, "{phase}: {status:?}");
    }
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_say_what_is_wrong_with_the_server() {
    let network = Network::new().on_own_server();
    let server = network.server().unwrap();
    let migrated = network.cli(&["db", "migrate"]).object();
    assert_eq!(migrated["before"], 0, "{migrated}");
    assert!(migrated["after"].as_i64().unwrap() > 0);
    assert_eq!(network.cli(&["db", "migrate"]).object()["before"], migrated["after"]);
    let check = network.cli(&["db", "check"]).objects();
    assert!(check.iter().all(|line| line["ok"] == true), "{check:?}");
    let doctor = || {
        let lines = network.cli(&["doctor"]).objects();
        lines.into_iter().find(|line| line["check"] == "database").unwrap()
    };
    assert_eq!(doctor()["ok"], true, "{:?}", doctor());
    tokio::task::block_in_place(|| server.stop().unwrap());
    let away = doctor();
    assert!(away["ok"] == false && away["remedy"].as_str().unwrap().contains("start the database server"), "{away}");
    network.refused().fails(5, "store-unreachable");
    tokio::task::block_in_place(|| server.resume().unwrap());
    let host = network.run();
    assert_eq!(host.run(ALICE, "statics", json!({"times": 1})).await.result()["static"], 1);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_read_from_its_file_and_told_to_nobody() {
    let network = Network::new();
    let server = network.server().unwrap();
    let database = network.sql("SELECT current_database()");
    let file = network.path("keys/database-password");
    std::fs::write(&file, "wrong-s3cret\n").unwrap();
    let over_tcp =
        [format!("store.url={}", server.tcp_url(&database)), format!("store.password_file={}", file.display())];
    let network = network.settings(&over_tcp.each_ref().map(String::as_str));
    network.refused().fails(4, "store-denied");
    std::fs::copy(server.password_file(), &file).unwrap();
    let mut command = network.run_command();
    command.env("MAXHOST_LOG", "debug");
    let host = maxhost_tests::Host::up(command, network.folder());
    assert_eq!(host.run(ALICE, "statics", json!({"times": 1})).await.result()["static"], 1);
    host.stop();
    let log = std::fs::read_to_string(network.path("host.log")).unwrap();
    let password = std::fs::read_to_string(server.password_file()).unwrap();
    assert!(!log.contains("s3cret") && !log.contains(password.trim()), "the log shows a password");
}
