//! What a transaction names beside states, its attachments and its network parameters: finding out what of it is not here,
//! and asking for it, and giving it, in pieces.

use maxhost_model::{Code, Problem, SecureHash};
use maxhost_sandbox::CallResult;
use maxhost_store::ledger::LedgerOp;
use serde::{Deserialize, Serialize};

use super::attachments::LackingAttachment;
use super::environment::LedgerEnvironment;
use super::protocol::{FromVendor, Piece, WantedPiece};
use super::refusal;
use super::transactions::Signed;
use super::vending::{Vended, not_to_be_had};
use crate::base::trouble::Trouble;
use crate::calls::{FlowCalls, Stop};

/// What transactions name and what is not here.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Lacking {
    /// Hashes of network parameters, each with a transaction that names them.
    pub parameters: Vec<(SecureHash, SecureHash)>,
    pub attachments: Vec<LackingAttachment>,
}

/// Of what a piece is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Attachment,
    Parameters,
}

impl Asked {
    fn what(self) -> &'static str {
        match self {
            Asked::Attachment => "the attachment",
            Asked::Parameters => "the network parameters",
        }
    }

    fn is_named(self, by: &Signed, id: &SecureHash) -> bool {
        match self {
            Asked::Attachment => by.core().attachments().contains(id),
            Asked::Parameters => by.core().parameters() == Some(id),
        }
    }
}

impl LedgerEnvironment {
    /// What these transactions name and what is not here.
    pub(super) async fn lacking(&self, of: &[Signed]) -> Result<Lacking, Trouble> {
        let parameters = self.lacking_parameters(of).await?;
        Ok(Lacking { parameters, attachments: self.lacking_attachments(of).await? })
    }

    async fn file_asked_for(&self, asked: Asked, id: &SecureHash) -> Result<Option<Vec<u8>>, Trouble> {
        match asked {
            Asked::Attachment => self.file(id).await,
            Asked::Parameters => {
                Ok(self.services.parameters.proof(self.opened.entry.row, id).await?.map(|proof| proof.to_vec()))
            }
        }
    }
}

impl FlowCalls {
    /// Gets what a transaction names and what is not here.
    pub(super) async fn get_lacking_of(&mut self, session: u32, signed: &Signed) -> CallResult<()> {
        let (environment, of) = (self.environment(), [signed.clone()]);
        let lacking: Lacking = self
            .step(&format!("look for what {} names", signed.id()), async move {
                Ok(Ok((environment.lacking(&of).await?, Vec::new())))
            })
            .await?;
        self.get_lacking(session, &lacking).await
    }

    /// Gets what is not here from whoever has given the transactions that name it. Parameters come first, because code may be
    /// trusted by them.
    pub(super) async fn get_lacking(&mut self, session: u32, lacking: &Lacking) -> CallResult<()> {
        self.get_parameters(session, &lacking.parameters).await?;
        self.get_attachments(session, &lacking.attachments).await
    }

    /// A file, piece by piece; or its size, if it has `most` bytes or more: then nothing more of it is asked for.
    pub(super) async fn get_pieces<M: Serialize>(
        &mut self,
        session: u32,
        ask: impl Fn(u64) -> M,
        most: u64,
    ) -> CallResult<Result<Vec<u8>, u64>> {
        let mut file = Vec::new();
        loop {
            let FromVendor::Piece(Piece { size, bytes }) = self.ask_peer(session, &ask(file.len() as u64)).await?
            else {
                return Err(refusal::protocol("a piece of a file was expected").into());
            };
            // Its size is told with the first piece, so that one that is too large is not got.
            if size >= most {
                return Ok(Err(size));
            }
            let is_whole = file.len() as u64 + bytes.len() as u64 >= size;
            if bytes.is_empty() && !is_whole {
                return Err(refusal::protocol("a piece of a file is empty").into());
            }
            file.extend_from_slice(&bytes);
            if is_whole {
                return Ok(Ok(file));
            }
        }
    }

    /// A piece of what a transaction names that was spoken of last. What it is is noted, and not repeated. Network parameters
    /// that are not here have no bytes: the other side says what that means.
    pub(super) async fn vend_piece(
        &mut self,
        vended: &Vended,
        top: &Signed,
        asked: Asked,
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
            .step(&format!("give {} {id} from byte {from}", asked.what()), async move {
                let signed = match of == top.id() {
                    true => Some(top),
                    false => environment.stored(&of).await?.map(|(_, signed)| signed),
                };
                if !signed.is_some_and(|signed| asked.is_named(&signed, &id)) {
                    return Ok(Err(not_to_be_had()));
                }
                let file = match (environment.file_asked_for(asked, &id).await?, asked) {
                    (Some(file), _) => file,
                    (None, Asked::Parameters) => Vec::new(),
                    (None, Asked::Attachment) => return Ok(Err(not_to_be_had())),
                };
                let size = file.len() as u64;
                *found = Some(file);
                // Those in force may be others when the flow comes back.
                let kept = match asked {
                    Asked::Attachment => None,
                    Asked::Parameters => environment.parameters_to_keep(Some(&id)).await?,
                };
                Ok(Ok((size, kept.map(|kept| LedgerOp::KeepParameters(Box::new(kept))).into_iter().collect())))
            })
            .await?;
        let file = match read {
            Some(file) => file,
            None if size == 0 => Vec::new(),
            None => self.file_again(asked, &id).await?,
        };
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(file.len());
        let until = from.saturating_add(self.message_room()).min(file.len());
        Ok(Piece { size, bytes: file.get(from..until).unwrap_or_default().to_vec() })
    }

    /// A file that an earlier life of the flow found.
    pub(super) async fn file_again(&mut self, asked: Asked, id: &SecureHash) -> CallResult<Vec<u8>> {
        match self.environment().file_asked_for(asked, id).await {
            Ok(Some(file)) => Ok(file),
            Ok(None) => {
                let message = format!("{} {id}, which the flow had, is not here any more", asked.what());
                let code = match asked {
                    Asked::Attachment => Code::AttachmentNotFound,
                    Asked::Parameters => Code::NetworkInvalid,
                };
                let problem = Problem::new(code, message).detail("id", id.to_string());
                self.stop(Stop::Trouble(Trouble::from(problem)))
            }
            Err(trouble) => self.stop(Stop::Trouble(trouble)),
        }
    }
}
