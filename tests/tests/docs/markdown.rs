//! The little of Markdown that the tests of the documentation need: headings, fenced blocks, rows of tables.

/// A fenced block: what stands behind the fence, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The language, the first word behind the fence.
    pub language: String,
    /// The words behind the language, such as `file=src/lib.rs`.
    pub words: Vec<String>,
    /// The lines between the fences.
    pub text: String,
    /// Line of the opening fence, from 1.
    pub line: usize,
}

impl Block {
    /// The value of a word `key=value`.
    pub fn word(&self, key: &str) -> Option<&str> {
        self.words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }
}

/// All fenced blocks, in order.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        match (open, line.strip_prefix("```")) {
            (false, Some(info)) => {
                let mut words = info.split_whitespace().map(str::to_owned);
                let language = words.next().unwrap_or_default();
                found.push(Block { language, words: words.collect(), text: String::new(), line: index + 1 });
                open = true;
            }
            (true, Some(_)) => open = false,
            (true, None) => {
                if let Some(block) = found.last_mut() {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
            }
            (false, None) => {}
        }
    }
    found
}

/// Headings of one level with the text below each, up to the next heading of that level or a higher one.
pub fn sections(text: &str, level: usize) -> Vec<(String, String)> {
    let mark = format!("{} ", "#".repeat(level));
    let mut found: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(title) = line.strip_prefix(&mark) {
            found.push((title.trim().to_owned(), String::new()));
            inside = true;
        } else if (1..level).any(|higher| line.starts_with(&format!("{} ", "#".repeat(higher)))) {
            inside = false;
        } else if let (true, Some((_, body))) = (inside, found.last_mut()) {
            body.push_str(line);
            body.push('\n');
        }
    }
    found
}

/// The cells of all table rows but headers and rulers, without the code marks around a cell.
pub fn rows(text: &str) -> Vec<Vec<String>> {
    let lines: Vec<&str> = text.lines().collect();
    let is_ruler = |line: &str| line.starts_with('|') && line.chars().all(|c| "|-: ".contains(c));
    let cells = |line: &str| {
        let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
        inner.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let is_row = |&(index, line): &(usize, &str)| {
        let header = lines.get(index + 1).is_some_and(|next| is_ruler(next));
        line.starts_with('|') && !is_ruler(line) && !header
    };
    lines.iter().copied().enumerate().filter(is_row).map(|(_, line)| cells(line)).collect()
}
