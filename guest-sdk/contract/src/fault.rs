//! Why a contract refuses.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt;

/// What a rule answers.
pub type Verdict = Result<(), Rejection>;

/// A refusal: a stable code, by which tests and callers know it, and a text for people.
#[derive(Clone, PartialEq, Eq)]
pub struct Rejection {
    code: Cow<'static, str>,
    message: Cow<'static, str>,
}

impl Rejection {
    /// A refusal with a code of one's own: 1 to 64 of `a`-`z`, `0`-`9`, `-` and `/`.
    #[must_use]
    pub const fn new(code: &'static str, message: &'static str) -> Rejection {
        Rejection { code: Cow::Borrowed(code), message: Cow::Borrowed(message) }
    }

    /// With a text that was put together.
    #[must_use]
    pub fn with_text(code: &'static str, message: String) -> Rejection {
        Rejection { code: Cow::Borrowed(code), message: Cow::Owned(message) }
    }

    /// As it came from elsewhere.
    #[must_use]
    pub fn from_parts(code: String, message: String) -> Rejection {
        Rejection { code: Cow::Owned(code), message: Cow::Owned(message) }
    }

    /// The stable word.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// For people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// A code without a text: for tests, which look at codes.
impl From<&'static str> for Rejection {
    fn from(code: &'static str) -> Rejection {
        Rejection::new(code, "")
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code)
    }
}

impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for Rejection {}

/// The code and meaning of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultWord {
    /// The stable word.
    pub code: &'static str,
    /// What it means.
    pub about: &'static str,
}

/// All faults of a contract; [`#[faults]`](crate::faults) writes it.
pub trait Faults: Into<Rejection> {
    /// In the order of the enum.
    const ALL: &'static [FaultWord];
}

/// A contract with no faults of its own.
impl Faults for core::convert::Infallible {
    const ALL: &'static [FaultWord] = &[];
}

impl From<core::convert::Infallible> for Rejection {
    fn from(never: core::convert::Infallible) -> Rejection {
        match never {}
    }
}
