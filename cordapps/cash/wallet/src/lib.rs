//! What flows do with cash: selecting it, paying out of it, taking it, and naming parties as states do. For any CorDapp that pays
//! or is paid.
//!
//! [`Issuers`]: whether cash is of the party that it names. [`receive_cash`]: taking it. [`Proposal`]: what a peer proposes to
//! sign. [`spend`]: selecting it; [`spend_of_account`]: selecting that of a customer.

mod issuers;
mod proposal;
mod receiving;
mod selecting;

use cash_contract::{Cash, Command};
use maxhost_contract::{AnyParty, CommandSet, HasKey, Party as LedgerParty, State};
use maxhost_sdk::ledger::{Draft, StateAndRef, Transaction, fresh_key, fresh_key_for, key_of, notaries, our_key};
use maxhost_sdk::prelude::*;

pub use issuers::Issuers;
pub use proposal::Proposal;
pub use receiving::{finalise_cash, receive_cash, show_cash};
pub use selecting::{amount, in_cash, of_any_issuer, of_one_notary, spend, spend_of_account, spend_such};

/// The most that one amount of cash can be: 63 bits.
const MAX_QUANTITY: u64 = i64::MAX as u64;

/// What a flow ends with that has made a transaction.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// The id of the transaction.
    pub tx: String,
}

impl Done {
    /// This transaction was made.
    #[must_use]
    pub fn of(transaction: &Transaction) -> Done {
        Done { tx: transaction.id().to_owned() }
    }
}

/// An exception of this type.
pub fn thrown(kind: &str, message: &str) -> Error {
    FlowException::new(message).of_type(kind).into()
}

/// Whether an error is an exception of this type.
#[must_use]
pub fn is(error: &Error, kind: &str) -> bool {
    error.flow_exception().is_some_and(|thrown| thrown.is(kind))
}

/// An amount as a client gives it.
///
/// # Errors
/// `cash/quantity-invalid` unless it is above zero.
pub fn quantity(quantity: i64) -> Result<u64> {
    match u64::try_from(quantity) {
        Ok(quantity) if quantity > 0 && quantity <= MAX_QUANTITY => Ok(quantity),
        _ => Err(thrown("cash/quantity-invalid", "an amount of cash is above zero")),
    }
}

/// A party as a client names it: by its X.500 name, or a part that fits exactly one party of the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PartyName(pub String);

/// The party of a name, or of a part that fits exactly one.
///
/// # Errors
/// `cash/party-unknown`, `cash/party-ambiguous`.
pub fn find(PartyName(wanted): &PartyName) -> Result<Party> {
    if let Ok(Some(found)) = party(wanted) {
        return Ok(found);
    }
    let part = NamePart::new(wanted);
    let mut fits = parties(part.value, false)?;
    fits.retain(|party| part.fits(party.name()));
    match (fits.pop(), fits.is_empty()) {
        (Some(one), true) => Ok(one),
        (None, _) => Err(thrown("cash/party-unknown", &format!("no party of the network fits '{wanted}'"))),
        (Some(_), false) => Err(thrown("cash/party-ambiguous", &format!("several parties fit '{wanted}'"))),
    }
}

/// A part of an X.500 name as a client writes it: `Bob`, `O=Bob`, or `O=Bob, L=New York`.
struct NamePart<'a> {
    /// The longest of its values, to ask the network for: it looks at values, and not at the words before them.
    value: &'a str,
    /// All of it as names are written, in lower case.
    folded: String,
}

impl NamePart<'_> {
    fn new(wanted: &str) -> NamePart<'_> {
        let attributes = || wanted.split(',').map(str::trim);
        let values =
            attributes().map(|attribute| attribute.split_once('=').map_or(attribute, |(_, value)| value.trim()));
        NamePart {
            value: values.max_by_key(|value| value.len()).unwrap_or_default(),
            folded: attributes().collect::<Vec<_>>().join(", ").to_lowercase(),
        }
    }

    /// Whether a name has this part.
    fn fits(&self, name: &str) -> bool {
        name.to_lowercase().contains(&self.folded)
    }
}

/// The notary that is named, or the network's first.
///
/// # Errors
/// `cash/no-notary` if the network has none.
pub fn notary(named: Option<&PartyName>) -> Result<Party> {
    match named {
        Some(notary) => find(notary),
        None => notaries().into_iter().next().ok_or_else(|| thrown("cash/no-notary", "the network has no notary")),
    }
}

/// This identity as states name it.
#[must_use]
pub fn us_on_ledger() -> LedgerParty {
    LedgerParty { name: our_identity().name().to_owned(), owning_key: our_key().into() }
}

/// A party as states name it.
///
/// # Errors
/// The network has no such party.
pub fn on_ledger(party: &Party) -> Result<LedgerParty> {
    Ok(LedgerParty { name: party.name().to_owned(), owning_key: key_of(party)?.into() })
}

/// Adds a command of cash to a draft.
///
/// # Errors
/// It has no encoding, which is a defect.
pub fn command(draft: Draft, command: &Command, signers: impl IntoIterator<Item = Vec<u8>>) -> Result<Draft> {
    let value = command.encode().map_err(|error| Error::unexpected(error.to_string()))?;
    Ok(draft.command(Cash::CONTRACT, command.name(), value, signers))
}

/// What a payment makes of the cash that it consumes.
#[derive(Debug, Clone, Default)]
pub struct Payment {
    /// What the payee gets, by issuer.
    pub paid: Vec<Cash>,
    /// What is left to whoever pays.
    pub change: Vec<Cash>,
}

/// What is made of this cash if so much of it is paid to somebody: for each issuer what is paid, and what is left.
#[must_use]
pub fn payment(spent: &[StateAndRef<Cash>], to: &AnyParty, quantity: u64) -> Payment {
    let (mut left, mut payment) = (quantity, Payment::default());
    let mut issuers: Vec<&LedgerParty> = Vec::new();
    for cash in spent.iter().map(|state| &state.state) {
        if !issuers.contains(&&cash.issuer) {
            issuers.push(&cash.issuer);
        }
    }
    for issuer in issuers {
        let own: Vec<&Cash> = spent.iter().map(|state| &state.state).filter(|cash| cash.issuer == *issuer).collect();
        let have: u64 = own.iter().map(|cash| cash.quantity).sum();
        let paid = have.min(left);
        left -= paid;
        let Some(one) = own.first() else { continue };
        if paid > 0 {
            payment.paid.push(Cash { owner: to.clone(), quantity: paid, ..(*one).clone() });
        }
        if have > paid {
            payment.change.push(Cash { quantity: have - paid, ..(*one).clone() });
        }
    }
    payment
}

/// Adds amounts of cash to a draft as outputs.
///
/// # Errors
/// They have no encoding, which is a defect.
pub fn outputs(mut draft: Draft, cash: &[Cash]) -> Result<Draft> {
    for one in cash {
        draft = draft.output(Cash::CONTRACT, Cash::NAME, one)?;
    }
    Ok(draft)
}

/// Adds to a draft the command that moves this cash, signed by its owners.
///
/// # Errors
/// As [`command`].
pub fn moved(draft: Draft, spent: &[StateAndRef<Cash>]) -> Result<Draft> {
    command(draft, &Command::Move, spent.iter().map(|state| state.state.owner.key().spki().to_vec()))
}

/// As [`pay_from`], by somebody who wants to be named as little as the payee: what is left goes to a new key of his own.
///
/// # Errors
/// As [`command`].
pub fn pay_unnamed_from(draft: Draft, spent: &[StateAndRef<Cash>], to: &AnyParty, quantity: u64) -> Result<Draft> {
    pay_unnamed_for(draft, spent, to, quantity, None)
}

/// As [`pay_unnamed_from`], for a customer's account if one is named: what is left of his cash goes to a new key of the account.
///
/// # Errors
/// As [`command`]; `IllegalArgument` for what is no name of an account.
pub fn pay_unnamed_for(
    draft: Draft,
    spent: &[StateAndRef<Cash>],
    to: &AnyParty,
    quantity: u64,
    account: Option<&str>,
) -> Result<Draft> {
    let Payment { paid, mut change } = payment(spent, to, quantity);
    if !change.is_empty() {
        let key = match account {
            Some(account) => fresh_key_for(account)?,
            None => fresh_key()?,
        };
        change.iter_mut().for_each(|cash| cash.owner = key.party());
    }
    moved(outputs(outputs(draft, &paid)?, &change)?, spent)
}

/// Adds to a draft that consumes this cash what a payment makes: for each issuer so much to the payee, and what is left to
/// whoever paid.
///
/// # Errors
/// As [`command`].
pub fn pay_from(draft: Draft, spent: &[StateAndRef<Cash>], to: &AnyParty, quantity: u64) -> Result<Draft> {
    let Payment { paid, change } = payment(spent, to, quantity);
    moved(outputs(outputs(draft, &paid)?, &change)?, spent)
}

/// A draft that spends this cash and nothing else, and pays so much of it to somebody: see [`pay_from`].
///
/// # Errors
/// As [`command`].
pub fn payment_of(spent: &[StateAndRef<Cash>], to: &AnyParty, quantity: u64) -> Result<Draft> {
    pay_from(Draft::spending(spent), spent, to, quantity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_name_is_a_value_or_attributes_as_names_have_them() {
        let bob = "O=Bob, L=New York, C=US";
        for (wanted, value) in [
            ("Bob", "Bob"),
            (" bob ", "bob"),
            ("O=Bob", "Bob"),
            ("l=new york", "new york"),
            ("O=Bob,L=New York", "New York"),
            ("O=Bob,", "Bob"),
            ("York, C=US", "York"),
        ] {
            let part = NamePart::new(wanted);
            assert_eq!((part.value, part.fits(bob)), (value, true), "{wanted}");
        }
        for wanted in ["O=Bo, L=New York", "L=Bob", "Bobby", "O=Bob, C=US"] {
            assert!(!NamePart::new(wanted).fits(bob), "{wanted}");
        }
    }
}
