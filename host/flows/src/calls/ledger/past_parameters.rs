//! Network parameters of the past: getting those that transactions name and that are not here, and keeping those that are in
//! force, so that what is recorded now can be judged when others are (`docs/behaviour.md` 10.23).

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use maxhost_ledger::tx::Core as TxCore;
use maxhost_ledger::tx::verify::check_epochs;
use maxhost_ledger::{Refused, Rule};
use maxhost_model::SecureHash;
use maxhost_pki::parameters::MAX_PARAMETERS_SIZE;
use maxhost_sandbox::CallResult;
use maxhost_store::ledger::{LedgerOp, NewParameters};
use serde::Serialize;

use super::environment::LedgerEnvironment;
use super::protocol::{ToVendor, WantedPiece};
use super::refusal;
use super::transactions::{Fresh, Signed};
use crate::base::trouble::Trouble;
use crate::calls::FlowCalls;
use crate::ledger::parameters::{KnownParameters, unknown};

impl LedgerEnvironment {
    /// The parameters with this hash, if they are in force or kept in the ledger of the identity.
    pub async fn known_parameters(&self, hash: &SecureHash) -> Result<Option<Arc<KnownParameters>>, Trouble> {
        self.services.parameters.of(self.opened.entry.row, hash).await
    }

    /// Those with this hash; those in force, if none is given or they are not known.
    pub async fn named_or_in_force(&self, hash: Option<&SecureHash>) -> Result<Arc<KnownParameters>, Trouble> {
        let named = match hash {
            Some(hash) => self.known_parameters(hash).await?,
            None => None,
        };
        named.map_or_else(|| self.in_force(), Ok)
    }

    /// The parameters that a transaction names.
    pub async fn parameters_of(
        &self,
        hash: Option<&SecureHash>,
    ) -> Result<Result<Arc<KnownParameters>, Refused>, Trouble> {
        self.services.parameters.named(self.opened.entry.row, hash).await
    }

    /// Whether the parameters of a transaction are no older than those of the transactions whose states it names. Those that
    /// are not here are left to whoever looks for the states.
    pub async fn check_epochs(
        &self,
        core: &TxCore,
        own: &KnownParameters,
        fresh: &Fresh,
    ) -> Result<Result<(), Refused>, Trouble> {
        let mut epochs = Vec::new();
        for reference in core.inputs().iter().chain(core.references()) {
            let Some(parent) = self.verified_core(&reference.tx, fresh).await? else { continue };
            let Some(hash) = parent.parameters().filter(|hash| **hash != own.hash) else { continue };
            // What is part of the ledger was judged by parameters that are kept, unless a release did so that kept none.
            if let Some(theirs) = self.known_parameters(hash).await? {
                epochs.push((*reference, theirs.epoch));
            }
        }
        Ok(check_epochs(core.id(), own.epoch, epochs))
    }

    /// The parameters that a transaction names, if the ledger does not have them yet: they are in force, and are kept when it
    /// is recorded or notarised.
    pub async fn parameters_to_keep(&self, named: Option<&SecureHash>) -> Result<Option<NewParameters>, Trouble> {
        let (identity, present) = (self.opened.entry.row, self.services.network.parameters());
        let Some(hash) = named.filter(|hash| **hash == present.hash()) else { return Ok(None) };
        if self.services.parameters.is_kept(identity, hash).await? {
            return Ok(None);
        }
        let body = Bytes::copy_from_slice(present.proof());
        Ok(Some(NewParameters { hash: *hash, body, at: self.now() }))
    }

    /// Parameters that these transactions name and that are not here, each with a transaction that names them.
    pub async fn lacking_parameters(&self, of: &[Signed]) -> Result<Vec<(SecureHash, SecureHash)>, Trouble> {
        let mut seen = BTreeSet::new();
        let mut lacking = Vec::new();
        for signed in of {
            if let Some(hash) = signed.core().parameters()
                && seen.insert(*hash)
                && self.known_parameters(hash).await?.is_none()
            {
                lacking.push((signed.id(), *hash));
            }
        }
        Ok(lacking)
    }

    /// What came as the parameters that a transaction names, to be kept.
    fn taken_parameters(&self, of: SecureHash, hash: SecureHash, proof: Vec<u8>) -> Result<LedgerOp, Refused> {
        if proof.is_empty() {
            return Err(unknown(&hash).of(of));
        }
        let proven = self.services.parameters.verify(&proof).map_err(|problem| {
            let message = format!("the network's operator has not made what came as parameters: {}", problem.message);
            Refused::new(Rule::ParametersUntrusted, message).of(of).detail("parameters", hash)
        })?;
        if proven.hash() != hash {
            let message = format!("other network parameters came in place of {hash}");
            let refused = Refused::new(Rule::ParametersTampered, message).of(of).detail("parameters", hash);
            return Err(refused.detail("given", proven.hash()));
        }
        Ok(LedgerOp::KeepParameters(Box::new(NewParameters { hash, body: proof.into(), at: self.now() })))
    }
}

impl FlowCalls {
    /// Gets parameters from whoever has given the transactions that name them. They stay, whatever becomes of these.
    pub(super) async fn get_parameters(
        &mut self,
        session: u32,
        lacking: &[(SecureHash, SecureHash)],
    ) -> CallResult<()> {
        self.get_parameters_by(session, lacking, ToVendor::FetchParameters).await
    }

    /// As [`FlowCalls::get_parameters`], with the message of a protocol that asks for a piece.
    pub(super) async fn get_parameters_by<M: Serialize>(
        &mut self,
        session: u32,
        lacking: &[(SecureHash, SecureHash)],
        ask: impl Fn(WantedPiece) -> M,
    ) -> CallResult<()> {
        for (of, hash) in lacking {
            let (of, hash) = (*of, *hash);
            let ask = |from| ask(WantedPiece { of, id: hash, from });
            let proof = self.get_pieces(session, ask, MAX_PARAMETERS_SIZE as u64).await?.map_err(|size| {
                let message = format!("the network parameters {hash} have {size} bytes with what proves them");
                let refused = Refused::new(Rule::TooLarge, message).of(of).detail("bytes", size);
                refusal::refused(&refused.detail("limit", MAX_PARAMETERS_SIZE))
            })?;
            let environment = self.environment();
            self.step(&format!("take the network parameters {hash}"), async move {
                let taken = environment.taken_parameters(of, hash, proof);
                Ok(taken.map(|op| ((), vec![op])).map_err(|refused| refusal::refused(&refused)))
            })
            .await?;
        }
        match lacking.is_empty() {
            true => Ok(()),
            false => self.ledger_written().await,
        }
    }
}
