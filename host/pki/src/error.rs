//! What can go wrong with keys, certificates and the network's files.

use std::io;
use std::path::{Path, PathBuf};

use maxhost_model::{Code, Invalid, Problem};

/// The result of most functions here.
pub type Result<T> = std::result::Result<T, PkiError>;

/// What was done with a file when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileAction {
    /// Reading or listing.
    Read,
    /// Writing, creating, renaming.
    Write,
}

impl FileAction {
    fn verb(self) -> &'static str {
        match self {
            FileAction::Read => "read",
            FileAction::Write => "write",
        }
    }
}

/// What went wrong. [`PkiError::is_retriable`] tells what may succeed later without a change by the user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// A file or folder could not be read or written.
    #[error("cannot {} {}: {source}", .action.verb(), .path.display())]
    File {
        /// What was tried.
        action: FileAction,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The passphrase does not open the vault.
    #[error("the passphrase does not open {}", .vault.display())]
    WrongPassphrase {
        /// The vault's file.
        vault: PathBuf,
    },
    /// There is no passphrase, or an empty one.
    #[error("the passphrase is empty{}", .file.as_ref().map(|f| format!(": {}", f.display())).unwrap_or_default())]
    NoPassphrase {
        /// The file it was read from.
        file: Option<PathBuf>,
    },
    /// The vault's file is malformed.
    #[error("{} is not a key vault: {reason}", .path.display())]
    Vault {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A sealed key is malformed, was altered, or belongs to another name, purpose or vault.
    #[error("the key {} cannot be opened: {reason}", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate, or a chain of them, is not what it has to be.
    #[error("{of}: {reason}")]
    Certificate {
        /// Whose certificate, or which file.
        of: String,
        /// The rule, and how it is broken.
        reason: String,
    },
    /// A signature does not verify.
    #[error("the signature of {of} does not verify")]
    Signature {
        /// What it is over.
        of: String,
    },
    /// A file of the network folder is missing or malformed.
    #[error("{}: {reason}", .path.display())]
    Network {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The name, the parameters or the node info break a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The identity is not one of this development network.
    #[error("{name} has no keys in {}", .keys.display())]
    UnknownIdentity {
        /// The name.
        name: String,
        /// The folder of keys.
        keys: PathBuf,
    },
    /// The folder holds something else already.
    #[error("{} holds files that are not those of a development network", .path.display())]
    FolderInUse {
        /// The folder.
        path: PathBuf,
    },
    /// Another process is changing the network.
    #[error("another process is changing the network in {}", .path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The cryptographic library failed where it never should.
    #[error("cryptography failed: {0}")]
    Crypto(String),
}

impl PkiError {
    pub(crate) fn read(path: &Path, source: io::Error) -> PkiError {
        PkiError::File { action: FileAction::Read, path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> PkiError {
        PkiError::File { action: FileAction::Write, path: path.to_owned(), source }
    }

    pub(crate) fn certificate(of: impl Into<String>, reason: impl Into<String>) -> PkiError {
        PkiError::Certificate { of: of.into(), reason: reason.into() }
    }

    pub(crate) fn network(path: &Path, reason: impl Into<String>) -> PkiError {
        PkiError::Network { path: path.to_owned(), reason: reason.into() }
    }

    /// Whether the same call may succeed later, without anybody changing the keys or the network.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            PkiError::Busy { .. } => true,
            PkiError::File { source, .. } => {
                use io::ErrorKind as Kind;
                // No free file descriptor at this moment, or a disk that failed once.
                matches!(
                    source.kind(),
                    Kind::StorageFull | Kind::QuotaExceeded | Kind::Interrupted | Kind::ResourceBusy
                ) || matches!(source.raw_os_error(), Some(libc::ENFILE | libc::EMFILE | libc::EIO))
            }
            _ => false,
        }
    }

    fn code(&self) -> Code {
        use io::ErrorKind as Kind;
        match self {
            PkiError::File { source, .. } if matches!(source.kind(), Kind::StorageFull | Kind::QuotaExceeded) => {
                Code::DiskFull
            }
            PkiError::File { action: FileAction::Write, .. } => Code::DirectoryUnwritable,
            PkiError::File { source, .. } if source.kind() == Kind::NotFound => Code::FileNotFound,
            PkiError::File { .. } => Code::FileUnreadable,
            PkiError::WrongPassphrase { .. } => Code::PassphraseWrong,
            PkiError::NoPassphrase { .. } => Code::PassphraseMissing,
            PkiError::Vault { .. } => Code::KeysInvalid,
            PkiError::Key { .. } => Code::KeyUnreadable,
            PkiError::Certificate { .. } => Code::CertificateInvalid,
            PkiError::Signature { .. } | PkiError::Network { .. } => Code::NetworkInvalid,
            PkiError::Invalid(invalid) => Problem::from(invalid).code,
            PkiError::UnknownIdentity { .. } => Code::IdentityNotFound,
            PkiError::FolderInUse { .. } => Code::DirectoryInUse,
            PkiError::Busy { .. } => Code::NetworkBusy,
            PkiError::Crypto(_) => Code::Internal,
        }
    }
}

impl From<&PkiError> for Problem {
    fn from(error: &PkiError) -> Problem {
        let problem = match error {
            PkiError::Invalid(invalid) => Problem::from(invalid),
            other => Problem::new(other.code(), other.to_string()),
        };
        match error {
            PkiError::File { path, .. }
            | PkiError::WrongPassphrase { vault: path }
            | PkiError::NoPassphrase { file: Some(path) }
            | PkiError::Vault { path, .. }
            | PkiError::Key { path, .. }
            | PkiError::Network { path, .. }
            | PkiError::UnknownIdentity { keys: path, .. }
            | PkiError::FolderInUse { path }
            | PkiError::Busy { path } => problem.detail("path", path.display().to_string()),
            _ => problem,
        }
    }
}

impl From<PkiError> for Problem {
    fn from(error: PkiError) -> Problem {
        Problem::from(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_become_problems_with_code_and_path() {
        let path = PathBuf::from("keys/alice/tls.key");
        let full = PkiError::write(&path, io::ErrorKind::StorageFull.into());
        assert!(full.is_retriable());
        assert_eq!(Problem::from(&full).code, Code::DiskFull);
        assert_eq!(Problem::from(&full).details.get("path").map(String::as_str), Some("keys/alice/tls.key"));
        let missing = PkiError::read(&path, io::ErrorKind::NotFound.into());
        assert!(!missing.is_retriable());
        assert_eq!(Problem::from(missing).code, Code::FileNotFound);
        let closed = PkiError::read(&path, io::ErrorKind::PermissionDenied.into());
        assert_eq!(Problem::from(closed).code, Code::FileUnreadable);
        let wrong = Problem::from(PkiError::WrongPassphrase { vault: path });
        assert_eq!(wrong.code, Code::PassphraseWrong);
        assert!(wrong.message.contains("tls.key"));
    }
}
