//! The embedded broker: the contract, and what only it promises.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use maxhost_broker::contract::{Subject, run_all};
use maxhost_broker::{
    Broker, BrokerError, Credit, EmbeddedBroker, EmbeddedOptions, Message, MessageId, Permanent, QueueName, Transient,
};
use tokio::sync::Mutex;

struct Embedded {
    dir: tempfile::TempDir,
    broker: Mutex<EmbeddedBroker>,
}

async fn open(dir: &Path) -> EmbeddedBroker {
    let options = EmbeddedOptions { max_message_bytes: 3 << 20, ..EmbeddedOptions::new(dir.join("broker.db")) };
    EmbeddedBroker::open(options).await.unwrap()
}

#[async_trait]
impl Subject for Embedded {
    async fn connect(&self) -> Arc<dyn Broker> {
        Arc::new(self.broker.lock().await.clone())
    }

    async fn restart(&self) {
        let mut broker = self.broker.lock().await;
        broker.close().await;
        *broker = open(self.dir.path()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mutex::new(open(dir.path()).await);
    run_all(&Embedded { dir, broker }).await;
}

#[tokio::test]
async fn it_keeps_the_contract_on_one_thread() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mutex::new(open(dir.path()).await);
    run_all(&Embedded { dir, broker }).await;
}

const IN_TIME: Duration = Duration::from_secs(30);

fn queue(name: &str) -> QueueName {
    format!("maxhost.test.{name}").parse().unwrap()
}

fn messages(messages: u32) -> Credit {
    Credit { messages, bytes: usize::MAX }
}

fn message(number: u32) -> Message {
    Message { id: MessageId(u128::from(number).to_be_bytes()), body: Bytes::from(vec![number as u8; 200]) }
}

const DIR: &str = "MAXHOST_BROKER_CRASH_DIR";
const QUEUES: u32 = 5;

/// The process that is killed: sends and consumes, and tells what was confirmed to it.
#[test]
#[ignore = "started by the_confirmed_survives_a_kill"]
fn sending_process() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let broker = open(Path::new(&dir)).await;
        let first = std::env::var("FIRST").unwrap().parse().unwrap();
        let tell = |word: &str, number: u32| {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{word} {number}").unwrap();
            out.flush().unwrap();
        };
        let sender = async {
            for number in first.. {
                let sends = (0..QUEUES).map(|q| (q, broker.clone()));
                let mut tasks = tokio::task::JoinSet::new();
                for (q, broker) in sends {
                    tasks.spawn(async move { broker.send(&queue(&q.to_string()), message(number), IN_TIME).await });
                }
                while let Some(sent) = tasks.join_next().await {
                    sent.unwrap().unwrap();
                }
                tell("sent", number);
            }
        };
        let receiver = async {
            let mut consumer = broker.consume(&queue("0"), messages(10)).await.unwrap();
            loop {
                let delivery = consumer.next().await.unwrap();
                consumer.acks().ack(delivery.tag).await.unwrap();
                tell("acked", u128::from_be_bytes(delivery.message.id.0) as u32);
            }
        };
        tokio::join!(sender, receiver);
    });
}

#[test]
fn the_confirmed_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (mut sent, mut acked) = (0, None);
    for round in 0..6 {
        let lines = run_and_kill(dir.path(), sent, 100 + round * 61);
        for (word, number) in lines {
            match &*word {
                "sent" => sent = number + 1,
                _ => acked = Some(number),
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let broker = open(dir.path()).await;
            // Of the queue that was consumed: nothing that was acknowledged, everything that was not.
            let acked = acked.unwrap();
            if broker.waiting().await.unwrap().contains(&queue("0")) {
                let mut consumer = broker.consume(&queue("0"), messages(100_000)).await.unwrap();
                let first = u128::from_be_bytes(consumer.next().await.unwrap().message.id.0) as u32;
                assert!(first > acked, "round {round}: {first} was acknowledged, as {acked} was");
            } else {
                // Of one acknowledgement it was not told any more.
                assert!(
                    acked + 2 >= sent,
                    "round {round}: {sent} were sent, {acked} is the last that was acknowledged"
                );
            }
            for q in 1..QUEUES {
                let mut consumer = broker.consume(&queue(&q.to_string()), messages(100_000)).await.unwrap();
                let mut previous = None;
                for number in 0..sent {
                    // A message whose confirmation never came may be there twice: it was sent again.
                    let id = loop {
                        let delivery = tokio::time::timeout(Duration::from_secs(30), consumer.next()).await;
                        let delivery = delivery.unwrap_or_else(|_| panic!("round {round}: {number} is gone")).unwrap();
                        if Some(delivery.message.id) != previous {
                            break delivery.message.id;
                        }
                    };
                    assert_eq!(id, message(number).id, "round {round}");
                    previous = Some(id);
                }
            }
            broker.close().await;
        });
    }
}

fn run_and_kill(dir: &Path, first: u32, after: usize) -> Vec<(String, u32)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sending_process", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env("FIRST", first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (line, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for text in output.lines().map_while(Result::ok) {
            if let Some((word @ ("sent" | "acked"), number)) = text.split_once(' ') {
                line.send((word.to_owned(), number.parse().unwrap())).unwrap();
            }
        }
    });
    let mut heard = Vec::new();
    while heard.len() < after || !heard.iter().any(|(word, _)| word == "acked") {
        heard.push(lines.recv_timeout(Duration::from_secs(60)).expect("the process does nothing"));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    heard.extend(lines.try_iter());
    heard
}

#[tokio::test]
async fn a_full_file_refuses_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { max_bytes: Some(1 << 20), ..EmbeddedOptions::new(dir.path().join("broker.db")) };
    let broker = EmbeddedBroker::open(options).await.unwrap();
    let big = |n: u8| Message { id: MessageId([n; 16]), body: Bytes::from(vec![n; 60_000]) };
    let mut sent = 0;
    let error = loop {
        match broker.send(&queue("q"), big(sent), IN_TIME).await {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, BrokerError::Transient(Transient::NoSpace(_))), "{error:?}");
    let mut consumer = broker.consume(&queue("q"), messages(10)).await.unwrap();
    for n in 0..2 {
        let delivery = consumer.next().await.unwrap();
        assert_eq!(delivery.message, big(n));
        consumer.acks().ack(delivery.tag).await.unwrap();
    }
    broker.send(&queue("q"), big(sent), IN_TIME).await.unwrap();
    for n in 2..=sent {
        let delivery = consumer.next().await.unwrap();
        assert_eq!(delivery.message, big(n));
        consumer.acks().ack(delivery.tag).await.unwrap();
    }
}

#[tokio::test]
async fn foreign_and_newer_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.db");
    let refused = |path: std::path::PathBuf| async move {
        match EmbeddedBroker::open(EmbeddedOptions::new(path)).await {
            Ok(_) => panic!("opened"),
            Err(error) => error,
        }
    };
    std::fs::write(&path, vec![b'x'; 9000]).unwrap();
    assert!(matches!(refused(path.clone()).await, BrokerError::Permanent(Permanent::Unusable { .. })));
    std::fs::remove_file(&path).unwrap();
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE songs (title TEXT)").unwrap();
    assert!(matches!(refused(path.clone()).await, BrokerError::Permanent(Permanent::Unusable { .. })));
    std::fs::remove_file(&path).unwrap();
    open(dir.path()).await.close().await;
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA user_version=7").unwrap();
    assert!(matches!(refused(path.clone()).await, BrokerError::Permanent(Permanent::Incompatible { found: 7, .. })));
    assert!(matches!(refused("/proc/self/broker.db".into()).await, BrokerError::Permanent(Permanent::Unusable { .. })));
}

#[tokio::test]
async fn a_full_queue_refuses_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let limited = || EmbeddedOptions {
        max_message_bytes: 1000,
        max_queue_bytes: 10 * message(0).bytes() as u64,
        ..EmbeddedOptions::new(dir.path().join("broker.db"))
    };
    let broker = EmbeddedBroker::open(limited()).await.unwrap();
    let (full, other) = (queue("full"), queue("other"));
    // At once, so that what is on its way counts as well.
    let sends = (0..20).map(|n| broker.send(&full, message(n), IN_TIME));
    let results = futures::future::join_all(sends).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 10);
    for refused in results.into_iter().filter_map(Result::err) {
        match refused {
            BrokerError::Transient(Transient::QueueFull { queue, held, limit, .. }) => {
                assert_eq!((&queue, held, limit), (&full, limit, 10 * message(0).bytes() as u64));
            }
            other => panic!("{other:?}"),
        }
    }
    broker.send(&other, message(0), IN_TIME).await.unwrap();
    // It counts what is in the file after a restart, too.
    broker.close().await;
    let broker = EmbeddedBroker::open(limited()).await.unwrap();
    assert!(broker.send(&full, message(20), IN_TIME).await.unwrap_err().is_transient());
    let mut consumer = broker.consume(&full, messages(100)).await.unwrap();
    for _ in 0..3 {
        let delivery = consumer.next().await.unwrap();
        consumer.acks().ack(delivery.tag).await.unwrap();
        consumer.acks().ack(delivery.tag).await.unwrap();
    }
    let sends = (20..30).map(|n| broker.send(&full, message(n), IN_TIME));
    let results = futures::future::join_all(sends).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3, "as many as went, and not one twice");
}

#[tokio::test]
async fn a_queue_of_an_older_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.db");
    open(dir.path()).await.close().await;
    let old = "INSERT INTO queue (id, name) VALUES (7, 'O=Alice, L=London, C=GB');
        INSERT INTO message (seq, queue, id, body) VALUES (5, 7, zeroblob(16), zeroblob(3))";
    rusqlite::Connection::open(&path).unwrap().execute_batch(old).unwrap();
    let broker = open(dir.path()).await;
    assert!(broker.waiting().await.unwrap().is_empty());
    for number in 0..10 {
        broker.send(&queue("new"), message(number), IN_TIME).await.unwrap();
    }
    let mut consumer = broker.consume(&queue("new"), messages(10)).await.unwrap();
    for number in 0..10 {
        assert_eq!(consumer.next().await.unwrap().message, message(number));
    }
    broker.close().await;
    let rows = "SELECT count(*) FROM message WHERE queue = 7";
    let left: i64 = rusqlite::Connection::open(&path).unwrap().query_row(rows, [], |row| row.get(0)).unwrap();
    assert_eq!(left, 1);
}
