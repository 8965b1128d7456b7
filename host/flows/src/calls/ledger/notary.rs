//! A notary: the native responder of the protocol of notaries.

use std::sync::Arc;

use bytes::Bytes;
use maxhost_ledger::notary::{NotaryError, NotaryPayload, NotaryRequest, NotaryService, Parameters, check_request};
use maxhost_ledger::tx::{Core, LedgerRules, NotaryRole};
use maxhost_model::{FlowError, Party, SecureHash, X500Name};
use maxhost_sandbox::{CallError, CallResult, Outcome};

use super::back_chain::{Expected, SignedBy};
use super::environment::LedgerEnvironment;
use super::notary_batches::decide_in_batch;
use super::protocol::{Encoded, FromVendor, NotaryAnswer, ToVendor};
use super::refusal;
use super::transactions::Signed;
use super::vending::expected;
use crate::calls::FlowCalls;
use crate::flow_code::NativeKind;
use crate::parameters::KnownParameters;
use crate::trouble::Trouble;

/// The session that a responder is given.
pub(super) const SESSION: u32 = 0;

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
    async fn tell_wait(&mut self) -> CallResult<()> {
        let opened = self.opened.clone();
        let wait: Option<u64> = self
            .step("look how many wait", async move {
                Ok(Ok((opened.notary.as_ref().and_then(|notary| notary.queue.wait_ms()), Vec::new())))
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
                let code = error.exception.clone().unwrap_or_default();
                let error = NotaryError::TransactionInvalid { code, message: error.message };
                return Ok(NotaryAnswer::Refused(error));
            }
            self.tell(SESSION, &ToVendor::Done).await?;
        }
        self.tell_wait().await?;
        let (environment, caller) = (self.environment(), caller.to_owned());
        self.step(&format!("notarise {}", request.payload.id()), async move {
            let Some(notary) = environment.opened.notary.clone() else {
                return Err(Trouble::defect("the identity stopped being a notary"));
            };
            let party = match known_party(&environment, &caller)? {
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
            let checked = check_request(&request, &party.owning_key, service, &NamedParameters(known), |_| Ok(()));
            let answer = match checked {
                Err(error) => NotaryAnswer::Refused(error),
                Ok(checked) => {
                    let role = if notary.validating { NotaryRole::Validated } else { NotaryRole::Uniqueness };
                    // What it signs may come again when other parameters are in force.
                    let kept = environment.parameters_to_keep(named.as_ref()).await?;
                    let decided =
                        decide_in_batch(&notary.queue, environment.clone(), role, caller, checked, kept).await?;
                    match decided {
                        Ok(signature) => NotaryAnswer::Signed(vec![signature]),
                        Err(error) => NotaryAnswer::Refused(error),
                    }
                }
            };
            Ok(Ok((answer, Vec::new())))
        })
        .await
    }

    /// A notary that validates verifies the transaction, and all that it comes from.
    async fn validate(&mut self, request: &NotaryRequest) -> CallResult<()> {
        let id = request.payload.id();
        let signed: Signed = self.get(SESSION, SignedBy::AllButNotary, Expected::Any).await?;
        expected(&signed, Some(&id))?;
        self.judge_received(&signed).await
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
