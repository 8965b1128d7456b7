//! Recording with a choice: which states of a transaction come into the vault. For those above all whom a transaction does not
//! concern, and who get it to look at: observers.
//!
//! Each identity chooses for itself, in its own flow. Nothing of the choice travels, so no peer has a say in it; and getting a
//! transaction signs nothing. What is kept of states of others is marked (`docs/behaviour.md` 12.1).

use maxhost_ledger::vault::recording::{StatesToRecord, TransactionEvent, TransactionStatus};
use maxhost_model::{FlowError, SecureHash};
use maxhost_sandbox::{CallResult, GuestNotaryChange, LedgerAnswer, RecordingCall};

use super::back_chain::{Expected, SignedBy};
use super::finality::{Finalising, as_chosen};
use super::notary_change::LookingOn;
use super::protocol::{Encoded, ToVendor};
use super::refusal;
use super::transactions::{By, Fresh, Signed};
use crate::calls::FlowCalls;

/// Reads an id that a guest hands in.
pub(super) fn transaction_id(text: &str) -> Result<SecureHash, FlowError> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(80).collect();
        refusal::argument(format!("'{shown}' is no id of a transaction"))
    })
}

impl FlowCalls {
    /// Does what a guest asks of the interface `recording`.
    pub(super) async fn on_recording(&mut self, call: RecordingCall) -> CallResult<LedgerAnswer> {
        let signed = match call {
            RecordingCall::Finalise { transaction, participants, observers, states } => {
                let (signed, _) = self.given_ordinary(&transaction)?;
                let with = Finalising { participants: &participants, observers: &observers, states };
                self.finalise_with(signed, with).await?
            }
            RecordingCall::ReceiveFinality { session, expected, states } => {
                let expected = expected.as_deref().map(transaction_id).transpose()?;
                self.receive_final(session, expected, Expected::Ordinary, states).await?
            }
            RecordingCall::SendTransaction { session, transaction } => {
                let (signed, _) = self.given_ordinary(&transaction)?;
                return self.send_transaction(session, &signed).await.map(|()| LedgerAnswer::Done);
            }
            RecordingCall::SendRecorded { session, id } => {
                let signed = self.recorded(transaction_id(&id)?).await?;
                return self.send_transaction(session, &signed).await.map(|()| LedgerAnswer::Done);
            }
            RecordingCall::ReceiveTransaction { session, states } => self.receive_transaction(session, states).await?,
            RecordingCall::ReceiveUnrecorded { session } => {
                let signed = self.receive_to_sign(session).await?;
                self.tell(session, &ToVendor::Done).await?;
                signed
            }
            RecordingCall::ChangeNotary { reference, notary, observers, states } => {
                let with = LookingOn { observers: &observers, states };
                let moved = self.change_notary(reference, notary, with).await?;
                return Ok(LedgerAnswer::States(vec![moved]));
            }
            RecordingCall::ObserveNotaryChange { session, states } => {
                return self.observe_notary_change(session, states).await.map(LedgerAnswer::NotaryChange);
            }
        };
        self.shown(signed).await.map(LedgerAnswer::Transaction)
    }

    /// The side of an observer of a change of notary: it signs nothing, and records what it chooses.
    async fn observe_notary_change(&mut self, session: u32, states: StatesToRecord) -> CallResult<GuestNotaryChange> {
        let signed = self.receive_final(session, None, Expected::NotaryChange, states).await?;
        self.shown_change(&signed).await
    }

    /// Gives a transaction with all that it comes from.
    async fn send_transaction(&mut self, session: u32, signed: &Signed) -> CallResult<()> {
        match self.give(session, signed).await? {
            ToVendor::Done => Ok(()),
            _ => Err(refusal::protocol("a signature came that nobody has asked for").into()),
        }
    }

    /// An ordinary transaction that is part of the ledger.
    async fn recorded(&mut self, id: SecureHash) -> CallResult<Signed> {
        let environment = self.environment();
        let found: Encoded = self
            .step(&format!("find {id}"), async move {
                match environment.stored(&id).await? {
                    Some((TransactionStatus::Verified, signed)) => {
                        let bytes = signed.ordinary().and_then(|_| signed.encode());
                        Ok(bytes
                            .map(|bytes| (Encoded(bytes), Vec::new()))
                            .map_err(|refused| refusal::refused(&refused)))
                    }
                    _ => Ok(Err(refusal::argument(format!("the transaction {id} is not part of the ledger")))),
                }
            })
            .await?;
        Ok(self.given(&found.0)?)
    }

    /// Gets a transaction with all signatures, verifies it with what it comes from, and records it. What is part of the ledger
    /// was verified; it is recorded again, because more of it may be wanted now.
    async fn receive_transaction(&mut self, session: u32, states: StatesToRecord) -> CallResult<Signed> {
        let signed = self.get(session, SignedBy::All, Expected::Ordinary).await?;
        let by = By { flow: Some(self.holding()), settlement: None };
        let (environment, given) = (self.environment(), signed.clone());
        self.step(&format!("verify and record{} {}", as_chosen(states), signed.id()), async move {
            let known = environment.statuses(&[given.id()]).await?;
            if !known.iter().any(|(_, status)| *status == TransactionStatus::Verified)
                && let Err(refused) = environment.judge(&given, &Fresh::new()).await?
            {
                return Ok(Err(refusal::refused(&refused)));
            }
            let op = environment.recording(&given, TransactionEvent::Finalised, states, by).await?;
            Ok(op.map(|op| ((), vec![op])).map_err(|refused| refusal::refused(&refused)))
        })
        .await?;
        self.tell(session, &ToVendor::Done).await?;
        Ok(signed)
    }
}
