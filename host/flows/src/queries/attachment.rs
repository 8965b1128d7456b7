//! Showing, reading and importing attachments. They are in the database, and it is asked and told directly: an identity that
//! sleeps goes on sleeping, and any host that answers clients can do it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use maxhost_ledger::attachment::SignedCode;
use maxhost_ledger::tx::LedgerRules;
use maxhost_model::{Code, Problem, SecureHash};
use maxhost_sandbox::contract::{Attached, ContractComponent};
use maxhost_sandbox::is_contract;
use maxhost_store::ledger::{IMPORTED_BY, Imported, KeptAttachment, ListAttachments, NewAttachment};
use tokio::sync::Semaphore;

use super::state_views::ms;
use crate::api::access::Action;
use crate::api::attachment::{AttachmentApi, AttachmentView, CodeView, ImportAttachment};
use crate::api::ledger::Paged;
use crate::api::{ApiResult, Caller};
use crate::host::lifecycle::Host;
use crate::ledger::contracts::{Contracts, Trusting, is_code};
use crate::ledger::parameters::KnownParameters;
use crate::registry::entry::IdentityEntry;

/// The most that is listed at once.
const MAX_PAGE: u32 = 1_000;
/// So many files of code are read to show what they are, for one page; a page ends before the next.
const CODE_OF_A_PAGE: usize = 16;
/// Files of code that are looked at in one moment, on this host: one that was never seen is compiled.
const LOOKED_AT: usize = 2;
/// A file up to this size is hashed where it is, bytes.
const AT_ONCE: usize = 64 << 10;
/// Where an attachment is that the ledger does not have.
const AT_HOST: &str = "host";
/// The longest name of a user that is kept with what he imports, characters.
const LONGEST_USER: usize = 128;

static LOOKING: Semaphore = Semaphore::const_new(LOOKED_AT);

/// Does work that may take long on a thread that may block, after that of others.
async fn in_turn<T: Send + 'static>(work: impl FnOnce() -> ApiResult<T> + Send + 'static) -> ApiResult<T> {
    let broken = |what: String| Problem::new(Code::Internal, format!("an attachment was not looked at: {what}"));
    let _turn = LOOKING.acquire().await.map_err(|error| broken(error.to_string()))?;
    tokio::task::spawn_blocking(work).await.map_err(|error| broken(error.to_string()))?
}

/// The id of a file. That of a large one takes milliseconds.
async fn id_of(file: &Bytes) -> ApiResult<SecureHash> {
    if file.len() <= AT_ONCE {
        return Ok(SecureHash::of(file));
    }
    let file = file.clone();
    let hashed = tokio::task::spawn_blocking(move || SecureHash::of(&file)).await;
    hashed.map_err(|error| Problem::new(Code::Internal, format!("an attachment was not hashed: {error}")))
}

fn no_attachment(entry: &IdentityEntry, id: &str) -> Problem {
    let shown: String = id.chars().take(80).collect();
    let text = format!("{} has no attachment with the id '{shown}'", entry.text);
    Problem::new(Code::AttachmentNotFound, text)
        .remedy("list what the identity has with `maxhost attachment list --identity NAME`, or import the file")
        .detail("attachment", shown)
}

fn parse_id(entry: &IdentityEntry, id: &str) -> ApiResult<SecureHash> {
    id.parse().map_err(|_| no_attachment(entry, id))
}

fn code_view(component: &ContractComponent) -> CodeView {
    CodeView {
        code_hash: component.code_hash.to_string(),
        name: Some(component.descriptor.name.clone()),
        version: Some(component.descriptor.version.clone()),
        signers: component.signers.iter().map(ToString::to_string).collect(),
    }
}

/// What a file of code is. Code is run only if something vouches for it, also to ask its name.
fn look(contracts: &dyn Contracts, file: &[u8], rules: &LedgerRules) -> ApiResult<Option<CodeView>> {
    let trusting = Trusting { named: rules, in_force: rules };
    if let Ok(Attached::Code { component, .. }) = contracts.admit(file, trusting)? {
        return Ok(Some(code_view(&component)));
    }
    let signed = SignedCode::read(file).ok();
    Ok(signed.map(|signed| CodeView {
        code_hash: signed.code_hash.to_string(),
        name: None,
        version: None,
        signers: signed.signers.iter().map(ToString::to_string).collect(),
    }))
}

/// What is attached under an id that the ledger does not have. Flows are installed too, and are never attached.
fn at_host(contracts: &dyn Contracts, id: &SecureHash) -> ApiResult<Option<Bytes>> {
    let file = contracts.file(id)?;
    Ok(file.filter(|file| !is_code(file) || is_contract(file)).map(Bytes::from))
}

fn kept_view(kept: &KeptAttachment, code: Option<CodeView>) -> AttachmentView {
    AttachmentView {
        id: kept.id.to_string(),
        code,
        bytes: kept.size,
        source: kept.uploader.clone(),
        kept_ms: Some(ms(kept.at)),
    }
}

/// Who has imported something, as it is kept with it. Names of certificates may have what no database can hold.
fn imported_by(user: &str) -> String {
    let name: String = user.chars().filter(|c| !c.is_control()).take(LONGEST_USER).collect();
    format!("{IMPORTED_BY}{name}")
}

impl Host {
    /// The parameters in force, by which code is trusted that comes from a client.
    fn in_force(&self) -> ApiResult<Arc<KnownParameters>> {
        self.parts.parameters.in_force().map_err(|trouble| trouble.problem().clone())
    }

    /// What a file says of itself that is kept.
    async fn look_at(&self, file: Bytes) -> ApiResult<Option<CodeView>> {
        if !is_code(&file) {
            return Ok(None);
        }
        let (contracts, known) = (self.parts.contracts.clone(), self.in_force()?);
        in_turn(move || look(&*contracts, &file, &known.rules)).await
    }

    /// The file in the ledger of an identity, which is what its id says.
    async fn kept_file(&self, entry: &IdentityEntry, id: &SecureHash) -> ApiResult<Option<Bytes>> {
        let Some(kept) = self.parts.store.attachment(entry.row, id).await.map_err(Problem::from)? else {
            return Ok(None);
        };
        if id_of(&kept.body).await? == *id {
            return Ok(Some(kept.body));
        }
        let text =
            format!("the attachment {id} of {} is not what it was: its row in the database is damaged", entry.text);
        Err(Problem::new(Code::JournalCorrupt, text)
            .remedy("restore the database from a backup")
            .detail("attachment", id.to_string()))
    }

    /// What contract code says of itself that is installed on this host; nothing has to be read for it.
    fn installed(&self, id: &SecureHash) -> Option<CodeView> {
        match self.parts.contracts.find(id) {
            Some(Attached::Code { component, .. }) => Some(code_view(&component)),
            Some(Attached::Data { .. }) | None => None,
        }
    }

    async fn file_at_host(&self, entry: &IdentityEntry, id: &SecureHash) -> ApiResult<Bytes> {
        let (contracts, asked) = (self.parts.contracts.clone(), *id);
        let file = in_turn(move || at_host(&*contracts, &asked)).await?;
        file.ok_or_else(|| no_attachment(entry, &id.to_string()))
    }

    /// What is known of an attachment.
    async fn attachment_of(&self, entry: &IdentityEntry, id: &SecureHash) -> ApiResult<AttachmentView> {
        let only = ListAttachments { after: None, only: Some(*id), limit: 1 };
        let found = self.parts.store.attachments(entry.row, &only).await.map_err(Problem::from)?;
        if let Some(kept) = found.first() {
            let code = match (is_code(&kept.begins), self.installed(id)) {
                (false, _) => None,
                (true, Some(code)) => Some(code),
                (true, None) => match self.kept_file(entry, id).await? {
                    Some(file) => self.look_at(file).await?,
                    None => None,
                },
            };
            return Ok(kept_view(kept, code));
        }
        let file = self.file_at_host(entry, id).await?;
        let (bytes, installed) = (file.len() as u64, self.installed(id));
        // What another host has installed is trusted, as if it were installed here.
        let code = match installed {
            Some(code) => Some(code),
            None if is_code(&file) => {
                let (contracts, asked) = (self.parts.contracts.clone(), *id);
                let found = in_turn(move || contracts.find_elsewhere(&asked)).await?;
                found.and_then(|found| found.component().map(|component| code_view(component)))
            }
            None => None,
        };
        Ok(AttachmentView { id: id.to_string(), code, bytes, source: AT_HOST.to_owned(), kept_ms: None })
    }

    /// What is announced of a file, if it may be imported.
    fn checked(&self, caller: &Caller, import: &ImportAttachment) -> ApiResult<(Arc<IdentityEntry>, SecureHash)> {
        caller.about.detail(import.id.chars().take(80).collect::<String>());
        let entry = self.ledger_of(caller, Action::ImportAttachment, &import.identity)?;
        let id = import.id.parse().map_err(|_| {
            let shown: String = import.id.chars().take(80).collect();
            let text = format!("id: '{shown}' is no SHA-256 in hexadecimal");
            Problem::new(Code::RequestInvalid, text).detail("field", "id")
        })?;
        let limit = self.parts.network.parameters().parameters().max_transaction_size;
        if import.bytes >= limit {
            let text = format!(
                "an attachment of {} bytes, and a transaction with all it needs stays below {limit}",
                import.bytes
            );
            return Err(Problem::new(Code::AttachmentTooLarge, text)
                .detail("bytes", import.bytes.to_string())
                .detail("limit", limit.to_string()));
        }
        Ok((entry, id))
    }
}

#[async_trait]
impl AttachmentApi for Host {
    async fn attachments(
        &self,
        caller: &Caller,
        identity: &str,
        cursor: Option<String>,
        limit: u32,
    ) -> ApiResult<Paged<AttachmentView>> {
        let entry = self.ledger_of(caller, Action::ReadAttachments, identity)?;
        let limit = limit.clamp(1, MAX_PAGE);
        let after = match cursor {
            Some(cursor) => Some(cursor.parse().map_err(|_| {
                Problem::new(Code::CursorInvalid, "this is no cursor of a list of attachments")
                    .detail("field", "cursor")
            })?),
            None => None,
        };
        let list = ListAttachments { after, only: None, limit: limit.saturating_add(1) };
        let found = self.parts.store.attachments(entry.row, &list).await.map_err(Problem::from)?;
        let (mut items, mut last, mut read) = (Vec::new(), None, 0);
        for kept in found.iter().take(limit as usize) {
            let code = match (is_code(&kept.begins), self.installed(&kept.id)) {
                (false, _) => None,
                (true, Some(code)) => Some(code),
                (true, None) if read == CODE_OF_A_PAGE => break,
                (true, None) => {
                    read += 1;
                    match self.parts.store.attachment(entry.row, &kept.id).await.map_err(Problem::from)? {
                        Some(kept) => self.look_at(kept.body).await?,
                        None => None,
                    }
                }
            };
            items.push(kept_view(kept, code));
            last = Some(kept.id);
        }
        let more = items.len() < found.len();
        Ok(Paged { items, cursor: last.filter(|_| more).map(|last| last.to_string()) })
    }

    async fn attachment(&self, caller: &Caller, identity: &str, id: &str) -> ApiResult<AttachmentView> {
        caller.about.detail(id.chars().take(80).collect::<String>());
        let entry = self.ledger_of(caller, Action::ReadAttachments, identity)?;
        let id = parse_id(&entry, id)?;
        self.attachment_of(&entry, &id).await
    }

    async fn attachment_file(&self, caller: &Caller, identity: &str, id: &str) -> ApiResult<Bytes> {
        caller.about.detail(id.chars().take(80).collect::<String>());
        let entry = self.ledger_of(caller, Action::ReadAttachments, identity)?;
        let id = parse_id(&entry, id)?;
        match self.kept_file(&entry, &id).await? {
            Some(file) => Ok(file),
            None => self.file_at_host(&entry, &id).await,
        }
    }

    async fn may_import(&self, caller: &Caller, import: &ImportAttachment) -> ApiResult<()> {
        self.checked(caller, import).map(drop)
    }

    async fn import_attachment(
        &self,
        caller: &Caller,
        import: &ImportAttachment,
        file: Bytes,
    ) -> ApiResult<(AttachmentView, bool)> {
        let (entry, id) = self.checked(caller, import)?;
        let came = id_of(&file).await?;
        if came != id || file.len() as u64 != import.bytes {
            let text = format!(
                "{} bytes were announced with the id {id}, and {} bytes came with the id {came}",
                import.bytes,
                file.len()
            );
            return Err(Problem::new(Code::RequestInvalid, text)
                .remedy("send the whole file, unchanged, and announce its size and SHA-256")
                .detail("field", if came == id { "bytes" } else { "id" }));
        }
        if self.parts.store.is_congested_for(entry.row) {
            return Err(Problem::new(Code::Overloaded, "more commits wait than the disk takes"));
        }
        if is_code(&file) {
            let (contracts, known, file) = (self.parts.contracts.clone(), self.in_force()?, file.clone());
            let check = move || contracts.check_import(&file, Trusting { named: &known.rules, in_force: &known.rules });
            in_turn(check).await?;
        }
        let bounds = self.parts.imports;
        let at = self.ledger_now();
        let new = NewAttachment { id, body: file, uploader: imported_by(&caller.user), at };
        match self.parts.store.import_attachment(entry.row, new, bounds).await.map_err(Problem::from)? {
            Imported::NoRoom(kept) => {
                let text = format!(
                    "clients of {} have imported {} attachments with {} bytes, and {} with {} bytes are kept \
                     (limits.imported_attachments, limits.imported_bytes)",
                    entry.text, kept.attachments, kept.bytes, bounds.attachments, bounds.bytes
                );
                Err(Problem::new(Code::AttachmentsFull, text)
                    .detail("attachments", kept.attachments.to_string())
                    .detail("bytes", kept.bytes.to_string()))
            }
            imported => {
                // What was there has come from somebody else, perhaps.
                let view = self.attachment_of(&entry, &id).await?;
                Ok((view, imported == Imported::New))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_whoever_imports_can_be_kept_by_any_database() {
        assert_eq!(imported_by("ann"), "rpc:ann");
        assert_eq!(imported_by("a\0n\u{1b}n"), "rpc:ann");
        assert_eq!(imported_by(&"n".repeat(5_000)).chars().count(), 4 + LONGEST_USER);
    }
}
