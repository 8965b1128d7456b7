//! Flows of an open identity that are not in memory and wait for something in its ledger.

use std::collections::BTreeSet;

use maxhost_ledger::vault::recording::TransactionStatus;
use maxhost_model::{FlowRow, Problem};

use super::Actor;
use crate::ledger::waits::Watched;

impl Actor {
    /// Each of these flows is noted as one that waits. Those whose wait is over already, because what they wait for was
    /// recorded while nobody told them, have something to do.
    pub(super) async fn look_into_ledger(&mut self, waiting: &[(FlowRow, Watched)]) -> Result<(), Problem> {
        // Before the look: what is recorded after it tells those that are noted.
        for (row, watched) in waiting {
            self.services.committer.ledger_waits.watch(self.entry.row, *row, *watched);
        }
        let (mut ids, mut states) = (BTreeSet::new(), BTreeSet::new());
        for (_, watched) in waiting {
            match watched {
                Watched::Transaction(id) => drop(ids.insert(*id)),
                Watched::State(state) => drop(states.insert(*state)),
            }
        }
        let (ids, states): (Vec<_>, Vec<_>) = (ids.into_iter().collect(), states.into_iter().collect());
        let (store, identity) = (&self.services.committer.store, self.entry.row);
        let mut found = BTreeSet::new();
        if !ids.is_empty() {
            let known = store.ledger_statuses(identity, &ids).await.map_err(Problem::from)?.into_iter();
            let verified = known.filter(|(_, status)| *status == TransactionStatus::Verified);
            found.extend(verified.map(|(id, _)| Watched::Transaction(id)));
        }
        if !states.is_empty() {
            let spent = store.spent_by(identity, &states).await.map_err(Problem::from)?;
            found.extend(spent.into_iter().map(|(state, _)| Watched::State(state)));
        }
        for (row, _) in waiting.iter().filter(|(_, watched)| found.contains(watched)) {
            self.flows.enqueue(*row);
        }
        Ok(())
    }
}
