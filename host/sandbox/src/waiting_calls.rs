//! The interface `maxhost:cordapp/ledger-waits`, call by call, handed to the run's host.

use crate::bindings::{ledger, ledger_waits};
use crate::calls::Reply;
use crate::ledger::{LedgerAnswer, LedgerCall};
use crate::ledger_calls::answered;
use crate::state::RunState;

impl ledger_waits::Host for RunState {
    async fn until_committed(&mut self, id: String, deadline: Option<u64>) -> Reply<Option<ledger::Transaction>> {
        let answer = self.ledger("until-committed", LedgerCall::AwaitCommit { id, deadline }).await?;
        answered!(answer, LedgerAnswer::MaybeTransaction(transaction) => transaction.map(Into::into))
    }

    async fn until_consumed(&mut self, references: Vec<String>, deadline: Option<u64>) -> Reply<bool> {
        let answer = self.ledger("until-consumed", LedgerCall::AwaitConsumption { references, deadline }).await?;
        answered!(answer, LedgerAnswer::Reached(reached) => reached)
    }
}
