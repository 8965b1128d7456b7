//! Cash that changes hands: whoever gets it looks at it before it becomes part of the ledger. The payer shows the transaction, and
//! the payee takes the transaction of that id and no other.

use std::fmt;

use cash_contract::Cash;
use maxhost_contract::State;
use maxhost_ledger::tx::{Core, SignedTransaction};
use maxhost_sdk::ledger::Transaction;
use maxhost_sdk::prelude::*;
use serde::{Deserializer, Serializer, de};

use crate::issuers::Issuers;
use crate::thrown;

/// The bytes in which a transaction travels. In messages of flows bytes would have a form for people, which is twice as long.
struct Shown(Vec<u8>);

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Shown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Shown, D::Error> {
        struct Bytes;

        impl de::Visitor<'_> for Bytes {
            type Value = Shown;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a transaction")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> std::result::Result<Shown, E> {
                Ok(Shown(bytes.to_vec()))
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> std::result::Result<Shown, E> {
                Ok(Shown(bytes))
            }
        }

        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// Shows a transaction that is about to be finalised to somebody who runs [`receive_cash`].
///
/// # Errors
/// Those of [`Session::send`].
pub fn show_cash(session: &Session, transaction: &Transaction) -> Result<()> {
    session.send(&Shown(transaction.bytes().to_vec()))
}

/// Has a transaction with cash recorded by those who get it: each is shown it first, and runs [`receive_cash`].
///
/// # Errors
/// Those of [`Transaction::finalise`]; what the others refuse.
pub fn finalise_cash(transaction: &Transaction, sessions: &[Session]) -> Result<Transaction> {
    for session in sessions {
        show_cash(session, transaction)?;
    }
    transaction.finalise(sessions)
}

/// The other side of [`finalise_cash`]: takes a transaction, unless cash in it is not of the party that it names as its issuer.
///
/// # Errors
/// `cash/issuer-unknown`, `cash/unexpected-proposal`; those of [`Session::receive_finality_of`].
pub fn receive_cash(session: &Session) -> Result<Transaction> {
    let Shown(bytes) = session.receive()?;
    let unreadable = |error: &dyn fmt::Display| thrown("cash/unexpected-proposal", &format!("what is paid: {error}"));
    let shown = SignedTransaction::decode(&bytes).map_err(|refused| unreadable(&refused))?;
    let Core::Wire(wire) = shown.core() else { return Err(unreadable(&"it is no ordinary transaction")) };
    let outputs = wire.contents().outputs.iter();
    let cash = outputs.filter(|output| output.contract.name.as_str() == Cash::CONTRACT);
    let cash = cash.map(|output| maxhost_contract::decode::<Cash>(output.data.bytes()));
    let cash = cash.collect::<std::result::Result<Vec<Cash>, _>>().map_err(|error| unreadable(&error))?;
    Issuers::new().check(&cash)?;
    session.receive_finality_of(&shown.id().to_string())
}
