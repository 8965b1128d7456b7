//! Attachments: finding them, and getting those that are not here from whoever gives the transaction that has them
//! (`docs/behaviour.md` 10.22).
//!
//! Contract code that came from a peer is believed only if something that was installed here vouches for it; data need no
//! trust. What is got is kept in the ledger of the identity, so whichever host runs it finds it there.

use std::collections::BTreeSet;

use maxhost_ledger::{Refused, Rule};
use maxhost_model::{Code, FlowError, Problem, SecureHash};
use maxhost_sandbox::CallResult;
use maxhost_sandbox::contract::Attached;
use maxhost_store::ledger::{LedgerOp, NewAttachment};

use super::environment::LedgerEnvironment;
use super::protocol::{FromVendor, Piece, ToVendor, WantedPiece};
use super::refusal;
use super::transactions::{Signed, failed};
use super::vending::{Vended, not_to_be_had};
use crate::calls::{FlowCalls, Stop};
use crate::contracts::is_code;
use crate::trouble::Trouble;

/// The most attachments that are got for the transactions of one message.
const MOST: usize = 256;

/// Where attachments come from that nobody has sent.
const LOCAL: &str = "local";

/// The id of an attachment, as a guest writes it.
pub(super) fn attachment_id(text: &str) -> Result<SecureHash, FlowError> {
    text.parse().map_err(|_| {
        refusal::argument(format!("'{}' is no id of an attachment", text.chars().take(80).collect::<String>()))
    })
}

impl LedgerEnvironment {
    /// Attachments with what is known of them, in this order.
    pub async fn attached(&self, ids: &[SecureHash]) -> Result<Result<Vec<Attached>, Refused>, Trouble> {
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
            match self.admitted(id, file).await? {
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

    /// What a file is that has this id. Code is loaded if it is trusted.
    async fn admitted(&self, id: &SecureHash, file: Vec<u8>) -> Result<Result<Attached, Refused>, Trouble> {
        if !is_code(&file) {
            return Ok(Ok(Attached::Data { id: *id, size: file.len() as u64 }));
        }
        let (contracts, whitelist) = (self.services.contracts.clone(), self.current_rules()?.whitelist);
        let admitted = tokio::task::spawn_blocking(move || contracts.admit(&file, &whitelist)).await;
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
    pub async fn lacking(&self, of: &[Signed]) -> Result<Vec<(SecureHash, SecureHash)>, Trouble> {
        let mut seen = BTreeSet::new();
        let mut lacking = Vec::new();
        for signed in of {
            for id in signed.core().attachments() {
                let is_new = seen.insert(*id) && self.services.contracts.find(id).is_none();
                if is_new && self.file(id).await?.is_none() {
                    lacking.push((signed.id(), *id));
                }
            }
        }
        Ok(lacking)
    }
}

impl FlowCalls {
    /// Keeps a file, and gives its id. Code must be trusted as if a peer had sent it: an operator installs code.
    pub(crate) async fn attach(&mut self, file: Vec<u8>) -> CallResult<String> {
        let most = self.services.network.parameters().max_transaction_size;
        if file.len() as u64 >= most {
            let text = format!("an attachment of {} bytes, and a transaction with all it needs has {most}", file.len());
            return Err(refusal::argument(text).into());
        }
        let id = SecureHash::of(&file);
        let environment = self.environment();
        self.step(&format!("keep the attachment {id}"), async move {
            match environment.admitted(&id, file.clone()).await? {
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
            (true, None) => self.file_again(&id).await.map(Some),
        }
    }

    /// A file that an earlier life of the flow found.
    async fn file_again(&mut self, id: &SecureHash) -> CallResult<Vec<u8>> {
        match self.environment().file(id).await {
            Ok(Some(file)) => Ok(file),
            Ok(None) => {
                let message = format!("the attachment {id}, which the flow had, is not here any more");
                let problem = Problem::new(Code::AttachmentNotFound, message).detail("attachment", id.to_string());
                self.stop(Stop::Trouble(Trouble::from(problem)))
            }
            Err(trouble) => self.stop(Stop::Trouble(trouble)),
        }
    }

    /// Gets the attachments of a transaction that are not here.
    pub(super) async fn get_attachments_of(&mut self, session: u32, signed: &Signed) -> CallResult<()> {
        let (environment, of) = (self.environment(), [signed.clone()]);
        let lacking: Vec<(SecureHash, SecureHash)> = self
            .step(&format!("look for the attachments of {}", signed.id()), async move {
                Ok(Ok((environment.lacking(&of).await?, Vec::new())))
            })
            .await?;
        self.get_attachments(session, &lacking).await
    }

    /// Gets attachments from whoever has given the transactions that have them.
    pub(super) async fn get_attachments(
        &mut self,
        session: u32,
        lacking: &[(SecureHash, SecureHash)],
    ) -> CallResult<()> {
        if let Some((of, _)) = lacking.first().filter(|_| lacking.len() > MOST) {
            let message = format!("more than {MOST} attachments are missing at once");
            let refused = Refused::new(Rule::TooLarge, message).of(*of).detail("attachments", lacking.len());
            return Err(refusal::refused(&refused).into());
        }
        for (of, id) in lacking {
            self.get_attachment(session, *of, *id).await?;
        }
        Ok(())
    }

    async fn get_attachment(&mut self, session: u32, of: SecureHash, id: SecureHash) -> CallResult<()> {
        let most = self.services.network.parameters().max_transaction_size;
        let mut file = Vec::new();
        loop {
            let wanted = ToVendor::FetchAttachment(WantedPiece { of, id, from: file.len() as u64 });
            let FromVendor::Piece(Piece { size, bytes }) = self.ask_peer(session, &wanted).await? else {
                return Err(refusal::protocol("a piece of an attachment was expected").into());
            };
            // Its size is told with the first piece, so that one that is too large is not got.
            if size >= most {
                let message =
                    format!("the attachment {id} has {size} bytes, and a transaction with all it needs {most}");
                let refused = Refused::new(Rule::TooLarge, message).of(of).detail("attachment", id);
                return Err(refusal::refused(&refused.detail("bytes", size).detail("limit", most)).into());
            }
            let is_whole = file.len() as u64 + bytes.len() as u64 >= size;
            if bytes.is_empty() && !is_whole {
                return Err(refusal::protocol("a piece of an attachment is empty").into());
            }
            file.extend_from_slice(&bytes);
            if is_whole {
                break;
            }
        }
        let (environment, uploader) = (self.environment(), format!("p2p:{}", self.peer_of(session)?));
        self.step(&format!("take the attachment {id}"), async move {
            let given = SecureHash::of(&file);
            if given != id {
                let message = format!("another file came in place of the attachment {id}");
                let refused = Refused::new(Rule::AttachmentTampered, message).of(of).detail("attachment", id);
                return Ok(Err(refusal::refused(&refused.detail("given", given))));
            }
            match environment.admitted(&id, file.clone()).await? {
                Ok(_) => Ok(Ok(((), vec![environment.keep(id, file, uploader)]))),
                Err(refused) => Ok(Err(refusal::refused(&refused.of(of)))),
            }
        })
        .await?;
        self.ledger_written().await
    }

    /// A piece of an attachment of a transaction that was spoken of last. What it is is noted, and not repeated.
    pub(super) async fn vend_piece(
        &mut self,
        vended: &Vended,
        top: &Signed,
        wanted: &WantedPiece,
    ) -> CallResult<Piece> {
        let WantedPiece { of, id, from } = *wanted;
        if of != top.id() && !vended.last.contains(&of) {
            return Err(not_to_be_had().into());
        }
        let (environment, top) = (self.environment(), top.clone());
        let mut read = None;
        let found = &mut read;
        let size: u64 = self
            .step(&format!("give the attachment {id} from byte {from}"), async move {
                let signed = match of == top.id() {
                    true => Some(top),
                    false => environment.stored(&of).await?.map(|(_, signed)| signed),
                };
                if !signed.is_some_and(|signed| signed.core().attachments().contains(&id)) {
                    return Ok(Err(not_to_be_had()));
                }
                let Some(file) = environment.file(&id).await? else { return Ok(Err(not_to_be_had())) };
                let size = file.len() as u64;
                *found = Some(file);
                Ok(Ok((size, Vec::new())))
            })
            .await?;
        let file = match read {
            Some(file) => file,
            None => self.file_again(&id).await?,
        };
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(file.len());
        let until = from.saturating_add(self.message_room()).min(file.len());
        Ok(Piece { size, bytes: file.get(from..until).unwrap_or_default().to_vec() })
    }
}
