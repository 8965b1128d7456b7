//! What ZooKeeper's errors mean for ownership.

use std::sync::Arc;

use maxhost_ownership::{Lost, OwnershipError, Permanent, Transient};
use zookeeper_client::Error;

/// An error of a call, by what the caller does about it. The library reports the same loss of a connection in several
/// ways, so everything that is not known to stay is taken for something that passes.
pub(crate) fn of_call(error: Error) -> OwnershipError {
    match error {
        Error::SessionExpired | Error::ClientClosed => Lost::SessionOver.into(),
        Error::NoAuth => refused("it does not accept the credentials for the cluster's nodes", error),
        Error::AuthFailed => refused("it does not accept the credentials", error),
        Error::InvalidAcl => refused("it knows no such way to protect nodes", error),
        Error::BadArguments(_) => refused("an argument is wrong", error),
        error => unavailable(error),
    }
}

fn refused(reason: &str, error: Error) -> OwnershipError {
    Permanent::Refused { reason: reason.to_owned(), source: Some(Arc::new(error)) }.into()
}

fn unavailable(error: Error) -> OwnershipError {
    Transient::Unavailable { reason: error.to_string(), source: Some(Arc::new(error)) }.into()
}
