//! Arrows between the modules of this crate point downwards, and never in a circle; nor do files of modules name each other in one.
//! Modules, their layers and their files are those of the table in `docs/architecture.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What only tests are compiled with.
const ONLY_FOR_TESTS: &str = "simulation";

struct Module {
    layer: u32,
    /// The files and folders in it. None are listed for a module that is looked at as one.
    files: BTreeSet<String>,
}

type Modules = BTreeMap<String, Module>;
/// Whom each names, with a file that does: modules that are looked at as one by name, files in other modules as `module::file`.
type Arrows = BTreeMap<String, BTreeMap<String, PathBuf>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The words in code quotes.
fn quoted(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// The table: a layer, a module, and its files.
fn modules() -> Modules {
    let page = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let (_, section) = page.split_once("## The modules of `flows`\n").expect("the page has the modules of this crate");
    let mut modules = Modules::new();
    for line in section.lines().take_while(|line| !line.starts_with('#')) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, layer, module, files, ..] = cells.as_slice() else { continue };
        let Ok(layer) = layer.parse() else { continue };
        let name = quoted(module).next().expect("a row names a module");
        let module = Module { layer, files: quoted(files).collect() };
        assert!(modules.insert(name.clone(), module).is_none(), "{name} has two rows");
    }
    modules
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

/// Where a file is: the module, and what it is in there, `mod` for the module's own.
fn place_of(file: &Path) -> (String, String) {
    let mut names = file.components().map(|part| part.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned());
    (names.next().unwrap(), names.next().unwrap_or_else(|| "mod".to_owned()))
}

/// The paths that begin with `crate`, each as its first two names.
fn named_in(code: &str) -> impl Iterator<Item = (String, String)> {
    code.split("crate::").skip(1).map(|rest| {
        assert!(!rest.starts_with('{'), "each path is written out, for this test to see it: {rest:.80}");
        let path = rest.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | ':')).next().unwrap();
        let mut names = path.split("::").map(str::to_owned);
        (names.next().unwrap(), names.next().unwrap_or_default())
    })
}

fn arrows(modules: &Modules) -> Arrows {
    let node = |module: &str, file: &str| match modules.get(module) {
        Some(known) if !known.files.is_empty() => format!("{module}::{file}"),
        _ => module.to_owned(),
    };
    let source = source();
    let mut found = Vec::new();
    files(&source, &mut found);
    let mut arrows = Arrows::new();
    for file in found {
        let inside = file.strip_prefix(&source).unwrap();
        let (module, own) = place_of(inside);
        if module == "lib" || module == ONLY_FOR_TESTS {
            continue;
        }
        let mut code = code_of(&std::fs::read_to_string(&file).unwrap());
        if inside.components().count() == 2 {
            // To a file of a module, the module is what is above it.
            code = code.replace("super::", &format!("crate::{module}::"));
        }
        let own = node(&module, &own);
        let of_own = arrows.entry(own.clone()).or_default();
        for (other, file) in named_in(&code) {
            // Names in capitals are those that lib.rs exports.
            if other.starts_with(|c: char| c.is_ascii_lowercase()) && other != ONLY_FOR_TESTS {
                let other = node(&other, &file);
                if other != own {
                    of_own.entry(other).or_insert_with(|| inside.to_owned());
                }
            }
        }
    }
    arrows
}

fn module_of(node: &str) -> &str {
    node.split("::").next().unwrap()
}

/// The same, with each module as one.
fn between_modules(arrows: &Arrows) -> Arrows {
    let mut between = Arrows::new();
    for (own, named) in arrows {
        let of_own = between.entry(module_of(own).to_owned()).or_default();
        for (other, file) in named {
            if module_of(other) != module_of(own) {
                of_own.entry(module_of(other).to_owned()).or_insert_with(|| file.clone());
            }
        }
    }
    between
}

/// Those that are in a circle, or name one that is.
fn in_circles(mut left: Arrows) -> Arrows {
    // Whoever names nobody that is left is in no circle.
    while let Some(module) = left.iter().find(|(_, named)| !named.keys().any(|other| left.contains_key(other))) {
        let module = module.0.clone();
        left.remove(&module);
    }
    left
}

#[test]
fn the_table_has_every_module_and_every_file_in_it() {
    let modules = modules();
    let arrows = arrows(&modules);
    let there: BTreeSet<&str> = arrows.keys().map(|node| module_of(node)).collect();
    assert_eq!(
        modules.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        there,
        "modules of the table, and those there are"
    );
    for (name, module) in modules.iter().filter(|(_, module)| !module.files.is_empty()) {
        let nodes = arrows.keys().filter_map(|node| node.strip_prefix(name)?.strip_prefix("::"));
        let there: BTreeSet<String> = nodes.filter(|file| *file != "mod").map(str::to_owned).collect();
        assert_eq!(module.files, there, "files that the table has of {name}, and those there are");
    }
}

#[test]
fn a_module_names_modules_of_lower_layers_only() {
    let modules = modules();
    for (module, named) in between_modules(&arrows(&modules)) {
        for (other, file) in named {
            let (own, its) = (modules[&module].layer, modules[&other].layer);
            assert!(its < own, "{} of layer {own} names `{other}` of layer {its}", file.display());
        }
    }
}

#[test]
fn no_files_of_modules_name_each_other_in_a_circle() {
    let modules = modules();
    let arrows = arrows(&modules);
    for (own, named) in &arrows {
        for (other, file) in named {
            assert!(arrows.contains_key(other), "{} names `{other}`, which is no file of a module", file.display());
        }
        assert!(!own.ends_with("::mod") || named.is_empty(), "`{own}` tells the story of its module and has no code");
    }
    let left = in_circles(arrows);
    assert!(left.is_empty(), "these are in a circle, or name one that is: {left:#?}");
}

#[test]
fn the_check_sees_code_and_neither_comments_nor_tests() {
    let text = "//! crate::a\nuse crate::b::c;\n// crate::d\n#[cfg(test)]\nmod tests {\n    use crate::e;\n}\n";
    assert_eq!(code_of(text), "use crate::b::c;");
    assert_eq!(named_in(&code_of(text)).collect::<Vec<_>>(), [("b".to_owned(), "c".to_owned())]);
    let arrows = arrows(&modules());
    assert!(arrows["commit::unit"].contains_key("delivery::router"), "an arrow that there is");
    assert!(between_modules(&arrows)["commit"].contains_key("delivery"), "an arrow between modules");
}

#[test]
fn the_check_finds_circles() {
    let arrow = |from: &str, to: &str| (from.to_owned(), BTreeMap::from([(to.to_owned(), PathBuf::new())]));
    let none = ("c".to_owned(), BTreeMap::new());
    assert!(in_circles(Arrows::from([arrow("a", "b"), arrow("b", "c"), none.clone()])).is_empty());
    assert_eq!(in_circles(Arrows::from([arrow("a", "b"), arrow("b", "a"), none])).len(), 2);
}
