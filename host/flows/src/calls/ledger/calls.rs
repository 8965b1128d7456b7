//! The calls of guests to the ledger of their identity.

use maxhost_sandbox::{CallResult, GuestParty, LedgerAnswer, LedgerCall};

use super::notary_change::LookingOn;
use super::observing::transaction_id;
use super::transactions::Signed;
use crate::calls::FlowCalls;

impl FlowCalls {
    /// Does what a guest asks of the ledger.
    pub(crate) async fn on_ledger(&mut self, call: LedgerCall) -> CallResult<LedgerAnswer> {
        self.ledger_written().await?;
        match call {
            LedgerCall::Notaries => self.list_notaries().await.map(LedgerAnswer::Parties),
            LedgerCall::Build(draft) => {
                let signed = self.build(draft).await?;
                self.transaction(signed).await
            }
            LedgerCall::Collect { transaction, sessions } => {
                let signed = self.collect(&transaction, &sessions).await?;
                self.transaction(signed).await
            }
            LedgerCall::ReceiveToSign { session } => {
                let signed = self.receive_to_sign(session).await?;
                self.transaction(signed).await
            }
            LedgerCall::ReturnSignature { session, transaction } => {
                self.return_signature(session, &transaction).await.map(|()| LedgerAnswer::Done)
            }
            LedgerCall::CollectOnTearOff { transaction, session, shown } => {
                let signed = self.collect_on_tear_off(session, &transaction, &shown).await?;
                self.transaction(signed).await
            }
            LedgerCall::ReceiveTearOff { session } => {
                self.receive_tear_off(session).await.map(LedgerAnswer::Transaction)
            }
            LedgerCall::SignTearOff { session, tear_off } => {
                self.sign_tear_off(session, tear_off).await.map(|()| LedgerAnswer::Done)
            }
            LedgerCall::Finalise { transaction, sessions } => {
                let signed = self.finalise(&transaction, &sessions).await?;
                self.transaction(signed).await
            }
            LedgerCall::ReceiveFinality { session, expected } => {
                let expected = expected.as_deref().map(transaction_id).transpose()?;
                let signed = self.receive_finality(session, expected).await?;
                self.transaction(signed).await
            }
            LedgerCall::SendStates { session, references } => {
                self.send_states(session, references).await.map(|()| LedgerAnswer::Done)
            }
            LedgerCall::ReceiveStates { session } => self.receive_states(session).await.map(LedgerAnswer::States),
            LedgerCall::Select(wanted) => self.select(wanted).await.map(LedgerAnswer::States),
            LedgerCall::Lock { references } => self.lock(references).await.map(LedgerAnswer::States),
            LedgerCall::LockTogether { reference } => self.lock_together(reference).await.map(LedgerAnswer::States),
            LedgerCall::Resolve(pointer) => {
                self.resolve_pointer(pointer).await.map(|state| LedgerAnswer::States(vec![state]))
            }
            LedgerCall::ChangeNotary { reference, notary } => self
                .change_notary(reference, notary, LookingOn::default())
                .await
                .map(|state| LedgerAnswer::States(vec![state])),
            LedgerCall::ReceiveNotaryChange { session } => {
                self.receive_notary_change(session).await.map(LedgerAnswer::NotaryChange)
            }
            LedgerCall::AcceptNotaryChange { session, change } => {
                self.accept_notary_change(session, &change).await.map(LedgerAnswer::States)
            }
            LedgerCall::FreshKey => self.fresh_key().await.map(|key| LedgerAnswer::Keys(vec![key])),
            LedgerCall::FreshKeyFor { external_id } => {
                self.fresh_key_for(external_id).await.map(|key| LedgerAnswer::Keys(vec![key]))
            }
            LedgerCall::ExternalIdOfKey { key } => self.external_id_of_key(&key).await.map(LedgerAnswer::ExternalId),
            LedgerCall::KeysOfExternalId { external_id, after } => {
                self.keys_of_external_id(external_id, after).await.map(LedgerAnswer::Keys)
            }
            LedgerCall::RequestKeyFor { session, external_id } => {
                self.request_key_for(session, external_id).await.map(|key| LedgerAnswer::Keys(vec![key]))
            }
            LedgerCall::ProvideKeyFor { session, external_id } => self
                .provide_key_for(session, external_id)
                .await
                .map(|(key, external_id)| LedgerAnswer::ProvidedKey { key, external_id }),
            LedgerCall::PartyOfKey { key } => self.party_of_key(&key).await.map(LedgerAnswer::Party),
            LedgerCall::RequestKey { session } => {
                self.request_key(session).await.map(|key| LedgerAnswer::Keys(vec![key]))
            }
            LedgerCall::ProvideKey { session } => {
                self.provide_key(session).await.map(|key| LedgerAnswer::Keys(vec![key]))
            }
            LedgerCall::ShareKeys { session, keys } => {
                self.share_keys(session, &keys).await.map(|()| LedgerAnswer::Done)
            }
            LedgerCall::ReceiveKeys { session } => self.receive_keys(session).await.map(LedgerAnswer::Keys),
            LedgerCall::ReturnSignatures { session, transaction, keys } => {
                self.return_signatures(session, transaction, &keys).await.map(|()| LedgerAnswer::Done)
            }
            LedgerCall::Query(query) => {
                self.query(query).await.map(|(states, cursor)| LedgerAnswer::Page(states, cursor))
            }
            LedgerCall::Recording(call) => self.on_recording(call).await,
            LedgerCall::Attach { file } => self.attach(file).await.map(LedgerAnswer::Attached),
            LedgerCall::OpenAttachment { id } => self.open_attachment(&id).await.map(LedgerAnswer::File),
            LedgerCall::AwaitCommit { id, deadline } => {
                self.await_commit(&id, deadline).await.map(LedgerAnswer::MaybeTransaction)
            }
            LedgerCall::AwaitConsumption { references, deadline } => {
                self.await_consumption(&references, deadline).await.map(LedgerAnswer::Reached)
            }
        }
    }

    async fn transaction(&mut self, signed: Signed) -> CallResult<LedgerAnswer> {
        self.shown(signed).await.map(LedgerAnswer::Transaction)
    }

    async fn list_notaries(&mut self) -> CallResult<Vec<GuestParty>> {
        let environment = self.environment();
        let noted: Vec<(String, Vec<u8>)> = self
            .step("list the notaries", async move {
                let notaries = environment.notaries().into_iter();
                let noted = notaries.map(|notary| (notary.name.to_string(), notary.owning_key.spki().to_vec()));
                Ok(Ok((noted.collect(), Vec::new())))
            })
            .await?;
        Ok(noted.into_iter().map(|(name, owning_key)| GuestParty { name, owning_key }).collect())
    }
}
