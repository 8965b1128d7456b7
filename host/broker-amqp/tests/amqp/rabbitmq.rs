//! What is particular to RabbitMQ: which ones are refused, and what is done for what its plugin for AMQP 1.0 leaves open.

use std::time::Duration;

use maxhost_broker::{Broker, BrokerError, QueueName, Transient};
use maxhost_broker_amqp::test_servers::RabbitMq;
use maxhost_broker_amqp::{AmqpBroker, AmqpOptions, Credentials};
use serde_json::{Value, json};

use crate::support::{
    CREDIT, DEADLINE, has_marker, in_time, message, next_surely, open, queue, reason, receive, send, send_surely, until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rabbitmq_that_is_not_set_up_is_refused_and_one_that_fails_loses_nothing() {
    if RabbitMq::is_missing() {
        return;
    }
    let mut rabbit = RabbitMq::start().await;
    is_refused_and_says_why(&rabbit).await;
    let broker = open(rabbit.options()).await;
    assert!(broker.client_queues().is_none(), "it has no delayed messages");
    a_queue_that_somebody_removes_is_made_again(&rabbit, &broker).await;
    a_message_of_others_that_is_too_large_comes_without_its_body(&rabbit).await;
    a_killed_broker_has_what_it_confirmed(&mut rabbit, &broker).await;
    nothing_is_sent_to_a_broker_with_a_full_disk(&mut rabbit, &broker).await;
    broker.close().await;
}

async fn is_refused_and_says_why(rabbit: &RabbitMq) {
    let refused = async |options: AmqpOptions| reason(in_time("it is refused", AmqpBroker::open(options)).await);
    let without = refused(AmqpOptions { management: None, ..rabbit.options() }).await;
    assert!(without.contains("it is RabbitMQ") && without.contains("broker.management"), "{without}");
    let wrong = Some(Credentials::new("maxhost", "wrong"));
    let password = refused(AmqpOptions { credentials: wrong, ..rabbit.options() }).await;
    assert!(password.contains("does not accept the user and password"), "{password}");
    let hangs = refused(AmqpOptions { session_timeout: Some(Duration::from_secs(5)), ..rabbit.options() }).await;
    assert!(hangs.contains("after 6s") && hangs.contains("heartbeat"), "{hangs}");
    let ttl = json!({ "pattern": "^p2p", "definition": { "message-ttl": 1000 }, "apply-to": "queues" });
    rabbit.manage("PUT", "policies/%2F/short", &ttl).await;
    let loses = refused(rabbit.options()).await;
    assert!(loses.contains("policy short sets message-ttl"), "{loses}");
    rabbit.manage("DELETE", "policies/%2F/short", &Value::Null).await;
    // A queue that somebody has made otherwise is refused by its name, and the others are served.
    let (bad, good) = (queue("made by others"), queue("good"));
    rabbit.manage("PUT", &format!("queues/%2F/{bad}"), &json!({ "durable": false, "auto_delete": false })).await;
    let options = AmqpOptions { session_timeout: Some(Duration::from_secs(6)), ..rabbit.options() };
    let broker = open(options).await;
    let error = reason(broker.send(&bad, message(0), DEADLINE).await);
    assert!(error.contains(bad.as_str()) && error.contains("durable"), "{error}");
    send(&broker, &good, message(0)).await;
    broker.close().await;
}

async fn a_queue_that_somebody_removes_is_made_again(rabbit: &RabbitMq, broker: &AmqpBroker) {
    let (removed, other) = (queue("removed"), queue("other"));
    send(broker, &removed, message(0)).await;
    rabbit.manage("DELETE", &format!("queues/%2F/{removed}"), &Value::Null).await;
    // The host is told that there is no such queue: a message that was confirmed is there.
    send_surely(broker, &removed, message(1)).await;
    send_surely(broker, &other, message(2)).await;
    let mut consumer = broker.consume(&removed, CREDIT).await.unwrap();
    receive(&mut *consumer, 1..2).await;
    let mut consumer = broker.consume(&other, CREDIT).await.unwrap();
    receive(&mut *consumer, 2..3).await;
}

async fn a_message_of_others_that_is_too_large_comes_without_its_body(rabbit: &RabbitMq) {
    let broker = open(AmqpOptions { max_message_bytes: 10_000, ..rabbit.options() }).await;
    let queue = queue("large");
    send(&broker, &queue, message(0)).await;
    let large = json!({
        "properties": { "delivery_mode": 2 }, "routing_key": queue.as_str(), "payload": "x".repeat(1 << 20),
        "payload_encoding": "string",
    });
    let put = rabbit.manage("POST", "exchanges/%2F/maxhost/publish", &large).await;
    assert_eq!(put["routed"], true);
    send(&broker, &queue, message(1)).await;
    let mut consumer = broker.consume(&queue, CREDIT).await.unwrap();
    receive(&mut *consumer, 0..1).await;
    let delivery = next_surely(&mut *consumer).await;
    assert!(delivery.message.body.is_empty());
    consumer.acks().ack(delivery.tag).await.unwrap();
    receive(&mut *consumer, 1..2).await;
    broker.close().await;
}

async fn a_killed_broker_has_what_it_confirmed(rabbit: &mut RabbitMq, broker: &AmqpBroker) {
    let queue = queue("killed");
    for number in 0..100 {
        send(broker, &queue, message(number)).await;
    }
    let (marker, other) = (QueueName::marker(7, 0, 1), QueueName::marker(7, 0, 2));
    broker.markers().unwrap().make_marker(&marker).await.unwrap();
    rabbit.kill();
    let error = broker.send(&queue, message(100), Duration::from_secs(2)).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    rabbit.restart().await;
    assert!(has_marker(broker, &marker).await && !has_marker(broker, &other).await);
    send_surely(broker, &queue, message(101)).await;
    let mut consumer = in_time("it is consumed", async {
        loop {
            match broker.consume(&queue, CREDIT).await {
                Ok(consumer) => break consumer,
                Err(error) => assert!(error.is_transient(), "{error:?}"),
            }
        }
    })
    .await;
    receive(&mut *consumer, 0..100).await;
    // What was not confirmed may have been taken.
    while next_surely(&mut *consumer).await.message != message(101) {}
}

async fn nothing_is_sent_to_a_broker_with_a_full_disk(rabbit: &mut RabbitMq, broker: &AmqpBroker) {
    let queue = queue("full disk");
    for number in 0..3 {
        send_surely(broker, &queue, message(number)).await;
    }
    rabbit.stop().await;
    rabbit.set_disk_free_limit("900000GB");
    rabbit.restart().await;
    until("it takes nothing", async || {
        let sent = broker.send(&queue, message(3), Duration::from_secs(1)).await;
        matches!(sent, Err(BrokerError::Transient(Transient::NoSpace(_))))
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
        assert_eq!(next_surely(&mut *consumer).await.message, message(number));
    }
}
