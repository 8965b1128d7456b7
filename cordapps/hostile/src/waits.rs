//! Waiting for the ledger: for a transaction, and for the consumption of states.

use maxhost_sdk::ledger::{wait_for_ledger_commit, wait_for_state_consumption};
use maxhost_sdk::prelude::*;

/// A transaction to wait for.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct AwaitCommit {
    /// Its id.
    pub tx: String,
    /// For how long, milliseconds.
    pub patience_ms: Option<u64>,
    /// A party that does something meanwhile.
    pub beside: Option<Beside>,
}

/// States to wait for.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct AwaitConsumption {
    /// Their references.
    pub states: Vec<String>,
    /// For how long, milliseconds.
    pub patience_ms: Option<u64>,
    /// A party that does something meanwhile.
    pub beside: Option<Beside>,
}

/// What a peer does while the flow waits.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Beside {
    /// The party that it is done with.
    pub peer: Party,
    /// What is tried.
    pub act: Act,
}

/// What the peer does.
#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// It sends something, and waits.
    Speak,
    /// It ends in order.
    End,
    /// It throws.
    Throw,
}

fn until(patience_ms: Option<u64>) -> Option<Timestamp> {
    patience_ms.map(|patience| now() + Duration::from_millis(patience))
}

fn begin(beside: Option<&Beside>) -> Result<()> {
    match beside {
        Some(Beside { peer, act }) => initiate(peer)?.send(act),
        None => Ok(()),
    }
}

/// Waits for a transaction, and returns its id, if it came.
#[flow(startable)]
pub fn await_commit(input: AwaitCommit) -> Result<Option<String>> {
    begin(input.beside.as_ref())?;
    let found = wait_for_ledger_commit(&input.tx, until(input.patience_ms))?;
    ensure!(found.as_ref().is_none_or(|found| !found.view().is_empty()), "a transaction without a view");
    // The same again, at once, for what is there.
    if let Some(found) = &found {
        let again = wait_for_ledger_commit(found.id(), now())?;
        ensure!(again.is_some_and(|again| again.bytes() == found.bytes()), "another answer");
    }
    Ok(found.map(|found| found.id().to_owned()))
}

/// Waits for the consumption of states, and returns whether all were consumed.
#[flow(startable)]
pub fn await_consumption(input: AwaitConsumption) -> Result<bool> {
    begin(input.beside.as_ref())?;
    wait_for_state_consumption(&input.states, until(input.patience_ms))
}

fn act(session: Session) -> Result<()> {
    match session.receive()? {
        Act::Speak => {
            session.send("a word")?;
            // Until the other side is gone.
            session.receive_or_close::<()>().map(drop)
        }
        Act::End => Ok(()),
        Act::Throw => bail!(FlowException::new("a disturbance").of_type("hostile/disturbed")),
    }
}

/// Does something while the other side waits.
#[flow(responds_to = "await-commit")]
pub fn beside_a_commit(session: Session) -> Result<()> {
    act(session)
}

/// The same.
#[flow(responds_to = "await-consumption")]
pub fn beside_a_consumption(session: Session) -> Result<()> {
    act(session)
}
