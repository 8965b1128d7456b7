//! External ids of keys: a flow asks for a fresh key for something that is known outside by this id, such as an account of a
//! customer, and the vault finds the states that have such keys.
//!
//! Which external id a key has is noted in the commit that makes the key, and never changes; so it is known before any state can
//! have the key, and is kept with each state when it is recorded. It is the identity's own affair: nobody else is told.

use std::collections::{BTreeMap, BTreeSet};

use maxhost_ledger::keys::leaves;
use maxhost_ledger::vault::query::check_key_external_id;
use maxhost_model::{FlowError, PublicKey, SecureHash};
use maxhost_sandbox::{CallResult, GuestKey};
use maxhost_store::ledger::codec::set_key_external_ids;
use maxhost_store::ledger::{AssignedKey, LedgerOp, OutputState};

use super::environment::LedgerEnvironment;
use super::keys::{given_key, guest_key};
use super::protocol::Encoded;
use super::refusal;
use super::transactions::failed;
use crate::base::trouble::Trouble;
use crate::calls::FlowCalls;

/// The most keys of an external id that are told at once.
const KEYS_AT_ONCE: u32 = 500;

/// How many bytes of external ids are kept with one state. Each is a row of the vault, and whoever has been given many keys can
/// make many states that have all of them, of a few bytes each.
const KEPT_WITH_STATE: usize = 4 << 10;

/// Those of the external ids of a state's keys that are kept with it: in their order, as many as there is room for.
fn kept_with_state(ids: BTreeSet<String>) -> BTreeSet<String> {
    let mut room = KEPT_WITH_STATE;
    let has_room = |id: &String| match room.checked_sub(id.len()) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    };
    ids.into_iter().take_while(has_room).collect()
}

/// An external id that a guest names for a key.
pub(super) fn given_external_id(id: String) -> Result<String, FlowError> {
    match check_key_external_id(&id) {
        Ok(()) => Ok(id),
        Err(wrong) => Err(refusal::argument(wrong)),
    }
}

impl LedgerEnvironment {
    /// Keeps which external id a new key has.
    pub fn to_assign(&self, key: &PublicKey, external_id: String) -> LedgerOp {
        LedgerOp::AssignKey(Box::new(AssignedKey { id: key.fingerprint(), external_id, at: self.now() }))
    }

    async fn external_ids(&self, keys: &[SecureHash]) -> Result<BTreeMap<SecureHash, String>, Trouble> {
        let store = &self.services.committer.store;
        let found = store.key_external_ids(self.opened.entry.row, keys).await.map_err(failed)?;
        Ok(found.into_iter().collect())
    }

    /// These outputs, each with the external ids of those of its keys that are the identity's own.
    pub async fn with_key_external_ids(
        &self,
        outputs: &[OutputState],
        own_keys: &BTreeSet<PublicKey>,
    ) -> Result<Vec<OutputState>, Trouble> {
        let mut outputs = outputs.to_vec();
        let us = &self.us().owning_key;
        let fresh: Vec<SecureHash> = own_keys.iter().filter(|key| *key != us).map(PublicKey::fingerprint).collect();
        if fresh.is_empty() {
            return Ok(outputs);
        }
        let known = self.external_ids(&fresh).await?;
        if known.is_empty() {
            return Ok(outputs);
        }
        for OutputState { described, content } in &mut outputs {
            let keys = described.participants.iter().chain(&described.owner).flat_map(leaves);
            let ids: BTreeSet<String> = keys.filter_map(|key| known.get(&key.fingerprint()).cloned()).collect();
            set_key_external_ids(&mut content.fields, &kept_with_state(ids))
                .map_err(|fault| Trouble::defect(format!("external ids of keys: {fault}")))?;
        }
        Ok(outputs)
    }
}

impl FlowCalls {
    /// Makes a key of the identity's own for what is known by an external id.
    pub(crate) async fn fresh_key_for(&mut self, external_id: String) -> CallResult<GuestKey> {
        let external_id = given_external_id(external_id)?;
        let (nonce, environment) = (self.drawn(), self.environment());
        let key: Encoded = self
            .step(&format!("make a fresh key for the external id '{external_id}'"), async move {
                let key = environment.own_key(&nonce)?.public().clone();
                let assigned = environment.to_assign(&key, external_id);
                Ok(Ok((Encoded(key.spki().to_vec()), vec![environment.to_keep(key, nonce), assigned])))
            })
            .await?;
        Ok(guest_key(key.0))
    }

    /// The external id for which this identity has made a key.
    pub(crate) async fn external_id_of_key(&mut self, spki: &[u8]) -> CallResult<Option<String>> {
        let (key, environment) = (given_key(spki)?, self.environment());
        let found: Option<String> = self
            .step(&format!("ask for the external id of key {key}"), async move {
                let id = key.fingerprint();
                Ok(Ok((environment.external_ids(&[id]).await?.remove(&id), Vec::new())))
            })
            .await?;
        Ok(found)
    }

    /// The keys that this identity has made for an external id, by fingerprint, behind this one.
    pub(crate) async fn keys_of_external_id(
        &mut self,
        external_id: String,
        after: Option<String>,
    ) -> CallResult<Vec<GuestKey>> {
        let external_id = given_external_id(external_id)?;
        let after: Option<SecureHash> = match after {
            None => None,
            Some(text) => match text.parse() {
                Ok(fingerprint) => Some(fingerprint),
                Err(_) => return Err(refusal::argument("the fingerprint to go on behind is none").into()),
            },
        };
        let environment = self.environment();
        let behind = after.map_or_else(String::new, |after| format!(", behind {after}"));
        let found: Vec<Encoded> = self
            .step(&format!("ask for the keys of the external id '{external_id}'{behind}"), async move {
                let (store, identity) = (&environment.services.committer.store, environment.opened.entry.row);
                let found =
                    store.keys_of_external_id(identity, &external_id, after, KEYS_AT_ONCE).await.map_err(failed)?;
                Ok(Ok((found.iter().map(|known| Encoded(known.key.spki().to_vec())).collect(), Vec::new())))
            })
            .await?;
        Ok(found.into_iter().map(|Encoded(spki)| guest_key(spki)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_external_ids_with_one_state_is_bounded() {
        let of = |count: usize, length: usize| {
            (0..count).map(|number| format!("{number:0length$}")).collect::<BTreeSet<_>>()
        };
        let few = of(50, 40);
        assert_eq!(kept_with_state(few.clone()), few);
        let many = of(1_000, 512);
        let kept = kept_with_state(many.clone());
        assert_eq!((kept.len(), kept.iter().map(String::len).sum::<usize>()), (8, KEPT_WITH_STATE));
        assert!(many.iter().take(8).eq(&kept), "the first ones");
        assert_eq!(kept_with_state(of(1, KEPT_WITH_STATE + 1)), BTreeSet::new());
    }
}
