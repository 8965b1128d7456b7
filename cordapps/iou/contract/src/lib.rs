//! A debt: the borrower owes the lender, who may pass the claim on; it is settled in cash.
#![no_std]

use cash_contract::gained;
use maxhost_contract::prelude::*;

/// What the borrower owes the lender.
#[state(contract = "iou", version = 1)]
pub struct Iou {
    /// The same for the whole life of the debt.
    #[linear_id]
    pub id: LinearId,
    /// Who is owed.
    #[participant]
    pub lender: Party,
    /// Who owes.
    #[participant]
    pub borrower: Party,
    /// How much was lent, in the smallest unit of the currency.
    #[query]
    pub quantity: u64,
    /// Three capital letters.
    pub currency: String,
    /// How much of it has been paid back.
    pub paid: u64,
    /// When all of it should be.
    pub due: Option<Timestamp>,
}

/// What can be done with a debt.
#[commands]
pub enum Command {
    /// Lender and borrower agree on it.
    Issue,
    /// The lender passes the claim on.
    Transfer,
    /// The borrower pays so much, in cash, in the same transaction.
    Settle {
        /// How much.
        quantity: u64,
    },
}

/// Why a transaction with debts is refused.
#[faults]
pub enum Fault {
    /// A debt is above zero and fits 63 bits.
    QuantityInvalid,
    /// Something is paid already when the debt is made.
    PaidAlready,
    /// Nobody owes to himself.
    OwedToOneself,
    /// The claim goes to whoever has it.
    NotTransferred,
    /// Nothing is paid.
    NothingPaid,
    /// More is paid than is owed.
    OverPaid,
    /// What is left of the debt is not what was owed less what is paid.
    WrongRest,
    /// The lender does not get as much free cash of the currency in this transaction as the command says.
    CashMissing,
}

/// The rules.
pub struct IouContract;

#[contract(name = "iou", states = [Iou], commands = Command, faults = Fault)]
impl IouContract {
    #[on(Command::Issue)]
    fn issue(tx: &Tx<'_>) -> Verdict {
        tx.no_inputs::<Iou>()?;
        let iou = tx.outputs::<Iou>()?.only()?;
        ensure!(iou.quantity > 0 && i64::try_from(iou.quantity).is_ok(), Fault::QuantityInvalid);
        ensure!(iou.paid == 0, Fault::PaidAlready);
        ensure!(iou.lender != iou.borrower, Fault::OwedToOneself);
        tx.signed_by([&iou.lender, &iou.borrower])
    }

    #[on(Command::Transfer)]
    fn transfer(tx: &Tx<'_>) -> Verdict {
        let (old, new) = tx.evolved::<Iou>()?.only()?;
        tx.same_except(&old, &new, &[Iou::LENDER])?;
        ensure!(new.lender != old.lender, Fault::NotTransferred);
        ensure!(new.lender != new.borrower, Fault::OwedToOneself);
        tx.signed_by([&old.lender, &new.lender])
    }

    /// The lender signs too: whose cash is as good as money is for him to say.
    #[on(Command::Settle)]
    fn settle(tx: &Tx<'_>, quantity: &u64) -> Verdict {
        let old = tx.inputs::<Iou>()?.only()?;
        let owed = old.quantity - old.paid;
        ensure!(*quantity > 0, Fault::NothingPaid);
        ensure!(*quantity <= owed, Fault::OverPaid);
        let left = tx.outputs::<Iou>()?;
        if *quantity == owed {
            ensure!(left.is_empty(), Fault::WrongRest);
        } else {
            let new = left.only()?;
            tx.same_except(&old, &new, &[Iou::PAID])?;
            ensure!(new.paid == old.paid + *quantity, Fault::WrongRest);
        }
        let received = gained(tx, &old.lender, &old.currency)?;
        ensure!(received == i128::from(*quantity), Fault::CashMissing);
        tx.signed_by([&old.borrower, &old.lender])
    }
}

contracts! { contracts: [IouContract], code_version: 2 }
