//! An asset that is sold against cash: delivery and payment are one transaction, in which each contract judges its side.
#![no_std]

use maxhost_contract::prelude::*;

/// Something that has one owner at a time.
#[state(contract = "trade", version = 1)]
pub struct Asset {
    /// The same for ever.
    #[linear_id]
    pub id: LinearId,
    /// What people call it, for example `bond-1`.
    #[external_id]
    pub name: String,
    /// Who has it; may be anonymous.
    #[owner]
    pub owner: AnyParty,
    /// Who stands behind it.
    #[participant]
    pub issuer: Party,
}

/// What can be done with an asset.
#[commands]
pub enum Command {
    /// The issuer makes it, as its first owner.
    Issue,
    /// The owner passes it on.
    Move,
}

/// Why a transaction with assets is refused.
#[faults]
pub enum Fault {
    /// The name of an asset has 1 to 64 characters.
    NameInvalid,
    /// The first owner of an asset is its issuer.
    NotIssuers,
    /// The asset stays where it is.
    NotMoved,
}

/// The rules.
pub struct TradeContract;

#[contract(name = "trade", states = [Asset], commands = Command, faults = Fault)]
impl TradeContract {
    #[on(Command::Issue)]
    fn issue(tx: &Tx<'_>) -> Verdict {
        tx.no_inputs::<Asset>()?;
        let asset = tx.outputs::<Asset>()?.only()?;
        ensure!((1..=64).contains(&asset.name.chars().count()), Fault::NameInvalid);
        ensure!(asset.owner.owning_key == asset.issuer.owning_key, Fault::NotIssuers);
        tx.signed_by([&asset.issuer])
    }

    #[on(Command::Move)]
    fn pass_on(tx: &Tx<'_>) -> Verdict {
        for (old, new) in tx.evolved::<Asset>()?.into_vec() {
            tx.same_except(&old, &new, &[Asset::OWNER])?;
            ensure!(new.owner != old.owner, Fault::NotMoved);
            tx.signed_by([&old.owner])?;
        }
        tx.inputs::<Asset>()?.first().map(drop)
    }
}

contracts! { contracts: [TradeContract], code_version: 1 }
