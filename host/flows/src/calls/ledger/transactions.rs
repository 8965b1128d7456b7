//! Transactions as flows handle them: reading them, finding the states that they name, judging and recording them. What is
//! particular to changes of notary is in [`super::moved`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maxhost_ledger::codec;
use maxhost_ledger::notary::check_final;
use maxhost_ledger::refused::Refused;
use maxhost_ledger::tx::{
    Core as TxCore, Kind, NotaryChange, SignedTransaction, StateAndRef, StateRef, TransactionSignature, WireTransaction,
};
use maxhost_ledger::vault::recording::{StatesToRecord, TransactionEvent, TransactionStatus};
use maxhost_ledger::{Result as LedgerResult, Rule};
use maxhost_model::{FlowError, Problem, PublicKey, SecureHash};
use maxhost_sandbox::contract::Attached;
use maxhost_store::ledger::{
    Holding, LedgerOp, LedgerTransaction, NewParameters, OutputState, Recording, Settlement, StateContent,
    TransactionKind,
};

use super::describing::{outputs, states_of};
use super::environment::LedgerEnvironment;
use super::parallel::on_all;
use super::refusal;
use super::trace::Traced;
use crate::base::trouble::Trouble;
use crate::calls::FlowCalls;
use crate::ledger::contracts::ToJudge;
use crate::ledger::parameters::KnownParameters;

/// Transactions that were verified by this flow, and may not be written yet.
pub(crate) type Fresh = BTreeMap<SecureHash, TxCore>;

/// The flow as it stands to what is recorded: what it holds of it, and how it settles it.
#[derive(Debug, Default)]
pub(crate) struct By {
    pub flow: Option<Holding>,
    pub settlement: Option<Settlement>,
}

/// A transaction with its signatures.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub whole: SignedTransaction,
}

/// The kind of a transaction, as it travels.
pub(crate) fn kind_of(kind: TransactionKind) -> Kind {
    match kind {
        TransactionKind::Ordinary => Kind::Ordinary,
        TransactionKind::NotaryChange => Kind::NotaryChange,
    }
}

impl Signed {
    pub fn decode(bytes: &[u8]) -> LedgerResult<Signed> {
        Ok(Signed { whole: SignedTransaction::decode(bytes)? })
    }

    pub fn core(&self) -> &TxCore {
        self.whole.core()
    }

    pub fn id(&self) -> SecureHash {
        self.whole.id()
    }

    /// What it says, if it is an ordinary transaction: no other is given to the code of authors.
    pub fn ordinary(&self) -> LedgerResult<&Arc<WireTransaction>> {
        match self.core() {
            TxCore::Wire(wire) => Ok(wire),
            TxCore::NotaryChange(_) => {
                let message = "a change of notary is no ordinary transaction";
                Err(Refused::new(Rule::NotaryChangeInvalid, message).of(self.id()))
            }
        }
    }

    /// What it says, if it is a change of notary.
    pub fn change(&self) -> LedgerResult<&Arc<NotaryChange>> {
        match self.core() {
            TxCore::NotaryChange(change) => Ok(change),
            TxCore::Wire(_) => {
                let message = "an ordinary transaction is no change of notary";
                Err(Refused::new(Rule::NotaryChangeInvalid, message).of(self.id()))
            }
        }
    }

    /// As it is stored. It was read before it was put there.
    pub fn stored(found: &LedgerTransaction) -> LedgerResult<Signed> {
        let core = TxCore::decode_known(kind_of(found.kind), &found.id, found.body.as_deref().unwrap_or_default())?;
        let signatures: Vec<TransactionSignature> = codec::decode("signatures", &found.signatures)?;
        Ok(Signed { whole: SignedTransaction::new(core, signatures)? })
    }

    pub fn encode(&self) -> LedgerResult<Vec<u8>> {
        self.whole.encode()
    }

    pub fn plus(&self, signatures: impl IntoIterator<Item = TransactionSignature>) -> LedgerResult<Signed> {
        Ok(Signed { whole: self.whole.plus(signatures)? })
    }

    /// The key of its notary, if it needs one.
    pub fn notary_key(&self) -> Option<PublicKey> {
        let notary = self.core().notary();
        notary.filter(|_| self.core().needs_notary()).map(|notary| notary.owning_key.clone())
    }

    /// Checks that its notary has notarised it, or need not.
    pub fn check_notarised(&self) -> LedgerResult<()> {
        check_final(self.core(), self.whole.signatures())
    }

    /// Whether its notary has notarised it, or need not.
    pub fn is_notarised(&self) -> bool {
        self.check_notarised().is_ok()
    }

    /// The transactions whose states it names.
    pub fn parents(&self) -> BTreeSet<SecureHash> {
        self.core().inputs().iter().chain(self.core().references()).map(|state| state.tx).collect()
    }
}

/// A transaction with the states that it names.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub inputs: Vec<StateAndRef>,
    pub references: Vec<StateAndRef>,
}

/// The outputs of a transaction, those of the keys that they name which are the identity's own, what is known of the states
/// that it looks at, and what the ledger lacks of what it names.
#[derive(Debug, Default)]
pub(crate) struct Owned {
    pub outputs: Vec<OutputState>,
    pub looked_at: BTreeMap<StateRef, StateContent>,
    pub own_keys: BTreeSet<PublicKey>,
    pub parameters: Option<NewParameters>,
}

impl LedgerEnvironment {
    /// Reads a transaction that somebody hands in.
    pub fn given(&self, bytes: &[u8]) -> Result<Signed, FlowError> {
        self.services.findings.decode(bytes).map_err(|refused| refusal::refused(&refused))
    }

    /// With the keys that are the identity's own, with what is looked at, and with the parameters that its ledger does not have
    /// yet.
    pub async fn owned(&self, core: &TxCore, outputs: &[OutputState], fresh: &Fresh) -> Result<Owned, Trouble> {
        let parameters = self.parameters_to_keep(core.parameters()).await?;
        let looked_at = self.describe_references(core, fresh).await?;
        let own_keys = self.own_keys(outputs).await?;
        let outputs = self.with_key_external_ids(outputs, &own_keys).await?;
        Ok(Owned { own_keys, outputs, looked_at, parameters })
    }

    /// A transaction that is part of the identity's ledger, with its signatures.
    pub async fn stored(&self, id: &SecureHash) -> Result<Option<(TransactionStatus, Signed)>, Trouble> {
        let (store, identity) = (&self.services.committer.store, self.opened.entry.row);
        if let Some(signed) = self.services.findings.recorded(identity, id) {
            return Ok(Some((TransactionStatus::Verified, signed)));
        }
        let found = store.ledger_transaction(identity, id).await.map_err(failed)?;
        let Some(found) = found else { return Ok(None) };
        if found.body.is_none() {
            return Ok(None);
        }
        let signed = Signed::stored(&found)
            .map_err(|error| Trouble::defect(format!("transaction {id} cannot be read: {error}")))?;
        // It stays what it is.
        if found.status == TransactionStatus::Verified {
            let length = found.body.as_ref().map_or(0, |body| body.len()) + found.signatures.len();
            self.services.findings.record(identity, &signed, length);
        }
        Ok(Some((found.status, signed)))
    }

    /// Transactions with their bytes, in this order, at most so many bytes or one.
    pub async fn bodies(&self, ids: &[SecureHash], bytes: usize) -> Result<Vec<LedgerTransaction>, Trouble> {
        let store = &self.services.committer.store;
        store.ledger_bodies(self.opened.entry.row, ids, bytes).await.map_err(failed)
    }

    /// How far those of these transactions have come that are known.
    pub async fn statuses(&self, ids: &[SecureHash]) -> Result<Vec<(SecureHash, TransactionStatus)>, Trouble> {
        let store = &self.services.committer.store;
        store.ledger_statuses(self.opened.entry.row, ids).await.map_err(failed)
    }

    /// Those of these transactions that are part of the ledger.
    pub async fn verified(&self, ids: &[SecureHash]) -> Result<BTreeSet<SecureHash>, Trouble> {
        let found = self.statuses(ids).await?.into_iter();
        Ok(found.filter(|(_, status)| *status == TransactionStatus::Verified).map(|(id, _)| id).collect())
    }

    /// A transaction that is part of the ledger, or will be.
    pub async fn verified_core(&self, id: &SecureHash, fresh: &Fresh) -> Result<Option<TxCore>, Trouble> {
        if let Some(core) = fresh.get(id) {
            return Ok(Some(core.clone()));
        }
        Ok(match self.stored(id).await? {
            Some((TransactionStatus::Verified, signed)) => Some(signed.core().clone()),
            _ => None,
        })
    }

    /// The state of a reference, from the transaction that made it.
    pub async fn state(&self, reference: &StateRef, fresh: &Fresh) -> Result<Option<StateAndRef>, Trouble> {
        let traced = self.traced(reference, fresh).await?;
        Ok(traced.map(|Traced { state, .. }| StateAndRef { state, reference: *reference }))
    }

    /// The states of references, each of which must be known.
    pub async fn states(
        &self,
        references: &[StateRef],
        fresh: &Fresh,
    ) -> Result<Result<Vec<StateAndRef>, Refused>, Trouble> {
        let mut found = Vec::with_capacity(references.len());
        for reference in references {
            match self.state(reference, fresh).await? {
                Some(state) => found.push(state),
                None => {
                    let message = format!("the state {reference} is not known");
                    return Ok(Err(Refused::new(Rule::StateUnknown, message).detail("state", reference)));
                }
            }
        }
        Ok(Ok(found))
    }

    /// The states that a transaction names.
    pub async fn resolve(&self, wire: &WireTransaction, fresh: &Fresh) -> Result<Result<Resolved, Refused>, Trouble> {
        let contents = wire.contents();
        let inputs = match self.states(&contents.inputs, fresh).await? {
            Ok(inputs) => inputs,
            Err(refused) => return Ok(Err(refused.of(wire.id()))),
        };
        Ok(self
            .states(&contents.references, fresh)
            .await?
            .map(|references| Resolved { inputs, references })
            .map_err(|refused| refused.of(wire.id())))
    }

    /// Whether a transaction is good: the rules of the ledger, its contracts, and the signatures of all parties. Whether it is
    /// notarised is looked at besides ([`Signed::check_notarised`]).
    pub async fn judge(&self, signed: &Signed, fresh: &Fresh) -> Result<Result<(), Refused>, Trouble> {
        let verifier = self.services.findings.verifier();
        if let Err(refused) = signed.whole.verify_signatures_by(&signed.core().party_keys(), verifier) {
            return Ok(Err(refused));
        }
        Ok(match signed.core() {
            TxCore::Wire(wire) => self.judge_contents(wire, fresh).await?.map(|_| ()),
            TxCore::NotaryChange(change) => self.judge_signed_change(signed, change, fresh).await?.map(|_| ()),
        })
    }

    /// Whether what an ordinary transaction says is good, whoever has signed: by the rules of the ledger, by its contracts, and
    /// because these can say what its outputs are. A transaction whose outputs nobody can describe is refused before it is
    /// signed, in flight or notarised: it could never be recorded.
    pub async fn judge_contents(
        &self,
        wire: &Arc<WireTransaction>,
        fresh: &Fresh,
    ) -> Result<Result<Resolved, Refused>, Trouble> {
        let parameters = match self.parameters_of(wire.contents().parameters.as_ref()).await? {
            Ok(parameters) => parameters,
            Err(refused) => return Ok(Err(refused.of(wire.id()))),
        };
        if let Err(refused) = self.check_epochs(&TxCore::Wire(wire.clone()), &parameters, fresh).await? {
            return Ok(Err(refused));
        }
        let network = self.network();
        if let Err(refused) = wire.contents().header.check_network(&network) {
            return Ok(Err(refused.of(wire.id())));
        }
        let resolved = match self.resolve(wire, fresh).await? {
            Ok(resolved) => resolved,
            Err(refused) => return Ok(Err(refused)),
        };
        let attachments = match self.attached(&wire.contents().attachments, Some(&parameters.hash)).await? {
            Ok(attachments) => attachments,
            Err(refused) => return Ok(Err(refused.of(wire.id()))),
        };
        let id = wire.id();
        if self.services.findings.is_accepted(&id) {
            return Ok(Ok(resolved));
        }
        let (contracts, wire, given) = (self.services.contracts.clone(), wire.clone(), resolved.clone());
        let states = states_of(&wire);
        let judge = move || -> Result<Result<_, Refused>, Problem> {
            let Resolved { inputs, references } = &given;
            let attachments = &attachments;
            let rules = &parameters.rules;
            let given = ToJudge { wire: &wire, inputs, references, attachments, network: &network, rules };
            match contracts.judge(given)? {
                Ok(()) => outputs(&*contracts, &wire, attachments, rules),
                Err(refused) => Ok(Err(refused)),
            }
        };
        let judged = self.ask_contracts(states, judge).await?;
        Ok(judged.map(|outputs| {
            self.services.findings.accept(id);
            self.services.findings.describe(id, outputs);
            resolved
        }))
    }

    /// Judges what transactions say, and describes their outputs: all of them at once, on all processors. The first that is
    /// refused is the answer.
    pub async fn judge_all(
        &self,
        batch: &[Signed],
        fresh: &Fresh,
    ) -> Result<Result<Vec<Arc<[OutputState]>>, Refused>, Trouble> {
        let network = self.network();
        let mut given = Vec::with_capacity(batch.len());
        // What is known: of changes of notary, which are judged here, because no code runs for them but that which says who takes
        // part; and of what was judged before.
        let mut known = BTreeMap::new();
        for signed in batch {
            let wire = match signed.core() {
                TxCore::Wire(wire) => wire.clone(),
                TxCore::NotaryChange(change) => {
                    match self.judge_signed_change(signed, change, fresh).await? {
                        Ok(judged) => drop(known.insert(signed.id(), judged.outputs)),
                        Err(refused) => return Ok(Err(refused)),
                    }
                    continue;
                }
            };
            let named = wire.contents().parameters.as_ref();
            let parameters = match self.parameters_of(named).await? {
                Ok(parameters) => match self.check_epochs(signed.core(), &parameters, fresh).await? {
                    Ok(()) => Ok(parameters),
                    Err(refused) => Err(refused),
                },
                Err(refused) => Err(refused),
            };
            let resolved = self.resolve(&wire, fresh).await?;
            let attachments = self.attached(&wire.contents().attachments, named).await?;
            let together = parameters.and_then(|parameters| Ok((parameters, resolved?, attachments?)));
            let (id, findings) = (wire.id(), &self.services.findings);
            match together {
                Ok((parameters, resolved, attachments)) => {
                    let is_accepted = findings.is_accepted(&id);
                    match findings.outputs(&id).filter(|_| is_accepted) {
                        Some(outputs) => drop(known.insert(id, outputs)),
                        None => given.push((wire, parameters, resolved, attachments, is_accepted)),
                    }
                }
                Err(refused) => return Ok(Err(refused.of(wire.id()))),
            }
        }
        let contracts = self.services.contracts.clone();
        let judge = move |one: &(Arc<WireTransaction>, Arc<KnownParameters>, Resolved, Vec<Attached>, bool)| {
            let (wire, parameters, Resolved { inputs, references }, attachments, is_accepted) = one;
            let rules = &parameters.rules;
            let given = ToJudge { wire, inputs, references, attachments, network: &network, rules };
            match if *is_accepted { Ok(()) } else { contracts.judge(given)? } {
                Ok(()) => outputs(&*contracts, wire, attachments, rules),
                Err(refused) => Ok(Err(refused)),
            }
        };
        let judged: Vec<LedgerResult<_>> = match given.len() {
            1 => {
                let states = given.iter().map(|(wire, ..)| states_of(wire)).sum();
                let judged = move || given.iter().map(&judge).collect::<Result<Vec<_>, Problem>>();
                self.ask_contracts(states, judged).await?
            }
            _ => {
                let judged = on_all(self, given, move |one| judge(&one)).await?;
                judged.into_iter().collect::<Result<_, Problem>>().map_err(Trouble::Passing)?
            }
        };
        let mut judged = judged.into_iter();
        let mut all = Vec::with_capacity(batch.len());
        for signed in batch {
            let outputs = match known.remove(&signed.id()) {
                Some(outputs) => Ok(outputs),
                None => judged.next().ok_or_else(|| Trouble::defect("a transaction was not judged"))?,
            };
            if let Ok(outputs) = &outputs {
                self.services.findings.accept(signed.id());
                self.services.findings.describe(signed.id(), outputs.clone());
            }
            all.push(outputs);
        }
        Ok(all.into_iter().collect())
    }

    /// What happened to a transaction, for the ledger.
    pub async fn recording(
        &self,
        signed: &Signed,
        event: TransactionEvent,
        what: StatesToRecord,
        by: By,
    ) -> Result<Result<LedgerOp, Refused>, Trouble> {
        if event != TransactionEvent::Finalised {
            let parameters = self.parameters_to_keep(signed.core().parameters()).await?;
            return Ok(self.record(signed, event, what, by, Owned { parameters, ..Owned::default() }));
        }
        let outputs = match self.describe(signed.core()).await? {
            Ok(outputs) => outputs,
            Err(refused) => return Ok(Err(refused)),
        };
        if let Some(refused) = self.contradiction(signed).await? {
            return Ok(Err(refused));
        }
        let owned = self.owned(signed.core(), &outputs, &Fresh::new()).await?;
        Ok(self.record(signed, event, what, by, owned))
    }

    /// What happened to a transaction, for the ledger, when it is known what its outputs are.
    ///
    /// # Errors
    /// The transaction has no encoding.
    pub fn record(
        &self,
        signed: &Signed,
        event: TransactionEvent,
        what: StatesToRecord,
        by: By,
        owned: Owned,
    ) -> LedgerResult<LedgerOp> {
        let core = signed.core();
        let Owned { outputs, own_keys, mut looked_at, parameters } = owned;
        let kind = match core {
            TxCore::Wire(_) => TransactionKind::Ordinary,
            TxCore::NotaryChange(_) => TransactionKind::NotaryChange,
        };
        Ok(LedgerOp::Record(Box::new(Recording {
            event,
            id: signed.id(),
            kind,
            body: core.encode()?.into(),
            signatures: signed.whole.signatures().to_vec(),
            inputs: core.inputs().to_vec(),
            references: core.references().iter().map(|reference| (*reference, looked_at.remove(reference))).collect(),
            outputs,
            what,
            own_keys,
            parameters,
            flow: by.flow,
            settlement: by.settlement,
            at: self.now(),
        })))
    }

    /// An input that another recorded transaction has consumed. The commit would refuse it too, and the flow would try again
    /// and again.
    async fn contradiction(&self, signed: &Signed) -> Result<Option<Refused>, Trouble> {
        let inputs = signed.core().inputs();
        let spent = self.services.committer.store.spent_by(self.opened.entry.row, inputs).await.map_err(failed)?;
        Ok(spent.into_iter().find(|(_, by)| *by != signed.id()).map(|(state, by)| {
            let message = format!("the state {state} was consumed by the recorded transaction {by} already");
            Refused::new(Rule::RecordingInvalid, message).of(signed.id()).detail("state", state)
        }))
    }
}

/// A read that failed, as trouble of the host.
pub(crate) fn failed(error: maxhost_store::StoreError) -> Trouble {
    Trouble::from(Problem::from(error))
}

impl FlowCalls {
    /// Reads a transaction that a guest or a peer hands in.
    pub(super) fn given(&self, bytes: &[u8]) -> Result<Signed, FlowError> {
        self.environment().given(bytes)
    }

    /// As [`FlowCalls::given`], for an ordinary one.
    pub(super) fn given_ordinary(&self, bytes: &[u8]) -> Result<(Signed, Arc<WireTransaction>), FlowError> {
        let signed = self.given(bytes)?;
        let wire = signed.ordinary().map_err(|refused| refusal::refused(&refused))?.clone();
        Ok((signed, wire))
    }
}
