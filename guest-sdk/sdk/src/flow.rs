//! What a flow does that concerns no single session.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::maxhost::cordapp::types::Message;
use crate::entry;
use crate::error::{Error, Result};
use crate::party::Party;
use crate::session::Session;
use crate::time::Timestamp;
use crate::{cbor, host};

/// Opens a session with a party, in the protocol of the nearest initiating flow that is running. A local act: the peer
/// learns of it with the first message, or when its flow info is asked for.
///
/// # Errors
/// `IllegalArgument` when the network has no such party; `IllegalState` when no initiating flow is running.
pub fn initiate(party: &Party) -> Result<Session> {
    let Some(protocol) = entry::current_protocol() else {
        return Err(Error::IllegalState(
            "only an initiating flow may open sessions: mark this one #[flow(..., initiating)]".to_owned(),
        ));
    };
    Ok(Session(host::open_session(protocol, party.name())?))
}

/// The identity this flow runs as.
#[must_use]
pub fn our_identity() -> Party {
    Party::named(host::our_identity().name)
}

/// The id of this flow: the UUID that its client was given.
#[must_use]
pub fn flow_id() -> String {
    host::flow_id()
}

/// The party of exactly this X.500 name, in its canonical form; `None` when the network has none.
///
/// # Errors
/// `IllegalArgument` when it is no X.500 name.
pub fn party(name: &str) -> Result<Option<Party>> {
    Ok(host::find_party(name)?.map(|party| Party::named(party.name)))
}

/// The parties with a name that fits: `exact` compares whole components (`Alice`), case and all; otherwise any component
/// that contains the text fits, in any case.
///
/// # Errors
/// What the host refuses.
pub fn parties(query: &str, exact: bool) -> Result<Vec<Party>> {
    Ok(host::find_parties(query, exact)?.into_iter().map(|party| Party::named(party.name)).collect())
}

/// Sends one message on several sessions in one step. It is encoded once.
///
/// # Errors
/// As [`Session::send`]; then nothing was sent.
pub fn send_all<T: Serialize + ?Sized>(
    sessions: impl IntoIterator<Item = impl AsRef<Session>>,
    payload: &T,
) -> Result<()> {
    let payload = cbor::to_vec(payload)?;
    let messages: Vec<Message> =
        sessions.into_iter().map(|session| Message { session: session.as_ref().0, payload: &payload }).collect();
    Ok(host::send_all(&messages)?)
}

/// Sends a message of its own on each of several sessions, in one step.
///
/// # Errors
/// As [`Session::send`]; then nothing was sent.
pub fn send_each<T: Serialize>(messages: impl IntoIterator<Item = (impl AsRef<Session>, T)>) -> Result<()> {
    let encoded = messages
        .into_iter()
        .map(|(session, payload)| Ok((session.as_ref().0, cbor::to_vec(&payload)?)))
        .collect::<Result<Vec<_>>>()?;
    let messages: Vec<Message> =
        encoded.iter().map(|(session, payload)| Message { session: *session, payload }).collect();
    Ok(host::send_all(&messages)?)
}

/// Waits until each of the sessions has a message, and answers them in the order of the sessions.
///
/// # Errors
/// As [`Session::receive`] of the first session that failed; `IllegalArgument` when a session is named twice.
pub fn receive_all<T: DeserializeOwned>(sessions: impl IntoIterator<Item = impl AsRef<Session>>) -> Result<Vec<T>> {
    let sessions: Vec<Session> = sessions.into_iter().map(|session| *session.as_ref()).collect();
    let ids: Vec<u32> = sessions.iter().map(|session| session.0).collect();
    let messages = host::receive_all(&ids)?;
    sessions.iter().zip(&messages).map(|(session, message)| session.decode(message)).collect()
}

/// Waits until one of the sessions has something to receive: a message, its end or its error. Answers that session, and
/// takes nothing from it; `None` at the deadline.
///
/// # Errors
/// `IllegalArgument` for no sessions and no deadline: that would wait for ever.
pub fn wait_any(
    sessions: impl IntoIterator<Item = impl AsRef<Session>>,
    deadline: impl Into<Option<Timestamp>>,
) -> Result<Option<Session>> {
    let ids: Vec<u32> = sessions.into_iter().map(|session| session.as_ref().0).collect();
    Ok(host::wait_any(&ids, deadline.into().map(Timestamp::deadline_millis))?.map(Session))
}

/// Waits. The moment of waking is fixed when the wait begins: a restart does not begin it anew. Rounded up to whole
/// milliseconds; zero is allowed and is a wait too.
///
/// # Errors
/// `FlowException` for more than five minutes.
pub fn sleep(duration: Duration) -> Result<()> {
    let milliseconds = duration.as_nanos().div_ceil(1_000_000);
    Ok(host::sleep(u64::try_from(milliseconds).unwrap_or(u64::MAX))?)
}

/// Random bytes, the same again on replay: at most 65,536 a call.
///
/// # Errors
/// `IllegalArgument` for more.
pub fn random(length: u32) -> Result<Vec<u8>> {
    Ok(host::random(length)?)
}
