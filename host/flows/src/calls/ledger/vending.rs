//! Giving a transaction and what it comes from.
//!
//! Whoever gives answers only for ancestors of what it gave on the session, and for attachments and network parameters of these, and says the same of
//! what it does not have and of what it will not give. What goes into the journal names what was given and does not repeat it.

use std::collections::BTreeSet;

use maxhost_ledger::Result as LedgerResult;
use maxhost_ledger::vault::recording::TransactionStatus;
use maxhost_model::{FlowError, SecureHash};
use maxhost_sandbox::CallResult;
use maxhost_store::ledger::LedgerTransaction;
use serde::{Deserialize, Serialize};

use super::environment::LedgerEnvironment;
use super::pieces::Asked;
use super::protocol::{Encoded, FromVendor, ToVendor, Wanted};
use super::refusal;
use super::transactions::{Signed, failed, kind_of};
use crate::base::trouble::Trouble;
use crate::calls::{FlowCalls, Stop};

/// So many transactions may be asked for at once, and as many more said to be here.
pub(super) const ASKED: usize = 1_024;
/// The most that come ahead of being asked for.
pub(super) const MOST_AHEAD: u32 = 512;
/// A message is filled so far: large enough that it is worth its way, and small beside the memory of a host. Bytes.
const MESSAGE: usize = 512 << 10;
/// Nor is it filled beyond one in so many of the largest that the network allows.
const SHARE: usize = 2;

/// What one side has given on a session, and may be asked for there.
#[derive(Debug, Default)]
pub(super) struct Vended {
    /// Transactions that may be asked for: named by those that were given.
    allowed: BTreeSet<SecureHash>,
    /// Those that were spoken of last: their attachments and network parameters may be asked for.
    pub last: BTreeSet<SecureHash>,
}

/// What a message gave, as the journal has it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Given {
    /// The transactions, and with how many signatures each.
    given: Vec<(SecureHash, u32)>,
    /// What they, and those that are on the other side already, name.
    named: Vec<SecureHash>,
}

impl FlowCalls {
    /// How much of a message is filled, bytes.
    pub(super) fn message_room(&self) -> usize {
        let most = self.services.network.parameters().parameters().max_message_size;
        (usize::try_from(most).unwrap_or(usize::MAX) / SHARE).min(MESSAGE)
    }

    /// Gives a transaction, and answers for what it comes from until the other side has all it needs. Returns what it says
    /// then.
    pub(super) async fn give(&mut self, session: u32, signed: &Signed) -> CallResult<ToVendor> {
        let bytes = signed.encode().map_err(|refused| refusal::refused(&refused))?;
        let mut vended = Vended { allowed: signed.parents(), last: [signed.id()].into() };
        let mut next = FromVendor::Transaction(Encoded(bytes));
        loop {
            let wanted: ToVendor = self.ask_peer(session, &next).await?;
            next = match wanted {
                ToVendor::FetchChain(wanted) => FromVendor::Fetched(self.vend(&mut vended, wanted).await?),
                ToVendor::FetchAttachment(wanted) => {
                    FromVendor::Piece(self.vend_piece(&vended, signed, Asked::Attachment, &wanted).await?)
                }
                ToVendor::FetchParameters(wanted) => {
                    FromVendor::Piece(self.vend_piece(&vended, signed, Asked::Parameters, &wanted).await?)
                }
                done @ (ToVendor::Done | ToVendor::Signed(_)) => return Ok(done),
            };
        }
    }

    async fn vend(&mut self, vended: &mut Vended, wanted: Wanted) -> CallResult<Vec<Encoded>> {
        let Wanted { here, ids, ahead } = wanted;
        if here.len() > ASKED || ids.len() > ASKED || ahead > MOST_AHEAD {
            return Err(not_to_be_had().into());
        }
        let (environment, room) = (self.environment(), self.message_room());
        let what = format!("give {} transactions", ids.len());
        let mut bodies = None;
        let allowed = &vended.allowed;
        let (asked, passed, read) = (ids, here, &mut bodies);
        let Given { given, named } = self
            .step(&what, async move {
                if !are_allowed(&environment, allowed, &passed, &asked).await? {
                    return Ok(Err(not_to_be_had()));
                }
                let at_hand = match ahead == 0 && passed.is_empty() {
                    true => at_hand(&environment, &asked, room)?,
                    false => None,
                };
                let (found, named) = match at_hand {
                    Some(at_hand) => at_hand,
                    None => {
                        let Some(found) = chosen(&environment, &asked, ahead, room).await? else {
                            return Ok(Err(not_to_be_had()));
                        };
                        let (store, identity) = (&environment.services.committer.store, environment.opened.entry.row);
                        let ids: Vec<SecureHash> = found.iter().map(|(id, ..)| *id).chain(passed).collect();
                        (found, store.parents_of(identity, &ids).await.map_err(failed)?)
                    }
                };
                let given = found.iter().map(|(id, signatures, _)| (*id, *signatures)).collect();
                *read = Some(found.into_iter().map(|(.., bytes)| bytes).collect());
                Ok(Ok((Given { given, named }, Vec::new())))
            })
            .await?;
        vended.last = given.iter().map(|(id, _)| *id).collect();
        vended.allowed.extend(named);
        // What was given is not given again until another that is given names it.
        vended.last.iter().for_each(|id| {
            vended.allowed.remove(id);
        });
        match bodies {
            Some(bodies) => Ok(bodies),
            None => self.given_before(&given).await,
        }
    }

    /// The bytes that an earlier life of the flow gave: a transaction that is part of the ledger only ever gets signatures
    /// behind those that it has.
    async fn given_before(&mut self, given: &[(SecureHash, u32)]) -> CallResult<Vec<Encoded>> {
        let environment = self.environment();
        let ids: Vec<SecureHash> = given.iter().map(|(id, _)| *id).collect();
        let found = environment.bodies(&ids, usize::MAX).await;
        let read = |found: Vec<LedgerTransaction>| -> Result<Vec<Encoded>, Trouble> {
            let read = found.iter().zip(given).map(|(found, (_, signatures))| encoded(found, Some(*signatures)));
            read.map(|read| read.map(|(_, _, bytes)| bytes)).collect()
        };
        match found.and_then(read) {
            Ok(bodies) if bodies.len() == given.len() => Ok(bodies),
            Ok(_) => self.stop(Stop::Trouble(Trouble::defect("a transaction that was given is not in the ledger"))),
            Err(trouble) => self.stop(Stop::Trouble(trouble)),
        }
    }
}

/// The one answer to all that is asked for and not given.
pub(super) fn not_to_be_had() -> FlowError {
    refusal::protocol("a transaction that cannot be had here was asked for")
}

/// Whether all that is asked for comes from what was given, by way of what is on the other side already.
async fn are_allowed(
    environment: &LedgerEnvironment,
    allowed: &BTreeSet<SecureHash>,
    here: &[SecureHash],
    ids: &[SecureHash],
) -> Result<bool, Trouble> {
    let mut also = BTreeSet::new();
    for id in here {
        if !allowed.contains(id) && !also.contains(id) {
            return Ok(false);
        }
        let (store, identity) = (&environment.services.committer.store, environment.opened.entry.row);
        also.extend(store.parents(identity, id).await.map_err(failed)?);
    }
    let distinct: BTreeSet<&SecureHash> = ids.iter().collect();
    Ok(distinct.len() == ids.len() && ids.iter().all(|id| allowed.contains(id) || also.contains(id)))
}

type Chosen = (SecureHash, u32, Encoded);
/// With the transactions that they come from.
type WithParents = (Vec<Chosen>, Vec<SecureHash>);

/// What was asked for, and what that comes from, without a look into the database: `None` if something of it is not in memory, or all
/// of it does not fit a message. Somebody who pays has just read what his money comes from.
fn at_hand(environment: &LedgerEnvironment, asked: &[SecureHash], room: usize) -> Result<Option<WithParents>, Trouble> {
    let (mut found, mut named, mut size) = (Vec::with_capacity(asked.len()), BTreeSet::new(), 0);
    for id in asked {
        let Some(signed) = environment.services.findings.recorded(environment.opened.entry.row, id) else {
            return Ok(None);
        };
        let bytes =
            signed.encode().map_err(|error| Trouble::defect(format!("transaction {id} cannot be encoded: {error}")))?;
        size += bytes.len();
        if size > room {
            return Ok(None);
        }
        named.extend(signed.parents());
        let count = u32::try_from(signed.whole.signatures().len()).unwrap_or(u32::MAX);
        // If the other side is on this host, it need not read what this side has read.
        environment.services.findings.encoded(&bytes, &signed);
        found.push((*id, count, Encoded(bytes)));
    }
    Ok((!found.is_empty()).then(|| (found, named.into_iter().collect())))
}

/// Transactions that fit a message: those that were asked for, and then those that they come from. `None` if one that was
/// asked for is not part of the ledger.
async fn chosen(
    environment: &LedgerEnvironment,
    asked: &[SecureHash],
    ahead: u32,
    room: usize,
) -> Result<Option<Vec<Chosen>>, Trouble> {
    if asked.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let (store, identity) = (&environment.services.committer.store, environment.opened.entry.row);
    let mut ids = asked.to_vec();
    if ahead > 0 {
        let most = ahead.saturating_add(u32::try_from(asked.len()).unwrap_or(u32::MAX));
        let found = store.ledger_ancestors(identity, asked, most).await.map_err(failed)?;
        let first: BTreeSet<&SecureHash> = asked.iter().collect();
        ids.extend(found.into_iter().filter(|id| !first.contains(id)));
    }
    let found = environment.bodies(&ids, room).await?;
    let mut chosen = Vec::with_capacity(found.len());
    for (id, found) in ids.iter().zip(&found) {
        if found.id != *id || found.status != TransactionStatus::Verified {
            // One that comes ahead may be left out, one that was asked for may not.
            return Ok((chosen.len() >= asked.len()).then_some(chosen));
        }
        chosen.push(encoded(found, None)?);
    }
    Ok((!chosen.is_empty()).then_some(chosen))
}

/// A transaction as it travels, with all its signatures or the first of them.
fn encoded(found: &LedgerTransaction, signatures: Option<u32>) -> Result<Chosen, Trouble> {
    let encode = || -> LedgerResult<Chosen> {
        let body = found.body.as_deref().unwrap_or_default();
        let mut all = maxhost_ledger::codec::decode("signatures", &found.signatures)?;
        let signatures = signatures.map_or(usize::MAX, |count| count as usize);
        Vec::truncate(&mut all, signatures);
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
        Ok((found.id, count, Encoded(maxhost_ledger::tx::SignedTransaction::joined(kind_of(found.kind), body, all)?)))
    };
    encode().map_err(|error| Trouble::defect(format!("transaction {} cannot be read: {error}", found.id)))
}

/// What refuses a transaction that is not the one that was expected.
pub(super) fn expected(signed: &Signed, id: Option<&SecureHash>) -> Result<(), FlowError> {
    match id {
        Some(id) if *id != signed.id() => {
            Err(refusal::argument(format!("transaction {} came, and {id} was expected", signed.id())))
        }
        _ => Ok(()),
    }
}
