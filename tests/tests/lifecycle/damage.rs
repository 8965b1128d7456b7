//! A damaged row costs its flow, and nothing else.

use maxhost_model::FlowId;
use maxhost_tests::{ALICE, Host, Network};
use serde_json::json;

/// Two flows that will wait for a while, and a host that died.
async fn two_waiting(network: &Network) -> (String, String) {
    let host = network.run();
    let beat = json!({"beats": 8, "interval_ms": 150});
    let damaged = host.start(ALICE, "beat", beat.clone()).await;
    let sound = host.start(ALICE, "beat", beat).await;
    for flow in [&damaged, &sound] {
        host.until(flow, |shown| shown.journal.is_some_and(|journal| journal.entries >= 2)).await;
    }
    host.kill_9();
    (damaged, sound)
}

fn damage(network: &Network, flow_id: &str, table: &str, key: &str, column: &str) {
    let database = network.database();
    let row = flow_id.parse::<FlowId>().unwrap().row().0;
    let body: Vec<u8> = database
        .query_row(&format!("SELECT {column} FROM {table} WHERE {key} = ?1 LIMIT 1"), [row], |row| row.get(0))
        .unwrap();
    let mut damaged = body.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    let changed = database
        .execute(
            &format!("UPDATE {table} SET {column} = ?1 WHERE {key} = ?2 AND {column} = ?3"),
            (&damaged, row, &body),
        )
        .unwrap();
    assert_eq!(changed, 1);
}

async fn only_it_is_in_hospital(network: &Network, host: &Host, damaged: &str, sound: &str) {
    host.until_state(damaged, "hospital").await;
    assert_eq!(host.end(sound).await.result(), json!({"beats": 8}));
    let shown = network.cli(&["flow", "show", damaged]).ok().object();
    assert_eq!(shown["state"], "hospital");
    assert!(shown["reason"].as_str().is_some_and(|reason| reason.contains("journal-corrupt")), "{shown}");
    let held = network.cli(&["flow", "list", "--state", "hospital"]).ok().objects();
    assert_eq!(held.len(), 1);
    assert_eq!((&held[0]["flow_id"], &held[0]["reason"]), (&shown["flow_id"], &shown["reason"]));
    assert_eq!(host.status().await.flows["hospital"], 1);
    let event = host.event("flow-hospitalised", |event| event["flow_id"] == damaged);
    assert!(event["reason"].as_str().unwrap().contains("journal-corrupt"), "{event}");
    assert_eq!((&event["identity"], &event["flow"]), (&json!(ALICE), &json!("heartbeat/beat")));
    let told = network.log_lines(&["needs a person", damaged]);
    assert!(told.len() == 1 && told[0].contains("journal-corrupt"), "{told:#?}");
    // The identity works, and a person can end the flow.
    assert_eq!(host.run(ALICE, "statics", json!({"times": 1})).await.result()["static"], 1);
    let killed = network.cli(&["flow", "kill", damaged]).ok().object();
    assert_eq!((&killed["killed"], &killed["state"]), (&json!(true), &json!("killed")));
    assert_eq!(host.status().await.flows["hospital"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_row_puts_one_flow_into_hospital() {
    let network = Network::new();
    let (damaged, sound) = two_waiting(&network).await;
    damage(&network, &damaged, "journal", "flow", "body");
    let host = network.run();
    only_it_is_in_hospital(&network, &host, &damaged, &sound).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_start_record_puts_one_flow_into_hospital() {
    let network = Network::new();
    let (damaged, sound) = two_waiting(&network).await;
    damage(&network, &damaged, "flow", "id", "start_body");
    let host = network.run();
    only_it_is_in_hospital(&network, &host, &damaged, &sound).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_in_hospital_stays_there_over_a_restart() {
    let network = Network::new();
    let (damaged, _) = two_waiting(&network).await;
    damage(&network, &damaged, "journal", "flow", "body");
    let host = network.run();
    host.until_state(&damaged, "hospital").await;
    host.kill_9();
    let host = network.run();
    // It is tried again, and found as damaged as before.
    host.until_state(&damaged, "hospital").await;
    assert!(host.kill(&damaged).await);
    assert_eq!(host.state(&damaged).await, "killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_flows_in_hospital_and_a_damaged_database() {
    let network = Network::new();
    let (damaged, sound) = two_waiting(&network).await;
    damage(&network, &damaged, "journal", "flow", "body");
    let look = |check: &str| {
        let checks = network.cli(&["doctor"]).objects();
        checks.into_iter().find(|told| told["check"] == check).unwrap_or_else(|| panic!("no check {check}"))
    };
    let host = network.run();
    host.until_state(&damaged, "hospital").await;
    let database = look("database");
    assert!(database["ok"] == true && database["detail"].as_str().unwrap().contains("is sound"), "{database}");
    let hospital = look("hospital");
    assert!(hospital["ok"] == false && hospital["detail"].as_str().unwrap().ends_with(" 1"), "{hospital}");
    assert!(hospital["remedy"].as_str().unwrap().contains("flow list --state hospital"), "{hospital}");
    // The host did not notice.
    assert_eq!(host.end(&sound).await.result(), json!({"beats": 8}));
    assert!(host.kill(&damaged).await);
    assert_eq!(look("hospital")["ok"], true);
    host.stop();
    assert_eq!(look("database")["ok"], true);

    let file = network.path("data/maxhost.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let page = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
    bytes[page..2 * page].fill(0xa5);
    std::fs::write(&file, &bytes).unwrap();
    let database = look("database");
    assert!(database["ok"] == false && database["detail"].as_str().unwrap().contains("maxhost.db"), "{database}");
    assert!(database["remedy"].as_str().unwrap().contains("restore the database file from a backup"), "{database}");
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "it changes nothing");
    assert_eq!(network.cli(&["doctor"]).exit, 1);
}
