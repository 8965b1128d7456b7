//! Getting a transaction and what it comes from: the back-chain, breadth first and in batches.
//!
//! What is got is checked as far as it needs no other, its id and its signatures, and is put into the database, unverified, in
//! the commit of the entry that says so. When nothing is missing it is verified and recorded, the oldest first, in batches
//! too. So memory has ids of the whole chain and the bodies of a batch; a flow that comes back finds in the database what it
//! has got; and flows of one identity that get the same chain wait for each other ([`crate::ledger::resolving`]).

use std::collections::{BTreeMap, BTreeSet};

use maxhost_journal::Call;
use maxhost_ledger::tx::{Core as TxCore, StateRef};
use maxhost_ledger::vault::recording::{StatesToRecord, TransactionEvent, TransactionStatus};
use maxhost_ledger::{Refused, Result as LedgerResult, Rule};
use maxhost_model::{FlowError, SecureHash};
use maxhost_sandbox::{CallError, CallResult};
use maxhost_store::ledger::{LedgerOp, LedgerTransaction};
use serde::{Deserialize, Serialize};

use super::chain::Chain;
use super::environment::LedgerEnvironment;
use super::findings::Findings;
use super::parallel::in_parallel;
use super::pieces::Lacking;
use super::protocol::{Encoded, FromVendor, ToVendor, Wanted};
use super::refusal;
use super::steps::StepResult;
use super::transactions::{By, Fresh, Owned, Signed, failed};
use super::vending::{ASKED, MOST_AHEAD};
use crate::base::trouble::Trouble;
use crate::calls::FlowCalls;

/// The most transactions that one resolution takes, so that an endless chain comes to an end.
const MAX_CHAIN: usize = 100_000;
/// So many are verified and recorded in one step.
const VERIFIED_AT_ONCE: usize = 128;
/// Their bodies have so many bytes at most, or there is one.
const BODIES: usize = 1 << 20;
/// So many steps may be on their way to the disk.
const STEPS_UNWRITTEN: usize = 4;
/// The bodies of a chain that is kept in memory have so many bytes at most.
const SHORT: usize = 64 << 10;
/// Of a message with so few transactions it is kept what was read of them: the next step reads the same bytes, and so may another
/// flow of the host. More would only push out what others have read.
const READ_ONCE: usize = 16;
/// How long a flow waits before it looks again what another has got, milliseconds.
const LOOK_AGAIN_MS: u64 = 100;

/// Who must have signed a transaction that comes from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignedBy {
    /// Everybody who has to, and its notary has notarised it: it is a part of a back-chain. The participants of states whose notary changes
    /// are known, and looked for, when it is judged.
    All,
    /// Everybody but the notary, which is asked afterwards.
    AllButNotary,
    /// Whoever has so far: others sign afterwards.
    SoFar,
}

impl SignedBy {
    fn check(self, findings: &Findings, signed: &Signed) -> LedgerResult<()> {
        match self {
            SignedBy::SoFar => return signed.whole.check_signatures_by(findings.verifier()),
            SignedBy::AllButNotary => {}
            SignedBy::All => signed.check_notarised()?,
        }
        signed.whole.verify_signatures_by(&signed.core().party_keys(), findings.verifier())
    }
}

/// Which kind of transaction is expected from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// An ordinary one: the code of an author will look at it.
    Ordinary,
    /// A change of notary.
    NotaryChange,
    /// Either kind will do.
    Any,
}

impl Expected {
    fn check(self, signed: &Signed) -> LedgerResult<()> {
        match self {
            Expected::Ordinary => signed.ordinary().map(drop),
            Expected::NotaryChange => signed.change().map(drop),
            Expected::Any => Ok(()),
        }
    }
}

/// What the database says of transactions that are wanted.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Looked {
    /// They are part of the ledger.
    verified: Vec<SecureHash>,
    /// Their bytes are here.
    here: Vec<SecureHash>,
    /// They are to be asked for. The rest another flow gets.
    ask: Vec<SecureHash>,
}

/// A transaction that is in the database.
#[derive(Debug, Serialize, Deserialize)]
struct Named {
    id: SecureHash,
    parents: Vec<SecureHash>,
}

/// What came of a message, or was found in the database.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Taken {
    links: Vec<Named>,
    /// What they name beside states and what is not here.
    lacking: Lacking,
    /// Some came that are part of the ledger already.
    some_known: bool,
}

/// Bodies that are in memory and not in the database: those of a short chain, which is verified before anything is written.
/// The journal has the messages that brought them.
#[derive(Debug, Default)]
struct Kept {
    bodies: BTreeMap<SecureHash, Encoded>,
    size: usize,
    /// There were too many: all are in the database.
    stored: bool,
}

impl Kept {
    /// What a message brought, in a chain that is still short.
    fn keep(&mut self, fetched: &[Encoded]) {
        self.size += fetched.iter().map(|bytes| bytes.0.len()).sum::<usize>();
        self.stored |= self.size > SHORT;
    }
}

/// What became of a batch.
#[derive(Debug, Serialize, Deserialize)]
enum Verified {
    /// So many of it are part of the ledger.
    First(usize),
    /// Another flow has given up, and this one went with it.
    Lost(SecureHash),
}

impl FlowCalls {
    /// Gets a transaction and what it comes from, which is verified and recorded. Of the transaction itself only what needs
    /// no other is checked: bytes, network and signatures. So nothing is fetched for one that nobody has signed.
    pub(super) async fn get(&mut self, session: u32, by: SignedBy, kind: Expected) -> CallResult<Signed> {
        let FromVendor::Transaction(bytes) = self.hear(session).await? else {
            return Err(refusal::protocol("a transaction was expected").into());
        };
        let signed = self.given(&bytes.0)?;
        kind.check(&signed).map_err(|refused| refusal::refused(&refused))?;
        let network = self.environment().network();
        let header = signed.core().header().check_network(&network).map_err(|refused| refused.of(signed.id()));
        let findings = &self.services.findings;
        header.and_then(|()| by.check(findings, &signed)).map_err(|refused| refusal::refused(&refused))?;
        self.get_lacking_of(session, &signed).await?;
        self.resolve_chain(session, &signed).await?;
        self.ledger_written().await?;
        Ok(signed)
    }

    /// Gets the unknown ancestors of a transaction, and records them, the oldest first.
    async fn resolve_chain(&mut self, session: u32, signed: &Signed) -> CallResult<()> {
        let mut chain = Chain::default();
        chain.want(signed.parents());
        let resolved = self.get_chain(session, signed, &mut chain).await;
        self.opened.resolving.is_done(self.flow.row);
        if let Err(CallError::Failure(_)) = &resolved {
            self.forget(&chain).await?;
        }
        resolved
    }

    async fn get_chain(&mut self, session: u32, signed: &Signed, chain: &mut Chain) -> CallResult<()> {
        let (mut ahead, mut kept) = (0, Kept::default());
        loop {
            let next = chain.next(ASKED);
            if next.is_empty() {
                if self.verify_chain(chain, &kept).await? {
                    return Ok(());
                }
                continue;
            }
            let Looked { verified, here, ask } = self.look(next, kept.stored).await?;
            verified.iter().for_each(|id| chain.is_verified(id));
            if !here.is_empty() {
                let taken = self.walk(session, here).await?;
                self.add(session, signed, chain, taken).await?;
            } else if !ask.is_empty() {
                let taken = self.fetch(session, signed, ask, ahead, &mut kept).await?;
                ahead = if taken.some_known { 1 } else { (ahead * 4).clamp(4, MOST_AHEAD) };
                self.add(session, signed, chain, taken).await?;
            } else if verified.is_empty() {
                self.ask(Call::Sleep(LOOK_AGAIN_MS)).await?;
            }
        }
    }

    async fn add(&mut self, session: u32, signed: &Signed, chain: &mut Chain, taken: Taken) -> CallResult<()> {
        for Named { id, parents } in taken.links {
            chain.take(id, parents);
        }
        if chain.len() > MAX_CHAIN {
            let text = format!("the transaction {} comes from more than {MAX_CHAIN} others", signed.id());
            return Err(FlowError::limit("back-chain", text).into());
        }
        self.get_lacking(session, &taken.lacking).await
    }

    /// Which of these are to be asked for.
    async fn look(&mut self, ids: Vec<SecureHash>, is_long: bool) -> CallResult<Looked> {
        let (environment, flow) = (self.environment(), self.flow.row);
        self.step(&format!("look for {} transactions", ids.len()), async move {
            let found: BTreeMap<_, _> = environment.statuses(&ids).await?.into_iter().collect();
            let (resolving, now) = (&environment.opened.resolving, environment.services.clock.monotonic());
            let is_another_at_it = resolving.is_another_at_it(flow, now);
            let mut looked = Looked::default();
            let mut missing = Vec::new();
            for id in ids {
                match found.get(&id) {
                    Some(TransactionStatus::Verified) => looked.verified.push(id),
                    Some(TransactionStatus::Unverified) if is_another_at_it => {}
                    Some(TransactionStatus::Unverified) => looked.here.push(id),
                    // What is in flight lacks the notary's signature.
                    Some(TransactionStatus::InFlight) | None => missing.push(id),
                }
            }
            // Of a short chain it would take longer to wait for another than to get it.
            looked.ask = if is_long { resolving.ask(flow, &missing, now) } else { missing };
            Ok(Ok((looked, Vec::new())))
        })
        .await
    }

    /// Transactions that are here already, with as many as are here of those that they come from. The other side is told,
    /// so that it can be asked for what is missing behind them.
    async fn walk(&mut self, session: u32, ids: Vec<SecureHash>) -> CallResult<Taken> {
        let environment = self.environment();
        let taken: Taken = self
            .step(&format!("look what {} transactions come from", ids.len()), async move {
                Ok(Ok((walked(&environment, &ids).await?, Vec::new())))
            })
            .await?;
        let here = taken.links.iter().map(|link| link.id).collect();
        match self.ask_peer(session, &ToVendor::FetchChain(Wanted { here, ..Wanted::default() })).await? {
            FromVendor::Fetched(fetched) if fetched.is_empty() => Ok(taken),
            _ => Err(refusal::protocol("something came that was not asked for").into()),
        }
    }

    async fn fetch(
        &mut self,
        session: u32,
        signed: &Signed,
        ids: Vec<SecureHash>,
        ahead: u32,
        kept: &mut Kept,
    ) -> CallResult<Taken> {
        let wanted = Wanted { here: Vec::new(), ids: ids.clone(), ahead };
        let FromVendor::Fetched(fetched) = self.ask_peer(session, &ToVendor::FetchChain(wanted)).await? else {
            return Err(refusal::protocol("transactions were expected").into());
        };
        if fetched.len() > ids.len() + ahead as usize {
            return Err(refusal::protocol("more transactions came than were asked for").into());
        }
        kept.keep(&fetched);
        let mut bodies = if kept.stored { Vec::new() } else { fetched.clone() };
        // What was kept so far goes into the database with what has come now.
        let before = if kept.stored { std::mem::take(&mut kept.bodies) } else { BTreeMap::new() };
        let (environment, top, stores) = (self.environment(), signed.id(), kept.stored);
        let what = format!("take {} transactions of the back-chain", fetched.len());
        let taken: Taken = self
            .step(&what, async move {
                let taken = taken(&environment, top, ids, fetched, ahead > 0).await?;
                let (taken, came) = match taken {
                    Ok(taken) => taken,
                    Err(error) => return Ok(Err(error)),
                };
                let ops = if stores { downloads(&environment, before, &came) } else { Ok(Vec::new()) };
                Ok(ops.map(|ops| (taken, ops)).map_err(|refused| refusal::refused(&refused)))
            })
            .await?;
        if taken.some_known {
            let links: BTreeSet<SecureHash> = taken.links.iter().map(|link| link.id).collect();
            let findings = &self.services.findings;
            bodies.retain(|bytes| findings.decode(&bytes.0).is_ok_and(|signed| links.contains(&signed.id())));
        }
        kept.bodies.extend(taken.links.iter().map(|link| link.id).zip(bodies));
        Ok(taken)
    }

    /// Removes what was got and is not verified.
    async fn forget(&mut self, chain: &Chain) -> CallResult<()> {
        let ids = chain.unverified();
        if ids.is_empty() {
            return Ok(());
        }
        let (environment, flow) = (self.environment(), self.flow.row);
        self.step(&format!("forget {} transactions", ids.len()), async move {
            // Another flow may count on them.
            let now = environment.services.clock.monotonic();
            let is_another_at_it = environment.opened.resolving.is_another_at_it(flow, now);
            Ok(Ok(((), if is_another_at_it { Vec::new() } else { vec![LedgerOp::Forget(ids)] })))
        })
        .await
    }

    /// Verifies and records what is here, the oldest first. False if some of it has gone meanwhile.
    async fn verify_chain(&mut self, chain: &mut Chain, kept: &Kept) -> CallResult<bool> {
        let Some(order) = chain.oldest_first() else {
            return Err(refusal::protocol("transactions depend on each other in a circle").into());
        };
        if order.is_empty() {
            return Ok(true);
        }
        if kept.stored {
            self.ledger_written().await?;
        }
        let (mut recent, mut spent, mut unwritten, mut at) = (Fresh::new(), BTreeMap::new(), 0, 0);
        while let Some(rest) = order.get(at..).filter(|rest| !rest.is_empty()) {
            let ids = &rest[..rest.len().min(VERIFIED_AT_ONCE)];
            if kept.stored {
                self.opened.resolving.gets_on(self.flow.row, self.services.clock.monotonic());
            }
            let environment = self.environment();
            let what = format!("verify and record {} transactions of the back-chain", ids.len());
            let (chain_now, recent_now, spent_now) = (&*chain, &mut recent, &mut spent);
            let batch =
                Batch { environment: &environment, chain: chain_now, kept, recent: recent_now, spent: spent_now };
            match self.step(&what, batch.verify(ids)).await? {
                Verified::First(count) => {
                    ids.iter().take(count).for_each(|id| chain.is_verified(id));
                    at += count;
                }
                Verified::Lost(id) => {
                    chain.is_lost(&id);
                    return Ok(false);
                }
            }
            if at == order.len() {
                break;
            }
            unwritten += 1;
            if unwritten == STEPS_UNWRITTEN {
                self.ledger_written().await?;
                (unwritten, spent) = (0, BTreeMap::new());
            } else if !self.machine.is_replaying() {
                self.flush();
            }
        }
        Ok(true)
    }

    /// A transaction becomes part of the ledger, unless it is.
    pub(super) async fn verify_and_record(&mut self, signed: &Signed) -> CallResult<()> {
        let (environment, signed) = (self.environment(), signed.clone());
        self.step(&format!("verify and record {}", signed.id()), async move {
            if environment
                .statuses(&[signed.id()])
                .await?
                .iter()
                .any(|(_, status)| *status == TransactionStatus::Verified)
            {
                return Ok(Ok(((), Vec::new())));
            }
            let judged = match signed.check_notarised() {
                Ok(()) => environment.judge(&signed, &Fresh::new()).await?,
                Err(refused) => Err(refused),
            };
            if let Err(refused) = judged {
                return Ok(Err(refusal::refused(&refused)));
            }
            let event = TransactionEvent::Finalised;
            let op = environment.recording(&signed, event, StatesToRecord::OnlyRelevant, By::default()).await?;
            Ok(op.map(|op| ((), vec![op])).map_err(|refused| refusal::refused(&refused)))
        })
        .await
    }
}

/// Transactions as they came, checked as far as they need no other. The first are those that were asked for, in their order;
/// each of the rest is named by one before it. Those that are part of the ledger are left out, if some may be: those that were asked
/// for were not when it was looked last, and one that another flow has recorded since may be recorded again.
async fn taken(
    environment: &LedgerEnvironment,
    top: SecureHash,
    asked: Vec<SecureHash>,
    fetched: Vec<Encoded>,
    some_may_be_known: bool,
) -> Result<Result<(Taken, Vec<Signed>), FlowError>, Trouble> {
    if fetched.is_empty() {
        return Ok(Err(refusal::refused(&not_given(top, &asked))));
    }
    let (network, services, few) = (environment.network(), environment.services.clone(), fetched.len() <= READ_ONCE);
    let read = in_parallel(environment, fetched, move |bytes: Encoded| -> LedgerResult<Signed> {
        let signed = if few { services.findings.decode(&bytes.0)? } else { Signed::decode(&bytes.0)? };
        signed.core().header().check_network(&network).map_err(|refused| refused.of(signed.id()))?;
        Ok(signed)
    });
    let mut came = Vec::with_capacity(asked.len());
    let mut named: BTreeSet<SecureHash> = BTreeSet::new();
    for (place, signed) in read.await?.into_iter().enumerate() {
        let signed = match signed {
            Ok(signed) => signed,
            Err(refused) => return Ok(Err(refusal::refused(&refused))),
        };
        match asked.get(place) {
            Some(id) if *id != signed.id() => return Ok(Err(refusal::refused(&tampered(top, id, &signed)))),
            None if !named.contains(&signed.id()) => {
                return Ok(Err(refusal::protocol("a transaction came that none before it comes from")));
            }
            _ => {}
        }
        named.extend(signed.parents());
        came.push(signed);
    }
    let ids: Vec<SecureHash> = came.iter().map(Signed::id).collect();
    let known = match some_may_be_known {
        true => environment.verified(&ids).await?,
        false => BTreeSet::new(),
    };
    came.retain(|signed| !known.contains(&signed.id()));
    // Whoever is asked might give what nobody has signed: it would stand in the way of what is given right.
    let services = environment.services.clone();
    let check = move |signed: Signed| SignedBy::All.check(&services.findings, &signed).map(|()| signed);
    let checked = in_parallel(environment, came, check).await?;
    let came: Vec<Signed> = match checked.into_iter().collect::<LedgerResult<_>>() {
        Ok(came) => came,
        Err(refused) => return Ok(Err(refusal::refused(&refused))),
    };
    let lacking = environment.lacking(&came).await?;
    let taken = Taken { links: came.iter().map(link).collect(), lacking, some_known: !known.is_empty() };
    Ok(Ok((taken, came)))
}

/// Puts transactions into the database as they came.
fn downloads(
    environment: &LedgerEnvironment,
    before: BTreeMap<SecureHash, Encoded>,
    came: &[Signed],
) -> LedgerResult<Vec<LedgerOp>> {
    let (event, what) = (TransactionEvent::Downloaded, StatesToRecord::None);
    let mut ops = Vec::with_capacity(before.len() + came.len());
    for bytes in before.into_values() {
        ops.push(environment.record(&Signed::decode(&bytes.0)?, event, what, By::default(), Owned::default())?);
    }
    for signed in came {
        ops.push(environment.record(signed, event, what, By::default(), Owned::default())?);
    }
    Ok(ops)
}

fn link(signed: &Signed) -> Named {
    Named { id: signed.id(), parents: signed.parents().into_iter().collect() }
}

/// What is here of transactions and what they come from, at most a message full of them.
async fn walked(environment: &LedgerEnvironment, ids: &[SecureHash]) -> Result<Taken, Trouble> {
    let (store, identity) = (&environment.services.committer.store, environment.opened.entry.row);
    let most = u32::try_from(ASKED).unwrap_or(u32::MAX);
    let ancestors = store.ledger_ancestors(identity, ids, most).await.map_err(failed)?;
    let mut found = environment.bodies(&ancestors, BODIES).await?;
    found.retain(|found| found.status == TransactionStatus::Unverified);
    let read = in_parallel(environment, found, |found| read(&found)).await?;
    let here: Vec<Signed> = read.into_iter().collect::<Result<_, Trouble>>()?;
    let lacking = environment.lacking(&here).await?;
    Ok(Taken { links: here.iter().map(link).collect(), lacking, some_known: false })
}

fn read(found: &LedgerTransaction) -> Result<Signed, Trouble> {
    Signed::stored(found).map_err(|error| Trouble::defect(format!("transaction {} cannot be read: {error}", found.id)))
}

/// A part of the chain that is verified in one step.
struct Batch<'a> {
    environment: &'a LedgerEnvironment,
    chain: &'a Chain,
    /// Bodies that are in memory only.
    kept: &'a Kept,
    /// The bodies of the batch before.
    recent: &'a mut Fresh,
    /// What was recorded as spent, and may not be written yet.
    spent: &'a mut BTreeMap<StateRef, SecureHash>,
}

impl Batch<'_> {
    /// Verifies transactions in their order, as many as are read at once, and says how each is recorded.
    async fn verify(self, ids: &[SecureHash]) -> StepResult<Verified> {
        let stored: Vec<SecureHash> = ids.iter().filter(|id| !self.kept.bodies.contains_key(id)).copied().collect();
        let stored = match stored.is_empty() {
            true => Vec::new(),
            false => self.environment.bodies(&stored, BODIES).await?,
        };
        let stored =
            in_parallel(self.environment, stored, |found| read(&found).map(|signed| (signed, found.status))).await?;
        let mut found = BTreeMap::new();
        for stored in stored {
            let (signed, status) = stored?;
            found.insert(signed.id(), (signed, status));
        }
        for (id, bytes) in self.kept.bodies.iter().filter(|(id, _)| ids.contains(id)) {
            let findings = &self.environment.services.findings;
            let signed = findings
                .decode(&bytes.0)
                .map_err(|error| Trouble::defect(format!("transaction {id} was read before, and now: {error}")))?;
            found.insert(*id, (signed, TransactionStatus::Unverified));
        }
        let batch: Vec<_> = ids.iter().map_while(|id| found.remove(id)).collect();
        match ids.first().filter(|_| batch.is_empty()) {
            Some(lost) => Ok(Ok((Verified::Lost(*lost), Vec::new()))),
            None => self.verify_found(batch).await,
        }
    }

    async fn verify_found(self, batch: Vec<(Signed, TransactionStatus)>) -> StepResult<Verified> {
        let environment = self.environment;
        let count = batch.len();
        let mut fresh: Fresh = batch.iter().map(|(signed, _)| (signed.id(), signed.core().clone())).collect();
        self.add_parents(&batch, &mut fresh).await?;
        // What another flow has verified meanwhile is.
        let batch: Vec<Signed> = batch
            .into_iter()
            .filter(|(_, status)| *status != TransactionStatus::Verified)
            .map(|(signed, _)| signed)
            .collect();
        let outputs = match environment.judge_all(&batch, &fresh).await? {
            Ok(outputs) => outputs,
            Err(refused) => return Ok(Err(refusal::refused(&refused))),
        };
        if let Some(refused) = self.contradiction(&batch).await? {
            return Ok(Err(refusal::refused(&refused)));
        }
        let mut ops = Vec::with_capacity(batch.len());
        for (signed, outputs) in batch.iter().zip(outputs) {
            let (event, what) = (TransactionEvent::Finalised, StatesToRecord::OnlyRelevant);
            match environment.record(
                signed,
                event,
                what,
                By::default(),
                environment.owned(signed.core(), &outputs, &fresh).await?,
            ) {
                Ok(op) => ops.push(op),
                Err(refused) => return Ok(Err(refusal::refused(&refused))),
            }
        }
        let inputs = |signed: &Signed| signed.core().inputs().to_vec();
        self.spent.extend(batch.iter().flat_map(|signed| inputs(signed).into_iter().map(|input| (input, signed.id()))));
        *self.recent = batch.into_iter().map(|signed| (signed.id(), signed.core().clone())).collect();
        Ok(Ok((Verified::First(count), ops)))
    }

    /// The bodies of those that an earlier batch has verified, which the database may not show yet.
    async fn add_parents(&self, batch: &[(Signed, TransactionStatus)], fresh: &mut Fresh) -> Result<(), Trouble> {
        let parents: BTreeSet<SecureHash> = batch.iter().flat_map(|(signed, _)| signed.parents()).collect();
        for parent in parents {
            if fresh.contains_key(&parent) || !self.chain.has_verified(&parent) {
                continue;
            }
            let core: Option<TxCore> = match self.recent.get(&parent) {
                Some(core) => Some(core.clone()),
                None => self.environment.stored(&parent).await?.map(|(_, signed)| signed.core().clone()),
            };
            fresh.extend(core.map(|core| (parent, core)));
        }
        Ok(())
    }

    /// An input that two transactions consume, both with their notary's signature.
    async fn contradiction(&self, batch: &[Signed]) -> Result<Option<Refused>, Trouble> {
        let inputs: Vec<StateRef> = batch.iter().flat_map(|signed| signed.core().inputs().to_vec()).collect();
        let (store, identity) = (&self.environment.services.committer.store, self.environment.opened.entry.row);
        let mut spent: BTreeMap<StateRef, SecureHash> =
            store.spent_by(identity, &inputs).await.map_err(failed)?.into_iter().collect();
        spent.extend(self.spent.iter().map(|(state, by)| (*state, *by)));
        for signed in batch {
            for input in signed.core().inputs() {
                let by = *spent.entry(*input).or_insert(signed.id());
                if by != signed.id() {
                    let message = format!("the state {input} was consumed by the recorded transaction {by} already");
                    return Ok(Some(
                        Refused::new(Rule::RecordingInvalid, message).of(signed.id()).detail("state", input),
                    ));
                }
            }
        }
        Ok(None)
    }
}

/// The other side has nothing of what was asked for.
fn not_given(top: SecureHash, asked: &[SecureHash]) -> Refused {
    let refused = Refused::new(Rule::StateUnknown, "a transaction that it comes from is not to be had").of(top);
    asked.iter().take(1).fold(refused, |refused, id| refused.detail("from", id))
}

/// The bytes of an ancestor have another id than the one that is named: whoever gave them has changed them.
fn tampered(top: SecureHash, id: &SecureHash, given: &Signed) -> Refused {
    let message = format!("another transaction came in place of {id}, which it comes from");
    Refused::new(Rule::BackChainTampered, message).of(top).detail("from", id).detail("given", given.id())
}
