//! `maxhost cordapp new`: a crate of a few lines with a test that passes.

use std::path::{Path, PathBuf};

use maxhost_model::{Code, Problem};
use serde_json::json;

use crate::context::{Context, Outcome};
use crate::embedded_sdk;
use crate::files;

/// Names that no crate of ours can have: words of the language, and crates that it would hide.
#[rustfmt::skip]
const TAKEN: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else", "enum",
    "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod", "move", "mut",
    "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof",
    "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
    "alloc", "core", "proc_macro", "std", "test",
    "maxhost_sdk", "maxhost_testkit", "schemars", "serde", "serde_json",
];

/// Writes a new CorDapp into a folder of its name.
pub fn execute(context: &Context, name: &str) -> Outcome {
    check_name(name)?;
    let folder = PathBuf::from(name);
    if folder.exists() {
        return Err(Problem::new(Code::DirectoryInUse, format!("{} exists already", folder.display()))
            .remedy("choose another name, or remove what is there"));
    }
    let sdk = embedded_sdk::unpack()?.join("guest-sdk");
    let sdk = sdk.display().to_string();
    let replacements = [("{{name}}", name), ("{{crate_name}}", &name.replace('-', "_")), ("{{sdk_path}}", &sdk)];
    let mut written = Vec::new();
    for (path, text) in embedded_sdk::template() {
        let fill = |text: &str| replacements.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        let file = folder.join(fill(path.strip_suffix(".tmpl").unwrap_or(path)));
        files::create_dir(file.parent().unwrap_or(&folder))?;
        files::write_atomically(&file, fill(text).as_bytes())?;
        written.push(file.display().to_string());
    }
    if written.is_empty() {
        return Err(Problem::new(Code::Internal, "this program was built without the template of a CorDapp"));
    }
    point_tests_here(&folder)?;
    let object = json!({"name": name, "dir": folder.display().to_string(), "files": written});
    context.out.object(&object, || folder.display().to_string());
    context.out.note(&format!("next: cd {name} && cargo test"));
    Ok(0)
}

fn check_name(name: &str) -> Result<(), Problem> {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
    let taken = TAKEN.contains(&name.replace('-', "_").as_str());
    if plain && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.len() <= 64 && !taken {
        return Ok(());
    }
    if taken {
        let message = format!("'{name}' cannot be the name of a CorDapp: Rust has a meaning for it");
        return Err(Problem::new(Code::NameInvalid, message).remedy("choose another name"));
    }
    Err(Problem::new(Code::NameInvalid, format!("'{name}' cannot be the name of a CorDapp"))
        .remedy("use up to 64 lower-case letters, digits and hyphens, beginning with a letter"))
}

/// Tells the tests of the crate which host to run: this one.
fn point_tests_here(folder: &Path) -> Result<(), Problem> {
    let program = std::env::current_exe()
        .map_err(|error| Problem::new(Code::Internal, format!("this program cannot find itself: {error}")))?;
    let quoted = toml_edit::Value::from(program.display().to_string()).to_string();
    let text = format!("# The host that `cargo test` runs flows on.\n[env]\nMAXHOST_BIN = {}\n", quoted.trim());
    let cargo = folder.join(".cargo");
    files::create_dir(&cargo)?;
    files::write_atomically(&cargo.join("config.toml"), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_crates() {
        for name in ["a", "ping-pong", "x2_y"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "Ping", "2x", "a/b", "..", "-a", "a b", "fn", "self", "std", "serde-json"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
