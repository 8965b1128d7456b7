//! The rules of recording and of locks, over the rows of any database. Those of selection and of a notary have files of
//! their own.

use std::collections::{BTreeMap, BTreeSet};

use maxhost_group_commit::Failure;
use maxhost_ledger::codec;
use maxhost_ledger::refused::Refused;
use maxhost_ledger::tx::{StateRef, TransactionSignature};
use maxhost_ledger::vault::locks::{NotAvailable, is_available};
use maxhost_ledger::vault::recording::{
    Known, StatesToRecord, ToRecord, TransactionEvent, TransactionRow, TransactionStatus, VaultChange, after,
    is_relevant, plan_recording,
};
use maxhost_model::{IdentityRow, SecureHash};

use super::op::{LedgerOp, LedgerReceipt, OutputState, Recording, Reservation, StateContent};
use super::rows::{FlowLease, LedgerRows, NewState, TransactionPut};
use super::{notary, selecting};
use crate::error::StoreError;
use crate::rules::Failed;

const SIGNATURES: &str = "signatures";

pub(crate) fn apply<R: LedgerRows>(
    rows: &mut R,
    identity: IdentityRow,
    op: &LedgerOp,
) -> Result<Option<LedgerReceipt>, Failed> {
    match op {
        LedgerOp::Record(recording) => record(rows, identity, recording).map(LedgerReceipt::Recorded).map(Some),
        LedgerOp::Settle { id, settlement } => {
            rows.set_settlement(identity, id, *settlement)?;
            Ok(None)
        }
        LedgerOp::Outcome { id, states, at } => {
            Ok(Some(LedgerReceipt::Outcome(notary::decided_so_far(rows, identity, id, states, *at)?)))
        }
        LedgerOp::Claim(claim) => {
            let selected = selecting::claim(rows, identity, claim)?;
            Ok(Some(LedgerReceipt::Claimed(selected)))
        }
        LedgerOp::Reserve(reservation) => Ok(Some(LedgerReceipt::Reserved(reserve(rows, identity, reservation)?))),
        LedgerOp::Renew { holder, until, now } => {
            rows.renew_leases(identity, holder, *until, *now)?;
            Ok(None)
        }
        LedgerOp::Release { holder, states } => {
            rows.release_leases(identity, holder, states.as_ref())?;
            Ok(None)
        }
        LedgerOp::Notarise(batch) => Ok(Some(LedgerReceipt::Notarised(notary::decide(rows, identity, batch)?))),
        LedgerOp::Attach(attachment) => {
            rows.add_attachment(identity, attachment)?;
            Ok(None)
        }
        LedgerOp::AddKey(known) => {
            rows.add_key(identity, known)?;
            Ok(None)
        }
        LedgerOp::AssignKey(assigned) => {
            rows.assign_key(identity, assigned)?;
            Ok(None)
        }
        LedgerOp::KeepParameters(parameters) => {
            rows.add_parameters(identity, parameters)?;
            Ok(None)
        }
        LedgerOp::Forget(ids) => {
            for id in ids {
                let found = rows.ledger_transaction(identity, id)?;
                if found.is_some_and(|found| found.status == TransactionStatus::Unverified) {
                    rows.remove_transaction(identity, id)?;
                }
            }
            Ok(None)
        }
    }
}

fn refused(refused: Refused) -> Failed {
    Failure::Unit(StoreError::Ledger(refused))
}

/// True if the transaction has just become part of the ledger.
fn record<R: LedgerRows>(rows: &mut R, identity: IdentityRow, recording: &Recording) -> Result<bool, Failed> {
    let given = codec::encode(SIGNATURES, &recording.signatures).ok();
    let before = match rows.ledger_transaction(identity, &recording.id)? {
        None => None,
        Some(stored) => {
            // Most often a transaction comes again with the signatures that it had.
            let signatures: Vec<TransactionSignature> = match given.as_ref() == Some(&stored.signatures) {
                true => recording.signatures.clone(),
                false => {
                    codec::decode(SIGNATURES, &stored.signatures).map_err(|error| broken(&recording.id, &error))?
                }
            };
            Some(TransactionRow { status: stored.status, signatures })
        }
    };
    let (new, status) = (before.is_none(), before.as_ref().map(|row| row.status));
    let (row, announced) = after(before, recording.event, &recording.signatures);
    let Some(row) = row else {
        if !new {
            rows.remove_transaction(identity, &recording.id)?;
            rows.clear_in_flight(identity, &recording.inputs, &recording.id)?;
        }
        return Ok(false);
    };
    if let Some(parameters) = &recording.parameters {
        rows.add_parameters(identity, parameters)?;
    }
    let parents: BTreeSet<SecureHash> = recording
        .inputs
        .iter()
        .chain(recording.references.iter().map(|(state, _)| state))
        .map(|state| state.tx)
        .collect();
    let signatures = match given.filter(|_| row.signatures == recording.signatures) {
        Some(given) => given,
        None => codec::encode(SIGNATURES, &row.signatures).map_err(refused)?,
    };
    let put = TransactionPut {
        id: &recording.id,
        status: row.status,
        signatures: &signatures,
        settlement: recording.settlement.filter(|_| row.status == TransactionStatus::InFlight),
        recorded: recording.at,
        kind: recording.kind,
        body: &recording.body,
        parents: &parents,
    };
    rows.put_transaction(identity, &put, new)?;
    match (recording.event, row.status) {
        (TransactionEvent::Finalised, _) => change_vault(rows, identity, recording)?,
        (TransactionEvent::SentToNotary, TransactionStatus::InFlight)
            if status != Some(TransactionStatus::InFlight) =>
        {
            rows.set_in_flight(identity, &recording.inputs, &recording.id)?;
        }
        _ => {}
    }
    Ok(announced)
}

fn broken(id: &SecureHash, error: &Refused) -> Failed {
    Failure::Unit(StoreError::Corrupt { table: "ledger_tx", key: format!("{id}: {error}") })
}

fn change_vault<R: LedgerRows>(rows: &mut R, identity: IdentityRow, recording: &Recording) -> Result<(), Failed> {
    let transaction = ToRecord {
        id: recording.id,
        inputs: recording.inputs.clone(),
        // Of which nothing is known, that cannot be kept.
        references: recording
            .references
            .iter()
            .filter(|(_, content)| content.is_some())
            .map(|(state, _)| *state)
            .collect(),
        outputs: recording.outputs.iter().map(|output| output.described.clone()).collect(),
    };
    // What is not one's own comes in only if all does, so nothing need be known of it.
    let comes_in = |output: &OutputState| match recording.what {
        StatesToRecord::None => false,
        StatesToRecord::OnlyRelevant => is_relevant(&output.described, |key| recording.own_keys.contains(key)),
        StatesToRecord::AllVisible => true,
    };
    let made = (0_u32..).zip(&recording.outputs).filter(|&(_, output)| comes_in(output));
    let made = made.map(|(index, _)| StateRef::new(recording.id, index));
    let named = transaction.inputs.iter().chain(&transaction.references).copied();
    let mut known: BTreeMap<StateRef, Known> = BTreeMap::new();
    for state in named.chain(made) {
        let found = rows.known_state(identity, &state)?;
        known.insert(state, found);
    }
    let change = plan_recording(
        &transaction,
        recording.what,
        |state| known.get(state).copied().unwrap_or_default(),
        |key| recording.own_keys.contains(key),
        recording.flow.is_some(),
    )
    .map_err(refused)?;
    write_change(rows, identity, recording, &change)
}

fn write_change<R: LedgerRows>(
    rows: &mut R,
    identity: IdentityRow,
    recording: &Recording,
    change: &VaultChange,
) -> Result<(), Failed> {
    let (id, at) = (&recording.id, recording.at);
    for state in &change.spent {
        rows.add_spent(identity, state, id)?;
    }
    if !change.is_news() {
        return Ok(());
    }
    let number = rows.add_change(identity, id, at)?;
    for state in &change.consumed {
        rows.consume_state(identity, state, id, at, number)?;
    }
    for produced in &change.produced {
        let Some(output) = recording.outputs.get(produced.reference.index as usize) else { continue };
        let lease = recording.flow.as_ref().filter(|_| produced.locked).map(FlowLease::from);
        let state = NewState {
            reference: produced.reference,
            content: &output.content,
            relevant: produced.relevant,
            consumed_by: produced.consumed_by,
            lease,
            recorded: at,
            change: number,
        };
        rows.add_state(identity, &state)?;
    }
    for (reference, consumed_by) in &change.referenced {
        let Some(content) = content_of(recording, reference) else { continue };
        let state = NewState {
            reference: *reference,
            content,
            relevant: false,
            consumed_by: *consumed_by,
            lease: None,
            recorded: at,
            change: number,
        };
        rows.add_state(identity, &state)?;
    }
    Ok(())
}

fn content_of<'a>(recording: &'a Recording, reference: &StateRef) -> Option<&'a StateContent> {
    recording.references.iter().find(|(state, _)| state == reference)?.1.as_ref()
}

fn reserve<R: LedgerRows>(
    rows: &mut R,
    identity: IdentityRow,
    reservation: &Reservation,
) -> Result<Result<(), NotAvailable>, Failed> {
    let holder = reservation.holding.holder.as_str();
    let mut missing = BTreeSet::new();
    for state in &reservation.states {
        match rows.lease(identity, state)? {
            Some(held) if is_available(held.as_ref(), holder, reservation.now) => {}
            _ => drop(missing.insert(*state)),
        }
    }
    if !missing.is_empty() {
        return Ok(Err(NotAvailable(missing)));
    }
    let lease = FlowLease::from(&reservation.holding);
    for state in &reservation.states {
        rows.set_lease(identity, state, &lease)?;
    }
    Ok(Ok(()))
}
