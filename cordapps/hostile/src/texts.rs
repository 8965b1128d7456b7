//! What an author may write into logs, progress and exceptions, which is anything.

use maxhost_sdk::prelude::*;

/// What to say, and where.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Speech {
    /// Who throws it.
    pub peer: Party,
    /// Any text.
    pub text: String,
}

/// Logs a text and shows it as progress; the peer does the same, and throws it.
#[flow(startable)]
pub fn say(input: Speech) -> Result<()> {
    info!("{}", input.text);
    progress!("{}", input.text);
    initiate(&input.peer)?.send_and_receive(&input.text)
}

/// Throws what it is sent.
#[flow(responds_to = "say")]
pub fn says(session: Session) -> Result<()> {
    let text: String = session.receive()?;
    info!("{text}");
    progress!("{text}");
    bail!(FlowException::new(text.clone()).of_type(text))
}

/// How many.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Labels {
    /// How many labels.
    pub labels: u32,
}

/// Shows as many labels as it is told, without a wait between them.
#[flow(startable)]
pub fn count_up(input: Labels) -> Result<()> {
    for number in 1..=input.labels {
        progress!("{number}");
    }
    Ok(())
}

/// A text, as long as it likes.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Kept {
    /// Any text.
    pub text: String,
}

/// Keeps what it was started with, and waits for as long as a flow may sleep.
#[flow(startable)]
pub fn keep(input: Kept) -> Result<usize> {
    sleep(Duration::from_secs(300))?;
    Ok(input.text.len())
}
