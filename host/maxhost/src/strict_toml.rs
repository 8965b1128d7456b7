//! TOML files in which every mistake is told with its line: sections and sections in them, and nothing that is not known.

use maxhost_model::{Code, Problem};
use std::path::Path;
use toml_edit::{Document, Item, TableLike, Value};

/// A value as it stands in a file, in the environment or on the command line.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML float.
    Float(f64),
    /// A TOML boolean.
    Bool(bool),
    /// A TOML array of strings.
    Texts(Vec<String>),
    /// From the environment or the command line, where everything is text.
    Word(String),
    /// Anything else: what it is called.
    Other(&'static str),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The section; empty at the top level.
    pub section: String,
    /// The key.
    pub key: String,
    /// The value.
    pub value: Raw,
    /// Line in the file, from 1.
    pub line: usize,
}

/// What is wrong in a file, and in which line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line, from 1.
    pub line: usize,
    /// For whoever wrote it.
    pub message: String,
}

impl Fault {
    /// As the problem of this file.
    pub fn in_file(self, code: Code, file: &Path) -> Problem {
        Problem::new(code, format!("{}:{}: {}", file.display(), self.line, self.message))
            .detail("file", file.display().to_string())
            .detail("line", self.line.to_string())
    }
}

/// All keys of a file, in its order.
///
/// # Errors
/// The text is not TOML.
pub fn entries(text: &str) -> Result<Vec<Entry>, Fault> {
    let document = Document::parse(text).map_err(|error| Fault {
        line: error.span().map_or(1, |span| line_of(text, span.start)),
        message: error.message().to_owned(),
    })?;
    let mut found = Vec::new();
    collect(text, "", document.as_table(), &mut found);
    Ok(found)
}

fn collect(text: &str, section: &str, table: &dyn TableLike, found: &mut Vec<Entry>) {
    for (name, item) in table.iter() {
        let line = table.key(name).and_then(toml_edit::Key::span).map_or(1, |span| line_of(text, span.start));
        // A section may have one more inside, as in `[rpc.tls]`.
        let full = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
        let inner = if section.contains('.') { None } else { item.as_table_like() };
        match inner {
            Some(inner) if !inner.is_empty() => collect(text, &full, inner, found),
            Some(_) => found.push(Entry { section: full, key: String::new(), value: Raw::Other("a section"), line }),
            None => found.push(Entry { section: section.to_owned(), key: name.to_owned(), value: raw(item), line }),
        }
    }
}

fn raw(item: &Item) -> Raw {
    match item {
        Item::Value(Value::String(text)) => Raw::Text(text.value().clone()),
        Item::Value(Value::Integer(number)) => Raw::Integer(*number.value()),
        Item::Value(Value::Float(number)) => Raw::Float(*number.value()),
        Item::Value(Value::Boolean(flag)) => Raw::Bool(*flag.value()),
        Item::Value(Value::Array(list)) => {
            let texts: Option<Vec<String>> = list.iter().map(|value| value.as_str().map(str::to_owned)).collect();
            texts.map_or(Raw::Other("a list of other things than texts"), Raw::Texts)
        }
        Item::Value(Value::Datetime(_)) => Raw::Other("a date"),
        Item::Value(Value::InlineTable(_)) | Item::Table(_) => Raw::Other("a section"),
        Item::ArrayOfTables(_) => Raw::Other("a list of sections"),
        Item::None => Raw::Other("nothing"),
    }
}

/// The line of a place in a text, from 1.
pub fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}

/// `unknown key 'x'` with the nearest of the known ones.
pub fn unknown(key: &str, known: impl Iterator<Item = String>) -> String {
    match nearest(key, known) {
        Some(name) => format!("unknown key '{key}'; did you mean '{name}'?"),
        None => format!("unknown key '{key}'"),
    }
}

/// The most similar of some names, if one is similar at all.
pub fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, &candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.75)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

impl Raw {
    fn found(&self) -> String {
        match self {
            Raw::Text(text) | Raw::Word(text) => format!("'{text}'"),
            Raw::Integer(number) => number.to_string(),
            Raw::Float(number) => number.to_string(),
            Raw::Bool(flag) => flag.to_string(),
            Raw::Texts(_) => "a list".to_owned(),
            Raw::Other(what) => (*what).to_owned(),
        }
    }

    /// A text that is not empty.
    pub fn text(&self) -> Result<String, String> {
        match self {
            Raw::Text(text) | Raw::Word(text) if !text.trim().is_empty() => Ok(text.clone()),
            other => Err(format!("expected a text in quotes, found {}", other.found())),
        }
    }

    /// Several texts; from the environment separated by commas.
    pub fn texts(&self) -> Result<Vec<String>, String> {
        match self {
            Raw::Texts(texts) => Ok(texts.clone()),
            Raw::Word(text) => Ok(text.split(',').map(|part| part.trim().to_owned()).collect()),
            other => Err(format!("expected a list of texts, such as [\"a\", \"b\"], found {}", other.found())),
        }
    }

    /// A whole number in a range.
    pub fn count(&self, least: u64, most: u64) -> Result<u64, String> {
        let number = match self {
            Raw::Integer(number) => u64::try_from(*number).ok(),
            Raw::Word(text) => text.trim().parse().ok(),
            _ => None,
        };
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| format!("expected a whole number from {least} to {most}, found {}", self.found()))
    }

    /// A number from 0 to 1.
    pub fn fraction(&self) -> Result<f64, String> {
        let number = match self {
            Raw::Float(number) => Some(*number),
            Raw::Integer(number @ 0..=1) => Some(*number as f64),
            Raw::Word(text) => text.trim().parse().ok(),
            _ => None,
        };
        number
            .filter(|number| (0.0..=1.0).contains(number))
            .ok_or_else(|| format!("expected a number from 0.0 to 1.0, found {}", self.found()))
    }

    /// True or false.
    pub fn flag(&self) -> Result<bool, String> {
        match self {
            Raw::Bool(flag) => Ok(*flag),
            Raw::Word(text) if text == "true" => Ok(true),
            Raw::Word(text) if text == "false" => Ok(false),
            other => Err(format!("expected true or false, found {}", other.found())),
        }
    }

    /// A duration with its unit.
    pub fn duration(&self) -> Result<std::time::Duration, String> {
        match self {
            Raw::Text(text) | Raw::Word(text) => crate::units::duration(text),
            other => Err(format!("expected a duration with its unit, such as \"2 s\", found {}", other.found())),
        }
    }

    /// A size with its unit.
    pub fn size(&self) -> Result<u64, String> {
        match self {
            Raw::Text(text) | Raw::Word(text) => crate::units::size(text),
            other => Err(format!("expected a size with its unit, such as \"64 MiB\", found {}", other.found())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn entries_know_their_lines() {
        let text = "name = \"x\"\n\n[limits]\n# a comment\nflows = 5\nrpc.deep = 1\nrpc.deeper.still = 1\n";
        let found = entries(text).unwrap();
        let places: Vec<(&str, &str, usize)> =
            found.iter().map(|entry| (entry.section.as_str(), entry.key.as_str(), entry.line)).collect();
        assert_eq!(
            places,
            [("", "name", 1), ("limits", "flows", 5), ("limits.rpc", "deep", 6), ("limits.rpc", "deeper", 7)]
        );
        assert_eq!(found[3].value, Raw::Other("a section"));
    }

    #[test]
    fn what_is_not_toml_is_told_with_its_line() {
        assert_eq!(entries("a = 1\nb = \n").unwrap_err().line, 2);
        assert_eq!(entries("a = 1\na = 2\n").unwrap_err().line, 2);
    }

    #[test]
    fn the_nearest_name_is_offered_only_if_it_is_near() {
        let known = || ["listen", "linger"].map(str::to_owned).into_iter();
        assert!(unknown("listen", known()).ends_with("did you mean 'listen'?"));
        assert_eq!(unknown("zzz", known()), "unknown key 'zzz'");
    }

    #[test]
    fn values_of_the_wrong_kind_say_what_was_expected() {
        assert!(Raw::Text("5".into()).count(1, 9).unwrap_err().contains("found '5'"));
        assert!(Raw::Integer(0).count(1, 9).unwrap_err().contains("from 1 to 9"));
        assert_eq!(Raw::Word("5".into()).count(1, 9), Ok(5));
        assert!(Raw::Integer(2).duration().is_err());
        assert!(Raw::Float(f64::NAN).fraction().is_err());
        assert_eq!(Raw::Integer(1).fraction(), Ok(1.0));
    }
}
