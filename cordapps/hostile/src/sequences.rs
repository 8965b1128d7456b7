//! Numbered messages, so that one that is lost, doubled or out of order is seen by whoever receives it.

use maxhost_sdk::prelude::*;

/// What to send, and to whom.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Sequence {
    /// Who counts.
    pub peers: Vec<Party>,
    /// How many bursts each peer gets.
    pub bursts: u32,
    /// Messages of a burst; the peer answers once a burst.
    pub burst: u32,
    /// Milliseconds between two bursts.
    pub pause_ms: u64,
}

/// What a peer has received so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tally {
    /// How many messages.
    pub messages: u64,
    /// Their sum.
    pub sum: u64,
}

impl Tally {
    fn add(&mut self, number: u64) {
        self.messages += 1;
        self.sum += number;
    }
}

/// Sends 1, 2, 3 and so on to every peer, and compares what they have counted with what it has sent.
#[flow(startable)]
pub fn sequence(input: Sequence) -> Result<Tally> {
    let sessions = input.peers.iter().map(initiate).collect::<Result<Vec<_>>>()?;
    send_all(&sessions, &input.burst)?;
    let mut sent = Tally { messages: 0, sum: 0 };
    for burst in 1..=input.bursts {
        for _ in 0..input.burst {
            let number = sent.messages + 1;
            send_all(&sessions, &number)?;
            sent.add(number);
        }
        let counted: Vec<Tally> = receive_all(&sessions)?;
        for (peer, counted) in input.peers.iter().zip(counted) {
            ensure!(counted == sent, "{peer} has counted {counted:?} after {sent:?}");
        }
        progress!("burst {burst} of {}", input.bursts);
        sleep(Duration::from_millis(input.pause_ms))?;
    }
    let peers = input.peers.len() as u64;
    Ok(Tally { messages: sent.messages * peers, sum: sent.sum * peers })
}

/// Counts, and insists on the order.
#[flow(responds_to = "sequence")]
pub fn counts(session: Session) -> Result<()> {
    let burst: u32 = session.receive()?;
    let mut counted = Tally { messages: 0, sum: 0 };
    while let Some(number) = session.receive_or_close::<u64>()? {
        ensure!(number == counted.messages + 1, "number {number} came after {} messages", counted.messages);
        counted.add(number);
        if counted.messages.is_multiple_of(u64::from(burst)) {
            session.send(&counted)?;
        }
    }
    Ok(())
}
