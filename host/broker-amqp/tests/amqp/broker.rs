//! What only a broker on the network has: refusals, bad queues, foreign messages, many queues on few connections, large
//! messages for slow consumers. The tests share one Artemis.

use std::collections::HashSet;
use std::time::Duration;

use fe2o3_amqp::connection::ConnectionHandle;
use fe2o3_amqp::sasl_profile::SaslProfile;
use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp::types::messaging::{AmqpValue, Message as AmqpMessage, Target};
use fe2o3_amqp::types::primitives::Symbol;
use fe2o3_amqp::{Connection, Sender, Session};
use futures::{StreamExt, TryStreamExt, stream};
use maxhost_broker::{Broker, BrokerError, Credit, QueueName, Transient};
use maxhost_broker_amqp::test_servers::{Artemis, free_port};
use maxhost_broker_amqp::{Address, AmqpBroker, AmqpOptions, Credentials};
use maxhost_proxy::Proxy;
use tokio::sync::OnceCell;

use crate::support::{
    A_WHILE, CREDIT, DEADLINE, in_time, message, next_surely, number_of, open, queue, reason, receive, send, sized,
    until,
};

/// Queues that somebody made by hand, and not as hosts do.
const MADE_BY_HAND: &str = r#"<addresses>
    <address name="p2p.inbound.multicast"><multicast><queue name="p2p.inbound.multicast"/></multicast></address>
    <address name="p2p.inbound.shared"><anycast><queue name="p2p.inbound.shared" exclusive="false"/></anycast></address>
    <address name="p2p.inbound.purging">
        <anycast><queue name="p2p.inbound.purging" purge-on-no-consumers="true"/></anycast>
    </address>
    <address name="p2p.inbound.newest">
        <anycast><queue name="p2p.inbound.newest" last-value-key="id"/></anycast>
    </address>
</addresses></core>"#;

async fn artemis() -> &'static Artemis {
    static ARTEMIS: OnceCell<Artemis> = OnceCell::const_new();
    ARTEMIS.get_or_init(|| async { Artemis::start_with(&|xml| xml.replace("</core>", MADE_BY_HAND)).await }).await
}

#[tokio::test]
async fn a_host_that_cannot_log_in_is_told_why() {
    if Artemis::is_missing() {
        return;
    }
    let artemis = artemis().await;
    let with = |credentials: Option<Credentials>| AmqpOptions { credentials, ..artemis.options() };
    for credentials in
        [Some(Credentials::new(Artemis::USER, "wrong")), Some(Credentials::new("nobody", "secret")), None]
    {
        let reason = reason(AmqpBroker::open(with(credentials)).await);
        assert!(reason.contains("user and password"), "{reason}");
    }
    // Known, but without any rights.
    let reason = reason(AmqpBroker::open(with(Some(Credentials::new("other", "other")))).await);
    assert!(reason.contains("activemq.management"), "{reason}");
    // Nobody is there.
    let address = Address::parse(&format!("amqp://127.0.0.1:{}", free_port())).unwrap();
    match AmqpBroker::open(AmqpOptions { address, ..artemis.options() }).await {
        Err(BrokerError::Transient(Transient::Unavailable(_))) => {}
        other => panic!("{other:?}"),
    }
    // A stand-in is found.
    let mut options = artemis.options();
    options.address.servers.insert(0, ("127.0.0.1".to_owned(), free_port()));
    open(options).await.close().await;
}

#[tokio::test]
async fn a_broker_that_waits_longer_for_hosts_than_the_ownership_service_is_refused() {
    if Artemis::is_missing() {
        return;
    }
    let artemis = artemis().await;
    let with = |seconds: u64| AmqpOptions { session_timeout: Some(Duration::from_secs(seconds)), ..artemis.options() };
    open(with(4)).await.close().await;
    let reason = reason(AmqpBroker::open(with(3)).await);
    assert!(reason.contains("after 4s") && reason.contains("amqpIdleTimeout"), "{reason}");
}

#[tokio::test]
async fn a_queue_that_would_lose_messages_is_refused_and_costs_the_others_nothing() {
    if Artemis::is_missing() {
        return;
    }
    let artemis = artemis().await;
    let proxy = Proxy::to(artemis.address()).await.unwrap();
    let broker = open(Artemis::options_at(proxy.address())).await;
    let good = queue("beside bad ones");
    let mut consumer = broker.consume(&good, CREDIT).await.unwrap();
    let bad = [("multicast", "ANYCAST"), ("shared", "exclusive"), ("purging", "loses"), ("newest", "drops older")];
    for (number, (name, why)) in (0..).zip(bad) {
        let bad: QueueName = format!("p2p.inbound.{name}").parse().unwrap();
        let told = reason(broker.send(&bad, message(0), DEADLINE).await);
        assert!(told.contains(why) && told.contains(bad.as_str()) && told.contains("remove the queue"), "{told}");
        let told = reason(broker.consume(&bad, CREDIT).await.map(drop));
        assert!(told.contains(why), "{told}");
        send(&broker, &good, message(number)).await;
        receive(&mut *consumer, number..number + 1).await;
    }
    assert_eq!(proxy.accepted(), 2, "a connection was lost");
    broker.close().await;
}

/// A queue is made by a question to the broker, and one that is there is looked at by seven more. The time is shorter than a
/// question waits for an answer that does not come.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn questions_that_are_asked_at_once_are_all_answered() {
    const QUEUES: u32 = 1_000;
    const AT_ONCE: usize = 64;
    if Artemis::is_missing() {
        return;
    }
    let host = async || open(artemis().await.options()).await;
    let hosts = [host().await, host().await, host().await];
    let sending = (0..QUEUES).map(|number| {
        let (hosts, queue) = (&hosts, queue(&format!("asked for {number}")));
        async move {
            for broker in hosts {
                broker.send(&queue, message(number), Duration::from_secs(25)).await?;
            }
            Ok(())
        }
    });
    let sent: Vec<Result<(), BrokerError>> = stream::iter(sending).buffer_unordered(AT_ONCE).collect().await;
    let failed: Vec<_> = sent.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{} of {QUEUES} failed: {:?}", failed.len(), failed.first());
    for broker in &hosts {
        broker.close().await;
    }
}

/// A client that is none of ours, with a link for sending to a queue.
async fn foreign(artemis: &Artemis, queue: &QueueName) -> (ConnectionHandle<()>, SessionHandle<()>, Sender) {
    let mut connection = Connection::builder()
        .container_id("foreign")
        .sasl_profile(SaslProfile::Plain { username: Artemis::USER.to_owned(), password: Artemis::PASSWORD.to_owned() })
        .open(&*format!("amqp://{}", artemis.address()))
        .await
        .unwrap();
    let mut session = Session::begin(&mut connection).await.unwrap();
    let target = Target::builder().address(queue.as_str()).capabilities(vec![Symbol::from("queue")]).build();
    let sender = Sender::builder().name("foreign").target(target).attach(&mut session).await.unwrap();
    (connection, session, sender)
}

#[tokio::test]
async fn a_message_that_is_too_large_is_removed_and_holds_up_nothing() {
    if Artemis::is_missing() {
        return;
    }
    const LIMIT: usize = 200_000;
    let artemis = artemis().await;
    let broker = open(AmqpOptions { max_message_bytes: LIMIT, ..artemis.options() }).await;
    let queue = queue("too large");
    let (mut connection, _session, mut sender) = foreign(artemis, &queue).await;
    let large = |byte: u8| AmqpMessage::builder().data(vec![byte; 5 * LIMIT]).build();
    for number in 0..4 {
        send(&broker, &queue, message(number)).await;
        if number % 2 == 0 {
            sender.send(large(number as u8)).await.unwrap();
        }
    }
    connection.close().await.unwrap();
    let mut consumer = broker.consume(&queue, CREDIT).await.unwrap();
    let mut taken = Vec::new();
    while taken.last() != Some(&3) {
        let delivery = next_surely(&mut *consumer).await;
        taken.push(number_of(&delivery.message));
        assert_eq!(delivery.message, message(*taken.last().unwrap()));
        // It is refused if the link was lost by then.
        let _ = consumer.acks().ack(delivery.tag).await;
    }
    taken.dedup();
    assert_eq!(taken, [0, 1, 2, 3]);
    // Nothing is left, and nothing of it comes back.
    drop(consumer);
    let operator = open(artemis.options()).await;
    let mut consumer = operator.consume(&queue, CREDIT).await.unwrap();
    assert!(tokio::time::timeout(A_WHILE, consumer.next()).await.is_err());
    broker.close().await;
    operator.close().await;
}

#[tokio::test]
async fn messages_that_no_host_has_sent_are_given_out_to_be_refused() {
    if Artemis::is_missing() {
        return;
    }
    let artemis = artemis().await;
    let broker = open(artemis.options()).await;
    let queue = queue("foreign messages");
    send(&broker, &queue, message(0)).await;
    let (mut connection, _session, mut sender) = foreign(artemis, &queue).await;
    sender.send("text").await.unwrap();
    sender.send(AmqpMessage::builder().body(AmqpValue(7_u64)).build()).await.unwrap();
    sender.send(AmqpMessage::builder().data(b"bytes".to_vec()).build()).await.unwrap();
    connection.close().await.unwrap();
    send(&broker, &queue, message(1)).await;
    let mut consumer = broker.consume(&queue, CREDIT).await.unwrap();
    receive(&mut *consumer, 0..1).await;
    let mut bodies = Vec::new();
    for _ in 0..3 {
        let delivery = in_time("a message comes", consumer.next()).await.unwrap();
        bodies.push(delivery.message.body.to_vec());
        consumer.acks().ack(delivery.tag).await.unwrap();
    }
    assert_eq!(bodies, [b"".to_vec(), b"".to_vec(), b"bytes".to_vec()]);
    receive(&mut *consumer, 1..2).await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_queues_need_two_connections() {
    if Artemis::is_missing() {
        return;
    }
    const QUEUES: u32 = 1000;
    let artemis = artemis().await;
    let proxy = Proxy::to(artemis.address()).await.unwrap();
    let broker = open(Artemis::options_at(proxy.address())).await;
    let name = |q: u32| queue(&format!("one of a thousand {q}"));
    let sends = stream::iter((0..QUEUES).map(|q| {
        let broker = broker.clone();
        async move { broker.send(&name(q), message(q), DEADLINE).await }
    }));
    in_time("all are sent", sends.buffer_unordered(64).try_collect::<()>()).await.unwrap();
    let expected: HashSet<QueueName> = (0..QUEUES).map(name).collect();
    // They are listed in pages, and a queue of another test that goes meanwhile may hide one: it is seen at the next look.
    let mut waiting = HashSet::new();
    until("all are told", async || {
        waiting.extend(broker.waiting().await.unwrap());
        expected.is_subset(&waiting)
    })
    .await;
    let consumers = stream::iter((0..QUEUES).map(|q| {
        let broker = broker.clone();
        async move {
            let mut consumer = broker.consume(&name(q), CREDIT).await?;
            let delivery = consumer.next().await?;
            assert_eq!(delivery.message, message(q));
            consumer.acks().ack(delivery.tag).await?;
            Ok::<_, BrokerError>(consumer)
        }
    }));
    let mut consumers: Vec<_> = in_time("all are consumed", consumers.buffered(64).try_collect()).await.unwrap();
    assert!(broker.waiting().await.unwrap().iter().all(|queue| !expected.contains(queue)));
    // All of them are there at once, and each gets its own.
    let sends = stream::iter((0..QUEUES).map(|q| {
        let broker = broker.clone();
        async move { broker.send(&name(q), message(QUEUES + q), DEADLINE).await }
    }));
    in_time("all are sent", sends.buffer_unordered(64).try_collect::<()>()).await.unwrap();
    for (q, consumer) in (0..).zip(&mut consumers) {
        receive(&mut **consumer, QUEUES + q..QUEUES + q + 1).await;
    }
    assert_eq!(proxy.accepted(), 2);
    drop(consumers);
    broker.close().await;
}

#[tokio::test]
async fn a_slow_consumer_of_large_messages_has_few_of_them_in_memory() {
    if Artemis::is_missing() {
        return;
    }
    const SIZE: usize = 2 << 20;
    let artemis = artemis().await;
    let sender = open(artemis.options()).await;
    let queue = queue("large and slow");
    for number in 0..30 {
        send(&sender, &queue, sized(number, 100)).await;
    }
    for number in 30..50 {
        send(&sender, &queue, sized(number, SIZE)).await;
    }
    let proxy = Proxy::to(artemis.address()).await.unwrap();
    let broker = open(Artemis::options_at(proxy.address())).await;
    let mut consumer = broker.consume(&queue, CREDIT).await.unwrap();
    let mut expected = 0;
    let mut held = Vec::new();
    // As much as is given out without an acknowledgement.
    while let Ok(delivery) = tokio::time::timeout(A_WHILE, consumer.next()).await {
        let delivery = delivery.unwrap();
        assert_eq!(number_of(&delivery.message), expected);
        expected += 1;
        held.push(delivery);
    }
    let bytes: usize = held.iter().map(|delivery| delivery.message.bytes()).sum();
    assert!(bytes < CREDIT.bytes + SIZE + 10_000 && held.len() > 30, "{} messages, {bytes} bytes", held.len());
    // Beyond it, no more than was asked for while messages were small.
    let most = (CREDIT.bytes + 16 * SIZE + 100_000) as u64;
    assert!(proxy.bytes_to_clients() < most, "{} bytes came", proxy.bytes_to_clients());
    // From then on one comes for one that goes.
    while expected < 50 {
        for delivery in held.drain(..) {
            consumer.acks().ack(delivery.tag).await.unwrap();
        }
        let delivery = in_time("a message comes", consumer.next()).await.unwrap();
        assert_eq!(number_of(&delivery.message), expected);
        expected += 1;
        held.push(delivery);
    }
    drop(consumer);
    broker.close().await;
    sender.close().await;
}

#[tokio::test]
async fn consumers_together_keep_to_what_the_host_allows() {
    if Artemis::is_missing() {
        return;
    }
    const SIZE: usize = 1 << 20;
    const QUEUES: usize = 6;
    let artemis = artemis().await;
    let sender = open(artemis.options()).await;
    let names: Vec<QueueName> = (0..QUEUES).map(|q| queue(&format!("large together {q}"))).collect();
    for name in &names {
        for number in 0..6 {
            send(&sender, name, sized(number, SIZE)).await;
        }
    }
    let proxy = Proxy::to(artemis.address()).await.unwrap();
    let options = AmqpOptions { receiving_bytes: 2 * SIZE, ..Artemis::options_at(proxy.address()) };
    let broker = open(options).await;
    let credit = Credit { messages: 10, bytes: 10 * SIZE };
    let mut consumers = Vec::new();
    for name in &names {
        consumers.push(broker.consume(name, credit).await.unwrap());
    }
    // Nobody acknowledges, and everybody gets one all the same: none holds up another.
    let mut held = Vec::new();
    for consumer in &mut consumers {
        held.push(in_time("a message comes", consumer.next()).await.unwrap());
    }
    for consumer in &mut consumers {
        while tokio::time::timeout(Duration::from_millis(100), consumer.next()).await.is_ok() {}
    }
    let most = ((2 + QUEUES + 2 * 16) * SIZE) as u64;
    assert!(proxy.bytes_to_clients() < most, "{} bytes came", proxy.bytes_to_clients());
    // Those that acknowledge get all of theirs.
    drop(consumers);
    let mut consumer = broker.consume(&names[0], credit).await.unwrap();
    for number in 0..6 {
        let delivery = in_time("a message comes", consumer.next()).await.unwrap();
        assert_eq!(number_of(&delivery.message), number);
        consumer.acks().ack(delivery.tag).await.unwrap();
    }
    broker.close().await;
    sender.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_survive_consumers_that_leave_in_the_middle_of_one() {
    if Artemis::is_missing() {
        return;
    }
    const COUNT: u32 = 6;
    const SIZE: usize = 4 << 20;
    let artemis = artemis().await;
    let broker = open(artemis.options()).await;
    let queue = queue("large and left");
    for number in 0..COUNT {
        send(&broker, &queue, sized(number, SIZE)).await;
    }
    for round in 0..20 {
        let mut consumer = broker.consume(&queue, CREDIT).await.unwrap();
        let patience = Duration::from_millis(round * 3);
        if let Ok(first) = tokio::time::timeout(patience, consumer.next()).await {
            assert_eq!(number_of(&first.unwrap().message), 0, "in round {round}");
        }
    }
    let mut consumer = broker.consume(&queue, CREDIT).await.unwrap();
    for number in 0..COUNT {
        let delivery = in_time("a message comes", consumer.next()).await.unwrap();
        assert_eq!(number_of(&delivery.message), number);
        assert_eq!(delivery.message, sized(number, SIZE));
        consumer.acks().ack(delivery.tag).await.unwrap();
    }
    broker.close().await;
}

#[tokio::test]
async fn a_notice_stays_until_who_took_it_asks_for_the_next() {
    if Artemis::is_missing() {
        return;
    }
    let artemis = artemis().await;
    // Nobody looks for himself, so a notice is all that tells of a message.
    let options = || AmqpOptions { sweep: Duration::from_secs(3_600), ..artemis.options() };
    let (dies, lives) = (open(options()).await, open(options()).await);
    let queue = queue("with one notice");
    send(&lives, &queue, message(0)).await;
    let mut first = dies.backlog_notices().await.unwrap();
    in_time("the notice comes", async { while first.next().await.unwrap() != queue {} }).await;
    // Whoever has taken it is gone before he has done anything about it.
    dies.close().await;
    drop(first);
    let mut second = lives.backlog_notices().await.unwrap();
    in_time("it comes to another", async { while second.next().await.unwrap() != queue {} }).await;
    // He has, and asks for the next, which there is none of.
    let asks = async { while second.next().await.unwrap() != queue {} };
    assert!(tokio::time::timeout(A_WHILE, asks).await.is_err(), "it was told twice");
    drop(second);
    let mut third = lives.backlog_notices().await.unwrap();
    let comes = async { while third.next().await.unwrap() != queue {} };
    assert!(tokio::time::timeout(A_WHILE, comes).await.is_err(), "it was not taken away");
    let mut consumer = lives.consume(&queue, CREDIT).await.unwrap();
    receive(&mut *consumer, 0..1).await;
    lives.close().await;
}

#[tokio::test]
async fn what_no_notice_came_for_is_found_by_looking() {
    if Artemis::is_missing() {
        return;
    }
    let artemis = artemis().await;
    let options = AmqpOptions { sweep: Duration::from_millis(300), ..artemis.options() };
    let broker = open(options).await;
    let queue = queue("without a notice");
    send(&broker, &queue, message(0)).await;
    // The first listener takes the notice and is gone.
    let noticed = async |broker: &AmqpBroker| {
        let mut notices = broker.backlog_notices().await.unwrap();
        while notices.next().await.unwrap() != queue {}
        drop(notices.next());
    };
    in_time("the notice comes", noticed(&broker)).await;
    in_time("it is found again", noticed(&broker)).await;
    in_time("and again", noticed(&broker)).await;
    let mut consumer = broker.consume(&queue, CREDIT).await.unwrap();
    receive(&mut *consumer, 0..1).await;
    until("it is not waiting any more", async || !broker.waiting().await.unwrap().contains(&queue)).await;
    broker.close().await;
}
