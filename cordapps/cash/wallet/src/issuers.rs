//! Whose cash it is. A state names its issuer and has a key beside the name, and no contract can tell whether the two belong
//! together: whoever takes or spends cash asks the network map.

use std::collections::BTreeMap;

use cash_contract::Cash;
use maxhost_contract::Party as LedgerParty;
use maxhost_sdk::ledger::our_key;
use maxhost_sdk::prelude::*;

use crate::thrown;

/// What the network map says of issuers. It is asked once for each name.
#[derive(Debug)]
pub struct Issuers {
    /// The key of each name; none if the network has no such party.
    keys: BTreeMap<String, Option<Vec<u8>>>,
}

impl Default for Issuers {
    fn default() -> Issuers {
        Issuers::new()
    }
}

impl Issuers {
    /// Nobody was asked for yet; this identity knows itself.
    #[must_use]
    pub fn new() -> Issuers {
        Issuers { keys: [(our_identity().name().to_owned(), Some(our_key()))].into() }
    }

    /// Whether the network has a party of this name that signs with this key.
    ///
    /// # Errors
    /// What the host refuses.
    pub fn know(&mut self, party: &LedgerParty) -> Result<bool> {
        if !self.keys.contains_key(&party.name) {
            let key = match Party::from_name(party.name.as_str()).owning_key() {
                Ok(key) => key,
                // It is no name, or that of a party whose certificates are not valid.
                Err(Error::IllegalArgument(_)) => None,
                Err(other) => return Err(other),
            };
            self.keys.insert(party.name.clone(), key);
        }
        let key = self.keys.get(&party.name).and_then(Option::as_deref);
        Ok(key == Some(party.owning_key.spki()))
    }

    /// Refuses cash that is not of the party that it names.
    ///
    /// # Errors
    /// `cash/issuer-unknown`.
    pub fn check<'a>(&mut self, cash: impl IntoIterator<Item = &'a Cash>) -> Result<()> {
        for one in cash {
            if !self.know(&one.issuer)? {
                let text = format!("it is not {} who owes this cash: the key beside the name is another's", one.issuer);
                return Err(thrown("cash/issuer-unknown", &text));
            }
        }
        Ok(())
    }
}
