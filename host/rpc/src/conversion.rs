//! Large payloads are converted on threads that may block, few at once: the threads that serve connections do nothing long, and
//! what the conversion takes in memory is bounded.

use std::sync::Arc;

use maxhost_model::{Code, Problem};
use prost::Message;
use tokio::sync::Semaphore;

use crate::budget::Share;

/// What is converted at once where it is, bytes: that takes less than a millisecond.
const AT_ONCE: usize = 64 << 10;
/// Large payloads that are converted at the same time, in this process.
static TURNS: Semaphore = Semaphore::const_new(2);

/// Converts payloads of so many bytes, here or on another thread.
///
/// # Errors
/// `internal` if the conversion panicked.
pub(crate) async fn aside<T: Send + 'static>(
    bytes: usize,
    convert: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    if bytes <= AT_ONCE {
        return Ok(convert());
    }
    let broken = |what: String| Problem::new(Code::Internal, format!("an answer was not converted: {what}"));
    let _turn = TURNS.acquire().await.map_err(|error| broken(error.to_string()))?;
    tokio::task::spawn_blocking(convert).await.map_err(|error| broken(error.to_string()))
}

/// Converts the answer of one request, and counts what it holds until it is sent.
#[derive(Clone)]
pub(crate) struct Conversion(pub(crate) Option<Arc<Share>>);

impl Conversion {
    /// Converts payloads of so many bytes.
    ///
    /// # Errors
    /// `overloaded` if answers hold as much as they may; `internal` if the conversion panicked.
    pub(crate) async fn run<T: Message + 'static>(
        &self,
        bytes: usize,
        convert: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        if bytes <= AT_ONCE {
            return Ok(convert());
        }
        self.take(bytes)?;
        let converted = aside(bytes, convert).await?;
        self.take(converted.encoded_len().saturating_sub(bytes))?;
        Ok(converted)
    }

    /// Counts bytes of an answer that is sent as it is.
    ///
    /// # Errors
    /// `overloaded` if answers hold as much as they may.
    pub(crate) fn hold(&self, bytes: usize) -> Result<(), Problem> {
        if bytes <= AT_ONCE { Ok(()) } else { self.take(bytes) }
    }

    fn take(&self, bytes: usize) -> Result<(), Problem> {
        self.0.as_ref().map_or(Ok(()), |share| share.take_answer(bytes))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::thread;

    use super::*;

    #[tokio::test]
    async fn large_payloads_are_converted_on_another_thread() {
        let here = thread::current().id();
        assert_eq!(aside(AT_ONCE, || thread::current().id()).await.unwrap(), here);
        assert_ne!(aside(AT_ONCE + 1, || thread::current().id()).await.unwrap(), here);
        let broken = aside(AT_ONCE + 1, || "no number".parse::<u8>().unwrap()).await;
        assert_eq!(broken.unwrap_err().code, Code::Internal);
    }
}
