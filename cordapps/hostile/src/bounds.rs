//! What grows without end if nobody bounds it: texts, labels, sessions, memory, time to compute.

use std::hint::black_box;

use maxhost_sdk::prelude::*;

use crate::With;

/// How much of something.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Amount {
    /// In bytes, or how many.
    pub amount: usize,
}

/// With whom, and how much.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct AmountWith {
    /// The other party.
    pub peer: Party,
    /// In bytes, or how many.
    pub amount: usize,
}

fn large_exception(bytes: usize) -> FlowException {
    FlowException::new("x".repeat(bytes)).of_type("hostile/".to_owned() + &"t".repeat(bytes)).with(&"d".repeat(bytes))
}

/// Throws an exception whose text, type and data have so many bytes each.
#[flow(startable)]
pub fn throw_large(input: Amount) -> Result<()> {
    bail!(large_exception(input.amount))
}

/// Has a peer throw such an exception, and throws what it receives.
#[flow(startable)]
pub fn provoke_large(input: AmountWith) -> Result<()> {
    initiate(&input.peer)?.send_and_receive(&input.amount)
}

/// Throws as large an exception as it is told.
#[flow(responds_to = "provoke-large")]
pub fn throws_large(session: Session) -> Result<()> {
    bail!(large_exception(session.receive()?))
}

/// Returns a list of so many zeros: each takes a byte, and some thirty as a value in memory.
#[flow(startable)]
pub fn return_large(input: Amount) -> Result<Vec<u8>> {
    Ok(vec![0; input.amount])
}

/// Opens as many sessions as it is told, and uses none.
#[flow(startable)]
pub fn unused_sessions(input: AmountWith) -> Result<usize> {
    for _ in 0..input.amount {
        initiate(&input.peer)?;
    }
    Ok(input.amount)
}

/// Answers the sessions of `unused-sessions`, should one ever be used.
#[flow(responds_to = "unused-sessions")]
pub fn is_not_used(_session: Session) -> Result<()> {
    Ok(())
}

/// Gives as many labels as it is told, `0`, `1` and so on, and waits for nothing.
#[flow(startable)]
pub fn labels(input: Amount) -> Result<usize> {
    for number in 0..input.amount {
        progress!("{number}");
    }
    Ok(input.amount)
}

/// Gives labels of full length without end.
#[flow(startable)]
pub fn flood_progress() -> Result<()> {
    let label = "a label of the flood ".repeat(20);
    loop {
        progress!("{label}");
    }
}

/// How much memory, and for how long.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Hold {
    /// How much is taken, mebibytes.
    pub mebibytes: usize,
    /// How long it is held, milliseconds.
    pub milliseconds: u64,
}

/// Takes memory, uses it, and holds it while it sleeps. Answers what it took.
#[flow(startable)]
pub fn hold_memory(input: Hold) -> Result<usize> {
    let held: Vec<Vec<u8>> = (0..input.mebibytes).map(|_| black_box(vec![1; 1 << 20])).collect();
    sleep(Duration::from_millis(input.milliseconds))?;
    Ok(black_box(held).len())
}

/// Computes, and waits in between for a deadline that has passed: ends by the limit `cpu`.
#[flow(startable)]
pub fn spin_with_waits() -> Result<()> {
    loop {
        compute(1_000_000);
        let nothing: [Session; 0] = [];
        wait_any(nothing, Timestamp::from_unix_nanos(1))?;
    }
}

/// Computes a little and sleeps a little, without end: each run stays below every limit of a single flow.
#[flow(startable)]
pub fn spin_briefly() -> Result<()> {
    loop {
        compute(1_000_000);
        sleep(Duration::from_millis(1))?;
    }
}

fn compute(rounds: u64) {
    let mut count = 0u64;
    for round in 0..rounds {
        count = black_box(count.wrapping_mul(31).wrapping_add(round));
    }
    black_box(count);
}

/// What was seen at a deadline that had passed before.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Seen {
    /// The wait named a session that had not been asked for anything yet.
    pub before: bool,
    /// The wait named the session whose answer had come.
    pub after: bool,
}

/// Waits with a deadline that has passed: at first nothing can be there, then an answer is.
#[flow(startable)]
pub fn passed_deadline(input: With) -> Result<Seen> {
    let session = initiate(&input.peer)?;
    session.send(&1)?;
    let before = wait_any([session], now())?.is_some();
    // This one really waits, and takes nothing.
    wait_any([session], None)?;
    let after = wait_any([session], Timestamp::from_unix_nanos(1))?.is_some();
    session.receive::<u32>()?;
    Ok(Seen { before, after })
}

/// Answers what it gets.
#[flow(responds_to = "passed-deadline")]
pub fn answers_at_once(session: Session) -> Result<()> {
    let number: u32 = session.receive()?;
    session.send(&number)
}

/// Who it says it is, before and after a sleep in which its keys may be issued anew.
#[flow(startable)]
pub fn identities(input: Amount) -> Result<Vec<String>> {
    let key = || -> Result<String> {
        Ok(our_identity().owning_key()?.unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect())
    };
    let before = key()?;
    sleep(Duration::from_millis(input.amount as u64))?;
    Ok(vec![before, key()?])
}

/// Takes so many mebibytes, and computes without end while it holds them.
#[flow(startable)]
pub fn hold_and_spin(input: Amount) -> Result<()> {
    let held: Vec<Vec<u8>> = (0..input.amount).map(|_| black_box(vec![1; 1 << 20])).collect();
    progress!("holding");
    loop {
        compute(1_000_000);
        black_box(&held);
    }
}

/// Sends as many messages of 8 KiB as it is told, each in a commit of its own, to a peer that does not look. Returns how many
/// it has looked at in the end.
#[flow(startable)]
pub fn send_many(input: AmountWith) -> Result<usize> {
    let session = initiate(&input.peer)?;
    session.send(&input.amount)?;
    for _ in 0..input.amount {
        session.send(&"m".repeat(8 << 10))?;
        sleep(Duration::from_millis(1))?;
    }
    session.receive()
}

/// Sleeps for a while, and looks at everything then.
#[flow(responds_to = "send-many")]
pub fn looks_late(session: Session) -> Result<()> {
    let count: usize = session.receive()?;
    sleep(Duration::from_secs(5))?;
    for _ in 0..count {
        session.receive::<String>()?;
    }
    session.send(&count)
}

/// Sends as many messages of 200 KiB as it is told, with waits between them that are over at once. Returns how many the peer
/// has looked at.
#[flow(startable)]
pub fn send_without_pause(input: AmountWith) -> Result<usize> {
    let session = initiate(&input.peer)?;
    session.send(&input.amount)?;
    for _ in 0..input.amount {
        session.send(&"m".repeat(200 << 10))?;
        sleep(Duration::ZERO)?;
    }
    session.receive()
}

/// Looks at everything that comes.
#[flow(responds_to = "send-without-pause")]
pub fn looks_at_once(session: Session) -> Result<()> {
    let count: usize = session.receive()?;
    for _ in 0..count {
        session.receive::<String>()?;
    }
    session.send(&count)
}

/// Sleeps for a moment, sends an amount, and returns what the peer has got.
#[flow(startable)]
pub fn sleep_and_send(input: AmountWith) -> Result<usize> {
    sleep(Duration::from_millis(1))?;
    initiate(&input.peer)?.send_and_receive(&input.amount)
}

/// Returns what it gets.
#[flow(responds_to = "sleep-and-send")]
pub fn sends_back(session: Session) -> Result<()> {
    let amount: usize = session.receive()?;
    session.send(&amount)
}
