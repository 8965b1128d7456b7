//! A host whose clock goes wrong while it runs.

use std::fs;

use maxhost_tests::bent_clock::bend;
use maxhost_tests::{ALICE, BOB, CAROL, Host, eventually};
use serde_json::json;

use crate::cluster::{Cluster, WellServers};
use crate::{result, start};

/// It keeps what it has and takes nothing more, which the others do, until its clock is right again.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_clock_goes_wrong_leaves_to_others_what_it_does_not_have() {
    let Some(servers) = WellServers::take().await else { return };
    let cluster = Cluster::new(&servers, 3, "clocks", "/maxhost/clocks");
    let shift = cluster.network.path("shift");
    fs::write(&shift, "+0s").unwrap();
    cluster.configure("max-a");
    let mut command = cluster.command("max-a", &["run"]);
    bend(&mut command, &shift);
    let a = Host::up(command, &cluster.folder("max-a"));
    let log = || fs::read_to_string(cluster.folder("max-a").join("host.log")).unwrap();
    let says = async |words: &str| if log().contains(words) { Ok(()) } else { Err(a.log()) };
    // So long as it has work, Alice stays where she is.
    let beat = start(&[&a], ALICE, "beat", json!({"beats": 100_000, "interval_ms": 200})).await;
    let b = cluster.run("max-b");
    fs::write(&shift, "+60s").unwrap();
    eventually("the wrong clock is noticed", async || says("the clock of this machine differs").await).await;

    let parties = (1..=3).map(|party| format!("O=Party {party:05}, L=London, C=GB"));
    for identity in [BOB, CAROL].map(str::to_owned).into_iter().chain(parties) {
        // Whichever host is asked.
        let flow = start(&[&a, &b], &identity, "beat", json!({"beats": 2, "interval_ms": 50})).await;
        assert_eq!(result(&a, &flow).await, json!({"beats": 2}));
        assert_eq!(cluster.owner("max-b", &identity).as_deref(), Some("max-b"), "{identity}");
    }
    // Far behind: the time for which it waits counts by a clock that all share, so what it asks of others is not over before it
    // has come there.
    fs::write(&shift, "-60s").unwrap();
    for identity in [BOB, CAROL] {
        let flow = start(&[&a], identity, "beat", json!({"beats": 2, "interval_ms": 50})).await;
        assert_eq!(result(&b, &flow).await, json!({"beats": 2}));
    }
    let here = start(&[&a], ALICE, "beat", json!({"beats": 2, "interval_ms": 50})).await;
    assert_eq!(result(&b, &here).await, json!({"beats": 2}));
    assert_eq!(cluster.owner("max-b", "Alice").as_deref(), Some("max-a"), "what it has goes on");
    // Nobody else is there to take over what it hands over: that waits.
    let waiting = start(&[&b], BOB, "beat", json!({"beats": 3, "interval_ms": 1_000})).await;
    b.stop();
    let refused = || log().matches("identity could not be opened").count();
    let before = refused();
    eventually("it tries, and is refused", async || if refused() > before { Ok(()) } else { Err(a.log()) }).await;
    let held = "SELECT count(*) FROM maxhost.identity WHERE owner IS NOT NULL";
    assert_eq!(servers.postgres.sql("clocks", held).unwrap(), "1", "Alice alone");

    fs::write(&shift, "+0s").unwrap();
    eventually("the right clock is noticed", async || says("is right again").await).await;
    assert_eq!(result(&a, &waiting).await, json!({"beats": 3}));
    assert_eq!(cluster.owner("max-a", "Bob").as_deref(), Some("max-a"));
    assert!(a.kill(&beat).await);
    a.stop();
}
