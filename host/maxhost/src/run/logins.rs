//! The file of users, read when it changes: it is looked at now and then, and for whoever is not known, but not too often.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use maxhost_model::{Code, Problem};
use maxhost_rpc::{CertificateLogins, Logins, UserLogins, Users, UsersSource};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
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
/// How often the file is looked at if nobody asks.
const LOOK: Duration = Duration::from_millis(500);
/// The time between two looks at least, whoever asks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// Those who ask for the next look; more wait to ask.
const ASKING: usize = 64;

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

/// Who may log in, as the configuration says; changes of the file count within a second, and new users and tokens at once, until
/// the host stops.
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
    let (ask, asked) = mpsc::channel(ASKING);
    let logins = Arc::new(UserLogins::of_source(users, Arc::new(AsksForLooks(ask))));
    let watched = Watched { file, seen, logins: Arc::clone(&logins), looks: 0 };
    tokio::spawn(watch(watched, asked, LOOK, stop));
    Ok(Some(logins))
}

/// Somebody who waits for a look.
type Asking = oneshot::Sender<()>;

/// Asks whoever watches the file for a look.
struct AsksForLooks(mpsc::Sender<Asking>);

impl UsersSource for AsksForLooks {
    fn look(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let (reply, looked) = oneshot::channel();
            // Once the host stops, nobody takes the question or answers it.
            if self.0.send(reply).await.is_ok() {
                let _ = looked.await;
            }
        })
    }
}

/// A file of users, and who is let in by it.
struct Watched {
    file: PathBuf,
    /// How the file looked when it was read last.
    seen: Stamp,
    logins: Arc<UserLogins>,
    /// How often it was looked at.
    looks: u64,
}

impl Watched {
    /// Reads the file if it has changed.
    async fn look(&mut self) {
        self.looks += 1;
        let (path, known) = (self.file.clone(), self.seen);
        let looked = tokio::task::spawn_blocking(move || {
            let now = stamp(&path);
            (now != known).then(|| (now, read(&path)))
        });
        match looked.await {
            Ok(Some((now, Ok(users)))) => {
                tracing::info!(users = users.len(), "the users have changed");
                self.logins.replace(users);
                self.seen = now;
            }
            Ok(Some((now, Err(problem)))) => {
                tracing::warn!(%problem, "the users file cannot be used; those of before count");
                self.seen = now;
            }
            Ok(None) | Err(_) => {}
        }
    }
}

/// Looks at the file so often, and for those who ask, until the host stops. Each who asks is answered behind a look that began
/// after he had asked. Gives the file back.
async fn watch(
    mut watched: Watched,
    mut asked: mpsc::Receiver<Asking>,
    every: Duration,
    stop: CancellationToken,
) -> Watched {
    let mut next = Instant::now();
    let mut asking: Vec<Asking> = Vec::with_capacity(ASKING);
    loop {
        tokio::select! {
            () = stop.cancelled() => return watched,
            () = tokio::time::sleep(every) => {}
            Some(first) = asked.recv() => asking.push(first),
        }
        tokio::select! {
            () = stop.cancelled() => return watched,
            () = tokio::time::sleep_until(next) => {}
        }
        while asking.len() < ASKING
            && let Ok(more) = asked.try_recv()
        {
            asking.push(more);
        }
        next = Instant::now() + BETWEEN_LOOKS;
        watched.look().await;
        for reply in asking.drain(..) {
            // He may have given up.
            let _ = reply.send(());
        }
    }
}

/// How a file looks now; `None` if there is none.
pub(super) fn stamp(file: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::net::{IpAddr, Ipv4Addr};

    use maxhost_rpc::{Credentials, TokenText};
    use tempfile::TempDir;
    use tokio::task::JoinHandle;

    use super::*;

    /// Longer than any test takes.
    const NEVER: Duration = Duration::from_secs(3_600);
    const PATIENCE: Duration = Duration::from_secs(60);

    struct World {
        folder: TempDir,
        logins: Arc<UserLogins>,
        stop: CancellationToken,
        watching: JoinHandle<Watched>,
    }

    impl World {
        /// A file without users, which is looked at for those who ask only.
        fn new() -> World {
            let folder = TempDir::new().unwrap();
            let file = folder.path().join("users.toml");
            std::fs::write(&file, "").unwrap();
            let (ask, asked) = mpsc::channel(ASKING);
            let logins = Arc::new(UserLogins::of_source(Users::default(), Arc::new(AsksForLooks(ask))));
            let watched = Watched { seen: stamp(&file), file, logins: Arc::clone(&logins), looks: 0 };
            let stop = CancellationToken::new();
            let watching = tokio::spawn(watch(watched, asked, NEVER, stop.clone()));
            World { folder, logins, stop, watching }
        }

        /// Puts another file in its place, as `maxhost user` and `maxhost token` do.
        fn write(&self, text: &str) {
            let (new, file) = (self.folder.path().join("new"), self.folder.path().join("users.toml"));
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, file).unwrap();
        }

        async fn try_token(&self, token: &TokenText, from: u32) -> Result<String, Code> {
            self.login(Credentials::Token(token.clone()), from).await
        }

        async fn login(&self, credentials: Credentials, from: u32) -> Result<String, Code> {
            let answer = self.logins.login(credentials, IpAddr::V4(Ipv4Addr::from_bits(from)));
            let answer = tokio::time::timeout(PATIENCE, answer).await.expect("nobody waits for ever");
            answer.map(|caller| caller.user).map_err(|refused| refused.problem.code)
        }

        /// How often the file was looked at.
        async fn looks(self) -> u64 {
            self.stop.cancel();
            self.watching.await.unwrap().looks
        }
    }

    fn ann(password: &str) -> String {
        let hash = maxhost_rpc::hash_password(password).unwrap();
        format!("[[user]]\nname = \"ann\"\npassword = \"{hash}\"\npermissions = [\"ALL\"]\nidentities = [\"*\"]\n")
    }

    fn entry(token: &TokenText) -> String {
        format!(
            "[[token]]\nid = \"{}\"\nuser = \"ann\"\nhash = \"{}\"\ncreated = \"2026-01-01T00:00:00Z\"\n\
             expires = \"9000-01-01T00:00:00Z\"\n",
            token.id(),
            token.hash_text()
        )
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_was_made_just_now_is_let_in_at_once() {
        let world = World::new();
        let password = |word: &str| Credentials::Password { user: "ann".to_owned(), password: word.to_owned().into() };
        let certificate = || Credentials::Certificate { common_name: "ann".to_owned() };
        assert_eq!(world.login(password("secret"), 1).await, Err(Code::Unauthenticated));
        assert_eq!(world.login(certificate(), 2).await, Err(Code::Unauthenticated));
        world.write(&ann("secret"));
        assert_eq!(world.login(password("secret"), 3).await.as_deref(), Ok("ann"));
        assert_eq!(world.login(certificate(), 4).await.as_deref(), Ok("ann"));
        let mut text = ann("other");
        world.write(&text);
        assert_eq!(world.login(password("other"), 5).await.as_deref(), Ok("ann"), "a new password counts too");
        for from in 6..9 {
            let token = TokenText::random();
            assert_eq!(world.try_token(&token, from).await, Err(Code::TokenUnknown));
            text.push_str(&entry(&token));
            world.write(&text);
            assert_eq!(world.try_token(&token, from).await.as_deref(), Ok("ann"));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_that_cannot_be_used_takes_nobody_away() {
        let world = World::new();
        let (token, other) = (TokenText::random(), TokenText::random());
        world.write(&[ann("secret"), entry(&token)].concat());
        assert_eq!(world.try_token(&token, 1).await.as_deref(), Ok("ann"));
        world.write("[[user]]\n");
        assert_eq!(world.try_token(&other, 2).await, Err(Code::TokenUnknown));
        assert_eq!(world.try_token(&token, 3).await.as_deref(), Ok("ann"));
        world.write(&[ann("secret"), entry(&token), entry(&other)].concat());
        assert_eq!(world.try_token(&other, 4).await.as_deref(), Ok("ann"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn however_many_are_wrong_the_file_is_looked_at_ten_times_a_second_at_most() {
        let world = World::new();
        let begun = Instant::now();
        // One after the other, and many at once; each from another address, so that none has to wait for being wrong.
        for from in 0..5 {
            assert_eq!(world.try_token(&TokenText::random(), from).await, Err(Code::TokenUnknown));
        }
        let tokens: Vec<TokenText> = (0..500).map(|_| TokenText::random()).collect();
        let at_once = tokens.iter().zip(1_000..).map(|(token, from)| world.try_token(token, from));
        let answers = futures::future::join_all(at_once).await;
        assert!(answers.iter().all(|answer| *answer == Err(Code::TokenUnknown)), "{answers:?}");
        let looks = u128::from(world.looks().await);
        let most = 1 + begun.elapsed().as_millis() / BETWEEN_LOOKS.as_millis();
        assert!((5..=most).contains(&looks), "{looks} looks, and no more than {most} may be");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_was_wrong_too_often_makes_nobody_look() {
        let world = World::new();
        for _ in 0..10 {
            assert_eq!(world.try_token(&TokenText::random(), 1).await, Err(Code::TokenUnknown));
        }
        // Each of the ten has waited for a look of its own, so the last was wrong less than the delay ago, or this is no test.
        let mut delayed = 0;
        for _ in 0..100 {
            delayed += u64::from(world.try_token(&TokenText::random(), 1).await == Err(Code::LoginDelayed));
        }
        let looks = world.looks().await;
        assert!(looks <= 110 - delayed && delayed > 0, "{looks} looks, {delayed} were delayed");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_waits_for_a_host_that_stops() {
        let world = World::new();
        world.stop.cancel();
        assert_eq!(world.try_token(&TokenText::random(), 1).await, Err(Code::TokenUnknown));
    }
}
