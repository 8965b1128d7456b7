//! Cash: a claim on an issuer for an amount of a currency, which its owner may pass on and the issuer take back.
#![no_std]

use maxhost_contract::prelude::*;

/// An amount that the issuer owes to the owner.
#[state(contract = "cash", version = 1)]
pub struct Cash {
    /// Who may spend it; may be anonymous.
    #[owner]
    pub owner: AnyParty,
    /// How much, in the smallest unit of the currency.
    #[quantity]
    pub quantity: u64,
    /// Three capital letters.
    #[token]
    pub currency: String,
    /// Who owes it. The contract knows the key only, by which it is issued and taken back; that the name is that party's is for
    /// those to find out who take the cash.
    #[issuer]
    pub issuer: Party,
}

/// What can be done with cash.
#[commands]
pub enum Command {
    /// The issuer makes it.
    Issue,
    /// Owners pass it on: nothing comes and nothing goes.
    Move,
    /// The issuer takes back so much of it.
    Exit {
        /// How much leaves the ledger.
        quantity: u64,
    },
}

/// Why a transaction with cash is refused.
#[faults]
pub enum Fault {
    /// An amount of cash is above zero and fits 63 bits.
    QuantityInvalid,
    /// A currency is three capital letters.
    CurrencyInvalid,
    /// What goes in is not what comes out: money would be made from nothing, or lost.
    NotBalanced,
    /// Cash comes out for which none of its issuer and currency went in.
    FromNothing,
    /// An exit takes back cash of one issuer in one currency.
    ExitMixed,
    /// The cash that leaves is not as much as the command says.
    ExitWrong,
}

/// The rules.
pub struct CashContract;

#[contract(name = "cash", states = [Cash], commands = Command, faults = Fault)]
impl CashContract {
    #[always]
    fn sound(tx: &Tx<'_>) -> Verdict {
        for cash in tx.outputs::<Cash>()? {
            ensure!(cash.quantity > 0 && i64::try_from(cash.quantity).is_ok(), Fault::QuantityInvalid);
            let letters = cash.currency.bytes().all(|letter| letter.is_ascii_uppercase());
            ensure!(letters && cash.currency.len() == 3, Fault::CurrencyInvalid);
        }
        Ok(())
    }

    #[on(Command::Issue)]
    fn issue(tx: &Tx<'_>) -> Verdict {
        tx.no_inputs::<Cash>()?;
        let made = tx.outputs::<Cash>()?;
        made.first()?;
        tx.signed_by(made.iter().map(|cash| &cash.issuer))
    }

    #[on(Command::Move)]
    fn pass_on(tx: &Tx<'_>) -> Verdict {
        let spent = tx.inputs::<Cash>()?;
        spent.first()?;
        for group in tx.groups(kind)? {
            ensure!(!group.inputs.is_empty(), Fault::FromNothing);
            ensure!(sum(&group.inputs) == sum(&group.outputs), Fault::NotBalanced);
        }
        tx.signed_by(spent.iter().map(|cash| &cash.owner))
    }

    #[on(Command::Exit)]
    fn exit(tx: &Tx<'_>, quantity: &u64) -> Verdict {
        let mut groups = tx.groups(kind)?.into_iter();
        let (Some(group), None) = (groups.next(), groups.next()) else { return Err(Fault::ExitMixed.into()) };
        let (spent, kept) = (sum(&group.inputs), sum(&group.outputs));
        ensure!(*quantity > 0 && spent.checked_sub(kept) == Some(u128::from(*quantity)), Fault::ExitWrong);
        tx.signed_by(group.inputs.iter().map(|cash| &cash.issuer))?;
        tx.signed_by(group.inputs.iter().map(|cash| &cash.owner))
    }
}

/// How much free cash of a currency a party has more after a transaction, whoever owes it: for contracts that cash goes with.
/// What is encumbered when it is made can only be spent together with something else, so it is not counted as paid.
///
/// # Errors
/// `tx/state-malformed`.
pub fn gained(tx: &Tx<'_>, party: &Party, currency: &str) -> Result<i128, Rejection> {
    let sum = |cash: &[Cash]| -> i128 {
        let own = cash.iter().filter(|cash| cash.owner.owning_key == party.owning_key && cash.currency == currency);
        own.map(|cash| i128::from(cash.quantity)).sum()
    };
    Ok(sum(&tx.free_outputs::<Cash>()?) - sum(&tx.inputs::<Cash>()?))
}

/// Cash of one issuer and one currency is one and the same. An issuer is a name and a key: those who use the cash compare the two
/// with the network map, so neither changes on the way.
fn kind(cash: &Cash) -> (PublicKey, String, String) {
    (cash.issuer.owning_key.clone(), cash.issuer.name.clone(), cash.currency.clone())
}

fn sum(cash: &[Cash]) -> u128 {
    cash.iter().map(|one| u128::from(one.quantity)).sum()
}

contracts! { contracts: [CashContract], code_version: 2 }
