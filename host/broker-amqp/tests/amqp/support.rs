//! What the tests with a real broker have in common.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use std::time::Duration;

use bytes::Bytes;
use maxhost_broker::{Broker, BrokerError, Consumer, Credit, Delivery, Message, MessageId, Permanent, QueueName};
use maxhost_broker_amqp::{AmqpBroker, AmqpOptions};
use maxhost_model::SecureHash;

/// What must happen has so long to happen, on a machine that is busy.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How long one looks whether something happens that must not.
pub const A_WHILE: Duration = Duration::from_millis(500);

pub const CREDIT: Credit = Credit { messages: 64, bytes: 4 << 20 };

pub async fn open(options: AmqpOptions) -> AmqpBroker {
    in_time("the broker is opened", AmqpBroker::open(options)).await.unwrap()
}

/// Why a broker is not opened, or something of it cannot be used.
pub fn reason<T: std::fmt::Debug>(outcome: Result<T, BrokerError>) -> String {
    match outcome {
        Err(BrokerError::Permanent(Permanent::Refused { reason })) => reason,
        other => panic!("{other:?}"),
    }
}

/// The inbound queue of an identity of this name.
pub fn queue(name: &str) -> QueueName {
    QueueName::inbound(&SecureHash::of(name.as_bytes()))
}

pub fn message(number: u32) -> Message {
    sized(number, 200)
}

/// A message of so many bytes.
pub fn sized(number: u32, bytes: usize) -> Message {
    let mut id = [0x5a; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    Message { id: MessageId(id), body: Bytes::from(vec![number as u8; bytes]) }
}

pub fn number_of(message: &Message) -> u32 {
    u32::from_be_bytes(message.id.0[..4].try_into().unwrap())
}

pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Waits until this holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time(what, waiting).await;
}

pub async fn send(broker: &AmqpBroker, queue: &QueueName, message: Message) {
    broker.send(queue, message, DEADLINE).await.unwrap();
}

/// Sends until the broker has it, however often that takes.
pub async fn send_surely(broker: &AmqpBroker, queue: &QueueName, message: Message) {
    let sending = async {
        while let Err(error) = broker.send(queue, message.clone(), Duration::from_secs(10)).await {
            assert!(error.is_transient(), "{error:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time("the message is taken", sending).await;
}

/// Whether the broker has this marker, however often it must be asked.
pub async fn has_marker(broker: &AmqpBroker, marker: &QueueName) -> bool {
    let markers = broker.markers().unwrap();
    let asking = async {
        loop {
            match markers.has_marker(marker).await {
                Ok(has) => return has,
                Err(error) => assert!(error.is_transient(), "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time("it is told whether there is a marker", asking).await
}

/// Takes these messages, in this order.
pub async fn receive(consumer: &mut dyn Consumer, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        let delivery = in_time("a message comes", consumer.next()).await.unwrap();
        assert_eq!(delivery.message, message(number));
        consumer.acks().ack(delivery.tag).await.unwrap();
    }
}

/// The next message, however often the link is lost.
pub async fn next_surely(consumer: &mut dyn Consumer) -> Delivery {
    let taking = async {
        loop {
            match consumer.next().await {
                Ok(delivery) => return delivery,
                Err(error) => assert!(error.is_transient(), "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time("a message comes", taking).await
}
