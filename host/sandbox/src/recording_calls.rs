//! The interface `maxhost:cordapp/recording`, call by call, handed to the run's host.

use maxhost_ledger::vault::recording::StatesToRecord;

use crate::bindings::{ledger, recording};
use crate::calls::Reply;
use crate::ledger::{LedgerAnswer, LedgerCall};
use crate::ledger_calls::{answered, one_state};
use crate::recording::RecordingCall;
use crate::state::RunState;

impl From<recording::StatesToRecord> for StatesToRecord {
    fn from(states: recording::StatesToRecord) -> StatesToRecord {
        match states {
            recording::StatesToRecord::None => StatesToRecord::None,
            recording::StatesToRecord::OnlyRelevant => StatesToRecord::OnlyRelevant,
            recording::StatesToRecord::AllVisible => StatesToRecord::AllVisible,
        }
    }
}

impl RunState {
    /// A call that is answered with a transaction.
    async fn recorded(&mut self, name: &'static str, call: RecordingCall) -> Reply<ledger::Transaction> {
        let answer = self.ledger(name, LedgerCall::Recording(call)).await?;
        answered!(answer, LedgerAnswer::Transaction(transaction) => transaction.into())
    }

    async fn given(&mut self, name: &'static str, call: RecordingCall) -> Reply<()> {
        let answer = self.ledger(name, LedgerCall::Recording(call)).await?;
        answered!(answer, LedgerAnswer::Done => ())
    }
}

impl recording::Host for RunState {
    async fn finalise(
        &mut self,
        transaction: Vec<u8>,
        participants: Vec<u32>,
        observers: Vec<u32>,
        states: recording::StatesToRecord,
    ) -> Reply<ledger::Transaction> {
        let call = RecordingCall::Finalise { transaction, participants, observers, states: states.into() };
        self.recorded("finalise", call).await
    }

    async fn receive_finality(
        &mut self,
        session: u32,
        expected: Option<String>,
        states: recording::StatesToRecord,
    ) -> Reply<ledger::Transaction> {
        let call = RecordingCall::ReceiveFinality { session, expected, states: states.into() };
        self.recorded("receive-finality", call).await
    }

    async fn send_transaction(&mut self, session: u32, transaction: Vec<u8>) -> Reply<()> {
        self.given("send-transaction", RecordingCall::SendTransaction { session, transaction }).await
    }

    async fn send_recorded(&mut self, session: u32, id: String) -> Reply<()> {
        self.given("send-recorded", RecordingCall::SendRecorded { session, id }).await
    }

    async fn receive_transaction(
        &mut self,
        session: u32,
        states: recording::StatesToRecord,
    ) -> Reply<ledger::Transaction> {
        let call = RecordingCall::ReceiveTransaction { session, states: states.into() };
        self.recorded("receive-transaction", call).await
    }

    async fn receive_unrecorded(&mut self, session: u32) -> Reply<ledger::Transaction> {
        self.recorded("receive-unrecorded", RecordingCall::ReceiveUnrecorded { session }).await
    }

    async fn change_notary(
        &mut self,
        reference: String,
        notary: String,
        observers: Vec<u32>,
        states: recording::StatesToRecord,
    ) -> Reply<ledger::VaultState> {
        let call = RecordingCall::ChangeNotary { reference, notary, observers, states: states.into() };
        one_state(self.ledger("change-notary", LedgerCall::Recording(call)).await?)
    }

    async fn observe_notary_change(
        &mut self,
        session: u32,
        states: recording::StatesToRecord,
    ) -> Reply<ledger::NotaryChange> {
        let call = RecordingCall::ObserveNotaryChange { session, states: states.into() };
        let answer = self.ledger("observe-notary-change", LedgerCall::Recording(call)).await?;
        answered!(answer, LedgerAnswer::NotaryChange(change) => change.into())
    }
}
