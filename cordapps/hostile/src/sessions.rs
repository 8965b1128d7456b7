//! How sessions behave. Each startable flow has a protocol of its own, answered by the flow below it.

use maxhost_sdk::prelude::*;

use crate::With;

/// A party and a number.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Number {
    /// The other party.
    pub peer: Party,
    /// The number.
    pub value: u32,
}

/// Several parties and a number.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Numbers {
    /// The other parties.
    pub peers: Vec<Party>,
    /// The number.
    pub value: u32,
}

fn initiate_all(parties: &[Party]) -> Result<Vec<Session>> {
    parties.iter().map(initiate).collect()
}

/// Sends once, and ends without an answer.
#[flow(startable)]
pub fn send_only(input: Number) -> Result<()> {
    initiate(&input.peer)?.send(&input.value)
}

/// Receives one number.
#[flow(responds_to = "send-only")]
pub fn receives_one(session: Session) -> Result<u32> {
    session.receive()
}

/// Both sides send before they receive, twice.
#[flow(startable)]
pub fn both_send_first(input: With) -> Result<Vec<u32>> {
    let session = initiate(&input.peer)?;
    session.send(&10)?;
    let first = session.receive()?;
    session.send(&11)?;
    let second = session.receive()?;
    Ok(vec![first, second])
}

/// The other side of it.
#[flow(responds_to = "both-send-first")]
pub fn sends_first_too(session: Session) -> Result<Vec<u32>> {
    session.send(&20)?;
    let first = session.receive()?;
    session.send(&21)?;
    let second = session.receive()?;
    Ok(vec![first, second])
}

/// Sends one message to several parties in one step.
#[flow(startable)]
pub fn fan_out(input: Numbers) -> Result<usize> {
    let sessions = initiate_all(&input.peers)?;
    send_all(&sessions, &input.value)?;
    Ok(sessions.len())
}

/// Receives its copy.
#[flow(responds_to = "fan-out")]
pub fn receives_its_part(session: Session) -> Result<u32> {
    session.receive()
}

/// Sends each party its number and waits for all answers in one step, in the order of the parties.
#[flow(startable, name = "receive-all")]
pub fn receive_all_from(input: Numbers) -> Result<Vec<(u32, Party)>> {
    let sessions = initiate_all(&input.peers)?;
    send_each(sessions.iter().zip(input.value..))?;
    receive_all(&sessions)
}

/// Answers with the number and its own name.
#[flow(responds_to = "receive-all")]
pub fn answers_with_its_name(session: Session) -> Result<()> {
    let number: u32 = session.receive()?;
    // The lower the number, the later the answer: order of arrival is not order of sessions.
    sleep(Duration::from_millis(u64::from(20u32.saturating_sub(number))))?;
    session.send(&(number, our_identity()))
}

/// Waits for one session as if it were two: refused.
#[flow(startable)]
pub fn same_session_twice(input: With) -> Result<Vec<u32>> {
    let session = initiate(&input.peer)?;
    receive_all([session, session])
}

/// What a peer tells of itself.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Information {
    /// Version of its flow.
    pub version: u32,
    /// Its CorDapp.
    pub app: String,
}

/// Asks for the peer's flow information, without any message.
#[flow(startable, name = "flow-info")]
pub fn flow_information(input: With) -> Result<Information> {
    let info = initiate(&input.peer)?.flow_info()?;
    Ok(Information { version: info.version, app: info.app })
}

/// Is of version three.
#[flow(responds_to = "flow-info", version = 3)]
pub fn has_version_three(session: Session) -> Result<u32> {
    Ok(session.flow_info()?.version)
}

/// Closes a session before its peer knows of it: refused.
#[flow(startable)]
pub fn premature_close(input: With) -> Result<()> {
    initiate(&input.peer)?.close()
}

/// Never starts.
#[flow(responds_to = "premature-close")]
pub fn is_never_reached(_session: Session) -> Result<()> {
    Ok(())
}

/// What was answered, and the kind of the error behind it.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct AfterClose {
    /// The answer.
    pub answer: u32,
    /// What a send says then.
    pub send: String,
    /// What a receive says then.
    pub receive: String,
}

fn kind<T>(result: Result<T>) -> String {
    result.err().map_or("none", |error| error.kind()).to_owned()
}

/// Closes a session twice, and tries to use it then.
#[flow(startable)]
pub fn double_close(input: With) -> Result<AfterClose> {
    let session = initiate(&input.peer)?;
    let answer = session.send_and_receive(&1u32)?;
    session.close()?;
    session.close()?;
    Ok(AfterClose { answer, send: kind(session.send(&2)), receive: kind(session.receive::<u32>()) })
}

/// Answers once; then an orderly end is all it gets.
#[flow(responds_to = "double-close")]
pub fn answers_once(session: Session) -> Result<()> {
    let number: u32 = session.receive()?;
    session.send(&number)?;
    ensure!(session.receive_or_close::<u32>()?.is_none(), "there should be no more");
    Ok(())
}

/// How long to wait for an answer, and when it comes.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Deadline {
    /// The other party.
    pub peer: Party,
    /// Milliseconds until the flow gives up.
    pub deadline_ms: u64,
    /// Milliseconds until the peer answers.
    pub answer_ms: u64,
}

/// What there was at the deadline.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Waited {
    /// There was something to receive.
    pub ready: bool,
    /// What a receive answered then, when something was ready.
    pub answer: Option<u64>,
}

/// Waits for an answer until a deadline.
#[flow(startable)]
pub fn wait_any_deadline(input: Deadline) -> Result<Waited> {
    let session = initiate(&input.peer)?;
    session.send(&input.answer_ms)?;
    match wait_any([session], now() + Duration::from_millis(input.deadline_ms))? {
        Some(ready) => Ok(Waited { ready: true, answer: Some(ready.receive()?) }),
        None => Ok(Waited { ready: false, answer: None }),
    }
}

/// Answers after as many milliseconds as it is told. The peer may have left.
#[flow(responds_to = "wait-any-deadline")]
pub fn answers_late(session: Session) -> Result<()> {
    let delay: u64 = session.receive()?;
    sleep(Duration::from_millis(delay))?;
    if let Err(error) = session.send(&delay) {
        debug!("nobody waits any more: {error}");
    }
    Ok(())
}

/// Opens as many sessions with one party, and adds up what they answer, each as it comes.
#[flow(startable)]
pub fn many_sessions(input: Number) -> Result<u64> {
    let mut open = (0..input.value).map(|_| initiate(&input.peer)).collect::<Result<Vec<_>>>()?;
    send_each(open.iter().zip(1u64..))?;
    let mut sum = 0;
    while let Some(ready) = if open.is_empty() { None } else { wait_any(&open, None)? } {
        sum += ready.receive::<u64>()?;
        open.retain(|session| *session != ready);
    }
    Ok(sum)
}

/// Sends one number back.
#[flow(responds_to = "many-sessions")]
pub fn echoes(session: Session) -> Result<()> {
    let number: u64 = session.receive()?;
    session.send(&number)
}

/// Which protocol each kind of session spoke.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Protocols {
    /// A session of the flow itself.
    pub own: String,
    /// A session of an initiating flow that it called.
    pub initiating: String,
    /// A session that a plain function opened.
    pub inlined: String,
    /// A session of the flow itself, after the calls.
    pub own_again: String,
}

/// Opens sessions itself, through a function, and through an initiating flow.
#[flow(startable)]
pub fn sub_flows(input: With) -> Result<Protocols> {
    Ok(Protocols {
        own: initiate(&input.peer)?.send_and_receive(&())?,
        initiating: inner(&input.peer)?,
        inlined: inlined(&input.peer)?,
        own_again: initiate(&input.peer)?.send_and_receive(&())?,
    })
}

fn inlined(peer: &Party) -> Result<String> {
    initiate(peer)?.send_and_receive(&())
}

/// Names the protocol.
#[flow(responds_to = "sub-flows")]
pub fn answers_outer(session: Session) -> Result<()> {
    session.receive::<()>()?;
    session.send("sub-flows")
}

/// Speaks a protocol of its own, wherever it is called from.
#[flow(initiating)]
pub fn inner(peer: &Party) -> Result<String> {
    initiate(peer)?.send_and_receive(&())
}

/// Names the protocol.
#[flow(responds_to = "inner")]
pub fn answers_inner(session: Session) -> Result<()> {
    session.receive::<()>()?;
    session.send("inner")
}

/// Sends for some time to a peer that has left: a flow that only sends is not disturbed.
#[flow(startable)]
pub fn peer_leaves(input: Number) -> Result<u32> {
    let session = initiate(&input.peer)?;
    session.send(&0)?;
    for _ in 0..input.value {
        sleep(Duration::from_millis(10))?;
    }
    Ok(input.value)
}

/// Receives one message and leaves.
#[flow(responds_to = "peer-leaves")]
pub fn leaves_at_once(session: Session) -> Result<()> {
    session.receive::<u32>().map(drop)
}
