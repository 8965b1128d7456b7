//! What the errors of connections, sessions and links mean for a host.

use std::error::Error;
use std::io;
use std::sync::Arc;

use fe2o3_amqp::connection::{ConnectionStopReason, OpenError};
use fe2o3_amqp::session::BeginError;
use fe2o3_amqp::transport::Error as TransportError;
use fe2o3_amqp::types::definitions::{self, AmqpError, ErrorCondition};
use fe2o3_amqp::types::sasl::SaslCode;
use maxhost_broker::{BrokerError, Permanent, Transient};
use rustls::AlertDescription;

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

/// What TLS has to say of an error, if it is one that stays. With TLS 1.3 a client learns that its certificate was refused
/// only when it reads for the first time.
pub(crate) fn of_io(error: &io::Error) -> Option<BrokerError> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        error @ rustls::Error::InvalidCertificate(_) => {
            Some(refused(format!("its certificate is not trusted: {error}")))
        }
        error @ rustls::Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied,
        ) => Some(refused(format!("it does not accept the host's certificate, or wants one: {error}"))),
        _ => None,
    }
}

/// What the broker said about something that it did not do.
pub(crate) fn text_of(error: Option<definitions::Error>) -> String {
    match error {
        None => "it did not say why".to_owned(),
        Some(definitions::Error { condition, description, .. }) => {
            description.map_or_else(|| format!("{condition:?}"), |text| format!("{text} ({condition:?})"))
        }
    }
}

/// Why no session could be begun on a new connection: brokers check here who comes with a certificate, or with nothing.
pub(crate) fn of_first_session(error: BeginError) -> BrokerError {
    let said = match &error {
        BeginError::ConnectionStopped(ConnectionStopReason::RemoteClosedWithError(said)) => said,
        BeginError::RemoteEndedWithError(said) => said,
        _ => return unavailable(error),
    };
    match &said.condition {
        ErrorCondition::AmqpError(AmqpError::UnauthorizedAccess) => refused(format!(
            "it does not accept the user and password, or the certificate, that the host was given: {}",
            said.description.as_deref().unwrap_or("it did not say why")
        )),
        _ => unavailable(error),
    }
}

/// Why a connection could not be opened.
pub(crate) fn of_open(error: OpenError) -> BrokerError {
    match &error {
        OpenError::Io(inner) => of_io(inner).unwrap_or_else(|| unavailable(error)),
        OpenError::TransportError(TransportError::Io(inner)) => of_io(inner).unwrap_or_else(|| unavailable(error)),
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
