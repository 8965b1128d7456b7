//! A contract that computes for as long as a state says: what the network's limit on computing is for.
#![no_std]

use core::hint::black_box;

use maxhost_contract::prelude::*;

/// How long the contract computes.
#[state(contract = "hostile", version = 1)]
pub struct Work {
    /// Whose it is.
    #[participant]
    pub whose: Party,
    /// So many turns of a loop.
    pub turns: u64,
}

/// What can be done with work.
#[commands]
pub enum Command {
    /// It is computed.
    Compute,
}

/// Why a transaction with work is refused.
#[faults]
pub enum Fault {
    /// Work is not taken back.
    Consumed,
}

/// The rules.
pub struct HostileContract;

#[contract(name = "hostile", states = [Work], commands = Command, faults = Fault)]
impl HostileContract {
    #[on(Command::Compute)]
    fn compute(tx: &Tx<'_>) -> Verdict {
        ensure!(tx.inputs::<Work>()?.is_empty(), Fault::Consumed);
        let mut left = tx.outputs::<Work>()?.only()?.turns;
        while black_box(left) > 0 {
            left -= 1;
        }
        Ok(())
    }
}

contracts! { contracts: [HostileContract], code_version: 1 }
