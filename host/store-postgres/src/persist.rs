//! What is asked again when its connection was lost, or when somebody else held a lock.

use std::time::Duration;

/// For how long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long one answer may take.
pub(crate) const ANSWER: Duration = Duration::from_secs(20);
/// Between two attempts.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// Evaluates to the outcome of the future, which is made anew for each attempt. What it does must lead to the same
/// however often it is done.
macro_rules! persist {
    ($attempt:expr) => {{
        use $crate::persist::{ANSWER, PATIENCE, PAUSE};
        let began = std::time::Instant::now();
        loop {
            let outcome = match tokio::time::timeout(ANSWER, $attempt).await {
                Ok(outcome) => outcome,
                Err(_) => Err($crate::persist::no_answer()),
            };
            match outcome {
                Err(error)
                    if ($crate::error::is_lost(&error) || $crate::error::is_in_the_way(&error))
                        && began.elapsed() < PATIENCE =>
                {
                    tracing::debug!(%error, "asked again");
                    tokio::time::sleep(PAUSE).await;
                }
                outcome => break outcome,
            }
        }
    }};
}

pub(crate) fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the database did not answer in time"))
}

pub(crate) use persist;
