//! A conversation with one party.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::flow_info::FlowInfo;
use crate::party::Party;
use crate::{cbor, host};

/// A session with another party's flow. A small handle: copies of it are the same session.
///
/// Messages arrive in the order they were sent, each exactly once. Every session ends by itself when the flow ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub(crate) u32);

impl Session {
    /// Sends; does not wait for the peer.
    ///
    /// # Errors
    /// `UnexpectedEnd` when the session has ended, `Limit` when the message is too large.
    pub fn send<T: Serialize + ?Sized>(&self, payload: &T) -> Result<()> {
        Ok(host::send(self.0, &cbor::to_vec(payload)?)?)
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// `FlowException` when the peer threw one; `UnexpectedEnd` when it ended, failed otherwise, rejected the session, or
    /// sent something that is not a `T`.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<T> {
        self.decode(&host::receive(self.0)?)
    }

    /// As [`receive`](Session::receive), but `None` when the peer ended in order.
    ///
    /// # Errors
    /// As `receive`, but for that end.
    pub fn receive_or_close<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        host::receive_or_end(self.0)?.map(|message| self.decode(&message)).transpose()
    }

    /// Sends, then waits for the next message: one suspension instead of two.
    ///
    /// # Errors
    /// As [`send`](Session::send) and [`receive`](Session::receive).
    pub fn send_and_receive<T: DeserializeOwned>(&self, payload: &(impl Serialize + ?Sized)) -> Result<T> {
        self.decode(&host::send_and_receive(self.0, &cbor::to_vec(payload)?)?)
    }

    /// Who is on the other side.
    ///
    /// # Panics
    /// Never for a session that this flow was given or opened; a host that does not know it is broken.
    #[must_use]
    pub fn counterparty(&self) -> Party {
        match host::counterparty(self.0) {
            Ok(party) => Party::named(party.name),
            Err(failure) => unknown_session(&failure.message),
        }
    }

    /// Version and CorDapp of the peer's flow. Waits until the peer has confirmed the session.
    ///
    /// # Errors
    /// `UnexpectedEnd` when it ends or rejects the session instead.
    pub fn flow_info(&self) -> Result<FlowInfo> {
        let info = host::counterparty_flow_info(self.0)?;
        Ok(FlowInfo { version: info.version, app: info.app })
    }

    /// Ends the session now instead of at the end of the flow. What has arrived and was not received is lost; closing
    /// again does nothing.
    ///
    /// # Errors
    /// `PrematureClose` when the peer has not confirmed the session yet: receive something, or ask for
    /// [`flow_info`](Session::flow_info), before.
    pub fn close(&self) -> Result<()> {
        Ok(host::close(&[self.0])?)
    }

    pub(crate) fn decode<T: DeserializeOwned>(&self, message: &[u8]) -> Result<T> {
        cbor::from_slice(message).map_err(|error| self.not_of_type::<T>(&error))
    }

    #[cold]
    fn not_of_type<T>(&self, error: &cbor::Error) -> Error {
        let peer = host::counterparty(self.0).ok().map(|party| Party::named(party.name));
        Error::not_of_type::<T>(peer, error)
    }
}

impl AsRef<Session> for Session {
    fn as_ref(&self) -> &Session {
        self
    }
}

#[cold]
// A session handle comes from the host alone, so this is its broken promise and not an error an author could handle.
#[allow(clippy::panic)]
fn unknown_session(message: &str) -> ! {
    panic!("the host does not know a session of this flow: {message}")
}
