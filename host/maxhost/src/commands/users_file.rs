//! The file of users as commands change it: section by section, so that what else stands in it stays.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use maxhost_model::{Code, Problem};
use serde_json::{Value as Json, json};
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use crate::config::Config;
use crate::context::Context;
use crate::files::{self, io_problem};
use crate::run::{LARGEST_USERS, parse_users};

/// The file of users where the configuration names none.
const DEFAULT_FILE: &str = "users.toml";
/// The head of a new file.
const HEAD: &str = "# The users of this host, written by `maxhost user`.\n\n";
/// What the sections are called.
const USER: &str = "user";
const TOKEN: &str = "token";

/// The file of users as it stands, comments and all.
pub(super) struct UsersFile {
    pub(super) path: PathBuf,
    document: DocumentMut,
    /// What a file begins with that is not there yet. In the document it would end up behind the first section.
    head: &'static str,
}

impl UsersFile {
    pub(super) fn open(context: &Context, config: &Config) -> Result<UsersFile, Problem> {
        let path = config.users_file().unwrap_or_else(|| {
            context.out.note("the configuration names no file of users, so that nobody has to log in yet: set [rpc.users] file = \"users.toml\"");
            config.root().join(DEFAULT_FILE)
        });
        let (head, text) = match files::read_text(&path, LARGEST_USERS) {
            Ok(text) => ("", text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (HEAD, String::new()),
            Err(error) => return Err(io_problem(Code::FileUnreadable, "read", &path, &error)),
        };
        // A file that a host would refuse is not written to.
        parse_users(&path, &text)?;
        let document: DocumentMut =
            text.parse().map_err(|error: toml_edit::TomlError| broken(&path, error.message()))?;
        if [USER, TOKEN].iter().any(|name| document.get(name).is_some_and(|item| !item.is_array_of_tables())) {
            let text = "write each user as a section [[user]] and each token as a section [[token]], so that this command can change it";
            return Err(broken(&path, text));
        }
        Ok(UsersFile { path, document, head })
    }

    fn users(&self) -> Option<&ArrayOfTables> {
        self.document.get(USER).and_then(Item::as_array_of_tables)
    }

    pub(super) fn users_mut(&mut self) -> Option<&mut ArrayOfTables> {
        let made = || Item::ArrayOfTables(ArrayOfTables::new());
        self.document.entry(USER).or_insert_with(made).as_array_of_tables_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.users().map_or(0, ArrayOfTables::len)
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.users()?.iter().position(|user| user.get("name").and_then(Item::as_str) == Some(name))
    }

    pub(super) fn user_mut(&mut self, name: &str) -> Option<&mut Table> {
        let at = self.find(name)?;
        self.users_mut()?.get_mut(at)
    }

    pub(super) fn nobody(&self, name: &str) -> Problem {
        Problem::new(Code::UserNotFound, format!("{} has no user '{name}'", self.path.display())).detail("user", name)
    }

    /// A user as programs see him: without the hash.
    pub(super) fn json(&self, at: usize) -> Json {
        let Some(user) = self.users().and_then(|users| users.get(at)) else { return Json::Null };
        let texts = |field: &str| texts(user, field).unwrap_or_default();
        json!({
            "name": user.get("name").and_then(Item::as_str),
            "permissions": texts("permissions"),
            "identities": texts("identities"),
            "password": user.contains_key("password"),
            "key": user.contains_key("key"),
        })
    }

    pub(super) fn add(&mut self, name: &str, hash: Option<String>, permissions: &[String], identities: &[String]) {
        let mut user = Table::new();
        user["name"] = value(name);
        if let Some(hash) = hash {
            user["password"] = value(hash);
        }
        user["permissions"] = value(permissions.iter().collect::<Array>());
        user["identities"] = value(identities.iter().collect::<Array>());
        if let Some(users) = self.users_mut() {
            users.push(user);
        }
    }

    /// The tokens, in the order in which they were made.
    pub(super) fn tokens(&self) -> impl Iterator<Item = TokenSection<'_>> {
        self.document.get(TOKEN).and_then(Item::as_array_of_tables).into_iter().flatten().map(TokenSection)
    }

    /// Adds a token that has this hash.
    pub(super) fn add_token(&mut self, id: &str, hash: &str, token: NewToken<'_>) {
        let mut section = Table::new();
        section["id"] = value(id);
        section["user"] = value(token.user);
        section["hash"] = value(hash);
        section["created"] = value(token.created.to_string());
        section["expires"] = value(token.expires.to_string());
        if let Some(note) = token.note {
            section["note"] = value(note);
        }
        for (name, texts) in [("permissions", token.permissions), ("identities", token.identities)] {
            if let Some(texts) = texts {
                section[name] = value(texts.iter().collect::<Array>());
            }
        }
        let made = || Item::ArrayOfTables(ArrayOfTables::new());
        if let Some(tokens) = self.document.entry(TOKEN).or_insert_with(made).as_array_of_tables_mut() {
            tokens.push(section);
        }
    }

    /// Notes that a token was revoked then; false if there is none of this id. One that was revoked before stays as it is.
    pub(super) fn revoke_token(&mut self, id: &str, at: Timestamp) -> bool {
        let Some(tokens) = self.document.get_mut(TOKEN).and_then(Item::as_array_of_tables_mut) else { return false };
        let Some(section) = tokens.iter_mut().find(|section| TokenSection(section).text("id") == id) else {
            return false;
        };
        if !section.contains_key("revoked") {
            section["revoked"] = value(at.to_string());
        }
        true
    }

    /// Removes tokens without a trace.
    pub(super) fn remove_tokens(&mut self, which: impl Fn(TokenSection<'_>) -> bool) {
        if let Some(tokens) = self.document.get_mut(TOKEN).and_then(Item::as_array_of_tables_mut) {
            tokens.retain(|section| !which(TokenSection(section)));
        }
    }

    pub(super) fn save(&self) -> Result<(), Problem> {
        files::write_private(&self.path, format!("{}{}", self.head, self.document).as_bytes())
    }
}

/// What a new token is.
pub(super) struct NewToken<'a> {
    pub(super) user: &'a str,
    pub(super) created: Timestamp,
    pub(super) expires: Timestamp,
    pub(super) note: Option<&'a str>,
    /// `None`: those of its user.
    pub(super) permissions: Option<&'a [String]>,
    /// `None`: those of its user.
    pub(super) identities: Option<&'a [String]>,
}

/// A token in the file.
#[derive(Clone, Copy)]
pub(super) struct TokenSection<'a>(&'a Table);

impl TokenSection<'_> {
    fn text(&self, field: &str) -> &str {
        self.0.get(field).and_then(Item::as_str).unwrap_or_default()
    }

    fn time(&self, field: &str) -> Option<Timestamp> {
        self.text(field).parse().ok()
    }

    /// Whose it is.
    pub(super) fn user(&self) -> &str {
        self.text("user")
    }

    /// Since when it counts no more, if it counts no more now.
    pub(super) fn dead_since(&self, now: Timestamp) -> Option<Timestamp> {
        let expired = self.time("expires").filter(|expires| *expires <= now);
        match (self.time("revoked"), expired) {
            (Some(revoked), Some(expired)) => Some(revoked.min(expired)),
            (revoked, expired) => revoked.or(expired),
        }
    }

    /// The token as programs see it: without the hash.
    pub(super) fn json(&self, now: Timestamp) -> Json {
        let state = match (self.0.contains_key("revoked"), self.dead_since(now)) {
            (true, _) => "revoked",
            (false, Some(_)) => "expired",
            (false, None) => "valid",
        };
        json!({
            "id": self.text("id"),
            "user": self.user(),
            "state": state,
            "created": self.0.get("created").and_then(Item::as_str),
            "expires": self.0.get("expires").and_then(Item::as_str),
            "revoked": self.0.get("revoked").and_then(Item::as_str),
            "note": self.0.get("note").and_then(Item::as_str),
            "permissions": texts(self.0, "permissions"),
            "identities": texts(self.0, "identities"),
        })
    }
}

/// The texts of a list; `None` if there is no list.
fn texts(section: &Table, field: &str) -> Option<Vec<String>> {
    let list = section.get(field).and_then(Item::as_array)?;
    Some(list.iter().filter_map(|text| Some(text.as_str()?.to_owned())).collect())
}

fn broken(path: &Path, message: &str) -> Problem {
    Problem::new(Code::UserInvalid, format!("{}: {message}", path.display())).detail("file", path.display().to_string())
}
