//! What happens when the broker, the line to it, or another host fails: real processes, killed and stopped, and a line that
//! is cut.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use maxhost_broker::{Broker, BrokerError, QueueName, Transient};
use maxhost_broker_amqp::test_servers::Artemis;
use maxhost_broker_amqp::{AmqpBroker, AmqpOptions};
use maxhost_proxy::{Line, Proxy};
use tokio::time::Instant;

use crate::support::{
    A_WHILE, CREDIT, has_marker, in_time, message, next_surely, number_of, open, queue, receive, send, send_surely,
    until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_has_what_it_confirmed_and_consumers_go_on() {
    if Artemis::is_missing() {
        return;
    }
    const QUEUES: u32 = 4;
    let mut artemis = Artemis::start().await;
    let broker = open(artemis.options()).await;
    let ended = Arc::new(AtomicBool::new(false));
    let confirmed: Arc<Vec<AtomicU32>> = Arc::new((0..QUEUES).map(|_| AtomicU32::new(0)).collect());
    let name = |q: u32| queue(&format!("killed-{q}"));
    let mut senders = tokio::task::JoinSet::new();
    for q in 0..QUEUES {
        let (broker, ended, confirmed) = (broker.clone(), Arc::clone(&ended), Arc::clone(&confirmed));
        senders.spawn(async move {
            let mut number = 0;
            while !ended.load(Ordering::Relaxed) {
                send_surely(&broker, &name(q), message(number)).await;
                number += 1;
                confirmed[q as usize].store(number, Ordering::Relaxed);
            }
        });
    }
    // One queue is consumed all the time; what is acknowledged may come again after a kill, but nothing is left out.
    let (taken, mut consumer) = (Arc::new(AtomicU32::new(0)), broker.consume(&name(0), CREDIT).await.unwrap());
    let consuming = {
        let taken = Arc::clone(&taken);
        tokio::spawn(async move {
            loop {
                let delivery = next_surely(&mut *consumer).await;
                let (number, expected) = (number_of(&delivery.message), taken.load(Ordering::Relaxed));
                assert!(number <= expected, "{expected} was left out, {number} came");
                taken.store(expected.max(number + 1), Ordering::Relaxed);
                // It is refused if the broker was killed meanwhile.
                let _ = consumer.acks().ack(delivery.tag).await;
            }
        })
    };
    let (marker, other) = (QueueName::marker(7, 0, 1), QueueName::marker(7, 0, 2));
    broker.markers().unwrap().make_marker(&marker).await.unwrap();
    for _ in 0..2 {
        let least = 100 + confirmed.iter().map(|count| count.load(Ordering::Relaxed)).max().unwrap();
        until("messages pass", async || {
            confirmed.iter().chain([&*taken]).all(|count| count.load(Ordering::Relaxed) > least)
        })
        .await;
        artemis.kill();
        artemis.restart().await;
        assert!(has_marker(&broker, &marker).await && !has_marker(&broker, &other).await);
    }
    let least = 50 + confirmed.iter().map(|count| count.load(Ordering::Relaxed)).max().unwrap();
    until("messages pass again", async || confirmed.iter().all(|count| count.load(Ordering::Relaxed) > least)).await;
    ended.store(true, Ordering::Relaxed);
    while let Some(sender) = senders.join_next().await {
        sender.unwrap();
    }
    until("everything was taken", async || {
        assert!(!consuming.is_finished(), "the consumer failed");
        taken.load(Ordering::Relaxed) >= confirmed[0].load(Ordering::Relaxed)
    })
    .await;
    consuming.abort();
    // Of the queues that nobody consumed, everything is there and in order. What was sent again is there twice.
    for q in 1..QUEUES {
        let mut consumer = broker.consume(&name(q), CREDIT).await.unwrap();
        let mut expected = 0;
        while expected < confirmed[q as usize].load(Ordering::Relaxed) {
            let delivery = in_time("a message comes", consumer.next()).await.unwrap();
            let number = number_of(&delivery.message);
            assert!(number <= expected, "{expected} of queue {q} is gone, {number} came");
            expected = expected.max(number + 1);
            consumer.acks().ack(delivery.tag).await.unwrap();
        }
    }
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_is_noticed_and_one_that_was_wiped_is_used_again() {
    if Artemis::is_missing() {
        return;
    }
    let mut artemis = Artemis::start().await;
    let options = AmqpOptions { idle_timeout: Duration::from_secs(3), ..artemis.options() };
    let broker = open(options).await;
    let (one, two) = (queue("one"), queue("two"));
    send(&broker, &one, message(0)).await;
    let mut consumer = broker.consume(&one, CREDIT).await.unwrap();
    receive(&mut *consumer, 0..1).await;
    artemis.pause();
    let begun = Instant::now();
    // A send ends at its deadline, whatever the broker does.
    let error = broker.send(&one, message(1), Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, BrokerError::Transient(Transient::TimedOut)), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // One with more time ends when the connection is given up, or soon after. The consumer is told, too.
    let (sent, told) = in_time("the broker is given up", async {
        tokio::join!(broker.send(&one, message(2), Duration::from_secs(8)), consumer.next())
    })
    .await;
    assert!(sent.unwrap_err().is_transient());
    assert!(told.unwrap_err().is_transient());
    let heard = broker.last_heard().unwrap();
    assert!(heard.elapsed() > Duration::from_secs(1), "{:?}", heard.elapsed());
    artemis.resume();
    send_surely(&broker, &one, message(3)).await;
    assert!(broker.last_heard().unwrap() > heard);
    let mut seen = Vec::new();
    while seen.last() != Some(&3) {
        let delivery = next_surely(&mut *consumer).await;
        seen.push(number_of(&delivery.message));
        let _ = consumer.acks().ack(delivery.tag).await;
    }
    // What was given up may have been taken: that is why it must be known again.
    assert!(seen.is_sorted() && !seen.contains(&0), "{seen:?}");
    // A broker that has lost everything, its queues too.
    send(&broker, &two, message(4)).await;
    let marker = QueueName::marker(7, 0, 1);
    broker.markers().unwrap().make_marker(&marker).await.unwrap();
    assert!(has_marker(&broker, &marker).await);
    artemis.kill();
    artemis.wipe();
    artemis.restart().await;
    assert!(!has_marker(&broker, &marker).await, "it is not made by asking, nor by anything else");
    send_surely(&broker, &one, message(5)).await;
    send_surely(&broker, &two, message(6)).await;
    let delivery = next_surely(&mut *consumer).await;
    assert_eq!(delivery.message, message(5));
    let mut consumer = broker.consume(&two, CREDIT).await.unwrap();
    receive(&mut *consumer, 6..7).await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_with_a_full_disk_takes_nothing_and_gives_out_what_it_has() {
    if Artemis::is_missing() {
        return;
    }
    let mut artemis = Artemis::start().await;
    let broker = open(artemis.options()).await;
    let queue = queue("full disk");
    for number in 0..3 {
        send(&broker, &queue, message(number)).await;
    }
    artemis.stop().await;
    artemis.set_max_disk_usage(1);
    artemis.restart().await;
    // It looks at its disk now and then. It says nothing, and gives no new link any credit: a send ends by its deadline.
    until("it takes nothing", async || {
        let fresh = match AmqpBroker::open(artemis.options()).await {
            Ok(fresh) => fresh,
            Err(error) => {
                assert!(error.is_transient(), "{error:?}");
                return false;
            }
        };
        let sent = fresh.send(&queue, message(3), Duration::from_secs(1)).await;
        fresh.close().await;
        matches!(sent, Err(BrokerError::Transient(Transient::TimedOut)))
    })
    .await;
    let mut consumer = in_time("it is consumed", async {
        loop {
            match broker.consume(&queue, CREDIT).await {
                Ok(consumer) => break consumer,
                Err(error) => assert!(error.is_transient(), "{error:?}"),
            }
        }
    })
    .await;
    for number in 0..3 {
        let delivery = next_surely(&mut *consumer).await;
        assert_eq!(delivery.message, message(number));
        consumer.acks().ack(delivery.tag).await.unwrap();
    }
    artemis.stop().await;
    artemis.set_max_disk_usage(100);
    artemis.restart().await;
    send_surely(&broker, &queue, message(5)).await;
    // What was taken before it was blocked, or given up by its sender, may come before: up to a hundred, more than the
    // consumer may hold unacknowledged.
    loop {
        let delivery = next_surely(&mut *consumer).await;
        // It is refused for what came by way of the link that was lost.
        let _ = consumer.acks().ack(delivery.tag).await;
        if delivery.message == message(5) {
            break;
        }
    }
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_is_cut_ends_every_send_and_loses_nothing_that_was_confirmed() {
    if Artemis::is_missing() {
        return;
    }
    const SENDERS: u32 = 6;
    const CUTS: u64 = 8;
    let seed = std::process::id();
    println!("seed {seed}");
    let artemis = Artemis::start().await;
    let proxy = Proxy::to(artemis.address()).await.unwrap();
    let broker =
        open(AmqpOptions { idle_timeout: Duration::from_secs(3), ..Artemis::options_at(proxy.address()) }).await;
    let ended = Arc::new(AtomicBool::new(false));
    let within = Duration::from_secs(2);
    let mut senders = tokio::task::JoinSet::new();
    for s in 0..SENDERS {
        let (broker, ended) = (broker.clone(), Arc::clone(&ended));
        senders.spawn(async move {
            let (mut number, mut failed) = (0, 0);
            while !ended.load(Ordering::Relaxed) || failed == 0 && number < 10_000 {
                let begun = Instant::now();
                let sent = broker.send(&queue(&format!("cut-{s}")), message(number), within).await;
                assert!(begun.elapsed() < within + Duration::from_secs(5), "a send took {:?}", begun.elapsed());
                match sent {
                    Ok(()) => number += 1,
                    Err(BrokerError::Transient(_)) => failed += 1,
                    Err(error) => panic!("{error:?}"),
                }
            }
            (s, number, failed)
        });
    }
    for cut in 0..CUTS {
        let pause = 150 + (u64::from(seed) * 7919 + cut * 104_729) % 250;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        // Every fourth time the line is silent first.
        let accepted = proxy.accepted();
        if cut % 4 == 3 {
            proxy.set(Line::Silent);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        proxy.cut().await;
        until("the connections are made again", async || proxy.accepted() >= accepted + 2).await;
    }
    ended.store(true, Ordering::Relaxed);
    let mut failures = 0;
    while let Some(sent) = senders.join_next().await {
        let (s, confirmed, failed) = sent.unwrap();
        failures += failed;
        let mut consumer = broker.consume(&queue(&format!("cut-{s}")), CREDIT).await.unwrap();
        let mut expected = 0;
        while expected < confirmed {
            let delivery = next_surely(&mut *consumer).await;
            let number = number_of(&delivery.message);
            assert!(number <= expected, "{expected} of sender {s} is gone, {number} came");
            expected = expected.max(number + 1);
            let _ = consumer.acks().ack(delivery.tag).await;
        }
    }
    println!("{failures} sends failed");
    assert!(failures > 0, "no send was hit");
    broker.close().await;
}

const BROKER: &str = "MAXHOST_TEST_AMQP_BROKER";

/// The process that is stopped: has taken a message and not acknowledged it.
#[tokio::test]
#[ignore = "started by a_host_that_hangs_loses_its_queues_to_the_next"]
async fn hanging_host() {
    let Ok(address) = std::env::var(BROKER) else { return };
    let broker = open(Artemis::options_at(address.parse().unwrap())).await;
    let mut consumer = broker.consume(&queue("hanging"), CREDIT).await.unwrap();
    let delivery = consumer.next().await.unwrap();
    println!("taken {}", number_of(&delivery.message));
    let mut input = String::new();
    tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut input)).await.unwrap().unwrap();
    // It learns by itself that its consumer is gone.
    let acked = in_time("it is told", async {
        loop {
            match consumer.next().await {
                Err(error) => break (consumer.acks().ack(delivery.tag).await, error),
                Ok(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    println!("told {}", acked.0.is_err() && acked.1.is_transient());
}

/// The rest of the line that begins so.
fn line(output: &mut impl BufRead, word: &str) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the process has ended");
        if let Some((_, rest)) = line.split_once(word) {
            return rest.trim().to_owned();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_hangs_loses_its_queues_to_the_next() {
    if Artemis::is_missing() {
        return;
    }
    let artemis = Artemis::start().await;
    let broker = open(artemis.options()).await;
    let queue = queue("hanging");
    for number in 0..3 {
        send(&broker, &queue, message(number)).await;
    }
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "faults::hanging_host", "--ignored", "--nocapture", "--test-threads=1"])
        .env(BROKER, artemis.address().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(process.stdout.take().unwrap());
    assert_eq!(line(&mut output, "taken "), "0");
    let signal = |signal: &str| {
        let id = process.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    };
    // While it lives, nobody else gets anything.
    let mut consumer = broker.consume(&queue, CREDIT).await.unwrap();
    assert!(tokio::time::timeout(A_WHILE, consumer.next()).await.is_err());
    signal("-STOP");
    receive(&mut *consumer, 0..3).await;
    signal("-CONT");
    process.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    assert_eq!(line(&mut output, "told "), "true");
    assert!(process.wait().unwrap().success());
    broker.close().await;
}
