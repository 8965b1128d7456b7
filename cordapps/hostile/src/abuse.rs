//! What a careless or malicious author does to a host. Each ends in an error that names what was too much, or waits until
//! it is killed.

use std::hint::black_box;

use maxhost_sdk::prelude::*;

use crate::With;

/// Computes for ever: ends by the limit `cpu`.
#[flow(startable)]
pub fn spin() -> Result<()> {
    let mut count = 0u64;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}

/// Takes memory and uses it until there is no more: ends by the limit `memory`.
#[flow(startable)]
pub fn eat_memory() -> Result<()> {
    let mut eaten = Vec::new();
    loop {
        eaten.push(black_box(vec![1u8; 1 << 20]));
    }
}

/// Calls itself without end: ends by the limit `stack`.
#[flow(startable)]
pub fn recurse() -> Result<u64> {
    Ok(deeper(black_box(1)))
}

// The work behind the call keeps it from becoming a loop.
#[allow(unconditional_recursion)]
fn deeper(depth: u64) -> u64 {
    let frame = black_box([depth; 8]);
    deeper(black_box(depth + 1)).wrapping_add(frame[7])
}

/// Panics: an unexpected error whose text stays on this side.
#[flow(startable)]
// What it is for.
#[allow(clippy::panic)]
pub fn panic() -> Result<()> {
    panic!("this panic is on purpose");
}

/// Logs without end: ends by the limit `log`.
#[flow(startable)]
pub fn flood_log() -> Result<()> {
    let line = "a line of the flood ".repeat(50);
    loop {
        info!("{line}");
    }
}

/// Does things that must be remembered, without end: ends by the limit `journal`. Refused sessions are the cheapest: no
/// peer suffers from the flood. Once in a while it waits, so that what is remembered is written.
#[flow(startable)]
pub fn flood_journal() -> Result<()> {
    let nobody = Party::from_name("O=Nobody at all, L=Nowhere, C=ZZ");
    loop {
        for _ in 0..1_000 {
            if let Err(limit @ Error::Limit { .. }) = initiate(&nobody).map(drop) {
                return Err(limit);
            }
        }
        sleep(Duration::ZERO)?;
    }
}

/// To whom, and how much.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Huge {
    /// Who would receive it.
    pub peer: Party,
    /// Size of the message.
    pub bytes: usize,
}

/// Sends one message of a given size; answers how many bytes arrived. Ends by the limit `message` when it is too large.
#[flow(startable)]
pub fn huge_message(input: Huge) -> Result<usize> {
    let session = initiate(&input.peer)?;
    session.send_and_receive(&"x".repeat(input.bytes))
}

/// Counts what arrives.
#[flow(responds_to = "huge-message")]
pub fn huge_message_sink(session: Session) -> Result<()> {
    let text: String = session.receive()?;
    session.send(&text.len())
}

/// Sleeps, five minutes at a time, until it is killed.
#[flow(startable)]
pub fn sleep_forever() -> Result<()> {
    loop {
        sleep(Duration::from_secs(300))?;
    }
}

/// Waits for a message that never comes, until it is killed: so does the peer.
#[flow(startable)]
pub fn wait_forever(input: With) -> Result<()> {
    initiate(&input.peer)?.send_and_receive(&())
}

/// Takes the first message and waits for another.
#[flow(responds_to = "wait-forever")]
pub fn never_answers(session: Session) -> Result<()> {
    session.receive::<()>()?;
    session.receive()
}
