//! The file of users, read when it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use maxhost_model::{Code, Problem};
use maxhost_rpc::{CertificateLogins, Logins, UserLogins, Users};
use tokio_util::sync::CancellationToken;
use toml_edit::{Document, Item, Table};

use crate::config::Config;
use crate::files;
use crate::strict_toml::{self, Fault};

/// Largest file of users, bytes.
pub const LARGEST_USERS: u64 = 16 << 20;
/// What the sections of users and of tokens are called, and what can stand in them.
const SECTIONS: [&str; 2] = ["user", "token"];
const KEYS: [&[&str]; 2] = [
    &["name", "password", "key", "permissions", "identities"],
    &["id", "user", "hash", "created", "expires", "revoked", "note", "permissions", "identities"],
];
/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What a file looked like: when it was changed, how long it is, which file it is.
pub(super) type Stamp = Option<(SystemTime, u64, u64)>;

/// The users of a file.
///
/// # Errors
/// `file-not-found`, `file-unreadable`; `user-invalid` with the line.
pub fn read(file: &Path) -> Result<Users, Problem> {
    let text = files::read_text(file, LARGEST_USERS)
        .map_err(|error| files::io_problem(Code::FileUnreadable, "read the users file", file, &error))?;
    parse(file, &text)
}

/// The users in the text of a file.
///
/// # Errors
/// `user-invalid` with the line, and for a key that is not known the nearest one.
pub fn parse(file: &Path, text: &str) -> Result<Users, Problem> {
    Users::parse(text).map_err(|fault| match unknown_key(text) {
        Some(fault) => fault.in_file(Code::UserInvalid, file),
        None => match fault.at.map(|at| strict_toml::line_of(text, at)) {
            Some(line) => Fault { line, message: fault.message }.in_file(Code::UserInvalid, file),
            None => Problem::new(Code::UserInvalid, format!("{}: {}", file.display(), fault.message))
                .detail("file", file.display().to_string()),
        },
    })
}

/// The first key of a file of users that is none, if it is TOML at all.
fn unknown_key(text: &str) -> Option<Fault> {
    let document = Document::parse(text).ok()?;
    let fault = |table: &Table, name: &str, known: &[&str]| {
        let at = table.key(name).and_then(toml_edit::Key::span).map_or(0, |span| span.start);
        let message = strict_toml::unknown(name, known.iter().map(|&known| known.to_owned()));
        Fault { line: strict_toml::line_of(text, at), message }
    };
    let unknown = |table: &Table, known: &[&str]| {
        let name = table.iter().map(|(name, _)| name).find(|name| !known.contains(name))?;
        Some(fault(table, name, known))
    };
    let in_section = |(name, keys): (&&str, &&[&str])| {
        let sections = document.as_table().get(name).and_then(Item::as_array_of_tables)?;
        sections.iter().find_map(|section| unknown(section, keys))
    };
    unknown(document.as_table(), &SECTIONS).or_else(|| SECTIONS.iter().zip(&KEYS).find_map(in_section))
}

/// Who may log in, as the configuration says; changes of the file count within a second, until the host stops.
///
/// # Errors
/// As [`read`].
pub fn start(config: &Config, stop: CancellationToken) -> Result<Option<Arc<dyn Logins>>, Problem> {
    let Some(file) = config.users_file() else {
        return Ok(config.asks_for_certificates().then(|| Arc::new(CertificateLogins) as Arc<dyn Logins>));
    };
    let seen = stamp(&file);
    let users = read(&file)?;
    if users.is_empty() {
        tracing::warn!(file = %file.display(), "there are no users: nobody can log in until `maxhost user add` makes one");
    }
    let logins = Arc::new(UserLogins::new(users));
    tokio::spawn(watch(file, seen, Arc::clone(&logins), stop));
    Ok(Some(logins))
}

async fn watch(file: PathBuf, mut seen: Stamp, logins: Arc<UserLogins>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let path = file.clone();
        let known = seen;
        let looked = tokio::task::spawn_blocking(move || {
            let now = stamp(&path);
            (now != known).then(|| (now, read(&path)))
        });
        match looked.await {
            Ok(Some((now, Ok(users)))) => {
                tracing::info!(users = users.len(), "the users have changed");
                logins.replace(users);
                seen = now;
            }
            Ok(Some((now, Err(problem)))) => {
                tracing::warn!(%problem, "the users file cannot be used; those of before count");
                seen = now;
            }
            Ok(None) | Err(_) => {}
        }
    }
}

/// How a file looks now; `None` if there is none.
pub(super) fn stamp(file: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}
