//! The rules of attachments that clients import.

use maxhost_model::IdentityRow;

use crate::conflict::Conflict;
use crate::ledger::{ImportBounds, Imported, NewAttachment};
use crate::rows::HostRows;
use crate::rules::{Failed, refuse};

/// Nobody's claim is asked for: what is kept under an id never changes, and an identity that sleeps goes on sleeping.
pub(super) fn import<R: HostRows>(
    rows: &mut R,
    identity: IdentityRow,
    attachment: &NewAttachment,
    bounds: ImportBounds,
) -> Result<Imported, Failed> {
    match rows.identity(identity)? {
        None => return Err(refuse(Conflict::IdentityUnknown(identity))),
        Some(record) if record.moved_to.is_some() => return Err(refuse(Conflict::IdentityMoved(identity))),
        Some(_) => {}
    }
    let decided = rows.imports(identity, &attachment.id)?.decide(attachment.body.len() as u64, bounds);
    if decided == Imported::New {
        rows.add_attachment(identity, attachment)?;
    }
    Ok(decided)
}
