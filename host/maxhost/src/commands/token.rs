//! `maxhost token`: what programs log in with. Works on the file of users, with or without a host that runs; one that runs takes
//! a change within a second.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use maxhost_flows::Permission;
use maxhost_model::{Code, Problem};
use maxhost_rpc::{TokenText, check_note};
use serde_json::{Value as Json, json};
use zeroize::Zeroizing;

use super::user::identities;
use super::users_file::{NewToken, UsersFile};
use crate::cli::{TokenCommand, TokenNewArgs};
use crate::config::Config;
use crate::context::{Context, Outcome};
use crate::files::{self, io_problem};
use crate::render;

/// The shortest and the longest time for which a token counts.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3_660 * 24 * 3_600);
/// Tokens of one user that count.
const MOST: usize = 100;
/// How long one that has expired or was revoked is kept, so that its holder is told which of the two; and how many of one user.
const DEAD_KEPT: Duration = Duration::from_secs(90 * 24 * 3_600);
const DEAD_MOST: usize = 100;
/// Largest file with a token, bytes.
const LARGEST_FILE: u64 = 1_024;

/// Does what was typed.
pub fn execute(context: &Context, command: TokenCommand) -> Outcome {
    let config = context.config()?;
    let mut file = UsersFile::open(context, &config)?;
    let now = Timestamp::now();
    match command {
        TokenCommand::New(args) => new(context, &config, &mut file, now, args),
        TokenCommand::List(args) => {
            let is_wanted = |user: &str| args.of_user.as_deref().is_none_or(|wanted| wanted == user);
            let tokens: Vec<Json> =
                file.tokens().filter(|token| is_wanted(token.user())).map(|token| token.json(now)).collect();
            context.out.list(&tokens, &["ID", "USER", "STATE", "EXPIRES", "NOTE"], |token| {
                ["id", "user", "state", "expires", "note"].map(|field| render::cell(token, field)).into()
            });
            Ok(0)
        }
        TokenCommand::Revoke { id } => {
            if !file.revoke_token(&id, now) {
                let message = format!("{} has no token '{id}'", file.path.display());
                return Err(Problem::new(Code::TokenNotFound, message).detail("token", id));
            }
            file.save()?;
            let token = find(&file, &id, now);
            context.out.object(&token, || format!("token {id} lets nobody in any more"));
            Ok(0)
        }
    }
}

fn new(context: &Context, config: &Config, file: &mut UsersFile, now: Timestamp, args: TokenNewArgs) -> Outcome {
    let TokenNewArgs { of_user: user, expires, permission, identity, note, file: secret_file, .. } = args;
    let invalid = |reason: &str| Problem::new(Code::TokenInvalid, format!("a token of {user}: {reason}"));
    file.find(&user).ok_or_else(|| file.nobody(&user))?;
    for text in &permission {
        text.parse::<Permission>().map_err(|reason| invalid(&reason))?;
    }
    note.as_deref().map_or(Ok(()), check_note).map_err(|rule| invalid(&rule))?;
    if !(SHORTEST..=LONGEST).contains(&expires) {
        return Err(invalid("--expires is a second at least, and 3660 d at most"));
    }
    let expires = whole_seconds(now + expires);
    let identities = if identity.is_empty() { None } else { Some(identities(context, config, &identity)?) };
    forget_dead(file, &user, now);
    if file.tokens().filter(|token| token.user() == user && token.dead_since(now).is_none()).count() >= MOST {
        return Err(invalid(&format!("there are {MOST}, and one user has no more: revoke some")));
    }
    let token = TokenText::random();
    let of = NewToken {
        user: &user,
        created: whole_seconds(now),
        expires,
        note: note.as_deref(),
        permissions: (!permission.is_empty()).then_some(&*permission),
        identities: identities.as_deref(),
    };
    file.add_token(token.id(), &token.hash_text(), of);
    // The secret is somewhere before the host knows it, so that no token counts that nobody has.
    let secret_file = secret_file.map(|path| keep(&path, &token)).transpose()?;
    if let Err(problem) = file.save() {
        // What is in it would be no token.
        secret_file.iter().for_each(|path| drop(std::fs::remove_file(path)));
        return Err(problem);
    }
    let mut shown = find(file, token.id(), now);
    match &secret_file {
        Some(path) => shown["file"] = json!(path.display().to_string()),
        None => shown["token"] = json!(token.expose()),
    }
    context.out.note("the token is shown this once: whoever has it is the user, as far as it reaches");
    context.out.object(&shown, || render::lines(&shown));
    Ok(0)
}

/// A time as it stands in the file.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn find(file: &UsersFile, id: &str, now: Timestamp) -> Json {
    file.tokens().map(|token| token.json(now)).find(|token| token["id"] == id).unwrap_or(Json::Null)
}

/// Removes tokens that have not counted for long, and of those of a user all but the newest.
fn forget_dead(file: &mut UsersFile, user: &str, now: Timestamp) {
    let long_ago = now - DEAD_KEPT;
    file.remove_tokens(|token| token.dead_since(now).is_some_and(|since| since <= long_ago));
    let mut dead: Vec<Timestamp> =
        file.tokens().filter(|token| token.user() == user).filter_map(|token| token.dead_since(now)).collect();
    dead.sort_unstable_by(|a, b| b.cmp(a));
    if let Some(oldest_kept) = dead.get(DEAD_MOST.saturating_sub(1)).copied() {
        file.remove_tokens(|token| {
            token.user() == user && token.dead_since(now).is_some_and(|since| since < oldest_kept)
        });
    }
}

/// Writes a token into a new file that is its owner's alone.
fn keep(path: &Path, token: &TokenText) -> Result<PathBuf, Problem> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path =
        std::path::absolute(path).map_err(|error| io_problem(Code::DirectoryUnwritable, "write", path, &error))?;
    let line = Zeroizing::new(format!("{}\n", token.expose()));
    let made = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path).and_then(|mut file| {
        file.write_all(line.as_bytes())?;
        file.sync_all()
    });
    match made {
        Ok(()) => Ok(path),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let text = format!("{} is there already, and is not replaced", path.display());
            Err(Problem::new(Code::TokenInvalid, text).remedy("name a file that is not there"))
        }
        Err(error) => Err(io_problem(Code::DirectoryUnwritable, "write", &path, &error)),
    }
}

/// The token in a file: its first line that is not empty.
///
/// # Errors
/// `file-not-found`, `file-unreadable`; `token-invalid` if there is none in it.
pub fn read(path: &Path) -> Result<TokenText, Problem> {
    let text = files::read_text(path, LARGEST_FILE)
        .map(Zeroizing::new)
        .map_err(|error| io_problem(Code::FileUnreadable, "read the token in", path, &error))?;
    TokenText::parse(text.trim()).ok_or_else(|| {
        let text = format!("{} holds no token such as `maxhost token new` makes", path.display());
        Problem::new(Code::TokenInvalid, text).detail("file", path.display().to_string())
    })
}
