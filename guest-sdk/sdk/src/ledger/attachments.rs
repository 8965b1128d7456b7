//! Files that are attached to transactions.

use crate::error::Result;
use crate::host;

/// Keeps a file in the ledger, to be attached with [`super::Draft::attachment`], and returns its id: SHA-256 of its bytes, in
/// hexadecimal.
///
/// # Errors
/// `IllegalArgument` for a file that is as large as a transaction with all it needs may be; a flow exception of type
/// `ledger/rejected` for contract code that nothing vouches for.
pub fn attach(file: &[u8]) -> Result<String> {
    Ok(host::attach(file)?)
}

/// The bytes of an attachment: one that was kept, that an operator has imported, or that came with a transaction.
///
/// # Errors
/// `IllegalArgument` for what is no id.
pub fn attachment(id: &str) -> Result<Option<Vec<u8>>> {
    Ok(host::open_attachment(id)?)
}
