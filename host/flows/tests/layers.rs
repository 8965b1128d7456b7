//! Arrows between the modules of this crate point downwards, or to a module of the same layer, and never in a circle.
//! The layers are those of the table in `docs/architecture.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What only tests are compiled with.
const ONLY_FOR_TESTS: &str = "simulation";

type Layers = BTreeMap<String, u32>;
/// Which modules a module names, each with a file that does.
type Arrows = BTreeMap<String, BTreeMap<String, PathBuf>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The table: a layer, and its modules in code quotes.
fn layers() -> Layers {
    let page = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let (_, section) = page.split_once("## The modules of `flows`\n").expect("the page has the layers of this crate");
    let mut layers = Layers::new();
    for line in section.lines().take_while(|line| !line.starts_with('#')) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, layer, modules, ..] = cells.as_slice() else { continue };
        let Ok(layer) = layer.parse() else { continue };
        for module in modules.split('`').skip(1).step_by(2) {
            assert!(layers.insert(module.to_owned(), layer).is_none(), "{module} is in two layers");
        }
    }
    layers
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What a file says outside of comments and of its own tests.
fn code_of(text: &str) -> String {
    let tests = ["#[cfg(test)]\nmod tests", "#[cfg(test)]\npub(crate) mod tests"];
    let end = tests.iter().filter_map(|begin| text.find(begin)).min().unwrap_or(text.len());
    let lines = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

fn arrows() -> Arrows {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&source, &mut found);
    let mut arrows = Arrows::new();
    for file in found {
        let inside = file.strip_prefix(&source).unwrap();
        let module =
            inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if module == "lib" || module == ONLY_FOR_TESTS {
            continue;
        }
        let of_module = arrows.entry(module.clone()).or_default();
        for rest in code_of(&std::fs::read_to_string(&file).unwrap()).split("crate::").skip(1) {
            let named: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if !named.is_empty() && named != module && named != ONLY_FOR_TESTS {
                of_module.entry(named).or_insert_with(|| inside.to_owned());
            }
        }
    }
    arrows
}

#[test]
fn every_module_has_a_layer_and_names_none_above_it() {
    let (layers, arrows) = (layers(), arrows());
    let known: BTreeSet<&String> = layers.keys().collect();
    assert_eq!(known, arrows.keys().collect(), "the modules of the table, and those that there are");
    for (module, named) in &arrows {
        for (other, file) in named {
            let (own, its) = (layers[module], layers[other]);
            assert!(its <= own, "{} of layer {own} names `{other}` of layer {its}", file.display());
        }
    }
}

#[test]
fn no_modules_name_each_other_in_a_circle() {
    let mut left = arrows();
    // Whoever names nobody that is left is in no circle.
    while let Some(module) = left.iter().find(|(_, named)| !named.keys().any(|other| left.contains_key(other))) {
        let module = module.0.clone();
        left.remove(&module);
    }
    assert!(left.is_empty(), "these are in a circle, or name one that is: {left:#?}");
}

#[test]
fn the_check_sees_code_and_neither_comments_nor_tests() {
    let text = "//! crate::a\nuse crate::b;\n// crate::c\n#[cfg(test)]\nmod tests {\n    use crate::d;\n}\n";
    assert_eq!(code_of(text), "use crate::b;");
    assert!(arrows()["unit"].contains_key("router"), "an arrow that there is");
}
