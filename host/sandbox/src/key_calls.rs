//! The interface `maxhost:cordapp/keys`, call by call, handed to the run's host.

use crate::bindings::{keys, types};
use crate::calls::Reply;
use crate::ledger::{GuestKey, LedgerAnswer, LedgerCall};
use crate::ledger_calls::{answered, misanswered, unanswered};
use crate::state::RunState;

impl From<GuestKey> for keys::Key {
    fn from(key: GuestKey) -> keys::Key {
        let GuestKey { spki, fingerprint } = key;
        keys::Key { spki, fingerprint }
    }
}

impl RunState {
    /// A call that is answered with one key.
    async fn one_key(&mut self, name: &'static str, call: LedgerCall) -> Reply<keys::Key> {
        match self.ledger(name, call).await? {
            Ok(LedgerAnswer::Keys(mut keys)) => match (keys.pop(), keys.is_empty()) {
                (Some(key), true) => Ok(Ok(key.into())),
                _ => misanswered(),
            },
            Err(error) => unanswered(error),
            Ok(_) => misanswered(),
        }
    }
}

impl keys::Host for RunState {
    async fn fresh_key(&mut self) -> Reply<keys::Key> {
        self.one_key("fresh-key", LedgerCall::FreshKey).await
    }

    async fn fresh_key_for(&mut self, external_id: String) -> Reply<keys::Key> {
        self.one_key("fresh-key-for", LedgerCall::FreshKeyFor { external_id }).await
    }

    async fn external_id_of_key(&mut self, key: Vec<u8>) -> Reply<Option<String>> {
        let answer = self.ledger("external-id-of-key", LedgerCall::ExternalIdOfKey { key }).await?;
        answered!(answer, LedgerAnswer::ExternalId(id) => id)
    }

    async fn keys_of_external_id(&mut self, external_id: String, after: Option<String>) -> Reply<Vec<keys::Key>> {
        let call = LedgerCall::KeysOfExternalId { external_id, after };
        let answer = self.ledger("keys-of-external-id", call).await?;
        answered!(answer, LedgerAnswer::Keys(keys) => keys.into_iter().map(Into::into).collect::<Vec<_>>())
    }

    async fn request_key_for(&mut self, session: u32, external_id: String) -> Reply<keys::Key> {
        self.one_key("request-key-for", LedgerCall::RequestKeyFor { session, external_id }).await
    }

    async fn provide_key_for(&mut self, session: u32, external_id: Option<String>) -> Reply<keys::ProvidedKey> {
        let answer = self.ledger("provide-key-for", LedgerCall::ProvideKeyFor { session, external_id }).await?;
        answered!(answer, LedgerAnswer::ProvidedKey { key, external_id } => keys::ProvidedKey {
            key: key.into(),
            external_id,
        })
    }

    async fn party_of_key(&mut self, key: Vec<u8>) -> Reply<Option<types::Party>> {
        let answer = self.ledger("party-of-key", LedgerCall::PartyOfKey { key }).await?;
        answered!(answer, LedgerAnswer::Party(party) => party.map(Into::into))
    }

    async fn request_key(&mut self, session: u32) -> Reply<keys::Key> {
        self.one_key("request-key", LedgerCall::RequestKey { session }).await
    }

    async fn provide_key(&mut self, session: u32) -> Reply<keys::Key> {
        self.one_key("provide-key", LedgerCall::ProvideKey { session }).await
    }

    async fn share_keys(&mut self, session: u32, keys: Vec<Vec<u8>>) -> Reply<()> {
        let answer = self.ledger("share-keys", LedgerCall::ShareKeys { session, keys }).await?;
        answered!(answer, LedgerAnswer::Done => ())
    }

    async fn receive_keys(&mut self, session: u32) -> Reply<Vec<keys::Key>> {
        let answer = self.ledger("receive-keys", LedgerCall::ReceiveKeys { session }).await?;
        answered!(answer, LedgerAnswer::Keys(keys) => keys.into_iter().map(Into::into).collect::<Vec<_>>())
    }

    async fn return_signatures(&mut self, session: u32, transaction: Vec<u8>, keys: Vec<Vec<u8>>) -> Reply<()> {
        let call = LedgerCall::ReturnSignatures { session, transaction, keys };
        let answer = self.ledger("return-signatures", call).await?;
        answered!(answer, LedgerAnswer::Done => ())
    }
}
