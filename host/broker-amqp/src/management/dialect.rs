//! How a broker wants its queues named, and what else AMQP 1.0 leaves to it.

use fe2o3_amqp::types::messaging::Properties;

/// A broker, and what it makes of AMQP 1.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Apache Artemis: a queue has the address of its name.
    Artemis,
    /// RabbitMQ 3 with its plugin rabbitmq_amqp1_0. It knows no anonymous terminus: messages go to an exchange, with the name
    /// of the queue for their subject (the plugin's README, section "Routing and Addressing").
    RabbitMq3,
    /// RabbitMQ 4: addresses of version 2 (its manual, "AMQP 1.0", section "Address v2").
    RabbitMq4,
}

impl Dialect {
    /// The exchange that RabbitMQ 3 finds queues by.
    pub const EXCHANGE: &str = "maxhost";
    /// The largest message that RabbitMQ 3 takes, if nobody has set `max_message_size`, in bytes: it tells nobody what is set.
    const LARGEST_OF_RABBITMQ: usize = 128 << 20;

    /// The target of the link that messages for all queues are sent by.
    pub fn sending_target(self) -> Option<String> {
        match self {
            Dialect::RabbitMq3 => Some(format!("/exchange/{}", Dialect::EXCHANGE)),
            Dialect::Artemis | Dialect::RabbitMq4 => None,
        }
    }

    /// Says in the properties of a message which queue it is for. What the message has for its subject already is an answer
    /// to a client, which RabbitMQ is not used for.
    pub fn name_destination(self, properties: &mut Properties, queue: String) {
        match self {
            Dialect::Artemis => properties.to = Some(queue),
            Dialect::RabbitMq3 => properties.subject = Some(queue),
            Dialect::RabbitMq4 => properties.to = Some(self.source(&queue)),
        }
    }

    /// The address by which a queue is consumed. Names of queues have no letters that would have to be escaped.
    pub fn source(self, queue: &str) -> String {
        match self {
            Dialect::Artemis => queue.to_owned(),
            Dialect::RabbitMq3 => format!("/amq/queue/{queue}"),
            Dialect::RabbitMq4 => format!("/queues/{queue}"),
        }
    }

    /// Whether a link that is detached gives back what was not acknowledged before anybody else is given more. RabbitMQ 3 keeps
    /// it until the session ends, and gives the next consumer what comes after it meanwhile.
    pub fn gives_back_when_detached(self) -> bool {
        self == Dialect::Artemis
    }

    /// The largest message that a consumer lets come, in bytes. RabbitMQ has no way to take a single message out of a queue
    /// that is consumed, so there it must come to be put aside.
    pub fn largest_received(self, largest_of_hosts: usize) -> usize {
        match self {
            Dialect::Artemis => largest_of_hosts,
            Dialect::RabbitMq3 | Dialect::RabbitMq4 => largest_of_hosts.max(Dialect::LARGEST_OF_RABBITMQ),
        }
    }
}
