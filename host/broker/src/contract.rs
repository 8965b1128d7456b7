//! What every broker must do. An implementation runs [`run_all`] in a test of its own.
//!
//! Nothing here waits for a fixed time to let something happen: what must happen is waited for with a deadline. Only
//! that something does *not* happen is checked after a short while.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::broker::{Broker, Consumer, Delivery, Message, MessageId, Tag};
use crate::error::BrokerError;

const DEADLINE: Duration = Duration::from_secs(20);
/// How long one looks whether something happens that must not.
const A_WHILE: Duration = Duration::from_millis(150);

/// The broker under test.
#[async_trait]
pub trait Subject: Send + Sync {
    /// A connection. All connections of a subject reach the same broker; where a broker knows no connections it may be
    /// the same one each time.
    async fn connect(&self) -> Arc<dyn Broker>;

    /// Ends the broker and starts it again on what it had stored. Connections made before are closed.
    async fn restart(&self);
}

/// Runs every test against a subject, one after the other, each on queues of its own.
pub async fn run_all(subject: &dyn Subject) {
    macro_rules! run {
        ($($test:ident),* $(,)?) => {$(
            println!("contract: {}", stringify!($test));
            tokio::time::timeout(DEADLINE * 2, $test(subject))
                .await
                .unwrap_or_else(|_| panic!("{}: not done in time", stringify!($test)));
        )*};
    }
    run![
        messages_arrive_in_order_with_their_ids,
        what_is_acknowledged_does_not_come_again,
        what_is_not_acknowledged_comes_again_in_order,
        acknowledging_twice_or_in_any_order_is_fine,
        a_second_consumer_waits_and_then_gets_everything,
        an_acknowledgement_after_detaching_is_refused,
        credit_bounds_what_is_out,
        giving_up_waiting_loses_nothing,
        queues_do_not_mix,
        a_large_message_passes_and_a_larger_one_is_refused,
        a_bad_queue_name_is_refused,
        senders_at_once_keep_their_own_order,
        a_bell_rings_for_a_queue_that_nobody_consumes,
        each_bell_is_heard_by_one_listener,
        waiting_names_what_nobody_consumes,
        everything_survives_a_restart,
        a_closed_connection_says_so,
    ];
}

fn queue(test: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("p2p.inbound.contract.{}.{test}.{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn message(number: u32) -> Message {
    let mut id = [0xab; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    Message { id: MessageId(id), body: Bytes::from(format!("message {number}")) }
}

async fn send(broker: &dyn Broker, queue: &str, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        in_time(broker.send(queue, message(number))).await.unwrap();
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it did not happen in time")
}

async fn receive(consumer: &mut dyn Consumer, numbers: impl IntoIterator<Item = u32>) -> Vec<Tag> {
    let mut tags = Vec::new();
    for number in numbers {
        let delivery: Delivery = in_time(consumer.next()).await.unwrap();
        assert_eq!(delivery.message, message(number));
        tags.push(delivery.tag);
    }
    tags
}

async fn receive_and_ack(consumer: &mut dyn Consumer, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        let tag = receive(consumer, [number]).await[0];
        in_time(consumer.acks().ack(tag)).await.unwrap();
    }
}

async fn nothing_comes(consumer: &mut dyn Consumer) {
    if let Ok(delivery) = tokio::time::timeout(A_WHILE, consumer.next()).await {
        panic!("nothing was to be delivered, but {delivery:?} came");
    }
}

async fn messages_arrive_in_order_with_their_ids(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue("order"));
    send(&*broker, &queue, 0..20).await;
    let mut consumer = broker.consume(&queue, 100).await.unwrap();
    receive_and_ack(&mut *consumer, 0..20).await;
    // Also while the consumer waits already.
    let later = async {
        send(&*broker, &queue, 20..300).await;
    };
    tokio::join!(later, receive_and_ack(&mut *consumer, 20..300));
    let empty = Message { id: MessageId([1; 16]), body: Bytes::new() };
    in_time(broker.send(&queue, empty.clone())).await.unwrap();
    assert_eq!(in_time(consumer.next()).await.unwrap().message, empty);
}

async fn what_is_acknowledged_does_not_come_again(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue("acknowledged"));
    send(&*broker, &queue, 0..10).await;
    let mut first = broker.consume(&queue, 100).await.unwrap();
    receive_and_ack(&mut *first, 0..10).await;
    drop(first);
    send(&*broker, &queue, 10..12).await;
    let mut second = broker.consume(&queue, 100).await.unwrap();
    receive_and_ack(&mut *second, 10..12).await;
    nothing_comes(&mut *second).await;
}

async fn what_is_not_acknowledged_comes_again_in_order(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue("unacknowledged"));
    send(&*broker, &queue, 0..10).await;
    for _ in 0..3 {
        let mut consumer = broker.consume(&queue, 5).await.unwrap();
        receive(&mut *consumer, 0..5).await;
    }
    let mut consumer = broker.consume(&queue, 100).await.unwrap();
    receive_and_ack(&mut *consumer, 0..10).await;
}

async fn acknowledging_twice_or_in_any_order_is_fine(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue("any-order"));
    send(&*broker, &queue, 0..6).await;
    let mut consumer = broker.consume(&queue, 100).await.unwrap();
    let tags = receive(&mut *consumer, 0..6).await;
    let acks = consumer.acks();
    for index in [4, 1, 3, 1] {
        in_time(acks.ack(tags[index])).await.unwrap();
    }
    drop(consumer);
    let mut consumer = broker.consume(&queue, 100).await.unwrap();
    receive_and_ack(&mut *consumer, [0, 2, 5]).await;
}

async fn a_second_consumer_waits_and_then_gets_everything(subject: &dyn Subject) {
    let (one, two, queue) = (subject.connect().await, subject.connect().await, queue("exclusive"));
    let mut first = one.consume(&queue, 100).await.unwrap();
    let mut second = two.consume(&queue, 100).await.unwrap();
    send(&*one, &queue, 0..20).await;
    let tags = receive(&mut *first, 0..20).await;
    in_time(first.acks().ack(tags[0])).await.unwrap();
    nothing_comes(&mut *second).await;
    drop(first);
    receive_and_ack(&mut *second, 1..20).await;
    send(&*one, &queue, 20..22).await;
    receive_and_ack(&mut *second, 20..22).await;
}

async fn an_acknowledgement_after_detaching_is_refused(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue("detached"));
    send(&*broker, &queue, 0..2).await;
    let mut first = broker.consume(&queue, 100).await.unwrap();
    let tags = receive(&mut *first, 0..2).await;
    let acks = first.acks();
    drop(first);
    assert!(in_time(acks.ack(tags[0])).await.is_err());
    let mut second = broker.consume(&queue, 100).await.unwrap();
    receive_and_ack(&mut *second, 0..2).await;
}

async fn credit_bounds_what_is_out(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue("credit"));
    send(&*broker, &queue, 0..10).await;
    let mut consumer = broker.consume(&queue, 3).await.unwrap();
    let tags = receive(&mut *consumer, 0..3).await;
    nothing_comes(&mut *consumer).await;
    in_time(consumer.acks().ack(tags[1])).await.unwrap();
    receive(&mut *consumer, 3..4).await;
    nothing_comes(&mut *consumer).await;
    // An acknowledgement from elsewhere wakes a consumer that waits for credit.
    let acks = consumer.acks();
    let (delivery, acked) = tokio::join!(in_time(consumer.next()), acks.ack(tags[0]));
    acked.unwrap();
    assert_eq!(delivery.unwrap().message, message(4));
}

async fn giving_up_waiting_loses_nothing(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue("giving-up"));
    let mut consumer = broker.consume(&queue, 100).await.unwrap();
    let sender = async {
        for number in 0..50 {
            send(&*broker, &queue, [number]).await;
            tokio::task::yield_now().await;
        }
    };
    let receiver = async {
        let mut next = 0;
        while next < 50 {
            let patience = Duration::from_micros(u64::from(next) * 20);
            if let Ok(delivery) = tokio::time::timeout(patience, consumer.next()).await {
                assert_eq!(delivery.unwrap().message, message(next));
                next += 1;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(sender, in_time(receiver));
}

async fn queues_do_not_mix(subject: &dyn Subject) {
    let broker = subject.connect().await;
    let queues: Vec<String> = (0..20).map(|_| queue("many")).collect();
    for round in 0..5 {
        for (index, queue) in queues.iter().enumerate() {
            send(&*broker, queue, [index as u32 * 100 + round]).await;
        }
    }
    for (index, queue) in queues.iter().enumerate() {
        let mut consumer = broker.consume(queue, 10).await.unwrap();
        let first = index as u32 * 100;
        receive_and_ack(&mut *consumer, first..first + 5).await;
    }
}

async fn a_large_message_passes_and_a_larger_one_is_refused(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue("large"));
    let limit = broker.max_message_bytes();
    let of = |bytes: usize| Message { id: MessageId([7; 16]), body: Bytes::from(vec![0x5a; bytes]) };
    in_time(broker.send(&queue, of(limit))).await.unwrap();
    match in_time(broker.send(&queue, of(limit + 1))).await {
        Err(error @ BrokerError::TooLarge { .. }) => assert!(!error.is_retriable()),
        other => panic!("{other:?}"),
    }
    send(&*broker, &queue, [1]).await;
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    let large = in_time(consumer.next()).await.unwrap();
    assert_eq!(large.message, of(limit));
    in_time(consumer.acks().ack(large.tag)).await.unwrap();
    receive_and_ack(&mut *consumer, [1]).await;
}

async fn a_bad_queue_name_is_refused(subject: &dyn Subject) {
    let broker = subject.connect().await;
    for name in ["", &"x".repeat(256)] {
        assert!(matches!(broker.send(name, message(0)).await, Err(BrokerError::BadQueue(_))));
        assert!(broker.consume(name, 1).await.is_err());
    }
}

async fn senders_at_once_keep_their_own_order(subject: &dyn Subject) {
    const SENDERS: u32 = 8;
    const EACH: u32 = 100;
    let (broker, queue) = (subject.connect().await, queue("senders"));
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let (broker, queue) = (subject.connect().await, queue.clone());
        senders.spawn(async move { send(&*broker, &queue, (0..EACH).map(|n| sender * 1000 + n)).await });
    }
    let mut consumer = broker.consume(&queue, 50).await.unwrap();
    let mut next: HashMap<u32, u32> = HashMap::new();
    for _ in 0..SENDERS * EACH {
        let delivery = in_time(consumer.next()).await.unwrap();
        let id = delivery.message.id.0;
        let number = u32::from_be_bytes([id[0], id[1], id[2], id[3]]);
        let expected = next.entry(number / 1000).or_default();
        assert_eq!(number % 1000, *expected, "of sender {}", number / 1000);
        *expected += 1;
        in_time(consumer.acks().ack(delivery.tag)).await.unwrap();
    }
    while let Some(sender) = senders.join_next().await {
        sender.unwrap();
    }
}

/// Hears bells until the one for this queue; others may ring too.
async fn hear(bells: &mut dyn crate::broker::Bells, queue: &str) {
    in_time(async { while bells.next().await.unwrap() != *queue {} }).await;
}

async fn a_bell_rings_for_a_queue_that_nobody_consumes(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue("bell"));
    let mut bells = broker.bells().await.unwrap();
    tokio::join!(hear(&mut *bells, &queue), send(&*broker, &queue, [0]));
    // It was heard and nobody came: the next message rings again.
    tokio::join!(hear(&mut *bells, &queue), send(&*broker, &queue, [1]));
    // A consumer that leaves something behind rings it too.
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    receive(&mut *consumer, 0..2).await;
    drop(consumer);
    hear(&mut *bells, &queue).await;
}

async fn each_bell_is_heard_by_one_listener(subject: &dyn Subject) {
    let (one, two) = (subject.connect().await, subject.connect().await);
    let queues: HashSet<String> = (0..10).map(|_| queue("bells")).collect();
    let (mut first, mut second) = (one.bells().await.unwrap(), two.bells().await.unwrap());
    for queue in &queues {
        send(&*one, queue, [0]).await;
    }
    let mut heard = HashSet::new();
    in_time(async {
        while heard.len() < queues.len() {
            let bell = tokio::select! {
                bell = first.next() => bell.unwrap(),
                bell = second.next() => bell.unwrap(),
            };
            if queues.contains(&bell) {
                assert!(heard.insert(bell.clone()), "{bell} was heard twice for one message");
            }
        }
    })
    .await;
}

async fn waiting_names_what_nobody_consumes(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue("waiting"));
    let is_waiting = |expected: bool| {
        let (broker, queue) = (Arc::clone(&broker), queue.clone());
        async move {
            let settled = async {
                while broker.waiting().await.unwrap().contains(&queue) != expected {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            in_time(settled).await;
        }
    };
    is_waiting(false).await;
    send(&*broker, &queue, 0..2).await;
    is_waiting(true).await;
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    is_waiting(false).await;
    receive_and_ack(&mut *consumer, 0..1).await;
    drop(consumer);
    is_waiting(true).await;
    let mut consumer = broker.consume(&queue, 10).await.unwrap();
    receive_and_ack(&mut *consumer, 1..2).await;
    drop(consumer);
    is_waiting(false).await;
}

async fn everything_survives_a_restart(subject: &dyn Subject) {
    let (first, second) = (queue("restart"), queue("restart"));
    let broker = subject.connect().await;
    send(&*broker, &first, 0..10).await;
    send(&*broker, &second, 0..3).await;
    let mut consumer = broker.consume(&first, 10).await.unwrap();
    receive_and_ack(&mut *consumer, 0..4).await;
    receive(&mut *consumer, 4..6).await;
    subject.restart().await;
    drop(consumer);
    let broker = subject.connect().await;
    let mut bells = broker.bells().await.unwrap();
    hear(&mut *bells, &second).await;
    send(&*broker, &first, 10..12).await;
    let mut consumer = broker.consume(&first, 100).await.unwrap();
    receive_and_ack(&mut *consumer, 4..12).await;
    let mut consumer = broker.consume(&second, 100).await.unwrap();
    receive_and_ack(&mut *consumer, 0..3).await;
}

async fn a_closed_connection_says_so(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue("closed"));
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    let mut bells = broker.bells().await.unwrap();
    in_time(broker.close()).await;
    assert!(matches!(in_time(broker.send(&queue, message(0))).await, Err(BrokerError::Closed)));
    assert!(in_time(consumer.next()).await.is_err());
    assert!(in_time(bells.next()).await.is_err());
    // For whoever comes next.
    subject.restart().await;
}
