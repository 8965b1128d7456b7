//! Attachments: finding them, and getting those that are not here from whoever gives the transaction that has them
//! (`docs/behaviour.md` 10.22).
//!
//! Contract code that came from a peer is believed only if something that was installed here vouches for it; data need no
//! trust. What is got is kept in the ledger of the identity, so whichever host runs it finds it there.

use std::collections::BTreeSet;

use maxhost_ledger::{Refused, Rule};
use maxhost_model::{FlowError, SecureHash};
use maxhost_sandbox::CallResult;
use maxhost_sandbox::contract::Attached;
use maxhost_store::ledger::{LedgerOp, NewAttachment};
use serde::{Deserialize, Serialize};

use super::environment::LedgerEnvironment;
use super::pieces::Asked;
use super::protocol::{ToVendor, WantedPiece};
use super::refusal;
use super::transactions::{Signed, failed};
use crate::base::trouble::Trouble;
use crate::calls::FlowCalls;
use crate::ledger::contracts::{Trusting, is_code};

/// The most attachments that are got for the transactions of one message.
const MOST: usize = 256;

/// Where attachments come from that nobody has sent.
const LOCAL: &str = "local";

/// An attachment that is not here.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct LackingAttachment {
    /// A transaction that has it.
    of: SecureHash,
    /// The attachment.
    id: SecureHash,
    /// The network parameters that the transaction names: code may be trusted by them.
    parameters: Option<SecureHash>,
}

/// The id of an attachment, as a guest writes it.
pub(super) fn attachment_id(text: &str) -> Result<SecureHash, FlowError> {
    text.parse().map_err(|_| {
        refusal::argument(format!("'{}' is no id of an attachment", text.chars().take(80).collect::<String>()))
    })
}

impl LedgerEnvironment {
    /// Attachments of a transaction that names these parameters, with what is known of them, in this order.
    pub async fn attached(
        &self,
        ids: &[SecureHash],
        parameters: Option<&SecureHash>,
    ) -> Result<Result<Vec<Attached>, Refused>, Trouble> {
        let mut attached = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(found) = self.services.contracts.find(id) {
                attached.push(found);
                continue;
            }
            if let Some(found) = self.elsewhere(id).await? {
                attached.push(found);
                continue;
            }
            let Some(file) = self.file(id).await? else {
                let message = format!("the attachment {id} is neither installed here nor in the ledger");
                return Ok(Err(Refused::new(Rule::AttachmentMissing, message).detail("attachment", id)));
            };
            match self.admitted(id, file, parameters).await? {
                Ok(found) => attached.push(found),
                Err(refused) => return Ok(Err(refused)),
            }
        }
        Ok(Ok(attached))
    }

    /// What another host of this database has installed.
    async fn elsewhere(&self, id: &SecureHash) -> Result<Option<Attached>, Trouble> {
        let (contracts, asked) = (self.services.contracts.clone(), *id);
        let found = tokio::task::spawn_blocking(move || contracts.find_elsewhere(&asked)).await;
        found.map_err(|error| Trouble::defect(error.to_string()))?.map_err(Trouble::from)
    }

    /// The bytes of an attachment: one that is installed, or that this identity has.
    pub async fn file(&self, id: &SecureHash) -> Result<Option<Vec<u8>>, Trouble> {
        let (contracts, asked) = (self.services.contracts.clone(), *id);
        let installed = tokio::task::spawn_blocking(move || contracts.file(&asked)).await;
        let installed = installed.map_err(|error| Trouble::defect(error.to_string()))?;
        if let Some(file) = installed.map_err(Trouble::from)? {
            return Ok(Some(file));
        }
        let (store, identity) = (&self.services.committer.store, self.opened.entry.row);
        Ok(store.attachment(identity, id).await.map_err(failed)?.map(|found| found.body.to_vec()))
    }

    /// What a file is that has this id. Code is loaded if it is trusted, for which the parameters count that its transaction
    /// names; those in force, if it has none that are known. Of successors of keys those in force tell too.
    async fn admitted(
        &self,
        id: &SecureHash,
        file: Vec<u8>,
        parameters: Option<&SecureHash>,
    ) -> Result<Result<Attached, Refused>, Trouble> {
        if !is_code(&file) {
            return Ok(Ok(Attached::Data { id: *id, size: file.len() as u64 }));
        }
        let (named, in_force) = (self.named_or_in_force(parameters).await?, self.in_force()?);
        let contracts = self.services.contracts.clone();
        let admitted = tokio::task::spawn_blocking(move || {
            contracts.admit(&file, Trusting { named: &named.rules, in_force: &in_force.rules })
        })
        .await;
        admitted.map_err(|error| Trouble::defect(error.to_string()))?.map_err(Trouble::from)
    }

    /// Keeps data that lie in a folder of this host in the ledger too.
    pub async fn kept(&self, ids: &[String]) -> Result<Result<Vec<LedgerOp>, FlowError>, Trouble> {
        let mut ops = Vec::new();
        for id in ids {
            let id = match attachment_id(id) {
                Ok(id) => id,
                Err(error) => return Ok(Err(error)),
            };
            if matches!(self.services.contracts.find(&id), Some(Attached::Data { .. }))
                && let Some(file) = self.file(&id).await?
            {
                ops.push(self.keep(id, file, LOCAL.to_owned()));
            }
        }
        Ok(Ok(ops))
    }

    fn keep(&self, id: SecureHash, file: Vec<u8>, uploader: String) -> LedgerOp {
        LedgerOp::Attach(Box::new(NewAttachment { id, body: file.into(), uploader, at: self.now() }))
    }

    /// The attachments of these transactions that are not here, each with a transaction that has it.
    pub async fn lacking_attachments(&self, of: &[Signed]) -> Result<Vec<LackingAttachment>, Trouble> {
        let mut seen = BTreeSet::new();
        let mut lacking = Vec::new();
        for signed in of {
            for id in signed.core().attachments() {
                let is_new = seen.insert(*id) && self.services.contracts.find(id).is_none();
                if is_new && self.file(id).await?.is_none() {
                    let parameters = signed.core().parameters().copied();
                    lacking.push(LackingAttachment { of: signed.id(), id: *id, parameters });
                }
            }
        }
        Ok(lacking)
    }
}

impl FlowCalls {
    /// Keeps a file, and gives its id. Code must be trusted as if a peer had sent it: an operator installs code.
    pub(crate) async fn attach(&mut self, file: Vec<u8>) -> CallResult<String> {
        let most = self.largest_attachment();
        if file.len() as u64 >= most {
            let text = format!("an attachment of {} bytes, and a transaction with all it needs has {most}", file.len());
            return Err(refusal::argument(text).into());
        }
        let id = SecureHash::of(&file);
        let environment = self.environment();
        self.step(&format!("keep the attachment {id}"), async move {
            match environment.admitted(&id, file.clone(), None).await? {
                Ok(_) => Ok(Ok(((), vec![environment.keep(id, file, LOCAL.to_owned())]))),
                Err(refused) => Ok(Err(refusal::refused(&refused))),
            }
        })
        .await?;
        Ok(id.to_string())
    }

    /// The bytes of an attachment.
    pub(crate) async fn open_attachment(&mut self, id: &str) -> CallResult<Option<Vec<u8>>> {
        let id = attachment_id(id)?;
        let environment = self.environment();
        let mut read = None;
        let found = &mut read;
        let is_here: bool = self
            .step(&format!("open the attachment {id}"), async move {
                let file = environment.file(&id).await?;
                let is_here = file.is_some();
                *found = file;
                Ok(Ok((is_here, Vec::new())))
            })
            .await?;
        match (is_here, read) {
            (false, _) => Ok(None),
            (true, Some(file)) => Ok(Some(file)),
            (true, None) => self.file_again(Asked::Attachment, &id).await.map(Some),
        }
    }

    /// Gets attachments from whoever has given the transactions that have them.
    pub(super) async fn get_attachments(&mut self, session: u32, lacking: &[LackingAttachment]) -> CallResult<()> {
        if let Some(LackingAttachment { of, .. }) = lacking.first().filter(|_| lacking.len() > MOST) {
            let message = format!("more than {MOST} attachments are missing at once");
            let refused = Refused::new(Rule::TooLarge, message).of(*of).detail("attachments", lacking.len());
            return Err(refusal::refused(&refused).into());
        }
        for lacking in lacking {
            self.get_attachment(session, lacking).await?;
        }
        Ok(())
    }

    /// The first size that is too large for an attachment, bytes. The parameters in force say it, for what is got is kept now.
    fn largest_attachment(&self) -> u64 {
        self.services.network.parameters().parameters().max_transaction_size
    }

    async fn get_attachment(&mut self, session: u32, lacking: &LackingAttachment) -> CallResult<()> {
        let LackingAttachment { of, id, parameters } = *lacking;
        let most = self.largest_attachment();
        let ask = |from| ToVendor::FetchAttachment(WantedPiece { of, id, from });
        let file = self.get_pieces(session, ask, most).await?.map_err(|size| {
            let message = format!("the attachment {id} has {size} bytes, and a transaction with all it needs {most}");
            let refused = Refused::new(Rule::TooLarge, message).of(of).detail("attachment", id);
            refusal::refused(&refused.detail("bytes", size).detail("limit", most))
        })?;
        let (environment, uploader) = (self.environment(), format!("p2p:{}", self.peer_of(session)?));
        self.step(&format!("take the attachment {id}"), async move {
            let given = SecureHash::of(&file);
            if given != id {
                let message = format!("another file came in place of the attachment {id}");
                let refused = Refused::new(Rule::AttachmentTampered, message).of(of).detail("attachment", id);
                return Ok(Err(refusal::refused(&refused.detail("given", given))));
            }
            match environment.admitted(&id, file.clone(), parameters.as_ref()).await? {
                Ok(_) => Ok(Ok(((), vec![environment.keep(id, file, uploader)]))),
                Err(refused) => Ok(Err(refusal::refused(&refused.of(of)))),
            }
        })
        .await?;
        self.ledger_written().await
    }
}
