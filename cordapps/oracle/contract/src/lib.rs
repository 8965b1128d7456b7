//! Values that an oracle publishes, and payments that depend on one: the oracle signs for the value and sees nothing else.
#![no_std]

use cash_contract::gained;
use maxhost_contract::prelude::*;

/// Values are whole numbers of millionths: 52,500 is 5.25 %.
pub const ONE: u64 = 1_000_000;
/// The longest name of a value, and the longest date, in characters.
pub const LONGEST: usize = 64;

/// A value that an oracle publishes, for ever.
#[state(contract = "oracle", version = 1)]
pub struct Fact {
    /// Who says so.
    #[participant]
    pub oracle: Party,
    /// Of what it is the value.
    #[query]
    pub name: String,
    /// Of which day, as the oracle writes it.
    pub date: String,
    /// In millionths.
    #[query]
    pub value: u64,
}

/// Interest that was paid: it goes with the cash in one transaction, and stays as its proof.
#[state(contract = "oracle", version = 1)]
pub struct Payment {
    /// Who pays.
    #[participant]
    pub payer: Party,
    /// Who is paid.
    #[participant]
    pub payee: Party,
    /// On how much, in the smallest unit of the currency.
    #[query]
    pub notional: u64,
    /// Three capital letters.
    pub currency: String,
    /// Whose value decides; it does not take part.
    pub oracle: Party,
    /// Of what.
    pub name: String,
    /// Of which day.
    pub date: String,
    /// In millionths.
    pub value: u64,
}

impl Payment {
    /// How much is paid: the part of the notional that the value says, without fractions.
    #[must_use]
    pub fn quantity(&self) -> u128 {
        u128::from(self.notional) * u128::from(self.value) / u128::from(ONE)
    }
}

/// What can be done.
#[commands]
pub enum Command {
    /// An oracle publishes a value.
    Publish,
    /// An oracle says that this is the value.
    Fix {
        /// Of what.
        name: String,
        /// Of which day.
        date: String,
        /// In millionths.
        value: u64,
    },
    /// Somebody pays cash in the same transaction, as much as a fix says.
    Pay,
}

/// Why a transaction is refused.
#[faults]
pub enum Fault {
    /// A name or a date is empty, or longer than 64 characters.
    TextInvalid,
    /// The value that the oracle signs for is another than that of the payment.
    OtherValue,
    /// A payment needs both commands, `Fix` and `Pay`.
    CommandMissing,
    /// Nobody pays himself.
    PaidToOneself,
    /// The payee does not get as much cash of the currency in this transaction as notional and value say.
    CashMissing,
}

/// The rules.
pub struct OracleContract;

#[contract(name = "oracle", states = [Fact, Payment], commands = Command, faults = Fault)]
impl OracleContract {
    /// What was said and what was paid is for ever, and a payment has an oracle's word.
    #[always]
    fn sound(tx: &Tx<'_>) -> Verdict {
        tx.no_inputs::<Fact>()?;
        tx.no_inputs::<Payment>()?;
        let has = |name: &str| tx.own_commands().any(|one| one.command.name == name);
        let pays = tx.outputs::<Payment>()?.first().is_ok();
        ensure!(!pays || has("Fix") && has("Pay"), Fault::CommandMissing);
        Ok(())
    }

    #[on(Command::Publish)]
    fn publish(tx: &Tx<'_>) -> Verdict {
        tx.no_outputs::<Payment>()?;
        let fact = tx.outputs::<Fact>()?.only()?;
        let is_sound = |text: &str| (1..=LONGEST).contains(&text.chars().count());
        ensure!(is_sound(&fact.name) && is_sound(&fact.date), Fault::TextInvalid);
        tx.signed_by([&fact.oracle])
    }

    #[on(Command::Fix)]
    fn fix(tx: &Tx<'_>, name: &String, date: &String, value: &u64) -> Verdict {
        tx.no_outputs::<Fact>()?;
        let payment = tx.outputs::<Payment>()?.only()?;
        ensure!(payment.name == *name && payment.date == *date && payment.value == *value, Fault::OtherValue);
        tx.signed_by([&payment.oracle])
    }

    #[on(Command::Pay)]
    fn pay(tx: &Tx<'_>) -> Verdict {
        tx.no_outputs::<Fact>()?;
        let payment = tx.outputs::<Payment>()?.only()?;
        ensure!(payment.payer != payment.payee, Fault::PaidToOneself);
        let paid = u128::try_from(gained(tx, &payment.payee, &payment.currency)?);
        ensure!(paid.is_ok_and(|paid| paid > 0 && paid == payment.quantity()), Fault::CashMissing);
        tx.signed_by([&payment.payer])
    }
}

contracts! { contracts: [OracleContract], code_version: 2 }
