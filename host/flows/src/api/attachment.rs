//! What the outside may ask of the attachments of an identity. All of it is in the database, so that an identity that sleeps
//! goes on sleeping, whichever host is asked.

use async_trait::async_trait;
use bytes::Bytes;

use super::ledger::Paged;
use super::{ApiResult, Caller};

/// What contract code says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeView {
    /// SHA-256 of the code without its signatures.
    pub code_hash: String,
    /// Its name; `None` if the code is not run here, because nothing vouches for it any more.
    pub name: Option<String>,
    /// Its version, as its name.
    pub version: Option<String>,
    /// The keys that have signed it.
    pub signers: Vec<String>,
}

/// An attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachmentView {
    /// SHA-256 of the file.
    pub id: String,
    /// What it says of itself, if it is contract code.
    pub code: Option<CodeView>,
    /// The size of the file, bytes.
    pub bytes: u64,
    /// Where it came from: `local` (a flow has kept it), `p2p:` and the name of a peer, `rpc:` and the name of a user, or
    /// `host`, if it is not in the identity's ledger, but installed here or at another host of the database.
    pub source: String,
    /// Since when it is kept in the ledger of the identity, milliseconds since 1970.
    pub kept_ms: Option<i64>,
}

/// A file that a client wants kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportAttachment {
    /// The identity: its name, or a part that fits exactly one.
    pub identity: String,
    /// SHA-256 of the file, in hexadecimal.
    pub id: String,
    /// The size of the file, bytes.
    pub bytes: u64,
}

/// Everything the edges may ask of attachments.
#[async_trait]
pub trait AttachmentApi: Send + Sync + 'static {
    /// What is kept in the ledger of an identity, by id, a page at a time. A page may have fewer than `limit` and not be the
    /// last.
    async fn attachments(
        &self,
        caller: &Caller,
        identity: &str,
        cursor: Option<String>,
        limit: u32,
    ) -> ApiResult<Paged<AttachmentView>>;
    /// One attachment: what a flow of the identity would find under this id.
    async fn attachment(&self, caller: &Caller, identity: &str, id: &str) -> ApiResult<AttachmentView>;
    /// The file of an attachment.
    async fn attachment_file(&self, caller: &Caller, identity: &str, id: &str) -> ApiResult<Bytes>;
    /// Whether the caller may import a file of this size, as far as can be told before it has come.
    async fn may_import(&self, caller: &Caller, import: &ImportAttachment) -> ApiResult<()>;
    /// Keeps a file in the ledger of an identity; durable on return. False if it was there.
    async fn import_attachment(
        &self,
        caller: &Caller,
        import: &ImportAttachment,
        file: Bytes,
    ) -> ApiResult<(AttachmentView, bool)>;
}
