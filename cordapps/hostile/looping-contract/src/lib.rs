//! A contract that computes for as long as a state says: what the network's limit on computing is for. Beside it, states that
//! point to each other.
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

/// A state that points to others of its kind.
#[state(contract = "hostile", version = 1)]
pub struct Post {
    /// The same for all versions of the post.
    #[linear_id]
    pub id: LinearId,
    /// Whose it is.
    #[participant]
    pub whose: Party,
    /// Where it leads.
    pub to: Vec<Signpost>,
}

/// Where a post leads.
#[data]
pub enum Signpost {
    /// To the newest version of a post.
    Newest(LinearPointer<Post>),
    /// To this version of a post.
    Version(StaticPointer<Post>),
}

/// What can be done with work and with posts.
#[commands]
pub enum Command {
    /// It is computed.
    Compute,
    /// Posts are put up, changed or taken down.
    Put,
}

/// Why a transaction with work is refused.
#[faults]
pub enum Fault {
    /// Work is not taken back.
    Consumed,
    /// A post leads to itself.
    LeadsToItself,
}

/// The rules.
pub struct HostileContract;

#[contract(name = "hostile", states = [Work, Post], commands = Command, faults = Fault)]
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

    /// What a post leads to is there to be looked at.
    #[on(Command::Put)]
    fn put(tx: &Tx<'_>) -> Verdict {
        tx.no_outputs::<Work>()?;
        for post in tx.outputs::<Post>()? {
            tx.signed_by([&post.whose])?;
            for signpost in &post.to {
                let other = match signpost {
                    Signpost::Newest(pointer) => tx.resolve(pointer)?,
                    Signpost::Version(pointer) => tx.resolve(pointer)?,
                };
                ensure!(other.id != post.id, Fault::LeadsToItself);
            }
        }
        Ok(())
    }
}

contracts! { contracts: [HostileContract], code_version: 1 }
