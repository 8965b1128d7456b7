//! Which flows of this host's identities wait for what in their ledgers.
//!
//! A flow that waits is noted here before the ledger is looked into, and whoever commits a transaction looks here after it is
//! written: so one of the two sees the other. What is noted is a hint in memory and nothing else. A flow looks into the
//! ledger whenever it is woken, and an identity that is opened does so for each of its flows that wait.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use dashmap::DashMap;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::recording::TransactionEvent;
use maxhost_model::{FlowRow, IdentityRow, SecureHash};
use maxhost_store::Op;
use maxhost_store::ledger::LedgerOp;

/// What a flow waits for, one at a time: of several states that are to be consumed the first that is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Watched {
    /// That this transaction is part of the ledger.
    Transaction(SecureHash),
    /// That this state is consumed.
    State(StateRef),
}

/// As it is written into the journal, and shown.
impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Watched::Transaction(id) => id.fmt(f),
            Watched::State(state) => state.fmt(f),
        }
    }
}

impl FromStr for Watched {
    type Err = ();

    fn from_str(text: &str) -> Result<Watched, ()> {
        match text.contains(':') {
            true => text.parse().map(Watched::State).map_err(drop),
            false => text.parse().map(Watched::Transaction).map_err(drop),
        }
    }
}

/// What a unit makes part of a ledger: whoever waits for it is told once it is written.
#[derive(Debug, Default)]
pub(crate) struct Recorded(Vec<Watched>);

impl Recorded {
    pub fn by(ops: &[Op]) -> Recorded {
        let mut recorded = Vec::new();
        for op in ops {
            if let Op::Ledger(LedgerOp::Record(recording)) = op
                && recording.event == TransactionEvent::Finalised
            {
                recorded.push(Watched::Transaction(recording.id));
                recorded.extend(recording.inputs.iter().copied().map(Watched::State));
            }
        }
        Recorded(recorded)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The flows of one identity that wait, each for one thing.
#[derive(Debug, Default)]
struct Waits {
    by_flow: BTreeMap<FlowRow, Watched>,
    flows: BTreeSet<(Watched, FlowRow)>,
}

impl Waits {
    fn forget(&mut self, flow: FlowRow) {
        if let Some(watched) = self.by_flow.remove(&flow) {
            self.flows.remove(&(watched, flow));
        }
    }

    fn of(&self, watched: Watched) -> impl Iterator<Item = FlowRow> {
        let (first, last) = (FlowRow(i64::MIN), FlowRow(i64::MAX));
        self.flows.range((watched, first)..=(watched, last)).map(|(_, flow)| *flow)
    }
}

/// The flows that wait for something in a ledger, by identity: at most one entry for each live flow.
#[derive(Debug, Default)]
pub(crate) struct LedgerWaits {
    identities: DashMap<IdentityRow, Waits>,
}

impl LedgerWaits {
    /// The flow waits for this, and for nothing else.
    pub fn watch(&self, identity: IdentityRow, flow: FlowRow, watched: Watched) {
        let mut waits = self.identities.entry(identity).or_default();
        waits.forget(flow);
        waits.by_flow.insert(flow, watched);
        waits.flows.insert((watched, flow));
    }

    /// The flow waits no more.
    pub fn forget(&self, identity: IdentityRow, flow: FlowRow) {
        if let Some(mut waits) = self.identities.get_mut(&identity) {
            waits.forget(flow);
        }
    }

    /// No flow of the identity is in memory.
    pub fn forget_all(&self, identity: IdentityRow) {
        self.identities.remove(&identity);
    }

    /// The flows of an identity that wait for something that was recorded, each once.
    pub fn waiting_for(&self, identity: IdentityRow, recorded: &Recorded) -> BTreeSet<FlowRow> {
        match self.identities.get(&identity) {
            Some(waits) => recorded.0.iter().flat_map(|watched| waits.of(*watched)).collect(),
            None => BTreeSet::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: IdentityRow = IdentityRow(1);

    fn transaction(number: u8) -> Watched {
        Watched::Transaction(SecureHash::of(&[number]))
    }

    fn state(number: u8, index: u32) -> Watched {
        Watched::State(StateRef::new(SecureHash::of(&[number]), index))
    }

    fn told(waits: &LedgerWaits, recorded: &[Watched]) -> Vec<i64> {
        let recorded = Recorded(recorded.to_vec());
        waits.waiting_for(ALICE, &recorded).into_iter().map(|flow| flow.0).collect()
    }

    #[test]
    fn those_are_told_who_wait_for_what_was_recorded_and_wait_still() {
        let waits = LedgerWaits::default();
        waits.watch(ALICE, FlowRow(1), transaction(1));
        waits.watch(ALICE, FlowRow(2), state(1, 0));
        waits.watch(ALICE, FlowRow(3), state(1, 0));
        waits.watch(IdentityRow(2), FlowRow(4), transaction(1));
        assert_eq!(told(&waits, &[transaction(1)]), [1], "its states are something else, and so are those of others");
        assert_eq!(told(&waits, &[transaction(2), state(1, 0), state(1, 1)]), [2, 3]);
        assert_eq!(told(&waits, &[state(1, 0)]), [2, 3], "it is told as long as it waits");
        waits.watch(ALICE, FlowRow(2), state(1, 1));
        assert_eq!(told(&waits, &[state(1, 0)]), [3], "a flow waits for one thing at a time");
        waits.forget(ALICE, FlowRow(3));
        assert_eq!(told(&waits, &[state(1, 0), state(1, 1)]), [2]);
        waits.forget_all(ALICE);
        assert_eq!(told(&waits, &[transaction(1), state(1, 1)]), [] as [i64; 0]);
    }

    #[test]
    fn what_is_waited_for_is_read_as_it_is_written() {
        for watched in [transaction(7), state(7, 3)] {
            assert_eq!(watched.to_string().parse(), Ok(watched));
        }
        for text in ["", "ab", "ab:1", &format!("{}:x", transaction(1))] {
            assert_eq!(text.parse::<Watched>(), Err(()), "{text}");
        }
    }
}
