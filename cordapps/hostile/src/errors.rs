//! How errors travel between flows.

use maxhost_sdk::prelude::*;

use crate::With;

/// What went wrong, as an author's code sees it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Caught {
    /// The error's kind.
    pub kind: String,
    /// Its text.
    pub message: String,
    /// Type of a flow exception.
    pub exception: Option<String>,
    /// Data of a flow exception, if it is a text.
    pub data: Option<String>,
    /// Who sent it.
    pub peer: Option<Party>,
    /// Whether it has the number under which both sides logged it.
    pub has_error_id: bool,
}

impl Caught {
    fn new(error: &Error) -> Caught {
        let exception = error.flow_exception();
        Caught {
            kind: error.kind().to_owned(),
            message: error.to_string(),
            exception: exception.and_then(FlowException::exception_type).map(str::to_owned),
            data: exception.and_then(|exception| exception.data().ok().flatten()),
            peer: error.peer().cloned(),
            has_error_id: error.error_id().is_some(),
        }
    }
}

/// What is to happen.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Behaviour {
    /// Throws a flow exception.
    Throw,
    /// Throws one with a type and data.
    ThrowTyped,
    /// Fails with an ordinary error.
    Fail,
    /// Panics with a text.
    Panic,
    /// Ends without an answer.
    End,
    /// Answers after so many milliseconds.
    ReplyAfter(u64),
    /// Answers, then throws.
    ReplyThenThrow,
    /// Answers, then closes the session and lives on for so many milliseconds.
    ReplyThenClose(u64),
    /// Answers with a number instead of a text.
    WrongType,
}

fn typed_exception() -> FlowException {
    FlowException::new("thrown on purpose").of_type("hostile/thrown").with("some data")
}

fn act(behaviour: &Behaviour, session: Session) -> Result<()> {
    match behaviour {
        Behaviour::Throw => bail!("thrown on purpose"),
        Behaviour::ThrowTyped => bail!(typed_exception()),
        Behaviour::Fail => Err(Error::unexpected("a secret")),
        Behaviour::Panic => panics(),
        Behaviour::End => Ok(()),
        Behaviour::ReplyAfter(milliseconds) => {
            sleep(Duration::from_millis(*milliseconds))?;
            session.send("late")
        }
        Behaviour::ReplyThenThrow => {
            session.send("first an answer")?;
            bail!("thrown on purpose")
        }
        Behaviour::ReplyThenClose(milliseconds) => {
            session.send("closing")?;
            session.close()?;
            sleep(Duration::from_millis(*milliseconds))
        }
        Behaviour::WrongType => session.send(&42),
    }
}

// What it is for.
#[allow(clippy::panic)]
fn panics() -> Result<()> {
    panic!("a secret, on purpose")
}

/// Throws a flow exception with type and data.
#[flow(startable)]
pub fn throw() -> Result<()> {
    bail!(typed_exception())
}

/// Fails with an ordinary error.
#[flow(startable)]
pub fn fail() -> Result<()> {
    let number: u32 = "not a number".parse()?;
    Err(Error::unexpected(format!("{number}")))
}

/// Answers nothing; its peer throws before it reads.
#[flow(startable)]
pub fn throw_on_start(input: With) -> Result<()> {
    initiate(&input.peer)?.send_and_receive(&1)
}

/// Throws at once.
#[flow(responds_to = "throw-on-start")]
pub fn throws_on_start(_session: Session) -> Result<()> {
    bail!("thrown on start")
}

/// Answers nothing; its peer panics before it reads.
#[flow(startable)]
pub fn panic_on_start(input: With) -> Result<()> {
    initiate(&input.peer)?.send_and_receive(&1)
}

/// Panics at once.
#[flow(responds_to = "panic-on-start")]
pub fn panics_on_start(_session: Session) -> Result<()> {
    panics()
}

/// Answers nothing; its peer ends before it reads.
#[flow(startable)]
pub fn end_on_start(input: With) -> Result<()> {
    initiate(&input.peer)?.send_and_receive(&1)
}

/// Ends at once.
#[flow(responds_to = "end-on-start")]
pub fn ends_on_start(_session: Session) -> Result<()> {
    Ok(())
}

/// Whom to provoke to what.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Provocation {
    /// Who is to do it.
    pub peer: Party,
    /// What the responder does instead of answering.
    pub behaviour: Behaviour,
    /// How often to receive; once if not said.
    #[serde(default = "once")]
    pub receives: u32,
    /// Catch the error and return it instead of failing.
    #[serde(default)]
    pub catch: bool,
}

fn once() -> u32 {
    1
}

/// What came of it.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Provoked {
    /// What was received.
    pub received: Vec<String>,
    /// The error that ended it.
    pub caught: Option<Caught>,
}

/// Has a peer do something wrong, and shows what arrives of it.
#[flow(startable)]
pub fn provoke(input: Provocation) -> Result<Provoked> {
    let session = initiate(&input.peer)?;
    session.send(&input.behaviour)?;
    let mut received = Vec::new();
    for _ in 0..input.receives {
        match session.receive() {
            Ok(text) => received.push(text),
            Err(error) if input.catch => return Ok(Provoked { received, caught: Some(Caught::new(&error)) }),
            Err(error) => return Err(error),
        }
    }
    Ok(Provoked { received, caught: None })
}

/// Does as it is told.
#[flow(responds_to = "provoke")]
pub fn provoked(session: Session) -> Result<()> {
    act(&session.receive()?, session)
}

/// Who is to provoke whom to what.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Relay {
    /// The one between.
    pub via: Party,
    /// Who is to do it.
    pub target: Party,
    /// What the responder does instead of answering.
    pub behaviour: Behaviour,
    /// The one between catches the error and throws one of its own.
    #[serde(default)]
    pub rethrow: bool,
}

/// Has a peer provoke a third party: shows what arrives of an error that was received and not caught.
#[flow(startable)]
pub fn relay(input: Relay) -> Result<Provoked> {
    let session = initiate(&input.via)?;
    match session.send_and_receive(&input) {
        Ok(text) => Ok(Provoked { received: vec![text], caught: None }),
        Err(error) => Ok(Provoked { received: Vec::new(), caught: Some(Caught::new(&error)) }),
    }
}

/// Provokes the target and passes its answer on.
#[flow(responds_to = "relay")]
pub fn relays(session: Session) -> Result<()> {
    let order: Relay = session.receive()?;
    let provocation = Provocation { peer: order.target, behaviour: order.behaviour, receives: 1, catch: order.rethrow };
    let provoked = provoke(provocation)?;
    if let Some(caught) = provoked.caught {
        bail!("relayed: {}", caught.message);
    }
    session.send(&provoked.received.concat())
}

/// Catches a peer's exception, and finishes with a second conversation.
#[flow(startable)]
pub fn recover(input: With) -> Result<Provoked> {
    let failing = Provocation { peer: input.peer.clone(), behaviour: Behaviour::Throw, receives: 1, catch: true };
    let caught = provoke(failing)?.caught;
    let working = Provocation { peer: input.peer, behaviour: Behaviour::ReplyAfter(0), receives: 1, catch: false };
    Ok(Provoked { received: provoke(working)?.received, caught })
}

/// Speaks a protocol that nobody answers; with or without waiting for it.
#[flow(startable)]
pub fn unanswered(input: Unanswered) -> Result<()> {
    let session = initiate(&input.peer)?;
    session.send(&1)?;
    if input.receive { session.receive() } else { Ok(()) }
}

/// Whom to bother, and how.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Unanswered {
    /// Who has no flow for it.
    pub peer: Party,
    /// Wait for an answer.
    pub receive: bool,
}

/// How many messages, and to whom.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Messages {
    /// The other party.
    pub peer: Party,
    /// How many.
    pub count: u32,
}

/// Sends numbers and throws, without waiting for anything: what was sent arrives before the error.
#[flow(startable)]
pub fn send_then_throw(input: Messages) -> Result<()> {
    let session = initiate(&input.peer)?;
    for number in 1..=input.count {
        session.send(&number)?;
    }
    bail!("thrown after {} messages", input.count)
}

/// Receives until there is an error, and throws what it has seen.
#[flow(responds_to = "send-then-throw")]
pub fn collects(session: Session) -> Result<()> {
    let mut numbers: Vec<u32> = Vec::new();
    loop {
        match session.receive() {
            Ok(number) => numbers.push(number),
            Err(error) => bail!("received {numbers:?}, then {}: {error}", error.kind()),
        }
    }
}
