//! A notary: the native responder of the protocol of notaries.

use std::sync::Arc;

use bytes::Bytes;
use maxhost_journal::Call;
use maxhost_ledger::Rule;
use maxhost_ledger::notary::{NotaryError, NotaryPayload, NotaryRequest, NotaryService, Parameters, check_request};
use maxhost_ledger::tx::{Core, LedgerRules, NotaryRole};
use maxhost_model::{FlowError, Party, SecureHash, X500Name};
use maxhost_sandbox::{CallError, CallResult, Outcome};

use super::back_chain::{Expected, SignedBy};
use super::environment::LedgerEnvironment;
use super::notary_batches::{Asked, InBatch, decide_in_batch};
use super::protocol::{Encoded, FromVendor, NotaryAnswer, ToVendor, WantedPiece};
use super::refusal;
use super::transactions::Signed;
use super::vending::expected;
use crate::base::trouble::Trouble;
use crate::calls::FlowCalls;
use crate::guests::flow_code::NativeKind;
use crate::ledger::notary_queue::milliseconds;
use crate::ledger::parameters::KnownParameters;

/// The session that a responder is given.
pub(super) const SESSION: u32 = 0;

/// The first pause before a request for which there was no room is handed in again, and the longest, milliseconds.
const FIRST_PAUSE_MS: u64 = 250;
const LONGEST_PAUSE_MS: u64 = 10_000;

/// CBOR of nothing: the result of a responder.
pub(super) const NOTHING: &[u8] = &[0xf6];

/// The parameters that a request names, if they are known.
struct NamedParameters(Option<Arc<KnownParameters>>);

impl Parameters for NamedParameters {
    fn rules(&self, hash: &SecureHash) -> Option<&LedgerRules> {
        self.0.as_ref().filter(|known| known.hash == *hash).map(|known| &known.rules)
    }
}

impl FlowCalls {
    /// Answers one request.
    pub(super) async fn serve_as_notary(&mut self) -> CallResult<Bytes> {
        let Encoded(bytes) = self.hear(SESSION).await?;
        let caller = self.caller()?;
        let request = NotaryRequest::decode(&bytes).map_err(|refused| NotaryError::invalid(&refused));
        let answer = match request {
            Ok(request) => self.decide(&caller, request).await?,
            Err(error) => NotaryAnswer::Refused(error),
        };
        self.tell(SESSION, &answer).await?;
        Ok(Bytes::from_static(NOTHING))
    }

    /// Whoever will wait for long is told.
    async fn tell_wait(&mut self, caller: &str, states: usize) -> CallResult<()> {
        let (opened, caller) = (self.opened.clone(), caller.to_owned());
        let wait: Option<u64> = self
            .step("look how many wait", async move {
                let queue = opened.notary.as_ref().map(|notary| &notary.queue);
                Ok(Ok((queue.and_then(|queue| queue.wait_ms(&caller, states)), Vec::new())))
            })
            .await?;
        match wait {
            Some(milliseconds) => self.tell(SESSION, &NotaryAnswer::Wait(milliseconds)).await,
            None => Ok(()),
        }
    }

    fn caller(&mut self) -> CallResult<String> {
        self.peer_of(SESSION)
    }

    async fn decide(&mut self, caller: &str, request: NotaryRequest) -> CallResult<NotaryAnswer> {
        let Some(validating) = self.opened.notary.as_ref().map(|notary| notary.validating) else {
            let message = "this identity is no notary".to_owned();
            return Ok(NotaryAnswer::Refused(NotaryError::General { message }));
        };
        if let NotaryPayload::Full(signed) = &request.payload
            && matches!(signed.core(), Core::NotaryChange(_))
            && !validating
        {
            // Whoever asks cannot know what a notary does that the network does not list any more, and gives it in any case.
            let FromVendor::Transaction(_) = self.hear(SESSION).await? else {
                return Err(refusal::protocol("a transaction was expected").into());
            };
            self.tell(SESSION, &ToVendor::Done).await?;
        }
        if validating {
            let refused = match self.validate(&request).await {
                Ok(()) => None,
                Err(CallError::Failure(error)) if error.peer.is_none() => Some(error),
                Err(other) => return Err(other),
            };
            if let Some(error) = refused {
                self.tell(SESSION, &ToVendor::Done).await?;
                return Ok(NotaryAnswer::Refused(invalid(*error)));
            }
            self.tell(SESSION, &ToVendor::Done).await?;
        }
        self.tell_wait(caller, states_of(&request.payload)).await?;
        let (mut pause, mut is_told) = (FIRST_PAUSE_MS, false);
        loop {
            match self.notarise_or_wait(caller, &request).await? {
                NotaryAnswer::Wait(milliseconds) => {
                    if !is_told {
                        is_told = true;
                        self.tell(SESSION, &NotaryAnswer::Wait(milliseconds)).await?;
                    }
                    self.ask(Call::Sleep(pause)).await?;
                    pause = (pause * 2).min(LONGEST_PAUSE_MS);
                }
                NotaryAnswer::FetchParameters(wanted) => {
                    if let Some(refused) = self.fetch_parameters(wanted.of, wanted.id).await? {
                        return Ok(NotaryAnswer::Refused(refused));
                    }
                }
                answer => return Ok(answer),
            }
        }
    }

    /// Decides a request, if there is room for it and the parameters that it names are known: else the answer is that its caller
    /// waits, or that it has to give them.
    async fn notarise_or_wait(&mut self, caller: &str, request: &NotaryRequest) -> CallResult<NotaryAnswer> {
        let (environment, builds_on) = (self.environment(), self.built_on());
        self.step(&format!("notarise {}", request.payload.id()), async move {
            let Some(notary) = environment.opened.notary.clone() else {
                return Err(Trouble::defect("the identity stopped being a notary"));
            };
            let party = match known_party(&environment, caller)? {
                Ok(party) => party,
                Err(error) => return Ok(Err(error)),
            };
            let network = environment.network();
            let service =
                NotaryService { identity: environment.us(), validating: notary.validating, network: &network };
            let named = request.payload.parameters().copied();
            let known = match &named {
                Some(hash) => environment.known_parameters(hash).await?,
                None => None,
            };
            let is_known = known.is_some();
            let checked = check_request(request, &party.owning_key, service, &NamedParameters(known), |_| Ok(()));
            let answer = match (checked, named) {
                // Nothing is wrong with it that can be told without them.
                (Err(NotaryError::TransactionInvalid { code, .. }), Some(hash))
                    if !is_known && code == Rule::ParametersUnknown.as_str() =>
                {
                    NotaryAnswer::FetchParameters(WantedPiece { of: request.payload.id(), id: hash, from: 0 })
                }
                (Err(error), _) => NotaryAnswer::Refused(error),
                (Ok(checked), named) => {
                    let role = if notary.validating { NotaryRole::Validated } else { NotaryRole::Uniqueness };
                    // What it signs may come again when other parameters are in force.
                    let kept = environment.parameters_to_keep(named.as_ref()).await?;
                    let asked = Asked { caller, request: checked, parameters: kept, builds_on };
                    let decided = decide_in_batch(&notary.queue, environment.clone(), role, asked).await?;
                    match decided {
                        InBatch::Decided(Ok(signature)) => NotaryAnswer::Signed(vec![signature]),
                        InBatch::Decided(Err(error)) => NotaryAnswer::Refused(error),
                        InBatch::NoRoom(wait) => NotaryAnswer::Wait(milliseconds(wait)),
                    }
                }
            };
            Ok(Ok((answer, Vec::new())))
        })
        .await
    }

    /// Gets the network parameters of a transaction from whoever asks to have it notarised. Gives why it is refused, if they are
    /// not to be had.
    async fn fetch_parameters(&mut self, of: SecureHash, hash: SecureHash) -> CallResult<Option<NotaryError>> {
        let ask = |wanted| NotaryAnswer::FetchParameters(wanted);
        match self.get_parameters_by(SESSION, &[(of, hash)], ask).await {
            Ok(()) => Ok(None),
            Err(CallError::Failure(error)) if error.peer.is_none() => Ok(Some(invalid(*error))),
            Err(other) => Err(other),
        }
    }

    /// A notary that validates verifies the transaction, and all that it comes from.
    async fn validate(&mut self, request: &NotaryRequest) -> CallResult<()> {
        let id = request.payload.id();
        let signed: Signed = self.get(SESSION, SignedBy::AllButNotary, Expected::Any).await?;
        expected(&signed, Some(&id))?;
        self.judge_received(&signed).await
    }
}

/// What refuses a request whose transaction was looked at, and failed.
fn invalid(error: FlowError) -> NotaryError {
    NotaryError::TransactionInvalid { code: refusal::code_of(&error), message: error.message }
}

/// How many states a request names.
fn states_of(payload: &NotaryPayload) -> usize {
    match payload {
        NotaryPayload::Full(signed) => signed.core().inputs().len() + signed.core().references().len(),
        NotaryPayload::Filtered(filtered) => filtered.contents().inputs.len() + filtered.contents().references.len(),
    }
}

fn known_party(environment: &LedgerEnvironment, name: &str) -> Result<Result<Party, FlowError>, Trouble> {
    let Ok(parsed) = X500Name::parse(name) else {
        return Ok(Err(refusal::protocol(format!("'{name}' is no party"))));
    };
    match environment.services.parties.party(&parsed) {
        Ok(Some(party)) => Ok(Ok(party)),
        Ok(None) | Err(Trouble::Permanent(_)) => {
            Ok(Err(refusal::protocol(format!("the network does not know {name}"))))
        }
        Err(passing) => Err(passing),
    }
}

/// Runs a native flow to its end, which is told as that of a guest.
pub(crate) async fn run_native(run: &mut FlowCalls, kind: NativeKind, arguments: &[u8]) -> Outcome {
    let ended = match kind {
        NativeKind::Notarise => run.serve_as_notary().await,
        NativeKind::Decided => run.say_what_is_decided().await,
        NativeKind::Settle => run.settle(arguments).await,
        NativeKind::ChangeNotary => run.take_part_in_notary_change().await,
    };
    match ended {
        Ok(result) => Outcome::Returned(result.into()),
        Err(CallError::Failure(error)) => Outcome::Failed(error),
        Err(CallError::Stop) => Outcome::Stopped,
    }
}
