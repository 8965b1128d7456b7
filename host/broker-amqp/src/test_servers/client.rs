//! A program outside of the cluster that sends requests as messages.

use std::net::SocketAddr;
use std::time::Duration;

use fe2o3_amqp::connection::ConnectionHandle;
use fe2o3_amqp::link::receiver::CreditMode;
use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp::types::messaging::{
    ApplicationProperties, Body, Data, Header, IntoBody, Message, MessageId, Outcome, Properties, SerializableBody,
    Source, Target,
};
use fe2o3_amqp::types::primitives::{Symbol, Value};
use fe2o3_amqp::{Receiver, Sender, Session};

use crate::heard::Heard;
use crate::{Address, AmqpOptions, Credentials, dial};

/// What a program gets for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The id of the request.
    pub id: String,
    /// `ok`, or the code of an error.
    pub subject: String,
    /// The answer.
    pub body: String,
    /// For how long the broker keeps it, in milliseconds.
    pub ttl: Option<u32>,
}

/// A program with a connection of its own.
pub struct Client {
    _connection: ConnectionHandle<()>,
    session: SessionHandle<()>,
    sender: Sender,
    answers: Receiver,
}

impl Client {
    /// Connects as this user and consumes this queue for answers, which is made if there is none.
    pub async fn connect(broker: SocketAddr, (user, password): (&str, &str), queue: &str) -> Client {
        let mut options = AmqpOptions::new(Address::parse(&format!("amqp://{broker}")).unwrap());
        options.credentials = Some(Credentials::new(user, password));
        let mut connection = dial::connect(&options, &format!("client-{queue}"), &Heard::new()).await.unwrap();
        let mut session = Session::begin(&mut connection).await.unwrap();
        let source = Source::builder().address(queue).capabilities(vec![Symbol::from("queue")]).build();
        let answers = Receiver::builder()
            .name(format!("answers-{queue}"))
            .source(source)
            .credit_mode(CreditMode::Auto(100))
            .attach(&mut session)
            .await
            .unwrap();
        let sender = Client::sender(&mut session, "rpc.server").await.unwrap();
        Client { _connection: connection, session, sender, answers }
    }

    async fn sender(session: &mut SessionHandle<()>, queue: &str) -> Result<Sender, String> {
        let target = Target::builder().address(queue).capabilities(vec![Symbol::from("queue")]).build();
        let attached = Sender::builder().name(format!("to-{queue}")).target(target).attach(session).await;
        attached.map_err(|error| format!("{error:?}"))
    }

    /// Whether this user may put messages into a queue.
    pub async fn may_send_to(&mut self, queue: &str) -> bool {
        let Ok(mut sender) = Client::sender(&mut self.session, queue).await else { return false };
        let sent = sender.send(Message::builder().data(Data(Vec::new().into())).build()).await;
        matches!(sent, Ok(Outcome::Accepted(_)))
    }

    /// Sends a request whose body is this text, as data.
    pub async fn request(&mut self, id: Option<&str>, reply_to: Option<&str>, properties: &[(&str, &str)], body: &str) {
        self.send(id, reply_to, properties, Data(body.as_bytes().to_vec().into())).await;
    }

    /// Sends a request with a body of any kind.
    pub async fn send<T>(&mut self, id: Option<&str>, reply_to: Option<&str>, properties: &[(&str, &str)], body: T)
    where
        T: IntoBody,
        T::Body: SerializableBody,
    {
        let properties_of = properties.iter();
        let application = properties_of
            .fold(ApplicationProperties::builder(), |all, (name, text)| all.insert(*name, (*text).to_owned()));
        let mut message: Message<T::Body> = Message::from(body);
        message.header = Some(Header { durable: true, ..Header::default() });
        message.properties = Some(Properties {
            message_id: id.map(|id| MessageId::String(id.to_owned())),
            reply_to: reply_to.map(str::to_owned),
            ..Properties::default()
        });
        message.application_properties = Some(application.build());
        match self.sender.send(message).await.unwrap() {
            Outcome::Accepted(_) => {}
            other => panic!("the broker did not take a request: {other:?}"),
        }
    }

    /// The next answer, which is taken.
    pub async fn next(&mut self, within: Duration) -> Option<Answer> {
        let delivery = tokio::time::timeout(within, self.answers.recv::<Body<Value>>()).await.ok()?.unwrap();
        self.answers.accept(&delivery).await.unwrap();
        let ttl = delivery.message().header.as_ref().and_then(|header| header.ttl);
        let message = delivery.into_message();
        let properties = message.properties.unwrap();
        let id = match properties.correlation_id {
            Some(MessageId::String(id)) => id,
            other => panic!("{other:?}"),
        };
        let body = match message.body {
            Body::Data(parts) => parts.into_inner().into_iter().flat_map(|part| part.0.into_vec()).collect(),
            other => panic!("{other:?}"),
        };
        let subject = properties.subject.unwrap_or_default();
        Some(Answer { id, subject, body: String::from_utf8(body).unwrap(), ttl })
    }
}
