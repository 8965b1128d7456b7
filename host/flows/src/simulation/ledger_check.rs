//! What must hold of the ledgers of a world in which nothing happens any more.

use std::collections::BTreeMap;

use maxhost_ledger::codec;
use maxhost_ledger::notary::Outcome;
use maxhost_ledger::tx::{Core, StateRef, TransactionState, WireTransaction};
use maxhost_ledger::vault::recording::TransactionStatus;
use maxhost_model::{FlowRow, IdentityRow, SecureHash};

use super::audit::Audit;
use super::ledger_tables::{LedgerTables, rows_of};
use super::wallet::Cash;
use super::{OWNERS, PARTIES};
use crate::calls::kind_of;

/// Money of one issuer that one notary keeps.
type Kind = (String, String);

/// The ledgers of all identities together.
struct Ledgers<'a> {
    tables: &'a LedgerTables,
    /// Every transaction that is part of anybody's ledger.
    verified: BTreeMap<SecureHash, WireTransaction>,
    /// What has consumed which state.
    consumed: BTreeMap<StateRef, SecureHash>,
    /// Whether flows were killed.
    kills: bool,
}

/// Looks over all ledgers; `kills`: flows of this world were killed.
///
/// # Errors
/// The first promise that is broken, in words.
pub(super) fn check(tables: &LedgerTables, audit: &Audit, kills: bool) -> Result<(), String> {
    if let Some(wrong) = &tables.wrong {
        return Err(wrong.clone());
    }
    let ledgers = Ledgers::read(tables, kills)?;
    ledgers.are_settled(audit)?;
    ledgers.are_notarised(audit)?;
    ledgers.have_vaults()?;
    ledgers.balance()
}

/// Whether these transactions are part of the ledger of an identity.
///
/// # Errors
/// The first that is not.
pub(super) fn has_all(
    tables: &LedgerTables,
    identity: IdentityRow,
    flow: FlowRow,
    ids: &[String],
) -> Result<(), String> {
    for id in ids {
        let row = id.parse().ok().and_then(|id| tables.transactions.rows.get(&(identity, id)));
        if row.is_none_or(|row| row.status != TransactionStatus::Verified) {
            let status = row.map(|row| row.status);
            return Err(format!("flow {} has made {id} final, and in its ledger it is {status:?}", flow.0));
        }
    }
    Ok(())
}

fn identity(index: usize) -> IdentityRow {
    IdentityRow(index as i64 + 1)
}

fn cash(state: &TransactionState) -> Cash {
    Cash::decode(state.data.bytes())
}

impl Ledgers<'_> {
    /// One id has one content, and a state one consumer, whoever tells.
    fn read(tables: &LedgerTables, kills: bool) -> Result<Ledgers<'_>, String> {
        let (mut verified, mut consumed) = (BTreeMap::new(), BTreeMap::new());
        for ((owner, id), row) in &tables.transactions.rows {
            if row.status != TransactionStatus::Verified {
                continue;
            }
            let Ok(Core::Wire(wire)) = Core::decode(kind_of(row.kind), &row.body) else {
                return Err(format!("{} has {id}, which cannot be read", owner.0));
            };
            for input in &wire.contents().inputs {
                let by = *consumed.entry(*input).or_insert(*id);
                if by != *id {
                    return Err(format!("{input} is consumed by {by}, and by {id} in the ledger of {}", owner.0));
                }
            }
            verified.insert(*id, (*wire).clone());
        }
        Ok(Ledgers { tables, verified, consumed, kills })
    }

    /// Nothing is in flight, and nobody holds anything.
    fn are_settled(&self, audit: &Audit) -> Result<(), String> {
        for ((owner, id), row) in &self.tables.transactions.rows {
            if row.status == TransactionStatus::InFlight {
                return Err(format!("{id} stays in flight at {}, to be settled by {:?}", owner.0, row.settlement));
            }
        }
        for ((owner, reference), state) in &self.tables.states.rows {
            if let Some(held) = &state.lease {
                let end = audit.ended.get(&held.flow);
                return Err(format!("{reference} of {} is still held by flow {} ({end:?})", owner.0, held.flow.0));
            }
            if let Some(by) = state.in_flight.first() {
                return Err(format!("{reference} of {} is still an input of {by}, in flight", owner.0));
            }
        }
        Ok(())
    }

    /// What a notary has committed is part of the ledger of all who took part, and of whoever owns what it made; and what
    /// needs a notary is in nobody's ledger unless one has committed it.
    fn are_notarised(&self, audit: &Audit) -> Result<(), String> {
        let status = |owner, id| self.tables.transactions.rows.get(&(owner, id)).map(|row| row.status);
        let is_verified = |owner, id| status(owner, id) == Some(TransactionStatus::Verified);
        for ((notary, id), outcome) in &self.tables.decided.rows {
            if !matches!(outcome, Outcome::Committed(_)) {
                continue;
            }
            let Some(wire) = self.verified.get(id) else {
                return Err(format!("{id} is notarised by {}, and lost", notary.0));
            };
            let lost = audit.took_part.iter().find(|(owner, of)| of == id && !is_verified(*owner, *id));
            if let Some((owner, _)) = lost {
                return Err(format!("{id} is notarised, and {} has it as {:?}", owner.0, status(*owner, *id)));
            }
            for output in &wire.contents().outputs {
                let owner = cash(output).owner().map(identity).ok_or("money of nobody")?;
                if !is_verified(owner, *id) {
                    return Err(format!("{id} pays {}, who has it as {:?}", owner.0, status(owner, *id)));
                }
            }
        }
        for (id, wire) in self.verified.iter().filter(|(_, wire)| wire.needs_notary()) {
            let notary = wire.contents().notary.as_ref().map(|notary| notary.name.to_string());
            let place = PARTIES.iter().position(|name| notary.as_deref() == Some(*name)).ok_or("no such notary")?;
            let decided = self.tables.decided.rows.get(&(identity(place), *id));
            if !matches!(decided, Some(Outcome::Committed(_))) {
                return Err(format!("{id} is in a ledger, and its notary has decided {decided:?}"));
            }
        }
        Ok(())
    }

    /// A vault has all that its identity owns, once, consumed if it is; and nothing of anybody else as its own.
    fn have_vaults(&self) -> Result<(), String> {
        for (id, wire) in &self.verified {
            for (index, output) in (0_u32..).zip(&wire.contents().outputs) {
                let reference = StateRef::new(*id, index);
                let owner = cash(output).owner().map(identity).ok_or("money of nobody")?;
                if self.was_not_given(wire, owner) {
                    continue;
                }
                let Some(state) = self.tables.states.rows.get(&(owner, reference)) else {
                    return Err(format!("{reference} is missing in the vault of {}", owner.0));
                };
                let consumer = self.consumed.get(&reference).copied();
                if !state.relevant || state.consumed_by != consumer {
                    let seen = state.consumed_by;
                    return Err(format!("{reference} of {} is consumed by {consumer:?}, not {seen:?}", owner.0));
                }
            }
        }
        Ok(())
    }

    /// What needs no notary is final as soon as whoever makes it has recorded it. If its flow is killed then, nobody else ever
    /// gets it.
    fn was_not_given(&self, wire: &WireTransaction, owner: IdentityRow) -> bool {
        self.kills && !wire.needs_notary() && !self.tables.transactions.rows.contains_key(&(owner, wire.id()))
    }

    /// Money is made by issues and lost by exits, and by nothing else.
    fn balance(&self) -> Result<(), String> {
        let mut expected: BTreeMap<Kind, i128> = BTreeMap::new();
        for wire in self.verified.values() {
            let contents = wire.contents();
            let Some(command) = contents.commands.first() else { continue };
            let is_given = |money: &Cash| money.owner().is_some_and(|owner| !self.was_not_given(wire, identity(owner)));
            let given = contents.outputs.iter().map(cash).filter(is_given);
            let made: i128 = given.map(|money| i128::from(money.quantity)).sum();
            let kind = |state: &TransactionState| (cash(state).issuer(), state.notary.name.to_string());
            match command.value.name.as_str() {
                "Issue" => *expected.entry(kind(&contents.outputs[0])).or_default() += made,
                "Exit" => {
                    let spent: Vec<TransactionState> =
                        contents.inputs.iter().map(|input| self.made(input)).collect::<Result<_, _>>()?;
                    let lost: i128 = spent.iter().map(|state| i128::from(cash(state).quantity)).sum();
                    *expected.entry(kind(&spent[0])).or_default() -= lost - made;
                }
                _ => {}
            }
        }
        let mut found: BTreeMap<Kind, i128> = BTreeMap::new();
        for owner in (0..OWNERS).map(identity) {
            for (_, state) in rows_of(&self.tables.states, owner) {
                if state.relevant && state.consumed_by.is_none() {
                    let kept: TransactionState =
                        codec::decode("state", &state.content.state).map_err(|error| error.to_string())?;
                    let money = cash(&kept);
                    *found.entry((money.issuer(), kept.notary.name.to_string())).or_default() +=
                        i128::from(money.quantity);
                }
            }
        }
        expected.retain(|_, quantity| *quantity != 0);
        match expected == found {
            true => Ok(()),
            false => Err(format!("the vaults have {found:?}, and issued and not taken back is {expected:?}")),
        }
    }

    fn made(&self, reference: &StateRef) -> Result<TransactionState, String> {
        let wire = self.verified.get(&reference.tx).ok_or_else(|| format!("nobody knows what made {reference}"))?;
        let output = wire.contents().outputs.get(reference.index as usize);
        output.cloned().ok_or_else(|| format!("there is no {reference}"))
    }
}
