//! The contract of brokers, against a real Artemis and a real RabbitMQ.

use std::sync::Arc;

use async_trait::async_trait;
use maxhost_broker::Broker;
use maxhost_broker::contract::{Subject, run_all};
use maxhost_broker_amqp::test_servers::{Artemis, RabbitMq};
use maxhost_broker_amqp::{AmqpBroker, AmqpOptions};
use tokio::sync::Mutex;

struct Server {
    artemis: Mutex<Artemis>,
    connected: Mutex<Vec<AmqpBroker>>,
}

#[async_trait]
impl Subject for Server {
    async fn connect(&self) -> Arc<dyn Broker> {
        let options = AmqpOptions { max_message_bytes: 3 << 20, ..self.artemis.lock().await.options() };
        let broker = AmqpBroker::open(options).await.unwrap();
        self.connected.lock().await.push(broker.clone());
        Arc::new(broker)
    }

    async fn restart(&self) {
        // In order, so that every acknowledgement that was given arrives: one may be lost with its connection.
        for broker in self.connected.lock().await.drain(..) {
            broker.close().await;
        }
        let mut artemis = self.artemis.lock().await;
        artemis.stop().await;
        artemis.restart().await;
    }
}

struct Rabbit {
    server: Mutex<RabbitMq>,
    connected: Mutex<Vec<AmqpBroker>>,
}

#[async_trait]
impl Subject for Rabbit {
    async fn connect(&self) -> Arc<dyn Broker> {
        let options = AmqpOptions { max_message_bytes: 3 << 20, ..self.server.lock().await.options() };
        let broker = AmqpBroker::open(options).await.unwrap();
        self.connected.lock().await.push(broker.clone());
        Arc::new(broker)
    }

    async fn restart(&self) {
        for broker in self.connected.lock().await.drain(..) {
            broker.close().await;
        }
        let mut server = self.server.lock().await;
        server.stop().await;
        server.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_keeps_the_contract() {
    if RabbitMq::is_missing() {
        return;
    }
    run_all(&Rabbit { server: Mutex::new(RabbitMq::start().await), connected: Mutex::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn artemis_keeps_the_contract() {
    if Artemis::is_missing() {
        return;
    }
    let server = Server { artemis: Mutex::new(Artemis::start().await), connected: Mutex::default() };
    run_all(&server).await;
}
