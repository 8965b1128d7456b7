//! What the errors of connections, sessions and links mean for a host.

use std::error::Error;
use std::sync::Arc;

use fe2o3_amqp::connection::OpenError;
use fe2o3_amqp::types::sasl::SaslCode;
use maxhost_broker::{BrokerError, Permanent, Transient};

/// Something that passes: the broker cannot be used for the moment.
pub(crate) fn unavailable(error: impl Into<Box<dyn Error + Send + Sync>>) -> BrokerError {
    Transient::Unavailable(Arc::from(error.into())).into()
}

/// Something that stays until somebody changes it.
pub(crate) fn refused(reason: impl Into<String>) -> BrokerError {
    Permanent::Refused { reason: reason.into() }.into()
}

/// An error that concerns whoever asks now, and may pass by itself for whoever asks later.
pub(crate) fn passing(error: BrokerError) -> BrokerError {
    match error {
        BrokerError::Permanent(Permanent::Refused { .. }) => unavailable(error.to_string()),
        error => error,
    }
}

/// Why a connection could not be opened.
pub(crate) fn of_open(error: OpenError) -> BrokerError {
    match &error {
        OpenError::SaslError { code: SaslCode::Auth, .. } => {
            refused("it does not accept the user and password that the host was given")
        }
        OpenError::SaslError { .. } => unavailable(error),
        OpenError::NotImplemented(what) => refused(format!(
            "it offers no way to log in that the host knows (PLAIN with a user and password, or ANONYMOUS): {}",
            what.as_deref().unwrap_or("nothing else was said")
        )),
        OpenError::ProtocolHeaderMismatch(_) => refused("what listens there does not speak AMQP 1.0 with SASL"),
        _ => unavailable(error),
    }
}
