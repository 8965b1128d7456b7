//! The interface `maxhost:cordapp/ledger`, call by call, handed to the run's host.

use crate::bindings::{ledger, types};
use crate::calls::Reply;
use crate::host::{CallError, CallResult};
use crate::ledger::{
    AmountWanted, DraftCommand, DraftOutput, GuestNotaryChange, GuestPointer, GuestState, GuestTransaction,
    LedgerAnswer, LedgerCall, ShownParts, TransactionDraft, VaultQuery,
};
use crate::state::{EndOfRun, RunState};

impl From<GuestState> for ledger::VaultState {
    fn from(state: GuestState) -> ledger::VaultState {
        let GuestState { reference, type_name, data, notary } = state;
        ledger::VaultState { reference, state_type: type_name, data, notary }
    }
}

impl From<GuestTransaction> for ledger::Transaction {
    fn from(transaction: GuestTransaction) -> ledger::Transaction {
        let GuestTransaction { id, bytes, view } = transaction;
        ledger::Transaction { id, bytes, view }
    }
}

impl From<GuestNotaryChange> for ledger::NotaryChange {
    fn from(change: GuestNotaryChange) -> ledger::NotaryChange {
        let GuestNotaryChange { id, bytes, states, notary, new_notary } = change;
        let states = states.into_iter().map(Into::into).collect();
        ledger::NotaryChange { id, bytes, states, notary, new_notary }
    }
}

impl From<ledger::Draft> for TransactionDraft {
    fn from(draft: ledger::Draft) -> TransactionDraft {
        let output = |output: ledger::DraftOutput| DraftOutput {
            contract: output.contract,
            type_name: output.state_type,
            data: output.data,
            notary: output.notary,
            encumbrance: output.encumbrance,
        };
        let command = |command: ledger::DraftCommand| DraftCommand {
            contract: command.contract,
            name: command.name,
            value: command.value,
            signers: command.signers,
        };
        TransactionDraft {
            notary: draft.notary,
            inputs: draft.inputs,
            references: draft.references,
            outputs: draft.outputs.into_iter().map(output).collect(),
            commands: draft.commands.into_iter().map(command).collect(),
            from: draft.from,
            until: draft.until,
            attachments: Vec::new(),
        }
    }
}

/// The host answered with the answer to another call: a defect of its own.
pub(crate) fn misanswered<T>() -> wasmtime::Result<T> {
    Err(EndOfRun::Refused("the host answered another call".to_owned()).into())
}

/// What a call gives that was not answered.
pub(crate) fn unanswered<T>(error: CallError) -> Reply<T> {
    match error {
        CallError::Failure(error) => Ok(Err((*error).into())),
        CallError::Stop => Err(EndOfRun::Stop.into()),
    }
}

/// The one state that a call asks for.
pub(crate) fn one_state(answer: CallResult<LedgerAnswer>) -> Reply<ledger::VaultState> {
    match answer {
        Ok(LedgerAnswer::States(mut states)) => match (states.pop(), states.is_empty()) {
            (Some(state), true) => Ok(Ok(state.into())),
            _ => misanswered(),
        },
        Ok(_) => misanswered(),
        Err(error) => unanswered(error),
    }
}

/// Takes the part of an answer that the call has.
macro_rules! answered {
    ($answer:expr, $pattern:pat => $value:expr) => {
        match $answer {
            Ok($pattern) => Ok(Ok($value)),
            Err(error) => $crate::ledger_calls::unanswered(error),
            Ok(_) => $crate::ledger_calls::misanswered(),
        }
    };
}
pub(crate) use answered;

impl RunState {
    pub(crate) async fn ledger(
        &mut self,
        name: &'static str,
        call: LedgerCall,
    ) -> wasmtime::Result<CallResult<LedgerAnswer>> {
        let answer = self.host(name)?.ledger(call).await;
        self.note_wait();
        Ok(answer)
    }
}

impl ledger::Host for RunState {
    async fn notaries(&mut self) -> wasmtime::Result<Vec<types::Party>> {
        match self.ledger("notaries", LedgerCall::Notaries).await? {
            Ok(LedgerAnswer::Parties(parties)) => Ok(parties.into_iter().map(types::Party::from).collect()),
            Err(CallError::Stop) => Err(EndOfRun::Stop.into()),
            _ => misanswered(),
        }
    }

    async fn build(&mut self, draft: ledger::Draft) -> Reply<ledger::Transaction> {
        let answer = self.ledger("build", LedgerCall::Build(draft.into())).await?;
        answered!(answer, LedgerAnswer::Transaction(transaction) => transaction.into())
    }

    async fn collect_signatures(&mut self, transaction: Vec<u8>, sessions: Vec<u32>) -> Reply<ledger::Transaction> {
        let answer = self.ledger("collect-signatures", LedgerCall::Collect { transaction, sessions }).await?;
        answered!(answer, LedgerAnswer::Transaction(transaction) => transaction.into())
    }

    async fn receive_to_sign(&mut self, session: u32) -> Reply<ledger::Transaction> {
        let answer = self.ledger("receive-to-sign", LedgerCall::ReceiveToSign { session }).await?;
        answered!(answer, LedgerAnswer::Transaction(transaction) => transaction.into())
    }

    async fn return_signature(&mut self, session: u32, transaction: Vec<u8>) -> Reply<()> {
        let answer = self.ledger("return-signature", LedgerCall::ReturnSignature { session, transaction }).await?;
        answered!(answer, LedgerAnswer::Done => ())
    }

    async fn collect_on_tear_off(
        &mut self,
        transaction: Vec<u8>,
        session: u32,
        shown: ledger::ShownParts,
    ) -> Reply<ledger::Transaction> {
        let shown = ShownParts {
            commands_of: shown.commands_of,
            commands: shown.commands,
            inputs: shown.inputs,
            references: shown.references,
            outputs: shown.outputs,
            attachments: shown.attachments,
            notary: shown.notary,
            time_window: shown.time_window,
            parameters: shown.parameters,
        };
        let call = LedgerCall::CollectOnTearOff { transaction, session, shown };
        let answer = self.ledger("collect-on-tear-off", call).await?;
        answered!(answer, LedgerAnswer::Transaction(transaction) => transaction.into())
    }

    async fn receive_tear_off(&mut self, session: u32) -> Reply<ledger::Transaction> {
        let answer = self.ledger("receive-tear-off", LedgerCall::ReceiveTearOff { session }).await?;
        answered!(answer, LedgerAnswer::Transaction(tear_off) => tear_off.into())
    }

    async fn sign_tear_off(&mut self, session: u32, tear_off: Vec<u8>) -> Reply<()> {
        let answer = self.ledger("sign-tear-off", LedgerCall::SignTearOff { session, tear_off }).await?;
        answered!(answer, LedgerAnswer::Done => ())
    }

    async fn finalise(&mut self, transaction: Vec<u8>, sessions: Vec<u32>) -> Reply<ledger::Transaction> {
        let answer = self.ledger("finalise", LedgerCall::Finalise { transaction, sessions }).await?;
        answered!(answer, LedgerAnswer::Transaction(transaction) => transaction.into())
    }

    async fn receive_finality(&mut self, session: u32, expected: Option<String>) -> Reply<ledger::Transaction> {
        let answer = self.ledger("receive-finality", LedgerCall::ReceiveFinality { session, expected }).await?;
        answered!(answer, LedgerAnswer::Transaction(transaction) => transaction.into())
    }

    async fn send_states(&mut self, session: u32, references: Vec<String>) -> Reply<()> {
        let answer = self.ledger("send-states", LedgerCall::SendStates { session, references }).await?;
        answered!(answer, LedgerAnswer::Done => ())
    }

    async fn receive_states(&mut self, session: u32) -> Reply<Vec<ledger::VaultState>> {
        let answer = self.ledger("receive-states", LedgerCall::ReceiveStates { session }).await?;
        answered!(answer, LedgerAnswer::States(states) => states.into_iter().map(Into::into).collect::<Vec<_>>())
    }

    async fn select(&mut self, wanted: ledger::AmountWanted) -> Reply<Vec<ledger::VaultState>> {
        let wanted = AmountWanted {
            type_name: wanted.state_type,
            token: wanted.token,
            issuer: wanted.issuer,
            notary: wanted.notary,
            quantity: wanted.quantity,
            wait_ms: wanted.wait,
        };
        let answer = self.ledger("select", LedgerCall::Select(wanted)).await?;
        answered!(answer, LedgerAnswer::States(states) => states.into_iter().map(Into::into).collect::<Vec<_>>())
    }

    async fn lock(&mut self, references: Vec<String>) -> Reply<Vec<ledger::VaultState>> {
        let answer = self.ledger("lock", LedgerCall::Lock { references }).await?;
        answered!(answer, LedgerAnswer::States(states) => states.into_iter().map(Into::into).collect::<Vec<_>>())
    }

    async fn lock_together(&mut self, reference: String) -> Reply<Vec<ledger::VaultState>> {
        let answer = self.ledger("lock-together", LedgerCall::LockTogether { reference }).await?;
        answered!(answer, LedgerAnswer::States(states) => states.into_iter().map(Into::into).collect::<Vec<_>>())
    }

    async fn query(&mut self, query: ledger::VaultQuery) -> Reply<ledger::StatePage> {
        let query = VaultQuery {
            types: query.state_types,
            unconsumed: query.unconsumed,
            consumed: query.consumed,
            filter: query.filter,
            sort: query.sort,
            limit: query.limit,
            cursor: query.cursor,
        };
        let answer = self.ledger("query", LedgerCall::Query(query)).await?;
        answered!(answer, LedgerAnswer::Page(states, cursor) => ledger::StatePage {
            states: states.into_iter().map(Into::into).collect(),
            cursor,
        })
    }

    async fn build_with(&mut self, draft: ledger::Draft, attachments: Vec<String>) -> Reply<ledger::Transaction> {
        let draft = TransactionDraft { attachments, ..draft.into() };
        let answer = self.ledger("build-with", LedgerCall::Build(draft)).await?;
        answered!(answer, LedgerAnswer::Transaction(transaction) => transaction.into())
    }

    async fn attach(&mut self, file: Vec<u8>) -> Reply<String> {
        let answer = self.ledger("attach", LedgerCall::Attach { file }).await?;
        answered!(answer, LedgerAnswer::Attached(id) => id)
    }

    async fn change_notary(&mut self, reference: String, notary: String) -> Reply<ledger::VaultState> {
        one_state(self.ledger("change-notary", LedgerCall::ChangeNotary { reference, notary }).await?)
    }

    async fn resolve(&mut self, pointer: ledger::PointerTarget) -> Reply<ledger::VaultState> {
        let pointer = match pointer {
            ledger::PointerTarget::OneState(reference) => GuestPointer::OneState(reference),
            ledger::PointerTarget::Newest(linear) => {
                GuestPointer::Newest { id: linear.id, type_name: linear.state_type }
            }
        };
        one_state(self.ledger("resolve", LedgerCall::Resolve(pointer)).await?)
    }

    async fn receive_notary_change(&mut self, session: u32) -> Reply<ledger::NotaryChange> {
        let answer = self.ledger("receive-notary-change", LedgerCall::ReceiveNotaryChange { session }).await?;
        answered!(answer, LedgerAnswer::NotaryChange(change) => change.into())
    }

    async fn accept_notary_change(&mut self, session: u32, change: Vec<u8>) -> Reply<Vec<ledger::VaultState>> {
        let answer = self.ledger("accept-notary-change", LedgerCall::AcceptNotaryChange { session, change }).await?;
        answered!(answer, LedgerAnswer::States(states) => states.into_iter().map(Into::into).collect::<Vec<_>>())
    }

    async fn open_attachment(&mut self, id: String) -> Reply<Option<Vec<u8>>> {
        let answer = self.ledger("open-attachment", LedgerCall::OpenAttachment { id }).await?;
        answered!(answer, LedgerAnswer::File(file) => file)
    }
}
