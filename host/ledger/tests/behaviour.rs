//! `docs/behaviour.md` against the table of rules.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use maxhost_ledger::Rule;

/// The text of each numbered section, by its number.
fn sections() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/behaviour.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            current = title.split(' ').next().unwrap().to_owned();
        }
        found.entry(current.clone()).or_default().push_str(&format!("{line}\n"));
    }
    found
}

#[test]
fn every_rule_is_stated_in_its_section() {
    let sections = sections();
    let stated = |rule: &Rule| {
        let text = sections.get(rule.section())?;
        let groups = ["encumbrance-", "contract-", "constraint-"];
        let by_group =
            groups.iter().any(|group| rule.as_str().starts_with(group) && text.contains(&format!("`{group}…`")));
        Some(by_group || text.contains(&format!("`{rule}`")))
    };
    let missing: Vec<String> = Rule::ALL
        .iter()
        .filter(|rule| stated(rule) != Some(true))
        .map(|rule| format!("{rule} in {}", rule.section()))
        .collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn code_refers_to_sections_that_exist() {
    let sections = sections();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut checked = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            for reference in std::fs::read_to_string(&path).unwrap().split("behaviour.md").skip(1) {
                let number: String =
                    reference.trim_start().chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
                let number = number.trim_end_matches('.');
                if number.contains('.') {
                    assert!(sections.contains_key(number), "{}: there is no section {number}", path.display());
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 30, "{checked}");
}
