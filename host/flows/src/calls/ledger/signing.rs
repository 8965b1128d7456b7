//! Signing, collecting signatures, and giving one's own.

use std::collections::BTreeSet;
use std::sync::Arc;

use maxhost_ledger::refused::Refused;
use maxhost_ledger::tx::signature::sign;
use maxhost_ledger::tx::{Core as TxCore, SignedTransaction, WireTransaction};
use maxhost_ledger::{Result as LedgerResult, Rule};
use maxhost_model::PublicKey;
use maxhost_model::network::PLATFORM_VERSION;
use maxhost_sandbox::CallResult;

use super::back_chain::{Expected, SignedBy};
use super::environment::LedgerEnvironment;
use super::keys::OwnSigner;
use super::protocol::ToVendor;
use super::refusal;
use super::transactions::{Fresh, Signed};
use crate::base::trouble::Trouble;
use crate::calls::FlowCalls;

impl LedgerEnvironment {
    /// A transaction with this identity's signatures and no others: those of its keys that must sign, or, if none must, that
    /// of its legal one. They are those of a party, also if the identity is the notary: what it notarises it is asked for as
    /// anybody asks. A signature that need not be there would tell who has the keys that states do not name.
    pub async fn sign_new(&self, wire: WireTransaction) -> Result<LedgerResult<Signed>, Trouble> {
        let mut signers = self.signers_among(&wire.party_keys()).await?;
        if signers.is_empty() {
            signers.push(OwnSigner::Legal(self.signer()));
        }
        let wire = Arc::new(wire);
        let signed = || {
            let signatures = signers.iter().map(|signer| sign(&wire.id(), signer, PLATFORM_VERSION));
            let signatures = signatures.collect::<LedgerResult<Vec<_>>>()?;
            Ok(Signed { whole: SignedTransaction::new(TxCore::Wire(wire.clone()), signatures)? })
        };
        Ok(signed())
    }

    /// The keys of parties that have not signed.
    pub fn missing(&self, signed: &Signed) -> BTreeSet<PublicKey> {
        signed.whole.missing(&signed.core().party_keys())
    }
}

impl FlowCalls {
    /// Asks the other sides of sessions for the signatures of parties that are missing. Each of them must have one
    /// to give, and all that are missing must come.
    pub(crate) async fn collect(&mut self, bytes: &[u8], sessions: &[u32]) -> CallResult<Signed> {
        let (mut signed, _) = self.given_ordinary(bytes)?;
        for session in sessions {
            let answer = self.give(*session, &signed).await?;
            let ToVendor::Signed(signatures) = answer else {
                return Err(refusal::protocol("a signature was expected").into());
            };
            signed = signed.plus(signatures).map_err(|refused| refusal::refused(&refused))?;
            signed.whole.check_signatures().map_err(|refused| refusal::refused(&refused))?;
        }
        let missing = self.environment().missing(&signed);
        if let Some(key) = missing.first() {
            let message = format!("{} keys have not signed, {key} for one", missing.len());
            let refused = Refused::new(Rule::SignatureMissing, message).of(signed.id()).detail("keys", key);
            return Err(refusal::refused(&refused).into());
        }
        Ok(signed)
    }

    /// Gets a transaction to sign, verified as far as it is signed: what it does is for the author to judge.
    pub(crate) async fn receive_to_sign(&mut self, session: u32) -> CallResult<Signed> {
        let signed = self.get(session, SignedBy::SoFar, Expected::Ordinary).await?;
        let wire = signed.ordinary().map_err(|refused| refusal::refused(&refused))?.clone();
        let environment = self.environment();
        self.step(&format!("verify {} to sign it", signed.id()), async move {
            let judged = environment.judge_contents(&wire, &Fresh::new()).await?;
            Ok(judged.map(|_| ((), Vec::new())).map_err(|refused| refusal::refused(&refused)))
        })
        .await?;
        Ok(signed)
    }

    /// Signs a transaction that was got with [`FlowCalls::receive_to_sign`], and gives the signature.
    pub(crate) async fn return_signature(&mut self, session: u32, bytes: &[u8]) -> CallResult<()> {
        let (signed, _) = self.given_ordinary(bytes)?;
        let environment = self.environment();
        if !environment.missing(&signed).contains(&environment.us().owning_key) {
            let text = "this identity's signature is not among those that are missing";
            return Err(refusal::argument(text).into());
        }
        let signature = sign(&signed.id(), &environment.signer(), PLATFORM_VERSION);
        let signature = signature.map_err(|refused| refusal::refused(&refused))?;
        self.tell(session, &ToVendor::Signed(vec![signature])).await
    }
}
