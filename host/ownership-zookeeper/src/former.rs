//! Closing the session of this host's former run.
//!
//! A process that is killed leaves its session behind, and with it the nodes of what it owned, until the timeout. When
//! it starts again it need not wait: it closes that session. It never deletes nodes of another session.
//!
//! The client library keeps the password of a session to itself, so this speaks the two requests of the protocol that
//! are needed (connect with a session, close it). The password is what every ZooKeeper server computes for a session's
//! id (`ZooKeeperServer.generatePasswd`: `java.util.Random` with a fixed secret), which is why it proves nothing and
//! the note must lie where only this host writes. With TLS the former session is left to its timeout.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zookeeper_client::SessionId;

use crate::nodes;
use crate::options::ZooKeeperOptions;

/// What is noted of a session.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    folder: String,
    session: i64,
}

/// Notes the present session. If that fails the next start waits for the session's timeout.
pub(crate) fn note(options: &ZooKeeperOptions, session: SessionId) {
    let Some(file) = &options.session_file else { return };
    let note = nodes::encode(&Note { folder: options.address.folder.clone(), session: session.0 });
    let fresh = file.with_extension("new");
    if let Err(error) = std::fs::write(&fresh, note).and_then(|()| std::fs::rename(&fresh, file)) {
        tracing::warn!(%error, file = %file.display(), "the session could not be noted: a restart after a crash waits for its timeout");
    }
}

/// Closes the session that was noted by the former run, if there is a note and the servers still know the session.
pub(crate) async fn close_noted(options: &ZooKeeperOptions) {
    let Some(file) = &options.session_file else { return };
    let Some(note) = read(file).filter(|note| note.folder == options.address.folder) else { return };
    if options.tls.is_some() {
        return;
    }
    for server in options.address.servers.split(',') {
        let limit = options.session_timeout / 2;
        match tokio::time::timeout(limit, close(server, note.session)).await {
            Ok(Ok(known)) => {
                tracing::info!(session = note.session, known, "closed the session of the former run");
                return;
            }
            Ok(Err(error)) => tracing::debug!(%error, server, "the former session could not be closed here"),
            Err(_) => tracing::debug!(server, "no answer about the former session"),
        }
    }
}

/// The session that is noted in a file.
#[cfg(feature = "test-servers")]
pub(crate) fn noted(file: &Path) -> Option<i64> {
    read(file).map(|note| note.session)
}

fn read(file: &Path) -> Option<Note> {
    nodes::decode(&std::fs::read(file).ok()?)
}

/// Closes a session at one server of the ensemble; false if the servers do not know it any more.
pub(crate) async fn close(server: &str, session: i64) -> io::Result<bool> {
    const CLOSE: i32 = -11;
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let mut connect = Vec::new();
    connect.extend(0_i32.to_be_bytes()); // version of the protocol
    connect.extend(0_i64.to_be_bytes()); // last transaction that was seen
    connect.extend(10_000_i32.to_be_bytes()); // timeout in milliseconds
    connect.extend(session.to_be_bytes());
    connect.extend(16_i32.to_be_bytes());
    connect.extend(password(session));
    connect.push(0); // not for reading only
    send(&mut stream, &connect).await?;
    let answer = receive(&mut stream).await?;
    let confirmed = answer.get(8..16).and_then(|bytes| bytes.try_into().ok()).map(i64::from_be_bytes);
    if confirmed != Some(session) {
        return Ok(false);
    }
    let mut request = 1_i32.to_be_bytes().to_vec();
    request.extend(CLOSE.to_be_bytes());
    send(&mut stream, &request).await?;
    // The answer, or the end of the connection, says that it was done.
    match receive(&mut stream).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
        Err(error) => Err(error),
    }
}

async fn send(stream: &mut TcpStream, body: &[u8]) -> io::Result<()> {
    let length = i32::try_from(body.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(body).await?;
    stream.flush().await
}

async fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    /// Answers to these two requests are shorter.
    const LONGEST: usize = 4096;
    let length = usize::try_from(stream.read_i32().await?).map_err(io::Error::other)?;
    if length > LONGEST {
        return Err(io::Error::other("the answer is none of ZooKeeper's"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// The password of a session: 16 bytes of `java.util.Random` (a linear congruential generator of 48 bits, as its
/// documentation specifies), seeded with the id and a constant.
fn password(session: i64) -> [u8; 16] {
    const SECRET: i64 = 0xb341_5c00;
    const MULTIPLIER: u64 = 0x5_deec_e66d;
    const MASK: u64 = (1 << 48) - 1;
    let mut state = ((session ^ SECRET) as u64 ^ MULTIPLIER) & MASK;
    let mut password = [0; 16];
    for word in password.chunks_exact_mut(4) {
        state = state.wrapping_mul(MULTIPLIER).wrapping_add(0xb) & MASK;
        word.copy_from_slice(&((state >> 16) as u32).to_le_bytes());
    }
    password
}

/// How long a restarted host waits for its former session to end, if it could not close it.
pub(crate) fn patience(options: &ZooKeeperOptions) -> Duration {
    options.session_timeout * 2
}
