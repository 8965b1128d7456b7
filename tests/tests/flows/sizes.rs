//! Sizes from nothing to what the network allows, as the first message of a session and as a later one, from either side,
//! one by one and in bursts that are larger than what waits in memory for one flow.

use futures::future::join_all;
use maxhost_tests::{ALICE, BOB, Host, Network};
use serde_json::{Value, json};

/// The largest text that fits into a message: the network allows ten mebibytes, five of whose bytes say how long it is.
const LARGEST: usize = (10 << 20) - 5;
/// What waits in memory for one flow at most, if it is more than one message.
const QUEUE: usize = 4 << 20;

const WAYS: &[(&str, &[&str])] = &[
    ("never", &["flows.evict=never"]),
    ("after-linger", &["flows.linger=20ms"]),
    ("every-wait", &["flows.evict=every-wait"]),
    ("random", &["flows.evict=random:7"]),
    ("broker", &["flows.evict=never", "flows.always_broker=true"]),
    ("broker, every-wait", &["flows.evict=every-wait", "flows.always_broker=true"]),
];

fn turn(bytes: usize, answers: &[usize]) -> Value {
    json!({"bytes": bytes, "answers": answers})
}

/// A message of this size in every position of a conversation: the first of the session, the responder's first and later
/// ones, a later one with and without a small one around it.
fn conversation(bytes: usize) -> Vec<Value> {
    vec![turn(bytes, &[]), turn(0, &[bytes]), turn(bytes, &[0, bytes]), turn(1, &[1])]
}

/// More at once than waits in memory for one flow, from either side.
fn burst(bytes: usize, count: usize) -> Vec<Value> {
    let mut turns: Vec<Value> = (0..count).map(|_| turn(bytes, &[])).collect();
    turns.push(turn(0, &vec![bytes; count]));
    turns
}

fn cases() -> Vec<Vec<Value>> {
    let sizes = [0, 1, 1_000, QUEUE - 100, QUEUE, QUEUE + 1, 6 << 20, LARGEST];
    let mut cases: Vec<_> = sizes.into_iter().map(conversation).collect();
    cases.push(burst(3 << 20, 5));
    cases.push(burst(QUEUE + 1, 3));
    cases.push(burst(200_000, 60));
    cases
}

fn network(settings: &[&str]) -> Network {
    Network::new().setting("flows.shadow_replay=0.0").settings(settings)
}

async fn run(way: &str, host: Host) {
    // A few at a time, because each has some of the largest messages in memory.
    for some in cases().chunks(4) {
        let ends =
            join_all(some.iter().map(|turns| host.run(ALICE, "sizes", json!({"peer": BOB, "turns": turns})))).await;
        for (turns, end) in some.iter().zip(ends) {
            let first = &turns[0];
            assert_eq!(end.state, "completed", "{way}, a conversation that begins with {first}: {end:?}");
        }
    }
    host.until_quiet().await;
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_every_size_arrive_in_every_position_and_in_every_mode() {
    for ways in WAYS.chunks(2) {
        // Both are up before the first call: starting one blocks, and meanwhile the calls to the other would come to their deadlines.
        let networks: Vec<Network> = ways.iter().map(|(_, settings)| network(settings)).collect();
        let hosts: Vec<Host> = networks.iter().map(Network::run).collect();
        join_all(ways.iter().zip(hosts).map(|((way, _), host)| run(way, host))).await;
    }
}
