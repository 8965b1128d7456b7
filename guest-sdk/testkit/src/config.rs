//! Changes single keys of a TOML file and leaves the rest as it is.

/// `text` with `key = value` in `[section]`; `value` is TOML already. A key that is there is replaced.
pub fn with_key(text: &str, section: &str, key: &str, value: &str) -> String {
    let header = format!("[{section}]");
    let entry = format!("{key} = {value}");
    let mut lines: Vec<&str> = text.lines().collect();
    let Some(start) = lines.iter().position(|line| line.trim() == header) else {
        lines.extend([header.as_str(), entry.as_str()]);
        return join(&lines);
    };
    let end = lines[start + 1..]
        .iter()
        .position(|line| line.trim_start().starts_with('['))
        .map_or(lines.len(), |offset| start + 1 + offset);
    let same =
        lines[start + 1..end].iter().position(|line| line.split_once('=').is_some_and(|(name, _)| name.trim() == key));
    match same {
        Some(offset) => lines[start + 1 + offset] = &entry,
        None => lines.insert(start + 1, &entry),
    }
    join(&lines)
}

fn join(lines: &[&str]) -> String {
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::with_key;

    #[test]
    fn a_new_section_goes_to_the_end() {
        assert_eq!(with_key("[a]\nx = 1\n", "b", "y", "2"), "[a]\nx = 1\n[b]\ny = 2\n");
        assert_eq!(with_key("", "b", "y", "2"), "[b]\ny = 2\n");
    }

    #[test]
    fn a_new_key_goes_into_its_section() {
        assert_eq!(with_key("[a]\nx = 1\n[b]\nx = 3\n", "a", "y", "2"), "[a]\ny = 2\nx = 1\n[b]\nx = 3\n");
    }

    #[test]
    fn a_key_is_replaced_in_its_section_only() {
        let text = "[a]\n# x = 0\nx = 1\n[b]\nx = 3\n";
        assert_eq!(with_key(text, "b", "x", "4"), "[a]\n# x = 0\nx = 1\n[b]\nx = 4\n");
        assert_eq!(with_key(text, "a", "x", "4"), "[a]\n# x = 0\nx = 4\n[b]\nx = 3\n");
    }
}
