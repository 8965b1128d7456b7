//! Values of the file that are more than a text, a number or a time.

use std::path::PathBuf;

use maxhost_ownership::Roles;
use maxhost_store_postgres::Layout;

use super::keys::Evict;
use crate::strict_toml::Raw;

pub(super) fn memory(raw: &Raw) -> Result<Option<u64>, String> {
    match raw {
        Raw::Text(text) | Raw::Word(text) if text.trim() == "half" => Ok(None),
        raw => match raw.size()? {
            bytes if bytes < 1 << 20 => Err("flows need at least 1 MiB".to_owned()),
            bytes => Ok(Some(bytes)),
        },
    }
}

/// Where to listen, `host:port`. Whether the name has an address is not asked here.
pub(super) fn listen(raw: &Raw) -> Result<String, String> {
    let text = raw.text()?;
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text),
        _ => Err(format!("'{text}' is not an address to listen on: expected host:port, such as 127.0.0.1:0")),
    }
}

pub(super) fn layout(text: &str) -> Result<Layout, String> {
    match text {
        "schemas" => Ok(Layout::Schemas),
        "shared" => Ok(Layout::Shared),
        other => Err(format!("'{other}' is none of schemas, shared")),
    }
}

/// An empty text is none.
pub(super) fn optional_path(raw: &Raw) -> Result<Option<PathBuf>, String> {
    match raw {
        Raw::Text(text) | Raw::Word(text) if text.trim().is_empty() => Ok(None),
        raw => raw.text().map(|text| Some(text.into())),
    }
}

/// An empty text is none.
pub(super) fn optional_text(raw: &Raw) -> Result<Option<String>, String> {
    text_or_empty(raw).map(|text| Some(text).filter(|text| !text.is_empty()))
}

pub(super) fn text_or_empty(raw: &Raw) -> Result<String, String> {
    match raw {
        Raw::Text(text) | Raw::Word(text) if text.trim().is_empty() => Ok(String::new()),
        raw => raw.text(),
    }
}

/// What a process does.
pub(super) fn roles(raw: &Raw) -> Result<Roles, String> {
    let named: Vec<&str> = match raw {
        Raw::Texts(texts) => texts.iter().map(String::as_str).collect(),
        Raw::Text(text) | Raw::Word(text) => text.split(',').map(str::trim).filter(|role| !role.is_empty()).collect(),
        _ => return Err("expected a list of flows and rpc".to_owned()),
    };
    Roles::parse(named).map_err(|other| match other {
        Some(other) => format!("'{other}' is none of {}", Roles::NAMES.join(", ")),
        None => format!("a process has at least one of {}", Roles::NAMES.join(", ")),
    })
}

pub(super) fn evict(text: &str) -> Result<Evict, String> {
    match text {
        "after-linger" => Ok(Evict::AfterLinger),
        "never" => Ok(Evict::Never),
        "every-wait" => Ok(Evict::EveryWait),
        other => other
            .strip_prefix("random:")
            .and_then(|seed| seed.parse().ok())
            .map(Evict::Random)
            .ok_or_else(|| format!("'{other}' is none of after-linger, never, every-wait, random:SEED")),
    }
}
