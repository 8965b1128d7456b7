//! Hosts whose clock is not the database server's.

use maxhost_tests::bent_clock::bend;
use maxhost_tests::{ALICE, BOB, Host, Network, eventually};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_clock_is_wrong_does_not_start_and_one_that_runs_says_so() {
    let network = Network::new();
    let shift = network.path("shift");
    for wrong in ["+60s", "-60s"] {
        std::fs::write(&shift, wrong).unwrap();
        let mut command = network.run_command();
        bend(&mut command, &shift);
        maxhost_tests::cli::answer(command, None).fails(4, "clock-off");
        let mut doctor = network.command(&["doctor"]);
        bend(&mut doctor, &shift);
        // It would ask the compiler for its version, which does not come to an end under a bent clock.
        doctor.env("PATH", network.folder());
        let lines = maxhost_tests::cli::answer(doctor, None).objects();
        let database = lines.iter().find(|line| line["check"] == "database").unwrap();
        assert!(database["ok"] == false && database["detail"].as_str().unwrap().contains("clock"), "{database}");
    }

    std::fs::write(&shift, "+0s").unwrap();
    let mut command = network.run_command();
    bend(&mut command, &shift);
    let host = Host::up(command, network.folder());
    let once = json!({"times": 1});
    assert_eq!(host.run(ALICE, "statics", once.clone()).await.result()["static"], 1);
    std::fs::write(&shift, "+60s").unwrap();
    let says = async |words: &str| {
        let log = host.log();
        if log.contains(words) { Ok(()) } else { Err(log) }
    };
    eventually("the wrong clock is noticed", async || says("the clock of this machine differs").await).await;
    for identity in [ALICE, BOB] {
        let answered = host.run(identity, "statics", once.clone()).await;
        assert_eq!(answered.result()["static"], 1, "what it has goes on");
    }
    std::fs::write(&shift, "+0s").unwrap();
    eventually("the right clock is noticed", async || says("is right again").await).await;
    assert_eq!(host.run(BOB, "statics", once).await.result()["static"], 1);
    host.stop();
}
