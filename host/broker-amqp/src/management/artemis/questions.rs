//! Questions to the broker's management address.
//!
//! A question names an object of the broker and an operation or attribute of it, and is answered to a queue that the broker
//! makes for us and removes with our session (Artemis's manual, chapter "Management", section "Using Management Messages").

use std::collections::HashMap;
use std::time::Duration;

use fe2o3_amqp::link::receiver::CreditMode;
use fe2o3_amqp::types::messaging::{
    AmqpValue, ApplicationProperties, Body, Message, MessageId, Outcome, Properties, Source,
};
use fe2o3_amqp::types::primitives::{SimpleValue, Value as AmqpAny};
use fe2o3_amqp::{Receiver, Sender};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use maxhost_broker::{BrokerError, Permanent};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::connection::{ANSWER, Line, Pause, Session};
use crate::error::{refused, text_of, unavailable};

const ADDRESS: &str = "activemq.management";
/// Questions that wait for their turn, and that are under way at once.
const WAITING: usize = 256;
const UNDER_WAY: usize = 64;
/// How long an answer may take. Listing the queues of a large broker takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks questions. Cloning gives another handle to the same session.
#[derive(Debug, Clone)]
pub(crate) struct Questions {
    questions: mpsc::Sender<Question>,
}

#[derive(Debug)]
struct Question {
    object: String,
    what: What,
    reply: oneshot::Sender<Result<Answer, BrokerError>>,
}

#[derive(Debug)]
enum What {
    Attribute(&'static str),
    Operation(&'static str, Value),
}

/// What the broker said: a value, or why there is none.
pub(crate) type Answer = Result<Value, String>;

impl Questions {
    /// Asks by way of this connection, until every handle is gone.
    pub fn new(line: Line) -> Questions {
        let (questions, asked) = mpsc::channel(WAITING);
        tokio::spawn(run(line, asked));
        Questions { questions }
    }

    /// The value of an attribute.
    pub async fn attribute(&self, object: impl Into<String>, name: &'static str) -> Result<Answer, BrokerError> {
        self.ask(object.into(), What::Attribute(name)).await
    }

    /// The result of an operation; the arguments are an array.
    pub async fn call(&self, object: &str, operation: &'static str, arguments: Value) -> Result<Answer, BrokerError> {
        self.ask(object.to_owned(), What::Operation(operation, arguments)).await
    }

    async fn ask(&self, object: String, what: What) -> Result<Answer, BrokerError> {
        let (reply, answer) = oneshot::channel();
        let asking = async {
            self.questions.send(Question { object, what, reply }).await.map_err(|_| Permanent::Closed)?;
            answer.await.unwrap_or_else(|_| Err(Permanent::Closed.into()))
        };
        timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(unavailable("the broker does not answer questions")))
    }
}

async fn run(line: Line, mut asked: mpsc::Receiver<Question>) {
    let mut pause = Pause::none();
    loop {
        // Nothing is attached before somebody asks.
        let Some(first) = asked.recv().await else { return };
        pause.wait().await;
        match Links::attach(&line).await {
            Ok(links) => {
                pause = Pause::none();
                if serve(links, first, &mut asked).await.is_none() {
                    return;
                }
            }
            Err(error) => {
                pause = Pause::after_a_failure();
                let closed = matches!(error, BrokerError::Permanent(Permanent::Closed));
                let _ = first.reply.send(Err(error));
                if closed {
                    return;
                }
            }
        }
    }
}

/// A session for questions and answers.
struct Links {
    session: Session,
    sender: Sender,
    receiver: Receiver,
    reply_to: String,
}

impl Links {
    async fn attach(line: &Line) -> Result<Links, BrokerError> {
        let mut session = line.session(ANSWER).await?;
        let attaching = async {
            let receiver = Receiver::builder()
                .name("answers")
                .source(Source::builder().dynamic(true).build())
                .credit_mode(CreditMode::Auto(UNDER_WAY as u32 * 2))
                .attach(&mut session.handle)
                .await
                .map_err(|error| not_manageable(&error))?;
            let reply_to = receiver.source().as_ref().and_then(|source| source.address.clone());
            let reply_to = reply_to.ok_or_else(|| refused("it makes no queues for answers: maxhost needs Artemis"))?;
            let sender = Sender::attach(&mut session.handle, "questions", ADDRESS)
                .await
                .map_err(|error| not_manageable(&error))?;
            Ok((sender, receiver, reply_to))
        };
        match timeout(ANSWER, attaching).await {
            Ok(attached) => attached.map(|(sender, receiver, reply_to)| Links { session, sender, receiver, reply_to }),
            Err(_) => Err(unavailable("the broker does not answer")),
        }
    }
}

/// Why the management address cannot be used. The library may lose what the broker said and tell of the state that it was in,
/// so only what is clear is taken for something that stays.
fn not_manageable(error: &(impl std::error::Error + 'static)) -> BrokerError {
    let text = format!("{error:?}");
    // AMQ229213: a permission is missing; it is told as an internal error when a queue for answers is made.
    match ["UnauthorizedAccess", "AMQ229213", "NotFound"].iter().any(|word| text.contains(word)) {
        true => refused(format!(
            "the host may not ask its management address: give the host's user the permissions that \
             deploy/artemis/broker.xml has for activemq.management.# ({error})"
        )),
        false => unavailable(error.to_string()),
    }
}

/// Asks until the session is over; `None` if nobody will ask any more.
async fn serve(links: Links, first: Question, asked: &mut mpsc::Receiver<Question>) -> Option<()> {
    let Links { mut session, mut sender, mut receiver, reply_to } = links;
    let mut waiting: HashMap<u64, oneshot::Sender<Result<Answer, BrokerError>>> = HashMap::new();
    let mut sent: FuturesUnordered<BoxFuture<'static, (u64, Option<String>)>> = FuturesUnordered::new();
    let (mut number, mut first) = (0, Some(first));
    let error = loop {
        let question = match first.take() {
            Some(question) => question,
            None => tokio::select! {
                question = asked.recv(), if waiting.len() < UNDER_WAY => match question {
                    Some(question) => question,
                    None => {
                        session.end().await;
                        return None;
                    }
                },
                Some((number, not_taken)) = sent.next() => {
                    // A question that was taken is answered; one that was not is answered by that.
                    if let Some(reason) = not_taken && let Some(reply) = waiting.remove(&number) {
                        let _ = reply.send(Ok(Err(reason)));
                    }
                    continue;
                }
                // It does not accept by itself: a message whose acceptance is on its way would be lost when another branch is
                // ready first.
                answer = receiver.recv::<Body<AmqpAny>>() => match answer {
                    Ok(answer) => {
                        if let Some((number, outcome)) = read(answer.message()) && let Some(reply) = waiting.remove(&number) {
                            let _ = reply.send(Ok(outcome));
                        }
                        match receiver.accept(&answer).await {
                            Ok(()) => continue,
                            Err(error) => break unavailable(error),
                        }
                    }
                    Err(error) => break unavailable(error),
                },
                error = session.ended() => break error,
            },
        };
        number += 1;
        let message = message(question.object, question.what, number, &reply_to);
        let sending = tokio::select! {
            sending = sender.send_batchable(message) => sending.map_err(unavailable),
            error = session.ended() => Err(error),
        };
        match sending {
            Ok(taken) => {
                waiting.insert(number, question.reply);
                sent.push(Box::pin(async move {
                    (
                        number,
                        match taken.await {
                            Ok(Outcome::Accepted(_)) => None,
                            Ok(Outcome::Rejected(rejected)) => Some(text_of(rejected.error)),
                            Ok(_) => Some("it was given back".to_owned()),
                            Err(error) => Some(error.to_string()),
                        },
                    )
                }));
            }
            Err(error) => {
                let _ = question.reply.send(Err(error.clone()));
                break error;
            }
        }
        // Whoever has given up waiting makes room.
        waiting.retain(|_, reply| !reply.is_closed());
    };
    for (_, reply) in waiting {
        let _ = reply.send(Err(error.clone()));
    }
    Some(())
}

fn message(object: String, what: What, number: u64, reply_to: &str) -> Message<AmqpValue<String>> {
    let properties = ApplicationProperties::builder().insert("_AMQ_ResourceName", object);
    let (properties, body) = match what {
        What::Attribute(name) => (properties.insert("_AMQ_Attribute", name), "[]".to_owned()),
        What::Operation(name, arguments) => (properties.insert("_AMQ_OperationName", name), arguments.to_string()),
    };
    Message::builder()
        .properties(Properties {
            message_id: Some(MessageId::Ulong(number)),
            correlation_id: Some(MessageId::Ulong(number)),
            reply_to: Some(reply_to.to_owned()),
            ..Properties::default()
        })
        .application_properties(properties.build())
        .value(body)
        .build()
}

/// The number of the question, and what the broker says.
fn read(message: &Message<Body<AmqpAny>>) -> Option<(u64, Answer)> {
    let properties = message.properties.as_ref()?;
    let number = match properties.correlation_id.as_ref()? {
        MessageId::Ulong(number) => *number,
        MessageId::String(text) => text.parse().ok()?,
        _ => return None,
    };
    let succeeded = message.application_properties.as_ref()?.0.get("_AMQ_OperationSucceeded");
    let text = match &message.body {
        Body::Value(AmqpValue(AmqpAny::String(text))) => text.as_str(),
        _ => "[]",
    };
    // A result is the only element of an array; nothing is an empty one.
    let value = match serde_json::from_str::<Value>(text) {
        Ok(Value::Array(mut values)) if values.len() <= 1 => values.pop().unwrap_or(Value::Null),
        Ok(value) => value,
        Err(_) => Value::String(text.to_owned()),
    };
    Some((
        number,
        match succeeded {
            Some(SimpleValue::Bool(true)) => Ok(value),
            _ => Err(value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
        },
    ))
}
