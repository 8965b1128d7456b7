//! Databases beside the one of `store.url`: `[store.databases]` names them, `[store.password_files]` says where their
//! passwords are.

use std::path::PathBuf;

use maxhost_model::{Code, Problem};
use maxhost_store_postgres::{PASSWORD_VARIABLE, PostgresOptions};

use super::{Config, Database};
use crate::strict_toml::Raw;

/// The section with their addresses.
const ADDRESSES: &str = "store.databases";
/// The section with the files of their passwords.
const PASSWORD_FILES: &str = "store.password_files";
/// What the environment variables with their addresses begin with.
const ADDRESS_VARIABLE: &str = "MAXHOST_STORE_DATABASES_";
/// The name of the database of `store.url`.
pub const FIRST: &str = "first";
/// The most databases of a host.
const MOST: usize = 16;
/// The longest name, bytes.
const LONGEST_NAME: usize = 32;

/// A database beside the first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FurtherDatabase {
    name: String,
    /// Empty until it is named.
    url: String,
    password_file: Option<PathBuf>,
}

/// Sets a key of the two sections. `None`: it is of another section.
pub(super) fn apply(
    further: &mut Vec<FurtherDatabase>,
    section: &str,
    key: &str,
    value: &Raw,
) -> Option<Result<(), String>> {
    if ![ADDRESSES, PASSWORD_FILES].contains(&section) {
        return None;
    }
    // An empty section.
    if key.is_empty() {
        return Some(Ok(()));
    }
    let set = || {
        let text = value.text()?;
        let database = named(further, key)?;
        match section == ADDRESSES {
            true => database.url = text,
            false => database.password_file = Some(text.into()),
        }
        Ok(())
    };
    Some(prefixed(set, section, key))
}

fn prefixed(set: impl FnOnce() -> Result<(), String>, section: &str, key: &str) -> Result<(), String> {
    set().map_err(|message| format!("{section}.{key}: {message}"))
}

/// Sets what an environment variable names. `None`: the variable is about something else.
pub(super) fn apply_variable(
    further: &mut Vec<FurtherDatabase>,
    variable: &str,
    value: &str,
) -> Option<Result<(), String>> {
    // Read when the database is opened.
    if variable.strip_prefix(PASSWORD_VARIABLE).is_some_and(|rest| rest.starts_with('_') && rest != "_FILE") {
        return Some(Ok(()));
    }
    let name = variable.strip_prefix(ADDRESS_VARIABLE)?.to_lowercase();
    Some(named(further, &name).map(|database| database.url = value.to_owned()))
}

/// The database of this name, which is noted if it is new.
fn named<'d>(further: &'d mut Vec<FurtherDatabase>, name: &str) -> Result<&'d mut FurtherDatabase, String> {
    let is_good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_good) || name == FIRST {
        return Err(format!(
            "'{name}' is no name for a database: use up to {LONGEST_NAME} lowercase letters, digits and '_', and not \
             '{FIRST}', which is the one of store.url"
        ));
    }
    let place = match further.iter().position(|database| database.name == name) {
        Some(place) => place,
        None if further.len() + 1 >= MOST => return Err(format!("a host has {MOST} databases at the most")),
        None => {
            further.push(FurtherDatabase { name: name.to_owned(), url: String::new(), password_file: None });
            further.len() - 1
        }
    };
    Ok(&mut further[place])
}

/// Whether the databases go together as far as their addresses tell.
pub(super) fn check(further: &[FurtherDatabase], first: &Database) -> Result<(), String> {
    for database in further {
        let name = &database.name;
        if let Database::File(_) = first {
            return Err(format!("{ADDRESSES}.{name}: databases beside the first one need a store.url on a server"));
        }
        if database.url.is_empty() {
            return Err(format!("{PASSWORD_FILES}.{name}: {ADDRESSES} names no such database"));
        }
        // Its password is not needed yet.
        PostgresOptions::new(&database.url, None).map_err(|error| format!("{ADDRESSES}.{name}: {error}"))?;
    }
    Ok(())
}

impl FurtherDatabase {
    /// The environment variable with its password.
    fn password_variable(&self) -> String {
        format!("{PASSWORD_VARIABLE}_{}", self.name.to_uppercase())
    }
}

/// A database on a server, with how it is opened.
pub struct NamedDatabase {
    /// Its name in the configuration.
    pub name: String,
    /// Its address, as written there.
    pub url: String,
    /// How it is opened.
    pub options: PostgresOptions,
}

impl Config {
    /// The databases on servers, that of `store.url` first; none if that is a file. Each beside it has its own password if
    /// one is named, or else that of the first.
    ///
    /// # Errors
    /// As [`Config::postgres`].
    pub fn databases_on_servers(&self) -> Result<Vec<NamedDatabase>, Problem> {
        let Database::Server(url) = self.database() else { return Ok(Vec::new()) };
        let mut databases =
            vec![NamedDatabase { name: FIRST.to_owned(), url: url.clone(), options: self.postgres(url)? }];
        for further in &self.settings.further {
            let (variable, key) = (further.password_variable(), format!("{ADDRESSES}.{}", further.name));
            let has_own = further.password_file.is_some() || std::env::var_os(&variable).is_some();
            let options = match has_own {
                true => self.postgres_with(&further.url, &key, &variable, further.password_file.as_deref())?,
                false => {
                    let file = self.settings.password_file.as_deref();
                    self.postgres_with(&further.url, &key, PASSWORD_VARIABLE, file)?
                }
            };
            databases.push(NamedDatabase { name: further.name.clone(), url: further.url.clone(), options });
        }
        Ok(databases)
    }

    /// The place among [`Config::databases_on_servers`] of the one that has this name or address.
    ///
    /// # Errors
    /// `database-unknown`; `usage` if the database is a file.
    pub fn find_database(databases: &[NamedDatabase], wanted: &str) -> Result<usize, Problem> {
        if databases.is_empty() {
            let text = "the database is a file: identities live in different databases only on servers";
            return Err(Problem::new(Code::Usage, text));
        }
        let place = PostgresOptions::new(wanted, None).ok().map(|options| options.place());
        let fits = |database: &NamedDatabase| {
            database.name == wanted || database.url == wanted || Some(database.options.place()) == place
        };
        databases.iter().position(fits).ok_or_else(|| {
            let known: Vec<String> =
                databases.iter().map(|database| format!("{} ({})", database.name, database.options.place())).collect();
            let text = format!("the configuration names no database '{wanted}': it has {}", known.join(", "));
            Problem::new(Code::DatabaseUnknown, text)
        })
    }
}
