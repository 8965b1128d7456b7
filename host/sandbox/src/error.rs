//! Why a component is not taken, or cannot be run here.

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use maxhost_model::{Code, Problem};

/// A source that may be kept beside others of its kind: a refusal is remembered and told again.
pub(crate) type SharedSource = Arc<dyn Error + Send + Sync>;

/// Why a component could not be loaded. All but [`CacheFolder`](SandboxError::CacheFolder) and
/// [`Engine`](SandboxError::Engine) are final: the same bytes fail again.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// Not a component, or a damaged one.
    #[error("this is not a WebAssembly component: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
        /// The compiler's own words.
        #[source]
        source: Option<SharedSource>,
    },
    /// A component, but not one of the wanted world of `maxhost:cordapp`.
    #[error("the component is not of the world maxhost:cordapp/{world}: {reason}")]
    WrongWorld {
        /// The world: `flows` or `contract`.
        world: &'static str,
        /// What is missing or of another type.
        reason: String,
    },
    /// It wants something that no CorDapp gets.
    #[error("the component imports `{import}`, which a CorDapp may not use")]
    ForbiddenImport {
        /// Full name of the import.
        import: String,
    },
    /// Contract code uses a feature of WebAssembly that is not in the profile.
    #[error("contract code may not use the WebAssembly feature `{feature}` (at byte {offset}): it is not in profile 1")]
    ProfileFeature {
        /// The feature, by the name that compilers use.
        feature: String,
        /// Where the code uses it first.
        offset: u64,
    },
    /// The signatures in the file are not in order.
    #[error("the signed file is refused: {refused}")]
    Signatures {
        /// The rule that is broken.
        refused: maxhost_ledger::Refused,
    },
    /// It is larger than the host allows.
    #[error("the component is over a limit of this host: {reason}")]
    TooLarge {
        /// Which limit.
        reason: String,
    },
    /// `describe` ended in a trap.
    #[error("`describe` of the component failed: {reason}")]
    DescribeFailed {
        /// The panic's text, or the limit it hit.
        reason: String,
    },
    /// `describe` answered something that is not allowed.
    #[error("`describe` of the component answers {path} = {value}: {reason}")]
    DescriptorInvalid {
        /// Which field, for example `flows[2].name`.
        path: String,
        /// What it holds.
        value: String,
        /// The rule it breaks.
        reason: Cow<'static, str>,
    },
    /// The folder for compiled code cannot be used.
    #[error("cannot keep compiled code in {}: {source}", path.display())]
    CacheFolder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// The engine cannot be set up, or cannot load code that it has just compiled.
    #[error("cannot set up the sandbox: {reason}")]
    Engine {
        /// What failed.
        reason: String,
        /// wasmtime's own words.
        #[source]
        source: Option<SharedSource>,
    },
}

impl SandboxError {
    /// True when the same bytes may be taken another time.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        matches!(self, SandboxError::CacheFolder { .. } | SandboxError::Engine { .. })
    }

    pub(crate) fn invalid(reason: impl Into<String>) -> SandboxError {
        SandboxError::Invalid { reason: reason.into(), source: None }
    }

    pub(crate) fn engine(what: &str, error: wasmtime::Error) -> SandboxError {
        let reason = format!("{what}: {}", chain(&error));
        SandboxError::Engine { reason, source: Some(shared(error)) }
    }
}

impl From<SandboxError> for Problem {
    fn from(error: SandboxError) -> Problem {
        let message = error.to_string();
        match error {
            SandboxError::Invalid { .. } => Problem::new(Code::ComponentInvalid, message),
            SandboxError::WrongWorld { .. } => Problem::new(Code::ComponentWrongWorld, message),
            SandboxError::ForbiddenImport { import } => {
                Problem::new(Code::ComponentForbiddenImport, message).detail("import", import)
            }
            SandboxError::ProfileFeature { feature, .. } => {
                Problem::new(Code::ComponentForbiddenFeature, message).detail("feature", feature)
            }
            SandboxError::Signatures { .. } => Problem::new(Code::ComponentSignatures, message),
            SandboxError::TooLarge { .. } => Problem::new(Code::ComponentTooLarge, message),
            SandboxError::DescribeFailed { .. } => Problem::new(Code::ComponentDescribeFailed, message),
            SandboxError::DescriptorInvalid { path, .. } => {
                Problem::new(Code::ComponentDescribeFailed, message).detail("path", path)
            }
            SandboxError::CacheFolder { path, .. } => {
                Problem::new(Code::DirectoryUnwritable, message).detail("path", path.display().to_string())
            }
            SandboxError::Engine { .. } => Problem::new(Code::SandboxUnavailable, message),
        }
    }
}

/// Keeps wasmtime's error as a source.
pub(crate) fn shared(error: wasmtime::Error) -> SharedSource {
    Arc::from(error.into_boxed_dyn_error())
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &wasmtime::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
    }
    text
}
