//! Pins of manifests, and the share of a host that joins, with hosts as processes of their own.

use std::collections::BTreeMap;
use std::fs;

use maxhost_rpc::proto::v1 as pb;
use maxhost_tests::{ALICE, Host, cli, eventually};
use serde_json::json;

use crate::cluster::{Cluster, WellServers};
use crate::roles::metric;
use crate::{result, start};

/// Identities that sleep only long after the test has ended.
const PARTIES: usize = 40;

fn pin(cluster: &Cluster<'_>, words: &str) {
    let file = cluster.network.path("identities/alice.toml");
    let text = fs::read_to_string(&file).unwrap();
    let (before, _) = text.split_once("\n[placement]").unwrap_or((&text, ""));
    // In one step, as whoever edits a file does it.
    let new = cluster.network.path("identities/alice.new");
    fs::write(&new, format!("{before}\n[placement]\nonly = [{words}]\n")).unwrap();
    fs::rename(&new, &file).unwrap();
}

fn run(cluster: &Cluster<'_>, host: &str, label: &str) -> Host {
    let file = cluster.configure(host);
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace("idle_close = \"5 s\"", "idle_close = \"20 m\"");
    fs::write(&file, text.replace("slots = 100\n", &format!("slots = 100\nlabels = [\"{label}\"]\n"))).unwrap();
    cluster.run_as_configured(host)
}

/// Who owns each identity, under which epoch.
async fn owners(host: &Host) -> BTreeMap<String, (String, i64)> {
    let found = host.client().find_identities(pb::FindIdentitiesRequest { name: None }).await.unwrap().identities;
    found.into_iter().filter_map(|found| Some((found.identity, (found.host?, found.epoch?)))).collect()
}

async fn until_looked(host: &Host, looks: f64) {
    let ticks = || metric(host, "maxhost_balance_ticks_total").unwrap();
    let before = ticks();
    eventually("the host looks whether to give something away", async || match ticks() {
        now if now >= before + looks => Ok(()),
        now => Err(format!("{before} {now}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_are_kept_and_a_host_that_joins_takes_its_share() {
    let Some(servers) = WellServers::take().await else { return };
    let mut cluster = Cluster::new(&servers, PARTIES as u32, "share", "/maxhost/share");
    cluster.more = "[cluster]\nbalance_interval = \"500 ms\"\n".to_owned();
    pin(&cluster, "\"east\"");
    let a = run(&cluster, "max-a", "west");
    for number in 1..=PARTIES {
        let party = format!("O=Party {number:05}, L=London, C=GB");
        let beat = start(&[&a], &party, "beat", json!({"beats": 1, "interval_ms": 1})).await;
        assert_eq!(result(&a, &beat).await, json!({"beats": 1}));
    }
    assert_eq!(owners(&a).await.len(), PARTIES);

    // The only host that may run Alice is not there: nobody does, and that is told.
    let words = ["flow", "start", "--identity", ALICE, "heartbeat/beat", "{\"beats\": 1, \"interval_ms\": 1}"];
    let refused = cli::answer(cluster.command("max-a", &words), None).fails(5, "identity-pinned");
    assert!(refused["message"].as_str().unwrap().contains("on east only"), "{refused}");
    let found = cluster.ask("max-a", &["identity", "where", "Alice"]).remove(0);
    assert_eq!((&found["host"], &found["only"]), (&json!(null), &json!(["east"])));
    assert!(found["unplaced"].as_str().unwrap().contains("no host of that name or label"), "{found}");
    let status = cluster.ask("max-a", &["cluster", "status"]).remove(0);
    assert_eq!((&status["identities"]["unplaced"], &status["unplaced"][0]["identity"]), (&json!(1), &json!(ALICE)));

    // It joins: it runs Alice, and takes its share of what the other runs, flows that wait included.
    let waits = start(&[&a], "O=Party 00001, L=London, C=GB", "beat", json!({"beats": 2, "interval_ms": 20_000})).await;
    let b = run(&cluster, "max-b", "east");
    let beat = start(&[&a], ALICE, "beat", json!({"beats": 100, "interval_ms": 100})).await;
    cluster.until_owned("max-a", "Alice", |owner| owner == Some("max-b")).await;
    eventually("both run about as many", async || {
        let owners = owners(&a).await;
        let of_b = owners.values().filter(|(host, _)| host == "max-b").count();
        if owners.len() == PARTIES + 1 && of_b.abs_diff(PARTIES / 2) <= 2 {
            Ok(())
        } else {
            Err(format!("{of_b} {owners:?}"))
        }
    })
    .await;
    // What was begun is over some looks later. Then nothing moves any more: whoever owns something owns it under the same epoch
    // after many more.
    until_looked(&a, 10.0).await;
    let moved = metric(&a, "maxhost_balance_moves_total").unwrap();
    assert!((15.0..=30.0).contains(&moved), "{moved} moves");
    let before = owners(&a).await;
    until_looked(&a, 10.0).await;
    until_looked(&b, 10.0).await;
    assert_eq!(owners(&b).await, before);
    assert_eq!(metric(&a, "maxhost_balance_moves_total").unwrap(), moved);
    assert_eq!(metric(&b, "maxhost_balance_moves_total").unwrap(), 0.0);

    // Another pin moves Alice while she works.
    pin(&cluster, "\"max-a\"");
    cluster.until_owned("max-b", "Alice", |owner| owner == Some("max-a")).await;
    assert_eq!(result(&b, &beat).await, json!({"beats": 100}));
    let refused = cli::answer(cluster.command("max-b", &["identity", "move", "Alice", "--to", "max-b"]), None);
    assert!(refused.error()["message"].as_str().unwrap().contains("placement.only"), "{}", refused.error());
    assert_eq!(result(&b, &waits).await, json!({"beats": 2}));
}
