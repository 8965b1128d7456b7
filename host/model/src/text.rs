//! Showing text that others wrote: peers, CorDapps, files. It never begins a line of its own, moves a cursor or changes
//! the direction of what stands beside it.

use std::borrow::Cow;

/// Whether a character does something else than stand in its line: control characters (Unicode category Cc), the line and
/// paragraph separators, and the controls of bidirectional text (UAX #9), which make a text read otherwise than it is.
#[must_use]
pub fn is_unruly(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Whether every database can hold a text: PostgreSQL has no NUL character in any (its manual, "Character Types").
#[must_use]
pub fn is_storable(text: &str) -> bool {
    !text.contains('\0')
}

/// A text in one line: each unruly character is written as Rust would write it (`\n`, `\t`, `\u{1b}`).
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unruly) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unruly(c) { line.extend(c.escape_default()) } else { line.push(c) }
    }
    Cow::Owned(line)
}

/// JSON text in one line for every reader. JSON itself escapes only the characters below U+0020; a reader that splits at
/// U+0085 or U+2028 would find lines in the middle of a string. All these stand in strings, where `\uXXXX` says the same.
#[must_use]
pub fn json_line(json: String) -> String {
    if !json.contains(is_unruly) {
        return json;
    }
    let mut line = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        // Between values JSON allows line breaks and tabs; there they say nothing.
        match c {
            '\n' | '\r' | '\t' => line.push(' '),
            c if is_unruly(c) => line.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_leaves_its_line() {
        assert_eq!(one_line("caf\u{e9} \u{1f600}"), "caf\u{e9} \u{1f600}");
        assert_eq!(one_line("a\nb\r\u{1b}[31m\u{85}\u{2028}\u{202e}"), "a\\nb\\r\\u{1b}[31m\\u{85}\\u{2028}\\u{202e}");
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            assert!(!one_line(&c.to_string()).contains(is_unruly), "{c:?}");
        }
    }

    #[test]
    fn a_text_with_nul_is_in_no_database() {
        assert!(is_storable("") && is_storable("caf\u{e9}\n\u{1}"));
        assert!(!is_storable("\0") && !is_storable("a\0b"));
    }

    #[test]
    fn json_says_the_same_in_one_line() {
        let text = "a\u{85}b\u{2028}c\u{202e}d\ne\u{7f}";
        let json = json_line(serde_json::Value::from(text).to_string());
        assert!(!json.contains(is_unruly), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).ok().as_deref(), Some(text));
        assert_eq!(json_line("{\n  \"a\": 1\n}".to_owned()), "{   \"a\": 1 }");
    }
}
