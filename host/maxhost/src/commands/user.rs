//! `maxhost user`: who may log in. Works on the file of users, with or without a host that runs; one that runs takes a change
//! within a second.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use maxhost_flows::Permission;
use maxhost_model::{Code, Found, NameQuery, Problem, X500Name};
use maxhost_pki::signing_key_file;
use maxhost_rpc::{check_name, check_name_for_key, hash_password, key_text};
use serde_json::Value as Json;
use toml_edit::value;
use zeroize::Zeroizing;

use super::manifests;
use super::users_file::UsersFile;
use crate::cli::UserCommand;
use crate::config::Config;
use crate::context::{Context, Outcome};
use crate::files::io_problem;
use crate::render;

/// What whoever calls a host without users is called; flows and rows of the audit trail keep it.
const NOBODY_IN_PARTICULAR: &str = "local";
/// Longest line with a password that is read, bytes.
const LONGEST_LINE: u64 = 4_096;

/// Does what was typed.
pub fn execute(context: &Context, command: UserCommand) -> Outcome {
    let config = context.config()?;
    let mut file = UsersFile::open(context, &config)?;
    match command {
        UserCommand::List => list(context, &file),
        UserCommand::Add { name, permission, identity, no_password } => {
            check_name(&name).map_err(|rule| invalid(&name, &rule))?;
            if name == NOBODY_IN_PARTICULAR {
                return Err(invalid(&name, "so whoever calls a host without users is called, in the audit trail too"));
            }
            if file.find(&name).is_some() {
                let message = format!("{} has a user '{name}' already", file.path.display());
                return Err(Problem::new(Code::UserExists, message).detail("user", name));
            }
            for text in &permission {
                text.parse::<Permission>().map_err(|reason| invalid(&name, &reason))?;
            }
            let identities = identities(context, &config, &identity)?;
            let hash = if no_password { None } else { Some(new_password(context, &name)?) };
            // Of a user of this name who was removed by hand.
            file.remove_tokens(|token| token.user() == name);
            file.add(&name, hash, &permission, &identities);
            file.save()?;
            show(context, &file, &name)
        }
        UserCommand::Passwd { name } => {
            file.find(&name).ok_or_else(|| file.nobody(&name))?;
            let hash = new_password(context, &name)?;
            if let Some(user) = file.user_mut(&name) {
                user["password"] = value(hash);
            }
            file.save()?;
            show(context, &file, &name)
        }
        UserCommand::Key { name, file: key_file, remove } => {
            file.find(&name).ok_or_else(|| file.nobody(&name))?;
            check_name_for_key(&name).map_err(|rule| invalid(&name, &rule))?;
            let path = key_file.unwrap_or_else(|| PathBuf::from(format!("{name}.key")));
            let path = std::path::absolute(&path)
                .map_err(|error| io_problem(Code::DirectoryUnwritable, "write", &path, &error))?;
            let key = match remove {
                true => None,
                false => Some(signing_key_file::create(&path).map_err(Problem::from)?),
            };
            if let Some(user) = file.user_mut(&name) {
                match &key {
                    Some(key) => user["key"] = value(key_text(key.public())),
                    None => drop(user.remove("key")),
                }
            }
            file.save()?;
            if key.is_some() {
                context.out.note(&format!(
                    "the private key is in {}: it is all that shows who sent a message",
                    path.display()
                ));
            }
            show(context, &file, &name)
        }
        UserCommand::Remove { name } => {
            let at = file.find(&name).ok_or_else(|| file.nobody(&name))?;
            let user = file.json(at);
            if let Some(users) = file.users_mut() {
                users.remove(at);
            }
            // Or whoever is called so next would have them.
            file.remove_tokens(|token| token.user() == name);
            file.save()?;
            context.out.object(&user, || format!("{name} may log in no more"));
            Ok(0)
        }
    }
}

fn invalid(name: &str, reason: &str) -> Problem {
    Problem::new(Code::UserInvalid, format!("user '{name}': {reason}")).detail("user", name)
}

fn list(context: &Context, file: &UsersFile) -> Outcome {
    let users: Vec<Json> = (0..file.len()).map(|at| file.json(at)).collect();
    context.out.list(&users, &["NAME", "PERMISSIONS", "IDENTITIES"], |user| {
        let texts = |field: &str| -> String {
            let texts = user[field].as_array().map(Vec::as_slice).unwrap_or_default();
            texts.iter().filter_map(Json::as_str).collect::<Vec<_>>().join("; ")
        };
        vec![render::cell(user, "name"), texts("permissions"), texts("identities")]
    });
    Ok(0)
}

fn show(context: &Context, file: &UsersFile, name: &str) -> Outcome {
    let user = file.find(name).map_or(Json::Null, |at| file.json(at));
    context.out.object(&user, || render::lines(&user));
    Ok(0)
}

/// The identities that a user has: patterns as they are, parts of names as the names that they fit. None given: all.
///
/// # Errors
/// `identity-not-found`, `identity-ambiguous`.
pub(super) fn identities(context: &Context, config: &Config, given: &[String]) -> Result<Vec<String>, Problem> {
    if given.is_empty() {
        return Ok(vec!["*".to_owned()]);
    }
    let known = manifests::names(context, config)?;
    let whole = |text: &String| -> Result<String, Problem> {
        if text.contains('*') {
            return Ok(text.clone());
        }
        match (NameQuery::new(text).pick(&known), X500Name::parse(text)) {
            (Found::One(name), _) => Ok(name.to_string()),
            // One that this host does not have may be hosted by another, or later.
            (Found::Nobody, Ok(name)) => Ok(name.to_string()),
            (Found::Nobody, Err(_)) => {
                Err(Problem::new(Code::IdentityNotFound, format!("no manifest names an identity like '{text}'"))
                    .detail("identity", text.clone()))
            }
            (Found::Several(names), _) => Err(manifests::several(text, &names)),
        }
    };
    given.iter().map(whole).collect()
}

/// The hash of a password from standard input: one line, asked for twice on a terminal.
fn new_password(context: &Context, name: &str) -> Result<String, Problem> {
    let password = if std::io::stdin().is_terminal() {
        let first = ask(&format!("password of {name}: "))?;
        let second = ask("once more: ")?;
        if first != second {
            return Err(invalid(name, "the two passwords differ"));
        }
        first
    } else {
        context.out.note("reading the password from standard input");
        read_line()?
    };
    hash_password(&password).map_err(|rule| invalid(name, &rule))
}

/// Asks for a password on the terminal.
///
/// # Errors
/// The terminal cannot be read.
pub fn ask(prompt: &str) -> Result<Zeroizing<String>, Problem> {
    // Whoever cannot see the question can still answer it.
    let _unseen = write!(std::io::stderr(), "{prompt}").and_then(|()| std::io::stderr().flush());
    let echo = NoEcho::start();
    let line = read_line();
    drop(echo);
    let _unseen = writeln!(std::io::stderr());
    line
}

fn read_line() -> Result<Zeroizing<String>, Problem> {
    let mut line = Zeroizing::new(String::new());
    let read = std::io::Read::take(std::io::stdin().lock(), LONGEST_LINE).read_line(&mut line);
    read.map_err(|error| Problem::new(Code::FileUnreadable, format!("cannot read standard input: {error}")))?;
    Ok(Zeroizing::new(line.trim_end_matches(['\n', '\r']).to_owned()))
}

/// A terminal that does not show what is typed, for as long as this lives.
struct NoEcho(Option<libc::termios>);

impl NoEcho {
    fn start() -> NoEcho {
        // SAFETY: an all-zero `termios` is a valid value; both calls work on structs of their own that live through them. Failing
        // changes nothing.
        unsafe {
            let mut before: libc::termios = std::mem::zeroed();
            if libc::tcgetattr(libc::STDIN_FILENO, &raw mut before) != 0 {
                return NoEcho(None);
            }
            let mut silent = before;
            silent.c_lflag &= !libc::ECHO;
            libc::tcsetattr(libc::STDIN_FILENO, libc::TCSAFLUSH, &raw const silent);
            NoEcho(Some(before))
        }
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // SAFETY: the struct is what the terminal had before, and lives through the call.
            unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSAFLUSH, &raw const *before) };
        }
    }
}
