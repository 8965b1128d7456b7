//! States of the vault, for guests: selecting and locking, and queries.

use maxhost_journal::Call;
use maxhost_ledger::notary::MAX_STATES;
use maxhost_ledger::tx::{StateAndRef, StateRef, TransactionState};
use maxhost_ledger::vault::locks::ClaimId;
use maxhost_ledger::vault::query::{Criterion, Cursor, Query, SortKey, StatusFilter, parse};
use maxhost_ledger::vault::recording::TransactionStatus;
use maxhost_ledger::{Refused, Result as LedgerResult, Rule, codec};
use maxhost_model::text::is_storable;
use maxhost_model::{FlowError, SecureHash};
use maxhost_sandbox::{AmountWanted, CallResult, GuestState, VaultQuery};
use maxhost_store::ledger::query::page;
use maxhost_store::ledger::{ClaimOp, Holding, LedgerOp, LedgerReceipt, Reservation};
use serde::{Deserialize, Serialize};

use super::back_chain::{Expected, SignedBy};
use super::environment::LedgerEnvironment;
use super::pointers::qualified;
use super::protocol::{Encoded, GivenStates, ToVendor};
use super::refusal;
use super::transactions::{Fresh, failed};
use super::vending::expected;
use crate::base::trouble::Trouble;
use crate::calls::FlowCalls;

/// The lease of a lock: as long as a transaction may be notarised after it was built.
const LEASE: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
/// The most states that are given at once.
const MAX_GIVEN: usize = 1_000;
/// The most states that can only be spent together: as many as a notary takes at once.
const MAX_TOGETHER: usize = MAX_STATES;
/// The longest token or name of a party that a state may be selected by, bytes. Those that states have are shorter.
const MAX_WORD: usize = 2_048;
/// How long is waited before locked states are looked at again, milliseconds.
const LOOK_AGAIN_MS: u64 = 100;

/// A state as the journal keeps it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Noted {
    reference: String,
    type_name: String,
    #[serde(with = "maxhost_model::octets")]
    data: Vec<u8>,
    notary: String,
}

impl Noted {
    pub(super) fn new(reference: &StateRef, state: &TransactionState) -> Noted {
        Noted {
            reference: reference.to_string(),
            type_name: state.qualified_type(),
            data: state.data.bytes().to_vec(),
            notary: state.notary.name.to_string(),
        }
    }

    pub(super) fn guest(self) -> GuestState {
        let Noted { reference, type_name, data, notary } = self;
        GuestState { reference, type_name, data, notary }
    }
}

/// What a claim comes to, as the journal keeps it.
#[derive(Debug, Serialize, Deserialize)]
enum Selected {
    States(Vec<Noted>),
    /// Others hold too much of it.
    Locked(Box<FlowError>),
}

impl FlowCalls {
    /// The flow as a holder of locks. Each call names the next claim; the same calls name the same.
    pub(super) fn holding(&mut self) -> Holding {
        self.claims += 1;
        let id = self.flow.id();
        let digest = SecureHash::of(&[&id.to_bytes()[..], &self.claims.to_be_bytes()].concat());
        let mut claim: ClaimId = [0; 16];
        claim.copy_from_slice(&digest.as_bytes()[..16]);
        let until = self.environment().now().plus(LEASE);
        Holding { flow: self.flow.row, holder: id.to_string(), claim, until }
    }

    /// Selects states for an amount and locks them. While others hold too much of it, waits as long as the author says.
    pub(crate) async fn select(&mut self, wanted: AmountWanted) -> CallResult<Vec<GuestState>> {
        let wanted = checked(wanted)?;
        let mut waited = 0;
        loop {
            let holding = self.holding();
            let mut seed = [0; 8];
            seed.copy_from_slice(&holding.claim[..8]);
            let environment = self.environment();
            let op = LedgerOp::Claim(Box::new(ClaimOp {
                type_name: wanted.type_name.clone(),
                token: wanted.token.clone(),
                issuer: wanted.issuer.clone(),
                notary: wanted.notary.clone(),
                quantity: wanted.quantity,
                holding,
                now: environment.now(),
                seed: u64::from_be_bytes(seed),
            }));
            let answer = self.commit_now(op);
            let what = format!("select {} {} of {}", wanted.quantity, wanted.token, wanted.type_name);
            let selected: Selected = self
                .step(&what, async move {
                    match answer.await? {
                        LedgerReceipt::Claimed(Ok(states)) => {
                            let states = noted(&environment, &states).await?;
                            Ok(states.map(|states| (Selected::States(states), Vec::new())))
                        }
                        LedgerReceipt::Claimed(Err(failure)) if failure.is_transient() => {
                            Ok(Ok((Selected::Locked(Box::new(refusal::selection(&failure))), Vec::new())))
                        }
                        LedgerReceipt::Claimed(Err(failure)) => Ok(Err(refusal::selection(&failure))),
                        _ => Err(Trouble::defect("the ledger did not answer the claim")),
                    }
                })
                .await?;
            match selected {
                Selected::States(states) => return Ok(states.into_iter().map(Noted::guest).collect()),
                Selected::Locked(error) if waited >= wanted.wait_ms => return Err((*error).into()),
                Selected::Locked(_) => {
                    self.ask(Call::Sleep(LOOK_AGAIN_MS)).await?;
                    waited += LOOK_AGAIN_MS;
                }
            }
        }
    }

    /// Locks exactly these states.
    pub(crate) async fn lock(&mut self, references: Vec<String>) -> CallResult<Vec<GuestState>> {
        let states = parsed(&references)?;
        let holding = self.holding();
        let environment = self.environment();
        let reservation = Reservation { states: states.iter().copied().collect(), holding, now: environment.now() };
        let answer = self.commit_now(LedgerOp::Reserve(Box::new(reservation)));
        let locked: Vec<Noted> = self
            .step(&format!("lock {} states", states.len()), async move {
                match answer.await? {
                    LedgerReceipt::Reserved(Ok(())) => {
                        let states = noted(&environment, &states).await?;
                        Ok(states.map(|states| (states, Vec::new())))
                    }
                    LedgerReceipt::Reserved(Err(missing)) => Ok(Err(refusal::locked(&missing))),
                    _ => Err(Trouble::defect("the ledger did not answer")),
                }
            })
            .await?;
        Ok(locked.into_iter().map(Noted::guest).collect())
    }

    /// Locks a state with those that encumber each other in one circle with it.
    pub(crate) async fn lock_together(&mut self, reference: String) -> CallResult<Vec<GuestState>> {
        let first: StateRef = reference.parse().map_err(|refused| refusal::refused(&refused))?;
        let environment = self.environment();
        let circle: Vec<String> = self
            .step(&format!("find what is spent together with {first}"), async move {
                let circle = circle(&environment, first).await?;
                let names = |circle: Vec<StateAndRef>| circle.iter().map(|state| state.reference.to_string()).collect();
                Ok(circle.map(|circle| (names(circle), Vec::new())))
            })
            .await?;
        self.lock(circle).await
    }

    /// Gives states with what they come from.
    pub(crate) async fn send_states(&mut self, session: u32, references: Vec<String>) -> CallResult<()> {
        let states = parsed(&references)?;
        self.tell(session, &GivenStates(references)).await?;
        for id in made_by(&states) {
            let environment = self.environment();
            let found: Encoded = self
                .step(&format!("find {id}"), async move {
                    match environment.stored(&id).await? {
                        Some((TransactionStatus::Verified, signed)) => {
                            let bytes = signed.encode().map_err(|refused| refusal::refused(&refused));
                            Ok(bytes.map(|bytes| (Encoded(bytes), Vec::new())))
                        }
                        _ => Ok(Err(refusal::argument(format!("the transaction {id} is not known")))),
                    }
                })
                .await?;
            let signed = self.given(&found.0)?;
            self.give(session, &signed).await?;
        }
        Ok(())
    }

    /// The other side of [`FlowCalls::send_states`]: what made the states becomes part of the ledger.
    pub(crate) async fn receive_states(&mut self, session: u32) -> CallResult<Vec<GuestState>> {
        let GivenStates(references) = self.hear(session).await?;
        if references.len() > MAX_GIVEN {
            return Err(refusal::protocol(format!("more than {MAX_GIVEN} states were given at once")).into());
        }
        let states = parsed(&references)?;
        for id in made_by(&states) {
            let signed = self.get(session, SignedBy::All, Expected::Any).await?;
            expected(&signed, Some(&id))?;
            self.verify_and_record(&signed).await?;
            self.tell(session, &ToVendor::Done).await?;
        }
        self.ledger_written().await?;
        let environment = self.environment();
        let found: Vec<Noted> = self
            .step(&format!("take {} states", states.len()), async move {
                let mut found = Vec::with_capacity(states.len());
                for reference in &states {
                    match environment.state(reference, &Fresh::new()).await? {
                        Some(state) => found.push(Noted::new(reference, &state.state)),
                        None => return Ok(Err(refusal::protocol(format!("there is no state {reference}")))),
                    }
                }
                Ok(Ok((found, Vec::new())))
            })
            .await?;
        Ok(found.into_iter().map(Noted::guest).collect())
    }

    /// A page of what a query finds.
    pub(crate) async fn query(&mut self, asked: VaultQuery) -> CallResult<(Vec<GuestState>, Option<String>)> {
        let environment = self.environment();
        let (states, cursor): (Vec<Noted>, Option<String>) = self
            .step("query the vault", async move {
                let (query, cursor) = match read_query(&asked) {
                    Ok(query) => query,
                    Err(refused) => return Ok(Err(refusal::refused(&refused))),
                };
                let (store, identity) = (&environment.services.committer.store, environment.opened.entry.row);
                let found = page(&**store, identity, &query, cursor.as_ref(), None, environment.now()).await;
                let found = found.map_err(failed)?;
                let mut states = Vec::with_capacity(found.rows.len());
                for row in &found.rows {
                    let state: TransactionState = codec::decode("state", &row.state)
                        .map_err(|error| Trouble::defect(format!("a state cannot be read: {error}")))?;
                    states.push(Noted::new(&row.row.reference, &state));
                }
                Ok(Ok(((states, found.cursor.map(|cursor| cursor.to_string())), Vec::new())))
            })
            .await?;
        Ok((states.into_iter().map(Noted::guest).collect(), cursor))
    }
}

/// A state, the one that encumbers it, the one that encumbers that, and so on until the first comes again.
pub(super) async fn circle(
    environment: &LedgerEnvironment,
    first: StateRef,
) -> Result<Result<Vec<StateAndRef>, FlowError>, Trouble> {
    let (mut circle, mut next) = (Vec::<StateAndRef>::new(), Some(first.index));
    while let Some(index) = next {
        let reference = StateRef::new(first.tx, index);
        let Some(state) = environment.state(&reference, &Fresh::new()).await? else { return Ok(Err(unknown(&first))) };
        // A recorded transaction has closed circles, each of its outputs once.
        next = state.state.encumbrance.filter(|next| *next != first.index && circle.len() < MAX_TOGETHER);
        circle.push(state);
    }
    Ok(Ok(circle))
}

pub(super) fn unknown(state: &StateRef) -> FlowError {
    let refused = Refused::new(Rule::StateUnknown, format!("the state {state} is not known"));
    refusal::refused(&refused.detail("state", state))
}

/// What is wanted, in names and tokens that states can have: they go to the journal and to the database.
fn checked(wanted: AmountWanted) -> Result<AmountWanted, FlowError> {
    let names =
        [("a token", Some(&wanted.token)), ("an issuer", wanted.issuer.as_ref()), ("a notary", wanted.notary.as_ref())];
    for (what, name) in names {
        if name.is_some_and(|name| name.len() > MAX_WORD || !is_storable(name)) {
            let message = format!("{what} has more than {MAX_WORD} bytes or a NUL character, so no state has it");
            return Err(refusal::argument(message));
        }
    }
    let type_name = qualified(wanted.type_name)?;
    Ok(AmountWanted { type_name, ..wanted })
}

pub(super) fn parsed(references: &[String]) -> Result<Vec<StateRef>, FlowError> {
    let parsed: LedgerResult<Vec<StateRef>> = references.iter().map(|text| text.parse()).collect();
    parsed.map_err(|refused| refusal::refused(&refused))
}

/// The transactions that made these states, each once, in order.
fn made_by(states: &[StateRef]) -> Vec<SecureHash> {
    let mut ids: Vec<SecureHash> = Vec::new();
    for state in states {
        if !ids.contains(&state.tx) {
            ids.push(state.tx);
        }
    }
    ids
}

/// A query as a guest, or a client, writes it.
pub(crate) fn read_query(asked: &VaultQuery) -> LedgerResult<(Query, Option<Cursor>)> {
    let cursor: Option<Cursor> = asked.cursor.as_deref().map(str::parse).transpose()?;
    let mut query = match &cursor {
        Some(cursor) => cursor.query()?,
        None => Query {
            status: match (asked.unconsumed, asked.consumed) {
                (true, true) => StatusFilter::All,
                (false, true) => StatusFilter::Consumed,
                _ => StatusFilter::Unconsumed,
            },
            types: (!asked.types.is_empty()).then(|| asked.types.clone()),
            filter: asked.filter.as_deref().map_or_else(|| Ok(Criterion::everything()), parse)?,
            sort: asked.sort.as_deref().map_or_else(|| Ok(Vec::new()), SortKey::parse_list)?,
            ..Query::default()
        },
    };
    if let Some(limit) = asked.limit {
        query.limit = limit;
    }
    query.check()?;
    Ok((query, cursor))
}

async fn noted(environment: &LedgerEnvironment, states: &[StateRef]) -> Result<Result<Vec<Noted>, FlowError>, Trouble> {
    let mut found = Vec::with_capacity(states.len());
    for reference in states {
        match environment.state(reference, &Fresh::new()).await? {
            Some(state) => found.push(Noted::new(reference, &state.state)),
            None => {
                return Err(Trouble::defect(format!("the state {reference} is in the vault and not in the ledger")));
            }
        }
    }
    Ok(Ok(found))
}
