//! What manifests say of hosts, between hosts of one process: pins, wishes, and groups that run apart.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use maxhost_flows::api::{Caller, HostApi};
use maxhost_flows::{Balancing, Host, HostRules, IdentitySpec};
use maxhost_model::{Class, Code};
use maxhost_tests::{ALICE, BOB, CAROL, eventually};
use serde_json::json;

use crate::fixture::*;

const SHORT: [(&str, &str); 3] = [(ALICE, "alice"), (BOB, "bob"), (CAROL, "carol")];

/// Hosts that look often whether identities are better off elsewhere.
async fn lively() -> Cluster {
    let balancing = Balancing { interval: Duration::from_millis(150), ..Balancing::default() };
    Cluster { balancing, ..Cluster::new().await }
}

fn words(words: &[&str]) -> Arc<[Arc<str>]> {
    words.iter().map(|word| Arc::from(*word)).collect()
}

fn only(names: &[&str]) -> HostRules {
    HostRules { only: words(names), ..HostRules::default() }
}

/// Changes the manifest of an identity on hosts that run.
async fn put(cluster: &Cluster, hosts: &[&Arc<Host>], name: &str, rules: HostRules) {
    let (_, short) = SHORT.iter().find(|(known, _)| *known == name).unwrap();
    for host in hosts {
        let spec = IdentitySpec { hosts: rules.clone(), ..cluster.spec(name, short) };
        host.put_identity(spec).await.unwrap();
    }
}

async fn until_owned(cluster: &Cluster, name: &str, owner: Option<&str>) {
    eventually(&format!("{name} is run by {owner:?}"), async || match cluster.owner(name).await {
        found if found.as_deref() == owner => Ok(()),
        found => Err(format!("{found:?}")),
    })
    .await;
}

async fn counter(host: &Host, name: &str) -> u64 {
    host.status(&Caller::local()).await.unwrap().counters[name]
}

/// Waits until each host has looked so often whether to give something away, and returns the owners with their epochs then.
async fn owners_after(cluster: &Cluster, hosts: &[&Arc<Host>], looks: u64) -> BTreeSet<(String, i64)> {
    for host in hosts {
        let before = counter(host, "balance_ticks").await;
        eventually("the host looks", async || match counter(host, "balance_ticks").await {
            ticks if ticks >= before + looks => Ok(()),
            ticks => Err(format!("{before} {ticks}")),
        })
        .await;
    }
    let owners = cluster.onlooker.owners().await.unwrap();
    owners.iter().map(|owner| (owner.host.to_string(), owner.token.epoch)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_identity_runs_on_no_other_host_and_whoever_asks_is_told() {
    let cluster = lively().await;
    let (a, b) = (cluster.host("a", |_| ()).await, cluster.host("b", |_| ()).await);
    put(&cluster, &[&a, &b], ALICE, only(&["b"])).await;
    // Whoever is asked passes it on.
    let beat = try_start(&a, ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap();
    assert_eq!(result(&a, beat).await, json!({"beats": 1}));
    assert_eq!(cluster.owner(ALICE).await.as_deref(), Some("b"));
    let refused = a.move_identity(&Caller::local(), ALICE, "a").await.unwrap_err();
    assert!(refused.code == Code::RequestInvalid && refused.message.contains("placement.only"), "{refused}");

    // Another pin has her handed over while she works, and nothing of that is lost.
    let beat = try_start(&b, ALICE, "beat", json!({"beats": 40, "interval_ms": 50})).await.unwrap();
    put(&cluster, &[&b, &a], ALICE, only(&["a"])).await;
    until_owned(&cluster, ALICE, Some("a")).await;
    assert_eq!(result(&b, beat).await, json!({"beats": 40}));
    assert!(counter(&b, "placement_moves").await >= 1);
    assert_eq!(counter(&b, "balance_moves").await, 0);

    // Nobody runs her while the only host that may is away, and that is told.
    let beat = try_start(&a, ALICE, "beat", json!({"beats": 60, "interval_ms": 50})).await.unwrap();
    put(&cluster, &[&a, &b], ALICE, only(&["max-9", "c"])).await;
    until_owned(&cluster, ALICE, None).await;
    for host in [&a, &b] {
        let refused = try_start(host, ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap_err();
        assert_eq!((refused.code, refused.class()), (Code::IdentityPinned, Class::Unavailable), "{refused}");
        assert!(refused.message.contains("max-9, c") && refused.remedy.contains("placement.only"), "{refused:?}");
        let found = host.whereabouts(&Caller::local(), Some(ALICE)).await.unwrap().remove(0);
        assert!(found.host.is_none() && found.unplaced.as_deref().unwrap().contains("in the cluster"), "{found:?}");
        assert_eq!(found.rules, only(&["max-9", "c"]));
        let status = host.cluster_status(&Caller::local()).await.unwrap();
        assert_eq!((status.identities["unplaced"], status.unplaced[0].0.as_str()), (1, ALICE));
    }
    let after = owners_after(&cluster, &[&a, &b], 3).await;
    assert!(after.is_empty(), "nobody takes her: {after:?}");
    assert_eq!(cluster.owner(ALICE).await, None);

    // When it comes, she goes on.
    let c = cluster.host("c", |_| ()).await;
    put(&cluster, &[&c], ALICE, only(&["max-9", "c"])).await;
    until_owned(&cluster, ALICE, Some("c")).await;
    assert_eq!(result(&a, beat).await, json!({"beats": 60}));
    let found = a.whereabouts(&Caller::local(), Some(ALICE)).await.unwrap().remove(0);
    assert_eq!((found.host.as_deref(), found.unplaced), (Some("c"), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_names_a_host_and_a_preferred_host_gets_its_identity_back() {
    let cluster = lively().await;
    let (a, b) = (cluster.host("a", |_| ()).await, cluster.host("b", |_| ()).await);
    cluster.realm.label("b", &["hsm"]);
    let prefers = HostRules { prefer: words(&["hsm"]), ..HostRules::default() };
    put(&cluster, &[&a, &b], ALICE, prefers).await;
    let beat = try_start(&a, ALICE, "beat", json!({"beats": 200, "interval_ms": 50})).await.unwrap();
    until_owned(&cluster, ALICE, Some("b")).await;
    cluster.realm.expire("b");
    until_owned(&cluster, ALICE, Some("a")).await;
    cluster.realm.reconnect("b");
    until_owned(&cluster, ALICE, Some("b")).await;
    assert_eq!(result(&a, beat).await, json!({"beats": 200}));
    let before = owners_after(&cluster, &[&a, &b], 1).await;
    assert_eq!(owners_after(&cluster, &[&a, &b], 10).await, before, "she stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_runs_apart_while_there_are_hosts_for_it() {
    let cluster = lively().await;
    let group = HostRules { apart: Some("signers".into()), ..HostRules::default() };
    let a = cluster.host("a", |_| ()).await;
    for (name, _) in SHORT {
        put(&cluster, &[&a], name, group.clone()).await;
        let beat = try_start(&a, name, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap();
        assert_eq!(result(&a, beat).await, json!({"beats": 1}));
    }
    assert_eq!(cluster.onlooker.owners().await.unwrap().len(), 3, "a single host runs them all");
    let beat = try_start(&a, ALICE, "beat", json!({"beats": 100, "interval_ms": 50})).await.unwrap();
    let hosts_of_all = async || {
        let owners = cluster.onlooker.owners().await.unwrap();
        (owners.len(), owners.iter().map(|owner| owner.host.clone()).collect::<BTreeSet<_>>())
    };
    let until_on = async |hosts: usize| {
        eventually(&format!("they are on {hosts} hosts"), async || match hosts_of_all().await {
            (3, on) if on.len() == hosts => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    };
    let mut all = vec![a];
    for name in ["b", "c"] {
        let host = cluster.host(name, |_| ()).await;
        for (identity, _) in SHORT {
            put(&cluster, &[&host], identity, group.clone()).await;
        }
        all.push(host);
        until_on(all.len()).await;
    }
    assert_eq!(result(&all[0], beat).await, json!({"beats": 100}));
    let all: Vec<&Arc<Host>> = all.iter().collect();
    let before = owners_after(&cluster, &all, 1).await;
    assert_eq!(owners_after(&cluster, &all, 10).await, before, "then nothing moves");

    // Wanted at the same moment, they are opened by different hosts.
    for name in ["a", "b", "c"] {
        cluster.realm.expire(name);
    }
    cluster.realm.reconnect("a");
    cluster.realm.reconnect("b");
    cluster.realm.reconnect("c");
    let starts = SHORT.map(async |(name, _)| start(&all, name, "beat", json!({"beats": 20, "interval_ms": 100})).await);
    let beats = futures::future::join_all(starts).await;
    until_on(3).await;
    for beat in beats {
        assert_eq!(result(all[0], beat).await, json!({"beats": 20}));
    }
}
