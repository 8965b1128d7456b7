//! The queues of clients in a real broker: requests that several workers share, and answers. The tests share one Artemis, so
//! each has a queue of requests of its own but for those that need the one that clients send to.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fe2o3_amqp::types::messaging::{AmqpValue, Data};
use fe2o3_amqp::types::primitives::{Binary, Value};
use maxhost_broker::{
    Broker, BrokerError, ClientAnswer, ClientQueues, ClientRequest, Delivery, Permanent, QueueName, Requests,
};
use maxhost_broker_amqp::AmqpBroker;
use maxhost_broker_amqp::test_servers::{Answer, Artemis, Client};

use crate::support::{A_WHILE, CREDIT, DEADLINE, in_time, open, until};

const ANSWERS: &str = "rpc.client.ann.1";

fn data(text: &str) -> Data {
    Data(Binary::from(text.as_bytes().to_vec()))
}

fn text_of(request: &ClientRequest) -> &str {
    std::str::from_utf8(&request.body).unwrap()
}

fn answer(id: &str, body: &str) -> ClientAnswer {
    let keep = Duration::from_secs(600);
    ClientAnswer { id: id.to_owned(), subject: "ok".to_owned(), body: Bytes::from(body.to_owned()), keep }
}

/// The next request, however often the link is lost.
async fn next(requests: &mut dyn Requests) -> Delivery<ClientRequest> {
    let taking = async {
        loop {
            match requests.next().await {
                Ok(delivery) => return delivery,
                Err(error) => assert!(error.is_transient(), "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time("a request comes", taking).await
}

/// Takes requests until there are none any more, however often the link is lost: what is too large is removed meanwhile.
async fn drain(requests: &mut dyn Requests) {
    while let Ok(taken) = tokio::time::timeout(A_WHILE, requests.next()).await {
        match taken {
            // What was detached before it was acknowledged comes again.
            Ok(delivery) => drop(requests.acks().ack(delivery.tag).await),
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    }
}

#[tokio::test]
async fn requests_and_answers_of_programs() {
    if Artemis::is_missing() {
        return;
    }
    let artemis = Artemis::start().await;
    let (host, other) = (open(artemis.options()).await, open(artemis.options()).await);
    let queue = QueueName::requests();
    let mut worker = host.requests(&queue, CREDIT).await.unwrap();
    let mut client = Client::connect(artemis.address(), Artemis::CLIENT, ANSWERS).await;

    // All that a request says arrives, whatever its body is made of.
    let properties = [("maxhost_user", "ann"), ("maxhost_time", "17")];
    client.send(Some("a"), Some(ANSWERS), &properties, data("{}")).await;
    client.send(None, None, &[], AmqpValue("text".to_owned())).await;
    client.send(Some("c"), Some("what/ever"), &[], AmqpValue(Value::Binary(Binary::from(b"bytes".to_vec())))).await;
    let first = next(&mut *worker).await;
    let expected = ClientRequest {
        id: "a".to_owned(),
        reply_to: ANSWERS.to_owned(),
        properties: properties.map(|(name, text)| (name.to_owned(), text.to_owned())).into(),
        body: "{}".into(),
    };
    assert_eq!(first.message, expected);
    let second = next(&mut *worker).await.message;
    assert_eq!((second.id.as_str(), second.reply_to.as_str(), text_of(&second)), ("", "", "text"));
    let third = next(&mut *worker).await;
    assert_eq!((third.message.id.as_str(), text_of(&third.message)), ("c", "bytes"));

    // What was not acknowledged is given to another worker.
    worker.acks().ack(third.tag).await.unwrap();
    drop(worker);
    let mut worker = other.requests(&queue, CREDIT).await.unwrap();
    assert_eq!(next(&mut *worker).await.message, expected);
    assert_eq!(text_of(&next(&mut *worker).await.message), "text");
    drain(&mut *worker).await;
    drop(worker);

    put_back_and_shared(&[&host, &other], &queue, &mut client).await;
    answers_go_to_queues_that_clients_have_made(&artemis, &host, client).await;
}

async fn put_back_and_shared(hosts: &[&AmqpBroker; 2], queue: &QueueName, client: &mut Client) {
    // One that is put back comes again, whole, and not before its time.
    let mut first = hosts[0].requests(queue, CREDIT).await.unwrap();
    drain(&mut *first).await;
    client.send(Some("later"), Some(ANSWERS), &[("maxhost_user", "ann")], data("{\"n\":1}")).await;
    let taken = next(&mut *first).await;
    let (begun, delay) = (Instant::now(), Duration::from_secs(2));
    hosts[0].put_back(queue, &taken.message, delay, DEADLINE).await.unwrap();
    first.acks().ack(taken.tag).await.unwrap();
    let again = next(&mut *first).await;
    assert_eq!(again.message, taken.message);
    assert!(begun.elapsed() + Duration::from_millis(100) >= delay, "{:?}", begun.elapsed());
    first.acks().ack(again.tag).await.unwrap();

    // Two workers share what comes: neither waits for the other to go.
    let mut second = hosts[1].requests(queue, CREDIT).await.unwrap();
    let mut by = [0, 0];
    for number in 0..60 {
        client.send(Some(&number.to_string()), Some(ANSWERS), &[], data("{}")).await;
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 60 {
        let (worker, delivery) = in_time("a request comes to one of two", async {
            tokio::select! {
                delivery = first.next() => (0, delivery.unwrap()),
                delivery = second.next() => (1, delivery.unwrap()),
            }
        })
        .await;
        by[worker] += 1;
        assert!(seen.insert(delivery.message.id), "each is given to one of them");
        let acks = if worker == 0 { first.acks() } else { second.acks() };
        acks.ack(delivery.tag).await.unwrap();
    }
    assert!(by[0] > 0 && by[1] > 0, "{by:?}");

    // One that is larger than any worker takes is removed, and those around it are answered.
    client.send(Some("before"), Some(ANSWERS), &[], data("{}")).await;
    client.send(Some("large"), Some(ANSWERS), &[], Data(Binary::from(vec![b'x'; 11 << 20]))).await;
    client.send(Some("behind"), Some(ANSWERS), &[], data("{}")).await;
    let mut seen = BTreeSet::new();
    while !seen.contains("behind") || !seen.contains("before") {
        let (worker, delivery) = in_time("those around it come", async {
            loop {
                let (worker, delivery) = tokio::select! {
                    delivery = first.next() => (0, delivery),
                    delivery = second.next() => (1, delivery),
                };
                match delivery {
                    Ok(delivery) => return (worker, delivery),
                    Err(error) => assert!(error.is_transient(), "{error:?}"),
                }
            }
        })
        .await;
        let acks = if worker == 0 { first.acks() } else { second.acks() };
        // It may be detached by then, and comes again.
        if acks.ack(delivery.tag).await.is_ok() {
            seen.insert(delivery.message.id);
        }
    }
    assert!(!seen.contains("large"), "{seen:?}");
    // Whoever is given it has it removed: a worker that is alone gets what was sent after it, and nothing is left.
    drop((first, second));
    let mut worker = hosts[0].requests(queue, CREDIT).await.unwrap();
    client.send(Some("last"), Some(ANSWERS), &[], data("{}")).await;
    loop {
        let delivery = next(&mut *worker).await;
        assert_ne!(delivery.message.id, "large");
        worker.acks().ack(delivery.tag).await.unwrap();
        if delivery.message.id == "last" {
            break;
        }
    }
    drain(&mut *worker).await;
}

async fn answers_go_to_queues_that_clients_have_made(artemis: &Artemis, host: &AmqpBroker, mut client: Client) {
    let queue: QueueName = ANSWERS.parse().unwrap();
    assert!(host.answer(&queue, answer("a", "{\"x\":1}"), DEADLINE).await.unwrap());
    let expected =
        Answer { id: "a".to_owned(), subject: "ok".to_owned(), body: "{\"x\":1}".to_owned(), ttl: Some(600_000) };
    let got = client.next(DEADLINE).await.unwrap();
    assert_eq!(Answer { ttl: expected.ttl, ..got.clone() }, expected);
    assert!(got.ttl.is_some_and(|left| left <= 600_000), "{got:?}");

    // Nobody has made this one, and no host does.
    let none: QueueName = "rpc.client.nobody".parse().unwrap();
    for _ in 0..2 {
        assert!(!host.answer(&none, answer("a", "{}"), DEADLINE).await.unwrap());
    }
    let large = answer("a", &"x".repeat(host.max_answer_bytes() + 1));
    let refused = host.answer(&queue, large, DEADLINE).await;
    assert!(matches!(refused, Err(BrokerError::Permanent(Permanent::TooLarge { .. }))), "{refused:?}");

    // A program may neither take requests nor make answers.
    assert!(!client.may_send_to("rpc.client.bob").await);

    // One that is away finds its answers when it is back, and what waits for it counts as waiting for no host.
    drop(client);
    assert!(host.answer(&queue, answer("b", "{}"), DEADLINE).await.unwrap());
    until("nothing waits for a host", async || {
        let (waiting, oldest) = (host.waiting().await.unwrap(), host.oldest().await.unwrap());
        assert!(!waiting.contains(&queue), "{waiting:?}");
        if waiting.is_empty() && oldest.is_none() {
            return true;
        }
        // The broker counts what was acknowledged, and what a worker that is gone gave back, in its own time.
        drain(&mut *host.requests(&QueueName::requests(), CREDIT).await.unwrap()).await;
        false
    })
    .await;
    let mut client = Client::connect(artemis.address(), Artemis::CLIENT, ANSWERS).await;
    assert_eq!(client.next(DEADLINE).await.unwrap().id, "b");
}
