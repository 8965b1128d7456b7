//! What stands in for the code of a CorDapp that deals with money: both ends of each deal, over the calls that its component
//! would make. The money is that of the sample `cash`, judged by its real contract.

use maxhost_ledger::codec;
use maxhost_ledger::vault::recording::StatesToRecord;
use maxhost_model::{ErrorKind, FlowError, Party, PublicKey, from_cbor, to_cbor};
use maxhost_sandbox::{
    AmountWanted, CallResult, DraftCommand, DraftOutput, FlowHost, GuestState, GuestTransaction, LedgerAnswer,
    LedgerCall, RecordingCall, TransactionDraft,
};
use serde::{Deserialize, Serialize};

use super::deals::{Amount, CURRENCY, Deal, Manner};
use super::fixture::fixture;
use super::{OWNERS, PARTIES};
use crate::calls::FlowCalls;

/// How long a transaction may be notarised after it was built. Nanoseconds: five minutes.
const WINDOW: u64 = 300 * 1_000_000_000;
/// How long a payment waits for money that others hold. Milliseconds.
const PATIENCE: u64 = 300;
/// The session of a responder.
const SESSION: u32 = 0;

/// What a responder is to do.
#[derive(Debug, Serialize, Deserialize)]
enum Part {
    /// Take a transaction that becomes final.
    Take,
    /// Sign a transaction, and take it then.
    SignAndTake,
    /// Take a transaction that becomes final, and keep all its states.
    Observe,
    /// Look at states.
    Look,
    /// Take states and a transaction that spends them, and make that one final together with whoever gave it.
    Finalise,
    /// Wait until a transaction that is notarised is part of the own ledger, and what it spends is consumed there.
    Await { id: String, spent: Vec<String> },
}

#[derive(Serialize, Deserialize)]
struct Owner {
    name: Option<String>,
    owning_key: PublicKey,
}

/// The state of the sample CorDapp `cash`.
#[derive(Serialize, Deserialize)]
pub(super) struct Cash {
    owner: Owner,
    pub quantity: u64,
    currency: String,
    issuer: Party,
}

impl Cash {
    pub fn decode(data: &[u8]) -> Cash {
        codec::decode("cash", data).unwrap()
    }

    /// Who owes it.
    pub fn issuer(&self) -> String {
        self.issuer.name.to_string()
    }

    /// Whose it is, as a place among the parties.
    pub fn owner(&self) -> Option<usize> {
        PARTIES.iter().position(|name| self.owner.name.as_deref() == Some(name))
    }
}

fn party(index: usize) -> Party {
    fixture().keys[index].party().clone()
}

fn cash(owner: usize, quantity: u64, issuer: usize) -> DraftOutput {
    let Party { name, owning_key } = party(owner);
    let owner = Owner { name: Some(name.to_string()), owning_key };
    let cash = Cash { owner, quantity, currency: CURRENCY.to_owned(), issuer: party(issuer) };
    DraftOutput {
        contract: "cash".to_owned(),
        type_name: "Cash".to_owned(),
        data: codec::encode("cash", &cash).unwrap(),
        notary: None,
        encumbrance: None,
    }
}

fn command<T: Serialize>(name: &str, value: &T, signers: &[usize]) -> DraftCommand {
    DraftCommand {
        contract: "cash".to_owned(),
        name: name.to_owned(),
        value: codec::encode("command", value).unwrap(),
        signers: signers.iter().map(|index| party(*index).owning_key.spki().to_vec()).collect(),
    }
}

/// One flow that deals with money, for one identity.
pub(super) struct Wallet<'a> {
    pub run: &'a mut FlowCalls,
    pub us: usize,
}

impl Wallet<'_> {
    pub async fn deal(&mut self, deal: Deal) -> CallResult<Vec<String>> {
        match deal {
            Deal::Issue { quantity, to, notary } => {
                let draft = self.draft(notary, &[], vec![cash(to, quantity, self.us)]);
                let draft =
                    TransactionDraft { until: None, commands: vec![command("Issue", &(), &[self.us])], ..draft };
                let signed = self.build(draft).await?;
                let sessions = if to == self.us { Vec::new() } else { vec![self.open(to, Part::Take).await?] };
                Ok(vec![self.finalise(&signed, sessions).await?])
            }
            Deal::Pay { to, amount, manner } => {
                let spent = self.select(amount).await?;
                let signers: &[usize] = if manner == Manner::Signed { &[self.us, to] } else { &[self.us] };
                let mut signed = self.payment(&spent, to, amount, signers).await?;
                let part = if manner == Manner::Signed { Part::SignAndTake } else { Part::Take };
                let session = self.open(to, part).await?;
                if manner == Manner::Signed {
                    let collect = LedgerCall::Collect { transaction: signed.bytes, sessions: vec![session] };
                    signed = transaction(self.run.on_ledger(collect).await?);
                }
                let third = (0..OWNERS).find(|third| ![self.us, to].contains(third));
                let id = match third.filter(|_| manner == Manner::Observed) {
                    Some(third) => self.finalise_observed(&signed, session, third).await?,
                    None => self.finalise(&signed, vec![session]).await?,
                };
                if manner == Manner::Awaited {
                    let spent = spent.into_iter().map(|state| state.reference).collect();
                    self.open(to, Part::Await { id: id.clone(), spent }).await?;
                }
                Ok(vec![id])
            }
            Deal::Exit { amount } => {
                let spent = self.select(amount).await?;
                let left = total(&spent) - amount.quantity;
                let change = (left > 0).then(|| cash(self.us, left, amount.issuer));
                #[derive(Serialize)]
                struct Exit {
                    quantity: u64,
                }
                let exit = command("Exit", &Exit { quantity: amount.quantity }, &[self.us]);
                let draft = self.draft(amount.notary, &spent, change.into_iter().collect());
                let signed = self.build(TransactionDraft { commands: vec![exit], ..draft }).await?;
                Ok(vec![self.finalise(&signed, Vec::new()).await?])
            }
            Deal::Show { to, amount } => {
                let states = self.select(amount).await?;
                let session = self.open(to, Part::Look).await?;
                self.give(session, &states).await?;
                // Whoever looks says that it has seen them.
                self.run.receive(session).await?;
                Ok(Vec::new())
            }
            Deal::PayTwice { to, amount, at_once } => self.pay_twice(to, amount, at_once).await,
            Deal::Rest { time } => self.run.sleep(time).await.map(|()| Vec::new()),
        }
    }

    /// Pays two with the same money: one after the other, or at once, when the second transaction is made final by its payee.
    async fn pay_twice(&mut self, to: [usize; 2], amount: Amount, at_once: bool) -> CallResult<Vec<String>> {
        let spent = self.select(amount).await?;
        let first = self.payment(&spent, to[0], amount, &[self.us]).await?;
        let second = self.payment(&spent, to[1], amount, &[self.us]).await?;
        if at_once {
            let session = self.open(to[1], Part::Finalise).await?;
            self.give(session, &spent).await?;
            self.run.send(session, second.bytes.clone()).await?;
        }
        let session = self.open(to[0], Part::Take).await?;
        let done = self.finalise(&first, vec![session]).await?;
        if !at_once {
            let session = self.open(to[1], Part::Take).await?;
            self.finalise(&second, vec![session]).await?;
        }
        Ok(vec![done])
    }

    /// The other end of a deal.
    pub async fn take_part(&mut self) -> CallResult<Vec<String>> {
        let part = self.run.receive(SESSION).await?;
        match from_cbor(&part).map_err(|error| FlowError::new(ErrorKind::IllegalArgument, error.to_string()))? {
            Part::Take => Ok(vec![self.take(None).await?]),
            Part::SignAndTake => {
                let proposed = transaction(self.run.on_ledger(LedgerCall::ReceiveToSign { session: SESSION }).await?);
                let sign = LedgerCall::ReturnSignature { session: SESSION, transaction: proposed.bytes };
                self.run.on_ledger(sign).await?;
                Ok(vec![self.take(Some(proposed.id)).await?])
            }
            Part::Observe => {
                let states = StatesToRecord::AllVisible;
                let call = RecordingCall::ReceiveFinality { session: SESSION, expected: None, states };
                Ok(vec![transaction(self.run.on_ledger(LedgerCall::Recording(call)).await?).id])
            }
            Part::Look => {
                self.run.on_ledger(LedgerCall::ReceiveStates { session: SESSION }).await?;
                self.run.send(SESSION, b"seen".to_vec()).await?;
                Ok(Vec::new())
            }
            Part::Finalise => {
                self.run.on_ledger(LedgerCall::ReceiveStates { session: SESSION }).await?;
                let bytes = self.run.receive(SESSION).await?;
                let giver = self.run.counterparty(SESSION)?.name;
                let session = self.open_with(&giver, Part::Take).await?;
                let finalise = LedgerCall::Finalise { transaction: bytes, sessions: vec![session] };
                Ok(vec![transaction(self.run.on_ledger(finalise).await?).id])
            }
            Part::Await { id, spent } => {
                let consumed = LedgerCall::AwaitConsumption { references: spent, deadline: None };
                self.run.on_ledger(consumed).await?;
                let committed = LedgerCall::AwaitCommit { id, deadline: None };
                match self.run.on_ledger(committed).await? {
                    LedgerAnswer::MaybeTransaction(Some(found)) => Ok(vec![found.id]),
                    other => panic!("a transaction was waited for, and the answer is {other:?}"),
                }
            }
        }
    }

    async fn take(&mut self, expected: Option<String>) -> CallResult<String> {
        let call = LedgerCall::ReceiveFinality { session: SESSION, expected };
        Ok(transaction(self.run.on_ledger(call).await?).id)
    }

    async fn select(&mut self, amount: Amount) -> CallResult<Vec<GuestState>> {
        let wanted = AmountWanted {
            type_name: "cash/Cash".to_owned(),
            token: CURRENCY.to_owned(),
            issuer: Some(PARTIES[amount.issuer].to_owned()),
            notary: Some(PARTIES[amount.notary].to_owned()),
            quantity: amount.quantity,
            wait_ms: PATIENCE,
        };
        match self.run.on_ledger(LedgerCall::Select(wanted)).await? {
            LedgerAnswer::States(states) => Ok(states),
            other => panic!("states were selected, and the answer is {other:?}"),
        }
    }

    fn draft(&mut self, notary: usize, spent: &[GuestState], outputs: Vec<DraftOutput>) -> TransactionDraft {
        TransactionDraft {
            notary: Some(PARTIES[notary].to_owned()),
            inputs: spent.iter().map(|state| state.reference.clone()).collect(),
            references: Vec::new(),
            outputs,
            commands: Vec::new(),
            from: None,
            until: Some(self.run.now() + WINDOW),
            attachments: Vec::new(),
        }
    }

    async fn payment(
        &mut self,
        spent: &[GuestState],
        to: usize,
        amount: Amount,
        signers: &[usize],
    ) -> CallResult<GuestTransaction> {
        let left = total(spent) - amount.quantity;
        let mut outputs = vec![cash(to, amount.quantity, amount.issuer)];
        outputs.extend((left > 0).then(|| cash(self.us, left, amount.issuer)));
        let draft = self.draft(amount.notary, spent, outputs);
        self.build(TransactionDraft { commands: vec![command("Move", &(), signers)], ..draft }).await
    }

    async fn build(&mut self, draft: TransactionDraft) -> CallResult<GuestTransaction> {
        Ok(transaction(self.run.on_ledger(LedgerCall::Build(draft)).await?))
    }

    async fn finalise(&mut self, signed: &GuestTransaction, sessions: Vec<u32>) -> CallResult<String> {
        let finalise = LedgerCall::Finalise { transaction: signed.bytes.clone(), sessions };
        Ok(transaction(self.run.on_ledger(finalise).await?).id)
    }

    async fn finalise_observed(&mut self, signed: &GuestTransaction, payee: u32, third: usize) -> CallResult<String> {
        let observer = self.open(third, Part::Observe).await?;
        let call = RecordingCall::Finalise {
            transaction: signed.bytes.clone(),
            participants: vec![payee],
            observers: vec![observer],
            states: StatesToRecord::OnlyRelevant,
        };
        Ok(transaction(self.run.on_ledger(LedgerCall::Recording(call)).await?).id)
    }

    async fn give(&mut self, session: u32, states: &[GuestState]) -> CallResult<()> {
        let references = states.iter().map(|state| state.reference.clone()).collect();
        self.run.on_ledger(LedgerCall::SendStates { session, references }).await.map(drop)
    }

    async fn open(&mut self, to: usize, part: Part) -> CallResult<u32> {
        self.open_with(PARTIES[to], part).await
    }

    async fn open_with(&mut self, to: &str, part: Part) -> CallResult<u32> {
        let session = self.run.open_session("ping".to_owned(), to.to_owned()).await?;
        self.run.send(session, to_cbor(&part).unwrap()).await?;
        Ok(session)
    }
}

fn transaction(answer: LedgerAnswer) -> GuestTransaction {
    match answer {
        LedgerAnswer::Transaction(transaction) => transaction,
        other => panic!("a transaction was asked for, and the answer is {other:?}"),
    }
}

fn total(states: &[GuestState]) -> u64 {
    states.iter().map(|state| Cash::decode(&state.data).quantity).sum()
}
