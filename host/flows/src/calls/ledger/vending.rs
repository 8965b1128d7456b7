//! Giving a transaction and what it comes from, and getting one: the back-chain, breadth first and in batches.
//!
//! Whoever gives answers only for ancestors of what it gave on the session, each once, and says the same of what it does not
//! have and of what it will not give.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use maxhost_ledger::vault::recording::{StatesToRecord, TransactionEvent, TransactionStatus};
use maxhost_ledger::{Refused, Result as LedgerResult, Rule};
use maxhost_model::{FlowError, SecureHash};
use maxhost_sandbox::CallResult;

use super::environment::LedgerEnvironment;
use super::protocol::{Encoded, FromVendor, ToVendor};
use super::refusal;
use super::transactions::{By, Fresh, Signed};
use crate::calls::FlowCalls;

/// So many transactions are asked for at once.
const BATCH: usize = 50;
/// The most transactions that one resolution takes, so that an endless chain comes to an end.
const MAX_CHAIN: usize = 100_000;
/// A message is filled up to one in so many of the largest.
const SHARE: usize = 2;

/// What one side has given on a session, and may be asked for there.
#[derive(Debug, Default)]
struct Vended {
    allowed: BTreeSet<SecureHash>,
}

impl Vended {
    fn gave(&mut self, signed: &Signed) {
        self.allowed.extend(signed.parents());
    }
}

/// Who must have signed a transaction that comes from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignedBy {
    /// Everybody who has to, the notary too: it is a part of a back-chain.
    All,
    /// Everybody but the notary, which is asked afterwards.
    AllButNotary,
    /// Whoever has so far: others sign afterwards.
    SoFar,
}

impl SignedBy {
    fn check(self, signed: &Signed) -> LedgerResult<()> {
        let except: BTreeSet<_> = match self {
            SignedBy::SoFar => return signed.whole.check_signatures(),
            SignedBy::AllButNotary => signed.notary_key().into_iter().collect(),
            SignedBy::All => BTreeSet::new(),
        };
        signed.whole.verify_signatures_except(&signed.wire.required_keys(), &except)
    }
}

impl FlowCalls {
    /// Gives a transaction, and answers for what it comes from until the other side has all it needs. Returns what it says
    /// then.
    pub(super) async fn give(&mut self, session: u32, signed: &Signed) -> CallResult<ToVendor> {
        let bytes = signed.encode().map_err(|refused| refusal::refused(&refused))?;
        let mut vended = Vended::default();
        vended.gave(signed);
        let mut next = FromVendor::Transaction(Encoded(bytes));
        loop {
            let wanted: ToVendor = self.ask_peer(session, &next).await?;
            next = match wanted {
                ToVendor::FetchTransactions(ids) => FromVendor::Fetched(self.vend(&mut vended, ids).await?),
                ToVendor::FetchAttachments(_) => {
                    return Err(refusal::protocol("attachments are not given on sessions").into());
                }
                done @ (ToVendor::Done | ToVendor::Signed(_)) => return Ok(done),
            };
        }
    }

    async fn vend(&mut self, vended: &mut Vended, ids: Vec<SecureHash>) -> CallResult<Vec<Encoded>> {
        let refuse = || refusal::protocol("a transaction that cannot be had here was asked for");
        if ids.is_empty() || ids.len() > BATCH || ids.iter().any(|id| !vended.allowed.remove(id)) {
            return Err(refuse().into());
        }
        let environment = self.environment();
        let room =
            usize::try_from(environment.services.network.parameters().max_message_size).unwrap_or(usize::MAX) / SHARE;
        let asked = ids.clone();
        let what = format!("give {} transactions", ids.len());
        let fetched: Vec<Encoded> = self
            .step(&what, async move {
                let mut fetched: Vec<Encoded> = Vec::new();
                let mut size = 0;
                for id in &asked {
                    let Some((TransactionStatus::Verified, signed)) = environment.stored(id).await? else {
                        return Ok(Err(refuse()));
                    };
                    let bytes = match signed.encode() {
                        Ok(bytes) => bytes,
                        Err(refused) => return Ok(Err(refusal::refused(&refused))),
                    };
                    size += bytes.len();
                    if size > room && !fetched.is_empty() {
                        break;
                    }
                    fetched.push(Encoded(bytes));
                }
                Ok(Ok((fetched, Vec::new())))
            })
            .await?;
        for bytes in &fetched {
            let signed = Signed::decode(&bytes.0).map_err(|refused| refusal::refused(&refused))?;
            vended.gave(&signed);
        }
        // What did not fit may be asked for again.
        vended.allowed.extend(&ids[fetched.len()..]);
        Ok(fetched)
    }

    /// Gets a transaction and what it comes from, which is verified and recorded. Of the transaction itself only what needs
    /// no other is checked: bytes, network and signatures. So nothing is fetched for one that nobody has signed.
    pub(super) async fn get(&mut self, session: u32, by: SignedBy) -> CallResult<Signed> {
        let FromVendor::Transaction(bytes) = self.hear(session).await? else {
            return Err(refusal::protocol("a transaction was expected").into());
        };
        let signed = Signed::decode(&bytes.0).map_err(|refused| refusal::refused(&refused))?;
        let network = self.environment().network();
        let header = signed.wire.contents().header.check_network(&network).map_err(|refused| refused.of(signed.id()));
        header.and_then(|()| by.check(&signed)).map_err(|refused| refusal::refused(&refused))?;
        self.resolve_chain(session, &signed).await?;
        self.ledger_written().await?;
        Ok(signed)
    }

    /// Downloads the unknown ancestors of a transaction, and records them, the oldest first.
    async fn resolve_chain(&mut self, session: u32, signed: &Signed) -> CallResult<()> {
        let mut found: BTreeMap<SecureHash, Signed> = BTreeMap::new();
        let mut seen: BTreeSet<SecureHash> = signed.parents();
        let mut missing: VecDeque<SecureHash> = self.unknown(seen.iter().copied().collect()).await?.into();
        while !missing.is_empty() {
            let asked: Vec<SecureHash> = missing.iter().take(BATCH).copied().collect();
            let answer = self.ask_peer(session, &ToVendor::FetchTransactions(asked.clone())).await?;
            let FromVendor::Fetched(fetched) = answer else {
                return Err(refusal::protocol("transactions were expected").into());
            };
            if fetched.len() > asked.len() {
                return Err(refusal::protocol("more transactions came than were asked for").into());
            }
            if fetched.is_empty() {
                return Err(refusal::refused(&not_given(signed, &asked)).into());
            }
            let mut named = BTreeSet::new();
            for (id, bytes) in asked.iter().zip(fetched) {
                let parent = Signed::decode(&bytes.0).map_err(|refused| refusal::refused(&refused))?;
                if parent.id() != *id {
                    return Err(refusal::refused(&tampered(signed, id, &parent)).into());
                }
                missing.pop_front();
                named.extend(parent.parents().into_iter().filter(|parent| seen.insert(*parent)));
                found.insert(*id, parent);
            }
            if seen.len() > MAX_CHAIN {
                let text = format!("the transaction comes from more than {MAX_CHAIN} others");
                return Err(FlowError::limit("back-chain", text).into());
            }
            missing.extend(self.unknown(named.into_iter().collect()).await?);
        }
        let order =
            oldest_first(&found).ok_or_else(|| refusal::protocol("transactions depend on each other in a circle"))?;
        let mut fresh = Fresh::new();
        for id in order {
            let Some(parent) = found.get(&id) else { continue };
            self.verify_and_record(parent, &fresh).await?;
            fresh.insert(id, parent.wire.clone());
        }
        Ok(())
    }

    /// Of these transactions, those that are not part of the ledger.
    async fn unknown(&mut self, ids: Vec<SecureHash>) -> CallResult<Vec<SecureHash>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let environment = self.environment();
        self.step(&format!("look for {} transactions", ids.len()), async move {
            let mut unknown = Vec::new();
            for id in ids {
                if !is_known(&environment, &id).await? {
                    unknown.push(id);
                }
            }
            Ok(Ok((unknown, Vec::new())))
        })
        .await
    }

    /// A transaction of the back-chain becomes part of the ledger.
    pub(super) async fn verify_and_record(&mut self, signed: &Signed, fresh: &Fresh) -> CallResult<()> {
        let (environment, signed, fresh) = (self.environment(), signed.clone(), fresh.clone());
        self.step(&format!("verify and record {}", signed.id()), async move {
            if is_known(&environment, &signed.id()).await? {
                return Ok(Ok(((), Vec::new())));
            }
            if let Err(refused) = environment.judge(&signed, &fresh, &BTreeSet::new()).await? {
                return Ok(Err(refusal::refused(&refused)));
            }
            let event = TransactionEvent::Finalised;
            let op = environment.recording(&signed, event, StatesToRecord::OnlyRelevant, By::default()).await?;
            Ok(op.map(|op| ((), vec![op])).map_err(|refused| refusal::refused(&refused)))
        })
        .await
    }
}

/// The other side has nothing of what was asked for.
fn not_given(signed: &Signed, asked: &[SecureHash]) -> Refused {
    let refused = Refused::new(Rule::StateUnknown, "a transaction that it comes from is not to be had").of(signed.id());
    asked.iter().take(1).fold(refused, |refused, id| refused.detail("from", id))
}

/// The bytes of an ancestor have another id than the one that is named: whoever gave them has changed them.
fn tampered(signed: &Signed, id: &SecureHash, given: &Signed) -> Refused {
    let message = format!("another transaction came in place of {id}, which it comes from");
    let refused = Refused::new(Rule::BackChainTampered, message).of(signed.id());
    refused.detail("from", id).detail("given", given.id())
}

async fn is_known(environment: &LedgerEnvironment, id: &SecureHash) -> Result<bool, crate::trouble::Trouble> {
    let found = environment.services.committer.store.ledger_transaction(environment.opened.entry.row, id).await;
    let found = found.map_err(super::transactions::failed)?;
    Ok(found.is_some_and(|found| found.status == TransactionStatus::Verified))
}

/// The ids of transactions so that each comes behind those of them that it names; `None` if there is a circle.
fn oldest_first(found: &BTreeMap<SecureHash, Signed>) -> Option<Vec<SecureHash>> {
    let parents: BTreeMap<SecureHash, BTreeSet<SecureHash>> = found
        .iter()
        .map(|(id, signed)| (*id, signed.parents().into_iter().filter(|parent| found.contains_key(parent)).collect()))
        .collect();
    sorted(parents)
}

fn sorted(mut waiting: BTreeMap<SecureHash, BTreeSet<SecureHash>>) -> Option<Vec<SecureHash>> {
    let mut children: BTreeMap<SecureHash, Vec<SecureHash>> = BTreeMap::new();
    for (id, parents) in &waiting {
        for parent in parents {
            children.entry(*parent).or_default().push(*id);
        }
    }
    let mut ready: VecDeque<SecureHash> =
        waiting.iter().filter(|(_, parents)| parents.is_empty()).map(|(id, _)| *id).collect();
    let mut order = Vec::with_capacity(waiting.len());
    while let Some(id) = ready.pop_front() {
        order.push(id);
        for child in children.remove(&id).unwrap_or_default() {
            if let Some(parents) = waiting.get_mut(&child) {
                parents.remove(&id);
                if parents.is_empty() {
                    ready.push_back(child);
                }
            }
        }
    }
    (order.len() == waiting.len()).then_some(order)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> SecureHash {
        SecureHash::of(&[number])
    }

    #[test]
    fn ancestors_come_first_and_circles_are_found() {
        let chain = [(3, vec![2, 1]), (2, vec![1]), (1, vec![])];
        let waiting = |of: &[(u8, Vec<u8>)]| {
            of.iter().map(|(one, parents)| (id(*one), parents.iter().map(|parent| id(*parent)).collect())).collect()
        };
        assert_eq!(sorted(waiting(&chain)), Some(vec![id(1), id(2), id(3)]));
        assert_eq!(sorted(waiting(&[(1, vec![2]), (2, vec![1])])), None);
        assert_eq!(sorted(BTreeMap::new()), Some(vec![]));
    }
}
