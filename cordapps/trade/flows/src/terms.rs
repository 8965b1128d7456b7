//! What a seller signs, and what a buyer pays for.

use cash_contract::Cash;
use cash_wallet::{Proposal, thrown};
use maxhost_contract::{AnyParty, CommandSet, PublicKey};
use maxhost_sdk::ledger::StateAndRef;
use maxhost_sdk::prelude::*;
use trade_contract::{Asset, Command};

/// What a seller wants for an asset.
pub struct Price<'a> {
    /// How much.
    pub quantity: u64,
    /// Three capital letters.
    pub currency: &'a str,
    /// Whose cash is taken; anybody's whom the network knows if nobody is named.
    pub issuer: Option<&'a Party>,
    /// To whom it is paid.
    pub payee: &'a AnyParty,
}

/// The offered asset goes for its price, and nothing else of the seller's goes. One signature covers all assets of a key, so it is
/// this state that counts, and not one command. Gives the cash that is paid.
///
/// # Errors
/// `cash/unexpected-proposal`, `trade/price`, `trade/issuer`.
pub fn sold<'a>(
    proposal: &'a Proposal<Asset>,
    offered: &StateAndRef<Asset>,
    price: &Price<'a>,
    own_keys: &[&PublicKey],
) -> Result<Vec<&'a Cash>> {
    let [(reference, _)] = proposal.before.as_slice() else {
        let text = format!("{} assets would go, and one was offered", proposal.before.len());
        return Err(thrown("cash/unexpected-proposal", &text));
    };
    let moves = matches!(Command::decode(&proposal.command.name, &proposal.command.value), Ok(Command::Move));
    if !moves || reference.to_string() != offered.reference {
        return Err(thrown("cash/unexpected-proposal", "it is not the offered asset that would go"));
    }
    proposal.spends_nothing_of(own_keys)?;
    let paid: Vec<&Cash> = proposal.paid_to(&price.payee.owning_key, price.currency).collect();
    let sum: u128 = paid.iter().map(|cash| u128::from(cash.quantity)).sum();
    if sum != u128::from(price.quantity) {
        return Err(thrown("trade/price", &format!("{sum} are offered, not {}", price.quantity)));
    }
    if let Some(issuer) = price.issuer
        && let Some(other) = paid.iter().find(|cash| cash.issuer.name != issuer.name())
    {
        let text = format!("the price is to be paid in cash of {issuer}, and not of {}", other.issuer);
        return Err(thrown("trade/issuer", &text));
    }
    Ok(paid)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use cash_contract::Command as CashCommand;
    use maxhost_contract::{Hash, Party as LedgerParty, RawTransaction, StateRef};
    use maxhost_testkit::contract::{Committed, Draft, TestLedger};
    use trade_contract::Code;

    use super::*;

    struct World {
        ledger: TestLedger,
        seller: LedgerParty,
        buyer: LedgerParty,
        bank: LedgerParty,
        bonds: [Committed<Asset>; 2],
    }

    fn world() -> World {
        let mut ledger = TestLedger::native::<Code>();
        let [seller, buyer, bank] = ledger.parties(["Seller", "Buyer", "Bank"]);
        let bonds = [1, 2].map(|number: u8| {
            let (id, owner) = (ledger.linear_id(), (&seller).into());
            let state = Asset { id, name: format!("bond-{number}"), owner, issuer: bank.clone() };
            Committed { reference: StateRef { tx: Hash([number; 32]), index: 0 }, state }
        });
        World { ledger, seller, buyer, bank, bonds }
    }

    impl World {
        fn cash(&self, owner: &LedgerParty, quantity: u64) -> Committed<Cash> {
            let (currency, issuer) = ("GBP".to_owned(), self.bank.clone());
            let state = Cash { owner: owner.into(), quantity, currency, issuer };
            Committed { reference: StateRef { tx: Hash([6; 32]), index: 0 }, state }
        }

        fn sale(&self) -> Draft {
            let draft = self.ledger.draft().evolve(&self.bonds[0], |bond| bond.owner = (&self.buyer).into());
            let draft = draft.command(&Command::Move, [&self.seller]).input(&self.cash(&self.buyer, 500));
            draft.output(&self.cash(&self.seller, 500).state).command_to("cash", &CashCommand::Move, [&self.buyer])
        }

        /// Why the seller does not sign.
        fn refused(&self, draft: &Draft, issuer: Option<&Party>) -> Option<String> {
            let mut seen: Option<RawTransaction> = None;
            let _same = draft.fork().edit(|raw| seen = Some(raw.clone()));
            let payee: AnyParty = (&self.seller).into();
            let price = Price { quantity: 500, currency: "GBP", issuer, payee: &payee };
            let notary = Party::from_name("O=Notary, L=Zurich, C=CH");
            let (reference, state) = (self.bonds[0].reference.to_string(), self.bonds[0].state.clone());
            let offered = StateAndRef { reference, state, notary };
            let proposal = Proposal::read(&seen.unwrap());
            let sold = proposal.and_then(|proposal| {
                sold(&proposal, &offered, &price, &[&self.seller.owning_key]).map(|paid| assert_eq!(paid.len(), 1))
            });
            let error = sold.err()?;
            error.flow_exception()?.exception_type().map(str::to_owned)
        }
    }

    #[test]
    fn one_asset_goes_for_one_price() {
        let world = world();
        let sale = world.sale();
        assert_eq!(world.refused(&sale, None), None);
        let unexpected = Some("cash/unexpected-proposal");
        let two = sale.fork().evolve(&world.bonds[1], |bond| bond.owner = (&world.buyer).into());
        two.verifies();
        assert_eq!(world.refused(&two, None).as_deref(), unexpected);
        let other = sale.fork().edit(|raw| raw.inputs[0].reference = world.bonds[1].reference);
        assert_eq!(world.refused(&other, None).as_deref(), unexpected);
        let with_cash = sale.fork().input(&world.cash(&world.seller, 5));
        assert_eq!(world.refused(&with_cash, None).as_deref(), unexpected);
        let with_iou = sale.fork().edit(|raw| {
            let mut input = raw.inputs[0].clone();
            input.state.contract.name = "iou".to_owned();
            raw.inputs.push(input);
        });
        assert_eq!(world.refused(&with_iou, None).as_deref(), unexpected);
    }

    #[test]
    fn a_price_is_paid_in_full_and_in_the_cash_that_was_asked_for() {
        let world = world();
        let sale = world.sale();
        let edited = |change: fn(&mut Cash)| sale.fork().edit_output::<Cash>(1, change);
        for less in [edited(|cash| cash.quantity = 499), edited(|cash| cash.currency = "USD".to_owned())] {
            assert_eq!(world.refused(&less, None).as_deref(), Some("trade/price"));
        }
        let to_buyer = sale.fork().edit_output::<Cash>(1, |cash| cash.owner = (&world.buyer).into());
        assert_eq!(world.refused(&to_buyer, None).as_deref(), Some("trade/price"));
        // What is encumbered is no payment, and cash of another publisher's contract is none either.
        let bound = sale.fork().edit(|raw| raw.outputs[1].encumbrance = Some(0));
        let foreign = sale.fork().edit(|raw| raw.outputs[1].contract.publisher = None);
        for bad in [bound, foreign] {
            assert_eq!(world.refused(&bad, None).as_deref(), Some("cash/unexpected-proposal"));
        }
        let (bank, buyer) = (&world.bank, &world.buyer);
        let [bank, buyer] = [bank, buyer].map(|party| Party::from_name(party.name.as_str()));
        assert_eq!(world.refused(&sale, Some(&bank)), None);
        assert_eq!(world.refused(&sale, Some(&buyer)).as_deref(), Some("trade/issuer"));
    }
}
