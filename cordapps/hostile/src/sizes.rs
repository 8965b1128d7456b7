//! Messages of any size, in any position of a conversation; and a party that is looked up by name.

use maxhost_sdk::prelude::*;

/// One message of the initiator, and what the responder answers to it.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Turn {
    /// Bytes of the message. One that asks for answers is as long as its question at least.
    pub bytes: usize,
    /// Bytes of each answer.
    pub answers: Vec<usize>,
}

/// A conversation.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Sizes {
    /// With whom.
    pub peer: Party,
    /// In this order.
    pub turns: Vec<Turn>,
}

/// Asks for these answers, in a text of so many bytes.
fn question(turn: &Turn) -> String {
    let mut text = String::with_capacity(turn.bytes);
    for bytes in &turn.answers {
        text.push_str(&format!("{bytes},"));
    }
    let missing = turn.bytes.saturating_sub(text.len());
    text.push_str(&".".repeat(missing));
    text
}

/// Has the conversation, and checks that every message came whole and in its place. Answers how many bytes the responder
/// has received.
#[flow(startable)]
pub fn sizes(input: Sizes) -> Result<usize> {
    let session = initiate(&input.peer)?;
    let mut sent = Vec::new();
    for turn in &input.turns {
        let text = question(turn);
        sent.push(text.len());
        session.send(&text)?;
        for bytes in &turn.answers {
            let answer: String = session.receive()?;
            ensure!(answer.len() == *bytes, "an answer of {} bytes came instead of one of {bytes}", answer.len());
        }
    }
    let seen: Vec<usize> = session.send_and_receive("?")?;
    ensure!(seen == sent, "the responder has seen messages of {seen:?} bytes, {sent:?} were sent");
    Ok(seen.iter().sum())
}

/// Answers as it is asked, and in the end tells what it has seen.
#[flow(responds_to = "sizes")]
pub fn answers_sizes(session: Session) -> Result<()> {
    let mut seen: Vec<usize> = Vec::new();
    while let Some(text) = session.receive_or_close::<String>()? {
        if text == "?" {
            session.send(&seen)?;
            continue;
        }
        seen.push(text.len());
        let asked = text.trim_end_matches('.');
        for bytes in asked.split_terminator(',') {
            match bytes.parse() {
                Ok(bytes) => session.send(&"x".repeat(bytes))?,
                Err(_) => bail!("'{bytes}' is no number of bytes"),
            }
        }
    }
    Ok(())
}

/// Whom to look for.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Name {
    /// An X.500 name.
    pub name: String,
}

/// Looks a party up by its name: whether the network has it.
#[flow(startable)]
pub fn find(input: Name) -> Result<bool> {
    Ok(party(&input.name)?.is_some())
}
