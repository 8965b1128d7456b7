//! Recording with a choice: which states of a transaction come into the vault, and transactions for those whom they do not
//! concern, such as a supervisor.
//!
//! Each identity chooses for itself, in its own flow; what a peer would like decides nothing. States that are not the
//! identity's own are marked in its vault: [`Query`] finds them, and no selection or lock takes them.

use super::{Query, Transaction, numbers, text};
use crate::bindings::maxhost::cordapp::recording as wit;
use crate::error::Result;
use crate::host;
use crate::session::Session;

/// Which states of a transaction come into the vault. What is recorded again with a wider choice gets in what was left out;
/// nothing ever goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StatesToRecord {
    /// None: the transaction alone. What it consumes of the vault is consumed.
    None,
    /// Those that are the identity's own.
    #[default]
    OnlyRelevant,
    /// All of them.
    AllVisible,
}

impl From<StatesToRecord> for wit::StatesToRecord {
    fn from(states: StatesToRecord) -> wit::StatesToRecord {
        match states {
            StatesToRecord::None => wit::StatesToRecord::None,
            StatesToRecord::OnlyRelevant => wit::StatesToRecord::OnlyRelevant,
            StatesToRecord::AllVisible => wit::StatesToRecord::AllVisible,
        }
    }
}

impl Transaction {
    /// As [`Transaction::finalise`], with sessions of observers too, whom it does not concern: they get it as participants do,
    /// and each runs [`Session::receive_finality_with`].
    ///
    /// ```no_run
    /// # use maxhost_sdk::prelude::*;
    /// # use maxhost_sdk::ledger::Transaction;
    /// # fn report(paid: &Transaction, payee: Session, supervisor: Session) -> Result<()> {
    /// let paid = paid.finalise_observed(&[payee], &[supervisor])?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As there; `IllegalArgument` if a session is given twice, or a party whom it concerns has none of the first.
    pub fn finalise_observed(
        &self,
        participants: &[impl AsRef<Session>],
        observers: &[impl AsRef<Session>],
    ) -> Result<Transaction> {
        self.finalise_with(participants, observers, StatesToRecord::default())
    }

    /// As [`Transaction::finalise_observed`], with a choice of what comes into this identity's own vault.
    ///
    /// # Errors
    /// As there.
    pub fn finalise_with(
        &self,
        participants: &[impl AsRef<Session>],
        observers: &[impl AsRef<Session>],
        states: StatesToRecord,
    ) -> Result<Transaction> {
        let (participants, observers) = (numbers(participants), numbers(observers));
        Ok(Transaction(host::finalise_with(&self.0.bytes, &participants, &observers, states.into())?))
    }
}

impl Session {
    /// As [`Session::receive_finality`], with a choice of what comes into the vault.
    ///
    /// # Errors
    /// As there.
    pub fn receive_finality_with(&self, states: StatesToRecord) -> Result<Transaction> {
        Ok(Transaction(host::receive_finality_with(self.0, None, states.into())?))
    }

    /// As [`Session::receive_finality_with`], for the transaction of this id only.
    ///
    /// # Errors
    /// As there; `IllegalArgument` if another one comes.
    pub fn receive_finality_of_with(&self, id: &str, states: StatesToRecord) -> Result<Transaction> {
        Ok(Transaction(host::receive_finality_with(self.0, Some(id), states.into())?))
    }

    /// Gives a transaction, and what it comes from, to the other side, which runs [`Session::receive_transaction`] or
    /// [`Session::receive_unrecorded`].
    ///
    /// # Errors
    /// What the peer answers.
    pub fn send_transaction(&self, transaction: &Transaction) -> Result<()> {
        Ok(host::send_transaction(self.0, &transaction.0.bytes)?)
    }

    /// As [`Session::send_transaction`], for a transaction of the ledger, by its id.
    ///
    /// # Errors
    /// `IllegalArgument` for one that is not part of the ledger; what the peer answers.
    pub fn send_recorded(&self, id: &str) -> Result<()> {
        Ok(host::send_recorded(self.0, id)?)
    }

    /// Gets a transaction that has all signatures, verifies it with all that it comes from, and makes it part of the ledger.
    ///
    /// # Errors
    /// A flow exception of type `ledger/rejected`, or `ledger/missing-signatures` if it is not complete; what the peer sends
    /// instead.
    pub fn receive_transaction(&self, states: StatesToRecord) -> Result<Transaction> {
        Ok(Transaction(host::receive_transaction(self.0, states.into())?))
    }

    /// Gets a transaction that may lack signatures, and verifies what it says. It is not recorded; what it comes from is.
    ///
    /// # Errors
    /// As [`Session::receive_transaction`].
    pub fn receive_unrecorded(&self) -> Result<Transaction> {
        Ok(Transaction(host::receive_unrecorded(self.0)?))
    }
}

impl Query {
    /// Only states that are the identity's own.
    #[must_use]
    pub fn own(self) -> Query {
        self.and("relevant = true")
    }

    /// Only states that are not the identity's own.
    #[must_use]
    pub fn of_others(self) -> Query {
        self.and("relevant = false")
    }

    /// Only states that have a key which this identity has made for this external id ([`super::fresh_key_for`]).
    #[must_use]
    pub fn key_external_id(self, id: &str) -> Query {
        self.and(&format!("\"@key_external_id\" = {}", text(id)))
    }

    /// Only states with this external id.
    #[must_use]
    pub fn external_id(self, id: &str) -> Query {
        self.and(&format!("\"@external_id\" = {}", text(id)))
    }

    /// What is said so far, and this too.
    fn and(mut self, condition: &str) -> Query {
        self.more.push(condition.to_owned());
        self
    }
}
