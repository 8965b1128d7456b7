//! `maxhost.v1.AttachmentService`.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use maxhost_flows::api::attachment::{AttachmentView, CodeView, ImportAttachment};
use maxhost_flows::api::ledger::Paged;
use maxhost_model::{Code, Problem};
use parking_lot::Mutex;
use tonic::{Request, Response, Status, Streaming};

use super::{optional, required};
use crate::admission::{Admission, Events};
use crate::convert::timestamp;
use crate::explain::problem_of;
use crate::proto::v1 as pb;
use crate::proto::v1::attachment_service_server::AttachmentService;
use crate::proto::v1::export_attachment_response::Part as Sent;
use crate::proto::v1::import_attachment_request::Part as Came;
use crate::status::{to_problem, to_status};

/// How many are listed when no number is named.
const DEFAULT_PAGE: u32 = 200;
/// The largest piece of a file in one message, bytes.
pub(crate) const LARGEST_CHUNK: usize = 256 << 10;
/// Imports at once, and those of one user.
const IMPORTS: usize = 32;
const IMPORTS_OF_ONE: usize = 8;

/// The service.
#[derive(Clone)]
pub(crate) struct Attachments {
    admission: Admission,
    imports: Imports,
}

impl Attachments {
    pub(crate) fn new(admission: Admission) -> Attachments {
        Attachments { admission, imports: Imports::default() }
    }
}

/// How many imports each user has under way.
#[derive(Clone, Default)]
struct Imports(Arc<Mutex<HashMap<String, usize>>>);

/// The place of one import, for as long as this lives.
struct Place {
    imports: Imports,
    user: String,
}

impl Imports {
    /// # Errors
    /// `overloaded` if there are as many as may be.
    fn enter(&self, user: &str) -> Result<Place, Problem> {
        let mut under_way = self.0.lock();
        let (all, own) = (under_way.values().sum::<usize>(), under_way.get(user).copied().unwrap_or_default());
        if all >= IMPORTS || own >= IMPORTS_OF_ONE {
            let text =
                format!("the host takes no more than {IMPORTS} imports at once, and {IMPORTS_OF_ONE} of one user");
            return Err(Problem::new(Code::Overloaded, text));
        }
        under_way.insert(user.to_owned(), own + 1);
        Ok(Place { imports: self.clone(), user: user.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = self.imports.0.lock();
        match under_way.get_mut(&self.user) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(under_way.remove(&self.user)),
        }
    }
}

fn attachment(view: AttachmentView) -> pb::Attachment {
    let code = |code: CodeView| pb::ContractCode {
        code_hash: code.code_hash,
        name: code.name,
        version: code.version,
        signers: code.signers,
    };
    pb::Attachment {
        id: view.id,
        bytes: view.bytes,
        source: view.source,
        kept: view.kept_ms.map(timestamp),
        code: view.code.map(code),
    }
}

fn invalid(text: &str, field: &str) -> Problem {
    Problem::new(Code::RequestInvalid, text).detail("field", field)
}

type Parts = Streaming<pb::ImportAttachmentRequest>;

/// The next part; `None` at the end of the request. A request that breaks off has no end.
async fn next(parts: &mut Parts) -> Result<Option<Came>, Problem> {
    let message = parts.message().await;
    let message = message.map_err(|status| problem_of(&status).unwrap_or_else(|| to_problem(&status)))?;
    match message {
        None => Ok(None),
        Some(message) => message.part.map(Some).ok_or_else(|| invalid("a message has neither file nor chunk", "part")),
    }
}

async fn announced(parts: &mut Parts) -> Result<ImportAttachment, Problem> {
    match next(parts).await? {
        Some(Came::File(file)) => Ok(ImportAttachment {
            identity: required("file.identity", file.identity)?,
            id: required("file.id", file.id)?,
            bytes: file.bytes,
        }),
        Some(Came::Chunk(_)) | None => Err(invalid("the first message does not announce a file", "file")),
    }
}

/// The bytes that were announced, and no more. They are counted as bytes of the request until it is answered.
async fn received(parts: &mut Parts, announced: u64) -> Result<Bytes, Problem> {
    let mut file = BytesMut::new();
    while let Some(part) = next(parts).await? {
        let chunk = match part {
            Came::Chunk(chunk) => chunk,
            Came::File(_) => return Err(invalid("a file is announced twice", "file")),
        };
        if (file.len() + chunk.len()) as u64 > announced {
            return Err(invalid(&format!("more than the {announced} bytes came that were announced"), "bytes"));
        }
        file.extend_from_slice(&chunk);
    }
    Ok(file.freeze())
}

/// A file as messages.
fn sent(view: AttachmentView, file: Bytes) -> impl Stream<Item = Result<pb::ExportAttachmentResponse, Problem>> + Send {
    let message = |part| Ok(pb::ExportAttachmentResponse { part: Some(part) });
    let chunks = (0..file.len()).step_by(LARGEST_CHUNK).map(move |from| {
        let until = file.len().min(from + LARGEST_CHUNK);
        file.slice(from..until)
    });
    let first = stream::once(async move { message(Sent::Attachment(attachment(view))) });
    first.chain(stream::iter(chunks).map(move |chunk| message(Sent::Chunk(chunk.into()))))
}

#[tonic::async_trait]
impl AttachmentService for Attachments {
    async fn list_attachments(
        &self,
        request: Request<pb::ListAttachmentsRequest>,
    ) -> Result<Response<pb::ListAttachmentsResponse>, Status> {
        let admitted = self.admission.call(&request)?;
        let request = request.into_inner();
        self.admission
            .answer(async {
                let identity = required("identity", request.identity)?;
                let limit = if request.limit == 0 { DEFAULT_PAGE } else { request.limit };
                let cursor = optional(request.cursor);
                let Paged { items, cursor } =
                    self.admission.api.attachments(&admitted.caller, &identity, cursor, limit).await?;
                Ok(pb::ListAttachmentsResponse { attachments: items.into_iter().map(attachment).collect(), cursor })
            })
            .await
    }

    async fn get_attachment(
        &self,
        request: Request<pb::GetAttachmentRequest>,
    ) -> Result<Response<pb::GetAttachmentResponse>, Status> {
        let admitted = self.admission.call(&request)?;
        let request = request.into_inner();
        self.admission
            .answer(async {
                let (identity, id) = (required("identity", request.identity)?, required("id", request.id)?);
                let view = self.admission.api.attachment(&admitted.caller, &identity, &id).await?;
                Ok(pb::GetAttachmentResponse { attachment: Some(attachment(view)) })
            })
            .await
    }

    async fn import_attachment(
        &self,
        request: Request<Streaming<pb::ImportAttachmentRequest>>,
    ) -> Result<Response<pb::ImportAttachmentResponse>, Status> {
        let admitted = self.admission.receiving(&request)?;
        let _place = self.imports.enter(&admitted.caller.user).map_err(to_status)?;
        let mut parts = request.into_inner();
        self.admission
            .answer(async {
                let api = &self.admission.api;
                let import = announced(&mut parts).await?;
                // Before the bytes come: who may not import, or brings too much, is not listened to.
                api.may_import(&admitted.caller, &import).await?;
                let file = received(&mut parts, import.bytes).await?;
                let (view, new) = api.import_attachment(&admitted.caller, &import, file).await?;
                Ok(pb::ImportAttachmentResponse { attachment: Some(attachment(view)), new })
            })
            .await
    }

    type ExportAttachmentStream = Events<pb::ExportAttachmentResponse>;

    async fn export_attachment(
        &self,
        request: Request<pb::ExportAttachmentRequest>,
    ) -> Result<Response<Self::ExportAttachmentStream>, Status> {
        let admitted = self.admission.stream(&request)?;
        let request = request.into_inner();
        let opened = self.admission.wait(async {
            let (api, caller) = (&self.admission.api, &admitted.caller);
            let (identity, id) = (required("identity", request.identity)?, required("id", request.id)?);
            let view = api.attachment(caller, &identity, &id).await?;
            // Before the file is read: what nobody takes is held until then.
            admitted.conversion().hold(usize::try_from(view.bytes).unwrap_or(usize::MAX))?;
            let file = api.attachment_file(caller, &identity, &id).await?;
            Ok(sent(view, file))
        });
        let chunks = opened.await.map_err(to_status)?;
        Ok(self.admission.events(admitted, chunks))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn view(bytes: u64) -> AttachmentView {
        AttachmentView { id: "ab".to_owned(), code: None, bytes, source: "local".to_owned(), kept_ms: Some(0) }
    }

    #[tokio::test]
    async fn a_file_is_sent_in_order_and_in_pieces() {
        for size in [0, 1, LARGEST_CHUNK - 1, LARGEST_CHUNK, LARGEST_CHUNK + 1, 3 * LARGEST_CHUNK] {
            let file: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let messages: Vec<_> = sent(view(size as u64), file.clone().into()).collect().await;
            let mut parts = messages.into_iter().map(|message| message.unwrap().part.unwrap());
            assert!(matches!(parts.next(), Some(Sent::Attachment(about)) if about.bytes == size as u64));
            let chunk = |part| match part {
                Sent::Chunk(chunk) => Some(chunk).filter(|chunk: &Vec<u8>| (1..=LARGEST_CHUNK).contains(&chunk.len())),
                Sent::Attachment(_) => None,
            };
            let chunks: Vec<Vec<u8>> = parts.map(|part| chunk(part).unwrap()).collect();
            assert_eq!(chunks.len(), size.div_ceil(LARGEST_CHUNK), "{size}");
            assert_eq!(chunks.concat(), file);
        }
    }

    #[test]
    fn nobody_takes_all_places_for_imports() {
        let imports = Imports::default();
        let ann: Vec<Place> = (0..IMPORTS_OF_ONE).map(|_| imports.enter("ann").unwrap()).collect();
        assert_eq!(imports.enter("ann").err().unwrap().code, Code::Overloaded);
        let users: Vec<String> = (0..IMPORTS).map(|number| number.to_string()).collect();
        let others: Vec<Place> = users.iter().filter_map(|user| imports.enter(user).ok()).collect();
        assert_eq!(ann.len() + others.len(), IMPORTS);
        drop(ann);
        drop(imports.enter("ann").unwrap());
        drop(others);
        assert!(imports.0.lock().is_empty(), "who has nothing under way is forgotten");
    }
}
