//! What can go wrong in a flow, in the words that its client and the database use too.

use std::any::Any;
use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::maxhost::cordapp::types::{Failure, FailureKind};
use crate::cbor;
use crate::party::Party;

/// The result of a flow, and of everything a flow calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a flow, or a call of one, failed.
///
/// Any [`std::error::Error`] becomes [`Error::Other`] with `?`. Returned from a flow, only a [`FlowException`] tells the
/// peers what happened; of anything else they learn a number.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A business error: thrown here, or by a peer.
    FlowException(FlowException),
    /// The peer ended or failed, refused the session, or sent what was not expected.
    UnexpectedEnd(UnexpectedEnd),
    /// The host refused an argument.
    IllegalArgument(String),
    /// The call is not allowed now.
    IllegalState(String),
    /// `close` of a session that its peer has not confirmed yet.
    PrematureClose(String),
    /// An operator killed this flow.
    Killed(String),
    /// A limit was reached.
    Limit {
        /// Which: `cpu`, `memory`, `stack`, `journal`, `message`, `log`, `sessions`.
        limit: String,
        /// For people.
        message: String,
    },
    /// Any other error of our own. Its text stays on this side.
    Other(Box<dyn std::error::Error + 'static>),
}

/// The end of a session where something else was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnexpectedEnd {
    message: String,
    peer: Option<Party>,
    error_id: Option<u64>,
}

impl UnexpectedEnd {
    /// The peer that ended, when it is known.
    #[must_use]
    pub fn peer(&self) -> Option<&Party> {
        self.peer.as_ref()
    }

    /// The number under which both sides logged it.
    #[must_use]
    pub fn error_id(&self) -> Option<u64> {
        self.error_id
    }
}

/// A business error. Thrown in a flow, it reaches every peer that the flow has a session with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowException(Box<Thrown>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Thrown {
    message: String,
    exception: Option<String>,
    data: Option<Vec<u8>>,
    peer: Option<Party>,
    error_id: Option<u64>,
}

impl FlowException {
    /// One of no particular type.
    #[must_use]
    pub fn new(message: impl Into<String>) -> FlowException {
        FlowException(Box::new(Thrown {
            message: message.into(),
            exception: None,
            data: None,
            peer: None,
            error_id: None,
        }))
    }

    /// Gives it a type that programs can tell apart, for example `quotes/expired`.
    #[must_use]
    pub fn of_type(mut self, exception: impl Into<String>) -> FlowException {
        self.0.exception = Some(exception.into());
        self
    }

    /// Attaches data. Data that cannot be encoded is left out, for the message must arrive in any case.
    #[must_use]
    pub fn with<T: Serialize + ?Sized>(mut self, data: &T) -> FlowException {
        self.0.data = cbor::to_vec(data).ok();
        self
    }

    /// For people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The author's type, for example `quotes/expired`.
    #[must_use]
    pub fn exception_type(&self) -> Option<&str> {
        self.0.exception.as_deref()
    }

    /// Whether it is of this type.
    #[must_use]
    pub fn is(&self, exception: &str) -> bool {
        self.exception_type() == Some(exception)
    }

    /// The author's data; `None` when there is none.
    ///
    /// # Errors
    /// When the data is not a `T`.
    pub fn data<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        Ok(self.0.data.as_deref().map(cbor::from_slice).transpose()?)
    }

    /// Who threw it; `None` when this flow did.
    #[must_use]
    pub fn peer(&self) -> Option<&Party> {
        self.0.peer.as_ref()
    }

    /// The number under which both sides logged it, when it was received.
    #[must_use]
    pub fn error_id(&self) -> Option<u64> {
        self.0.error_id
    }
}

impl fmt::Display for FlowException {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for FlowException {}

impl Error {
    /// An error of our own that is no business error: the peers learn only its number.
    #[must_use]
    pub fn unexpected(message: impl Into<String>) -> Error {
        Error::Other(message.into().into())
    }

    /// The peer sent bytes that are not of the type expected.
    pub(crate) fn not_of_type<T>(peer: Option<Party>, error: &cbor::Error) -> Error {
        let from = peer.as_ref().map_or("the peer", Party::name);
        let message = format!("{from} sent something that is not a {}: {error}", std::any::type_name::<T>());
        Error::UnexpectedEnd(UnexpectedEnd { message, peer, error_id: None })
    }

    /// The stable word for it, as clients see it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Error::FlowException(_) => "flow-exception",
            Error::UnexpectedEnd(_) => "unexpected-end",
            Error::IllegalArgument(_) => "illegal-argument",
            Error::IllegalState(_) => "illegal-state",
            Error::PrematureClose(_) => "premature-close",
            Error::Killed(_) => "killed",
            Error::Limit { .. } => "limit",
            Error::Other(_) => "unexpected",
        }
    }

    /// The business error, if it is one.
    #[must_use]
    pub fn flow_exception(&self) -> Option<&FlowException> {
        match self {
            Error::FlowException(exception) => Some(exception),
            _ => None,
        }
    }

    /// Who sent it, when it was received.
    #[must_use]
    pub fn peer(&self) -> Option<&Party> {
        match self {
            Error::FlowException(exception) => exception.peer(),
            Error::UnexpectedEnd(end) => end.peer(),
            _ => None,
        }
    }

    /// The number under which both sides logged it, when it was received.
    #[must_use]
    pub fn error_id(&self) -> Option<u64> {
        match self {
            Error::FlowException(exception) => exception.error_id(),
            Error::UnexpectedEnd(end) => end.error_id(),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::FlowException(exception) => exception.fmt(f),
            Error::UnexpectedEnd(end) => f.write_str(&end.message),
            Error::IllegalArgument(message)
            | Error::IllegalState(message)
            | Error::PrematureClose(message)
            | Error::Killed(message)
            | Error::Limit { message, .. } => f.write_str(message),
            Error::Other(error) => write_with_causes(error.as_ref(), f),
        }
    }
}

fn write_with_causes(error: &dyn std::error::Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{error}")?;
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(f, ": {error}")?;
        cause = error.source();
    }
    Ok(())
}

impl<E: std::error::Error + 'static> From<E> for Error {
    fn from(error: E) -> Error {
        // The blanket conversion leaves no room for others beside it, so what has a meaning of its own is recognised
        // here.
        let mut error = Some(error);
        let any: &mut dyn Any = &mut error;
        if let Some(failure) = any.downcast_mut::<Option<Failure>>().and_then(Option::take) {
            return from_host(failure);
        }
        if let Some(exception) = any.downcast_mut::<Option<FlowException>>().and_then(Option::take) {
            return Error::FlowException(exception);
        }
        error.map_or_else(|| Error::unexpected("an error without content"), |error| Error::Other(Box::new(error)))
    }
}

#[cold]
fn from_host(failure: Failure) -> Error {
    let Failure { kind, message, exception, data, error_id, peer, limit } = failure;
    let peer = peer.map(Party::named);
    match kind {
        FailureKind::FlowException => {
            Error::FlowException(FlowException(Box::new(Thrown { message, exception, data, peer, error_id })))
        }
        FailureKind::UnexpectedEnd => Error::UnexpectedEnd(UnexpectedEnd { message, peer, error_id }),
        FailureKind::IllegalArgument => Error::IllegalArgument(message),
        FailureKind::IllegalState => Error::IllegalState(message),
        FailureKind::PrematureClose => Error::PrematureClose(message),
        FailureKind::Killed => Error::Killed(message),
        FailureKind::Limit => Error::Limit { limit: limit.unwrap_or_default(), message },
        FailureKind::Unexpected => Error::unexpected(message),
    }
}

impl From<Error> for Failure {
    #[cold]
    fn from(error: Error) -> Failure {
        let kind = match &error {
            Error::FlowException(_) => FailureKind::FlowException,
            Error::UnexpectedEnd(_) => FailureKind::UnexpectedEnd,
            Error::IllegalArgument(_) => FailureKind::IllegalArgument,
            Error::IllegalState(_) => FailureKind::IllegalState,
            Error::PrematureClose(_) => FailureKind::PrematureClose,
            Error::Killed(_) => FailureKind::Killed,
            Error::Limit { .. } => FailureKind::Limit,
            Error::Other(_) => FailureKind::Unexpected,
        };
        let message = error.to_string();
        let peer = error.peer().map(|peer| peer.name().to_owned());
        let error_id = error.error_id();
        let (mut exception, mut data, mut limit) = (None, None, None);
        match error {
            Error::FlowException(thrown) => (exception, data) = (thrown.0.exception, thrown.0.data),
            Error::Limit { limit: name, .. } => limit = Some(name),
            _ => {}
        }
        Failure { kind, message, exception, data, error_id, peer, limit }
    }
}
