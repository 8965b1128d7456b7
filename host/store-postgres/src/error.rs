//! What PostgreSQL and the way to it answer, as the faults that group commit knows.

use maxhost_group_commit::{Fault, FaultKind};
use maxhost_store::StoreError;
use sqlx::Error;

/// The kind of a failure. Codes are SQLSTATE (<https://www.postgresql.org/docs/15/errcodes-appendix.html>).
pub(crate) fn kind_of(error: &Error) -> FaultKind {
    match error {
        Error::Database(database) => database.code().map_or(FaultKind::Other, |code| kind_of_code(&code)),
        Error::PoolTimedOut => FaultKind::Busy,
        Error::Io(_) | Error::Tls(_) | Error::Protocol(_) | Error::PoolClosed | Error::WorkerCrashed => FaultKind::Io,
        _ => FaultKind::Other,
    }
}

fn kind_of_code(code: &str) -> FaultKind {
    match code {
        "53100" => FaultKind::Full,
        "25006" => FaultKind::ReadOnly,
        "55P03" | "40001" | "40P01" | "57014" => FaultKind::Busy,
        "XX001" | "XX002" => FaultKind::Corrupt,
        // A role, a database or a right is missing, or there is no such table.
        "42501" | "3D000" | "3F000" | "42P01" => FaultKind::CannotOpen,
        _ => match code.get(..2) {
            Some("22" | "23" | "54") => FaultKind::Constraint,
            Some("28") => FaultKind::CannotOpen,
            Some("53" | "55") => FaultKind::Busy,
            Some("08" | "57" | "58" | "XX") => FaultKind::Io,
            _ => FaultKind::Other,
        },
    }
}

/// Whether the connection is gone with this, or the server is not one to write to: another connection may do better.
pub(crate) fn is_lost(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::Tls(_) | Error::Protocol(_) | Error::WorkerCrashed | Error::PoolTimedOut => true,
        Error::Database(database) => database.code().is_some_and(|code| {
            // Shut down, crashed or starting; no connections left; a standby; a session that was ended.
            matches!(&*code, "53300" | "25006" | "25P03" | "25P04" | "57P05")
                || code.starts_with("08")
                || code.starts_with("57P0")
        }),
        _ => false,
    }
}

/// Whether the same statement may succeed if it is sent again: somebody else held a lock.
pub(crate) fn is_in_the_way(error: &Error) -> bool {
    matches!(error, Error::Database(database) if database.code().is_some_and(|code| {
        matches!(&*code, "55P03" | "40001" | "40P01")
    }))
}

pub(crate) fn fault_of(error: Error) -> Fault {
    Fault::new(kind_of(&error), error)
}

/// What a read says that failed.
pub(crate) fn failed(error: Error) -> StoreError {
    match error {
        Error::PoolClosed => StoreError::Closed,
        other => fault_of(other).into(),
    }
}

/// What a start says that failed. `place`: the server and database, without a password.
pub(crate) fn of_server(place: &str, error: Error) -> StoreError {
    let source = fault_of(error);
    let place = place.to_owned();
    match source.kind {
        FaultKind::CannotOpen | FaultKind::ReadOnly => StoreError::Denied { place, source },
        FaultKind::Full | FaultKind::Corrupt | FaultKind::Constraint => source.into(),
        _ => StoreError::Unreachable { place, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_by_what_one_does() {
        for (code, kind) in [
            ("53100", FaultKind::Full),
            ("53300", FaultKind::Busy),
            ("23505", FaultKind::Constraint),
            ("22021", FaultKind::Constraint),
            ("57P01", FaultKind::Io),
            ("28P01", FaultKind::CannotOpen),
            ("25006", FaultKind::ReadOnly),
            ("42601", FaultKind::Other),
        ] {
            assert_eq!(kind_of_code(code), kind, "{code}");
        }
    }
}
