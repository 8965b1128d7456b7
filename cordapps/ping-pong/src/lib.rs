//! The smallest conversation: a message there, the same message back.

use maxhost_sdk::prelude::*;

/// Whom to ping, and how often.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Ping {
    /// Who answers.
    pub peer: Party,
    /// How many messages to bounce.
    pub count: u32,
}

/// What was done.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Rounds {
    /// How many messages came back.
    pub rounds: u32,
}

/// Bounces a message off a peer `count` times.
#[flow(startable)]
fn ping(input: Ping) -> Result<Rounds> {
    let session = initiate(&input.peer)?;
    for round in 1..=input.count {
        progress!("round {round} of {}", input.count);
        let echoed: u32 = session.send_and_receive(&round)?;
        ensure!(echoed == round, "peer sent {echoed} instead of {round}");
    }
    Ok(Rounds { rounds: input.count })
}

/// Sends everything back until the peer ends.
#[flow(responds_to = "ping")]
fn pong(session: Session) -> Result<()> {
    while let Some(round) = session.receive_or_close::<u32>()? {
        session.send(&round)?;
    }
    Ok(())
}

cordapp! { flows: [ping, pong] }
