//! Keys of parties that states do not name: one's own, and those that others have told.
//!
//! A state that has such a key in place of a name is spent and found as any other by whoever has the key. Who that is only
//! those know whom it has told; whoever sees the state later, because it is in the back-chain of another, sees a key.

use maxhost_contract::{AnyParty, HasKey, PublicKey};

use super::Transaction;
use crate::bindings::maxhost::cordapp::keys as wit;
use crate::error::Result;
use crate::host;
use crate::party::Party;
use crate::session::Session;

/// A key besides that of a legal identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    key: PublicKey,
    fingerprint: String,
}

impl Key {
    fn of(key: wit::Key) -> Key {
        Key { key: key.spki.into(), fingerprint: key.fingerprint }
    }

    /// SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        self.key.spki()
    }

    /// What stands for the party in conditions of the vault: `owner = '…'`.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The party as states have it: the key without a name.
    #[must_use]
    pub fn party(&self) -> AnyParty {
        AnyParty::anonymous(self.key.clone())
    }
}

impl HasKey for Key {
    fn key(&self) -> &PublicKey {
        &self.key
    }
}

/// Makes a key of the identity's own, which it keeps for ever. [`Draft::sign`](super::Draft::sign) signs with it when it must
/// sign, and states that have it are the identity's own.
///
/// # Errors
/// A limit of the flow.
pub fn fresh_key() -> Result<Key> {
    Ok(Key::of(host::fresh_key()?))
}

/// As [`fresh_key`], for what is known outside by this external id, such as a customer's account: 1 to 512 bytes, without a NUL
/// character. The identity keeps it with the key for ever and tells no other party; states that have the key are found with
/// [`Query::key_external_id`](super::Query::key_external_id).
///
/// # Errors
/// `IllegalArgument` for what is no such id; a limit of the flow.
pub fn fresh_key_for(external_id: &str) -> Result<Key> {
    Ok(Key::of(host::fresh_key_for(external_id)?))
}

/// The external id for which this identity has made a key; `None` if it has made it for none, or has not made it.
///
/// # Errors
/// `IllegalArgument` for what is no key.
pub fn external_id_of(key: &impl HasKey) -> Result<Option<String>> {
    Ok(host::external_id_of_key(key.key().spki())?)
}

/// The keys that this identity has made for an external id, in the order of their fingerprints. They are asked for 500 at a
/// time, and each answer counts for the flow's journal.
///
/// # Errors
/// `IllegalArgument` for what is no such id; a limit of the flow.
pub fn keys_of(external_id: &str) -> Result<Vec<Key>> {
    let mut keys: Vec<Key> = Vec::new();
    loop {
        let after = keys.last().map(|key| key.fingerprint().to_owned());
        let more = host::keys_of_external_id(external_id, after.as_deref())?;
        if more.is_empty() {
            return Ok(keys);
        }
        keys.extend(more.into_iter().map(Key::of));
    }
}

/// Who a party of a state is: itself if it is named, else whoever has told this identity that the key is its own, which may be
/// this identity. `None` if nobody has.
///
/// # Errors
/// `IllegalArgument` for what is no key.
pub fn who_is(party: &AnyParty) -> Result<Option<Party>> {
    match &party.name {
        Some(name) => Ok(Some(Party::named(name.clone()))),
        None => Ok(host::party_of_key(party.owning_key.spki())?.map(|party| Party::named(party.name))),
    }
}

fn spki<K: HasKey>(keys: &[K]) -> Vec<&[u8]> {
    keys.iter().map(|key| key.key().spki()).collect()
}

impl Session {
    /// Asks the other side for a new key of its own, to be used in a transaction; it runs [`Session::provide_key`]. That it is
    /// the other side's is checked and remembered.
    ///
    /// # Errors
    /// A flow exception of type `ledger/rejected` if it is not; what the peer sends instead.
    pub fn request_key(&self) -> Result<Key> {
        Ok(Key::of(host::request_key(self.0)?))
    }

    /// The other side of [`Session::request_key`]: makes a new key, and gives it.
    ///
    /// # Errors
    /// What the peer sends instead of a request.
    pub fn provide_key(&self) -> Result<Key> {
        Ok(Key::of(host::provide_key(self.0)?))
    }

    /// As [`Session::request_key`], for what the other side knows by this external id; it runs [`Session::provide_key_for`] or
    /// [`Session::provide_key_as_asked`].
    ///
    /// # Errors
    /// As [`Session::request_key`]; `IllegalArgument` for what is no external id.
    pub fn request_key_for(&self, external_id: &str) -> Result<Key> {
        Ok(Key::of(host::request_key_for(self.0, external_id)?))
    }

    /// As [`Session::provide_key`], for this external id. Whoever asks for another one is refused.
    ///
    /// # Errors
    /// What the peer sends instead of such a request; `IllegalArgument` for what is no external id.
    pub fn provide_key_for(&self, external_id: &str) -> Result<Key> {
        Ok(Key::of(host::provide_key_for(self.0, Some(external_id))?.key))
    }

    /// As [`Session::provide_key`], for the external id that the other side asks for, if it asks for any; gives it, too. Who may
    /// have keys for what, the flow decides before: the peer may name anything.
    ///
    /// # Errors
    /// What the peer sends instead of a request.
    pub fn provide_key_as_asked(&self) -> Result<(Key, Option<String>)> {
        let provided = host::provide_key_for(self.0, None)?;
        Ok((Key::of(provided.key), provided.external_id))
    }

    /// Tells the other side, which runs [`Session::receive_keys`], that these keys of states are this identity's own.
    ///
    /// # Errors
    /// A flow exception of type `ledger/rejected` for a key that is not; `IllegalArgument` for more than 100.
    pub fn share_keys<K: HasKey>(&self, keys: &[K]) -> Result<()> {
        Ok(host::share_keys(self.0, &spki(keys))?)
    }

    /// Learns which keys are the other side's. That they are is checked and remembered.
    ///
    /// # Errors
    /// As [`Session::request_key`].
    pub fn receive_keys(&self) -> Result<Vec<Key>> {
        Ok(host::receive_keys(self.0)?.into_iter().map(Key::of).collect())
    }

    /// Signs a transaction that came with [`Session::receive_to_sign`] with these keys of the identity and with no others, and
    /// gives the signatures. Look at what it does with the states of each of them before you sign.
    ///
    /// # Errors
    /// `IllegalArgument` if one of them need not sign any more; a flow exception of type `ledger/rejected` if it is not this
    /// identity's own.
    pub fn sign_as<K: HasKey>(&self, transaction: &Transaction, keys: &[K]) -> Result<()> {
        Ok(host::return_signatures(self.0, transaction.bytes(), &spki(keys))?)
    }
}
