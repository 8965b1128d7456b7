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
use maxhost_model::SecureHash;

use crate::broker::{BacklogNotices, Broker, Consumer, Holding};
use crate::delivery::{Credit, Delivery, Message, MessageId, Tag};
use crate::error::{BrokerError, Permanent, Transient};
use crate::queue_name::QueueName;

const DEADLINE: Duration = Duration::from_secs(20);
/// How long a test may take whose broker is started again, on a machine that is busy.
const WHOLE: Duration = Duration::from_secs(180);
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
            tokio::time::timeout(WHOLE, $test(subject))
                .await
                .unwrap_or_else(|_| panic!("{}: not done in time", stringify!($test)));
        )*};
    }
    run![
        the_oldest_message_grows_older_until_it_is_taken,
        messages_arrive_in_order_with_their_ids,
        what_is_acknowledged_does_not_come_again,
        what_is_not_acknowledged_comes_again_in_order,
        acknowledging_twice_or_in_any_order_is_fine,
        a_second_consumer_waits_and_then_gets_everything,
        an_acknowledgement_after_detaching_is_refused,
        credit_bounds_what_is_out,
        credit_counts_bytes_too,
        giving_up_waiting_loses_nothing,
        queues_do_not_mix,
        a_large_message_passes_and_a_larger_one_is_refused,
        a_send_out_of_time_can_be_repeated,
        senders_at_once_keep_their_own_order,
        a_notice_comes_for_a_queue_that_nobody_consumes,
        each_notice_is_given_to_one_listener,
        waiting_names_what_nobody_consumes,
        everything_survives_a_restart,
        a_closed_connection_says_so,
    ];
}

/// A new queue.
fn queue() -> QueueName {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let key = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    QueueName::inbound(&SecureHash::of(key.as_bytes()))
}

/// Credit for so many messages, whatever their size.
fn messages(messages: u32) -> Credit {
    Credit { messages, bytes: usize::MAX }
}

fn message(number: u32) -> Message {
    let mut id = [0xab; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    Message { id: MessageId(id), body: Bytes::from(format!("message {number}")) }
}

async fn send(broker: &dyn Broker, queue: &QueueName, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        in_time(broker.send(queue, message(number), DEADLINE)).await.unwrap();
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

/// The first test, because it is about all queues of the broker.
async fn the_oldest_message_grows_older_until_it_is_taken(subject: &dyn Subject) {
    let broker = subject.connect().await;
    assert_eq!(broker.oldest().await.unwrap(), None);
    let begun = std::time::Instant::now();
    let (first, second) = (queue(), queue());
    send(&*broker, &first, [1]).await;
    until("the message has waited", async || broker.oldest().await.unwrap() > Some(Duration::from_millis(300))).await;
    let sent = std::time::Instant::now();
    send(&*broker, &second, [2]).await;
    // A tick of a clock in milliseconds, and what clocks of one machine are told to.
    let slack = Duration::from_millis(100);
    assert!(broker.oldest().await.unwrap().is_some_and(|age| age <= begun.elapsed() + slack));
    take(&*broker, &first, 1).await;
    until("the second is the oldest", async || {
        broker.oldest().await.unwrap().is_some_and(|age| age <= sent.elapsed() + slack)
    })
    .await;
    take(&*broker, &second, 1).await;
    until("nothing waits", async || broker.oldest().await.unwrap().is_none()).await;
}

/// Consumes and acknowledges so many messages.
async fn take(broker: &dyn Broker, queue: &QueueName, count: u32) {
    let mut consumer = broker.consume(queue, messages(count)).await.unwrap();
    for _ in 0..count {
        let delivery = consumer.next().await.unwrap();
        consumer.acks().ack(delivery.tag).await.unwrap();
    }
}

/// Waits until this holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

async fn messages_arrive_in_order_with_their_ids(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue());
    send(&*broker, &queue, 0..20).await;
    let mut consumer = broker.consume(&queue, messages(100)).await.unwrap();
    receive_and_ack(&mut *consumer, 0..20).await;
    // Also while the consumer waits already.
    let later = async {
        send(&*broker, &queue, 20..300).await;
    };
    tokio::join!(later, receive_and_ack(&mut *consumer, 20..300));
    let empty = Message { id: MessageId([1; 16]), body: Bytes::new() };
    in_time(broker.send(&queue, empty.clone(), DEADLINE)).await.unwrap();
    assert_eq!(in_time(consumer.next()).await.unwrap().message, empty);
}

async fn what_is_acknowledged_does_not_come_again(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue());
    send(&*broker, &queue, 0..10).await;
    let mut first = broker.consume(&queue, messages(100)).await.unwrap();
    receive_and_ack(&mut *first, 0..10).await;
    drop(first);
    send(&*broker, &queue, 10..12).await;
    let mut second = broker.consume(&queue, messages(100)).await.unwrap();
    receive_and_ack(&mut *second, 10..12).await;
    nothing_comes(&mut *second).await;
}

async fn what_is_not_acknowledged_comes_again_in_order(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue());
    send(&*broker, &queue, 0..10).await;
    for _ in 0..3 {
        let mut consumer = broker.consume(&queue, messages(5)).await.unwrap();
        receive(&mut *consumer, 0..5).await;
    }
    let mut consumer = broker.consume(&queue, messages(100)).await.unwrap();
    receive_and_ack(&mut *consumer, 0..10).await;
}

async fn acknowledging_twice_or_in_any_order_is_fine(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue());
    send(&*broker, &queue, 0..6).await;
    let mut consumer = broker.consume(&queue, messages(100)).await.unwrap();
    let tags = receive(&mut *consumer, 0..6).await;
    let acks = consumer.acks();
    for index in [4, 1, 3, 1] {
        in_time(acks.ack(tags[index])).await.unwrap();
    }
    drop(consumer);
    let mut consumer = broker.consume(&queue, messages(100)).await.unwrap();
    receive_and_ack(&mut *consumer, [0, 2, 5]).await;
}

async fn a_second_consumer_waits_and_then_gets_everything(subject: &dyn Subject) {
    let (one, two, queue) = (subject.connect().await, subject.connect().await, queue());
    let mut first = one.consume(&queue, messages(100)).await.unwrap();
    let mut second = two.consume(&queue, messages(100)).await.unwrap();
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
    let (broker, queue) = (subject.connect().await, queue());
    send(&*broker, &queue, 0..2).await;
    let mut first = broker.consume(&queue, messages(100)).await.unwrap();
    let tags = receive(&mut *first, 0..2).await;
    let acks = first.acks();
    drop(first);
    assert!(in_time(acks.ack(tags[0])).await.is_err());
    let mut second = broker.consume(&queue, messages(100)).await.unwrap();
    receive_and_ack(&mut *second, 0..2).await;
}

async fn credit_bounds_what_is_out(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue());
    send(&*broker, &queue, 0..10).await;
    let mut consumer = broker.consume(&queue, messages(3)).await.unwrap();
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

async fn credit_counts_bytes_too(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue());
    let of = |n: u8, bytes: usize| Message { id: MessageId([n; 16]), body: Bytes::from(vec![n; bytes]) };
    for n in 0..6 {
        in_time(broker.send(&queue, of(n, 10_000), DEADLINE)).await.unwrap();
    }
    let credit = Credit { messages: 100, bytes: 2 * of(0, 10_000).bytes() };
    let mut consumer = broker.consume(&queue, credit).await.unwrap();
    let first = in_time(consumer.next()).await.unwrap();
    assert_eq!(in_time(consumer.next()).await.unwrap().message, of(1, 10_000));
    nothing_comes(&mut *consumer).await;
    in_time(consumer.acks().ack(first.tag)).await.unwrap();
    assert_eq!(in_time(consumer.next()).await.unwrap().message, of(2, 10_000));
    nothing_comes(&mut *consumer).await;
    drop(consumer);
    // A message that is larger than all of the credit comes, alone.
    let mut consumer = broker.consume(&queue, Credit { messages: 100, bytes: 1 }).await.unwrap();
    for n in 1..4 {
        let delivery = in_time(consumer.next()).await.unwrap();
        assert_eq!(delivery.message, of(n, 10_000));
        nothing_comes(&mut *consumer).await;
        in_time(consumer.acks().ack(delivery.tag)).await.unwrap();
    }
}

async fn giving_up_waiting_loses_nothing(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue());
    let mut consumer = broker.consume(&queue, messages(100)).await.unwrap();
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
    let queues: Vec<QueueName> = (0..20).map(|_| queue()).collect();
    for round in 0..5 {
        for (index, queue) in queues.iter().enumerate() {
            send(&*broker, queue, [index as u32 * 100 + round]).await;
        }
    }
    for (index, queue) in queues.iter().enumerate() {
        let mut consumer = broker.consume(queue, messages(10)).await.unwrap();
        let first = index as u32 * 100;
        receive_and_ack(&mut *consumer, first..first + 5).await;
    }
}

async fn a_large_message_passes_and_a_larger_one_is_refused(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue());
    let limit = broker.max_message_bytes();
    let of = |bytes: usize| Message { id: MessageId([7; 16]), body: Bytes::from(vec![0x5a; bytes]) };
    in_time(broker.send(&queue, of(limit), DEADLINE)).await.unwrap();
    match in_time(broker.send(&queue, of(limit + 1), DEADLINE)).await {
        Err(BrokerError::Permanent(Permanent::TooLarge { bytes, limit: told })) => {
            assert_eq!((bytes, told), (limit + 1, limit));
        }
        other => panic!("{other:?}"),
    }
    send(&*broker, &queue, [1]).await;
    let mut consumer = broker.consume(&queue, messages(10)).await.unwrap();
    let large = in_time(consumer.next()).await.unwrap();
    assert_eq!(large.message, of(limit));
    in_time(consumer.acks().ack(large.tag)).await.unwrap();
    receive_and_ack(&mut *consumer, [1]).await;
}

async fn a_send_out_of_time_can_be_repeated(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue());
    for number in 0..20 {
        match in_time(broker.send(&queue, message(number), Duration::from_micros(u64::from(number) * 10))).await {
            Ok(()) => {}
            Err(BrokerError::Transient(Transient::TimedOut)) => send(&*broker, &queue, [number]).await,
            Err(error) => panic!("{error:?}"),
        }
    }
    // Each is there once or twice, and the copies stand together.
    let mut consumer = broker.consume(&queue, messages(100)).await.unwrap();
    let mut expected = 0;
    while expected < 20 {
        let id = in_time(consumer.next()).await.unwrap().message.id;
        if id == message(expected).id {
            expected += 1;
        } else {
            assert_eq!(id, message(expected - 1).id);
        }
    }
}

async fn senders_at_once_keep_their_own_order(subject: &dyn Subject) {
    const SENDERS: u32 = 8;
    const EACH: u32 = 100;
    let (broker, queue) = (subject.connect().await, queue());
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let (broker, queue) = (subject.connect().await, queue.clone());
        senders.spawn(async move { send(&*broker, &queue, (0..EACH).map(|n| sender * 1000 + n)).await });
    }
    let mut consumer = broker.consume(&queue, messages(50)).await.unwrap();
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

/// Takes notices until the one for this queue; there may be others.
async fn noticed(notices: &mut dyn BacklogNotices, queue: &QueueName) {
    in_time(async { while notices.next().await.unwrap() != *queue {} }).await;
}

async fn a_notice_comes_for_a_queue_that_nobody_consumes(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue());
    let mut notices = broker.backlog_notices().await.unwrap();
    tokio::join!(noticed(&mut *notices, &queue), send(&*broker, &queue, [0]));
    // It was taken and nobody came: the next message gives another.
    tokio::join!(noticed(&mut *notices, &queue), send(&*broker, &queue, [1]));
    // So does a consumer that leaves something behind.
    let mut consumer = broker.consume(&queue, messages(10)).await.unwrap();
    receive(&mut *consumer, 0..2).await;
    drop(consumer);
    noticed(&mut *notices, &queue).await;
}

async fn each_notice_is_given_to_one_listener(subject: &dyn Subject) {
    let (one, two) = (subject.connect().await, subject.connect().await);
    let queues: HashSet<QueueName> = (0..10).map(|_| queue()).collect();
    let (mut first, mut second) = (one.backlog_notices().await.unwrap(), two.backlog_notices().await.unwrap());
    for queue in &queues {
        send(&*one, queue, [0]).await;
    }
    let mut taken = HashSet::new();
    in_time(async {
        while taken.len() < queues.len() {
            let notice = tokio::select! {
                notice = first.next() => notice.unwrap(),
                notice = second.next() => notice.unwrap(),
            };
            if queues.contains(&notice) {
                assert!(taken.insert(notice.clone()), "{notice} was told twice for one message");
            }
        }
    })
    .await;
}

async fn waiting_names_what_nobody_consumes(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue());
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
    let holds = |is_consumed: Option<bool>| {
        let (broker, queue) = (Arc::clone(&broker), queue.clone());
        async move {
            let expected: Vec<_> =
                is_consumed.into_iter().map(|is_consumed| Holding { queue: queue.clone(), is_consumed }).collect();
            in_time(async {
                while broker.holding(std::slice::from_ref(&queue)).await.unwrap() != expected {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .await;
            // Of many queues at once it is the same; most of these are not there.
            let mut many: Vec<QueueName> = (0..40).map(|_| self::queue()).collect();
            many.push(queue);
            assert_eq!(broker.holding(&many).await.unwrap(), expected);
        }
    };
    is_waiting(false).await;
    holds(None).await;
    broker.prepare(&queue).await.unwrap();
    holds(None).await;
    send(&*broker, &queue, 0..2).await;
    is_waiting(true).await;
    holds(Some(false)).await;
    let mut consumer = broker.consume(&queue, messages(10)).await.unwrap();
    is_waiting(false).await;
    receive_and_ack(&mut *consumer, 0..1).await;
    // What it has been given is in the queue until it is acknowledged.
    let given = in_time(consumer.next()).await.unwrap();
    holds(Some(true)).await;
    drop((consumer, given));
    is_waiting(true).await;
    let mut consumer = broker.consume(&queue, messages(10)).await.unwrap();
    receive_and_ack(&mut *consumer, 1..2).await;
    holds(None).await;
    drop(consumer);
    is_waiting(false).await;
}

async fn everything_survives_a_restart(subject: &dyn Subject) {
    let (first, second) = (queue(), queue());
    let broker = subject.connect().await;
    send(&*broker, &first, 0..10).await;
    send(&*broker, &second, 0..3).await;
    let mut consumer = broker.consume(&first, messages(10)).await.unwrap();
    receive_and_ack(&mut *consumer, 0..4).await;
    receive(&mut *consumer, 4..6).await;
    subject.restart().await;
    drop(consumer);
    let broker = subject.connect().await;
    assert!(broker.oldest().await.unwrap().is_some());
    let mut notices = broker.backlog_notices().await.unwrap();
    noticed(&mut *notices, &second).await;
    send(&*broker, &first, 10..12).await;
    let mut consumer = broker.consume(&first, messages(100)).await.unwrap();
    receive_and_ack(&mut *consumer, 4..12).await;
    let mut consumer = broker.consume(&second, messages(100)).await.unwrap();
    receive_and_ack(&mut *consumer, 0..3).await;
}

async fn a_closed_connection_says_so(subject: &dyn Subject) {
    let (broker, queue) = (subject.connect().await, queue());
    let mut consumer = broker.consume(&queue, messages(1)).await.unwrap();
    let mut notices = broker.backlog_notices().await.unwrap();
    assert!(broker.trouble().is_none(), "{:?}", broker.trouble());
    in_time(broker.close()).await;
    let trouble = broker.trouble();
    assert!(matches!(trouble, Some(BrokerError::Permanent(Permanent::Closed))), "{trouble:?}");
    let refused = in_time(broker.send(&queue, message(0), DEADLINE)).await;
    assert!(matches!(refused, Err(BrokerError::Permanent(Permanent::Closed))), "{refused:?}");
    assert!(in_time(consumer.next()).await.is_err());
    assert!(in_time(notices.next()).await.is_err());
    // For whoever comes next.
    subject.restart().await;
}
