//! Two hosts in one process share a database, a broker and an ownership service: identities go from one to the other, and
//! nothing is lost or done twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;
mod moves;
mod placement;
mod told_twice;
mod unreadable;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::future::join_all;
use maxhost_flows::api::{Arguments, Caller, FlowPhase, HostApi, HostState, StartFlow};
use maxhost_flows::{Eviction, Host, HostOptions, IdentitySpec};
use maxhost_model::{Class, Code, FencingToken};
use maxhost_store::{Caution, ClaimRequest, DEATHS_LAST, Forgive};
use maxhost_tests::{ALICE, BOB, CAROL, eventually};
use serde_json::json;

use crate::fixture::*;

#[tokio::test(flavor = "multi_thread")]
async fn identities_of_two_hosts_talk_through_the_broker() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.host("a", |_| ()).await, cluster.host("b", |_| ()).await);
    assert_eq!(cluster.owner(ALICE).await, None, "nobody wants anything yet");
    let beat = try_start(&b, BOB, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap();
    assert_eq!(result(&b, beat).await, json!({"beats": 1}));
    let ping = try_start(&a, ALICE, "ping", json!({"peer": BOB, "count": 10})).await.unwrap();
    assert_eq!(result(&a, ping).await, json!({"rounds": 10}));
    assert_eq!((cluster.owner(ALICE).await.as_deref(), cluster.owner(BOB).await.as_deref()), (Some("a"), Some("b")));
    // Whoever asks the other host is served as well, and the identity stays where it is.
    let elsewhere = try_start(&a, BOB, "ping", json!({"peer": ALICE, "count": 1})).await.unwrap();
    assert_eq!(result(&a, elsewhere).await, json!({"rounds": 1}));
    let as_client = async |host: &Arc<Host>| {
        let arguments = Arguments::Json(json!({"beats": 1000, "interval_ms": 100}));
        let client_id = Some("once".to_owned());
        let request = StartFlow { identity: BOB.to_owned(), flow: "beat".to_owned(), arguments, client_id };
        host.start_flow(&Caller::local(), request).await.unwrap()
    };
    let (first, again, third) = (as_client(&a).await, as_client(&b).await, as_client(&a).await);
    assert_eq!((first.new, again.new, third.new), (true, false, false));
    assert!(first.flow_id == again.flow_id && first.flow_id == third.flow_id);
    assert!(a.kill_flow(&Caller::local(), first.flow_id).await.unwrap());
    assert_eq!(b.flow(&Caller::local(), first.flow_id).await.unwrap().summary.phase, FlowPhase::Killed);
    assert_eq!(cluster.owner(BOB).await.as_deref(), Some("b"));
    // An identity that nobody runs is run for a message.
    let ping = try_start(&a, ALICE, "ping", json!({"peer": CAROL, "count": 3})).await.unwrap();
    assert_eq!(result(&a, ping).await, json!({"rounds": 3}));
    assert!(cluster.owner(CAROL).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_counts_the_live_flows_of_all_identities() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.host("a", |_| ()).await, cluster.host("b", |_| ()).await);
    let caller = Caller::local();
    let mut beats = Vec::new();
    for name in [ALICE, ALICE, CAROL] {
        beats.push(try_start(&a, name, "beat", json!({"beats": 2, "interval_ms": 250_000})).await.unwrap());
    }
    let count = async |expected: [u64; 3]| {
        for host in [&a, &b] {
            eventually("its live flows are counted", async || {
                let shown = host.identities(&caller, None).await.map_err(|problem| problem.to_string())?;
                let of = |name: &str| shown.iter().find(|shown| shown.name == name).map_or(99, |shown| shown.flows);
                let flows = [ALICE, BOB, CAROL].map(of);
                let one = host.identity(&caller, ALICE).await.map_err(|problem| problem.to_string())?.flows;
                let all = host.status(&caller).await.map_err(|problem| problem.to_string())?.flows;
                assert_eq!((all["failed"], all["completed"]), (0, 0), "none of them ends by itself: {all:?}");
                match (flows, one, all["suspended"]) == (expected, expected[0], expected.iter().sum()) {
                    true => Ok(()),
                    false => Err(format!("{flows:?} {one} {all:?}")),
                }
            })
            .await;
        }
    };
    count([2, 0, 1]).await;
    assert!(a.kill_flow(&caller, beats[0]).await.unwrap());
    count([1, 0, 1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_host_ran_goes_on_elsewhere() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.host("a", |_| ()).await, cluster.host("b", |_| ()).await);
    let beat = try_start(&a, ALICE, "beat", json!({"beats": 30, "interval_ms": 100})).await.unwrap();
    let waiting = try_start(&a, ALICE, "ping", json!({"peer": BOB, "count": 200})).await.unwrap();
    eventually("it beats", async || {
        let shown = a.flow(&Caller::local(), beat).await.map_err(|problem| problem.to_string())?;
        if shown.journal_entries > 3 { Ok(()) } else { Err(shown.journal_entries.to_string()) }
    })
    .await;
    cluster.realm.expire("a");
    eventually("the other host takes Alice over", async || match cluster.owner(ALICE).await.as_deref() {
        Some("b") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    eventually("who lost her and is alive does not count as one that died", async || {
        let records = cluster.store.identities().await.unwrap();
        match records.iter().find(|record| record.name == ALICE).unwrap().unclean {
            1 => Ok(()),
            deaths => Err(format!("{deaths} claims that did not end in order")),
        }
    })
    .await;
    assert_eq!(result(&b, beat).await, json!({"beats": 30}));
    assert_eq!(result(&b, waiting).await, json!({"rounds": 200}));
    // The first host is back, and leaves Alice where she is.
    cluster.realm.reconnect("a");
    let beat = try_start(&a, ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap();
    assert_eq!(result(&a, beat).await, json!({"beats": 1}));
    assert_eq!(cluster.owner(ALICE).await.as_deref(), Some("b"));
    let ping = try_start(&b, ALICE, "ping", json!({"peer": CAROL, "count": 2})).await.unwrap();
    assert_eq!(result(&b, ping).await, json!({"rounds": 2}));
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_that_sleep_are_let_go_and_wake_for_messages_and_timers() {
    let cluster = Cluster::new().await;
    let soon = |options: &mut HostOptions| {
        options.idle_close = Duration::from_millis(50);
        options.eviction = Eviction::EveryWait;
    };
    let (a, b) = (cluster.host("a", soon).await, cluster.host("b", soon).await);
    let beat = try_start(&a, ALICE, "beat", json!({"beats": 3, "interval_ms": 1500})).await.unwrap();
    // Asleep between two beats: nobody owns her, and the database knows when she wants to be woken.
    let records = cluster.until_nobody_owns_anything().await;
    assert!(records.iter().any(|record| record.name == ALICE && record.wake_at.is_some()), "{records:?}");
    assert_eq!(result(&b, beat).await, json!({"beats": 3}));
    for round in 0..5 {
        let (from, to) = [(ALICE, BOB), (BOB, CAROL), (CAROL, ALICE)][round % 3];
        let ping = start(&[&a, &b], from, "ping", json!({"peer": to, "count": 3})).await;
        assert_eq!(result(&a, ping).await, json!({"rounds": 3}));
    }
    cluster.until_nobody_owns_anything().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_between_identities_that_come_and_go() {
    let cluster = Cluster::new().await;
    let at_once = |options: &mut HostOptions| {
        options.idle_close = Duration::from_millis(1);
        options.eviction = Eviction::EveryWait;
    };
    let (a, b) = (cluster.host("a", at_once).await, cluster.host("b", at_once).await);
    let names = [ALICE, BOB, CAROL];
    let pings = join_all((0..24).map(async |number| {
        let (from, to) = (names[number % 3], names[(number + 1 + number / 3 % 2) % 3]);
        let hosts = if number % 2 == 0 { [&a, &b] } else { [&b, &a] };
        start(&hosts, from, "ping", json!({"peer": to, "count": 3})).await
    }))
    .await;
    for ping in pings {
        assert_eq!(result(&a, ping).await, json!({"rounds": 3}));
    }
    cluster.until_nobody_owns_anything().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_while_an_identity_is_let_go_waits_and_opens_it_anew() {
    let cluster = Cluster::new().await;
    let gate = Arc::new(Gate::open(cluster.realm.join_as("a", cluster.store.run())));
    let soon = |options: &mut HostOptions| options.idle_close = Duration::from_millis(50);
    let a = cluster.host_with("a", gate.clone(), soon).await;
    let held = gate.sleeps.acquire().await.unwrap();
    let beat = try_start(&a, ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap();
    assert_eq!(result(&a, beat).await, json!({"beats": 1}));
    gate.asleep.notified().await;
    // The database has let her go, and the ownership service does not know it yet.
    assert!(cluster.store.identities().await.unwrap().iter().all(|record| record.owner().is_none()));
    let starting = try_start(&a, ALICE, "beat", json!({"beats": 2, "interval_ms": 1}));
    let letting_go = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(held);
    };
    let (started, ()) = tokio::join!(starting, letting_go);
    assert_eq!(result(&a, started.unwrap()).await, json!({"beats": 2}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_ownership_service_was_not_told_is_told_again() {
    let cluster = Cluster::new().await;
    let gate = Arc::new(Gate::open(cluster.realm.join_as("a", cluster.store.run())));
    let soon = |options: &mut HostOptions| options.idle_close = Duration::from_millis(50);
    let a = cluster.host_with("a", gate.clone(), soon).await;
    // The identity is claimed, and whoever claimed it does not know.
    gate.lost_claims.store(1, Ordering::Release);
    try_start(&a, ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap_err();
    gate.lost_sleeps.store(1, Ordering::Release);
    let b = cluster.host("b", soon).await;
    let beat = start(&[&b, &a], ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await;
    assert_eq!(result(&b, beat).await, json!({"beats": 1}));
    // The next one that a lets sleep stays its own, as far as the service knows, until a sees that it does not run it.
    let beat = start(&[&a], BOB, "beat", json!({"beats": 1, "interval_ms": 1})).await;
    assert_eq!(result(&a, beat).await, json!({"beats": 1}));
    cluster.until_nobody_owns_anything().await;
    assert_eq!(gate.lost_sleeps.load(Ordering::Acquire), 0, "one was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_drains_hands_over_and_takes_nothing() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.host("a", |_| ()).await, cluster.host("b", |_| ()).await);
    let beat = try_start(&a, ALICE, "beat", json!({"beats": 20, "interval_ms": 100})).await.unwrap();
    let drained = b.set_draining(&Caller::local(), "a", true).await.unwrap();
    assert_eq!((&*drained.name, drained.state), ("a", HostState::Draining));
    eventually("who drains is not ready", async || match a.ready().await {
        Err(why) if why.contains("it drains") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    a.ready_for_clients().await.unwrap();
    b.ready().await.unwrap();
    eventually("the other host takes Alice over", async || match cluster.owner(ALICE).await.as_deref() {
        Some("b") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(result(&b, beat).await, json!({"beats": 20}));
    // What it is asked for, the other does.
    let beat = try_start(&a, CAROL, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap();
    assert_eq!(result(&a, beat).await, json!({"beats": 1}));
    assert_eq!(cluster.owner(CAROL).await.as_deref(), Some("b"));
    let found = a.whereabouts(&Caller::local(), Some("Alice")).await.unwrap();
    assert_eq!(found[0].host.as_deref(), Some("b"));
    assert_eq!(a.set_draining(&Caller::local(), "a", false).await.unwrap().state, HostState::Up);
    eventually("it takes identities again", async || {
        let hosts = b.hosts(&Caller::local()).await.map_err(|problem| problem.to_string())?;
        if hosts.iter().any(|host| host.name == "a" && host.state == HostState::Up) {
            Ok(())
        } else {
            Err(format!("{hosts:?}"))
        }
    })
    .await;
    eventually("it is ready again", async || a.ready().await).await;
    let status = b.cluster_status(&Caller::local()).await.unwrap();
    assert!(status.ownership.ok && status.store.ok && status.broker.ok, "{status:?}");
    assert_eq!(status.hosts.iter().map(|host| &*host.name).collect::<Vec<_>>(), ["a", "b", "onlooker"]);

    // The wish outlives the host, and so it can be taken back while the host is away; that it drains cannot begin then.
    b.set_draining(&Caller::local(), "a", true).await.unwrap();
    a.leave(Duration::from_secs(20)).await;
    let refused = b.set_draining(&Caller::local(), "a", true).await.unwrap_err();
    assert_eq!(refused.code, Code::HostNotFound, "{refused}");
    let away = b.set_draining(&Caller::local(), "a", false).await.unwrap();
    assert_eq!((&*away.name, away.state), ("a", HostState::Away));
    let refused = b.set_draining(&Caller::local(), "a", false).await.unwrap_err();
    assert_eq!(refused.code, Code::HostNotFound, "nobody of this name was asked to drain: {refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_claim_is_refused_gives_up_and_does_not_claim_at_once() {
    let cluster = Cluster::new().await;
    let a = cluster.host("a", |_| ()).await;
    let beat = try_start(&a, ALICE, "beat", json!({"beats": 20, "interval_ms": 100})).await.unwrap();
    let alice = || async {
        let records = cluster.store.identities().await.unwrap();
        records.into_iter().find(|record| record.name == ALICE).unwrap()
    };
    // Another host claims, as if the ownership service had told it to.
    let token = FencingToken { generation: 1, epoch: 1_000_000 };
    let refused = Instant::now();
    cluster
        .store
        .claim(ClaimRequest { identity: alice().await.row, token, key_fp: None, caution: Caution::None })
        .await
        .unwrap();
    // Later it claims, above the other's claim, because there is work and nobody else does it.
    eventually("the host claims again", async || match alice().await.claim.token {
        last if last > token => Ok(()),
        last => Err(last.to_string()),
    })
    .await;
    assert!(refused.elapsed() >= Duration::from_secs(1), "it claimed again after {:?}", refused.elapsed());
    assert_eq!(result(&a, beat).await, json!({"beats": 20}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_leaves_hands_over_what_it_ran() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.host("a", |_| ()).await, cluster.host("b", |_| ()).await);
    let spin = try_start(&a, ALICE, "spin", json!({})).await.unwrap();
    let beat = try_start(&a, BOB, "beat", json!({"beats": 20, "interval_ms": 100})).await.unwrap();
    a.leave(Duration::from_secs(20)).await;
    assert_eq!(result(&b, beat).await, json!({"beats": 20}));
    eventually("the guest that computes goes on at the other host", async || {
        match cluster.owner(ALICE).await.as_deref() {
            Some("b") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(b.kill_flow(&Caller::local(), spin).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_a_free_slot_leaves_what_it_is_asked_for_to_others() {
    let cluster = Cluster::new().await;
    let a = cluster.host_of("a", 1, |_| ()).await;
    let beat = try_start(&a, BOB, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap();
    assert_eq!(result(&a, beat).await, json!({"beats": 1}));
    assert_eq!(cluster.owner(BOB).await.as_deref(), Some("a"));
    let b = cluster.host("b", |_| ()).await;
    let beat = try_start(&a, CAROL, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap();
    assert_eq!(result(&a, beat).await, json!({"beats": 1}));
    assert_eq!(cluster.owner(CAROL).await.as_deref(), Some("b"), "the first host has room for one");
    // What it holds goes on, also what comes from others.
    let beat = try_start(&b, BOB, "beat", json!({"beats": 2, "interval_ms": 1})).await.unwrap();
    assert_eq!(result(&b, beat).await, json!({"beats": 2}));
    assert_eq!(cluster.owner(BOB).await.as_deref(), Some("a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_of_one_host_with_an_identity_refuses_nobody_what_another_can_do() {
    let cluster = Cluster::new().await;
    let soon = |options: &mut HostOptions| {
        options.idle_close = Duration::from_millis(50);
        options.eviction = Eviction::EveryWait;
    };
    let (a, b) = (cluster.host("a", soon).await, cluster.host("b", soon).await);
    let code_of = async |spec: IdentitySpec, code: Code| {
        let problems = a.put_identities(vec![spec]).await.unwrap();
        assert_eq!(problems.first().map(|(_, problem)| problem.code), Some(code), "{problems:?}");
    };
    let sound = cluster.spec(ALICE, "alice");

    // Without her keys it cannot even pass the request on, and says so with a code that says "try again".
    code_of(IdentitySpec { keys: cluster.network.path("keys/none"), ..sound.clone() }, Code::KeyUnreadable).await;
    let refused = try_start(&a, ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap_err();
    assert_eq!((refused.code, refused.class()), (Code::IdentityUnusableHere, Class::Unavailable), "{refused}");
    assert!(refused.details.contains_key("reason_code") && refused.message.contains("Alice"), "{refused:?}");
    let long = try_start(&b, ALICE, "beat", json!({"beats": 2, "interval_ms": 200_000})).await.unwrap();

    // Without her CorDapp it can: what is to be killed needs no arguments.
    code_of(IdentitySpec { cordapps: [cordapp("no-such-app")].into(), ..sound }, Code::CordappNotFound).await;
    let refused = try_start(&a, ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap_err();
    assert_eq!((refused.code, &*refused.details["reason_code"]), (Code::IdentityUnusableHere, "cordapp-not-found"));
    cluster.until_nobody_owns_anything().await;
    let killed = a.kill_flow(&Caller::local(), long).await.unwrap();
    assert!(
        killed,
        "the other host has opened her for it: {:?}",
        b.flow(&Caller::local(), long).await.unwrap().summary
    );
    assert_eq!(b.flow(&Caller::local(), long).await.unwrap().summary.phase, FlowPhase::Killed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_whose_command_was_not_confirmed_is_looked_for_all_the_same() {
    let cluster = Cluster::new().await;
    let lossy = Arc::new(Lossy::new(cluster.broker.clone()));
    let cluster = Cluster { broker: lossy.clone(), ..cluster };
    let (a, b) = (cluster.host("a", |_| ()).await, cluster.host("b", |_| ()).await);
    let beat = try_start(&b, BOB, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap();
    assert_eq!(result(&b, beat).await, json!({"beats": 1}));
    assert_eq!(cluster.owner(BOB).await.as_deref(), Some("b"));
    lossy.lost.store(1, Ordering::Release);
    let beat = try_start(&a, BOB, "beat", json!({"beats": 2, "interval_ms": 1})).await.unwrap();
    assert_eq!(lossy.lost.load(Ordering::Acquire), 0, "the answer was lost");
    assert_eq!(result(&b, beat).await, json!({"beats": 2}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_its_hosts_die_with_is_run_no_more_until_somebody_asks_for_it() {
    let cluster = Cluster::new().await;
    let row = cluster.store.register_identities(&[ALICE]).await.unwrap()[0];
    // Hosts that have claimed her, each after the one before was gone without a word.
    for epoch in 1..=i64::from(DEATHS_LAST) {
        let token = FencingToken { generation: 0, epoch };
        let request = ClaimRequest { identity: row, token, key_fp: None, caution: Caution::None };
        cluster.store.claim(request).await.unwrap();
    }
    let a = cluster.host("a", |_| ()).await;
    let refused = try_start(&a, ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap_err();
    let reason = refused.details.get("reason_code").map(String::as_str);
    assert_eq!((refused.code, reason), (Code::IdentityQuarantined, Some("identity-unclean")), "{refused:?}");
    assert!(refused.remedy.contains("maxhost identity retry"), "{refused:?}");
    let beat = try_start(&a, BOB, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap();
    assert_eq!(result(&a, beat).await, json!({"beats": 1}), "others are not concerned");
    cluster.store.forgive(row, Forgive::Asked).await.unwrap();
    let beat = start(&[&a], ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await;
    assert_eq!(result(&a, beat).await, json!({"beats": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn work_in_the_database_is_found_though_the_broker_does_not_tell_its_queues() {
    let mut cluster = Cluster::new().await;
    cluster.broker = Arc::new(Silent(cluster.broker.clone()));
    // Alice has an owner by the database, who has died and of whom nobody was told.
    let alice = cluster.store.register_identities(&[ALICE]).await.unwrap()[0];
    let token = FencingToken { generation: 1, epoch: 1 };
    cluster.store.claim(ClaimRequest { identity: alice, token, key_fp: None, caution: Caution::None }).await.unwrap();
    let _a = cluster.host("a", |_| ()).await;
    eventually("somebody runs Alice", async || match cluster.owner(ALICE).await.as_deref() {
        Some("a") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_cannot_look_for_work_makes_room_for_one_that_can() {
    let mut cluster = Cluster::new().await;
    let broker = cluster.broker.clone();
    cluster.broker = Arc::new(Silent(broker.clone()));
    let _a = cluster.host("a", |_| ()).await;
    cluster.broker = broker;
    let _b = cluster.host("b", |_| ()).await;
    eventually("the other host is the scheduler", async || match cluster.onlooker.scheduler().borrow().as_deref() {
        Some("b") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_opens_no_more_than_it_has_room_for_and_serves_all_in_the_end() {
    let cluster = Cluster { slots: 1, ..Cluster::new().await };
    let map = maxhost_pki::NetworkMap::load(&cluster.network.path("network")).unwrap();
    let _host = cluster.host("a", |options| options.idle_close = Duration::from_millis(200)).await;
    let mut unseen: Vec<String> = [ALICE, BOB, CAROL].map(str::to_owned).into();
    for name in &unseen {
        let party = map.party(&name.parse().unwrap()).unwrap().unwrap();
        cluster.onlooker.demand(party.party.owning_key.fingerprint()).await.unwrap();
    }
    let deadline = Instant::now() + LONG;
    while !unseen.is_empty() {
        let records = cluster.store.identities().await.unwrap();
        let held: Vec<String> =
            records.into_iter().filter(|record| record.owner().is_some()).map(|record| record.name).collect();
        assert!(held.len() <= 1, "it has room for one: {held:?}");
        unseen.retain(|name| !held.contains(name));
        assert!(Instant::now() < deadline, "{unseen:?} were never run");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
