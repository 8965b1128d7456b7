//! A kill works from every state, within a second, and the peers are told.

use std::time::{Duration, Instant};

use futures::future::join_all;
use maxhost_model::Code;
use maxhost_tests::flows::{Failure, request, state, with};
use maxhost_tests::{ALICE, BOB, CAROL, Host, Network, eventually};
use serde_json::{Value, json};

/// The longest a kill may take, on two busy processors.
const SOON: Duration = Duration::from_secs(1);

/// Carol's manifest.
const CAROLS: &str = "name = \"O=Carol, L=Paris, C=FR\"\ncordapps = [\"hostile\"]\nkeys = \"../keys/carol\"\n";

/// A network where nobody hosts Carol: who waits for her waits for ever.
fn without_carol() -> Network {
    let network = Network::new();
    std::fs::remove_file(network.path("identities/carol.toml")).unwrap();
    network
}

async fn kill_soon(host: &Host, flow: &str, what: &str) {
    let begun = Instant::now();
    assert!(host.kill(flow).await, "{what}");
    let end = host.end(flow).await;
    let took = begun.elapsed();
    assert_eq!((end.state.as_str(), end.failure().kind.as_str()), ("killed", "killed"), "{what}");
    assert!(took < SOON, "{what}: {took:?}");
    assert!(!host.kill(flow).await, "{what}: there is nothing to kill twice");
}

fn waits() -> Vec<(&'static str, &'static str, Value)> {
    let deadline = json!({"peer": CAROL, "deadline_ms": 600_000, "answer_ms": 1});
    vec![
        ("sleep", "sleep-forever", json!({})),
        ("receive", "wait-forever", with(BOB)),
        ("receive", "wait-forever", with(CAROL)),
        ("receive-all", "receive-all", json!({"peers": [BOB, CAROL], "value": 1})),
        ("wait-any", "wait-any-deadline", deadline),
        ("flow-info", "flow-info", with(CAROL)),
        ("confirmation", "send-only", json!({"peer": CAROL, "value": 1})),
    ]
}

/// How the only flow of Carol ended.
async fn end_of_carols(host: &Host) -> Failure {
    let failed = eventually("the end of Carol's flow", async || {
        let flows = host.flows(None, None).await;
        match flows.iter().find(|flow| flow.identity == CAROL) {
            Some(flow) if state(flow.state()) == "failed" => Ok(flow.flow_id.clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    host.end(&failed).await.failure()
}

/// Spec 1.4, 1.5: a session that is still initiating is told on its confirmation.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_answers_after_the_kill_is_told() {
    let network = without_carol();
    let host = network.run();
    let id = host.start(ALICE, "wait-forever", with(CAROL)).await;
    host.until_waits(&id, "receive").await;
    kill_soon(&host, &id, "waiting for Carol").await;
    let carol = network.path("identities/carol.toml");
    std::fs::write(&carol, CAROLS).unwrap();
    let told = end_of_carols(&host).await;
    assert_eq!((told.kind.as_str(), told.peer.as_deref()), ("unexpected-end", Some(ALICE)));
    assert_eq!(told.error_id, host.end(&id).await.failure().error_id);
}

/// The same of a flow that failed; what it had sent comes before the error, though the host died in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_answers_after_the_failure_gets_all_that_was_sent() {
    let network = without_carol();
    let host = network.run();
    let id = host.start(ALICE, "send-then-throw", json!({"peer": CAROL, "count": 3})).await;
    let failure = host.end(&id).await.failure();
    assert_eq!((failure.kind.as_str(), failure.message.as_str()), ("flow-exception", "thrown after 3 messages"));
    host.kill_9();
    std::fs::write(network.path("identities/carol.toml"), CAROLS).unwrap();
    let host = network.run();
    let seen = end_of_carols(&host).await;
    assert_eq!(seen.message, "received [1, 2, 3], then flow-exception: thrown after 3 messages");
}

async fn kills_from_every_wait(evict: &str) {
    let network = without_carol().setting(&format!("flows.evict={evict}"));
    let host = network.run();
    for (what, flow, arguments) in waits() {
        let id = host.start(ALICE, flow, arguments).await;
        let shown = host.until_waits(&id, what).await;
        if evict == "every-wait" {
            host.until(&id, |shown| !shown.in_memory).await;
        } else {
            assert!(shown.in_memory, "{what}");
        }
        kill_soon(&host, &id, &format!("{flow} in {what}, evict = {evict}")).await;
    }
    // The peer of wait-forever learned of it.
    let told = eventually("the peer's end", async || {
        let flows = host.flows(Some("Bob"), Some("never-answers")).await;
        match flows.first() {
            Some(flow) if state(flow.state()) == "failed" => Ok(flow.flow_id.clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(host.end(&told).await.failure().kind, "unexpected-end");
    host.until_quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_in_memory_can_be_killed_from_every_wait() {
    kills_from_every_wait("never").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_that_left_memory_can_be_killed_from_every_wait() {
    kills_from_every_wait("every-wait").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_computes_can_be_killed() {
    let network = Network::new().limits("alice", "cpu_per_run = \"100 s\"");
    let host = network.run();
    let id = host.start(ALICE, "spin", json!({})).await;
    host.until_state(&id, "running").await;
    kill_soon(&host, &id, "spin").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_waits_for_room_can_be_killed() {
    // Of the identity: Alice may have one flow in memory.
    let network = Network::new().setting("flows.evict=never").limits("alice", "flows = 1\ncpu_per_run = \"100 s\"");
    let host = network.run();
    let holder = host.start(ALICE, "spin", json!({})).await;
    let newcomer = host.start(ALICE, "sleep-forever", json!({})).await;
    let shown = host.until_waits(&newcomer, "slot").await;
    assert!(!shown.in_memory);
    kill_soon(&host, &newcomer, "waiting for the identity's room").await;
    kill_soon(&host, &holder, "the holder").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_waits_for_an_instance_can_be_killed() {
    let network = Network::new().setting("limits.instances=1").limits("alice", "cpu_per_run = \"100 s\"");
    let host = network.run();
    let holder = host.start(ALICE, "spin", json!({})).await;
    host.until_state(&holder, "running").await;
    let newcomer = host.start(BOB, "sleep-forever", json!({})).await;
    assert!(!host.until_waits(&newcomer, "instance").await.in_memory);
    kill_soon(&host, &newcomer, "waiting for an instance").await;
    kill_soon(&host, &holder, "the holder").await;
    // And the instance is free again.
    assert_eq!(host.run(BOB, "statics", json!({"times": 1})).await.result()["static"], 1);
}

/// A flow is known to its host, and to whoever reads the log, before its first commit is durable.
#[tokio::test(flavor = "multi_thread")]
async fn a_flow_whose_start_is_on_its_way_can_be_killed() {
    let network = Network::new();
    let mut command = network.run_command();
    command.env("MAXHOST_LOG", "debug").arg("--log-format").arg("json");
    let host = Host::up(command, network.folder());
    host.run(ALICE, "statics", json!({"times": 1})).await.result();
    // Nobody else can write while this lasts.
    let database = network.database();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let starting = host.client().clone();
    let start = request(ALICE, "sleep-forever", &json!({}));
    let starting = tokio::spawn(async move { starting.start_flow(start).await });
    let flow = eventually("the start in the log", async || {
        let log = std::fs::read_to_string(network.path("host.log")).unwrap();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut started =
            lines.filter(|line| line["message"] == "flow started" && line["flow"] == "hostile/sleep-forever");
        started.next().and_then(|line| line["flow_id"].as_str().map(str::to_owned)).ok_or(log)
    })
    .await;
    let killing = async {
        let killed = host.kill(&flow).await;
        (killed, host.end(&flow).await)
    };
    let releasing = async {
        // Longer than anybody should have to guess.
        tokio::time::sleep(Duration::from_millis(400)).await;
        database.execute_batch("ROLLBACK").unwrap();
    };
    let ((killed, end), ()) = tokio::join!(killing, releasing);
    assert!(killed);
    assert_eq!((end.state.as_str(), end.failure().kind.as_str()), ("killed", "killed"));
    assert_eq!(starting.await.unwrap().unwrap().flow.unwrap().flow_id, flow);
    host.until_quiet().await;
}

/// A kill may meet a flow while it gives up its instance, while it is brought back, or after its end.
#[tokio::test(flavor = "multi_thread")]
async fn no_kill_is_lost_whenever_it_comes() {
    let network = Network::new().setting("flows.evict=every-wait");
    let host = network.run();
    let flows = join_all((0..60).map(|_| host.start(ALICE, "beat", json!({"beats": 60, "interval_ms": 2})))).await;
    let kills = flows.iter().enumerate().map(|(number, flow)| {
        let host = &host;
        async move {
            // Spread over the life of the flows, not to wait for anything.
            tokio::time::sleep(Duration::from_millis(number as u64 * 3)).await;
            let killed = host.kill(flow).await;
            let end = host.end(flow).await;
            assert_eq!(end.state, if killed { "killed" } else { "completed" });
        }
    });
    join_all(kills).await;
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responder_can_be_killed_and_its_initiator_is_told() {
    let network = Network::new();
    let host = network.run();
    let initiator = host.start(ALICE, "wait-forever", with(BOB)).await;
    let responder = eventually("a responder", async || {
        host.flows(Some("Bob"), None).await.first().map(|flow| flow.flow_id.clone()).ok_or_else(String::new)
    })
    .await;
    host.until_waits(&responder, "receive").await;
    kill_soon(&host, &responder, "a responder").await;
    let failure = host.end(&initiator).await.failure();
    assert_eq!((failure.kind.as_str(), failure.peer.as_deref()), ("unexpected-end", Some(BOB)));
    assert!(failure.error_id.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_cannot_be_killed_and_stays_as_it_ended() {
    let network = Network::new();
    let host = network.run();
    let id = host.start(ALICE, "statics", json!({"times": 1})).await;
    host.end(&id).await.result();
    let shown = network.cli(&["flow", "kill", &id]).ok().object();
    assert_eq!((&shown["killed"], &shown["state"]), (&json!(false), &json!("completed")));
    network.cli(&["flow", "kill", "00000000-0000-8000-8000-000000000001"]).fails(3, "flow-not-found");
    network.cli(&["flow", "kill", "9b2d4f6a-1c3e-4a5b-8d7f-0e1c2a3b4d5e"]).fails(3, "flow-not-found");
    network.cli(&["flow", "kill", "x"]).fails(4, "flow-id-invalid");

    let id = host.start(ALICE, "sleep-forever", json!({})).await;
    let shown = network.cli(&["flow", "kill", &id]).ok().object();
    assert_eq!(
        (&shown["killed"], &shown["state"], &shown["error"]["kind"]),
        (&json!(true), &json!("killed"), &json!("killed"))
    );
    network.cli(&["flow", "watch", &id]).fails(1, "flow-killed");
    host.kill_9();
    let host = network.run();
    assert_eq!(host.state(&id).await, "killed");
    assert_eq!(host.try_show("x").await.unwrap_err().code, Code::FlowIdInvalid);
}
