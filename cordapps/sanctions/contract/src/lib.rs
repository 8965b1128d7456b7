//! Payments that follow a list of sanctions: one party keeps the list, and everybody else only looks at it.
#![no_std]

use cash_contract::gained;
use maxhost_contract::prelude::*;

/// The most names on one list.
pub const MOST_NAMES: usize = 1_000;

/// Those who may neither pay nor be paid.
#[state(contract = "sanctions", version = 1)]
pub struct SanctionsList {
    /// The same for all versions of the list.
    #[linear_id]
    pub id: LinearId,
    /// Who keeps it.
    #[participant]
    pub authority: Party,
    /// X.500 names in canonical form.
    pub names: Vec<String>,
}

/// A payment that was made by a list: it goes with the cash in one transaction, and stays as its proof.
#[state(contract = "sanctions", version = 1)]
pub struct Receipt {
    /// Who pays.
    #[participant]
    pub payer: Party,
    /// Who is paid.
    #[participant]
    pub payee: Party,
    /// How much, in the smallest unit of the currency.
    #[query]
    pub quantity: u64,
    /// Three capital letters.
    pub currency: String,
    /// Whose list it is.
    pub authority: Party,
}

/// What can be done.
#[commands]
pub enum Command {
    /// The authority makes a list.
    Publish,
    /// The authority changes its list.
    Update,
    /// Somebody pays cash in the same transaction, with the list as a reference.
    Pay,
}

/// Why a transaction is refused.
#[faults]
pub enum Fault {
    /// There are more names on a list than 1,000.
    TooManyNames,
    /// The list is another authority's.
    OtherAuthority,
    /// Payer or payee is on the list.
    Sanctioned,
    /// Nobody pays himself.
    PaidToOneself,
    /// The payee does not get as much cash of the currency in this transaction as the receipt says.
    CashMissing,
}

/// The rules.
pub struct SanctionsContract;

#[contract(name = "sanctions", states = [SanctionsList, Receipt], commands = Command, faults = Fault)]
impl SanctionsContract {
    /// A receipt is for ever.
    #[always]
    fn receipts_stay(tx: &Tx<'_>) -> Verdict {
        tx.no_inputs::<Receipt>()
    }

    #[on(Command::Publish)]
    fn publish(tx: &Tx<'_>) -> Verdict {
        tx.no_outputs::<Receipt>()?;
        tx.no_inputs::<SanctionsList>()?;
        let list = tx.outputs::<SanctionsList>()?.only()?;
        ensure!(list.names.len() <= MOST_NAMES, Fault::TooManyNames);
        tx.signed_by([&list.authority])
    }

    #[on(Command::Update)]
    fn update(tx: &Tx<'_>) -> Verdict {
        tx.no_outputs::<Receipt>()?;
        let (old, new) = tx.evolved::<SanctionsList>()?.only()?;
        tx.same_except(&old, &new, &[SanctionsList::NAMES])?;
        ensure!(new.names.len() <= MOST_NAMES, Fault::TooManyNames);
        tx.signed_by([&old.authority])
    }

    #[on(Command::Pay)]
    fn pay(tx: &Tx<'_>) -> Verdict {
        tx.no_inputs::<SanctionsList>()?;
        tx.no_outputs::<SanctionsList>()?;
        let list = tx.references::<SanctionsList>()?.only()?;
        let receipt = tx.outputs::<Receipt>()?.only()?;
        ensure!(list.authority == receipt.authority, Fault::OtherAuthority);
        ensure!(receipt.payer != receipt.payee, Fault::PaidToOneself);
        let is_on = |party: &Party| list.names.contains(&party.name);
        ensure!(!is_on(&receipt.payer) && !is_on(&receipt.payee), Fault::Sanctioned);
        let paid = gained(tx, &receipt.payee, &receipt.currency)?;
        ensure!(paid == i128::from(receipt.quantity) && paid > 0, Fault::CashMissing);
        tx.signed_by([&receipt.payer])
    }
}

contracts! { contracts: [SanctionsContract], code_version: 2 }
