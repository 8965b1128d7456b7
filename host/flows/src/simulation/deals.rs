//! What happens to money in one simulated world: who makes it, who pays whom, and who tries to pay twice.

use super::rng::Rng;
use super::{NOTARIES, OWNERS};

/// The currency of all money.
pub(super) const CURRENCY: &str = "GBP";
/// How long a crowd waits for all of its flows. Time passes in a world only when nothing else can happen, so however long
/// this is, they go on together. Milliseconds.
const CROWD_WAITS: u64 = 1_000;
/// The payments of one who pays again and again.
const PAYMENTS: usize = 3;

/// One thing that a flow does with money.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deal {
    /// The identity makes money that it owes, and keeps it or gives it to another.
    Issue { quantity: u64, to: usize, notary: usize },
    /// It pays another.
    Pay { to: usize, amount: Amount, manner: Manner },
    /// It takes back money that it owes and has.
    Exit { amount: Amount },
    /// It shows what it has to another, which records where that comes from.
    Show { to: usize, amount: Amount },
    /// It pays two others with the same money.
    PayTwice { to: [usize; 2], amount: Amount, at_once: bool },
    /// It does nothing for so long, milliseconds.
    Rest { time: u64 },
}

/// Money of one issuer that one notary keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amount {
    pub quantity: u64,
    pub issuer: usize,
    pub notary: usize,
}

/// How a payment is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// The payee learns of it when it is final.
    Plain,
    /// The payee signs it first.
    Signed,
    /// A third party looks on, and keeps all that it sees.
    Observed,
    /// Another flow of the payee waits until it is part of the ledger.
    Awaited,
}

impl Manner {
    fn random(rng: &Rng) -> Manner {
        match rng.below(6) {
            0 | 1 => Manner::Signed,
            2 => Manner::Awaited,
            3 => Manner::Observed,
            _ => Manner::Plain,
        }
    }
}

impl Deal {
    pub fn random(rng: &Rng, identity: usize, double_spends: bool) -> Deal {
        let amount = |issuer| Amount { quantity: rng.between(1, 60) as u64, issuer, notary: notary(rng) };
        let any = |rng: &Rng| amount(rng.below(OWNERS));
        match rng.below(14) {
            0..=3 => Deal::issue(rng, identity),
            4 => Deal::Exit { amount: amount(identity) },
            5 => Deal::Show { to: another(rng, identity), amount: any(rng) },
            6 | 7 if double_spends => {
                let to = [another(rng, identity), another(rng, identity)];
                Deal::PayTwice { to, amount: any(rng), at_once: rng.one_in(2) }
            }
            _ => {
                let manner = Manner::random(rng);
                Deal::Pay { to: another(rng, identity), amount: any(rng), manner }
            }
        }
    }

    /// What one of a crowd does: it makes money for itself, waits until all others of the crowd have too, and pays with it, always
    /// under the same notary.
    pub fn of_crowd(rng: &Rng, identity: usize, notary: usize) -> Vec<Deal> {
        let issue = Deal::Issue { quantity: rng.between(20, 100) as u64, to: identity, notary };
        let payment = |_| {
            let amount = Amount { quantity: rng.between(1, 20) as u64, issuer: identity, notary };
            match rng.one_in(2) {
                true => Deal::Exit { amount },
                false => Deal::Pay { to: another(rng, identity), amount, manner: Manner::Plain },
            }
        };
        [issue, Deal::Rest { time: CROWD_WAITS }].into_iter().chain((0..2).map(payment)).collect()
    }

    /// What one does who makes money for itself and pays others with it again and again, always under the same notary.
    pub fn of_payer(rng: &Rng, identity: usize, notary: usize) -> Vec<Deal> {
        let issue = Deal::Issue { quantity: rng.between(60, 100) as u64, to: identity, notary };
        let payment = |_| {
            let amount = Amount { quantity: rng.between(1, 20) as u64, issuer: identity, notary };
            Deal::Pay { to: another(rng, identity), amount, manner: Manner::random(rng) }
        };
        std::iter::once(issue).chain((0..PAYMENTS).map(payment)).collect()
    }

    /// Money is made.
    pub fn issue(rng: &Rng, identity: usize) -> Deal {
        let to = if rng.one_in(3) { another(rng, identity) } else { identity };
        Deal::Issue { quantity: rng.between(20, 100) as u64, to, notary: notary(rng) }
    }
}

pub(super) fn notary(rng: &Rng) -> usize {
    OWNERS + rng.below(NOTARIES)
}

/// Somebody else with money.
fn another(rng: &Rng, identity: usize) -> usize {
    (identity + rng.between(1, OWNERS - 1)) % OWNERS
}
